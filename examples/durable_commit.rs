//! Stores made-up content durably, as a push does: bytes on disk, names in the catalog; some of it
//! is deleted again. What the crash tests cut short; it runs until it is killed, and ends with
//! status 1 when the disk fails or a deleted name comes back.
//!
//! `durable_commit ROOT SEED`: ROOT is a store that no process has open, SEED chooses the content.
//! Prints `there KIND NAME VALUE .` for what has been acknowledged, `gone KIND NAME - .` for what
//! has been deleted, and before a change of either `maybe KIND NAME - .`. The point tells that a
//! line was not cut off.
//!
//! `durable_commit names CATALOG`: prints `KIND NAME VALUE` for every name in a catalog that no
//! process has open, and ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "ends on any failure")]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ringport::catalog::{
    BlobRecord, Catalog, CatalogError, LinkRecord, Mark, NO_OWNER, Piece, ReferrerRecord,
    Subscriber, TagRecord, Tended, UploadId, UploadRecord, Write as Change,
};
use ringport::keeping::Keeping;
use ringport::oci::{Algorithm, Digest, RepositoryName, Scope, Tag};
use ringport::runtime::{self, BlockingPool};
use ringport::storage::{ROOT_POOL, Staged, Store};

/// Pieces being stored at a time, on each of two workers.
const WRITERS: u64 = 4;
/// Within a page, more than one, more than one read; never so few that two pieces are the same.
const SIZES: [usize; 7] = [8, 100, 4096, 10_000, 65_537, 300_000, 1 << 20];
/// Content arrives in pieces of this size.
const PIECE: usize = 64 << 10;
/// Each upload ends after so many changes, each third name is deleted.
const UPLOAD_CHANGES: u64 = 4;
const DELETE_EVERY: u64 = 3;
/// Records read at once.
const RECORDS: usize = 512;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(root), Some(seed)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: durable_commit ROOT SEED | durable_commit names CATALOG");
        std::process::exit(2);
    };
    if root == "names" {
        tell_names(Path::new(&seed)).unwrap_or_else(|error| fail(&error));
        return;
    }
    let seed: u64 = seed.parse().expect("a number as SEED");
    let (store, catalog) = open(Path::new(&root));
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

/// A name that was given, and may be deleted.
struct Named {
    link: LinkRecord,
    tag: TagRecord,
    referrer: ReferrerRecord,
}

async fn write_for_ever(store: Arc<Store>, catalog: Catalog, seed: u64) {
    let mut writing = Writing { store, catalog, seed, upload: None, last: None };
    for n in 0.. {
        if let Err(error) = writing.one(n).await {
            fail(error.as_ref());
        }
    }
}

/// One of the writers.
struct Writing {
    store: Arc<Store>,
    catalog: Catalog,
    seed: u64,
    upload: Option<UploadRecord>,
    last: Option<Named>,
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

impl Writing {
    async fn one(&mut self, n: u64) -> Outcome {
        let content = content(self.seed.wrapping_add(n));
        let digest = Digest::of(Algorithm::Sha256, &content);
        let blob = store_one(&self.store, digest, content).await?;
        let named = self.name(&blob, n)?;
        let upload = self.next_upload(n)?;
        let (tag, referrer) = (&named.tag, &named.referrer);
        let changes = vec![
            Change::PutBlob { record: blob, is_synced: true },
            Change::PutLink(named.link.clone()),
            Change::PutTag(tag.clone()),
            Change::PutReferrer(referrer.clone()),
            Change::PutUpload(upload.clone()),
        ];
        self.catalog.write(changes, true).await?;
        // Acknowledged: from here on it must not be lost.
        say("there", "content", digest, "-");
        say("there", "tag", &tag.tag, digest);
        say("there", "referrer", pair(referrer), "-");
        say("there", "upload", upload.id, upload.confirmed);
        if n % UPLOAD_CHANGES == UPLOAD_CHANGES - 1 {
            self.end_upload(upload.id).await?;
        }
        if n % DELETE_EVERY == DELETE_EVERY - 1
            && let Some(last) = self.last.take()
        {
            self.delete(last, n).await?;
        }
        self.last = Some(named);
        Ok(())
    }

