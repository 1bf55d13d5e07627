use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::mpsc;

use super::super::lifecycle::Lifecycle;
use super::super::state::ConnectionLimits;
use super::*;
use crate::config::AccessTarget;
use crate::runtime::tests::{DRIVERS, on_workers};
use crate::runtime::{ClientStream, Driver, TcpListener};
use crate::telemetry::{AccessLog, Metrics, RequestIds};
use crate::transfer::Whole;

/// Panics at `/panic`, reads a body at `/body` and three bytes of one at `/some`, and answers with
/// its path and what it has read.
struct Echo;

impl Handler for Echo {
    const IS_RECORDED: bool = true;

    fn begin(&self, head: &RequestHead, _peer: &Peer, _now: Instant) -> Begun {
        assert!(head.path() != "/panic-at-once", "a bug");
        match head.path().strip_prefix("/at-once/") {
            Some(rest) => {
                let answer = Answer::new(200, Facts::of(RouteKind::Other));
                Begun::Answered(answer.memory("text/plain", rest.to_owned()))
            }
            None => Begun::Untouched,
        }
    }

    async fn answer(
        &self,
        head: &RequestHead,
        body: &mut Inlet<'_>,
        _peer: &Peer,
        _begun: Begun,
    ) -> Answer {
        assert!(head.path() != "/panic", "a bug");
        let mut text = head.path().to_owned().into_bytes();
        if head.path() == "/body" {
            loop {
                match body.next().await {
                    Ok(Some(piece)) => text.extend_from_slice(&piece),
                    Ok(None) => break,
                    Err(error) => {
                        text = error.to_string().into_bytes();
                        break;
                    }
                }
            }
        }
        if head.path() == "/whole" {
            let whole = body.whole(300_000, || head.header("large").is_some()).await;
            text = match whole.unwrap() {
                Whole::Bytes(bytes) => format!("{} bytes", bytes.len()).into_bytes(),
                other => format!("{other:?}").into_bytes(),
            };
        }
        if head.path() == "/some" {
            assert_eq!(body.next().await.unwrap().as_deref(), Some(&b"abc"[..]));
        }
        Answer::new(200, Facts::of(RouteKind::Other)).memory("text/plain", text)
    }
}

fn serving(lifecycle: &Arc<Lifecycle>) -> Serving {
    Serving {
        worker: 0,
        limits: ConnectionLimits {
            connections_max: 10,
            head_timeout: Duration::from_millis(500),
            idle_timeout: Duration::from_millis(500),
            stall_timeout: Duration::from_secs(5),
            together_pace: Duration::from_secs(5),
        },
        lifecycle: lifecycle.clone(),
        counters: Metrics::new(1, []).worker(0),
        access_log: AccessLog::start(&AccessTarget::Off).unwrap(),
        request_ids: RequestIds::new(0),
        date: std::cell::RefCell::default(),
        spare: crate::server::spare::Spare::default(),
        answered: std::cell::Cell::default(),
        tls: None,
    }
}

/// Serves one connection after the other; returns what each client got for what it sent.
fn exchange(driver: Driver, sent: &[&[u8]]) -> Vec<String> {
    let (tell, address) = mpsc::channel::<SocketAddr>();
    let count = sent.len();
    let sent: Vec<Vec<u8>> = sent.iter().map(|bytes| bytes.to_vec()).collect();
    let clients = std::thread::spawn(move || {
        let address = address.recv().unwrap();
        let talk = |bytes: Vec<u8>| {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.write_all(&bytes).unwrap();
            if bytes.starts_with(b"PUT") {
                stream.shutdown(Shutdown::Write).unwrap();
            }
            let mut got = Vec::new();
            // A reset would be an error here.
            stream.read_to_end(&mut got).unwrap();
            let _ = stream.shutdown(Shutdown::Both);
            String::from_utf8(got).unwrap()
        };
        sent.into_iter().map(talk).collect::<Vec<_>>()
    });
    on_workers(1, driver, move |_| {
        let tell = tell.clone();
        async move {
            let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let serving = serving(&Lifecycle::new(1));
            for _ in 0..count {
                let (stream, peer) = listener.accept().await.unwrap();
                serve(&serving, &Echo, ClientStream::plain(stream), peer, None).await;
            }
        }
    });
    clients.join().unwrap()
}

fn get(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n")
}

#[test]
fn a_panic_ends_its_request_with_500_and_the_worker_serves_on() {
    for driver in DRIVERS {
        let panicking = get("/panic", "") + &get("/never", "");
        let after = get("/after", "Connection: close\r\n");
        let got = exchange(driver, &[panicking.as_bytes(), after.as_bytes()]);
        assert!(got[0].starts_with("HTTP/1.1 500 "), "{}", got[0]);
        assert!(got[0].contains("Connection: close") && !got[0].contains("/never"), "{}", got[0]);
        assert!(got[1].starts_with("HTTP/1.1 200 ") && got[1].ends_with("/after"), "{}", got[1]);
    }
}

