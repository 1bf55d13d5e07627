//! Stores made-up content durably, as a push does, and prints the digest of each piece once it is
//! acknowledged: bytes on disk, name in the catalog. What the crash tests cut short; it runs until
//! it is killed, and ends with status 1 when the disk fails.
//!
//! `durable_commit ROOT SEED`: ROOT is a store that no process has open, SEED chooses the content.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "ends on any failure")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use ringport::catalog::{
    BlobRecord, Catalog, LinkRecord, NO_OWNER, Subscriber, Tended, Write as Change,
};
use ringport::oci::{Algorithm, Digest, RepositoryName, Scope};
use ringport::runtime::{self, BlockingPool};
use ringport::storage::{ROOT_POOL, Staged, Store};

/// Pieces being stored at a time, on each of two workers.
const WRITERS: u64 = 4;
/// Within a page, more than one, more than one read.
const SIZES: [usize; 7] = [1, 100, 4096, 10_000, 65_537, 300_000, 1 << 20];
/// Content arrives in pieces of this size.
const PIECE: usize = 64 << 10;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(root), Some(seed)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: durable_commit ROOT SEED");
        std::process::exit(2);
    };
    let seed: u64 = seed.parse().expect("a number as SEED");
    let (store, catalog) = open(&PathBuf::from(root));
    let pool = BlockingPool::start(4, 1024).expect("threads for blocking calls");
    let driver = runtime::driver_for(None).expect("a driver");
    let main = move |context: runtime::WorkerContext| {
        let (store, catalog) = (store.clone(), catalog.clone());
        async move {
            for writer in 0..WRITERS {
                let part = seed ^ (context.worker as u64 * WRITERS + writer + 1) << 40;
                runtime::spawn(write_for_ever(store.clone(), catalog.clone(), part));
            }
            std::future::pending::<()>().await;
        }
    };
    let started = runtime::start(2, driver, &pool, main, |_, error| fail(&error));
    let (_workers, threads) = started.expect("workers");
    for thread in threads {
        thread.join().expect("a worker");
    }
}

fn open(root: &Path) -> (Arc<Store>, Catalog) {
    // The index is made from the catalog, and what is added here behind its back is not in it.
    let _ = std::fs::remove_dir_all(root.join("index"));
    let (store, _) = Store::open(root).unwrap_or_else(|error| fail(&error));
    let unstarted = Catalog::open(&store.catalog_path()).unwrap_or_else(|error| fail(&error));
    let started = unstarted.start(Box::new(NoIndex));
    let (catalog, _thread) = started.unwrap_or_else(|error| fail(&error));
    (Arc::new(store), catalog)
}

/// Nobody asks this process for anything, so it needs no index.
struct NoIndex;

impl Subscriber for NoIndex {
    fn applied(&mut self, _: &Change) {}
    fn rebuilt(&mut self) {}
    fn group(&mut self, _: u64) {}
    fn offered(&mut self, _: &Digest, _: &[u8]) {}
    fn tend(&mut self) -> Tended {
        Tended::Idle
    }
    fn closed(&mut self) {}
}

async fn write_for_ever(store: Arc<Store>, catalog: Catalog, seed: u64) {
    for n in 0.. {
        let content = content(seed.wrapping_add(n));
        let digest = Digest::of(Algorithm::Sha256, &content);
        if let Err(error) = store_one(&store, &catalog, digest, content).await {
            fail(error.as_ref());
        }
        // Acknowledged: from here on it must not be lost.
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{digest}").and_then(|()| out.flush()).is_err() {
            std::process::exit(0);
        }
    }
}

async fn store_one(
    store: &Arc<Store>,
    catalog: &Catalog,
    digest: Digest,
    content: Bytes,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut staged = Staged::create(store, ROOT_POOL, digest).await?;
    for at in (0..content.len()).step_by(PIECE) {
        staged.append(content.slice(at..content.len().min(at + PIECE))).await?;
    }
    let size = staged.commit(true).await?;
    let record = BlobRecord { digest, size, pool: ROOT_POOL, is_hosted: true, owner: NO_OWNER };
    let link = LinkRecord {
        scope: Scope { upstream: None, repository: RepositoryName::parse("durable/app")? },
        digest,
        media_type: None,
        linked_at: runtime::clock::unix_seconds(),
    };
    let changes = vec![Change::PutBlob { record, is_synced: true }, Change::PutLink(link)];
    catalog.write(changes, true).await?;
    Ok(())
}

/// Bytes that do not compress, of a size that the seed chooses too.
fn content(seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    let choice = next() as usize % SIZES.len();
    let size = SIZES.get(choice).copied().unwrap_or(1);
    let words = (0..size.div_ceil(8)).flat_map(|_| next().to_le_bytes());
    let mut bytes: Vec<u8> = words.collect();
    bytes.truncate(size);
    Bytes::from(bytes)
}

fn fail(error: &dyn std::fmt::Display) -> ! {
    eprintln!("durable_commit: {error}");
    std::process::exit(1);
}