    fn name(&self, blob: &BlobRecord, n: u64) -> Result<Named, Box<dyn std::error::Error>> {
        let (scope, now) = (scope()?, runtime::clock::unix_seconds());
        let digest = blob.digest;
        let tag = Tag::parse(&format!("t{:x}-{n}", self.seed))?;
        // The first refers to itself: what a subject is, nobody asks.
        let subject = self.last.as_ref().map_or(digest, |last| last.link.digest);
        Ok(Named {
            link: LinkRecord { scope: scope.clone(), digest, media_type: None, linked_at: now },
            tag: TagRecord { scope: scope.clone(), tag, digest, checked_at: now },
            referrer: ReferrerRecord {
                scope,
                subject,
                referrer: digest,
                artifact_type: Some("application/vnd.example.sbom".to_owned()),
                size: blob.size,
                media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
                annotations: Bytes::from_static(br#"{"made":"up"}"#),
            },
        })
    }

    /// The upload under way has come further, or there is a new one.
    fn next_upload(&mut self, n: u64) -> Result<UploadRecord, Box<dyn std::error::Error>> {
        let now = runtime::clock::unix_seconds();
        let upload = match self.upload.take() {
            Some(known) => {
                UploadRecord { last_active_at: now, confirmed: known.confirmed + n + 1, ..known }
            }
            None => UploadRecord {
                id: UploadId::random()?,
                scope: scope()?,
                owner: String::new(),
                started_at: now,
                last_active_at: now,
                confirmed: 0,
                pool: ROOT_POOL,
            },
        };
        self.upload = Some(upload.clone());
        Ok(upload)
    }

    async fn end_upload(&mut self, id: UploadId) -> Outcome {
        self.upload = None;
        say("maybe", "upload", id, "-");
        self.catalog.write(vec![Change::RemoveUpload(id)], true).await?;
        say("gone", "upload", id, "-");
        Ok(())
    }

    /// Deletes all names of a piece, whose file stays; the tag is sometimes pushed again.
    async fn delete(&mut self, named: Named, n: u64) -> Outcome {
        let Named { link, tag, referrer } = named;
        let before = self.catalog.moment();
        say("maybe", "content", link.digest, "-");
        say("maybe", "tag", &tag.tag, "-");
        say("maybe", "referrer", pair(&referrer), "-");
        let changes = vec![
            Change::RemoveLink(link.clone()),
            Change::RemoveTag(tag.clone()),
            Change::RemoveReferrer(referrer.clone()),
        ];
        self.catalog.write(changes, true).await?;
        say("gone", "content", link.digest, "-");
        say("gone", "tag", &tag.tag, "-");
        say("gone", "referrer", pair(&referrer), "-");
        // A push that began before the delete, and comes to its end only now.
        let late = vec![Change::PutTag(tag.clone()), Change::PutLink(link)];
        match self.catalog.write_unless_deleted(before, late).await {
            Err(CatalogError::Deleted { .. }) => {}
            other => return Err(format!("a late push after a delete: {other:?}").into()),
        }
        if n.is_multiple_of(2) {
            let digest = tag.digest;
            say("maybe", "tag", &tag.tag, "-");
            let again = vec![Change::PutTag(tag.clone())];
            self.catalog.write_unless_deleted(self.catalog.moment(), again).await?;
            say("there", "tag", &tag.tag, digest);
        }
        Ok(())
    }
}

fn scope() -> Result<Scope, Box<dyn std::error::Error>> {
    Ok(Scope { upstream: None, repository: RepositoryName::parse("durable/app")? })
}

fn pair(referrer: &ReferrerRecord) -> String {
    format!("{}/{}", referrer.subject, referrer.referrer)
}

fn say(state: &str, kind: &str, name: impl std::fmt::Display, value: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    let told = writeln!(out, "{state} {kind} {name} {value} .").and_then(|()| out.flush());
    if told.is_err() {
        std::process::exit(0);
    }
}

/// Stores the bytes, durably; nothing names them yet.
async fn store_one(
    store: &Arc<Store>,
    digest: Digest,
    content: Bytes,
) -> Result<BlobRecord, Box<dyn std::error::Error>> {
    let mut staged = Staged::create(store, ROOT_POOL, digest, 0).await?;
    for at in (0..content.len()).step_by(PIECE) {
        staged.append(content.slice(at..content.len().min(at + PIECE))).await?;
    }
    let size = staged.commit(true).await?;
    Ok(BlobRecord {
        digest,
        size,
        pool: ROOT_POOL,
        is_hosted: true,
        owner: NO_OWNER,
        keeping: Keeping::default(),
    })
}

/// Prints every name there is.
fn tell_names(path: &Path) -> Result<(), CatalogError> {
    let (catalog, _thread) = Catalog::open(path)?.start(Box::new(NoIndex))?;
    let mut subjects = Vec::new();
    each(
        |mark| catalog.scan_links(mark, RECORDS),
        |LinkRecord { digest, .. }| {
            println!("content {digest} -");
            subjects.push(digest);
        },
    )?;
    let scope = scope().unwrap_or_else(|error| fail(error.as_ref()));
    each(
        |mark| catalog.scan_tags_of(&scope, mark, RECORDS),
        |TagRecord { tag, digest, .. }| {
            println!("tag {tag} {digest}");
        },
    )?;
    each(
        |mark| catalog.scan_tombstones(mark, RECORDS),
        |tombstone| {
            println!("tombstone {} -", tombstone.name);
            subjects.extend(tombstone.name.as_digest());
        },
    )?;
    each(
        |mark| catalog.scan_uploads(mark, RECORDS),
        |UploadRecord { id, confirmed, .. }| {
            println!("upload {id} {confirmed}");
        },
    )?;
    for subject in subjects {
        each(
            |mark| catalog.referrers_now(&scope, &subject, mark, RECORDS),
            |referrer| println!("referrer {} -", pair(&referrer)),
        )?;
    }
    Ok(())
}

/// Walks to the end; a damaged record is a failure.
fn each<T>(
    scan: impl Fn(Option<&Mark>) -> Result<Piece<T>, CatalogError>,
    mut tell: impl FnMut(T),
) -> Result<(), CatalogError> {
    let mut after = None;
    loop {
        let Piece { records, damaged, next } = scan(after.as_ref())?;
        if let Some(error) = damaged.into_iter().next() {
            return Err(error);
        }
        records.into_iter().for_each(&mut tell);
        after = next;
        if after.is_none() {
            return Ok(());
        }
    }
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
