//! More pools on more disks: content is spread and found again, a pool that is full, fails or is
//! missing stops nobody, and what is not the pool is refused. And upstreams with a limit of their own.
//! Disks that are full or fail are a tmpfs and an ext4 on a loop device; without root these tests
//! say that they were skipped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::http::{self, Ending};
use support::images::random_bytes;
use support::lying::LyingUpstream;
use support::mounts::{CutDisk, Tmpfs};
use support::process::run;
use support::rig::NS;
use support::scratch::files_below;
use support::secs;
use support::server::{Server, Setup, Upstream};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const REPOSITORY: &str = "org/app";

/// A mirror with the pools `root`, `a` and `b`.
struct Rig {
    upstream: LyingUpstream,
    server: Server,
    a: PathBuf,
    b: PathBuf,
}

/// Content of the upstream.
struct Blob {
    bytes: Vec<u8>,
    digest: String,
    path: String,
}

fn pool(name: &str, path: &Path, more: &str) -> String {
    format!("[[storage.pool]]\nname = \"{name}\"\npath = \"{}\"\n{more}\n", path.display())
}

impl Rig {
    /// Pools in these folders; started.
    fn new(what: &str, root: Option<&Path>, pools: Option<(&Path, &Path)>, more: &str) -> Rig {
        let upstream = LyingUpstream::start();
        let setup = Setup::new(what).upstream(Upstream::new(NS, &upstream.url()));
        let (a, b) = match pools {
            Some((a, b)) => (a.join("pool"), b.join("pool")),
            None => (setup.scratch().path().join("a"), setup.scratch().path().join("b")),
        };
        let setup = match root {
            Some(root) => setup.root(&root.join("store")),
            None => setup,
        };
        let server = setup.more(&pool("a", &a, more)).more(&pool("b", &b, more)).start();
        Rig { upstream, server, a, b }
    }

    /// The folders of all pools, the root first.
    fn folders(&self) -> [&Path; 3] {
        [self.server.root(), &self.a, &self.b]
    }

    fn blobs(&self, what: &str, count: usize, size: usize) -> Vec<Blob> {
        let blob = |n: usize| {
            let bytes = random_bytes(&format!("{what} {n}"), size);
            let digest = self.upstream.add_blob(REPOSITORY, &bytes);
            Blob { path: format!("/v2/{REPOSITORY}/blobs/{digest}"), bytes, digest }
        };
        (0..count).map(blob).collect()
    }

    /// Pulls it; what the answer says of the cache.
    #[track_caller]
    fn pull(&self, blob: &Blob) -> String {
        let answer = self.server.get(&format!("{}?ns={NS}", blob.path));
        assert_eq!((answer.status(), answer.ending), (200, Ending::Complete), "{}", answer.text());
        assert!(answer.body == blob.bytes, "wrong bytes");
        answer.header("cache-status").to_owned()
    }

    /// Pulls them and waits until they are stored.
    #[track_caller]
    fn store(&self, blobs: &[Blob]) {
        for blob in blobs {
            self.pull(blob);
            support::wait_until("content in a pool", secs(20), || !self.places(blob).is_empty());
        }
        support::wait_until("the end of all fills", secs(20), || {
            self.server.metric("ringport_fills_active", &[]) == 0.0
        });
    }

    /// The files of a blob.
    fn places(&self, blob: &Blob) -> Vec<PathBuf> {
        let hex = blob.digest.strip_prefix("sha256:").unwrap();
        let all = self.folders().map(|pool| pool.join("blobs/sha256").join(&hex[..2]).join(hex));
        all.into_iter().filter(|path| path.exists()).collect()
    }

    /// Bytes of content in each pool, as the files have it.
    fn bytes(&self) -> [u64; 3] {
        let size = |path: &PathBuf| path.metadata().map_or(0, |metadata| metadata.len());
        self.folders().map(|pool| files_below(&pool.join("blobs")).iter().map(size).sum())
    }

    fn metric(&self, name: &str, pool: &str) -> f64 {
        self.server.metric(name, &[&format!("pool=\"{pool}\"")])
    }

    /// Every blob is a hit: nothing is asked of the upstream.
    #[track_caller]
    fn expect_hits(&self, blobs: &[Blob]) {
        let before = self.upstream.requests();
        for blob in blobs {
            assert_eq!(self.pull(blob), "ringport; hit");
        }
        assert_eq!(self.upstream.requests(), before);
    }

    /// `ringport <what> --json`: the exit status and the report.
    #[track_caller]
    fn upkeep(&self, what: &str) -> (Option<i32>, Value) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringport"));
        command.args([what, "--json", "--config"]).arg(self.server.config());
        let ran = run(command, secs(60));
        let report = serde_json::from_str(&ran.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", ran.stdout, ran.stderr));
        (ran.status.and_then(|status| status.code()), report)
    }

