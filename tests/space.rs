//! A store that is smaller than what is pulled through it: room is made, nothing fails, and what
//! does not fit goes by.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::http::{self, Ending};
use support::images::random_bytes;
use support::lying::{Answer, LyingUpstream};
use support::rig::NS;
use support::secs;
use support::server::{Server, Setup, Upstream};

const MIB: usize = 1024 * 1024;
const REPOSITORY: &str = "org/app";

fn server(what: &str, upstream: &LyingUpstream, max_size: &str) -> Server {
    Setup::new(what)
        .upstream(Upstream::new(NS, &upstream.url()))
        .storage(&format!("max_size = \"{max_size}\""))
        .start()
}

fn blob(upstream: &LyingUpstream, name: &str, size: usize) -> (Vec<u8>, String) {
    let bytes = random_bytes(name, size);
    let digest = upstream.add_blob(REPOSITORY, &bytes);
    (bytes, format!("/v2/{REPOSITORY}/blobs/{digest}"))
}

fn stored_bytes(server: &Server) -> u64 {
    support::scratch::files_below(&server.root().join("blobs"))
        .iter()
        .map(|path| path.metadata().map_or(0, |metadata| metadata.len()))
        .sum()
}

#[test]
fn pulls_go_on_through_a_store_that_is_too_small_for_them() {
    let upstream = LyingUpstream::start();
    let server = server("small", &upstream, "16MiB");
    let addr = server.addr;
    // 64 MiB by 8 clients; each of them pulls one blob again and again between the others.
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (own, own_path) = blob(&upstream, &format!("own {client}"), 300_000);
            let others: Vec<_> =
                (0..8).map(|n| blob(&upstream, &format!("other {client} {n}"), MIB)).collect();
            std::thread::spawn(move || {
                let right = |path: &str, bytes: &[u8]| {
                    let answer = http::get(addr, &format!("{path}?ns={NS}"));
                    assert_eq!((answer.status(), answer.ending), (200, Ending::Complete));
                    assert!(answer.body == bytes, "wrong bytes");
                };
                for (bytes, path) in &others {
                    right(path, bytes);
                    right(&own_path, &own);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    // Room is made before it is used: not one byte over the limit.
    assert!(stored_bytes(&server) <= 16 * MIB as u64, "{} bytes stored", stored_bytes(&server));
    assert!(server.metric("ringport_evictions_total", &[]) > 0.0, "nothing had to go");
    server.assert_store_is_right();
}

#[test]
fn what_is_being_read_is_not_evicted() {
    for is_hit in [false, true] {
        let upstream = LyingUpstream::start();
        let server = server("slow", &upstream, "32MiB");
        // More than the sockets of a loopback connection take.
        let (bytes, path) = blob(&upstream, "read slowly", 16 * MIB);
        let target = format!("{path}?ns={NS}");
        if is_hit {
            assert_eq!(server.get(&target).ending, Ending::Complete);
            // The last byte is sent before the content is named.
            support::wait_until("the content to be known", secs(20), || {
                server.head(&target).header("cache-status") == "ringport; hit"
            });
        }
        let mut slow = server.connect();
        slow.request("GET", &target, &[]);
        let head = slow.read_head().unwrap();
        assert_eq!(head.headers.text("cache-status").ends_with("hit"), is_hit);
        let mut read = slow.read_exactly(100_000).unwrap();
        // What is worth more goes in its stead, though used as lately and of a quarter its size.
        for n in 0..24 {
            let (other, other_path) = blob(&upstream, &format!("other {n}"), 4 * MIB);
            let answer = server.get(&format!("{other_path}?ns={NS}"));
            assert!(answer.body == other, "a wrong body of the other {n}");
            assert!(stored_bytes(&server) <= 32 * MIB as u64);
        }
        assert!(server.metric("ringport_evictions_total", &[]) >= 20.0, "too few had to go");
        let answer = server.get(&target);
        assert_eq!(answer.header("cache-status"), "ringport; hit", "read by a hit: {is_hit}");
        assert!(answer.body == bytes);
        read.extend(slow.read_exactly(bytes.len() - read.len()).unwrap());
        assert!(read == bytes, "wrong bytes for the slow reader");
        assert_eq!(upstream.count("GET", &path), 1);
    }
}

#[test]
fn content_of_unknown_size_takes_no_more_than_there_is() {
    let upstream = LyingUpstream::start();
    let server = server("chunked", &upstream, "8MiB");
    let pull = |n: u32, size: usize| {
        let (bytes, path) = blob(&upstream, &format!("chunked {n}"), size);
        upstream.script("GET", &path, [Answer::right().chunked()]);
        (bytes, server.get(&format!("{path}?ns={NS}")))
    };
    for n in 0..6 {
        let (bytes, answer) = pull(n, 3 * MIB);
        assert_eq!((answer.status(), answer.ending), (200, Ending::Complete));
        assert!(answer.body == bytes && stored_bytes(&server) <= 8 * MIB as u64);
    }
    let (_, answer) = pull(6, 9 * MIB);
    assert_ne!(answer.status(), 200, "nobody can pass through what has no length");
    server.await_empty_staging(secs(20));
    assert!(stored_bytes(&server) <= 8 * MIB as u64);
    assert_eq!(server.metric("ringport_store_reserved_bytes", &[]), 0.0);
}

#[test]
fn what_is_larger_than_the_store_is_passed_through_and_checked() {
    let upstream = LyingUpstream::start();
    let server = server("larger", &upstream, "1MiB");
    let (bytes, path) = blob(&upstream, "large", 3 * MIB);
    let target = format!("{path}?ns={NS}");
    for _ in 0..2 {
        let answer = server.get(&target);
        assert_eq!((answer.status(), answer.ending), (200, Ending::Complete));
        assert!(answer.body == bytes);
        assert_eq!(answer.header("cache-status"), "ringport; fwd=miss");
    }
    for (range, first, end) in [
        ("bytes=0-99", 0, 100),
        ("bytes=1000000-1999999", 1_000_000, 2_000_000),
        ("bytes=-70000", 3 * MIB - 70_000, 3 * MIB),
    ] {
        let answer = http::get_with(server.addr, &target, &[("Range", range)]);
        assert_eq!((answer.status(), answer.ending), (206, Ending::Complete), "{range}");
        assert!(answer.body == bytes[first..end], "{range}");
    }
    assert_eq!(stored_bytes(&server), 0);
    // Nobody keeps it, and still nobody gets it wrong and whole.
    let wrong = Answer::right().bytes(random_bytes("not it", 3 * MIB));
    upstream.script("GET", &path, [wrong]);
    let answer = server.get(&target);
    assert_eq!((answer.status(), answer.ending), (200, Ending::Fin));
    assert!(answer.body.len() <= 3 * MIB - 64 * 1024, "{} bytes", answer.body.len());
    upstream.script("GET", &path, [Answer::right().bytes(random_bytes("not it", 3 * MIB))]);
    let answer = http::get_with(server.addr, &target, &[("Range", "bytes=0-99")]);
    assert_eq!((answer.status(), answer.ending), (206, Ending::Fin));
    assert!(answer.body.len() < 100);
}
