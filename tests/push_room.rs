//! Uploads that find no room, no client or no record: refused in so many words, kept as far as they
//! came, swept when nobody can go on with them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::fs::File;
use std::path::PathBuf;

use support::blobs::{OPEN, expect, expect_blob, expect_no_uploads, pushed, send, uploads};
use support::http::{Connection, request_bytes};
use support::images::{random_bytes, sha256};
use support::lying::LyingUpstream;
use support::mounts::Tmpfs;
use support::rig::{NS, REPOSITORY, declared};
use support::scratch::files_below;
use support::server::{Server, Setup};
use support::upload::Upload;
use support::{number_from, secs, wait_until};

const MIB: usize = 1 << 20;
const PAGE: u64 = 4096;

fn start(what: &str) -> Server {
    Setup::new(what).more(OPEN).start()
}

#[test]
fn a_push_makes_room_or_is_refused_whole() {
    let Some(disk) = Tmpfs::mount("push_uploads, room", "size=64m") else { return };
    let upstream = LyingUpstream::start();
    let setup = Setup::new("uploads-room").upstream(declared(&upstream)).more(OPEN);
    let mut server = setup.root(&disk.path().join("store")).start();
    let first = random_bytes("first", MIB);
    let first_at = pushed(&server, "team/app", &first);
    for n in 0..20 {
        let cached = random_bytes(&format!("cached {n}"), 3 * MIB);
        let digest = upstream.add_blob(REPOSITORY, &cached);
        assert_eq!(server.get(&format!("/v2/{REPOSITORY}/blobs/{digest}?ns={NS}")).status(), 200);
    }
    server.await_empty_staging(secs(10));
    assert!(disk.free_bytes() < 16 * MIB as u64, "the cache has filled the disk");
    // What is ours goes before what is cached.
    let large = random_bytes("large", 20 * MIB);
    let large_at = pushed(&server, "team/app", &large);
    expect_blob(&server, "team/app", &large_at, &large);
    expect_blob(&server, "team/app", &first_at, &first);

    // More than there is, told before and not told: refused, and nothing else is lost by it.
    let huge = random_bytes("huge", 70 * MIB);
    let target = uploads("team/app", &format!("?digest={}", sha256(&huge)));
    let mut connection = Connection::open(server.addr);
    let length = huge.len().to_string();
    let headers = [("Content-Length", length.as_str()), ("Expect", "100-continue")];
    connection.request("POST", &target, &headers);
    let refused = connection.read_head().unwrap();
    assert_eq!(refused.status, 507, "before a byte is sent: {refused:?}");
    let mut upload = Upload::begin(server.addr, "team/app");
    let mut connection = Connection::open(server.addr);
    connection.send(request_bytes("PATCH", &upload.location, &[("Transfer-Encoding", "chunked")]));
    for piece in huge.chunks(MIB) {
        connection.send(format!("{:x}\r\n", piece.len()));
        connection.send(piece);
        connection.send("\r\n");
    }
    let refused = connection.read_answer("PATCH").unwrap();
    expect(&refused, 507, "UNAVAILABLE");
    let has = upload.status().unwrap();
    assert!(has > 8 * MIB && has < 60 * MIB, "{has} bytes were taken");
    expect_blob(&server, "team/app", &large_at, &large);

    // With room there again it goes on, without a restart.
    disk.remount("size=256m");
    wait_until("the upload to go on", secs(10), || {
        let at = upload.status().unwrap();
        upload.patch(at, &huge[at..(at + MIB).min(huge.len())]).status() == 202
    });
    let at = upload.status().unwrap();
    // The disk is looked at each second; a refusal ends nothing.
    wait_until("the upload to end", secs(10), || {
        upload.put(&sha256(&huge), &huge[at..]).status() == 201
    });
    expect_blob(&server, "team/app", &sha256(&huge), &huge);
    expect_no_uploads(&server);
    server.assert_store_is_right();
    server.kill();
    server.start_again();
    for (digest, bytes) in [(&first_at, &first), (&large_at, &large)] {
        expect_blob(&server, "team/app", digest, bytes);
    }
}

