//! Stored files that are damaged while they are served: a truncated one ends the response early
//! and in order, never the process, and is fetched again; so is one that is gone (reliability
//! plan A7).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::fs::File;
use support::gate::Gate;
use support::http::{Connection, Ending};
use support::images::OCI_MANIFEST;
use support::rig::{REPOSITORY, Rig, manifest};
use support::{number_from, secs, wait_until};

const MIB: usize = 1 << 20;
/// More than the socket buffers of both ends take: a reader that stops stops the server.
const SIZE: usize = 32 * MIB;
const READERS: usize = 20;
/// What each reader has read when the file is damaged.
const READ_BEFORE: usize = 1000;

/// What a slow reader got, and how its response ended.
struct Got {
    ending: Ending,
    body: Vec<u8>,
}

impl Got {
    /// Whether it is the beginning of the blob. What is on its way to a client shares its memory
    /// with the file: behind the `cut` of a truncated one the kernel puts zeros there, too.
    fn is_right(&self, rig: &Rig, cut: usize) -> bool {
        let (whole, behind) = self.body.split_at(cut.min(self.body.len()));
        let mut expected = rig.bytes[whole.len()..].iter();
        rig.bytes.starts_with(whole)
            && behind.iter().all(|byte| expected.next().is_some_and(|e| byte == e || *byte == 0))
    }
}

/// Pulls the blob until it is a hit: its fill is over, and nobody follows that any more.
#[track_caller]
fn store(rig: &Rig) {
    wait_until("a hit", secs(20), || {
        rig.expect_right().header("cache-status").starts_with("ringport; hit")
    });
}

/// Stores the blob and has `READERS` clients read its beginning; does `damage` to it; how each
/// response then went on.
#[track_caller]
fn damage_under_readers(rig: &Rig, damage: impl FnOnce()) -> Vec<Got> {
    store(rig);
    let gate = Gate::new();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                let gate = gate.clone();
                scope.spawn(move || read_slowly(rig, &gate))
            })
            .collect();
        gate.await_arrivals(READERS, secs(30));
        damage();
        gate.open();
        readers.into_iter().map(|reader| reader.join().expect("a reader")).collect()
    })
}

fn read_slowly(rig: &Rig, gate: &Gate) -> Got {
    let mut connection = Connection::open(rig.server.addr);
    connection.request("GET", &rig.target, &[]);
    let head = connection.read_head().expect("a head");
    assert_eq!((head.status, head.headers.number("content-length")), (200, Some(SIZE as u64)));
    let mut body = connection.read_exactly(READ_BEFORE).expect("the beginning");
    gate.pass();
    let mut buffer = vec![0; 256 << 10];
    let ending = loop {
        if body.len() == SIZE {
            break Ending::Complete;
        }
        match connection.read_some(&mut buffer) {
            Ok(0) => break Ending::Fin,
            Ok(n) => body.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => break Ending::Reset,
            Err(_) => break Ending::Timeout,
        }
    };
    Got { ending, body }
}

/// The next pull gets all of it, from the upstream, and then it is stored again.
#[track_caller]
fn expect_fetched_again(rig: &mut Rig) {
    let before = rig.upstream.count("GET", &rig.path);
    rig.expect_right();
    assert_eq!(rig.upstream.count("GET", &rig.path), before + 1, "fetched again");
    store(rig);
    assert_eq!(rig.upstream.count("GET", &rig.path), before + 1, "and stored");
    rig.server.assert_store_is_right();
    rig.server.assert_alive();
    assert_eq!(rig.server.metric("ringport_task_panics_total", &[]), 0.0, "panics");
}

/// `RINGPORT_DAMAGE_ROUNDS` rounds of each cut, 1 by itself.
#[test]
fn a_file_truncated_under_its_readers_is_a_short_close() {
    let mut rig = Rig::new("truncated", SIZE);
    for round in 0..number_from("RINGPORT_DAMAGE_ROUNDS", 1) {
        for length in [0, 4096, 1 << 20, (8 << 20) + 5] {
            let path = rig.server.blob_path(&rig.digest);
            let all = damage_under_readers(&rig, || {
                File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
            });
            for got in all {
                let so_far = got.body.len();
                let what = format!("round {round}, cut to {length}: after {so_far} bytes");
                assert_eq!(got.ending, Ending::Fin, "{what}: closed in order");
                assert!(got.is_right(&rig, length as usize), "{what}: what did come is right");
                assert!((READ_BEFORE..SIZE).contains(&so_far), "{what}");
            }
            rig.server.assert_alive();
            expect_fetched_again(&mut rig);
        }
    }
}

#[test]
fn a_file_that_could_not_be_read_to_its_end_is_hashed_before_it_is_sent_again() {
    let mut rig = Rig::new("unreadable", SIZE);
    let path = rig.server.blob_path(&rig.digest);
    let resize = |length: u64| {
        File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
    };
    for got in damage_under_readers(&rig, || resize(8 << 20)) {
        assert_eq!(got.ending, Ending::Fin);
    }
    // Its size is right again, so only its bytes can tell.
    resize(SIZE as u64);
    expect_fetched_again(&mut rig);
}

#[test]
fn a_file_removed_under_its_readers_is_read_to_its_end_and_fetched_again() {
    let mut rig = Rig::new("removed", SIZE);
    let path = rig.server.blob_path(&rig.digest);
    for got in damage_under_readers(&rig, || std::fs::remove_file(&path).unwrap()) {
        assert_eq!((got.ending, got.body.len()), (Ending::Complete, SIZE));
        assert!(got.body == rig.bytes);
    }
    expect_fetched_again(&mut rig);
}

#[test]
fn a_file_of_the_wrong_size_is_never_served() {
    let mut rig = Rig::new("sizes", MIB);
    store(&rig);
    let path = rig.server.blob_path(&rig.digest);
    for length in [0, 1, MIB as u64 - 1, MIB as u64 + 1] {
        File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        expect_fetched_again(&mut rig);
    }
}

#[test]
fn something_else_in_the_place_of_a_file_is_no_content() {
    let mut rig = Rig::new("instead", MIB);
    store(&rig);
    let path = rig.server.blob_path(&rig.digest);
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(rig.server.config(), &path).unwrap();
    for _ in 0..2 {
        rig.expect_right();
    }
    // Clients have it before the file is in its place.
    let is_file = || std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_file());
    wait_until("a file in the link's place", secs(20), is_file);
    // A folder can not be replaced: what is pulled comes, and is not kept.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    for _ in 0..2 {
        rig.expect_right();
    }
    rig.server.assert_alive();
}

#[test]
fn a_damaged_manifest_file_never_answers() {
    let mut rig = Rig::new("manifest-damage", 100);
    let bytes = manifest("to be damaged");
    let digest = rig.upstream.add_manifest(REPOSITORY, "v1", OCI_MANIFEST, &bytes);
    let targets = [rig.manifest_target("v1"), rig.manifest_target(&digest)];
    let expect_right = |rig: &Rig| {
        for target in &targets {
            let answer = rig.server.get(target);
            assert_eq!((answer.status(), answer.ending), (200, Ending::Complete), "{target}");
            assert_eq!(answer.body, bytes, "{target}");
        }
    };
    expect_right(&rig);
    let path = rig.server.blob_path(&digest);
    for length in [0, 10, bytes.len() as u64 + 10] {
        File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        expect_right(&rig);
    }
    let _ = std::fs::remove_file(&path);
    expect_right(&rig);
    // With nothing in memory, too.
    File::create(&path).unwrap().set_len(10).unwrap();
    rig.server.restart();
    expect_right(&rig);
    rig.server.assert_alive();
}
