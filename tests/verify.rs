//! `ringport verify`: damage on the disk is found, set aside, and fetched again; with the server
//! running, stopped, and by itself in the background.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;
use support::http::{self, Ending};
use support::images::random_bytes;
use support::lying::LyingUpstream;
use support::process::run;
use support::rig::{NS, REPOSITORY, Rig, declared};
use support::scratch::files_below;
use support::server::{Server, Setup};
use support::{secs, wait_until};

/// Requests over one connection.
const A_CONNECTION: usize = 200;

/// Small blobs at an upstream, all of them pulled.
struct Many {
    _upstream: LyingUpstream,
    server: Server,
    blobs: Vec<(String, Vec<u8>)>,
}

impl Many {
    fn pulled(what: &str, count: usize) -> Many {
        let upstream = LyingUpstream::start();
        let server = Setup::new(what).upstream(declared(&upstream)).start();
        let blob = |n: usize| {
            let bytes = random_bytes(&format!("{what}-{n}"), 100 + n);
            (upstream.add_blob(REPOSITORY, &bytes), bytes)
        };
        let blobs = (0..count).map(blob).collect();
        let many = Many { _upstream: upstream, server, blobs };
        many.expect_all_right();
        many
    }

    /// Every blob comes and is right; comes back when the server has stored and named all.
    #[track_caller]
    fn expect_all_right(&self) {
        for some in self.blobs.chunks(A_CONNECTION) {
            let mut connection = self.server.connect();
            for (digest, bytes) in some {
                let target = format!("/v2/{REPOSITORY}/blobs/{digest}?ns={NS}");
                let answer = connection.exchange("GET", &target, &[]);
                assert_eq!((answer.status(), answer.ending), (200, Ending::Complete));
                assert!(answer.body == *bytes, "{digest}: wrong bytes");
            }
        }
        let all = format!("<li>{} blobs,", self.blobs.len());
        wait_until("all blobs to be named", secs(20), || {
            http::get(self.server.admin, "/").text().contains(&all)
        });
    }

    /// One bit in each file.
    fn flip_bits(&self) {
        for (n, (digest, bytes)) in self.blobs.iter().enumerate() {
            flip_bit(&self.server.blob_path(digest), n * 7 % (bytes.len() * 8));
        }
    }
}

fn flip_bit(path: &Path, bit: usize) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let (mut byte, at) = ([0], bit as u64 / 8);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ (1 << (bit % 8))], at).unwrap();
}

