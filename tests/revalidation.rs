//! How often an upstream is asked about what is stored, or what it does not have: revalidations
//! behind answers, one for all who want the same, none for tags that never change; and 404s that
//! are believed for a while.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use support::gate::Gate;
use support::http::{self, Answer as Got};
use support::images::{OCI_MANIFEST, random_bytes, sha256};
use support::lying::{Answer, LyingUpstream};
use support::rig::{NS, REPOSITORY, Rig, manifest};
use support::server::{Setup, Upstream};
use support::{ms, secs, wait_until};

const CLIENTS: usize = 200;

/// A rig whose upstream has these keys, and time to be held up.
fn rig_with(what: &str, keys: &[&str], change: impl FnOnce(Setup) -> Setup) -> Rig {
    let upstream = LyingUpstream::start();
    let declared = Upstream::new(NS, &upstream.url()).set("first_byte_timeout = \"60s\"");
    let declared = keys.iter().fold(declared, |declared, key| declared.set(key));
    let server = change(Setup::new(what).upstream(declared)).start();
    Rig::of(upstream, server, 1000)
}

/// A rig whose tag `v1` names a manifest, with more keys of the upstream.
fn rig(what: &str, keys: &[&str]) -> (Rig, Vec<u8>, String) {
    let rig = rig_with(what, keys, |setup| setup);
    let body = manifest("first");
    let digest = rig.upstream.add_manifest(REPOSITORY, "v1", OCI_MANIFEST, &body);
    (rig, body, digest)
}

/// Until a tag is due that is fresh for one second.
fn until_due() {
    std::thread::sleep(ms(2100));
}

fn cache_status(answer: &Got) -> &str {
    answer.header("cache-status")
}

fn heads(rig: &Rig, reference: &str) -> usize {
    rig.upstream.count("HEAD", &rig.manifest_path(reference))
}

/// Revalidations with this outcome.
fn came(rig: &Rig, outcome: &str) -> f64 {
    rig.server.metric("ringport_revalidations_total", &[&format!("outcome=\"{outcome}\"")])
}

#[test]
fn a_late_tag_is_answered_at_once_and_confirmed_behind_that_by_one_head() {
    let (rig, body, digest) =
        rig("late", &["tag_ttl = \"1s\"", "stale_while_revalidate = \"1h\"", "stale_max = \"0s\""]);
    let target = rig.manifest_target("v1");
    assert_eq!(rig.server.get(&target).body, body);
    until_due();
    let gate = Gate::new();
    rig.upstream.script("HEAD", &rig.manifest_path("v1"), [Answer::right().held(&gate)]);
    for _ in 0..20 {
        // Answered although nobody answers us.
        let late = rig.server.get(&target);
        assert_eq!((late.status(), &late.body), (200, &body), "{:?}", late.head);
        let status = cache_status(&late);
        assert!(status.starts_with("ringport; hit; ttl=-"), "{status}");
        assert!(status.ends_with("; detail=updating"), "{status}");
        assert!(late.head.headers.number("age").is_some_and(|age| age >= 2), "{:?}", late.head);
        assert_eq!(late.head.headers.count("warning"), 0);
    }
    gate.await_arrivals(1, secs(10));
    assert_eq!(heads(&rig, "v1"), 1, "one for all of them");
    let seen = rig.upstream.seen().last().unwrap().request.clone();
    assert_eq!(seen.header("if-none-match"), Some(format!("\"{digest}\"").as_str()));
    gate.open();
    wait_until("the end of the revalidation", secs(10), || came(&rig, "confirmed") == 1.0);
    assert_eq!(rig.upstream.count("GET", &rig.manifest_path("v1")), 1, "304 was enough");
    // Fresh for a second; later than that it is asked for behind the answer again.
    let fresh = rig.server.get(&target);
    assert!(cache_status(&fresh).starts_with("ringport; hit"), "{:?}", fresh.head);
    assert!(rig.server.metric("ringport_requests_total", &["cache=\"updating\""]) >= 20.0);
    // A tag that has moved is followed: by the one after the next who asks, at the latest.
    let newer = manifest("second");
    let newer_digest = rig.upstream.add_manifest(REPOSITORY, "v1", OCI_MANIFEST, &newer);
    rig.upstream.script("HEAD", &rig.manifest_path("v1"), [Answer::right()]);
    wait_until("the moved tag", secs(10), || {
        let answer = rig.server.get(&target);
        assert!(cache_status(&answer).starts_with("ringport; hit"), "{:?}", answer.head);
        answer.body == newer && answer.header("docker-content-digest") == newer_digest
    });
    assert_eq!(came(&rig, "changed"), 1.0);
}

#[test]
fn later_than_stale_while_revalidate_the_upstream_is_asked_first() {
    let (rig, body, _) = rig("too-late", &["tag_ttl = \"1s\"", "stale_while_revalidate = \"1s\""]);
    let target = rig.manifest_target("v1");
    assert_eq!(rig.server.get(&target).body, body);
    std::thread::sleep(ms(3100));
    let answer = rig.server.get(&target);
    assert!(cache_status(&answer).contains("fwd=stale"), "{:?}", answer.head);
    assert_eq!(heads(&rig, "v1"), 1);
}

