//! A store on a disk that is full: the process lives, hits go on, pulls come through or are refused
//! in so many words, older content makes room or /readyz tells, and with space there again new content
//! is stored within seconds, without a restart (reliability plan A5). On a tmpfs; without root it
//! says that it was skipped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::fs::File;
use std::path::PathBuf;
use std::time::Instant;
use support::http::{self, Answer, Ending};
use support::images::{ACCEPT, OCI_MANIFEST, random_bytes};
use support::lying::LyingUpstream;
use support::mounts::Tmpfs;
use support::rig::{NS, REPOSITORY, declared, manifest};
use support::server::{Server, Setup};
use support::{ms, number_from, secs, tell};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const PAGE: u64 = 4096;

/// A mirror on a small disk.
struct Small {
    upstream: LyingUpstream,
    // Before the disk: the process ends before its store goes.
    server: Server,
    disk: Tmpfs,
}

/// What became of a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pulled {
    Whole,
    Refused(u16),
}

impl Small {
    /// Not started yet; `None` where there is no mounting.
    fn prepare(test: &str, options: &str) -> Option<Small> {
        let disk = Tmpfs::mount(test, options)?;
        let upstream = LyingUpstream::start();
        let setup = Setup::new("disk-full").upstream(declared(&upstream));
        let server = setup.root(&disk.path().join("store")).prepare();
        Some(Small { upstream, server, disk })
    }

    fn start(test: &str, options: &str) -> Option<Small> {
        let mut small = Small::prepare(test, options)?;
        small.server.start_again();
        Some(small)
    }

    /// Adds a blob to the upstream.
    fn blob(&self, name: &str, size: usize) -> Blob {
        let bytes = random_bytes(name, size);
        let digest = self.upstream.add_blob(REPOSITORY, &bytes);
        Blob { digest, bytes }
    }

    /// Pulls a blob of its own.
    #[track_caller]
    fn pull_new(&self, name: &str, size: usize) -> (Blob, Pulled) {
        let blob = self.blob(name, size);
        let pulled = judge(&self.server.get(&blob.target()), &blob.bytes);
        (blob, pulled)
    }

    /// Pulls a tag of its own.
    #[track_caller]
    fn pull_new_tag(&self, tag: &str) -> Pulled {
        let bytes = manifest(tag);
        self.upstream.add_manifest(REPOSITORY, tag, OCI_MANIFEST, &bytes);
        let target = format!("/v2/{REPOSITORY}/manifests/{tag}?ns={NS}");
        judge(&http::get_with(self.server.addr, &target, &[("Accept", ACCEPT)]), &bytes)
    }

    /// A blob that is stored comes whole, and the upstream hears nothing of it.
    #[track_caller]
    fn expect_hit(&self, blob: &Blob) {
        let asked = self.upstream.count("GET", &blob.path());
        let pulled = judge(&self.server.get(&blob.target()), &blob.bytes);
        assert_eq!(pulled, Pulled::Whole, "a hit on a full disk: {}", blob.digest);
        assert_eq!(self.upstream.count("GET", &blob.path()), asked, "{} is stored", blob.digest);
    }

    /// What is stored comes whole, and most of it without the upstream: some may just be making
    /// room.
    #[track_caller]
    fn expect_hits(&self, blobs: &[Blob]) {
        let mut hits = 0;
        for blob in blobs {
            let asked = self.upstream.count("GET", &blob.path());
            let pulled = judge(&self.server.get(&blob.target()), &blob.bytes);
            let is_hit = self.upstream.count("GET", &blob.path()) == asked;
            assert!(!is_hit || pulled == Pulled::Whole, "{}: {pulled:?}", blob.digest);
            hits += usize::from(is_hit);
        }
        assert!(hits * 2 >= blobs.len(), "{hits} hits of {} stored blobs", blobs.len());
    }

    /// New content is stored, for which older content may have to go; or /readyz tells why not.
    #[track_caller]
    fn expect_room_or_readyz_to_tell(&self) {
        let (blob, _) = self.pull_new("room?", MIB);
        let mut text = String::new();
        let fine = (0..40).any(|_| {
            text = http::get(self.server.admin, "/readyz").text().to_lowercase();
            let tells = ["full", "space", "disk"].iter().any(|word| text.contains(word));
            let fine = tells || self.server.has_blob(&blob.digest);
            if !fine {
                std::thread::sleep(ms(50));
            }
            fine
        });
        assert!(fine, "nothing is stored, and /readyz says: {text:?}");
    }

