//! How Ringport behaves as an HTTP/1.1 server: what it refuses, what it keeps alive, how it ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::time::Instant;
use support::gate::Gate;
use support::http::{self, Connection, Ending, request_bytes};
use support::images::OCI_MANIFEST;
use support::lying::{Answer, LyingUpstream};
use support::rig::{REPOSITORY, Rig, declared, manifest};
use support::server::{Server, Setup};
use support::{ms, secs};

/// A server that mirrors something, started with lines of `[server]`.
fn server_with(what: &str, lines: &[&str]) -> (LyingUpstream, Server) {
    let upstream = LyingUpstream::start();
    let mut setup = Setup::new(what).upstream(declared(&upstream));
    for line in lines {
        setup = setup.server(line);
    }
    let server = setup.start();
    (upstream, server)
}

#[test]
fn the_base_says_what_it_is() {
    let (_upstream, server) = server_with("base", &[]);
    let answer = server.get("/v2/");
    assert_eq!((answer.status(), answer.ending), (200, Ending::Complete));
    assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
    assert!(answer.header("date").ends_with(" GMT"), "{:?}", answer.head);
    let unknown = server.get("/nothing/here");
    assert_eq!(unknown.status(), 404);
    assert_eq!(unknown.header("content-type"), "application/json");
    assert_ne!(unknown.error_code(), "");
}

#[test]
fn writes_are_refused_by_name() {
    let (_upstream, server) = server_with("writes", &[]);
    let digest = format!("sha256:{}", "a".repeat(64));
    let denied = (403, "DENIED", "");
    let none = (405, "UNSUPPORTED", "GET");
    for (method, target, expected) in [
        ("POST", format!("/v2/{REPOSITORY}/blobs/uploads/?ns=lying.example"), denied),
        ("PUT", format!("/v2/{REPOSITORY}/manifests/v1?ns=lying.example"), denied),
        ("DELETE", format!("/v2/{REPOSITORY}/manifests/{digest}?ns=lying.example"), denied),
        ("DELETE", format!("/v2/{REPOSITORY}/blobs/{digest}?ns=lying.example"), denied),
        ("PATCH", format!("/v2/{REPOSITORY}/blobs/uploads/1?ns=lying.example"), denied),
        ("PUT", "/v2/".to_owned(), none),
        ("PUT", format!("/v2/{REPOSITORY}/tags/list?ns=lying.example"), none),
    ] {
        let answer = http::send_body(server.addr, method, &target, "text/plain", b"");
        let (status, code, allow) = expected;
        assert_eq!(answer.status(), status, "{method} {target}: {}", answer.text());
        assert_eq!(answer.error_code(), code, "{method} {target}");
        assert!(answer.header("allow").contains(allow), "{:?}", answer.head);
    }
}

