//! Remote tiers of a running server: content is read there before the upstream is asked and written
//! there after it was stored, by requests that a plugin has signed; a tier that is wrong, broken,
//! slow or gone costs no pull.
//!
//! The tier is the lying upstream, which answers 404 for what it was not given.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod plugin_support;
mod support;

use plugin_support::{Installed, plugin_entry};
use support::gate::Gate;
use support::http::{Answer as Got, Ending, get};
use support::images::{OCI_MANIFEST, random_bytes, sha256};
use support::listener::Received;
use support::lying::{Answer, End, LyingUpstream};
use support::rig::{NS, manifest};
use support::secs;
use support::server::{Server, Setup, Upstream};

/// Longer than what a client is not shown before it is verified (8 MiB).
const LONG: usize = 12 << 20;

/// Where the plugin puts content, and what it signs.
fn key(bytes: &[u8]) -> String {
    format!("/bucket//{}", sha256(bytes).replace(':', "/"))
}
const QUERY: &str = "a=%2f&X-Signature=hush-query&b";

struct Rig {
    plugin: Installed,
    upstream: LyingUpstream,
    server: Server,
}

/// A mirror whose plugin uses the tiers of these origins for repositories below `faulty/tier`.
fn rig(what: &str, tiers: &[String]) -> Rig {
    let plugin = Installed::built("ringport_plugin_faulty");
    let upstream = LyingUpstream::start();
    let server = mirror(what, tiers, &plugin, &upstream);
    Rig { plugin, upstream, server }
}

fn mirror(what: &str, tiers: &[String], plugin: &Installed, upstream: &LyingUpstream) -> Server {
    Setup::new(what)
        .upstream(Upstream::new(NS, &upstream.url()))
        .storage(&format!("remote_tiers = {tiers:?}"))
        .routing("resolvers = [\"standard\", \"p\"]")
        .more(&plugin_entry("p", &plugin.path, ""))
        .start()
}

fn blob_path(repository: &str, bytes: &[u8]) -> String {
    format!("/v2/{repository}/blobs/{}", sha256(bytes))
}

fn ask(server: &Server, path: &str) -> Got {
    server.get(&format!("{path}?ns={NS}"))
}

/// Asks for it; all of it must come and be right.
#[track_caller]
fn pull(server: &Server, path: &str, bytes: &[u8]) -> Got {
    let answer = ask(server, path);
    assert_eq!((answer.status(), answer.ending), (200, Ending::Complete), "{:?}", answer.head);
    assert!(answer.body == bytes, "{} wrong bytes of {path}", answer.body.len());
    answer
}

fn count(server: &Server, purpose: &str, outcome: &str) -> f64 {
    let labels = [format!("purpose=\"{purpose}\""), format!("outcome=\"{outcome}\"")];
    server.metric("ringport_remote_tier_requests_total", &labels.each_ref().map(|l| l.as_str()))
}

#[track_caller]
fn await_count(server: &Server, purpose: &str, outcome: &str, expected: f64) {
    support::wait_until(&format!("{expected} {purpose} {outcome}"), secs(20), || {
        count(server, purpose, outcome) == expected
    });
}

fn warnings(server: &Server) -> usize {
    server.log_text().matches("a remote tier failed").count()
}

fn received(tier: &LyingUpstream, method: &str, path: &str) -> Vec<Received> {
    let seen = tier.seen().into_iter().map(|seen| seen.request);
    seen.filter(|request| request.method == method && request.path == path).collect()
}