#[test]
fn a_revalidation_that_fails_behind_the_answer_lets_the_tag_rest() {
    let (rig, body, _) =
        rig("late-fails", &["tag_ttl = \"1s\"", "stale_while_revalidate = \"1h\""]);
    let target = rig.manifest_target("v1");
    assert_eq!(rig.server.get(&target).body, body);
    until_due();
    let busy = Answer::status(429).header("Retry-After", "600");
    rig.upstream.script("HEAD", &rig.manifest_path("v1"), [busy]);
    assert!(cache_status(&rig.server.get(&target)).contains("updating"));
    wait_until("the failure", secs(10), || came(&rig, "failed") == 1.0);
    for _ in 0..20 {
        let stale = rig.server.get(&target);
        assert_eq!((stale.status(), &stale.body), (200, &body), "{:?}", stale.head);
        assert!(cache_status(&stale).contains("fwd=stale"), "{:?}", stale.head);
        assert!(stale.header("warning").starts_with("299 "), "{:?}", stale.head);
    }
    assert_eq!(heads(&rig, "v1"), 1, "it asked for ten minutes of peace");
    assert_eq!(came(&rig, "put_off"), 20.0);
}

#[test]
fn two_hundred_clients_at_a_stale_tag_are_one_head_and_those_who_leave_do_not_end_it() {
    let keys = ["tag_ttl = \"3s\"", "stale_max = \"0s\""];
    let rig = rig_with("herd-head", &keys, |setup| setup.server("workers = 2"));
    let body = manifest("first");
    rig.upstream.add_manifest(REPOSITORY, "v1", OCI_MANIFEST, &body);
    let target = rig.manifest_target("v1");
    assert_eq!(rig.server.get(&target).body, body);
    std::thread::sleep(ms(4100));
    let gate = Gate::new();
    rig.upstream.script("HEAD", &rig.manifest_path("v1"), [Answer::right().held(&gate)]);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| rig.server.connect()).collect();
    clients[0].request("GET", &target, &[]);
    gate.await_arrivals(1, secs(10));
    for client in &mut clients[1..] {
        client.request("GET", &target, &[]);
    }
    let open = || rig.server.metric("ringport_connections", &[]);
    wait_until("all clients", secs(20), || open() >= CLIENTS as f64);
    // Who caused it goes, and every second of the others.
    let (gone, staying): (Vec<_>, Vec<_>) =
        clients.into_iter().enumerate().partition(|(n, _)| n % 2 == 0);
    gone.into_iter().for_each(|(_, client)| client.reset());
    let workers: Vec<f64> = (0..2)
        .map(|n| rig.server.metric("ringport_connections", &[&format!("worker=\"{n}\"")]))
        .collect();
    assert!(workers.iter().all(|&connections| connections > 0.0), "both workers: {workers:?}");
    gate.open();
    for (n, mut client) in staying {
        let answer = client.read_answer("GET").unwrap();
        assert_eq!((answer.status(), &answer.body), (200, &body), "client {n}");
    }
    assert_eq!(heads(&rig, "v1"), 1);
    assert_eq!(rig.upstream.count("GET", &rig.manifest_path("v1")), 1, "the first one's");
    assert_eq!(came(&rig, "confirmed"), 1.0);
}

#[test]
fn tags_that_never_change_are_asked_for_once() {
    let (rig, body, _) =
        rig("never-changes", &["tag_ttl = \"0s\"", "immutable_tags = [\"org/*:v*\"]"]);
    rig.upstream.add_manifest(REPOSITORY, "latest", OCI_MANIFEST, &body);
    for _ in 0..3 {
        assert_eq!(rig.server.get(&rig.manifest_target("v1")).body, body);
        assert_eq!(rig.server.get(&rig.manifest_target("latest")).body, body);
    }
    assert_eq!((heads(&rig, "v1"), heads(&rig, "latest")), (0, 2), "the other one each time");
    let target = |tag: &str| format!("/explain?ns={NS}&path={}", rig.manifest_path(tag));
    let told = http::get(rig.server.admin, &target("v1")).text();
    let line = format!("tag: immutable (immutable_tags \"org/*:v*\" of {NS})");
    assert!(told.contains(&line), "{told}");
    let told = http::get(rig.server.admin, &target("latest")).text();
    assert!(!told.contains("immutable") && told.contains("404 believed for 10s"), "{told}");
}

/// Asks twice; the second answer is the first one, from memory. Gives back the first.
#[track_caller]
fn expect_remembered(rig: &Rig, method: &str, target: &str) -> Got {
    let first = rig.server.connect().exchange(method, target, &[]);
    let asked = rig.upstream.requests();
    let again = rig.server.connect().exchange(method, target, &[]);
    assert_eq!(rig.upstream.requests(), asked, "{method} {target}");
    assert_eq!((first.status(), &first.body), (404, &again.body), "{target}: {}", first.text());
    assert_eq!((again.status(), cache_status(&first)), (404, ""), "{:?}", first.head);
    assert_eq!(cache_status(&again), "ringport; hit; detail=negative", "{:?}", again.head);
    assert!(again.head.headers.number("age").is_some_and(|age| age < 60), "{:?}", again.head);
    assert_eq!(first.header("content-length"), again.header("content-length"));
    first
}

