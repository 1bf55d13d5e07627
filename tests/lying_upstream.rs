//! An upstream that lies about a blob: nothing bad is cached, nothing bad is completed, what can
//! be saved is resumed, and the next honest answer is served. One test a lie.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::time::Instant;
use support::http::Ending;
use support::images::random_bytes;
use support::lying::{Answer, End, Ranges};
use support::rig::{HELD_BACK, NS, REPOSITORY, Rig, expect_gateway_error, manifest};
use support::{ms, secs};

const MIB: usize = 1 << 20;

/// Runs one lie that can not be healed against one server.
#[track_caller]
fn fails(what: &str, wrong: bool, script: impl IntoIterator<Item = Answer>) {
    let mut rig = Rig::new(what, MIB);
    rig.upstream.script("GET", &rig.path, script);
    rig.expect_failure(wrong);
    rig.expect_nothing_kept_and_recovery();
}

#[test]
fn a_short_body_is_never_completed() {
    let cut = |at| Answer::right().ending(End::Fin(at));
    fails("short", false, [cut(400_000), cut(0)]);
}

#[test]
fn a_short_body_with_a_matching_length_is_never_completed() {
    let prefix = random_bytes("rig", MIB)[..400_000].to_vec();
    fails("short-length", false, [Answer::right().bytes(prefix)]);
}

#[test]
fn a_long_body_is_never_completed() {
    let mut long = random_bytes("rig", MIB);
    long.extend_from_slice(b"and a hundred bytes more");
    let mut rig = Rig::new("long", MIB);
    rig.upstream.script("GET", &rig.path, [Answer::right().bytes(long)]);
    let answer = rig.server.get(&rig.target);
    assert!(answer.status() != 200 || answer.ending == Ending::Fin, "{:?}", answer.head);
    rig.expect_nothing_kept_and_recovery();
}

#[test]
fn bytes_behind_the_announced_length_never_answer_the_next_request() {
    let rig = Rig::new("smuggled", MIB);
    let evil = manifest("evil");
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n\
         Content-Length: {}\r\n\r\n",
        evil.len()
    );
    let smuggled = [head.as_bytes(), &evil].concat();
    rig.upstream.script("GET", &rig.path, [Answer::right().followed_by(&smuggled)]);
    let good = manifest("good");
    rig.upstream.add_manifest(REPOSITORY, "v1", support::images::OCI_MANIFEST, &good);
    for _ in 0..3 {
        let _ = rig.server.get(&rig.target);
        let answer = rig.server.get(&rig.manifest_target("v1"));
        assert_eq!((answer.status(), &answer.body), (200, &good));
    }
    rig.server.assert_store_is_right();
}

#[test]
fn a_wrong_digest_is_cut_before_the_last_64_kib() {
    let wrong = random_bytes("other", MIB);
    fails("digest", true, [Answer::right().bytes(wrong)]);
}

#[test]
fn of_a_small_blob_with_a_wrong_digest_no_byte_is_given_out() {
    let mut rig = Rig::new("digest-small", 1000);
    rig.upstream.script("GET", &rig.path, [Answer::right().bytes(random_bytes("other", 1000))]);
    let answer = rig.server.get(&rig.target);
    match answer.status() {
        200 => assert_eq!((answer.body.len(), answer.ending), (0, Ending::Fin)),
        status => expect_gateway_error(&answer, status),
    }
    rig.expect_nothing_kept_and_recovery();
}

#[test]
fn a_reset_in_the_middle_is_resumed_under_the_client() {
    let rig = Rig::new("reset-once", 4 * MIB);
    let reset = Answer::right().ending(End::Reset(1_500_000));
    rig.upstream.script("GET", &rig.path, [reset, Answer::right()]);
    rig.expect_right();
    assert_eq!(rig.upstream.count("GET", &rig.path), 2);
    let second = &rig.upstream.seen()[1].request;
    let range = second.header("range").unwrap_or_default();
    let from: u64 = range.trim_start_matches("bytes=").split('-').next().unwrap().parse().unwrap();
    assert!(from > 0 && from <= 1_500_000, "resumed where it stopped: {range}");
    let sent = rig.upstream.bytes_sent(&rig.path);
    assert!(sent <= (4 * MIB as u64) * 11 / 10, "{sent} bytes for {} KiB", 4 * 1024);
    rig.server.await_blob(&rig.digest);
    rig.server.assert_store_is_right();
}