#[test]
fn what_was_written_to_a_tier_is_read_there_when_the_upstream_is_gone() {
    let tier = LyingUpstream::start();
    let Rig { plugin, mut upstream, server } = rig("tier-both-ways", &[tier.url()]);
    let repository = "faulty/tier";
    let contents = [random_bytes("small", 3000), random_bytes("long", LONG), Vec::new()];
    let manifest = manifest(repository);
    for bytes in contents.iter().chain([&manifest]) {
        tier.script("PUT", &key(bytes), [Answer::status(200)]);
    }
    contents.iter().for_each(|bytes| drop(upstream.add_blob(repository, bytes)));
    upstream.add_manifest(repository, "v1", OCI_MANIFEST, &manifest);
    pull(&server, &format!("/v2/{repository}/manifests/v1"), &manifest);
    for bytes in &contents {
        pull(&server, &blob_path(repository, bytes), bytes);
    }
    await_count(&server, "write", "done", 4.0);
    // A tag has no digest to read by.
    assert_eq!(count(&server, "read", "not_found"), 3.0);
    for bytes in contents.iter().chain([&manifest]) {
        let put = received(&tier, "PUT", &key(bytes));
        assert_eq!(put.len(), 1);
        assert!(put[0].body == *bytes, "{} wrong bytes", put[0].body.len());
        assert_eq!(put[0].query.as_deref(), Some(QUERY));
        let header = |name| put[0].header(name).unwrap_or_default().to_owned();
        assert_eq!(header("host"), tier.addr().to_string());
        assert_eq!(header("content-length"), bytes.len().to_string());
        assert_eq!(header("x-signed"), "hush-header");
        assert_eq!(put[0].header("authorization"), None);
        assert_eq!(put[0].header("transfer-encoding"), None);
        // As an object store: it knows no types.
        tier.add(&key(bytes), "application/octet-stream", bytes, None);
    }
    upstream.stop();
    let empty = mirror("tier-empty", &[tier.url()], &plugin, &upstream);
    for bytes in &contents {
        let answer = pull(&empty, &blob_path(repository, bytes), bytes);
        assert!(answer.header("cache-status").starts_with("ringport; fwd=miss"));
    }
    let path = format!("/v2/{repository}/manifests/{}", sha256(&manifest));
    let answer = pull(&empty, &path, &manifest);
    assert_eq!(answer.header("content-type"), OCI_MANIFEST);
    assert_eq!(count(&empty, "read", "done"), 4.0);
    let asked = received(&tier, "GET", &key(&contents[0]));
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].query.as_deref(), Some(QUERY));
    assert_eq!(asked[1].header("x-signed"), Some("hush-header"));
    assert_eq!(asked[1].header("accept-encoding"), Some("identity"));
    // What was read from a tier is stored, and not written back.
    support::wait_until("a hit", secs(20), || {
        let answer = pull(&empty, &path, &manifest);
        answer.header("cache-status") == "ringport; hit"
    });
    let written = ["done", "failed", "not_found", "expired", "resting"];
    assert!(written.iter().all(|outcome| count(&empty, "write", outcome) == 0.0));
    assert_no_secret(&[&server, &empty]);
}

#[track_caller]
fn assert_no_secret(servers: &[&Server]) {
    for server in servers {
        let target = format!("/explain?path=/v2/faulty/tier/blobs/{}&ns={NS}", sha256(b""));
        let explained = get(server.admin, &target).text();
        assert!(explained.contains("remote tier: GET http://127.0.0.1:"), "{explained}");
        assert!(explained.contains(&key(b"")) && !explained.contains("performed"), "{explained}");
        for text in [explained, server.log_text(), server.metrics()] {
            assert!(!text.contains("hush"), "{text}");
        }
    }
}

#[test]
fn a_tier_that_has_not_got_it_gives_way_quietly() {
    let tier = LyingUpstream::start();
    let rig = rig("tier-404", &[tier.url()]);
    for (n, status) in [404, 403, 410].into_iter().enumerate() {
        let bytes = random_bytes(&status.to_string(), 100_000);
        rig.upstream.add_blob("faulty/tier", &bytes);
        tier.script("GET", &key(&bytes), [Answer::status(status)]);
        tier.script("PUT", &key(&bytes), [Answer::status(204)]);
        pull(&rig.server, &blob_path("faulty/tier", &bytes), &bytes);
        assert_eq!(count(&rig.server, "read", "not_found"), (n + 1) as f64);
    }
    await_count(&rig.server, "write", "done", 3.0);
    assert_eq!(warnings(&rig.server), 0);
}

