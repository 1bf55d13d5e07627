//! A route with two candidates: which failures of the first move on to the second, what is final,
//! and what is known of either without asking.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod plugin_support;
mod support;

use plugin_support::{Installed, plugin_entry};
use support::gate::Gate;
use support::http::Ending;
use support::images::{OCI_MANIFEST, random_bytes};
use support::lying::{Answer, End, LyingUpstream};
use support::rig::manifest;
use support::server::{Server, Setup, Upstream};

const NS: &str = "origin.example";

/// A mirror that asks `peer` first, with `ns=`, and `origin` after it.
struct Rig {
    peer: LyingUpstream,
    origin: LyingUpstream,
    server: Server,
    _plugin: Installed,
}

fn rig(what: &str) -> Rig {
    rig_of(what, "shard", "nodes = [\"peer.example\"]")
}

/// The same by another plugin.
fn rig_of(what: &str, plugin: &str, config: &str) -> Rig {
    let (name, plugin) = (plugin, Installed::built(&format!("ringport_plugin_{plugin}")));
    let (peer, origin) = (LyingUpstream::start(), LyingUpstream::start());
    let limits = |upstream: Upstream| {
        upstream
            .set("connect_timeout = \"2s\"")
            .set("stall_timeout = \"1s\"")
            .set("tag_ttl = \"0s\"")
    };
    // Of the peer alone something is asked that does not answer.
    let impatient = Upstream::new("peer.example", &peer.url()).set("first_byte_timeout = \"1s\"");
    let server = Setup::new(what)
        .upstream(limits(impatient.set("forward_ns = true")))
        .upstream(limits(Upstream::new(NS, &origin.url())))
        .routing(&format!("resolvers = [\"{name}\", \"standard\"]"))
        // It owns nothing itself: all is the peer's.
        .more(&plugin_entry(name, &plugin.path, config))
        .start();
    Rig { peer, origin, server, _plugin: plugin }
}

/// A small blob and a large one, told apart by `what`.
fn blobs(rig: &Rig, what: &str) -> Vec<(String, Vec<u8>)> {
    let blob = |bytes: usize| {
        let bytes = random_bytes(&format!("{what} {bytes}"), bytes);
        rig.peer.add_blob("org/app", &bytes);
        let digest = rig.origin.add_blob("org/app", &bytes);
        (format!("/v2/org/app/blobs/{digest}"), bytes)
    };
    vec![blob(10_000), blob(400_000)]
}

#[test]
fn what_fails_gives_way_to_the_next() {
    let rig = rig("candidates-fail");
    let wrong = || Answer::instead("application/octet-stream", b"wrong".to_vec());
    let failures = [
        // It holds back nothing else: that is for rate_limits.
        ("429", Answer::status(429).header("Retry-After", "0")),
        ("500", Answer::status(500)),
        ("502", Answer::status(502)),
        ("503", Answer::status(503)),
        ("no head", Answer::right().held(&Gate::new())),
    ];
    for (what, answer) in failures {
        for (path, bytes) in blobs(&rig, what) {
            rig.peer.script("*", &path, [answer.clone()]);
            let got = rig.server.get(&format!("{path}?ns={NS}"));
            assert!(got.status() == 200 && got.body == bytes, "{what}: {:?}", got.head);
            assert_eq!((rig.peer.count("GET", &path), rig.origin.count("GET", &path)), (1, 1));
        }
        let body = manifest(what);
        rig.origin.add_manifest("org/app", "v1", OCI_MANIFEST, &body);
        let path = "/v2/org/app/manifests/v1";
        rig.peer.script("*", path, [answer]);
        let got = rig.server.get(&format!("{path}?ns={NS}"));
        assert_eq!((got.status(), got.body.as_slice()), (200, body.as_slice()), "{what}");
    }
    // Small content may be wrong to its last byte: nobody has been told anything yet.
    let (path, bytes) = blobs(&rig, "wrong").remove(0);
    rig.peer.script("*", &path, [wrong()]);
    let got = rig.server.get(&format!("{path}?ns={NS}"));
    assert!(got.status() == 200 && got.body == bytes, "{:?}", got.head);
    rig.server.assert_store_is_right();
}

#[test]
fn a_download_that_breaks_off_goes_on_at_the_next() {
    let rig = rig("candidates-middle");
    for (cut, ranged) in [(0, 0), (150_000, 1), (399_999, 1)] {
        let (path, bytes) = blobs(&rig, &format!("cut at {cut}")).remove(1);
        let broken = Answer::right().ending(End::Fin(cut));
        rig.peer.script("GET", &path, [broken, Answer::status(503)]);
        let got = rig.server.get(&format!("{path}?ns={NS}"));
        assert_eq!((got.status(), got.ending), (200, Ending::Complete), "cut at {cut}");
        assert!(got.body == bytes, "cut at {cut}: {} bytes", got.body.len());
        let seen = rig.origin.seen();
        let asked: Vec<_> = seen.iter().filter(|seen| seen.request.path == path).collect();
        assert_eq!(asked.len(), 1, "cut at {cut}");
        let range = asked[0].request.header("range").map(str::to_owned);
        assert_eq!(range.is_some(), ranged == 1, "cut at {cut}: {range:?}");
        if let Some(range) = range {
            assert_eq!(range, format!("bytes={cut}-"), "only the rest");
        }
    }
    rig.server.assert_store_is_right();
}