#[test]
fn a_reset_on_every_try_is_survived_as_long_as_each_brings_something() {
    let rig = Rig::new("reset-often", MIB);
    rig.upstream.script("GET", &rig.path, [Answer::right().ending(End::Reset(200_000))]);
    rig.expect_right();
    let sent = rig.upstream.bytes_sent(&rig.path);
    assert!(sent <= (MIB as u64) * 12 / 10, "{sent} bytes for one MiB");
    rig.server.await_blob(&rig.digest);
}

#[test]
fn a_reset_that_brings_nothing_more_cuts_the_client_short() {
    let reset = |at| Answer::right().ending(End::Reset(at));
    fails("reset-always", false, [reset(300_000), reset(0)]);
}

#[test]
fn an_upstream_that_ignores_the_range_of_a_resumption_is_used_all_the_same() {
    let rig = Rig::new("range-ignored", MIB);
    let reset = Answer::right().ending(End::Reset(300_000));
    rig.upstream.script("GET", &rig.path, [reset, Answer::right().ranges(Ranges::Ignore)]);
    rig.expect_right();
    rig.server.await_blob(&rig.digest);
}

#[test]
fn a_resumption_with_a_shifted_range_is_never_completed_wrong() {
    let reset = Answer::right().ending(End::Reset(300_000));
    fails("range-shifted", true, [reset, Answer::right().ranges(Ranges::Shift)]);
}

#[test]
fn a_resumption_with_wrong_bytes_is_never_completed() {
    let reset = Answer::right().ending(End::Reset(300_000));
    fails("range-corrupt", true, [reset, Answer::right().ranges(Ranges::Corrupt)]);
}

#[test]
fn a_refused_resumption_cuts_the_client_short() {
    let reset = Answer::right().ending(End::Reset(300_000));
    fails("range-refused", false, [reset, Answer::right().ranges(Ranges::Refuse)]);
}

#[test]
fn a_chunked_body_without_its_end_is_never_completed() {
    let cut = |at| Answer::right().chunked().ending(End::Fin(at));
    fails("chunked-cut", false, [cut(400_000), cut(0)]);
}

#[test]
fn a_body_that_ends_with_the_connection_is_judged_by_its_digest() {
    let cut = |at| Answer::right().until_close().ending(End::Fin(at));
    fails("close-cut", false, [cut(400_000), cut(0)]);
}

#[test]
fn right_bytes_in_any_framing_are_completed() {
    for (what, answer) in [
        ("chunked", Answer::right().chunked()),
        ("until-close", Answer::right().until_close()),
        ("no-digest", Answer::right().without("Docker-Content-Digest").without("ETag")),
    ] {
        let rig = Rig::new(what, MIB);
        rig.upstream.script("GET", &rig.path, [answer]);
        rig.expect_right();
        rig.server.await_blob(&rig.digest);
        let again = rig.expect_right();
        assert_eq!(again.header("content-length"), MIB.to_string(), "{what}, from the store");
        assert_eq!(rig.upstream.count("GET", &rig.path), 1, "{what}");
    }
}

#[test]
fn a_sign_in_page_with_200_is_no_blob() {
    fails("html", true, [Answer::instead("text/html", "<html>sign in</html>")]);
}

#[test]
fn a_gzipped_body_is_refused() {
    let answer = Answer::right().header("Content-Encoding", "gzip");
    fails("gzip", false, [answer]);
}

#[test]
fn identity_is_what_the_upstream_is_asked_for() {
    let rig = Rig::new("identity", 1000);
    rig.expect_right();
    let seen = rig.upstream.seen();
    assert_eq!(seen[0].request.header("accept-encoding"), Some("identity"));
    assert_eq!(seen[0].request.query, None, "ns is for the mirror alone");
}

#[test]
fn a_429_is_passed_on_with_its_pause() {
    let mut rig = Rig::new("429", MIB);
    rig.upstream.script("GET", &rig.path, [Answer::status(429).header("Retry-After", "17")]);
    let answer = rig.server.get(&rig.target);
    assert_eq!(answer.status(), 429, "{}", answer.text());
    assert_eq!(answer.error_code(), "TOOMANYREQUESTS");
    let pause: u64 = answer.header("retry-after").parse().expect("a number of seconds");
    assert!((1..=17).contains(&pause), "Retry-After: {pause}");
    rig.server.await_empty_staging(secs(5));
    assert!(!rig.server.has_blob(&rig.digest));
    rig.server.assert_alive();
}

#[test]
fn server_errors_are_gateway_errors_and_never_404() {
    for status in [500, 502, 503, 504] {
        let rig = Rig::new("5xx", MIB);
        rig.upstream.script("GET", &rig.path, [Answer::status(status)]);
        let answer = rig.server.get(&rig.target);
        expect_gateway_error(&answer, answer.status());
        assert_ne!(answer.header("retry-after"), "", "{status} upstream: a Retry-After");
        assert!(!rig.server.has_blob(&rig.digest));
    }
}