#[test]
fn a_tier_that_is_wrong_or_broken_costs_no_pull() {
    let tier = LyingUpstream::start();
    let rig = rig("tier-wrong", &[tier.url()]);
    let size = 300_000;
    let lies = [
        ("bytes", Answer::right().bytes(random_bytes("other", size)), "wrong_content"),
        ("short", Answer::right().bytes(vec![7; 100]), "wrong_content"),
        ("long", Answer::right().bytes(vec![7; 2 * size]), "wrong_content"),
        ("chunked", Answer::right().bytes(vec![7; size]).chunked(), "wrong_content"),
        ("encoded", Answer::right().header("Content-Encoding", "gzip"), "failed"),
        ("status", Answer::status(500), "failed"),
        ("redirect", Answer::redirect(307, "/elsewhere"), "failed"),
        // The last: it puts the tier to rest.
        ("cut", Answer::right().ending(End::Fin(size / 2)), "failed"),
    ];
    for (what, lie, outcome) in lies {
        let bytes = random_bytes(what, size);
        rig.upstream.add_blob("faulty/tier", &bytes);
        tier.add(&key(&bytes), "x/y", &bytes, None);
        tier.script("GET", &key(&bytes), [lie]);
        tier.script("PUT", &key(&bytes), [Answer::status(200)]);
        let before = count(&rig.server, "read", outcome);
        let path = blob_path("faulty/tier", &bytes);
        pull(&rig.server, &path, &bytes);
        assert_eq!(count(&rig.server, "read", outcome), before + 1.0, "{what}");
        assert_eq!(rig.upstream.count("GET", &path), 1, "{what}");
        let asked = &received(&rig.upstream, "GET", &path)[0];
        assert_eq!(asked.header("range"), None, "{what}: begun anew");
    }
    assert_eq!(tier.count("GET", "/elsewhere"), 0);
    assert_eq!(warnings(&rig.server), 1, "once a minute");
}

#[test]
fn a_tier_that_breaks_off_under_a_reader_is_followed_by_the_upstream() {
    let (tier, second) = (LyingUpstream::start(), LyingUpstream::start());
    let rig = rig("tier-cut", &[tier.url(), second.url()]);
    let bytes = random_bytes("cut", LONG);
    rig.upstream.add_blob("faulty/tier", &bytes);
    for (tier, end) in [(&tier, End::Fin(LONG / 3)), (&second, End::Reset(LONG / 2))] {
        tier.add(&key(&bytes), "x/y", &bytes, None);
        tier.script("GET", &key(&bytes), [Answer::right().ending(end)]);
    }
    let path = blob_path("faulty/tier", &bytes);
    pull(&rig.server, &path, &bytes);
    assert_eq!(count(&rig.server, "read", "failed"), 2.0);
    let asked = received(&rig.upstream, "GET", &path);
    let range = asked[0].header("range").unwrap_or_default().to_owned();
    let from: usize = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    assert!((LONG / 3..=LONG / 2).contains(&from) && asked.len() == 1, "{range}");
    // Signed as it was, without a Range of ours.
    assert_eq!(received(&second, "GET", &key(&bytes))[0].header("range"), None);
}

#[test]
fn long_content_that_a_tier_has_wrong_is_cut_short_once_and_then_fetched_elsewhere() {
    let tier = LyingUpstream::start();
    let rig = rig("tier-wrong-long", &[tier.url()]);
    let bytes = random_bytes("right", LONG);
    rig.upstream.add_blob("faulty/tier", &bytes);
    tier.add(&key(&bytes), "x/y", &random_bytes("wrong", LONG), None);
    tier.script("PUT", &key(&bytes), [Answer::status(200)]);
    let path = blob_path("faulty/tier", &bytes);
    let first = ask(&rig.server, &path);
    assert_ne!(first.ending, Ending::Complete, "wrong bytes must not be completed");
    assert_eq!(
        (count(&rig.server, "read", "wrong_content"), rig.upstream.count("GET", &path)),
        (1.0, 0)
    );
    support::wait_until("the end of the fill", secs(20), || {
        rig.server.metric("ringport_fills_active", &[]) == 0.0
    });
    pull(&rig.server, &path, &bytes);
    assert_eq!((tier.count("GET", &key(&bytes)), rig.upstream.count("GET", &path)), (1, 1));
    // Which mends it.
    await_count(&rig.server, "write", "done", 1.0);
    assert!(received(&tier, "PUT", &key(&bytes))[0].body == bytes);
}