    fn stop(&mut self) {
        assert!(self.server.terminate(secs(40)).expect("an end").success());
    }

    /// Starts it, which must fail; returns what it said.
    #[track_caller]
    fn expect_no_start(&mut self) -> String {
        self.server.launch();
        assert!(self.server.await_ready().is_err(), "it started");
        self.server.log_text()
    }
}

#[test]
fn content_is_spread_over_all_pools_and_found_after_a_restart() {
    let mut rig = Rig::new("spread", None, None, "");
    let blobs = rig.blobs("spread", 60, 100 * KIB);
    rig.store(&blobs);
    let bytes = rig.bytes();
    assert_eq!(bytes.iter().sum::<u64>(), 60 * 100 * KIB as u64);
    assert!(bytes.iter().all(|&pool| pool >= 5 * 100 * KIB as u64), "all on one disk: {bytes:?}");
    for _ in 0..2 {
        for (name, bytes) in ["root", "a", "b"].into_iter().zip(bytes) {
            assert_eq!(rig.metric("ringport_pool_bytes", name), bytes as f64, "{name}");
            assert_eq!(rig.metric("ringport_pool_up", name), 1.0);
        }
        rig.expect_hits(&blobs);
        rig.server.restart();
    }
    rig.server.kill();
    rig.server.start_again();
    rig.expect_hits(&blobs);

    // Verify and gc know all pools: damage in one, a file without a name in the other.
    let in_a = blobs.iter().find(|blob| rig.places(blob)[0].starts_with(&rig.a)).unwrap();
    let file = rig.places(in_a).remove(0);
    std::fs::write(&file, random_bytes("damage", 100 * KIB)).unwrap();
    let (status, report) = rig.upkeep("verify");
    assert_eq!((status, &report["damaged"]), (Some(0), &1.into()), "{report}");
    assert_eq!(files_below(&rig.a.join("quarantine")).len(), 1);
    assert_eq!(rig.pull(in_a), "ringport; fwd=miss; stored");
    support::wait_until("it to come back", secs(20), || !rig.places(in_a).is_empty());
    let orphan = rig.b.join("blobs/sha256/00").join(format!("00{}", "1".repeat(62)));
    rig.stop();
    std::fs::write(&orphan, b"nobody's").unwrap();
    // Files count by the second, with some slack for clocks.
    std::thread::sleep(secs(3));
    rig.server.start_again();
    let (status, report) = rig.upkeep("gc");
    assert_eq!((status, &report["orphans"]["count"]), (Some(0), &1.into()), "{report}");
    assert!(!orphan.exists());
    rig.expect_hits(&blobs);
}

#[test]
fn a_missing_pool_stops_nobody_and_its_mount_point_stays_empty() {
    let mut rig = Rig::new("missing", None, None, "");
    let blobs = rig.blobs("missing", 30, 100 * KIB);
    rig.store(&blobs);
    let in_a = files_below(&rig.a.join("blobs")).len();
    assert!(in_a > 0);
    rig.stop();
    let away = rig.server.scratch().path().join("away");
    std::fs::rename(&rig.a, &away).unwrap();
    std::fs::create_dir(&rig.a).unwrap();

    rig.server.start_again();
    assert!(rig.server.log_text().contains("a pool is missing"), "{}", rig.server.log_text());
    assert_eq!(
        (rig.metric("ringport_pool_up", "a"), rig.metric("ringport_pool_up", "b")),
        (0., 1.)
    );
    // Not with what is looked for elsewhere, and not as lost either.
    let (status, report) = rig.upkeep("verify");
    assert_eq!((status, &report["out_of_reach"]), (Some(1), &in_a.into()), "{report}");
    let before = rig.upstream.requests();
    let again = blobs.iter().filter(|blob| rig.pull(blob) != "ringport; hit").count();
    assert_eq!(again, in_a, "what lay there is fetched again, and nothing else");
    assert_eq!(rig.upstream.requests() - before, in_a);
    rig.store(&blobs);
    rig.expect_hits(&blobs);
    assert_eq!(files_below(&rig.a).len(), 0);

    // The disk comes back: what it has is not named any more, and gc clears it.
    rig.stop();
    std::fs::remove_dir(&rig.a).unwrap();
    std::fs::rename(&away, &rig.a).unwrap();
    std::thread::sleep(secs(3));
    rig.server.start_again();
    rig.expect_hits(&blobs);
    let (status, report) = rig.upkeep("gc");
    assert_eq!((status, &report["orphans"]["count"]), (Some(0), &in_a.into()), "{report}");
    rig.expect_hits(&blobs);
    assert!(blobs.iter().all(|blob| rig.places(blob).len() == 1));
}

