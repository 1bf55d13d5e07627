//! `ringport gc`: hosted content that no tag leads to is freed, on a stopped server and on a
//! running one, and nothing else. The content is put there with the library, as a push would.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::path::Path;
use std::process::Command;

use ringport::catalog::{
    BlobRecord, Catalog, LinkRecord, NO_OWNER, Subscriber, TagRecord, Tended, Write,
};
use ringport::keeping::Keeping;
use ringport::oci::{Algorithm, Digest, RepositoryName, Scope, Tag};
use ringport::storage::{ROOT_POOL, Store};
use serde_json::{Value, json};
use support::images::{OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
use support::lying::LyingUpstream;
use support::process::{Ran, run};
use support::rig::{NS, Rig};
use support::secs;
use support::server::{Server, Setup, Upstream};

struct Nobody;

impl Subscriber for Nobody {
    fn applied(&mut self, _: &Write) {}
    fn rebuilt(&mut self) {}
    fn group(&mut self, _: u64) {}
    fn offered(&mut self, _: &Digest, _: &[u8]) {}
    fn tend(&mut self) -> Tended {
        Tended::Idle
    }
    fn closed(&mut self) {}
}

/// What lies in the store.
struct Hosted {
    kept: Vec<String>,
    unreachable: Vec<String>,
    unreachable_bytes: u64,
}

/// Long ago.
const OLD: u64 = 1_000_000_000;

/// Puts two images into a hosted repository that share a layer; only one has a tag.
fn fill(root: &Path) -> Hosted {
    let (store, _) = Store::open(root).unwrap();
    let unstarted = Catalog::open(&store.catalog_path()).unwrap();
    let (catalog, thread) = unstarted.start(Box::new(Nobody)).unwrap();
    let repository = RepositoryName::parse("team/app").unwrap();
    let scope = Scope { upstream: None, repository };
    let put = |bytes: &[u8], media_type: Option<&str>| {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        std::fs::write(store.pool(ROOT_POOL).unwrap().blob_path(&digest), bytes).unwrap();
        let record = BlobRecord {
            digest,
            size: bytes.len() as u64,
            pool: 0,
            is_hosted: true,
            owner: NO_OWNER,
            keeping: Keeping::default(),
        };
        let link = LinkRecord {
            scope: scope.clone(),
            digest,
            media_type: media_type.map(str::to_owned),
            linked_at: OLD,
        };
        let writes = vec![Write::PutBlob { record, is_synced: true }, Write::PutLink(link)];
        catalog.write_blocking(writes, true).unwrap();
        digest
    };
    let image = |config: &[u8], layers: &[Digest]| {
        let of = |digest: Digest, media_type: &str| json!({"mediaType": media_type, "digest": digest.to_string(), "size": 9});
        let config = put(config, None);
        let document = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": of(config, OCI_CONFIG),
            "layers": layers.iter().map(|layer| of(*layer, OCI_LAYER)).collect::<Vec<_>>(),
        });
        (put(document.to_string().as_bytes(), Some(OCI_MANIFEST)), config, document.to_string())
    };
    let (shared, old_layer) = (put(b"the base layer", None), put(&[7; 100_000], None));
    let (tagged, config, _) = image(b"{\"n\":1}", &[shared]);
    let (untagged, old_config, document) = image(b"{\"n\":2}", &[shared, old_layer]);
    let tag = Tag::parse("latest").unwrap();
    let tag = TagRecord { scope: scope.clone(), tag, digest: tagged, checked_at: OLD };
    catalog.write_blocking(vec![Write::PutTag(tag)], true).unwrap();
    catalog.close(true);
    thread.join().unwrap();
    let texts = |digests: &[Digest]| digests.iter().map(Digest::to_string).collect();
    Hosted {
        kept: texts(&[shared, tagged, config]),
        unreachable: texts(&[old_layer, untagged, old_config]),
        unreachable_bytes: 100_000 + 7 + document.len() as u64,
    }
}

fn gc(server: &Server, words: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringport"));
    command.args(["gc", "--config"]).arg(server.config()).args(words);
    run(command, secs(60))
}