/// Runs `ringport verify`; its exit status and its report.
#[track_caller]
fn verify(server: &Server, more: &[&str]) -> (Option<i32>, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringport"));
    command.args(["verify", "--json", "--config"]).arg(server.config()).args(more);
    let ran = run(command, secs(120));
    let report = serde_json::from_str(&ran.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", ran.stdout, ran.stderr));
    (ran.status.and_then(|status| status.code()), report)
}

#[test]
fn one_flipped_bit_in_each_of_a_thousand_blobs_is_found() {
    let mut many = Many::pulled("flipped", 1000);
    let (status, report) = verify(&many.server, &[]);
    assert_eq!((status, &report["blobs"], &report["damaged"]), (Some(0), &1000.into(), &0.into()));

    many.flip_bits();
    let (status, report) = verify(&many.server, &[]);
    assert_eq!((status, &report["damaged"]), (Some(0), &1000.into()), "running: {report}");
    assert_eq!(many.server.blobs().len(), 0);
    let quarantine = many.server.root().join("quarantine");
    assert_eq!(files_below(&quarantine).len(), 1000);
    assert_eq!(many.server.metric("ringport_damaged_blobs_total", &[]), 1000.0);
    many.expect_all_right();
    many.server.assert_store_is_right();

    many.flip_bits();
    assert!(many.server.terminate(secs(40)).expect("an end").success());
    let (status, report) = verify(&many.server, &[]);
    assert_eq!((status, &report["damaged"]), (Some(0), &1000.into()), "stopped: {report}");
    assert_eq!(files_below(&quarantine).len(), 2000);
    let (status, report) = verify(&many.server, &[]);
    assert_eq!((status, &report["blobs"], &report["damaged"]), (Some(0), &0.into(), &0.into()));
    many.server.start_again();
    many.expect_all_right();
    many.server.assert_store_is_right();
}

#[test]
fn what_is_missing_and_what_has_no_name_is_put_right() {
    let mut many = Many::pulled("missing", 10);
    std::fs::remove_file(many.server.blob_path(&many.blobs[0].0)).unwrap();
    // A file that came after the server may be about to get its name.
    let orphan = many.server.blob_path(&support::images::sha256(b"orphan"));
    std::fs::write(&orphan, b"orphan").unwrap();
    let (status, report) = verify(&many.server, &[]);
    assert_eq!((status, &report["missing"], &report["orphans"]), (Some(0), &1.into(), &0.into()));
    assert!(orphan.exists());
    many.expect_all_right();

    assert!(many.server.terminate(secs(40)).expect("an end").success());
    // Files count by the second, with some slack for clocks.
    std::thread::sleep(secs(3));
    let (status, report) = verify(&many.server, &[]);
    assert_eq!((status, &report["missing"], &report["orphans"]), (Some(0), &0.into(), &1.into()));
    assert!(!orphan.exists() && report["problems"]["told"][0].is_string(), "{report}");
    many.server.start_again();
    many.expect_all_right();
}

/// POST without a body.
fn post(server: &Server, target: &str, headers: &[(&str, &str)]) -> http::Answer {
    http::Connection::open(server.admin).exchange("POST", target, headers)
}

#[test]
fn one_run_at_a_time_at_the_rate_that_was_asked_for_and_a_stop_ends_it() {
    let mut rig = Rig::new("rate", 3 << 20);
    rig.expect_right();
    rig.server.await_blob(&rig.digest);
    let begun = Instant::now();
    let (status, _) = verify(&rig.server, &["--rate", "2MiB"]);
    assert_eq!(status, Some(0));
    assert!(begun.elapsed() > support::ms(1400), "3 MiB at 2 MiB/s took {:?}", begun.elapsed());

    for (target, status) in
        [("/verify?rate=2", 400), ("/verify?speed=1MiB", 400), ("/gc?dryrun=1", 400)]
    {
        assert_eq!(post(&rig.server, target, &[]).status(), status, "{target}");
    }
    for target in ["/verify", "/gc"] {
        let of_a_page = post(&rig.server, target, &[("Origin", "http://evil.example")]);
        assert_eq!(of_a_page.status(), 403, "{target}");
        assert_eq!(http::get(rig.server.addr, target).status(), 404, "only for the admin");
    }
    assert_eq!(post(&rig.server, "/verify?rate=1KiB", &[]).status(), 202);
    for target in ["/verify", "/gc?dry_run=1"] {
        let busy = post(&rig.server, target, &[]);
        assert_eq!(busy.status(), 409, "{}", busy.text());
    }
    wait_until("it to have counted what there is", secs(10), || {
        let running = http::get(rig.server.admin, "/verify").json();
        assert_eq!((&running["state"], &running["report"]), (&"running".into(), &Value::Null));
        running["progress"]["bytes_total"] == 3 << 20
    });
    // 3 MiB at 1 KiB/s would be most of an hour.
    let status = rig.server.terminate(secs(10)).expect("an end within 10 s");
    assert!(status.success(), "{}", rig.server.log_text());
}

#[test]
fn the_background_scrub_finds_damage_by_itself() {
    let upstream = LyingUpstream::start();
    let server = Setup::new("background")
        .upstream(declared(&upstream))
        .storage("verify_interval = \"1s\"")
        .start();
    let rig = Rig::of(upstream, server, 5000);
    rig.expect_right();
    rig.server.await_blob(&rig.digest);
    flip_bit(&rig.server.blob_path(&rig.digest), 12_345);
    wait_until("the scrub to find it", secs(20), || {
        rig.server.metric("ringport_damaged_blobs_total", &[]) == 1.0
    });
    rig.expect_right();
}

#[test]
fn a_server_that_cannot_be_asked_is_told_with_the_way_out() {
    let server = Setup::new("unasked").start();
    let config = std::fs::read_to_string(server.config()).unwrap();
    let admin = format!("admin = \"{}\"", server.admin);
    let off = server.scratch().file("off.toml", config.replace(&admin, "admin = \"off\""));
    for (program, words) in [("verify", "stop the server"), ("gc", "admin address")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringport"));
        command.args([program, "--config"]).arg(&off);
        let ran = run(command, secs(30));
        assert_eq!(ran.status.and_then(|status| status.code()), Some(1));
        assert!(ran.stderr.contains(words) && ran.stdout.is_empty(), "{}", ran.stderr);
    }
}
