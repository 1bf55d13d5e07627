//! When a tag is asked for again, what is served while the upstream fails, and what every answer
//! says about it: Cache-Status, Warning, Age, Retry-After.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use serde_json::json;
use support::http::{self, Answer as Got};
use support::images::{self, OCI_INDEX, OCI_MANIFEST};
use support::lying::Answer;
use support::rig::{NS, REPOSITORY, Rig, expect_gateway_error, manifest};
use support::{secs, wait_until};

/// A rig with the manifest `note` under `v1`, tags fresh for one second.
fn rig(what: &str, ttl: &str) -> (Rig, Vec<u8>, String) {
    let rig =
        Rig::with(what, 1000, |u| u.set(&format!("tag_ttl = \"{ttl}\"")).set("stale_max = \"1h\""));
    let body = manifest("first");
    let digest = rig.upstream.add_manifest(REPOSITORY, "v1", OCI_MANIFEST, &body);
    (rig, body, digest)
}

/// Fresh for one second: the least that a whole-second clock can tell, and soon over.
const SHORT: &str = "1s";
const LONG: &str = "1h";

fn until_due() {
    std::thread::sleep(support::ms(2100));
}

#[track_caller]
fn expect(answer: &Got, body: &[u8], digest: &str) {
    assert_eq!(answer.status(), 200, "{:?} {}", answer.head, answer.text());
    assert_eq!(answer.body, body);
    assert_eq!(answer.header("content-type"), OCI_MANIFEST);
    assert_eq!(answer.header("docker-content-digest"), digest);
    assert_eq!(answer.header("etag"), format!("\"{digest}\""));
    assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
    assert_eq!(answer.header("oci-namespace"), NS);
}

#[test]
fn a_fresh_tag_is_answered_without_the_upstream() {
    let (rig, body, digest) = rig("fresh", LONG);
    let target = rig.manifest_target("v1");
    let cold = rig.server.get(&target);
    expect(&cold, &body, &digest);
    let status = cold.header("cache-status");
    assert!(status.starts_with("ringport") && status.contains("fwd=miss"), "{status}");
    let asked = rig.upstream.requests();
    for _ in 0..5 {
        let warm = rig.server.get(&target);
        expect(&warm, &body, &digest);
        assert!(warm.header("cache-status").starts_with("ringport; hit"), "{:?}", warm.head);
        assert!(warm.head.headers.number("age").is_some_and(|age| age < 60), "{:?}", warm.head);
        assert_eq!(warm.head.headers.count("warning"), 0);
    }
    let head = rig.server.head(&target);
    assert_eq!(head.header("content-length"), body.len().to_string());
    assert_eq!(head.header("docker-content-digest"), digest);
    // The digest is known by its tag, so its bytes are there too.
    expect(&rig.server.get(&rig.manifest_target(&digest)), &body, &digest);
    assert_eq!(rig.upstream.requests(), asked, "nobody asked the upstream");
}

#[test]
fn a_due_tag_is_confirmed_by_head_and_renewed() {
    let (rig, body, digest) = rig("due", SHORT);
    let (target, path) = (rig.manifest_target("v1"), rig.manifest_path("v1"));
    expect(&rig.server.get(&target), &body, &digest);
    let gets = rig.upstream.count("GET", &path);
    let heads = rig.upstream.count("HEAD", &path);
    until_due();
    let confirmed = rig.server.get(&target);
    expect(&confirmed, &body, &digest);
    assert_eq!(confirmed.head.headers.count("warning"), 0);
    assert_eq!(rig.upstream.count("GET", &path), gets, "a HEAD is enough");
    assert_eq!(rig.upstream.count("HEAD", &path), heads + 1);
    // Renewed: at once again it is fresh.
    expect(&rig.server.get(&target), &body, &digest);
    assert_eq!(rig.upstream.count("HEAD", &path), heads + 1);
    let accept = rig.upstream.seen().last().unwrap().request.header("accept").map(str::to_owned);
    let accept = accept.unwrap_or_default();
    for media_type in [OCI_MANIFEST, OCI_INDEX, images::DOCKER_MANIFEST, images::DOCKER_LIST] {
        assert!(accept.contains(media_type), "our own full Accept list: {accept}");
    }
}

