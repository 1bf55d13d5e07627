//! Clients stream while the fill runs: nobody waits for the end of a download to see its
//! beginning, and we add next to nothing to the upstream's own time to first byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::time::{Duration, Instant};
use support::gate::Gate;
use support::http::{self, Connection, Ending};
use support::lying::Answer;
use support::rig::Rig;
use support::{ms, secs};

const MIB: usize = 1 << 20;

/// From the request to the first byte of the body, the rest not read.
fn first_byte(mut connection: Connection, target: &str) -> Duration {
    let started = Instant::now();
    connection.request("GET", target, &[]);
    assert_eq!(connection.read_head().unwrap().status, 200);
    connection.read_exactly(1).unwrap();
    started.elapsed()
}

#[test]
fn the_first_client_waits_as_long_as_at_the_upstream_itself() {
    let rig = Rig::new("ttfb", MIB);
    // A second before the head, then 16 KiB each 50 ms: three more seconds.
    let slow = Answer::right().after(secs(1)).paced(16 << 10, ms(50));
    rig.upstream.script("GET", &rig.path, [slow]);
    let direct = first_byte(Connection::open(rig.upstream.addr()), &rig.path);
    let ours = first_byte(rig.server.connect(), &rig.target);
    eprintln!("time to first byte: {direct:?} at the upstream, {ours:?} through us");
    assert!(ours <= direct * 12 / 10, "{ours:?} against {direct:?} at the upstream itself");
}

#[test]
fn a_follower_gets_what_is_there_at_once() {
    let rig = Rig::with("follower", 2 * MIB, |u| u.set("stall_timeout = \"60s\""));
    let gate = Gate::new();
    rig.upstream.script("GET", &rig.path, [Answer::right().held_at(MIB, &gate)]);
    let mut first = rig.server.connect();
    first.request("GET", &rig.target, &[]);
    let head = first.read_head().unwrap();
    assert_eq!(head.headers.number("content-length"), Some(2 * MIB as u64));
    let mut of_first = first.read_exactly(MIB / 2).unwrap();
    gate.await_arrivals(1, secs(10));

    // The fill stands still in its middle; the follower gets its half all the same.
    let mut follower = rig.server.connect();
    let started = Instant::now();
    follower.request("GET", &rig.target, &[]);
    let head = follower.read_head().unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(head.headers.number("content-length"), Some(2 * MIB as u64));
    let mut of_follower = follower.read_exactly(1).unwrap();
    let waited = started.elapsed();
    assert!(waited < ms(500), "{waited:?} for a byte that lies there");
    of_follower.extend(follower.read_exactly(MIB / 2).unwrap());
    assert!(!gate.is_open(), "the fill is still running");
    assert!(!rig.server.has_blob(&rig.digest), "and not committed");

    gate.open();
    of_first.extend(first.read_exactly(2 * MIB - of_first.len()).unwrap());
    of_follower.extend(follower.read_exactly(2 * MIB - of_follower.len()).unwrap());
    assert!(of_first == rig.bytes && of_follower == rig.bytes);
    assert_eq!(rig.upstream.count("GET", &rig.path), 1);
}

#[test]
fn a_follower_keeps_pace_with_the_fill() {
    let rig = Rig::with("pace", MIB, |u| u.set("stall_timeout = \"60s\""));
    let gate = Gate::new();
    rig.upstream.script("GET", &rig.path, [Answer::right().held_at(MIB / 2, &gate)]);
    let mut connection = rig.server.connect();
    connection.request("GET", &rig.target, &[]);
    connection.read_head().unwrap();
    // All that has arrived is given out, but for at most the 64 KiB that may be held back.
    let body = connection.read_exactly(MIB / 2 - (64 << 10)).unwrap();
    assert!(rig.bytes.starts_with(&body));
    gate.open();
    connection.read_exactly(MIB - body.len()).unwrap();
    // The connection is good for the next request.
    let again = connection.exchange("HEAD", &rig.target, &[]);
    assert_eq!((again.status(), again.header("content-length")), (200, "1048576"));
}

#[test]
fn a_range_of_a_blob_that_is_not_there_yet_is_answered_right() {
    let rig = Rig::new("cold-range", MIB);
    for (range, part) in
        [("bytes=0-99", 0..100), ("bytes=1000-", 1000..MIB), ("bytes=-500", MIB - 500..MIB)]
    {
        let answer = http::get_with(rig.server.addr, &rig.target, &[("Range", range)]);
        assert_eq!(answer.ending, Ending::Complete, "{range}");
        match answer.status() {
            206 => {
                let expected = format!("bytes {}-{}/{MIB}", part.start, part.end - 1);
                assert_eq!(answer.header("content-range"), expected);
                assert!(answer.body == rig.bytes[part], "{range}");
            }
            // RFC 9110 §14.2: a server may ignore Range.
            200 => assert!(answer.body == rig.bytes, "{range}"),
            status => panic!("{range}: {status} {}", answer.text()),
        }
    }
    assert_eq!(rig.upstream.count("GET", &rig.path), 1, "one upstream GET for all ranges");
}

#[test]
fn a_head_of_a_missing_blob_tells_its_size() {
    let rig = Rig::new("cold-head", MIB);
    let head = rig.server.head(&rig.target);
    assert_eq!((head.status(), head.header("content-length")), (200, "1048576"));
    assert_eq!(head.header("docker-content-digest"), rig.digest);
    assert!(head.body.is_empty());
    rig.expect_right();
}

#[test]
fn an_empty_blob_is_a_blob() {
    let rig = Rig::new("empty", 0);
    for _ in 0..2 {
        let answer = rig.expect_right();
        assert_eq!(answer.header("content-length"), "0");
    }
    assert_eq!(rig.upstream.count("GET", &rig.path), 1);
}

#[test]
fn sha512_is_as_good() {
    let rig = Rig::new("sha512", 1000);
    let bytes = support::images::random_bytes("sha512", 300_000);
    let digest = support::images::sha512(&bytes);
    let path = format!("/v2/{}/blobs/{digest}", support::rig::REPOSITORY);
    rig.upstream.add(&path, "application/octet-stream", &bytes, Some(&digest));
    let target = format!("{path}?ns={}", support::rig::NS);
    for _ in 0..2 {
        let answer = rig.server.get(&target);
        assert_eq!((answer.status(), answer.header("docker-content-digest")), (200, &*digest));
        assert!(answer.body == bytes);
        rig.server.await_blob(&digest);
    }
    assert_eq!(rig.upstream.count("GET", &path), 1);
    rig.server.assert_store_is_right();
}