#[test]
fn a_404_is_believed_for_a_while_and_not_over_restart_or_reload() {
    let (mut rig, ..) = rig("negative", &["negative_ttl = \"1h\""]);
    let missing = sha256(b"nowhere");
    let blob = format!("/v2/{REPOSITORY}/blobs/{missing}?ns={NS}");
    let targets = [
        (rig.manifest_target("none"), "MANIFEST_UNKNOWN"),
        (rig.manifest_target(&missing), "MANIFEST_UNKNOWN"),
        (blob.clone(), "BLOB_UNKNOWN"),
        (format!("/v2/org/none/tags/list?ns={NS}"), "NAME_UNKNOWN"),
    ];
    for (target, code) in &targets {
        assert_eq!(expect_remembered(&rig, "GET", target).error_code(), *code);
    }
    let elsewhere = format!("/v2/org/other/blobs/{missing}?ns={NS}");
    expect_remembered(&rig, "HEAD", &elsewhere);
    assert_eq!(rig.server.metric("ringport_negative_hits_total", &[]), 5.0);
    let asked = rig.upstream.requests();
    for (n, end) in ["reload", "restart"].into_iter().enumerate() {
        match end {
            "reload" => {
                let done = http::send_body(rig.server.admin, "POST", "/reload", "text/plain", b"");
                assert_eq!(done.status(), 200, "{}", done.text());
            }
            _ => rig.server.restart(),
        }
        for (target, _) in &targets {
            expect_remembered(&rig, "GET", target);
        }
        assert_eq!(rig.upstream.requests(), asked + (n + 1) * targets.len(), "after a {end}");
    }
}

#[test]
fn what_comes_by_another_way_is_missing_no_longer() {
    let (rig, ..) = rig("negative-comes", &["negative_ttl = \"1h\"", "tag_ttl = \"0s\""]);
    // Too large to be answered from the index.
    let body = manifest(&"late".repeat(10_000));
    let digest = sha256(&body);
    expect_remembered(&rig, "GET", &rig.manifest_target(&digest));
    rig.upstream.add_manifest(REPOSITORY, "late", OCI_MANIFEST, &body);
    assert_eq!(rig.server.get(&rig.manifest_target("late")).body, body);
    let by_digest = rig.server.get(&rig.manifest_target(&digest));
    assert_eq!((by_digest.status(), &by_digest.body), (200, &body), "{}", by_digest.text());
    // Even when it has left the store again.
    std::fs::remove_file(rig.server.blob_path(&digest)).unwrap();
    assert_eq!(rig.server.get(&rig.manifest_target(&digest)).body, body);
    // And what was there and is gone is missing from then on.
    rig.upstream.remove(&rig.manifest_path("late"));
    expect_remembered(&rig, "GET", &rig.manifest_target("late"));
    assert_eq!(rig.server.get(&rig.manifest_target(&digest)).body, body);
    assert_eq!(came(&rig, "gone"), 1.0);
}

#[test]
fn only_the_upstreams_word_is_believed_and_not_for_ever() {
    let (rig, body, _) = rig("negative-short", &["negative_ttl = \"1s\""]);
    let target = rig.manifest_target("v1");
    rig.upstream.script_everything(Some(Answer::status(503)));
    assert_eq!(rig.server.get(&target).status(), 502);
    rig.upstream.script_everything(None);
    assert_eq!(rig.server.get(&target).body, body, "a failure says nothing");
    let late = rig.manifest_target("late");
    assert_eq!(rig.server.get(&late).status(), 404);
    rig.upstream.add_manifest(REPOSITORY, "late", OCI_MANIFEST, &body);
    wait_until("the end of negative_ttl", secs(10), || rig.server.get(&late).status() == 200);
    let (off, ..) = self::rig("negative-off", &["negative_ttl = \"0s\""]);
    let asked = off.upstream.requests();
    for _ in 0..2 {
        assert_eq!(off.server.get(&off.manifest_target("none")).status(), 404);
    }
    assert_eq!(off.upstream.requests(), asked + 2);
}

#[test]
fn a_blob_that_another_repository_brings_is_still_missing_where_it_was() {
    let (rig, ..) = rig("negative-scope", &["negative_ttl = \"1h\""]);
    let bytes = random_bytes("elsewhere", 500);
    let digest = rig.upstream.add_blob("org/other", &bytes);
    let in_repository = |name: &str| format!("/v2/{name}/blobs/{digest}?ns={NS}");
    let (here, there) = (in_repository(REPOSITORY), in_repository("org/other"));
    expect_remembered(&rig, "GET", &here);
    assert_eq!(rig.server.get(&there).body, bytes);
    rig.server.await_blob(&digest);
    let asked = rig.upstream.requests();
    let again = rig.server.get(&here);
    assert_eq!((again.status(), rig.upstream.requests()), (404, asked), "{}", again.text());
}
