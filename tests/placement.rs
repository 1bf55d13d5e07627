//! What a plugin says of storage, acted upon by a running server: content goes to the pool that was
//! named, is kept as long as was said, or is passed through and stored nowhere.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod plugin_support;
mod support;

use std::path::{Path, PathBuf};

use plugin_support::{Installed, plugin_entry};
use support::gate::Gate;
use support::http::{self, Ending};
use support::images::{OCI_MANIFEST, random_bytes, sha256};
use support::lying::{Answer, LyingUpstream};
use support::rig::{NS, manifest};
use support::scratch::files_below;
use support::secs;
use support::server::{Server, Setup, Upstream};

const MIB: usize = 1 << 20;
/// Another name for the upstream: what comes by it is a download of its own.
const SECOND: &str = "second.example";

/// A mirror with one further pool, `nvme`, and a plugin that decides by the repository's name.
struct Rig {
    _plugin: Installed,
    upstream: LyingUpstream,
    server: Server,
    nvme: PathBuf,
}

fn rig(what: &str) -> Rig {
    rig_with(what, "64MiB")
}

fn rig_with(what: &str, max_size: &str) -> Rig {
    let plugin = Installed::built("ringport_plugin_faulty");
    let upstream = LyingUpstream::start();
    let setup = Setup::new(what);
    let nvme = setup.scratch().path().join("nvme");
    let server = setup
        .upstream(Upstream::new(NS, &upstream.url()))
        .upstream(Upstream::new(SECOND, &upstream.url()))
        .storage(&format!("max_size = \"{max_size}\""))
        // Named by the plugin; nobody is there.
        .storage(&format!("remote_tiers = [\"http://{}\"]", support::ports::free()))
        .routing("resolvers = [\"standard\", \"p\"]")
        .more(&format!("[[storage.pool]]\nname = \"nvme\"\npath = \"{}\"\n", nvme.display()))
        .more(&plugin_entry("p", &plugin.path, ""))
        .start();
    Rig { _plugin: plugin, upstream, server, nvme }
}

impl Rig {
    /// Pulls it; what the answer says of the cache.
    #[track_caller]
    fn pull(&self, path: &str, bytes: &[u8]) -> String {
        let answer = self.server.get(&format!("{path}?ns={NS}"));
        assert_eq!((answer.status(), answer.ending), (200, Ending::Complete), "{}", answer.text());
        assert!(answer.body == bytes, "wrong bytes");
        answer.header("cache-status").to_owned()
    }

    fn files(&self, pool: &Path) -> usize {
        files_below(&pool.join("blobs")).len()
    }

    /// Adds a blob and a manifest with a tag: where they are asked for, and their bytes.
    fn add(&self, repository: &str) -> [(String, Vec<u8>); 2] {
        let (path, blob) = self.add_blob(repository, repository, 200_000);
        let manifest = manifest(repository);
        self.upstream.add_manifest(repository, "v1", OCI_MANIFEST, &manifest);
        [(path, blob), (format!("/v2/{repository}/manifests/v1"), manifest)]
    }

    fn add_blob(&self, repository: &str, name: &str, size: usize) -> (String, Vec<u8>) {
        let blob = random_bytes(name, size);
        let digest = self.upstream.add_blob(repository, &blob);
        (format!("/v2/{repository}/blobs/{digest}"), blob)
    }

    /// Whether these bytes have a file, in either pool.
    fn has(&self, bytes: &[u8]) -> bool {
        let hex = sha256(bytes).replace("sha256:", "");
        let below = |pool: &Path| pool.join("blobs/sha256").join(&hex[..2]).join(&hex).exists();
        below(&self.nvme) || below(self.server.root())
    }

    /// Pulls blobs of which nothing is said until room was made for one.
    fn pull_until_one_goes(&self, round: &str) {
        let evicted = || self.server.metric("ringport_evictions_total", &[]);
        let before = evicted();
        for n in 0.. {
            let (path, bytes) = self.add_blob("org/app", &format!("{round} {n}"), MIB);
            self.pull(&path, &bytes);
            if evicted() > before {
                return assert_eq!(evicted(), before + 1.0, "more than one went");
            }
            assert!(n < 20, "nothing went: {}", self.server.metrics());
        }
    }
}

#[test]
fn content_goes_to_the_pool_that_a_plugin_names() {
    let rig = rig("placement-pool");
    for (path, bytes) in rig.add("faulty/good") {
        assert_eq!(rig.pull(&path, &bytes), "ringport; fwd=miss; stored");
        support::wait_until("a hit", secs(20), || rig.pull(&path, &bytes) == "ringport; hit");
        let hex = sha256(&bytes).replace("sha256:", "");
        let file = rig.nvme.join("blobs/sha256").join(&hex[..2]).join(&hex);
        assert!(file.exists(), "{} is not there", file.display());
    }
    assert_eq!((rig.files(&rig.nvme), rig.files(rig.server.root())), (2, 0));
    // Hits ask nobody.
    let asked = || {
        let place = ["plugin=\"p\"", "hook=\"place\""];
        rig.server.metric("ringport_plugin_calls_total", &place)
    };
    // Asked again behind the clients' backs, when both were stored: what it says then is refused.
    support::wait_until("the plugin to be asked where they are written", secs(20), || {
        rig.server.metric("ringport_plugin_broken_answers_total", &["plugin=\"p\""]) == 2.0
    });
    let before = asked();
    for (path, bytes) in rig.add("faulty/good") {
        assert_eq!(rig.pull(&path, &bytes), "ringport; hit");
    }
    assert!(before >= 2.0);
    assert_eq!(asked(), before);
    // A plugin that declines leaves it to the store, which has two pools to choose from.
    for (path, bytes) in rig.add("org/app") {
        rig.pull(&path, &bytes);
        support::wait_until("a hit", secs(20), || rig.pull(&path, &bytes) == "ringport; hit");
    }
    assert_eq!(rig.files(&rig.nvme) + rig.files(rig.server.root()), 4);
}