#[test]
fn a_dead_tier_is_asked_once_and_then_left_alone() {
    let dead = support::ports::free();
    let rig = rig("tier-dead", &[format!("http://{dead}")]);
    for n in 0..20 {
        let bytes = random_bytes(&format!("dead {n}"), 20_000);
        rig.upstream.add_blob("faulty/tier", &bytes);
        pull(&rig.server, &blob_path("faulty/tier", &bytes), &bytes);
    }
    assert_eq!(
        (count(&rig.server, "read", "failed"), count(&rig.server, "read", "resting")),
        (1.0, 19.0)
    );
    await_count(&rig.server, "write", "resting", 20.0);
    assert_eq!(warnings(&rig.server), 1);
    assert!(!rig.server.log_text().contains("hush"), "{}", rig.server.log_text());
}

#[test]
fn a_request_whose_time_is_over_is_not_sent() {
    let tier = LyingUpstream::start();
    let rig = rig("tier-late", &[tier.url()]);
    let bytes = random_bytes("late", 20_000);
    rig.upstream.add_blob("faulty/tier-late", &bytes);
    tier.add(&key(&bytes), "x/y", &bytes, None);
    pull(&rig.server, &blob_path("faulty/tier-late", &bytes), &bytes);
    await_count(&rig.server, "write", "expired", 1.0);
    assert_eq!((count(&rig.server, "read", "expired"), tier.requests()), (1.0, 0));
}

#[test]
fn tiers_are_read_in_their_order_and_written_with_one_repetition() {
    let (broken, good) = (LyingUpstream::start(), LyingUpstream::start());
    let rig = rig("tier-order", &[broken.url(), good.url()]);
    let bytes = random_bytes("order", 20_000);
    let path = blob_path("faulty/tier", &bytes);
    broken.script("GET", &key(&bytes), [Answer::status(503)]);
    good.add(&key(&bytes), "x/y", &bytes, None);
    pull(&rig.server, &path, &bytes);
    assert_eq!((rig.upstream.requests(), broken.requests(), good.requests()), (0, 1, 1));
    let bytes = random_bytes("again", 20_000);
    rig.upstream.add_blob("faulty/tier", &bytes);
    broken.script("PUT", &key(&bytes), [Answer::status(503), Answer::status(201)]);
    good.script("PUT", &key(&bytes), [Answer::status(403)]);
    pull(&rig.server, &blob_path("faulty/tier", &bytes), &bytes);
    await_count(&rig.server, "write", "done", 1.0);
    await_count(&rig.server, "write", "failed", 2.0);
    let puts = |tier: &LyingUpstream| received(tier, "PUT", &key(&bytes)).len();
    assert_eq!((puts(&broken), puts(&good)), (2, 1));
}

#[test]
fn no_pull_waits_for_what_is_written() {
    // Of which 4 are written at a time.
    const MANY: usize = 30;
    let tier = LyingUpstream::start();
    let rig = rig("tier-held", &[tier.url()]);
    let gate = Gate::new();
    for n in 0..MANY {
        let bytes = format!("content number {n}").into_bytes();
        rig.upstream.add_blob("faulty/tier", &bytes);
        tier.script("PUT", &key(&bytes), [Answer::status(200).held(&gate)]);
        pull(&rig.server, &blob_path("faulty/tier", &bytes), &bytes);
    }
    let waiting = || rig.server.metric("ringport_remote_tier_writes_waiting", &[]);
    let puts = || tier.seen().iter().filter(|seen| seen.request.method == "PUT").count();
    support::wait_until("four writers", secs(5), || puts() >= 4 && waiting() == (MANY - 4) as f64);
    assert_eq!(puts(), 4);
    gate.open();
    await_count(&rig.server, "write", "done", MANY as f64);
    assert_eq!(waiting(), 0.0);
    assert_eq!(rig.server.metric("ringport_remote_tier_writes_dropped_total", &[]), 0.0);
}
