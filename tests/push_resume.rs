//! Uploads that break off and go on: the client's connection goes in the middle of a piece, the
//! server ends in order or is killed, and the session tells what it has. By the raw client, so
//! that every byte is the test's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use support::images::{random_bytes, sha256, sha512};
use support::process::Signal;
use support::registry::{Guard, Registry, yardstick};
use support::upload::Upload;
use support::{ms, secs, wait_until};

const REPOSITORY: &str = "team/resumed";
const SIZE: usize = 3 << 20;

fn content(seed: &str) -> (Vec<u8>, String) {
    let bytes = random_bytes(seed, SIZE);
    let digest = sha256(&bytes);
    (bytes, digest)
}

/// Begins a session of which the registry knows durably: it is named before something else is that
/// is acknowledged. One that was begun right before a kill may be gone.
#[track_caller]
fn begin(registry: &Registry) -> Upload {
    let upload = Upload::begin(registry.addr(), REPOSITORY);
    let mut other = Upload::begin(registry.addr(), REPOSITORY);
    let bytes = upload.location.as_bytes();
    assert_eq!(other.put(&sha256(bytes), bytes).status(), 201);
    upload
}

/// Sends what is missing in pieces, from where the session says it is, and closes it.
#[track_caller]
fn go_on(registry: &Registry, upload: &mut Upload, bytes: &[u8], digest: &str) {
    let mut at = upload.status().unwrap_or_else(|a| panic!("{}: {}", a.status(), a.text()));
    while at < bytes.len() {
        let end = bytes.len().min(at + (700 << 10));
        let answer = upload.patch(at, &bytes[at..end]);
        assert_eq!(answer.status(), 202, "{at}: {}", answer.text());
        assert_eq!(answer.header("range"), format!("0-{}", end - 1));
        at = end;
    }
    let done = upload.put(digest, b"");
    assert_eq!(done.status(), 201, "{}", done.text());
    assert_eq!(done.header("docker-content-digest"), digest);
    registry.expect_blob(REPOSITORY, digest, bytes);
}

#[test]
fn pieces_over_several_connections_and_restarts() {
    for (signal, seed) in [(Signal::TERM, "in order"), (Signal::KILL, "killed")] {
        let Some(mut registry) = Registry::start("resume-restart", &Guard::Open) else { return };
        let (bytes, digest) = content(seed);
        let mut upload = begin(&registry);
        assert_eq!(upload.status().ok(), Some(0), "nothing is there yet");
        let mut at = 0;
        for end in [1 << 20, 2 << 20, (2 << 20) + 1000] {
            let answer = upload.patch(at, &bytes[at..end]);
            assert_eq!(answer.status(), 202, "{}", answer.text());
            registry.restart_by(signal);
            // What was acknowledged is still there, to the byte.
            assert_eq!(upload.status().ok(), Some(end), "{seed}");
            at = end;
        }
        go_on(&registry, &mut upload, &bytes, &digest);
        registry.restart_by(signal);
        registry.expect_blob(REPOSITORY, &digest, &bytes);
    }
}

#[test]
fn a_connection_that_goes_in_the_middle_of_a_piece() {
    // docker-registry's session is lost: it has another size than its token says.
    if yardstick() {
        return;
    }
    let Some(registry) = Registry::start("resume-cut", &Guard::Open) else { return };
    for (round, (first, sent)) in
        [(0, 2), (0, 1 << 20), (1 << 20, 1_000_000), (1 << 20, 7)].into_iter().enumerate()
    {
        let (bytes, digest) = content(&format!("cut {round}"));
        let mut upload = Upload::begin(registry.addr(), REPOSITORY);
        if first > 0 {
            assert_eq!(upload.patch(0, &bytes[..first]).status(), 202);
        }
        let connection = upload.patch_part(first, &bytes[first..], sent);
        drop(connection);
        await_idle(&mut upload);
        let has = upload.status().unwrap_or_else(|a| panic!("{}: {}", a.status(), a.text()));
        assert!((first..=first + sent).contains(&has), "round {round}: it says {has}");
        go_on(&registry, &mut upload, &bytes, &digest);
    }
}