#[test]
fn what_is_passed_through_is_right_and_stored_nowhere() {
    let rig = rig("placement-pass");
    // The second one is told nothing by its plugin, which must not fill a disk.
    for repository in ["faulty/pass", "faulty/unavailable"] {
        for (path, bytes) in rig.add(repository) {
            for asked in 1..=3 {
                assert_eq!(rig.pull(&path, &bytes), "ringport; fwd=miss");
                assert_eq!(rig.upstream.count("GET", &path), asked, "{path}");
            }
        }
    }
    support::wait_until("the end of all fills", secs(20), || {
        rig.server.metric("ringport_fills_active", &[]) == 0.0
    });
    assert_eq!((rig.files(&rig.nvme), rig.files(rig.server.root())), (0, 0));
    assert!(rig.server.staged().is_empty());
}

#[test]
fn what_is_pinned_stays_and_what_expired_goes_first() {
    let mut rig = rig_with("placement-kept", "16MiB");
    let [small, (_, manifest)] = rig.add("faulty/pinned");
    let manifest_path = format!("/v2/faulty/pinned/manifests/{}", sha256(&manifest));
    // Larger than all the others, so that nothing but what was said of them keeps them.
    let pinned = rig.add_blob("faulty/pinned", "pinned", 2 * MIB);
    let dear = rig.add_blob("faulty/dear", "dear", 2 * MIB);
    let kept = [pinned, (manifest_path, manifest), small, dear];
    for (path, bytes) in &kept {
        rig.pull(path, bytes);
    }
    let pinned_bytes: usize = kept[..3].iter().map(|(_, bytes)| bytes.len()).sum();
    for round in ["at once", "after a restart", "without its index"] {
        // Twice as large as what it has to make room for, and with that the low watermark.
        let (path, brief) = rig.add_blob("faulty/brief", round, 4 * MIB);
        rig.pull(&path, &brief);
        support::wait_until("a file", secs(20), || rig.has(&brief));
        if round != "at once" {
            rig.server.terminate(secs(20));
        }
        if round == "without its index" {
            std::fs::remove_dir_all(rig.server.root().join("index")).unwrap();
        }
        // Until it has expired: a second is what the plugin said.
        std::thread::sleep(support::ms(1200));
        if round != "at once" {
            rig.server.start_again();
        }
        rig.pull_until_one_goes(round);
        assert!(!rig.has(&brief), "{round}: something else went before what had expired");
        for n in 0..16 {
            let (path, bytes) = rig.add_blob("org/app", &format!("{round} more {n}"), MIB);
            rig.pull(&path, &bytes);
        }
        assert!(rig.server.metric("ringport_evictions_total", &[]) > 12.0);
        let pinned = rig.server.metric("ringport_store_pinned_bytes", &[]);
        assert_eq!(pinned as usize, pinned_bytes, "{round}");
        for (path, bytes) in &kept {
            assert_eq!(rig.pull(path, bytes), "ringport; hit", "{round}: {path}");
            assert_eq!(rig.upstream.count("GET", path), 1, "{round}: {path}");
        }
    }
}

#[test]
fn whose_download_is_stored_first_says_how_content_is_kept() {
    let rig = rig("placement-first");
    for (round, repositories) in
        [("pinned", ["faulty/pinned", "org/app"]), ("cached", ["org/app", "faulty/pinned"])]
    {
        let downloads = [NS, SECOND].map(|ns| (ns, Gate::new()));
        let clients: Vec<_> = downloads
            .iter()
            .zip(repositories)
            .map(|((ns, gate), repository)| {
                let (path, bytes) = rig.add_blob(repository, round, 200_000);
                rig.upstream.script("GET", &path, [Answer::right().held(gate)]);
                let (addr, target) = (rig.server.addr, format!("{path}?ns={ns}"));
                let client = std::thread::spawn(move || http::get(addr, &target).body == bytes);
                support::wait_until("a request", secs(20), || {
                    rig.upstream.count("GET", &path) == 1
                });
                client
            })
            .collect();
        for ((_, gate), client) in downloads.iter().zip(clients) {
            let fills = || rig.server.metric("ringport_fills_active", &[]);
            let before = fills();
            gate.open();
            assert!(client.join().unwrap(), "{round}: wrong bytes");
            support::wait_until("the end of a fill", secs(20), || fills() < before);
        }
        let pinned = rig.server.metric("ringport_store_pinned_bytes", &[]);
        assert_eq!(pinned, 200_000.0, "{round} first");
    }
    assert_eq!(rig.server.metric("ringport_store_bytes", &[]), 400_000.0);
}