#[test]
fn a_download_goes_on_past_a_candidate_that_has_not_got_it() {
    let rig = rig("candidates-lacking");
    for refusal in [404, 401, 416] {
        let (path, bytes) = blobs(&rig, &format!("lacking {refusal}")).remove(1);
        let broken = || Answer::right().ending(End::Fin(150_000));
        rig.peer.script("GET", &path, [broken(), Answer::status(503), Answer::right()]);
        rig.origin.script("GET", &path, [Answer::status(refusal)]);
        let got = rig.server.get(&format!("{path}?ns={NS}"));
        assert_eq!((got.status(), got.ending), (200, Ending::Complete), "{refusal}");
        assert!(got.body == bytes, "{refusal}: {} bytes", got.body.len());
        assert_eq!(rig.origin.count("GET", &path), 1, "{refusal}");
    }
    rig.server.assert_store_is_right();
}

#[test]
fn a_list_is_asked_for_at_all_of_them_and_then_served_stale() {
    // Lists are not shared by the nodes of `shard`.
    let rig = rig_of("candidates-lists", "faulty", "");
    let (path, target) = ("/v2/org/app/tags/list", "/v2/faulty/two/tags/list");
    let (ours, theirs) = (r#"{"name":"org/app","tags":["peer"]}"#, r#"{"tags":["origin"]}"#);
    rig.peer.add(path, "application/json", ours.as_bytes(), None);
    rig.origin.add(path, "application/json", theirs.as_bytes(), None);
    assert_eq!(rig.server.get(target).text(), ours);
    // What the peer had counts for nothing as long as the origin answers.
    rig.peer.script_everything(Some(Answer::status(503)));
    assert_eq!(rig.server.get(target).text(), theirs);
    rig.origin.script_everything(Some(Answer::status(503)));
    let stale = rig.server.get(target);
    assert_eq!((stale.status(), stale.text().as_str()), (200, ours), "{:?}", stale.head);
    assert!(stale.header("cache-status").contains("fwd=stale"), "{:?}", stale.head);
    assert!(stale.header("warning").starts_with("299 "), "{:?}", stale.head);
}

#[test]
fn no_is_an_answer() {
    let rig = rig("candidates-no");
    for (status, expected) in [(404, 404), (403, 403)] {
        for (path, _) in blobs(&rig, &status.to_string()) {
            rig.peer.script("*", &path, [Answer::status(status)]);
            assert_eq!(rig.server.get(&format!("{path}?ns={NS}")).status(), expected);
        }
    }
    assert_eq!(rig.origin.requests(), 0, "what the first says is not there is not looked for");
}

#[test]
fn what_is_stored_of_either_is_served_without_asking_anybody() {
    let rig = rig("candidates-stored");
    let content = blobs(&rig, "stored");
    // From the peer, as long as it is there; then from the origin.
    let (from_peer, from_origin) = (&content[0], &content[1]);
    let get = |rig: &Rig, (path, bytes): &(String, Vec<u8>)| {
        let got = rig.server.get(&format!("{path}?ns={NS}"));
        assert!(got.status() == 200 && got.body == *bytes, "{:?}", got.head);
        got.header("cache-status").to_owned()
    };
    get(&rig, from_peer);
    let asked = &rig.peer.seen()[0].request;
    assert_eq!(asked.query.as_deref(), Some("ns=origin.example"), "{asked:?}");
    rig.peer.script_everything(Some(Answer::status(503)));
    get(&rig, from_origin);
    rig.server.await_blob(from_origin.0.rsplit('/').next().unwrap());
    let before = (rig.peer.requests(), rig.origin.requests());
    for content in [from_peer, from_origin] {
        support::wait_until("a hit", support::secs(20), || get(&rig, content) == "ringport; hit");
        get(&rig, content);
    }
    assert_eq!((rig.peer.requests(), rig.origin.requests()), before);
    // What came from the one is no knowledge about the other: by its own name it is asked for.
    let direct = rig.server.get(&format!("{}?ns=peer.example", from_peer.0));
    assert_ne!(direct.status(), 200, "{:?}", direct.head);
}

#[test]
fn a_tag_is_asked_for_everywhere_before_it_is_served_stale() {
    let mut rig = rig("candidates-stale");
    let (old, new) = (manifest("old"), manifest("new"));
    let path = "/v2/org/app/manifests/latest";
    rig.peer.add_manifest("org/app", "latest", OCI_MANIFEST, &old);
    let get = |rig: &Rig| rig.server.get(&format!("{path}?ns={NS}"));
    assert_eq!(get(&rig).body, old);
    rig.origin.add_manifest("org/app", "latest", OCI_MANIFEST, &new);
    rig.peer.stop();
    let got = get(&rig);
    assert_eq!((got.status(), got.body.as_slice()), (200, new.as_slice()), "not the stale one");
    assert_eq!(got.header("warning"), "");
    // Nobody answers any more: the first that has something stale.
    rig.origin.stop();
    let got = get(&rig);
    assert_eq!((got.status(), got.body.as_slice()), (200, old.as_slice()));
    assert!(got.header("warning").starts_with("299"), "{:?}", got.head);
}