#[track_caller]
fn report(server: &Server, words: &[&str]) -> Value {
    let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
    serde_json::from_str(&gc(server, &words).expect_ok()).unwrap()
}

#[track_caller]
fn expect(server: &Server, hosted: &Hosted, is_freed: bool) {
    for digest in &hosted.kept {
        assert!(server.has_blob(digest), "{digest} is needed");
    }
    for digest in &hosted.unreachable {
        assert_eq!(server.has_blob(digest), !is_freed, "{digest}");
    }
}

#[test]
fn unreachable_content_is_freed_on_a_stopped_and_on_a_running_server() {
    for is_running in [false, true] {
        let mut server = Setup::new("gc").routing("hosted = [\"*\"]").prepare();
        let hosted = fill(server.root());
        if is_running {
            server.start_again();
            let answer = server.get("/v2/team/app/manifests/latest");
            assert_eq!(answer.status(), 200, "{}", answer.text());
        }
        let dry = report(&server, &["--dry-run"]);
        expect(&server, &hosted, false);
        let freed = json!({"count": 3, "bytes": hosted.unreachable_bytes});
        assert_eq!((&dry["unreachable_blobs"], &dry["dry_run"]), (&freed, &true.into()));
        assert_eq!(dry["unreachable_links"]["count"], 3);
        let table = gc(&server, &["--dry-run"]).expect_ok();
        assert!(table.contains("hosted content without a link"), "{table}");
        assert!(table.lines().last().unwrap().starts_with("would be freed"), "{table}");

        let done = report(&server, &[]);
        assert_eq!(done["unreachable_blobs"], freed, "running: {is_running}");
        expect(&server, &hosted, true);
        assert_eq!(report(&server, &[])["unreachable_blobs"]["count"], 0);

        if !is_running {
            server.start_again();
        }
        let answer = server.get("/v2/team/app/manifests/latest");
        assert_eq!(answer.status(), 200, "{}", answer.text());
        for digest in &hosted.kept {
            assert_eq!(server.get(&format!("/v2/team/app/blobs/{digest}")).status(), 200);
        }
        for digest in &hosted.unreachable {
            assert_eq!(server.get(&format!("/v2/team/app/blobs/{digest}")).status(), 404);
        }
        // Lost for good after another start, too.
        server.restart();
        expect(&server, &hosted, true);
    }
}

#[test]
fn hosted_content_without_its_file_keeps_its_name() {
    let upstream = LyingUpstream::start();
    let layers: [&[u8]; 2] = [b"the base layer", &[7; 100_000]];
    let digests = layers.map(|layer| upstream.add_blob("team/app", layer));
    let mut server = Setup::new("gc-without-file")
        .upstream(Upstream::new(NS, &upstream.url()))
        .routing("hosted = [\"*\"]")
        .prepare();
    fill(server.root());
    server.start_again();
    let away = server.scratch().path().join("away");
    for (layer, digest) in layers.iter().zip(&digests) {
        let path = server.blob_path(digest);
        std::fs::rename(&path, &away).unwrap();
        let target = format!("/v2/team/app/blobs/{digest}");
        let passed = server.get(&format!("{target}?ns={NS}"));
        assert_eq!((passed.status(), &passed.body[..]), (200, *layer), "{digest}");
        for _ in 0..2 {
            let answer = server.get(&target);
            assert_eq!(answer.status(), 503, "{digest}: {}", answer.text());
        }
        std::fs::rename(&away, &path).unwrap();
        let answer = server.get(&target);
        assert_eq!((answer.status(), &answer.body[..]), (200, *layer), "{digest}");
    }
}

#[test]
fn what_was_pulled_is_not_collected() {
    let rig = Rig::new("gc-cached", 10_000);
    rig.expect_right();
    rig.server.await_blob(&rig.digest);
    let report = report(&rig.server, &[]);
    for kind in ["unreachable_links", "unreachable_blobs", "dangling_links", "orphans"] {
        assert_eq!(report[kind]["count"], 0, "{kind}");
    }
    assert!(rig.server.has_blob(&rig.digest));
    rig.expect_right();
}
