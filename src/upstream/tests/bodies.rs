//! Heads and bodies: what is sent, what is taken, what is refused, how a body may end.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::origin::{Answer, Origin, ok, response, status};
use super::world::{World, failure, fetch, get, namespace, request};
use crate::http::ByteRange;
use crate::oci::media_type::MANIFEST_ACCEPT;
use crate::upstream::{Accept, Method, Phase, UpstreamError};

const FAST: &str = "stall_timeout = \"300ms\"";

fn world(origin: &Origin, more: &str) -> std::sync::Arc<World> {
    World::new(&format!("endpoints = [\"{}\"]\n{more}", origin.url("")))
}

#[test]
fn a_request_is_ours_and_the_connection_is_kept() {
    let origin = Origin::start(|_| ok(b"hello"));
    let seen = origin.clone();
    let world = world(&origin, "");
    world.run(move |client| {
        let seen = seen.clone();
        async move {
            let mut first = request(Method::Get, "/v2/team/app/manifests/latest");
            first.accept = Accept::Manifests;
            first.query = Some("n=1&ns=evil.test&%6Es=evil.test&last=x".to_owned());
            first.if_none_match = Some(format!("\"sha256:{}\"", "a".repeat(64)));
            let mut response = client.exchange(&namespace(), first).await.expect("an answer");
            assert_eq!((response.status, response.content_length), (200, Some(5)));
            assert_eq!(response.body.collect(5).await.expect("a body"), "hello");
            assert_eq!(fetch(&client, "/v2/team/app/blobs/x").await.expect("a body"), "hello");
            assert_eq!(client.idle_connections(), 1);

            let asked = seen.seen();
            assert_eq!(asked.iter().map(|s| s.connection).collect::<Vec<_>>(), [0, 0]);
            let first = asked.first().expect("a request");
            assert_eq!(first.line, "GET /v2/team/app/manifests/latest?n=1&last=x HTTP/1.1");
            assert_eq!(first.header("accept"), Some(MANIFEST_ACCEPT));
            assert_eq!(first.header("accept-encoding"), Some("identity"));
            assert_eq!(first.header("host"), Some(seen.address.to_string().as_str()));
            assert!(first.header("user-agent").is_some_and(|ua| ua.starts_with("ringport/")));
            assert!(first.header("if-none-match").is_some_and(|tag| tag.starts_with("\"sha256:")));
            assert_eq!(first.header("authorization"), None);
            assert_eq!(asked.get(1).and_then(|s| s.header("accept")), Some("*/*"));
        }
    });
    assert_eq!(world.counts.bytes.load(Ordering::SeqCst), 10);
    assert_eq!(*world.counts.requests.lock().expect("counts"), [Some(200), Some(200)]);
}

#[test]
fn ns_is_set_for_a_namespace_aware_endpoint() {
    let origin = Origin::start(|_| ok(b""));
    let seen = origin.clone();
    world(&origin, "forward_ns = true").run(move |client| {
        let seen = seen.clone();
        async move {
            let mut tags = request(Method::Get, "/v2/team/app/tags/list");
            tags.query = Some("n=5&ns=evil.test".to_owned());
            client.exchange(&namespace(), tags).await.expect("an answer");
            fetch(&client, "/v2/team/app/blobs/x").await.expect("a body");
            let paths: Vec<_> = seen.seen().iter().map(|s| s.path().to_owned()).collect();
            assert_eq!(
                paths,
                ["/v2/team/app/tags/list?n=5&ns=r.test", "/v2/team/app/blobs/x?ns=r.test"]
            );
        }
    });
}

#[test]
fn a_path_that_leaves_the_api_is_our_own_mistake() {
    let origin = Origin::start(|_| ok(b""));
    let seen = origin.clone();
    world(&origin, "").run(move |client| {
        let seen = seen.clone();
        async move {
            let paths =
                ["/v1/x", "/v2/../x", "/v2/a/..", "/v2/a?b", "/v2/a#b", "/v2/a b", "/v2/%2e"];
            for path in paths {
                let error = failure(get(&client, path).await);
                assert!(matches!(error, UpstreamError::Request { .. }), "{path}: {error}");
                assert!(!error.is_failure_of_upstream());
            }
            assert_eq!(seen.connections(), 0);
        }
    });
}