#[test]
fn a_moved_tag_is_followed() {
    let (rig, body, digest) = rig("moved", SHORT);
    let target = rig.manifest_target("v1");
    expect(&rig.server.get(&target), &body, &digest);
    let newer = manifest("second");
    let newer_digest = rig.upstream.add_manifest(REPOSITORY, "v1", OCI_MANIFEST, &newer);
    until_due();
    expect(&rig.server.get(&target), &newer, &newer_digest);
    // The old one is still there by its digest, without a question.
    let asked = rig.upstream.requests();
    expect(&rig.server.get(&rig.manifest_target(&digest)), &body, &digest);
    assert_eq!(rig.upstream.requests(), asked);
}

#[test]
fn a_digest_is_never_asked_for_again() {
    let (rig, body, digest) = rig("digest", SHORT);
    let target = rig.manifest_target(&digest);
    expect(&rig.server.get(&target), &body, &digest);
    rig.expect_right();
    let asked = rig.upstream.requests();
    until_due();
    expect(&rig.server.get(&target), &body, &digest);
    rig.expect_right();
    assert_eq!(rig.upstream.requests(), asked);
}

#[test]
fn a_deleted_tag_is_404_when_the_upstream_says_so() {
    let (rig, body, digest) = rig("deleted", SHORT);
    let target = rig.manifest_target("v1");
    expect(&rig.server.get(&target), &body, &digest);
    rig.upstream.remove(&rig.manifest_path("v1"));
    until_due();
    let gone = rig.server.get(&target);
    assert_eq!((gone.status(), gone.error_code().as_str()), (404, "MANIFEST_UNKNOWN"));
}

#[test]
fn a_stale_tag_is_served_with_a_warning_while_the_upstream_fails() {
    for (what, failure) in [
        ("stale-503", Answer::status(503)),
        ("stale-429", Answer::status(429).header("Retry-After", "30")),
        ("stale-500", Answer::status(500)),
    ] {
        let (rig, body, digest) = rig(what, SHORT);
        let target = rig.manifest_target("v1");
        expect(&rig.server.get(&target), &body, &digest);
        rig.upstream.script_everything(Some(failure));
        until_due();
        let stale = rig.server.get(&target);
        expect(&stale, &body, &digest);
        assert!(stale.header("warning").starts_with("299 "), "{what}: {:?}", stale.head);
        assert!(stale.header("cache-status").contains("fwd=stale"), "{what}: {:?}", stale.head);
        assert!(stale.head.headers.number("age").is_some_and(|age| age >= 1), "{:?}", stale.head);
        // An upstream that asked for a pause is not asked by every client.
        let asked = rig.upstream.requests();
        for _ in 0..20 {
            expect(&rig.server.get(&target), &body, &digest);
        }
        let more = rig.upstream.requests() - asked;
        assert!(more <= 3, "{what}: {more} requests to an upstream that fails");
    }
}

#[test]
fn a_stale_tag_is_served_while_the_upstream_is_gone_and_after_a_restart() {
    let (mut rig, body, digest) = rig("stale-gone", SHORT);
    let target = rig.manifest_target("v1");
    expect(&rig.server.get(&target), &body, &digest);
    rig.expect_right();
    rig.upstream.stop();
    until_due();
    let stale = rig.server.get(&target);
    expect(&stale, &body, &digest);
    assert!(stale.header("warning").starts_with("299 "), "{:?}", stale.head);
    rig.server.restart();
    let stale = rig.server.get(&target);
    expect(&stale, &body, &digest);
    assert!(stale.header("warning").starts_with("299 "), "{:?}", stale.head);
    rig.expect_right();
    expect(&rig.server.get(&rig.manifest_target(&digest)), &body, &digest);
}

#[test]
fn beyond_stale_max_a_failure_is_a_failure() {
    let rig = Rig::with("stale-max", 1000, |u| u.set("tag_ttl = \"1s\"").set("stale_max = \"1s\""));
    rig.upstream.add_manifest(REPOSITORY, "v1", OCI_MANIFEST, &manifest("first"));
    let target = rig.manifest_target("v1");
    assert_eq!(rig.server.get(&target).status(), 200);
    rig.upstream.script_everything(Some(Answer::status(503)));
    let mut last = None;
    wait_until("the end of stale_max", secs(10), || {
        let answer = rig.server.get(&target);
        let over = answer.status() != 200;
        last = Some(answer);
        over
    });
    let answer = last.unwrap();
    expect_gateway_error(&answer, answer.status());
    assert_ne!(answer.header("retry-after"), "");
}