#[test]
fn bodies_are_drained_so_that_the_next_request_is_found() {
    let last = get("/last", "Connection: close\r\n");
    for (body, served) in [
        ("Content-Length: 5\r\n\r\nGET /", true),
        ("Transfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\n\r\n", true),
        ("Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nGET /\r\n0\r\nT: t\r\n\r\n", true),
        // An empty chunk size is not the end.
        ("Transfer-Encoding: chunked\r\n\r\n\r\n", false),
        // More than is worth reading away.
        ("Content-Length: 65537\r\n\r\nGET /", false),
        // Nobody knows whether this client will send its body now.
        ("Content-Length: 5\r\nExpect: 100-continue\r\n\r\nGET /", false),
    ] {
        let sent = format!("GET /first HTTP/1.1\r\nHost: a\r\n{body}{last}");
        let got = exchange(Driver::IoUring, &[sent.as_bytes()]);
        assert!(got[0].contains("/first"), "{body}: {}", got[0]);
        assert_eq!(got[0].matches("HTTP/1.1 ").count(), if served { 2 } else { 1 }, "{body}");
        assert_eq!(got[0].contains("/last"), served, "{body}: {}", got[0]);
    }
}

#[test]
fn versions_differ_in_who_must_say_that_a_connection_stays() {
    for (request, answers, header) in [
        ("GET /a HTTP/1.0\r\n\r\n".to_owned(), 1, Some("Connection: close")),
        (
            "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_owned(),
            1,
            Some("Connection: keep-alive"),
        ),
        (get("/a", "") + &get("/b", "Connection: close\r\n"), 2, Some("Connection: close")),
        (get("/a", ""), 1, None),
    ] {
        let got = exchange(Driver::IoUring, &[request.as_bytes()]);
        assert_eq!(got[0].matches("HTTP/1.1 200").count(), answers, "{request}: {}", got[0]);
        match header {
            Some(header) => assert!(got[0].contains(header), "{request}: {}", got[0]),
            None => assert!(!got[0].contains("Connection:"), "{request}: {}", got[0]),
        }
    }
}

#[test]
fn a_head_that_does_not_come_is_408_and_silence_is_closed_in_silence() {
    for driver in DRIVERS {
        let got = exchange(driver, &[b"GET / HTTP/1.1\r\nHost", b"", b"\x16\x03\x01\x02\x00\x01"]);
        assert!(got[0].starts_with("HTTP/1.1 408 "), "{}", got[0]);
        assert_eq!(got[1], "");
        assert!(got[2].starts_with("HTTP/1.1 400 ") && got[2].contains("http://"), "{}", got[2]);
    }
}

