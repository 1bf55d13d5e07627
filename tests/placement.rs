//! What a plugin says of storage, acted upon by a running server: content goes to the pool that was
//! named, or is passed through and stored nowhere.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod plugin_support;
mod support;

use std::path::{Path, PathBuf};

use plugin_support::{Installed, plugin_entry};
use support::http::Ending;
use support::images::{OCI_MANIFEST, random_bytes, sha256};
use support::lying::LyingUpstream;
use support::rig::{NS, manifest};
use support::scratch::files_below;
use support::secs;
use support::server::{Server, Setup, Upstream};

/// A mirror with one further pool, `nvme`, and a plugin that decides by the repository's name.
struct Rig {
    _plugin: Installed,
    upstream: LyingUpstream,
    server: Server,
    nvme: PathBuf,
}

fn rig(what: &str) -> Rig {
    let plugin = Installed::built("ringport_plugin_faulty");
    let upstream = LyingUpstream::start();
    let setup = Setup::new(what);
    let nvme = setup.scratch().path().join("nvme");
    let server = setup
        .upstream(Upstream::new(NS, &upstream.url()))
        // Named by the plugin, and asked by nobody.
        .storage("remote_tiers = [\"https://s3.example\"]")
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
        let blob = random_bytes(repository, 200_000);
        let digest = self.upstream.add_blob(repository, &blob);
        let manifest = manifest(repository);
        self.upstream.add_manifest(repository, "v1", OCI_MANIFEST, &manifest);
        [
            (format!("/v2/{repository}/blobs/{digest}"), blob),
            (format!("/v2/{repository}/manifests/v1"), manifest),
        ]
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
                assert_eq!(rig.pull(&path, &bytes).split("; stored").next(), {
                    Some("ringport; fwd=miss")
                });
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