#[test]
fn with_nothing_cached_a_failure_is_never_404() {
    let mut rig = Rig::new("nothing", 1000);
    let targets = [rig.manifest_target("v1"), rig.manifest_target(&rig.digest), rig.target.clone()];
    rig.upstream.script_everything(Some(Answer::status(429).header("Retry-After", "9")));
    for target in &targets {
        let answer = rig.server.get(target);
        assert_eq!((answer.status(), &*answer.error_code()), (429, "TOOMANYREQUESTS"), "{target}");
        assert_ne!(answer.header("retry-after"), "", "{target}");
    }
    rig.upstream.script_everything(Some(Answer::status(503)));
    for target in &targets {
        let answer = rig.server.get(target);
        // The pause that a 429 asked for may still run.
        assert!(matches!(answer.status(), 429 | 502 | 504), "{target}: {}", answer.text());
        assert_ne!(answer.header("retry-after"), "", "{target}");
    }
    rig.upstream.stop();
    for target in &targets {
        for answer in [rig.server.get(target), rig.server.head(target)] {
            assert!(matches!(answer.status(), 429 | 502 | 504), "{target}: {:?}", answer.head);
            assert_ne!(answer.header("retry-after"), "", "{target}");
        }
    }
}

#[test]
fn a_restart_serves_what_was_cached() {
    let (mut rig, body, digest) = rig("restart", LONG);
    let target = rig.manifest_target("v1");
    expect(&rig.server.get(&target), &body, &digest);
    rig.expect_right();
    rig.server.await_blob(&rig.digest);
    let asked = rig.upstream.requests();
    rig.server.restart();
    expect(&rig.server.get(&target), &body, &digest);
    let blob = rig.expect_right();
    assert!(blob.header("cache-status").starts_with("ringport; hit"), "{:?}", blob.head);
    assert_eq!(rig.upstream.requests(), asked);
}

#[test]
fn a_kill_loses_nothing_that_was_committed_and_leaves_nothing_half_done() {
    let (mut rig, body, digest) = rig("kill", LONG);
    let target = rig.manifest_target("v1");
    expect(&rig.server.get(&target), &body, &digest);
    let gate = support::gate::Gate::new();
    rig.upstream.script("GET", &rig.path, [Answer::right().held_at(500, &gate)]);
    let mut half = rig.server.connect();
    half.request("GET", &rig.target, &[]);
    gate.await_arrivals(1, secs(10));
    rig.server.kill();
    rig.server.start_again();
    gate.open();
    rig.server.await_empty_staging(secs(5));
    expect(&rig.server.get(&target), &body, &digest);
    rig.upstream.script("GET", &rig.path, [Answer::right()]);
    rig.expect_right();
    rig.server.assert_store_is_right();
}

#[test]
fn blobs_say_what_they_are_and_where_they_came_from() {
    let (rig, ..) = rig("blob-head", LONG);
    let cold = rig.expect_right();
    assert!(cold.header("cache-status").contains("fwd=miss"), "{:?}", cold.head);
    assert!(cold.header("cache-status").contains("stored"), "{:?}", cold.head);
    rig.server.await_blob(&rig.digest);
    let mut warm = rig.expect_right();
    wait_until("a hit", secs(5), || {
        warm = rig.expect_right();
        warm.header("cache-status").starts_with("ringport; hit")
    });
    for answer in [&cold, &warm] {
        assert_eq!(answer.header("docker-content-digest"), rig.digest);
        assert_eq!(answer.header("etag"), format!("\"{}\"", rig.digest));
        assert_eq!(answer.header("accept-ranges"), "bytes");
        assert_eq!(answer.header("oci-namespace"), NS);
        assert_eq!(answer.header("content-type"), "application/octet-stream");
    }
    assert!(warm.head.headers.number("age").is_some(), "{:?}", warm.head);
}

#[test]
fn the_namespace_is_told_only_to_those_who_asked_by_ns() {
    let (rig, body, _) = rig("ns-told", LONG);
    let by_path = rig.server.get(&format!("/v2/{NS}/{REPOSITORY}/manifests/v1"));
    assert_eq!((by_path.status(), &by_path.body), (200, &body), "{}", by_path.text());
    assert_eq!(by_path.head.headers.count("oci-namespace"), 0);
    let target = format!("/v2/{REPOSITORY}/manifests/v1");
    let header = [("X-Dragonfly-Registry", "https://lying.example")];
    let by_header = http::get_with(rig.server.addr, &target, &header);
    assert_eq!((by_header.status(), &by_header.body), (200, &body), "{}", by_header.text());
    assert_eq!(rig.upstream.count("GET", &target), 1, "one cache for every way in");
}

