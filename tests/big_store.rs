//! How long a store of many names takes from start to first hit: after a clean stop and after
//! kill -9. The names are made with the library, the files of a few of them too.
//!
//! `RINGPORT_BIG_BLOBS` says how many blobs (20,000 by default, 1,000,000 for the figures in the
//! documents); a tenth as many tags.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use ringport::catalog::{
    BlobRecord, Catalog, LinkRecord, NO_OWNER, Subscriber, TagRecord, Tended, Write,
};
use ringport::keeping::Keeping;
use ringport::oci::{Algorithm, Digest, Namespace, RepositoryName, Scope, Tag};
use ringport::storage::{ROOT_POOL, Store};
use support::http;
use support::images::OCI_MANIFEST;
use support::lying::{Answer, LyingUpstream};
use support::rig::{NS, manifest};
use support::server::{Setup, Upstream};

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

fn scope(n: u64) -> Scope {
    Scope {
        upstream: Some(Namespace::parse(NS).unwrap()),
        repository: RepositoryName::parse(&format!("org/app{}", n % 1000)).unwrap(),
    }
}

/// Makes the names, and the file of the one manifest that is asked for.
fn fill(root: &Path, blobs: u64, body: &[u8]) {
    let (store, _) = Store::open(root).unwrap();
    let wanted = Digest::of(Algorithm::Sha256, body);
    std::fs::write(store.pool(ROOT_POOL).unwrap().blob_path(&wanted), body).unwrap();
    let unstarted = Catalog::open(&store.catalog_path()).unwrap();
    let (catalog, thread) = unstarted.start(Box::new(Nobody)).unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let names = |n: u64, digest: Digest, size: u64, is_manifest: bool| {
        let record = BlobRecord {
            digest,
            size,
            pool: 0,
            is_hosted: false,
            owner: NO_OWNER,
            keeping: Keeping::default(),
        };
        let link = LinkRecord {
            scope: scope(n),
            digest,
            media_type: is_manifest.then(|| OCI_MANIFEST.to_owned()),
            linked_at: now,
        };
        let mut writes = vec![Write::PutBlob { record, is_synced: true }, Write::PutLink(link)];
        if is_manifest {
            let tag = Tag::parse(&format!("v{n}")).unwrap();
            let record = TagRecord { scope: scope(n), tag, digest, checked_at: now };
            writes.push(Write::PutTag(record));
        }
        writes
    };
    for batch in (0..blobs).collect::<Vec<_>>().chunks(20_000) {
        let writes = batch
            .iter()
            .flat_map(|&n| {
                let digest = Digest::of(Algorithm::Sha256, &n.to_le_bytes());
                names(n, digest, 1000 + n % 5_000_000, n % 10 == 0)
            })
            .collect();
        catalog.write_blocking(writes, false).unwrap();
    }
    catalog.write_blocking(names(7, wanted, body.len() as u64, true), true).unwrap();
    catalog.close(true);
    thread.join().unwrap();
}

#[test]
fn a_big_store_answers_soon_after_its_start() {
    let blobs: u64 =
        std::env::var("RINGPORT_BIG_BLOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
    let upstream = LyingUpstream::start();
    let declared = Upstream::new(NS, &upstream.url()).set("tag_ttl = \"10d\"");
    // Nothing has to make room (most of these names have no file), and the table is about as large
    // as the names need.
    let setup = Setup::new("big").upstream(declared).storage("max_size = \"4TiB\"");
    let mut server = setup.start();
    assert!(server.terminate(support::secs(40)).unwrap().success());
    std::fs::remove_dir_all(server.root()).unwrap();
    let body = manifest("the wanted one");
    let began = Instant::now();
    fill(server.root(), blobs, &body);
    println!("{blobs} blobs and links, {} tags made in {:?}", blobs / 10, began.elapsed());
    // Nothing of it may come from the upstream.
    upstream.script_everything(Some(Answer::status(500)));
    let target = format!("/v2/org/app7/manifests/v7?ns={NS}");
    for (how, is_killed) in [("first start", false), ("clean stop", true), ("kill -9", false)] {
        let began = Instant::now();
        server.launch();
        let first_hit = loop {
            let listens = std::net::TcpStream::connect_timeout(&server.addr, support::ms(100));
            if listens.is_ok()
                && let Ok(answer) = http::try_get(server.addr, &target)
            {
                assert_eq!(answer.status(), 200, "{how}: {}", answer.text());
                assert_eq!(answer.body, body, "{how}");
                break began.elapsed();
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{how}: no hit");
            std::thread::sleep(support::ms(2));
        };
        server.await_ready().expect("a server that goes on");
        println!("after {how}: first hit in {first_hit:?}, {} MiB", server.rss_bytes() >> 20);
        support::wait_until("the index to be complete", support::secs(300), || {
            server.metrics().contains("\nringport_index_cold 0\n")
        });
        println!(
            "after {how}: index complete in {:?}, {} MiB",
            began.elapsed(),
            server.rss_bytes() >> 20
        );
        if is_killed {
            server.kill();
        } else {
            assert!(server.terminate(support::secs(40)).unwrap().success());
        }
    }
}