/// Waits until the server has seen that a client is gone: until then the session is in use, and
/// says so or says less than it will.
fn await_idle(upload: &mut Upload) {
    let mut before = None;
    wait_until("a session to come to rest", secs(20), || {
        std::thread::sleep(ms(50));
        let now = upload.status().ok();
        now.is_some() && std::mem::replace(&mut before, now) == now
    });
}

#[test]
fn the_server_goes_in_the_middle_of_a_piece() {
    // The same.
    if yardstick() {
        return;
    }
    for (signal, seed) in [(Signal::TERM, "middle term"), (Signal::KILL, "middle kill")] {
        let Some(mut registry) = Registry::start("resume-middle", &Guard::Open) else { return };
        let (bytes, digest) = content(seed);
        let mut upload = begin(&registry);
        assert_eq!(upload.patch(0, &bytes[..SIZE / 3]).status(), 202);
        let connection = upload.patch_part(SIZE / 3, &bytes[SIZE / 3..], SIZE / 3);
        let waiting = std::thread::spawn(move || {
            // In order, the server waits for the end of what is under way, for a while.
            std::thread::sleep(ms(200));
            drop(connection);
        });
        registry.restart_by(signal);
        waiting.join().unwrap();
        let has = upload.status().unwrap_or_else(|a| panic!("{}: {}", a.status(), a.text()));
        assert!((SIZE / 3..=SIZE / 3 * 2).contains(&has), "{seed}: it says {has}");
        go_on(&registry, &mut upload, &bytes, &digest);
    }
}

#[test]
fn pieces_out_of_order_change_nothing() {
    let Some(registry) = Registry::start("resume-order", &Guard::Open) else { return };
    let (bytes, digest) = content("order");
    let mut upload = Upload::begin(registry.addr(), REPOSITORY);
    assert_eq!(upload.patch(0, &bytes[..1000]).status(), 202);
    if !yardstick() {
        // docker-registry takes a piece for the next whatever its range says.
        for start in [0, 999, 1001, 2000] {
            let answer = upload.patch(start, &bytes[start..start + 500]);
            assert_eq!(answer.status(), 416, "{start}: {}", answer.text());
            assert_eq!(upload.status().ok(), Some(1000), "{start}");
        }
    }
    go_on(&registry, &mut upload, &bytes, &digest);
}

#[test]
fn a_cancelled_session_is_gone_and_a_wrong_digest_ends_nothing_else() {
    let Some(registry) = Registry::start("resume-cancel", &Guard::Open) else { return };
    let (bytes, digest) = content("cancel");
    let mut upload = Upload::begin(registry.addr(), REPOSITORY);
    assert_eq!(upload.patch(0, &bytes[..1 << 20]).status(), 202);
    assert_eq!(upload.cancel().status(), 204);
    let gone = upload.status().unwrap_err();
    assert_eq!((gone.status(), gone.error_code().as_str()), (404, "BLOB_UPLOAD_UNKNOWN"));
    assert_eq!(upload.put(&digest, b"").status(), 404);

    let mut upload = Upload::begin(registry.addr(), REPOSITORY);
    assert_eq!(upload.patch(0, &bytes).status(), 202);
    let wrong = upload.put(&sha256(b"other"), b"");
    assert_eq!((wrong.status(), wrong.error_code().as_str()), (400, "DIGEST_INVALID"));
    let target = format!("/v2/{REPOSITORY}/blobs/{digest}");
    assert_eq!(support::http::get(registry.addr(), &target).status(), 404);
    if let Some(server) = registry.ringport() {
        assert!(!server.has_blob(&digest), "nothing was stored");
    }
}

#[test]
fn sha512_after_a_restart() {
    // docker-registry stores it under its sha256.
    if yardstick() {
        return;
    }
    let Some(mut registry) = Registry::start("resume-sha512", &Guard::Open) else { return };
    let bytes = random_bytes("sha512", SIZE);
    let mut upload = Upload::begin(registry.addr(), REPOSITORY);
    assert_eq!(upload.patch(0, &bytes[..1 << 20]).status(), 202);
    registry.restart_by(Signal::TERM);
    go_on(&registry, &mut upload, &bytes, &sha512(&bytes));
}