#[test]
fn disks_that_were_swapped_or_come_from_elsewhere_are_refused() {
    let mut rig = Rig::new("swapped", None, None, "");
    let blobs = rig.blobs("swapped", 20, 40 * KIB);
    rig.store(&blobs);
    rig.stop();
    let between = rig.server.scratch().path().join("between");
    let swap = |one: &Path, other: &Path| {
        std::fs::rename(one, &between).unwrap();
        std::fs::rename(other, one).unwrap();
        std::fs::rename(&between, other).unwrap();
    };
    swap(&rig.a, &rig.b);
    let log = rig.expect_no_start();
    assert!(log.contains("expected pool \"a\", number 1, of this store"), "{log}");
    assert!(log.contains("found pool \"b\", number 2, of this store; are two disks swapped"));
    swap(&rig.a, &rig.b);

    let other = Rig::new("another", None, None, "");
    std::fs::rename(&rig.a, rig.server.scratch().path().join("kept")).unwrap();
    std::fs::create_dir(&rig.a).unwrap();
    std::fs::copy(other.a.join("pool.json"), rig.a.join("pool.json")).unwrap();
    let log = rig.expect_no_start();
    assert!(log.contains("of another store; mount the right disk"), "{log}");
    std::fs::remove_dir_all(&rig.a).unwrap();
    std::fs::rename(rig.server.scratch().path().join("kept"), &rig.a).unwrap();
    rig.server.start_again();
    rig.expect_hits(&blobs);
}

#[test]
fn a_full_pool_leaves_the_others_to_take_content_and_evicts_its_own() {
    let mount = |size| Tmpfs::mount("full_pool", size);
    let Some(root) = mount("size=24m") else { return };
    let (Some(a), Some(b)) = (mount("size=10m"), mount("size=16m")) else { return };
    let pools = Some((a.path(), b.path()));
    let rig = Rig::new("full-pool", Some(root.path()), pools, "max_size = \"8MiB\"");
    // Three times what the pools together hold.
    let blobs = rig.blobs("full pool", 90, MIB);
    for blob in &blobs {
        rig.pull(blob);
    }
    support::wait_until("the end of all fills", secs(20), || {
        rig.server.metric("ringport_fills_active", &[]) == 0.0
    });
    let [in_root, in_a, in_b] = rig.bytes().map(|bytes| bytes / MIB as u64);
    assert!((3..=6).contains(&in_a), "the disk has 10 MiB, of which 4 are left to others: {in_a}");
    assert!((4..=8).contains(&in_b), "the limit is 8 MiB: {in_b}");
    assert!((8..=20).contains(&in_root), "the disk has 24 MiB: {in_root}");
    assert_eq!(rig.server.metric("ringport_fills_total", &["storage_failed"]), 0.0);
    assert_eq!(rig.server.metric("ringport_fills_without_room_total", &[]), 0.0);
    assert!(rig.server.metric("ringport_evictions_total", &[]) >= 50.0);
    assert_eq!(http::get(rig.server.admin, "/readyz").status(), 200);
    // One that is full of others' files is left alone.
    let others = a.path().join("others");
    std::fs::write(&others, vec![0; a.free_bytes() as usize]).unwrap();
    for blob in &rig.blobs("after", 20, MIB) {
        assert_eq!(rig.pull(blob), "ringport; fwd=miss; stored");
    }
    assert_eq!(http::get(rig.server.admin, "/readyz").status(), 200);
}

#[test]
fn a_disk_that_fails_makes_its_pool_read_only_and_the_others_go_on() {
    let Some(disk) = CutDisk::mount("failing_pool", 64) else { return };
    let mount = || Tmpfs::mount("failing_pool", "size=64m");
    let (Some(root), Some(b)) = (mount(), mount()) else { return };
    let pools = Some((disk.path(), b.path()));
    let mut rig = Rig::new("failing", Some(root.path()), pools, "");
    let stored = rig.blobs("before", 60, 100 * KIB);
    rig.store(&stored);
    assert!(rig.bytes()[1] >= 500 * KIB as u64, "{:?}", rig.bytes());
    disk.cut();
    for blob in &stored {
        rig.pull(blob);
    }
    for blob in &rig.blobs("after", 60, 100 * KIB) {
        assert_eq!(rig.pull(blob), "ringport; fwd=miss; stored");
    }
    assert_eq!(http::get(rig.server.admin, "/readyz").status(), 200);
    rig.server.assert_alive();
    // Synced at its end at the latest, which fails and is told.
    assert!(rig.server.terminate(secs(40)).expect("an end").success());
    assert!(rig.server.log_text().contains("a disk failed: the pool takes nothing more"));

    // As it is, it can be read or not; either way the mirror starts and serves.
    rig.server.start_again();
    for blob in &stored {
        rig.pull(blob);
    }
    let is_up = rig.metric("ringport_pool_up", "a") == 1.0;
    assert!(!is_up || rig.metric("ringport_pool_poisoned", "a") == 1.0, "{}", rig.server.metrics());
    assert_eq!(rig.metric("ringport_pool_poisoned", "b"), 0.0);
    assert_eq!(http::get(rig.server.admin, "/readyz").status(), 200);
    rig.stop();
}

