//! Ranges of blobs that are not here: answered after one round trip where the configuration allows
//! unverified bytes, shared, completed in the background, verified before they are kept.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::gate::Gate;
use support::http::{Answer as Got, Connection, Ending, get_with};
use support::lying::{Answer, End, LyingUpstream, Ranges};
use support::rig::{HELD_BACK, NS, Rig, declared, expect_gateway_error};
use support::server::Setup;
use support::{secs, wait_until};

const MIB: usize = 1 << 20;

/// An upstream whose ranges may be had unverified.
fn lazy(what: &str, size: usize, lines: &[&str]) -> Rig {
    Rig::with(what, size, |upstream| {
        let upstream = upstream.set("cold_ranges = \"unverified\"").set("stall_timeout = \"60s\"");
        lines.iter().fold(upstream, |upstream, line| upstream.set(line))
    })
}

fn range(rig: &Rig, first: usize, end: usize) -> Got {
    let value = format!("bytes={first}-{}", end - 1);
    get_with(rig.server.addr, &rig.target, &[("Range", &value)])
}

#[track_caller]
fn expect_part(rig: &Rig, got: &Got, first: usize, end: usize) {
    assert_eq!((got.status(), got.ending), (206, Ending::Complete), "{:?}", got.head);
    assert!(got.body == rig.bytes[first..end], "{} wrong bytes", got.body.len());
    let expected = format!("bytes {first}-{}/{}", end - 1, rig.bytes.len());
    assert_eq!(got.header("content-range"), expected);
    assert_eq!(got.header("docker-content-digest"), rig.digest);
}

/// The ranges that the upstream was asked for, in order.
fn asked(rig: &Rig) -> Vec<String> {
    let of_blob =
        |seen: &support::lying::Seen| seen.request.method == "GET" && seen.request.path == rig.path;
    let seen = rig.upstream.seen();
    let range = |seen: &support::lying::Seen| seen.request.header("range").unwrap_or("all").into();
    seen.iter().filter(|seen| of_blob(seen)).map(range).collect()
}

/// Upstream body bytes for each byte of content.
fn cost(rig: &Rig) -> f64 {
    rig.upstream.bytes_sent(&rig.path) as f64 / rig.bytes.len() as f64
}

#[test]
fn a_range_is_answered_after_one_round_trip_and_the_rest_comes_behind() {
    let rig = lazy("partial", 8 * MIB, &[]);
    let gate = Gate::new();
    // What is asked for is answered; everything after it waits.
    let answers = [Answer::right(), Answer::right().held(&gate)];
    rig.upstream.script("GET", &rig.path, answers);
    let got = range(&rig, 5 * MIB, 5 * MIB + 1000);
    expect_part(&rig, &got, 5 * MIB, 5 * MIB + 1000);
    assert_eq!(got.header("cache-status"), "ringport; fwd=miss");
    gate.await_arrivals(1, secs(10));
    assert_eq!(asked(&rig)[0], format!("bytes={}-{}", 5 * MIB, 5 * MIB + 999));
    assert_eq!(rig.upstream.requests(), 2, "no other question was asked");
    // It is there now, for everybody, though nothing is stored.
    let again = range(&rig, 5 * MIB + 10, 5 * MIB + 500);
    expect_part(&rig, &again, 5 * MIB + 10, 5 * MIB + 500);
    assert_eq!(again.header("cache-status"), "ringport; hit; detail=unverified");
    assert!(!rig.server.has_blob(&rig.digest));
    assert_eq!(rig.server.metric("ringport_sparse_fills", &[]), 1.0);
    gate.open();
    rig.server.await_blob(&rig.digest);
    rig.server.assert_store_is_right();
    let whole = rig.expect_right();
    assert_eq!(whole.header("cache-status"), "ringport; hit");
    assert!(cost(&rig) <= 1.05, "{} x content", cost(&rig));
    assert_eq!(rig.server.metric("ringport_sparse_fills", &[]), 0.0);
    assert_eq!(rig.server.metric("ringport_extent_bytes_total", &[]), 1490.0);
}

