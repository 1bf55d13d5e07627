//! Content that several repositories, upstreams and clients want at once: who may have whose
//! bytes, how many downloads that takes, and what they cost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::{Arc, Barrier};

use support::gate::Gate;
use support::http::{self, Ending};
use support::images::{OCI_MANIFEST, random_bytes};
use support::lying::{Answer, LyingUpstream};
use support::rig::{NS, Rig, expect_gateway_error};
use support::secs;
use support::server::{Setup, Upstream};

const MIB: usize = 1024 * 1024;

#[test]
fn an_announced_length_of_zero_is_no_proof_of_anything() {
    let mut rig = Rig::new("zero", 100_000);
    rig.upstream.script("GET", &rig.path, [Answer::right().bytes("")]);
    expect_gateway_error(&rig.server.get(&rig.target), 502);
    rig.expect_nothing_kept_and_recovery();
}

#[test]
fn a_range_of_wrong_content_is_never_completed() {
    let rig = Rig::new("range-of-wrong", MIB);
    let gate = Gate::new();
    let wrong = Answer::right().bytes(random_bytes("other", MIB)).held_at(MIB / 2, &gate);
    rig.upstream.script("GET", &rig.path, [wrong]);
    let mut client = rig.server.connect();
    client.request("GET", &rig.target, &[("Range", "bytes=0-999")]);
    let head = client.read_head().unwrap();
    assert_eq!((head.status, head.headers.number("content-length")), (206, Some(1000)));
    gate.await_arrivals(1, secs(10));
    gate.open();
    let (body, ending, _) = client.read_body(&head, "GET");
    assert_eq!(ending, Ending::Fin);
    assert!(body.len() < 1000, "{} of 1000 bytes of wrong content", body.len());
}

#[test]
fn one_upstream_never_speaks_for_another() {
    let (good, evil) = (LyingUpstream::start(), LyingUpstream::start());
    let bytes = random_bytes("shared", 2 * MIB);
    let digest = good.add_blob("org/app", &bytes);
    evil.add_blob("org/app", &bytes);
    let path = format!("/v2/org/app/blobs/{digest}");
    let gate = Gate::new();
    let wrong = Answer::right().bytes(random_bytes("evil", 2 * MIB)).held_at(MIB, &gate);
    evil.script("GET", &path, [wrong]);
    let server = Setup::new("two-upstreams")
        .upstream(Upstream::new("good.example", &good.url()))
        .upstream(Upstream::new("evil.example", &evil.url()).set("stall_timeout = \"60s\""))
        .start();
    let mut victim_of_evil = server.connect();
    victim_of_evil.request("GET", &format!("{path}?ns=evil.example"), &[]);
    gate.await_arrivals(1, secs(10));
    // Evil's download of this digest is under way; good's client gets good's bytes.
    let answer = server.get(&format!("{path}?ns=good.example"));
    assert_eq!((answer.status(), answer.ending), (200, Ending::Complete));
    assert!(answer.body == bytes);
    gate.open();
}

#[test]
fn repositories_of_one_upstream_share_a_download_once_each_has_proven_its_right() {
    let upstream = LyingUpstream::start();
    let bytes = random_bytes("two repositories", 2 * MIB);
    let digest = upstream.add_blob("a/a", &bytes);
    upstream.add_blob("b/b", &bytes);
    let path = |repository: &str| format!("/v2/{repository}/blobs/{digest}");
    let target = |repository: &str| format!("{}?ns={NS}", path(repository));
    let gate = Gate::new();
    upstream.script("GET", &path("a/a"), [Answer::right().held_at(MIB, &gate)]);
    let declared = Upstream::new(NS, &upstream.url()).set("stall_timeout = \"60s\"");
    let server = Setup::new("two-repositories").upstream(declared).start();
    let mut first = server.connect();
    first.request("GET", &target("a/a"), &[]);
    gate.await_arrivals(1, secs(10));
    let mut second = server.connect();
    second.request("GET", &target("b/b"), &[]);
    let head = second.read_head().unwrap();
    // One that the upstream does not know there is refused, although its bytes are coming in.
    assert_eq!(server.get(&target("c/c")).status(), 404);
    gate.open();
    let (body, ending, _) = second.read_body(&head, "GET");
    assert!(ending == Ending::Complete && body == bytes);
    assert_eq!(upstream.count("GET", &path("b/b")), 0, "one download for both");
    assert_eq!(upstream.count("HEAD", &path("b/b")), 1);
    server.await_blob(&digest);
    // Both hold it from now on, whatever becomes of the upstream.
    support::wait_until("b/b's link", secs(5), || {
        upstream.script_everything(Some(Answer::status(503)));
        let answer = server.get(&target("b/b"));
        upstream.script_everything(None);
        answer.status() == 200 && answer.header("cache-status").starts_with("ringport; hit")
    });
    upstream.script_everything(Some(Answer::status(503)));
    assert_eq!(server.get(&target("a/a")).status(), 200);
    assert_ne!(server.get(&target("c/c")).status(), 200);
}

