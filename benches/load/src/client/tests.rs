//! The load generator at servers that are right, wrong, and gone.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc::channel;
use std::time::Duration;

use super::clock::Clock;
use super::load::{Work, run};
use super::paced::{self, Pace};
use super::plain::Plain;
use super::{Ask, Body, Tally};
use crate::content::{BLOCK_BYTES, fill_block};

const SEED: u64 = 7;

/// What stands at the end of an answer that is cut there.
const CUT: &[u8] = b"<cut>";

/// Answers the n-th request of all with what `answer` makes; an empty answer closes, as does one
/// that ends in `CUT`. Its thread ends with the test's process.
fn serve(answer: impl Fn(usize) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let answer = std::sync::Arc::new((answer, AtomicUsize::new(0)));
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (mut socket, answer) = (socket.unwrap(), answer.clone());
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while socket.read(&mut buffer).is_ok_and(|got| got > 0) {
                    let n = answer.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let bytes = (answer.0)(n);
                    let cut = bytes.strip_suffix(CUT);
                    let is_last = cut.is_some() || bytes.is_empty();
                    if socket.write_all(cut.unwrap_or(&bytes)).is_err() || is_last {
                        break;
                    }
                }
            });
        }
    });
    addr
}

fn head(bytes: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n").into_bytes()
}

fn ask(body: Body) -> Ask {
    Ask::new("GET", "/x", "", 200, body)
}

/// Asks `count` times over one connection.
fn once(addr: SocketAddr, request: &Ask, count: usize) -> Tally {
    let (asks, next, clock) = (vec![request.clone(); count], AtomicUsize::new(0), Clock::default());
    clock.open();
    let spins = AtomicBool::new(count.is_multiple_of(2));
    let work =
        Work { addr, asks: &asks, connections: 1, once: Some(&next), spins: &spins, seed: 0 };
    run(work, &clock, channel().0).unwrap()
}

fn seeded(bytes: usize) -> Vec<u8> {
    let mut body = vec![0; bytes];
    for (n, block) in body.chunks_mut(BLOCK_BYTES).enumerate() {
        fill_block(SEED, n as u64, block);
    }
    body
}

#[test]
fn right_answers_count() {
    // Some answers take a while: one that is there at the first look leaves no look in vain.
    let addr = serve(|n| {
        std::thread::sleep(Duration::from_millis(if n < 20 { 3 } else { 0 }));
        [head(4), b"body".to_vec()].concat()
    });
    let tally = once(addr, &ask(Body::Small((*b"body").into())), 40);
    assert_eq!((tally.requests, tally.body_bytes, tally.wrong_count), (40, 160, 0));
    assert_eq!(tally.latency.len(), 40);
    assert!(tally.in_vain > Duration::ZERO, "it does not sleep until an answer comes");
    assert_eq!(tally.occupied(), tally.cpu + tally.in_vain);
}

#[test]
fn another_small_body_is_seen() {
    let addr = serve(|_| [head(4), b"bodx".to_vec()].concat());
    let tally = once(addr, &ask(Body::Small((*b"body").into())), 40);
    assert!(tally.wrong_count >= 2, "{:?}", tally.wrong);
    assert!(tally.wrong[0].contains("another one"), "{:?}", tally.wrong);
}

#[test]
fn another_status_or_length_is_seen_each_time() {
    let addr = serve(|_| b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec());
    let tally = once(addr, &ask(Body::Any), 11);
    assert_eq!((tally.requests, tally.wrong_count), (0, 11));
    assert_eq!(tally.told().last().unwrap(), "and 3 more");
    assert!(tally.wrong[0].contains("expected status 200, found 404"), "{:?}", tally.wrong);
    let addr = serve(|_| [head(3), b"bod".to_vec()].concat());
    let tally = once(addr, &ask(Body::Small((*b"body").into())), 5);
    assert_eq!(tally.wrong_count, 5, "{:?}", tally.wrong);
}

#[test]
fn a_large_body_is_compared_at_a_random_place() {
    const BYTES: usize = 2 << 20;
    let request = ask(Body::Seeded { bytes: BYTES as u64, seed: SEED });
    let addr = serve(|_| [head(BYTES), seeded(BYTES)].concat());
    let tally = once(addr, &request, 20);
    assert_eq!((tally.requests, tally.wrong_count), (20, 0), "{:?}", tally.wrong);
    assert_eq!(tally.body_bytes, 20 * BYTES as u64);
    // Half of it is of another blob: half of the pieces show it.
    let addr = serve(|_| {
        let mut body = seeded(BYTES);
        body[BYTES / 2..].fill(1);
        [head(BYTES), body].concat()
    });
    let tally = once(addr, &request, 20);
    assert!(tally.wrong_count >= 2, "{} of 20", tally.wrong_count);
    assert!(tally.wrong[0].contains("differs behind byte"), "{:?}", tally.wrong);
}

#[test]
fn a_body_that_is_cut_short_is_seen() {
    let addr = serve(|_| [head(100), b"abc".to_vec(), CUT.to_vec()].concat());
    let tally = once(addr, &ask(Body::Seeded { bytes: 100, seed: SEED }), 3);
    assert_eq!((tally.requests, tally.wrong_count), (0, 3));
    assert!(tally.wrong[0].contains("closed after 3 of 100 bytes"), "{:?}", tally.wrong);
    let tally = once(serve(|_| Vec::new()), &ask(Body::Any), 1);
    assert!(tally.wrong[0].contains("closed unasked"), "{:?}", tally.wrong);
}

#[test]
fn a_body_behind_its_end_is_seen_by_who_asks_one_by_one() {
    for (request, body) in [("GET", "body!"), ("HEAD", "b")] {
        let addr = serve(move |_| [head(4), body.as_bytes().to_vec()].concat());
        let request = format!("{request} / HTTP/1.1\r\n\r\n");
        let found = Plain::open(addr).unwrap().ask(request.as_bytes()).unwrap_err();
        assert!(found.to_string().contains("1 bytes more"), "{found}");
    }
}

#[test]
fn a_connection_that_is_closed_is_opened_again() {
    let addr = serve(|n| match n % 3 {
        0 => b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na".to_vec(),
        1 => Vec::new(),
        _ => [head(1), b"a".to_vec()].concat(),
    });
    let tally = once(addr, &ask(Body::Any), 30);
    assert_eq!((tally.requests, tally.wrong_count), (30, 0), "{:?}", tally.wrong);
    assert!(tally.reconnects >= 20, "{}", tally.reconnects);
}

#[test]
fn a_server_that_stalls_pays_for_all_that_was_due() {
    const STALL: Duration = Duration::from_millis(400);
    let (answered, enough) = channel();
    let addr = serve(move |n| {
        match n {
            // The stall itself.
            20 => std::thread::sleep(STALL),
            600 => drop(answered.send(())),
            _ => {}
        }
        [head(1), b"a".to_vec()].concat()
    });
    let (asks, clock) = ([ask(Body::Any)], &Clock::default());
    clock.open();
    let tally = std::thread::scope(|scope| {
        let pace = Pace { addr, asks: &asks, per_second: 1000, connections: 1 };
        let probe = scope.spawn(move || paced::run(pace, clock).unwrap());
        let came = enough.recv_timeout(Duration::from_secs(30));
        clock.stop();
        came.unwrap();
        probe.join().unwrap()
    });
    // One request alone was slow; 400 were due meanwhile, half of them for more than half of it.
    let slow = tally.latency.len() - tally.latency.count_between(0, (STALL / 2).as_nanos() as u64);
    assert!(slow > 100, "{slow} of {}", tally.latency.len());
}