/// What must be refused, each with the statuses that say so.
fn bad_requests() -> Vec<(&'static str, String, &'static [u16])> {
    let head = |lines: &str| format!("GET /v2/ HTTP/1.1\r\n{lines}\r\n");
    let long_target = format!("GET /v2/?x={} HTTP/1.1\r\nHost: a\r\n\r\n", "y".repeat(5000));
    let long_head = head(&format!("Host: a\r\nX: {}\r\n", "y".repeat(20_000)));
    let many: String = (0..70).map(|n| format!("X-{n}: y\r\n")).collect();
    vec![
        ("bare LF", "GET /v2/ HTTP/1.1\nHost: a\n\n".into(), &[400]),
        ("bare LF in a header line", head("Host: a\nX: y\r\n"), &[400]),
        ("bare CR in a value", head("Host: a\r\nX: y\rz\r\n"), &[400]),
        ("NUL in a value", head("Host: a\r\nX: y\0z\r\n"), &[400]),
        ("no Host", head(""), &[400]),
        ("empty Host", head("Host: \r\n"), &[400]),
        ("two Hosts", head("Host: a\r\nHost: b\r\n"), &[400]),
        ("the same Host twice", head("Host: a\r\nHost: a\r\n"), &[400]),
        (
            "length and chunks",
            head("Host: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n"),
            &[400],
        ),
        ("two lengths", head("Host: a\r\nContent-Length: 4\r\nContent-Length: 4\r\n"), &[400]),
        ("two lengths in a line", head("Host: a\r\nContent-Length: 4, 4\r\n"), &[400]),
        ("a signed length", head("Host: a\r\nContent-Length: +4\r\n"), &[400]),
        ("a length in words", head("Host: a\r\nContent-Length: four\r\n"), &[400]),
        ("an empty length", head("Host: a\r\nContent-Length:\r\n"), &[400]),
        (
            "a length over 2^53",
            head("Host: a\r\nContent-Length: 9007199254740993\r\n"),
            &[400, 413],
        ),
        ("an unknown coding", head("Host: a\r\nTransfer-Encoding: gzip\r\n"), &[501]),
        ("chunked behind gzip", head("Host: a\r\nTransfer-Encoding: gzip, chunked\r\n"), &[501]),
        ("chunked in quotes", head("Host: a\r\nTransfer-Encoding: \"chunked\"\r\n"), &[400, 501]),
        (
            "chunks in HTTP/1.0",
            "GET /v2/ HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            &[400],
        ),
        ("a folded line", head("Host: a\r\nX: y\r\n z\r\n"), &[400]),
        ("a folded first line", head(" X: y\r\nHost: a\r\n"), &[400]),
        ("a space before the colon", head("Host : a\r\n"), &[400]),
        ("an empty name", head("Host: a\r\n: y\r\n"), &[400]),
        ("another authority", "GET http://b/v2/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), &[400]),
        ("HTTP/2 in clear", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), &[400, 505]),
        ("HTTP/3.0", "GET /v2/ HTTP/3.0\r\nHost: a\r\n\r\n".into(), &[400, 505]),
        ("no version", "GET /v2/\r\nHost: a\r\n\r\n".into(), &[400]),
        ("a lower-case method", "get /v2/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), &[400, 405, 501]),
        ("CONNECT", "CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n".into(), &[400, 405, 501]),
        ("TRACE", "TRACE /v2/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), &[400, 405, 501]),
        ("a long target", long_target, &[414]),
        ("a long head", long_head, &[431]),
        ("many headers", head(&format!("Host: a\r\n{many}")), &[431]),
        ("a space in the target", "GET /v2/ x HTTP/1.1\r\nHost: a\r\n\r\n".into(), &[400]),
        ("no request at all", "\0\0\0\0\r\n\r\n".into(), &[400]),
    ]
}

#[test]
fn what_could_be_read_in_two_ways_is_refused_and_the_connection_closed() {
    let (_upstream, mut server) = server_with("bad", &[]);
    // Whoever reads the first request differently takes this for a second one.
    let canary = request_bytes("GET", "/v2/", &[]);
    for (what, request, statuses) in bad_requests() {
        let mut connection = server.connect();
        connection.send(format!("{request}{canary}"));
        let head = connection.read_head().unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(statuses.contains(&head.status), "{what}: {head:?}, expected {statuses:?}");
        connection.read_body(&head, "GET");
        let second = connection.read_head();
        assert!(second.is_err(), "{what}: the canary was answered: {second:?}");
    }
    server.assert_alive();
}

#[test]
fn a_tls_client_hears_at_once_that_this_is_plain() {
    let (_upstream, server) = server_with("tls", &[]);
    let started = Instant::now();
    let mut connection = server.connect();
    // The first bytes of a ClientHello, and no blank line for as long as one cares to wait.
    connection.send([0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03]);
    let head = connection.read_head().expect("an answer in clear");
    assert_eq!(head.status, 400);
    let (body, ending, _) = connection.read_body(&head, "GET");
    assert_eq!(ending, Ending::Complete);
    assert!(!body.is_empty(), "a sentence that says why");
    assert_eq!(connection.closed_in_order(secs(2)), Some(true));
    assert!(started.elapsed() < secs(1), "{:?}", started.elapsed());
}

#[test]
fn a_client_that_sends_no_whole_head_is_let_go() {
    let (_upstream, server) = server_with("head-timeout", &["head_timeout = \"1s\""]);
    let mut silent = server.connect();
    let mut dripping = server.connect();
    let started = Instant::now();
    for byte in b"GET /v2/ HTTP/1.1\r\nHo" {
        dripping.send([*byte]);
        std::thread::sleep(ms(100));
    }
    for connection in [&mut silent, &mut dripping] {
        connection.set_read_timeout(secs(5));
        let mut text = Vec::new();
        let mut buffer = [0; 1024];
        while let Ok(n @ 1..) = connection.read_some(&mut buffer) {
            text.extend_from_slice(&buffer[..n]);
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 408"), "{text}");
    }
    assert!(started.elapsed() < secs(6), "{:?}", started.elapsed());
}

#[test]
fn an_idle_connection_is_closed_in_order() {
    let (_upstream, server) = server_with("idle", &["idle_timeout = \"1s\""]);
    let mut connection = server.connect();
    assert_eq!(connection.exchange("GET", "/v2/", &[]).status(), 200);
    assert_eq!(connection.closed_in_order(secs(5)), Some(true));
}

#[test]
fn one_connection_serves_many_requests_of_every_kind() {
    let rig = Rig::new("keep-alive", 300_000);
    let body = manifest("keep-alive");
    rig.upstream.add_manifest(REPOSITORY, "v1", OCI_MANIFEST, &body);
    let mut connection = rig.server.connect();
    for round in 0..5 {
        assert_eq!(connection.exchange("GET", "/v2/", &[]).status(), 200);
        let blob = connection.exchange("GET", &rig.target, &[]);
        assert_eq!((blob.status(), blob.body == rig.bytes), (200, true), "round {round}");
        let head = connection.exchange("HEAD", &rig.target, &[]);
        assert_eq!((head.status(), head.header("content-length")), (200, "300000"));
        let found = connection.exchange("GET", &rig.manifest_target("v1"), &[]);
        assert_eq!((found.status(), &found.body), (200, &body));
        let etag = found.header("etag").to_owned();
        let same =
            connection.exchange("GET", &rig.manifest_target("v1"), &[("If-None-Match", &etag)]);
        assert_eq!((same.status(), same.body.len()), (304, 0));
        assert_eq!(connection.exchange("GET", &rig.manifest_target("v9"), &[]).status(), 404);
        let missing = connection.exchange("HEAD", &rig.manifest_target("v9"), &[]);
        assert_eq!((missing.status(), missing.body.len()), (404, 0));
    }
    let last = connection.exchange("GET", "/v2/", &[("Connection", "close")]);
    assert_eq!(last.status(), 200);
    assert_eq!(connection.closed_in_order(secs(2)), Some(true));
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let rig = Rig::new("pipeline", 200_000);
    rig.expect_right();
    let mut all = String::new();
    for n in 0..20 {
        let range = format!("bytes={n}-{}", n + 99_999);
        all.push_str(&request_bytes("GET", &rig.target, &[("Range", &range)]));
        all.push_str(&request_bytes("HEAD", &rig.target, &[]));
    }
    let mut connection = rig.server.connect();
    connection.send(all);
    for n in 0..20 {
        let part = connection.read_answer("GET").unwrap();
        assert_eq!(part.status(), 206);
        assert!(part.body == rig.bytes[n..n + 100_000], "request {n}");
        assert_eq!(connection.read_answer("HEAD").unwrap().status(), 200);
    }
}

#[test]
fn a_body_that_nobody_asked_for_does_not_become_a_request() {
    let rig = Rig::new("get-body", 1000);
    let inner = request_bytes("GET", "/v2/", &[]);
    let chunked = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
    let big = "x".repeat(1 << 20);
    for (what, header, body) in [
        ("length", ("Content-Length", inner.len().to_string()), inner.clone()),
        ("chunked", ("Transfer-Encoding", "chunked".to_owned()), chunked),
        ("big", ("Content-Length", big.len().to_string()), big),
    ] {
        let mut connection = rig.server.connect();
        connection.request("GET", &rig.target, &[(header.0, &header.1)]);
        connection.send(&body);
        let first = connection.read_answer("GET").unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(matches!(first.status(), 200 | 400 | 413), "{what}: {:?}", first.head);
        // Either the connection is over, or the next request is answered and no other.
        connection.request("HEAD", &rig.target, &[]);
        if let Ok(second) = connection.read_answer("HEAD") {
            assert_eq!(second.header("content-length"), "1000", "{what}: {:?}", second.head);
            connection.set_read_timeout(ms(300));
            assert!(connection.read_head().is_err(), "{what}: one answer too many");
        }
    }
}

#[test]
fn http_1_0_is_served_and_closed() {
    let rig = Rig::new("http10", 100_000);
    for _ in 0..2 {
        let mut connection = rig.server.connect();
        connection.send(format!("GET {} HTTP/1.0\r\nHost: a\r\n\r\n", rig.target));
        let answer = connection.read_answer("GET").unwrap();
        assert_eq!((answer.status(), answer.body == rig.bytes), (200, true));
        assert_eq!(answer.header("transfer-encoding"), "");
        assert_eq!(connection.closed_in_order(secs(2)), Some(true));
    }
}

#[test]
fn an_entity_tag_that_matches_is_304() {
    let rig = Rig::new("304", 1000);
    rig.expect_right();
    let digest = &rig.digest;
    let other = format!("\"sha256:{}\"", "b".repeat(64));
    for (value, status) in [
        (format!("\"{digest}\""), 304),
        (format!("W/\"{digest}\""), 304),
        (format!("{other}, \"{digest}\""), 304),
        ("*".to_owned(), 304),
        (other, 200),
    ] {
        let answer = http::get_with(rig.server.addr, &rig.target, &[("If-None-Match", &value)]);
        assert_eq!(answer.status(), status, "{value}");
        assert_eq!(answer.header("etag"), format!("\"{digest}\""), "{value}");
        assert_eq!(answer.body.len(), if status == 304 { 0 } else { 1000 }, "{value}");
    }
}

#[test]
fn ranges_are_cut_exactly() {
    let rig = Rig::new("ranges", 10_000);
    rig.expect_right();
    rig.server.await_blob(&rig.digest);
    for (range, expected) in [
        ("bytes=0-0", Some(0..1)),
        ("bytes=0-9999", Some(0..10_000)),
        ("bytes=500-1499", Some(500..1500)),
        ("bytes=9999-", Some(9999..10_000)),
        ("bytes=-1", Some(9999..10_000)),
        ("bytes=-20000", Some(0..10_000)),
        ("bytes=2000-50000", Some(2000..10_000)),
        ("bytes=10000-", None),
        ("bytes=-0", None),
        ("bytes=20000-30000", None),
        // RFC 9110 §14.2 lets us refuse it, and the conformance suite wants that.
        ("bytes=5-1", None),
    ] {
        let answer = http::get_with(rig.server.addr, &rig.target, &[("Range", range)]);
        let Some(part) = expected else {
            assert_eq!(answer.status(), 416, "{range}");
            assert_eq!(answer.header("content-range"), "bytes */10000", "{range}");
            assert_eq!(answer.ending, Ending::Complete, "{range}");
            continue;
        };
        let content_range = format!("bytes {}-{}/10000", part.start, part.end - 1);
        assert_eq!((answer.status(), answer.header("content-range")), (206, &*content_range));
        assert!(answer.body == rig.bytes[part], "{range}");
    }
    // What is no single byte range is ignored (RFC 9110 §14.2).
    for range in ["bytes=0-1,5-6", "lines=1-2", "bytes=a-b", "bytes", "bytes=-"] {
        let answer = http::get_with(rig.server.addr, &rig.target, &[("Range", range)]);
        assert_eq!((answer.status(), answer.body.len()), (200, 10_000), "{range}");
    }
    let etag = format!("\"{}\"", rig.digest);
    for (if_range, status) in [(etag.as_str(), 206), ("\"sha256:other\"", 200)] {
        let headers = [("Range", "bytes=0-9"), ("If-Range", if_range)];
        let answer = http::get_with(rig.server.addr, &rig.target, &headers);
        assert_eq!(answer.status(), status, "If-Range: {if_range}");
    }
}

#[test]
fn malformed_names_and_digests_are_told_apart() {
    let (_upstream, server) = server_with("names", &[]);
    let ns = "?ns=lying.example";
    for (target, code) in [
        (format!("/v2/org/app/blobs/sha256:zz{ns}"), "DIGEST_INVALID"),
        (format!("/v2/org/app/blobs/sha256:{}{ns}", "A".repeat(64)), "DIGEST_INVALID"),
        (format!("/v2/org/app/blobs/sha256:{}{ns}", "../".repeat(21)), ""),
        (format!("/v2/ORG/app/manifests/v1{ns}"), "NAME_INVALID"),
        (format!("/v2/org/../app/manifests/v1{ns}"), ""),
        (format!("/v2/org//app/manifests/v1{ns}"), ""),
        (format!("/v2/org/app/manifests/-v1{ns}"), ""),
        (format!("/v2/org/app/manifests/sha256:zz{ns}"), ""),
    ] {
        let answer = server.get(&target);
        assert!(matches!(answer.status(), 400 | 404), "{target}: {:?}", answer.head);
        let found = answer.error_code();
        assert!(!found.is_empty() && (code.is_empty() || found == code), "{target}: {found}");
    }
}

#[test]
fn sigterm_finishes_what_is_under_way_and_ends_well() {
    let size = 4 << 20;
    let upstream = LyingUpstream::start();
    let server = Setup::new("drain")
        .server("drain_timeout = \"30s\"")
        .upstream(declared(&upstream).set("stall_timeout = \"60s\""))
        .start();
    let mut rig = Rig::of(upstream, server, size);
    let gate = Gate::new();
    rig.upstream.script("GET", &rig.path, [Answer::right().held_at(size / 2, &gate)]);
    let mut idle = rig.server.connect();
    assert_eq!(idle.exchange("GET", "/v2/", &[]).status(), 200);
    let mut busy = rig.server.connect();
    busy.request("GET", &rig.target, &[]);
    assert_eq!(busy.read_head().unwrap().status, 200);
    let mut body = busy.read_exactly(100_000).unwrap();
    rig.server.ask_to_end();
    assert_eq!(idle.closed_in_order(secs(10)), Some(true), "idle connections end at once");
    let addr = rig.server.addr;
    support::wait_until("new connections to be refused", secs(10), || {
        std::net::TcpStream::connect_timeout(&addr, ms(500)).is_err()
    });
    assert_eq!(rig.server.wait_for_exit(ms(200)), None, "it waits for the one under way");
    gate.open();
    body.extend(busy.read_exactly(size - body.len()).unwrap());
    assert!(body == rig.bytes, "the response under way is whole");
    let status = rig.server.wait_for_exit(secs(20)).expect("an exit");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_drain_has_an_end() {
    let size = 4 << 20;
    let upstream = LyingUpstream::start();
    let server = Setup::new("drain-end")
        .server("drain_timeout = \"1s\"")
        .upstream(declared(&upstream).set("stall_timeout = \"60s\""))
        .start();
    let mut rig = Rig::of(upstream, server, size);
    let gate = Gate::new();
    rig.upstream.script("GET", &rig.path, [Answer::right().held_at(size / 2, &gate)]);
    let mut busy = rig.server.connect();
    busy.request("GET", &rig.target, &[]);
    busy.read_head().unwrap();
    let status = rig.server.terminate(secs(15));
    assert!(status.is_some(), "an exit although a response is under way");
    gate.open();
}

#[test]
fn each_driver_serves() {
    for driver in ["epoll", "io_uring"] {
        let line = format!("driver = \"{driver}\"");
        let upstream = LyingUpstream::start();
        let server = Setup::new(driver).server(&line).upstream(declared(&upstream)).start();
        let mut rig = Rig::of(upstream, server, 3 << 20);
        rig.expect_right();
        rig.server.await_blob(&rig.digest);
        rig.expect_right();
        let metrics = rig.server.metrics();
        assert!(metrics.contains(driver), "the metrics say which driver runs");
        assert!(rig.server.terminate(secs(20)).is_some_and(|status| status.success()));
    }
}

#[test]
fn ten_thousand_requests_leave_nothing_behind() {
    let rig = Rig::new("many", 10_000);
    rig.expect_right();
    rig.server.await_blob(&rig.digest);
    let ask = |count: usize| {
        let mut connection = Connection::open(rig.server.addr);
        for n in 0..count {
            if n % 500 == 499 {
                connection = Connection::open(rig.server.addr);
            }
            let answer = connection.exchange("GET", &rig.target, &[]);
            assert!(answer.body == rig.bytes, "request {n}: {:?}", answer.head);
        }
    };
    ask(1000);
    let (memory, descriptors) = (rig.server.rss_bytes(), rig.server.descriptors());
    ask(9000);
    support::wait_until("descriptors as before", secs(5), || {
        rig.server.descriptors() <= descriptors + 2
    });
    let grown = rig.server.rss_bytes().saturating_sub(memory);
    assert!(grown < 8 << 20, "{grown} bytes after 9,000 requests");
}