/// Leaves so many pages free, by a file beside the store.
fn leave_free(disk: &Tmpfs, pages: u64) -> PathBuf {
    let path = disk.path().join("filler");
    let file = File::create(&path).unwrap();
    let mut size = disk.free_bytes().saturating_sub(pages * PAGE);
    let flags = rustix::fs::FallocateFlags::empty();
    while size > 0 && rustix::fs::fallocate(&file, flags, 0, size).is_err() {
        size = size.saturating_sub(PAGE);
    }
    path
}

/// A push that meets the end of the disk anywhere is refused, and nothing that was acknowledged is
/// lost by it. Room again: pushes go again, without a restart.
#[test]
fn the_disk_ends_anywhere_in_a_push() {
    let Some(disk) = Tmpfs::mount("push_room, pages", "size=48m") else { return };
    let mut server =
        Setup::new("uploads-pages").more(OPEN).root(&disk.path().join("store")).start();
    let mut kept: Vec<(String, Vec<u8>)> = Vec::new();
    let mut refused = 0;
    let mut push = |server: &Server, name: String, size: usize| {
        let bytes = random_bytes(&name, size);
        let digest = sha256(&bytes);
        let target = uploads("team/app", &format!("?digest={digest}"));
        let answer = send(server, "POST", &target, &bytes);
        match answer.status() {
            201 => kept.push((digest, bytes)),
            500 | 503 | 507 => refused += 1,
            _ => panic!("{name}: {:?} {}", answer.head, answer.text()),
        }
        answer.status() == 201
    };
    for pages in [0, 1, 2, 5, 26, 120, 1020, 1060, 1300] {
        let filler = leave_free(&disk, pages);
        for size in [100, 5000, 100_000, MIB] {
            push(&server, format!("{pages} pages {size}"), size);
        }
        server.assert_alive();
        std::fs::remove_file(filler).unwrap();
        let mut tries = 0;
        wait_until("a push with room again", secs(10), || {
            tries += 1;
            push(&server, format!("{pages} again {tries}"), 300_000)
        });
    }
    assert!(refused > 8, "the disk was never full");
    // What was in place and got no name is removed when the catalog can be asked again.
    let files = || server.blobs().len();
    wait_until("files without a name to go", secs(15), || files() == kept.len());
    for restart in [false, true] {
        for (digest, bytes) in &kept {
            expect_blob(&server, "team/app", digest, bytes);
        }
        if !restart {
            expect_no_uploads(&server);
            server.kill();
            server.start_again();
        }
    }
    assert_eq!(server.metric("ringport_task_panics_total", &[]), 0.0);
    server.assert_store_is_right();
}

/// A client that sends nothing more is given up, which takes 30 s: only with
/// `RINGPORT_PUSH_STALL_TEST=1`.
#[test]
fn a_session_whose_client_stalls_goes_on_with_another() {
    if number_from("RINGPORT_PUSH_STALL_TEST", 0) == 0 {
        return;
    }
    let server = start("uploads-stall");
    let bytes = random_bytes("stall", MIB);
    let mut upload = Upload::begin(server.addr, "team/app");
    let mut stalling = upload.patch_part(0, &bytes, 5000);
    let given_up = stalling.read_answer("PATCH").unwrap();
    expect(&given_up, 408, "SIZE_INVALID");
    assert_eq!(upload.status().ok(), Some(5000));
    assert_eq!(upload.patch(5000, &bytes[5000..]).status(), 202);
    assert_eq!(upload.put(&sha256(&bytes), b"").status(), 201);
    expect_blob(&server, "team/app", &sha256(&bytes), &bytes);
}

/// What no client goes on with is gone after a restart, and so is what has no record.
#[test]
fn what_is_no_upload_is_swept_at_start() {
    let mut server = start("uploads-sweep");
    let bytes = random_bytes("swept", 2 * MIB);
    let mut upload = Upload::begin(server.addr, "team/app");
    assert_eq!(upload.patch(0, &bytes[..MIB]).status(), 202);
    assert!(server.terminate(secs(40)).unwrap().success());
    let folder = server.root().join("uploads");
    let orphan = folder.join("0123456789abcdef0123456789abcdef");
    std::fs::write(&orphan, b"nobody's").unwrap();
    server.start_again();
    assert!(!orphan.exists());
    assert_eq!(upload.status().ok(), Some(MIB));
    assert_eq!(files_below(&folder).len(), 1);
    assert_eq!(upload.put(&sha256(&bytes), &bytes[MIB..]).status(), 201);
    expect_no_uploads(&server);
}