#[test]
fn what_another_repository_was_refused_is_fetched_by_one_that_may_have_it() {
    for status in [404, 403] {
        let upstream = LyingUpstream::start();
        let bytes = random_bytes("not for all", 200_000);
        let digest = upstream.add_blob("b/b", &bytes);
        let path = |repository: &str| format!("/v2/{repository}/blobs/{digest}");
        let target = |repository: &str| format!("{}?ns={NS}", path(repository));
        let gate = Gate::new();
        upstream.script("GET", &path("a/a"), [Answer::status(status).held(&gate)]);
        let server = Setup::new("refused").upstream(Upstream::new(NS, &upstream.url())).start();
        let mut first = server.connect();
        first.request("GET", &target("a/a"), &[]);
        gate.await_arrivals(1, secs(10));
        let mut second = server.connect();
        second.request("GET", &target("b/b"), &[]);
        support::wait_until("b/b to prove its right", secs(10), || {
            upstream.count("HEAD", &path("b/b")) == 1
        });
        gate.open();
        assert_ne!(first.read_head().unwrap().status, 200);
        let head = second.read_head().unwrap();
        assert_eq!(head.status, 200, "after {status} for a/a");
        let (body, ending, _) = second.read_body(&head, "GET");
        assert!(ending == Ending::Complete && body == bytes);
    }
}

#[test]
fn small_blobs_wanted_by_many_are_fetched_once_each() {
    let upstream = LyingUpstream::start();
    let server = Setup::new("once-each").upstream(Upstream::new(NS, &upstream.url())).start();
    let addr = server.addr;
    for round in 0..60 {
        let bytes = random_bytes(&format!("small {round}"), 2_000);
        let digest = upstream.add_blob("org/app", &bytes);
        let path = format!("/v2/org/app/blobs/{digest}");
        let target = format!("{path}?ns={NS}");
        let together = Arc::new(Barrier::new(12));
        let clients: Vec<_> = (0..12)
            .map(|_| {
                let (together, target) = (together.clone(), target.clone());
                std::thread::spawn(move || {
                    together.wait();
                    let answer = http::get(addr, &target);
                    (answer.status(), answer.body)
                })
            })
            .collect();
        for client in clients {
            assert!(client.join().unwrap() == (200, bytes.clone()));
        }
        assert_eq!(upstream.count("GET", &path), 1, "round {round}");
    }
}

#[test]
fn more_downloads_than_fills_max_wait_for_their_turn() {
    let upstream = LyingUpstream::start();
    let declared = Upstream::new(NS, &upstream.url()).set("fills_max = 2");
    let server = Setup::new("turns").upstream(declared).start();
    let addr = server.addr;
    let clients: Vec<_> = (0..8)
        .map(|n| {
            let bytes = random_bytes(&format!("turn {n}"), 300_000);
            let digest = upstream.add_blob("org/app", &bytes);
            let path = format!("/v2/org/app/blobs/{digest}");
            upstream.script("GET", &path, [Answer::right().paced(100_000, support::ms(50))]);
            std::thread::spawn(move || {
                let answer = http::get(addr, &format!("{path}?ns={NS}"));
                assert_eq!(answer.status(), 200, "{}", answer.text());
                assert!(answer.body == bytes);
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
}

#[test]
fn a_large_manifest_costs_its_readers_no_copy_each() {
    let upstream = LyingUpstream::start();
    let filler = "x".repeat(3 * MIB);
    let body = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": format!("sha256:{}", "0".repeat(64)),
            "size": 2,
        },
        "layers": [],
        "annotations": { "filler": filler },
    });
    let body = body.to_string().into_bytes();
    let gate = Gate::new();
    upstream.add_manifest("org/app", "v1", OCI_MANIFEST, &body);
    upstream.script("GET", "/v2/org/app/manifests/v1", [Answer::right().held(&gate)]);
    let server = Setup::new("large-manifest").upstream(Upstream::new(NS, &upstream.url())).start();
    let before = server.rss_bytes();
    let target = format!("/v2/org/app/manifests/v1?ns={NS}");
    let mut clients: Vec<_> = (0..100).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.request("GET", &target, &[]);
    }
    gate.await_arrivals(1, secs(10));
    gate.open();
    for client in &mut clients {
        assert_eq!(client.read_head().unwrap().status, 200);
    }
    // All of them have a head and none has read its body: 3 MiB each would be 300.
    let grown = server.rss_bytes().saturating_sub(before);
    assert!(grown < 60 * MIB as u64, "{grown} bytes for 100 readers of {} bytes", body.len());
}