#[test]
fn bodies_are_read_as_they_are_framed() {
    let last = get("/last", "Connection: close\r\n");
    for driver in DRIVERS {
        for (body, text, served) in [
            ("Content-Length: 5\r\n\r\nhello", "/bodyhello", true),
            ("Content-Length: 0\r\n\r\n", "/body", true),
            ("\r\n", "/body", true),
            (
                "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
                "/bodyhello",
                true,
            ),
            ("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "/body", true),
            ("Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n", "does not end with CR LF", false),
            ("Content-Length: 9999\r\n\r\nhello", "ended the connection after", false),
            (
                "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3",
                "ended the connection after 2",
                false,
            ),
            // It has sent some of it, so it waits no more.
            ("Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello", "/bodyhello", true),
        ] {
            let first = format!("PUT /body HTTP/1.1\r\nHost: a\r\n{body}");
            let ends = if served { last.as_str() } else { "" };
            let got = exchange(driver, &[(first + ends).as_bytes()]).remove(0);
            assert!(got.contains(text), "{body}: {got}");
            assert_eq!(got.contains("/last"), served, "{body}: {got}");
            assert!(!got.contains("100 Continue"), "{body}: {got}");
        }
        // What is left of a body is nobody's request.
        let sent =
            "PUT /some HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\n";
        let got = exchange(driver, &[(sent.to_owned() + &last).as_bytes()]).remove(0);
        assert!(got.contains("/some") && got.contains("Connection: close"), "{got}");
        assert!(!got.contains("/last"), "{got}");
    }
}

#[test]
fn bodies_are_taken_whole_within_their_bounds() {
    for (more, length, expected) in [
        ("", 0, "0 bytes"),
        ("", 5, "5 bytes"),
        ("", 256 * 1024, "262144 bytes"),
        ("", 290_000, "NotNow"),
        ("Large: yes\r\n", 290_000, "290000 bytes"),
        ("Large: yes\r\n", 300_000, "300000 bytes"),
        ("Large: yes\r\n", 300_001, "TooLarge"),
    ] {
        let head = format!("PUT /whole HTTP/1.1\r\nHost: a\r\n{more}");
        let body = "x".repeat(length);
        let plain = format!("{head}Content-Length: {length}\r\n\r\n{body}");
        let chunked = match length {
            0 => format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            _ => {
                format!("{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n")
            }
        };
        let got = exchange(Driver::IoUring, &[plain.as_bytes(), chunked.as_bytes()]);
        assert!(got.iter().all(|got| got.ends_with(expected)), "{more}{length}: {got:?}");
    }
}

#[test]
fn a_client_that_waits_is_told_to_go_on_when_its_body_is_wanted() {
    for driver in DRIVERS {
        let sent =
            "PUT /body HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
        let got = exchange(driver, &[sent.as_bytes()]).remove(0);
        assert!(got.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200"), "{got}");
        let got = exchange(driver, &[sent.replace("/body", "/other").as_bytes()]).remove(0);
        assert!(got.starts_with("HTTP/1.1 200") && !got.contains("100 Continue"), "{got}");
    }
}

#[test]
fn answers_that_are_sent_together_are_each_their_client_s() {
    const CLIENTS: usize = 8;
    for driver in DRIVERS {
        let (tell, address) = mpsc::channel::<SocketAddr>();
        let clients = std::thread::spawn(move || {
            let address = address.recv().unwrap();
            let connect = |_| std::net::TcpStream::connect(address).unwrap();
            let mut streams: Vec<_> = (0..CLIENTS).map(connect).collect();
            for round in 0..50 {
                let last = if round == 49 { "Connection: close\r\n" } else { "" };
                let body = |n: usize| format!("{round} {n} {}", "x".repeat(97 * n * (round % 3)));
                for (n, stream) in streams.iter_mut().enumerate() {
                    let path = format!("/at-once/{}", body(n).replace(' ', "-"));
                    stream.write_all(get(&path, last).as_bytes()).unwrap();
                }
                for (n, stream) in streams.iter_mut().enumerate() {
                    let expected = body(n).replace(' ', "-");
                    let mut got = Vec::new();
                    while !got.ends_with(format!("\r\n\r\n{expected}").as_bytes()) {
                        let mut piece = [0; 4096];
                        let length = stream.read(&mut piece).unwrap();
                        assert!(length > 0, "{round} {n}: {}", String::from_utf8_lossy(&got));
                        got.extend_from_slice(&piece[..length]);
                    }
                    assert_eq!(got.windows(9).filter(|part| part == b"HTTP/1.1 ").count(), 1);
                }
            }
        });
        on_workers(1, driver, move |_| {
            let tell = tell.clone();
            async move {
                let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let serving = serving(&Lifecycle::new(1));
                let mut served = Vec::new();
                for _ in 0..CLIENTS {
                    let (stream, peer) = listener.accept().await.unwrap();
                    let stream = ClientStream::plain(stream);
                    served.push(Box::pin(serve(&serving, &Echo, stream, peer, None)));
                }
                futures_util::future::join_all(served).await;
                assert_eq!(serving.answered.get(), 50 * CLIENTS as u64);
            }
        });
        clients.join().unwrap();
    }
}

#[test]
fn pipelined_requests_are_answered_in_their_order_whether_or_not_they_take_a_wait() {
    let at_once = |n: usize| format!("/at-once/{n}:{}", "x".repeat(700));
    let last = get("/last", "Connection: close\r\n");
    for driver in DRIVERS {
        // More answers than are held, one that waits among them.
        let paths: Vec<String> =
            (0..120).map(|n| if n == 70 { "/waits".to_owned() } else { at_once(n) }).collect();
        let sent: String = paths.iter().map(|path| get(path, "")).collect();
        let got = exchange(driver, &[(sent + &last).as_bytes()]).remove(0);
        let bodies = paths.iter().map(|path| path.trim_start_matches("/at-once/"));
        let mut rest = got.as_str();
        for body in bodies.chain(["/last"]) {
            let head = rest.find("\r\n\r\n").unwrap();
            assert!(rest.starts_with("HTTP/1.1 200 OK\r\n"), "{rest}");
            rest = rest[head + 4..].strip_prefix(body).unwrap();
        }
        assert_eq!(rest, "");
        // What ends the connection comes behind what was held.
        for (end, status) in [
            (get("/panic-at-once", ""), 500),
            (get("/panic", ""), 500),
            ("NO\r\n\r\n".to_owned(), 400),
            ("\u{16}\u{3}\u{1}".to_owned(), 400),
        ] {
            let sent = get("/at-once/a", "") + &get("/at-once/b", "") + &end + &last;
            let got = exchange(driver, &[sent.as_bytes()]).remove(0);
            let answers: Vec<&str> = got.split("HTTP/1.1 ").skip(1).map(|one| &one[..3]).collect();
            assert_eq!(answers, ["200", "200", &status.to_string()], "{end}: {got}");
            assert!(!got.contains("/last"), "{end}: {got}");
        }
    }
}