#[test]
fn ranges_that_overlap_share_what_both_want() {
    let rig = lazy("overlap", 4 * MIB, &["background_fill = false"]);
    let gate = Gate::new();
    rig.upstream.script(
        "GET",
        &rig.path,
        [Answer::right().held_at(50_000, &gate), Answer::right()],
    );
    let ask = |first: usize, end: usize| {
        let mut client = rig.server.connect();
        let value = format!("bytes={first}-{}", end - 1);
        client.request("GET", &rig.target, &[("Range", &value)]);
        let head = client.read_head().unwrap();
        assert_eq!(head.status, 206);
        (client, head)
    };
    let (mut first, first_head) = ask(0, 200_000);
    gate.await_arrivals(1, secs(10));
    let (mut second, second_head) = ask(100_000, 300_000);
    let (leaving, _) = ask(150_000, 160_000);
    assert_eq!(second_head.headers.text("cache-status"), "ringport; fwd=miss; collapsed");
    // Whoever leaves takes nothing away from the others, the first neither.
    leaving.reset();
    let got = first.read_exactly(40_000).unwrap();
    assert!(got == rig.bytes[..40_000]);
    assert_eq!(first_head.headers.number("content-length"), Some(200_000));
    first.reset();
    gate.open();
    let (body, ending, _) = second.read_body(&second_head, "GET");
    assert!(ending == Ending::Complete && body == rig.bytes[100_000..300_000]);
    assert_eq!(asked(&rig), ["bytes=0-199999", "bytes=200000-299999"]);
    // The upstream counts what it has sent after the client has it.
    let sent = || rig.upstream.bytes_sent(&rig.path);
    wait_until("all bytes to be counted", secs(10), || sent() >= 300_000);
    assert_eq!(sent(), 300_000, "each byte once");
}

#[test]
fn bytes_that_are_not_the_blob_are_never_kept_nor_completed() {
    let mut rig = lazy("corrupt", 3 * MIB, &[]);
    let gate = Gate::new();
    let corrupt = || Answer::right().ranges(Ranges::Corrupt);
    let honest_first = [Answer::right(), corrupt().held(&gate), corrupt()];
    rig.upstream.script("GET", &rig.path, honest_first);
    expect_part(&rig, &range(&rig, 0, 1000), 0, 1000);
    // Whoever wants it whole, or to its end, is not told that it is.
    gate.await_arrivals(1, secs(10));
    let open = |value: &'static str| {
        let (addr, target) = (rig.server.addr, rig.target.clone());
        std::thread::spawn(move || get_with(addr, &target, &[("Range", value)]))
    };
    let to_end = open("bytes=1048576-");
    let whole = open("none");
    wait_until("both to read", secs(10), || {
        rig.server.metric("ringport_connections", &["worker=\"0\""])
            + rig.server.metric("ringport_connections", &["worker=\"1\""])
            >= 2.0
    });
    gate.open();
    for (got, status, least) in [(to_end, 206, 0), (whole, 200, 0)] {
        let got = got.join().unwrap();
        match got.status() {
            502 => continue,
            found => assert_eq!((found, got.ending), (status, Ending::Fin)),
        }
        let length: usize = got.header("content-length").parse().unwrap();
        assert!((least..=length - HELD_BACK).contains(&got.body.len()), "{}", got.body.len());
    }
    let mismatches = || rig.server.metric("ringport_fills_total", &["outcome=\"digest_mismatch\""]);
    wait_until("the digest to be compared", secs(20), || mismatches() >= 1.0);
    wait_until("the log to say so", secs(10), || {
        let log = rig.server.log_text();
        log.lines().any(|line| line.contains(&rig.digest) && line.contains("hashes to"))
    });
    rig.expect_nothing_kept_and_recovery();
}

#[test]
fn by_default_only_verified_bytes_complete_a_range() {
    let rig = Rig::new("verified", MIB);
    let gate = Gate::new();
    rig.upstream.script("GET", &rig.path, [Answer::right().held_at(MIB / 2, &gate)]);
    let mut client = rig.server.connect();
    client.request("GET", &rig.target, &[("Range", "bytes=1000-99999")]);
    let head = client.read_head().unwrap();
    assert_eq!((head.status, head.headers.number("content-length")), (206, Some(99_000)));
    gate.await_arrivals(1, secs(10));
    let beginning = client.read_exactly(99_000 - HELD_BACK).unwrap();
    client.set_read_timeout(support::ms(300));
    assert!(client.read_exactly(1).is_err(), "its end waits for the digest");
    gate.open();
    client.set_read_timeout(secs(20));
    let end = client.read_exactly(HELD_BACK).unwrap();
    assert!([beginning, end].concat() == rig.bytes[1000..100_000]);
    assert_eq!(asked(&rig), ["all"]);
}