#[test]
fn what_the_upstream_does_not_have_is_404_and_asked_for_again() {
    let rig = Rig::new("404", MIB);
    let absent = format!("sha256:{}", "ab".repeat(32));
    let answer = rig.server.get(&format!("/v2/{REPOSITORY}/blobs/{absent}?ns={NS}"));
    assert_eq!((answer.status(), answer.error_code().as_str()), (404, "BLOB_UNKNOWN"));
    let answer = rig.server.get(&rig.manifest_target("no-such-tag"));
    assert_eq!((answer.status(), answer.error_code().as_str()), (404, "MANIFEST_UNKNOWN"));
}

#[test]
fn a_body_that_stops_coming_is_given_up_in_bounded_time() {
    let stall = |at| Answer::right().ending(End::Stall(at));
    let started = Instant::now();
    let mut rig = Rig::with("stall", MIB, |u| u.set("stall_timeout = \"500ms\""));
    rig.upstream.script("GET", &rig.path, [stall(300_000), stall(0)]);
    rig.expect_failure(false);
    assert!(started.elapsed() < secs(40), "{:?}", started.elapsed());
    rig.expect_nothing_kept_and_recovery();
}

#[test]
fn a_head_that_does_not_come_is_504() {
    let mut rig = Rig::with("no-head", MIB, |u| u.set("first_byte_timeout = \"500ms\""));
    let gate = support::gate::Gate::new();
    rig.upstream.script("GET", &rig.path, [Answer::right().held(&gate)]);
    let answer = rig.server.get(&rig.target);
    assert_eq!(answer.status(), 504, "{}", answer.text());
    assert_ne!(answer.header("retry-after"), "");
    gate.open();
    rig.expect_nothing_kept_and_recovery();
}

#[test]
fn one_byte_a_second_is_given_up_in_bounded_time() {
    let started = Instant::now();
    let mut rig = Rig::new("drip", MIB);
    rig.upstream.script("GET", &rig.path, [Answer::right().paced(1, secs(1))]);
    let mut connection = rig.server.connect();
    connection.set_read_timeout(secs(200));
    let answer = connection.exchange("GET", &rig.target, &[]);
    assert!(answer.status() != 200 || answer.ending == Ending::Fin, "{:?}", answer.ending);
    // A few tries of the 2 s that this rig gives a stalled body; a byte is no progress.
    assert!(started.elapsed() < secs(60), "{:?}", started.elapsed());
    rig.expect_nothing_kept_and_recovery();
}

#[test]
fn a_head_without_end_is_refused() {
    let answer = Answer::right().header("X-Filler", &"x".repeat(4 << 20));
    fails("huge-head", false, [answer]);
}

#[test]
fn a_flood_of_interim_heads_neither_hangs_nor_grows() {
    let mut rig = Rig::new("1xx", MIB);
    let before = rig.server.rss_bytes();
    rig.upstream.script("GET", &rig.path, [Answer::right().interim(50_000)]);
    let answer = rig.server.get(&rig.target);
    match answer.status() {
        200 => assert!(answer.body == rig.bytes && answer.ending == Ending::Complete),
        status => expect_gateway_error(&answer, status),
    }
    let grown = rig.server.rss_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes grown");
    rig.server.assert_alive();
}

#[test]
fn the_end_of_a_blob_is_held_back_until_its_digest_is_known() {
    let rig = Rig::new("held-back", MIB);
    let gate = support::gate::Gate::new();
    let all_but_one = MIB - 1;
    rig.upstream.script("GET", &rig.path, [Answer::right().held_at(all_but_one, &gate)]);
    let mut connection = rig.server.connect();
    connection.request("GET", &rig.target, &[]);
    let head = connection.read_head().expect("the head comes before the body is whole");
    assert_eq!(head.status, 200);
    gate.await_arrivals(1, secs(10));
    // Everything but the tail is there to be read, and no byte of the tail.
    let mut body = connection.read_exactly(MIB - HELD_BACK - (256 << 10)).unwrap();
    connection.set_read_timeout(ms(500));
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = connection.read_some(&mut buffer) {
        body.extend_from_slice(&buffer[..n]);
    }
    assert!(body.len() <= MIB - HELD_BACK, "{} bytes before the digest", body.len());
    gate.open();
    connection.set_read_timeout(secs(20));
    body.extend(connection.read_exactly(MIB - body.len()).unwrap());
    assert!(body == rig.bytes);
}