#[test]
fn a_head_has_a_length_and_no_body() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nDocker-Content-Digest: d\r\n\r\n";
    let origin = Origin::start(move |_| Answer::Send(head.to_vec()));
    let seen = origin.clone();
    world(&origin, "").run(move |client| {
        let seen = seen.clone();
        async move {
            for _ in 0..3 {
                let ask = request(Method::Head, "/v2/team/app/manifests/x");
                let mut response = client.exchange(&namespace(), ask).await.expect("an answer");
                assert_eq!(response.content_length, Some(12_345));
                assert_eq!(response.header("docker-content-digest"), Some("d"));
                assert!(response.body.frame().await.is_none());
            }
            assert_eq!(seen.connections(), 1);
        }
    });
}

#[test]
fn a_large_body_comes_in_bounded_frames() {
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let sent = body.clone();
    let origin = Origin::start(move |_| ok(&sent));
    world(&origin, "").run(move |client| {
        let body = body.clone();
        async move {
            let mut response = get(&client, "/v2/team/app/blobs/x").await.expect("an answer");
            let mut received = Vec::new();
            while let Some(frame) = response.body.frame().await {
                let frame = frame.expect("a frame");
                assert!(!frame.is_empty() && frame.len() <= 256 * 1024, "{}", frame.len());
                received.extend_from_slice(&frame);
            }
            assert!(received == body);
            assert_eq!(response.body.received(), 3_000_000);
            assert_eq!(client.idle_connections(), 1);
        }
    });
}

#[test]
fn idle_connections_are_bounded() {
    let origin = Origin::start(|_| ok(b"x"));
    let seen = origin.clone();
    world(&origin, "").run(move |client| {
        let seen = seen.clone();
        async move {
            let asking = (0..24).map(|_| fetch(&client, "/v2/team/app/blobs/x"));
            for body in futures_util::future::join_all(asking).await {
                assert_eq!(body.expect("a body"), "x");
            }
            assert_eq!((seen.connections(), client.idle_connections()), (24, 16));
        }
    });
}

#[test]
fn a_stale_connection_is_replaced_once() {
    // The first connection answers one request and closes on the second without a byte.
    let origin = Origin::start(|seen| match (seen.connection, seen.path()) {
        (0, "/v2/team/app/blobs/2") => Answer::Close,
        (_, "/v2/team/app/blobs/3") => Answer::Close,
        _ => ok(b"x"),
    });
    let seen = origin.clone();
    world(&origin, "").run(move |client| {
        let seen = seen.clone();
        async move {
            fetch(&client, "/v2/team/app/blobs/1").await.expect("a body");
            assert_eq!(fetch(&client, "/v2/team/app/blobs/2").await.expect("a body"), "x");
            let connections: Vec<_> = seen.seen().iter().map(|s| s.connection).collect();
            assert_eq!(connections, [0, 0, 1]);
            // A new connection that gives nothing is not tried again: pooled, new, enough.
            let error = failure(get(&client, "/v2/team/app/blobs/3").await);
            assert!(matches!(error, UpstreamError::Closed { .. }), "{error}");
            assert_eq!(seen.connections(), 3);
        }
    });
}

#[test]
fn bodies_that_end_early_are_interrupted() {
    let cases: [(&str, Answer, u64, Option<u64>); 5] = [
        (
            "short",
            Answer::SendAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello".to_vec()),
            5,
            Some(10),
        ),
        (
            "chunked",
            Answer::SendAndClose(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec(),
            ),
            5,
            None,
        ),
        (
            "bad chunk",
            Answer::Send(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n"
                    .to_vec(),
            ),
            5,
            None,
        ),
        (
            "silent",
            Answer::Silence(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello".to_vec()),
            5,
            Some(10),
        ),
        (
            "empty",
            Answer::SendAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n".to_vec()),
            0,
            Some(10),
        ),
    ];
    for (name, answer, received, expected) in cases {
        let answer = std::sync::Mutex::new(Some(answer));
        let origin = Origin::start(move |_| {
            answer.lock().expect("not poisoned").take().unwrap_or(Answer::Close)
        });
        world(&origin, FAST).run(move |client| async move {
            let mut response = get(&client, "/v2/team/app/blobs/x").await.expect("an answer");
            let error = failure(response.body.collect(1 << 20).await);
            assert!(
                matches!(error, UpstreamError::Interrupted { received: r, expected: e, .. }
                    if r == received && e == expected),
                "{name}: {error:?}"
            );
            assert!(error.is_failure_of_upstream());
            assert!(response.body.frame().await.is_none(), "{name}");
            assert_eq!(client.idle_connections(), 0, "{name}");
        });
    }
}

#[test]
fn a_dripping_body_is_interrupted_though_it_never_falls_silent() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_vec();
    let origin = Origin::start(move |_| {
        Answer::Drip(head.clone(), vec![b'x'; 1000], Duration::from_millis(20))
    });
    world(&origin, FAST).run(move |client| async move {
        let began = Instant::now();
        let error = failure(fetch(&client, "/v2/team/app/blobs/x").await);
        assert!(matches!(error, UpstreamError::Interrupted { .. }), "{error}");
        assert!(error.to_string().contains("only"), "{error}");
        // The whole drip would take 20 s.
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    });
}