/// What containerd does with `concurrent_layer_fetch_buffer`: ranges without an end, one a
/// MiB, each of which is left after its MiB.
fn read_like_containerd(rig: &Rig) {
    const PARTS: usize = 4;
    let parts: Vec<_> = (0..PARTS)
        .map(|part| {
            let (addr, target) = (rig.server.addr, rig.target.clone());
            let first = part * MIB;
            let mut client = Connection::open(addr);
            let value = format!("bytes={first}-");
            client.request("GET", &target, &[("Range", &value)]);
            let head = client.read_head().unwrap();
            assert_eq!(head.status, 206);
            (first, client)
        })
        .collect();
    let readers: Vec<_> = parts
        .into_iter()
        .map(|(first, mut client)| {
            let bytes = rig.bytes[first..first + MIB].to_vec();
            std::thread::spawn(move || {
                assert!(client.read_exactly(MIB).unwrap() == bytes);
                client.reset();
            })
        })
        .collect();
    for reader in readers {
        reader.join().unwrap();
    }
}

#[test]
fn open_ended_ranges_that_are_closed_early_cost_one_stream() {
    let modes = ["verified", "unverified"];
    for mode in modes {
        let size = 8 * MIB;
        let rig = Rig::with(&format!("containerd-{mode}"), size, |upstream| {
            upstream.set(&format!("cold_ranges = \"{mode}\""))
        });
        let paced = Answer::right().paced(256 << 10, support::ms(10));
        rig.upstream.script("GET", &rig.path, [paced]);
        read_like_containerd(&rig);
        rig.server.await_blob(&rig.digest);
        assert_eq!(asked(&rig).len(), 1, "{mode}: {:?}", asked(&rig));
        assert!(cost(&rig) <= 1.05, "{mode}: {} x content", cost(&rig));
        rig.server.assert_store_is_right();
    }
}

#[test]
fn a_restart_in_the_middle_leaves_nothing_behind() {
    let mut rig = lazy("restart", 4 * MIB, &[]);
    let gate = Gate::new();
    rig.upstream.script("GET", &rig.path, [Answer::right(), Answer::right().held(&gate)]);
    expect_part(&rig, &range(&rig, MIB, MIB + 5000), MIB, MIB + 5000);
    gate.await_arrivals(1, secs(10));
    assert_eq!(rig.server.staged().len(), 1);
    rig.server.kill();
    rig.server.start_again();
    assert!(rig.server.staged().is_empty() && !rig.server.has_blob(&rig.digest));
    gate.open();
    let before = asked(&rig).len();
    expect_part(&rig, &range(&rig, MIB, MIB + 5000), MIB, MIB + 5000);
    assert!(asked(&rig).len() > before, "nothing was known of it");
    rig.server.await_blob(&rig.digest);
    rig.server.assert_store_is_right();
}

#[test]
fn a_whole_pull_joins_and_completes_it() {
    for leaves in [false, true] {
        joins_and_completes(leaves);
    }
}

/// `leaves`: whether the client of the whole pull leaves in its middle.
fn joins_and_completes(leaves: bool) {
    let rig = lazy("join", 4 * MIB, &["background_fill = false"]);
    expect_part(&rig, &range(&rig, 2 * MIB, 3 * MIB), 2 * MIB, 3 * MIB);
    let gate = Gate::new();
    rig.upstream.script("GET", &rig.path, [Answer::right().held_at(MIB / 2, &gate)]);
    let mut client = rig.server.connect();
    client.request("GET", &rig.target, &[]);
    let head = client.read_head().unwrap();
    assert_eq!((head.status, head.headers.number("content-length")), (200, Some(4 * MIB as u64)));
    assert_eq!(head.headers.text("cache-status"), "ringport; fwd=partial");
    let mut body = client.read_exactly(MIB / 2).unwrap();
    assert!(body == rig.bytes[..MIB / 2]);
    if leaves {
        client.reset();
        gate.open();
    } else {
        gate.open();
        body.extend(client.read_exactly(4 * MIB - MIB / 2).unwrap());
        assert!(body == rig.bytes);
    }
    rig.server.await_blob(&rig.digest);
    assert!(cost(&rig) <= 1.05, "{} x content", cost(&rig));
    rig.server.assert_store_is_right();
}

#[test]
fn without_a_background_fill_what_nobody_reads_is_dropped() {
    let lines = ["background_fill = false", "extents_keep = \"3s\""];
    let rig = lazy("dropped", 4 * MIB, &lines);
    expect_part(&rig, &range(&rig, 0, 1000), 0, 1000);
    expect_part(&rig, &range(&rig, 500, 2000), 500, 2000);
    assert_eq!(asked(&rig), ["bytes=0-999", "bytes=1000-1999"]);
    rig.server.await_empty_staging(secs(20));
    assert_eq!(rig.server.metric("ringport_fills_total", &["outcome=\"dropped\""]), 1.0);
    wait_until("its room to be given back", secs(5), || {
        rig.server.metric("ringport_store_reserved_bytes", &[]) == 0.0
    });
    // It begins anew, and is stored once all of it was asked for.
    expect_part(&rig, &range(&rig, 0, 2 * MIB), 0, 2 * MIB);
    expect_part(&rig, &range(&rig, 2 * MIB, 4 * MIB), 2 * MIB, 4 * MIB);
    rig.server.await_blob(&rig.digest);
    rig.server.assert_store_is_right();
}