#[test]
fn a_disk_that_cannot_be_read_for_a_while_is_passed_by_and_nothing_is_forgotten() {
    let Some(mut disk) = CutDisk::mount("unreadable_pool", 64) else { return };
    let mount = || Tmpfs::mount("unreadable_pool", "size=64m");
    let (Some(root), Some(b)) = (mount(), mount()) else { return };
    let pools = Some((disk.path(), b.path()));
    let mut rig = Rig::new("unreadable", Some(root.path()), pools, "");
    let stored = rig.blobs("stored", 30, 100 * KIB);
    rig.store(&stored);
    let in_a = stored.iter().filter(|blob| rig.places(blob)[0].starts_with(&rig.a)).count();
    assert!(in_a > 0, "{:?}", rig.bytes());
    disk.sync();
    disk.cut();
    for _ in 0..2 {
        let passed = stored.iter().filter(|blob| rig.pull(blob) != "ringport; hit").count();
        assert_eq!(passed, in_a);
    }
    rig.server.kill();
    disk.power_on();
    rig.server.start_again();
    rig.expect_hits(&stored);
    rig.server.kill();
}

#[test]
fn an_upstream_over_its_limit_makes_room_among_its_own() {
    const LIMITED: &str = "limited.example";
    let (limited, free) = (LyingUpstream::start(), LyingUpstream::start());
    let mut server = Setup::new("owner")
        .upstream(Upstream::new(LIMITED, &limited.url()).set("max_size = \"4MiB\""))
        .upstream(Upstream::new(NS, &free.url()))
        .start();
    let addr = server.addr;
    let blobs = |upstream: &LyingUpstream, what: &str, count: usize| -> Vec<(String, Vec<u8>)> {
        let blob = |n: usize| {
            let bytes = random_bytes(&format!("{what} {n}"), MIB);
            (upstream.add_blob(REPOSITORY, &bytes), bytes)
        };
        (0..count).map(blob).collect()
    };
    let pull = |namespace: &str, (digest, bytes): &(String, Vec<u8>)| {
        let target = format!("/v2/{REPOSITORY}/blobs/{digest}?ns={namespace}");
        let answer = http::get(addr, &target);
        assert_eq!((answer.status(), answer.ending), (200, Ending::Complete));
        assert!(answer.body == *bytes, "wrong bytes");
    };
    let kept = blobs(&free, "kept", 8);
    let shared = blobs(&free, "shared", 1);
    limited.add_blob(REPOSITORY, &shared[0].1);
    for blob in kept.iter().chain(&shared) {
        pull(NS, blob);
        server.await_blob(&blob.0);
    }
    // It has its content from the other one: that counts there, once it has a name.
    let target = format!("/v2/{REPOSITORY}/blobs/{}?ns={NS}", shared[0].0);
    support::wait_until("the content to be known", secs(20), || {
        server.head(&target).header("cache-status") == "ringport; hit"
    });
    pull(LIMITED, &shared[0]);
    assert_eq!(limited.bytes_sent(&format!("/v2/{REPOSITORY}/blobs/{}", shared[0].0)), 0);
    let own = blobs(&limited, "own", 16);
    for blob in &own {
        pull(LIMITED, blob);
    }
    let stored = |server: &Server| own.iter().filter(|blob| server.has_blob(&blob.0)).count();
    let owned = |server: &Server| {
        server.metric("ringport_upstream_stored_bytes", &["namespace=\"limited.example\""])
    };
    support::wait_until("the limit to be kept", secs(30), || stored(&server) <= 4);
    for _ in 0..2 {
        // A download is named after its last byte, and a file goes after its name.
        support::wait_until("the account to agree with the files", secs(20), || {
            owned(&server) == (stored(&server) * MIB) as f64
        });
        assert!((2..=4).contains(&stored(&server)), "{} stored", stored(&server));
        for (n, blob) in kept.iter().chain(&shared).enumerate() {
            assert!(server.has_blob(&blob.0), "another upstream's content {n} made room");
        }
        server.restart();
    }
    // What is larger than the limit goes by.
    let large = random_bytes("large", 5 * MIB);
    let large = (limited.add_blob(REPOSITORY, &large), large);
    pull(LIMITED, &large);
    pull(NS, &kept[0]);
    assert!(!server.has_blob(&large.0));
    assert!(server.metric("ringport_evictions_total", &[]) <= 2.0);
}