#[test]
fn a_slow_reader_is_not_a_slow_upstream() {
    let origin = Origin::start(|_| ok(&[7; 600]));
    world(&origin, FAST).run(move |client| async move {
        let mut response = get(&client, "/v2/team/app/blobs/x").await.expect("an answer");
        crate::runtime::sleep(Duration::from_millis(700)).await;
        assert_eq!(response.body.collect(600).await.expect("a body").len(), 600);
    });
}

#[test]
fn a_body_over_the_limit_is_not_collected() {
    let origin = Origin::start(|_| ok(b"0123456789"));
    world(&origin, "").run(move |client| async move {
        let mut response = get(&client, "/v2/team/app/manifests/x").await.expect("an answer");
        let error = failure(response.body.collect(9).await);
        assert!(matches!(error, UpstreamError::Protocol { .. }), "{error}");
    });
}

#[test]
fn replies_that_break_the_protocol_are_refused() {
    let chunked_and_length =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n";
    let many: String = (0..120).map(|n| format!("X-{n}: y\r\n")).collect();
    let huge = format!("X-Big: {}\r\n", "x".repeat(300_000));
    let large = format!("X-Big: {}\r\n", "x".repeat(40_000));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("gzip", response("200 OK", "Content-Encoding: gzip\r\n", b"\x1f\x8b")),
        ("206 unasked", response("206 Partial Content", "Content-Range: bytes 0-1/2\r\n", b"ab")),
        ("304 unasked", b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec()),
        ("204", b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        ("300", response("300 Multiple Choices", "", b"")),
        ("two lengths", response("200 OK", "Content-Length: 5\r\n", b"hello")),
        ("other lengths", response("200 OK", "Content-Length: 6\r\n", b"hello")),
        ("both framings", chunked_and_length.to_vec()),
        ("not HTTP", b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec()),
        ("HTTP/2", b"HTTP/2 200\r\n\r\n".to_vec()),
        ("many headers", response("200 OK", &many, b"")),
        ("large head", response("200 OK", &large, b"")),
        ("huge head", response("200 OK", &huge, b"")),
        ("obs-fold", response("200 OK", "X: a\r\n b\r\n", b"")),
    ];
    for (name, bytes) in cases {
        let origin = Origin::start(move |_| Answer::Send(bytes.clone()));
        world(&origin, "").run(move |client| async move {
            let error = failure(fetch(&client, "/v2/team/app/blobs/x").await);
            assert!(matches!(error, UpstreamError::Protocol { .. }), "{name}: {error:?}");
            assert!(error.is_failure_of_upstream());
            assert_eq!(client.idle_connections(), 0, "{name}");
        });
    }
}

#[test]
fn endless_interim_responses_meet_the_first_byte_timeout() {
    let flood = b"HTTP/1.1 102 Processing\r\n\r\n".repeat(4000);
    let origin = Origin::start(move |_| {
        Answer::Drip(
            b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(),
            flood.clone(),
            Duration::from_micros(10),
        )
    });
    world(&origin, "first_byte_timeout = \"300ms\"").run(move |client| async move {
        let error = failure(get(&client, "/v2/team/app/blobs/x").await);
        assert!(matches!(error, UpstreamError::Timeout { phase: Phase::FirstByte, .. }), "{error}");
    });
}