#[test]
fn a_stream_ends_when_the_last_who_read_it_has_left() {
    let rig = lazy("left", 32 * MIB, &["background_fill = false", "extents_keep = \"300ms\""]);
    let gate = Gate::new();
    rig.upstream.script("GET", &rig.path, [Answer::right().held_at(2 * MIB, &gate)]);
    let mut client = rig.server.connect();
    client.request("GET", &rig.target, &[("Range", "bytes=0-")]);
    assert_eq!(client.read_head().unwrap().status, 206);
    assert!(client.read_exactly(MIB).unwrap() == rig.bytes[..MIB]);
    gate.await_arrivals(1, secs(10));
    client.reset();
    gate.open();
    rig.server.await_empty_staging(secs(20));
    assert_eq!(asked(&rig), ["bytes=0-"]);
    // What the sockets had taken by then may have come.
    let sent = rig.upstream.bytes_sent(&rig.path) as usize;
    assert!(sent < 24 * MIB, "{sent} bytes for a client that left after one MiB");
}

#[test]
fn without_room_a_range_is_passed_through_alone() {
    let upstream = LyingUpstream::start();
    let declared = declared(&upstream).set("cold_ranges = \"unverified\"");
    let server =
        Setup::new("lazy-no-room").upstream(declared).storage("max_size = \"1MiB\"").start();
    let rig = Rig::of(upstream, server, 3 * MIB);
    for (first, end) in [(0, 1000), (MIB, 2 * MIB), (3 * MIB - 10, 3 * MIB)] {
        let got = range(&rig, first, end);
        expect_part(&rig, &got, first, end);
        assert_eq!(got.header("cache-status"), "ringport; fwd=miss");
    }
    assert!(rig.upstream.bytes_sent(&rig.path) < 3 * MIB as u64, "only what was asked for");
    assert_eq!(rig.server.blobs().len() + rig.server.staged().len(), 0);
    // What breaks off is not completed.
    let cut = Answer::right().ending(End::Fin(500));
    rig.upstream.script("GET", &rig.path, [Answer::right(), cut]);
    let got = range(&rig, 0, 1000);
    assert_eq!((got.status(), got.ending, got.body.len()), (206, Ending::Fin, 500));
    // A whole pull is checked as ever.
    rig.upstream.script("GET", &rig.path, [Answer::right()]);
    rig.expect_right();
}

#[test]
fn suffixes_and_ranges_outside_are_met_without_knowing_the_size() {
    let rig = lazy("suffix", 2 * MIB, &["background_fill = false"]);
    let with = |value: &str| get_with(rig.server.addr, &rig.target, &[("Range", value)]);
    let got = with("bytes=-500");
    expect_part(&rig, &got, 2 * MIB - 500, 2 * MIB);
    let got = with("bytes=3000000-3000005");
    assert_eq!((got.status(), got.header("content-range")), (416, "bytes */2097152"));
    let rig = lazy("outside", 2 * MIB, &["background_fill = false"]);
    let outside = Answer::status(416).header("Content-Range", "bytes */2097152");
    rig.upstream.script("GET", &rig.path, [outside]);
    let got = get_with(rig.server.addr, &rig.target, &[("Range", "bytes=3000000-3000005")]);
    assert_eq!((got.status(), got.header("content-range")), (416, "bytes */2097152"));
    assert_eq!(rig.upstream.bytes_sent(&rig.path), 0, "nothing is fetched for it");
}

#[test]
fn an_upstream_without_ranges_is_asked_once() {
    let rig = lazy("no-ranges", 2 * MIB, &[]);
    rig.upstream.script("GET", &rig.path, [Answer::right().ranges(Ranges::Ignore)]);
    expect_part(&rig, &range(&rig, MIB, MIB + 500), MIB, MIB + 500);
    expect_part(&rig, &range(&rig, 0, 500), 0, 500);
    rig.server.await_blob(&rig.digest);
    assert_eq!(asked(&rig).len(), 1);
    // Without a length there is nothing to fill by ranges.
    let rig = lazy("chunked", 2 * MIB, &[]);
    let chunked = Answer::right().ranges(Ranges::Ignore).chunked();
    rig.upstream.script("GET", &rig.path, [chunked]);
    expect_part(&rig, &range(&rig, MIB, MIB + 500), MIB, MIB + 500);
    rig.server.await_blob(&rig.digest);
}