    /// There is space again: within 5 s new content is stored and /readyz is content. How long
    /// it took.
    #[track_caller]
    fn expect_recovery(&mut self, name: &str) -> std::time::Duration {
        let freed = Instant::now();
        let mut tries = 0;
        let stored = loop {
            tries += 1;
            let (blob, pulled) = self.pull_new(&format!("{name} {tries}"), 300 * KIB);
            let is_stored = || self.server.has_blob(&blob.digest);
            let since = Instant::now();
            while pulled == Pulled::Whole && !is_stored() && since.elapsed() < ms(300) {
                std::thread::sleep(ms(5));
            }
            if is_stored() {
                break blob;
            }
            assert!(freed.elapsed() < secs(5), "{tries} pulls, none of them stored: {pulled:?}");
            std::thread::sleep(ms(50));
        };
        assert_eq!(
            self.pull_new_tag(&format!("{}-{tries}", name.replace(' ', "-"))),
            Pulled::Whole
        );
        let ready = || http::get(self.server.admin, "/readyz");
        while ready().status() != 200 || ready().text() != "ready\n" {
            let text = ready().text();
            assert!(freed.elapsed() < secs(5), "/readyz 5 s after the disk has space: {text}");
            std::thread::sleep(ms(20));
        }
        let took = freed.elapsed();
        self.expect_hit(&stored);
        self.server.await_empty_staging(secs(5));
        self.expect_sound();
        took
    }

    #[track_caller]
    fn expect_sound(&mut self) {
        self.server.assert_alive();
        assert_eq!(self.server.metric("ringport_task_panics_total", &[]), 0.0, "panics");
        self.server.assert_store_is_right();
    }
}

struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn path(&self) -> String {
        format!("/v2/{REPOSITORY}/blobs/{}", self.digest)
    }

    fn target(&self) -> String {
        format!("{}?ns={NS}", self.path())
    }
}

/// Whole and right, or refused with an OCI error; nothing in between, for what the upstream gives
/// does not depend on our disk.
#[track_caller]
fn judge(answer: &Answer, expected: &[u8]) -> Pulled {
    let (status, got) = (answer.status(), answer.body.len());
    let size = expected.len();
    assert_eq!(answer.ending, Ending::Complete, "{status}, {got} of {size} bytes: cut short");
    if status == 200 {
        assert!(answer.body == expected, "{got} bytes, not the {size} right ones");
        return Pulled::Whole;
    }
    assert!((500..600).contains(&status), "{status}: {}", answer.text());
    assert_ne!(answer.error_code(), "", "an OCI error body: {}", answer.text());
    Pulled::Refused(status)
}

/// Pulls until well past the end of a 64 MiB disk; what is stored of it then.
#[track_caller]
fn fill_up(small: &Small) -> Vec<Blob> {
    let (mut blobs, mut refused) = (Vec::new(), 0);
    for n in 0..26 {
        let (blob, pulled) = small.pull_new(&format!("fill {n}"), 3 * MIB);
        refused += usize::from(pulled != Pulled::Whole);
        blobs.push(blob);
    }
    // Whether it is kept is known once its staging file is gone.
    small.server.await_empty_staging(secs(10));
    let all = blobs.len();
    blobs.retain(|blob| small.server.has_blob(&blob.digest));
    tell(&format!("disk_full: of {all} pulls {} are stored, {refused} refused", blobs.len()));
    assert!(blobs.len() > 8, "next to nothing was stored while there was space");
    blobs
}

/// Those of them that are stored now.
fn held(small: &Small, mut blobs: Vec<Blob>) -> Vec<Blob> {
    blobs.retain(|blob| small.server.has_blob(&blob.digest));
    blobs
}

fn at_once(small: &Small, clients: usize) {
    let blobs: Vec<Blob> =
        (0..clients).map(|n| small.blob(&format!("at once {n}"), 2 * MIB)).collect();
    std::thread::scope(|scope| {
        for blob in &blobs {
            scope.spawn(|| judge(&small.server.get(&blob.target()), &blob.bytes));
        }
    });
}

#[test]
fn a_mirror_on_a_full_disk_goes_on_and_recovers_when_the_disk_grows() {
    let Some(mut small) = Small::start("disk_full, grown", "size=64m") else { return };
    let stored = fill_up(&small);
    at_once(&small, 16);
    for n in 0..20 {
        small.pull_new_tag(&format!("v{n}"));
    }
    let stored = held(&small, stored);
    small.expect_hits(&stored);
    small.expect_room_or_readyz_to_tell();
    small.expect_sound();

    small.disk.remount("size=256m");
    let took = small.expect_recovery("grown");
    tell(&format!("disk_full: stored again {took:?} after the disk had grown"));
    at_once(&small, 16);
    // The names were taken again, too: they are there after a restart.
    let stored = held(&small, stored);
    small.server.restart();
    small.expect_hits(&stored);
    small.expect_sound();
}