#[test]
fn a_second_response_behind_the_first_is_not_taken_for_the_next() {
    let mut twice = response("200 OK", "", b"first");
    twice.extend(response("200 OK", "", b"smuggled"));
    let origin = Origin::start(move |seen| match seen.path() {
        "/v2/team/app/blobs/1" => Answer::Send(twice.clone()),
        _ => ok(b"second"),
    });
    let seen = origin.clone();
    world(&origin, "").run(move |client| {
        let seen = seen.clone();
        async move {
            assert_eq!(fetch(&client, "/v2/team/app/blobs/1").await.expect("a body"), "first");
            assert_eq!(fetch(&client, "/v2/team/app/blobs/2").await.expect("a body"), "second");
            assert_eq!(seen.connections(), 2);
        }
    });
}

#[test]
fn a_range_is_asked_for_and_checked() {
    let origin = Origin::start(|seen| {
        assert_eq!(seen.header("range"), Some("bytes=5-"));
        let range = match seen.path() {
            "/v2/team/app/blobs/right" => "Content-Range: bytes 5-9/10\r\n",
            "/v2/team/app/blobs/wrong" => "Content-Range: bytes 4-8/10\r\n",
            _ => "",
        };
        match seen.path() {
            "/v2/team/app/blobs/whole" => ok(b"0123456789"),
            "/v2/team/app/blobs/416" => {
                // As distribution 2.8.2 does it: the blob's length, another body, the end.
                Answer::SendAndClose(
                    b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 999\r\n\r\nno".to_vec(),
                )
            }
            _ => Answer::Send(response("206 Partial Content", range, b"56789")),
        }
    });
    world(&origin, "").run(move |client| async move {
        let ask = |path: &str| {
            let mut request = request(Method::Get, &format!("/v2/team/app/blobs/{path}"));
            request.range = Some(ByteRange::From { first: 5, last: None });
            request
        };
        let mut right = client.exchange(&namespace(), ask("right")).await.expect("an answer");
        let range = right.content_range.expect("a range");
        assert_eq!((range.first, range.last, range.total), (5, 9, Some(10)));
        assert_eq!(right.body.collect(5).await.expect("a body"), "56789");
        for wrong in ["wrong", "none"] {
            let error = failure(client.exchange(&namespace(), ask(wrong)).await);
            assert!(matches!(error, UpstreamError::Protocol { .. }), "{error}");
        }
        let whole = client.exchange(&namespace(), ask("whole")).await.expect("an answer");
        assert_eq!((whole.status, whole.content_range), (200, None));
        let past = client.exchange(&namespace(), ask("416")).await.expect("an answer");
        assert_eq!(past.status, 416);
    });
}

#[test]
fn statuses_become_answers_or_errors() {
    let origin = Origin::start(|seen| match seen.path().rsplit('/').next() {
        Some("429") => status("429 Too Many Requests", "Retry-After: 7\r\n"),
        Some("503") => status("503 Unavailable", "Retry-After: 9\r\n"),
        Some("403") => status("403 Forbidden", ""),
        Some("401") => status("401 Unauthorized", ""),
        Some(code) => status(&format!("{code} x"), ""),
        None => Answer::Close,
    });
    world(&origin, "").run(move |client| async move {
        for code in ["404", "400", "405", "410", "416"] {
            let response = get(&client, &format!("/v2/team/app/{code}")).await.expect("an answer");
            assert_eq!(response.status.to_string(), code);
        }
        let seconds = |n| Some(Duration::from_secs(n));
        for (code, wait) in [("503", seconds(9)), ("500", None), ("408", None)] {
            let error = failure(get(&client, &format!("/v2/team/app/{code}")).await);
            assert!(matches!(error, UpstreamError::Failed { .. }), "{error}");
            assert!(error.is_failure_of_upstream() && error.retry_after() == wait);
        }
        for code in ["401", "403"] {
            let error = failure(get(&client, &format!("/v2/team/app/{code}")).await);
            assert!(matches!(error, UpstreamError::Denied { .. }), "{error}");
            assert!(!error.is_failure_of_upstream());
        }
        // Last: from then on it is left alone.
        let error = failure(get(&client, "/v2/team/app/429").await);
        assert!(matches!(error, UpstreamError::RateLimited { .. }), "{error}");
        assert!(error.is_failure_of_upstream() && error.retry_after() == seconds(7));
        let error = failure(get(&client, "/v2/team/app/404").await);
        let wait = error.retry_after().expect("a time");
        assert!(wait > Duration::from_secs(1) && wait <= Duration::from_secs(7), "{error}");
    });
}