#[test]
fn answers_about_other_bytes_are_refused() {
    let mut rig = lazy("shifted", MIB, &[]);
    rig.upstream.script("GET", &rig.path, [Answer::right().ranges(Ranges::Shift)]);
    let got = range(&rig, 1000, 2000);
    expect_gateway_error(&got, got.status());
    rig.expect_nothing_kept_and_recovery();
    // Of another size than at first.
    let mut rig = lazy("resized", 3 * MIB, &[]);
    let longer = Answer::right().bytes(vec![1; 4 * MIB]);
    let gate = Gate::new();
    rig.upstream.script("GET", &rig.path, [Answer::right(), longer.held(&gate)]);
    expect_part(&rig, &range(&rig, 0, 1000), 0, 1000);
    gate.open();
    wait_until("the other size to be refused", secs(20), || {
        rig.server.metric("ringport_fills_total", &["outcome=\"rejected\""]) >= 1.0
    });
    rig.expect_nothing_kept_and_recovery();
}

#[test]
fn a_range_that_breaks_off_is_asked_for_again() {
    let rig = lazy("broken", 3 * MIB, &[]);
    let answers = [
        Answer::right().ending(End::Reset(100_000)),
        Answer::right().ending(End::Fin(70_000)),
        Answer::status(503),
        Answer::right(),
    ];
    rig.upstream.script("GET", &rig.path, answers);
    expect_part(&rig, &range(&rig, 0, 400_000), 0, 400_000);
    rig.server.await_blob(&rig.digest);
    rig.server.assert_store_is_right();
}

#[test]
fn another_repository_has_to_prove_its_right_to_a_part() {
    let rig = lazy("other-repository", 2 * MIB, &["background_fill = false"]);
    expect_part(&rig, &range(&rig, 0, 1000), 0, 1000);
    let of = |repository: &str| format!("/v2/{repository}/blobs/{}?ns={NS}", rig.digest);
    let part = [("Range", "bytes=0-999")];
    assert_eq!(get_with(rig.server.addr, &of("not/there"), &part).status(), 404);
    rig.upstream.add_blob("also/there", &rig.bytes);
    let got = get_with(rig.server.addr, &of("also/there"), &part);
    expect_part(&rig, &got, 0, 1000);
    assert_eq!(got.header("cache-status"), "ringport; hit; detail=unverified");
    assert_eq!(asked(&rig), ["bytes=0-999"]);
    let path = format!("/v2/also/there/blobs/{}", rig.digest);
    assert_eq!((rig.upstream.count("HEAD", &path), rig.upstream.count("GET", &path)), (1, 0));
    // When it is stored it belongs to both.
    rig.expect_right();
    rig.server.await_blob(&rig.digest);
    wait_until("the link of the other repository", secs(5), || {
        rig.upstream.script_everything(Some(Answer::status(503)));
        let got = rig.server.get(&of("also/there"));
        rig.upstream.script_everything(None);
        got.status() == 200 && got.body == rig.bytes
    });
}

#[test]
fn a_part_of_a_blob_that_is_pulled_whole_does_not_wait_for_it() {
    let rig = lazy("running", 4 * MIB, &[]);
    let gate = Gate::new();
    rig.upstream.script("GET", &rig.path, [Answer::right().held_at(MIB, &gate), Answer::right()]);
    let mut client = rig.server.connect();
    client.request("GET", &rig.target, &[]);
    assert_eq!(client.read_head().unwrap().status, 200);
    gate.await_arrivals(1, secs(10));
    let mut body = client.read_exactly(MIB / 2).unwrap();
    // What is there needs nobody; what is far is fetched alone.
    expect_part(&rig, &range(&rig, 1000, 200_000), 1000, 200_000);
    assert_eq!(asked(&rig), ["all"]);
    expect_part(&rig, &range(&rig, 3 * MIB, 3 * MIB + 9), 3 * MIB, 3 * MIB + 9);
    assert_eq!(asked(&rig)[1..], [format!("bytes={}-{}", 3 * MIB, 3 * MIB + 8)]);
    gate.open();
    body.extend(client.read_exactly(4 * MIB - MIB / 2).unwrap());
    assert!(body == rig.bytes);
}