#[test]
fn tags_are_relayed_with_their_pages() {
    let (rig, ..) = rig("tags", LONG);
    let path = format!("/v2/{REPOSITORY}/tags/list");
    let page = json!({"name": REPOSITORY, "tags": ["v1", "v2"]}).to_string();
    let link = format!("<{path}?n=2&last=v2>; rel=\"next\"");
    let answer = Answer::instead("application/json", page.clone()).header("Link", &link);
    rig.upstream.script("GET", &path, [answer]);
    let got = rig.server.get(&format!("{path}?n=2&last=v0&ns={NS}"));
    assert_eq!(got.status(), 200, "{}", got.text());
    assert_eq!(got.json()["tags"], json!(["v1", "v2"]));
    let seen = rig.upstream.seen().last().unwrap().request.clone();
    assert_eq!((seen.query_value("n"), seen.query_value("last")), (Some("2"), Some("v0")));
    assert_eq!(seen.query_value("ns"), None, "the upstream is no proxy");
    let next = got.header("link");
    assert!(next.contains("last=v2") && next.contains("n=2"), "{next}");
    assert!(next.contains(&format!("ns={NS}")), "the next page is of the same namespace: {next}");
    assert!(next.ends_with("rel=\"next\""), "{next}");
    assert!(!next.contains(&rig.upstream.addr().to_string()), "not past us: {next}");
}

#[test]
fn referrers_come_from_the_api_of_the_upstream() {
    let (rig, _, digest) = rig("referrers-api", LONG);
    let (index, _) = referrers_index();
    let path = format!("/v2/{REPOSITORY}/referrers/{digest}");
    rig.upstream.add(&path, OCI_INDEX, index.as_bytes(), None);
    let got = rig.server.get(&format!("{path}?ns={NS}"));
    assert_eq!((got.status(), got.header("content-type")), (200, OCI_INDEX), "{}", got.text());
    assert_eq!(got.json()["manifests"].as_array().map(Vec::len), Some(2));
}

#[test]
fn referrers_come_from_the_tag_schema_where_there_is_no_api() {
    let (rig, _, digest) = rig("referrers-tag", LONG);
    let (index, sbom) = referrers_index();
    let tag = digest.replace(':', "-");
    rig.upstream.add_manifest(REPOSITORY, &tag, OCI_INDEX, index.as_bytes());
    let target = format!("/v2/{REPOSITORY}/referrers/{digest}?ns={NS}");
    let all = rig.server.get(&target);
    assert_eq!((all.status(), all.header("content-type")), (200, OCI_INDEX), "{}", all.text());
    assert_eq!(all.json()["manifests"].as_array().map(Vec::len), Some(2));
    // Filtered by us, since the tag is not.
    let some = rig.server.get(&format!("{target}&artifactType={}", images::SBOM_TYPE));
    assert_eq!(some.status(), 200, "{}", some.text());
    let listed = some.json()["manifests"].clone();
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    assert_eq!(listed[0]["digest"], json!(sbom));
    assert_eq!(some.header("oci-filters-applied"), "artifactType");
}

#[test]
fn what_has_no_referrers_has_an_empty_list_of_them() {
    let (rig, ..) = rig("referrers-none", LONG);
    let unknown = format!("sha256:{}", "0".repeat(64));
    let got = rig.server.get(&format!("/v2/{REPOSITORY}/referrers/{unknown}?ns={NS}"));
    assert_eq!((got.status(), got.header("content-type")), (200, OCI_INDEX), "{}", got.text());
    assert_eq!(got.json()["manifests"], json!([]));
    assert_eq!(got.json()["schemaVersion"], json!(2));
}

/// An index of two referrers, and the digest of the one that is an SBOM.
fn referrers_index() -> (String, String) {
    let sbom = images::sha256(b"sbom");
    let entry = |digest: &str, artifact_type: &str| {
        json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": 4,
            "artifactType": artifact_type})
    };
    let manifests =
        [entry(&sbom, images::SBOM_TYPE), entry(&images::sha256(b"sign"), "application/x.sign")];
    let index =
        json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).to_string();
    (index, sbom)
}