#[test]
fn a_mirror_on_a_full_disk_recovers_when_content_is_deleted() {
    let Some(mut small) = Small::start("disk_full, deleted", "size=64m") else { return };
    let stored = fill_up(&small);
    small.expect_room_or_readyz_to_tell();
    let mut stored = held(&small, stored);
    let kept = stored.split_off(stored.len() / 2);
    for blob in &stored {
        let _ = std::fs::remove_file(small.server.blob_path(&blob.digest));
    }
    let took = small.expect_recovery("deleted");
    tell(&format!("disk_full: stored again {took:?} after content was deleted"));
    small.expect_hits(&kept);
    // What was deleted behind its back is fetched again.
    for blob in &stored[..3] {
        assert_eq!(judge(&small.server.get(&blob.target()), &blob.bytes), Pulled::Whole);
        small.server.await_blob(&blob.digest);
    }
    small.expect_sound();
}

/// Leaves exactly so many pages free, by a file beside the store.
fn leave_free(small: &Small, pages: u64) -> PathBuf {
    let path = small.disk.path().join("filler");
    let file = File::create(&path).unwrap();
    let mut size = small.disk.free_bytes().saturating_sub(pages * PAGE);
    // Neither fails nor ends with less: what the tmpfs itself needs is found by trying.
    while size > 0
        && rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size).is_err()
    {
        size = size.saturating_sub(PAGE);
    }
    path
}

/// `RINGPORT_DISK_FULL_STEPS` pages left, one after the other; by itself only some of them.
#[test]
fn space_ends_at_any_page_and_comes_back() {
    let Some(mut small) = Small::start("disk_full, pages", "size=64m") else { return };
    let steps = number_from("RINGPORT_DISK_FULL_STEPS", 0);
    let some = vec![0, 1, 2, 3, 5, 8, 26, 60, 120, 260];
    let steps: Vec<u64> = if steps == 0 { some } else { (0..steps).collect() };
    let (warm, pulled) = small.pull_new("warm", MIB);
    assert_eq!(pulled, Pulled::Whole);
    small.server.await_blob(&warm.digest);
    let mut slowest = ms(0);
    for &pages in &steps {
        let filler = leave_free(&small, pages);
        for (n, size) in [100, 5 * KIB, 100 * KIB, MIB].into_iter().enumerate() {
            small.pull_new(&format!("{pages} pages {n}"), size);
            small.pull_new_tag(&format!("pages-{pages}-{n}"));
        }
        judge(&small.server.get(&warm.target()), &warm.bytes);
        small.expect_room_or_readyz_to_tell();
        small.server.assert_alive();
        std::fs::remove_file(filler).unwrap();
        slowest = slowest.max(small.expect_recovery(&format!("recovered {pages}")));
    }
    tell(&format!("disk_full: {} steps, stored again at most {slowest:?} later", steps.len()));
    small.server.kill();
    small.server.start_again();
    assert_eq!(judge(&small.server.get(&warm.target()), &warm.bytes), Pulled::Whole);
    small.expect_sound();
}

/// Disks from too small for anything upwards, in bytes and in files: the start fails with the
/// reason, or it serves; with space it does all.
#[test]
fn disks_of_any_size_are_refused_or_used() {
    let sizes = [64, 300, 600, 1024, 1600, 2200, 3000, 4096, 6000, 8192, 12_000, 16_384, 32_768];
    let files = [4, 200, 518, 524, 530, 545];
    let by_size = sizes.map(|kib| format!("size={kib}k"));
    let by_files = files.map(|count| format!("size=64m,nr_inodes={count}"));
    let (mut refused, mut served, mut slowest) = (0, 0, ms(0));
    for options in by_size.iter().chain(&by_files) {
        let Some(mut small) = Small::prepare("disk_full, sizes", options) else { return };
        small.server.launch();
        match small.server.await_healthy() {
            Err(status) => {
                refused += 1;
                let log = small.server.log_text();
                assert_eq!(status.code(), Some(1), "{options}: {status}\n{log}");
                assert!(log.to_lowercase().contains("space"), "{options}: the reason: {log}");
                small.disk.remount("size=128m,nr_inodes=20000");
                small.server.start_again();
            }
            Ok(()) => {
                served += 1;
                for (n, size) in [100, 5 * KIB, 100 * KIB, MIB, 6 * MIB].into_iter().enumerate() {
                    small.pull_new(&format!("{options} {n}"), size);
                    small.pull_new_tag(&format!("t{n}"));
                }
                small.server.assert_alive();
                small.disk.remount("size=128m,nr_inodes=20000");
            }
        }
        slowest = slowest.max(small.expect_recovery("with space"));
    }
    tell(&format!(
        "disk_full: {refused} disks too small to start, {served} served; stored at most \
         {slowest:?} after there was space"
    ));
}
