//! The catalog: durable names in redb, written by a thread of their own. Blobs, links and tags, and
//! for hosted content referrers, upload sessions and tombstones; beside them upstreams' lists.
//!
//! May import: `oci`, `keeping`, `limits`, `runtime`.
//!
//! **Invariant:** only this module knows redb, and only the catalog thread writes; everybody else
//! sends it [`Write`]s and awaits the answer. Look-ups read snapshots on the blocking pool.
//! **Invariant:** writes are applied in the order they were sent, many in one transaction. A write
//! that asks for durability is answered after its transaction is on disk; others are answered
//! when they are applied, and reach the disk within [`FLUSH_INTERVAL`] or at a clean stop.
//! **Invariant:** the [`Subscriber`] (the index) is told of each write after it was applied and
//! before it is answered. It is told by this thread alone: that makes it the index's only writer.
//! **Invariant:** commits are numbered; the subscriber learns the number of each group after it was
//! told all of it, so that an index which outlived its process can say what it has seen.
//! **Invariant:** the canonical upstream is part of every key; the empty upstream is ourselves.
//! **Invariant:** a hosted tag or link that is removed leaves a tombstone in the same transaction,
//! until it is put again or [`TOMBSTONE_SECONDS`] have passed; see [`TombstoneRecord`].
//! **Invariant:** which tags are bound to hosted content, and how much a hosted repository holds, is
//! changed in the transaction that changes the tag or link. A [`Condition`] is judged there, too: no two
//! pushes see a limit or a tag as it was before the other.
//!
//! Deliberately absent: bytes of content (files hold them), decisions about freshness or space.

mod apply;
mod conditions;
mod database;
mod hosted;
mod hosted_names;
mod lists;
mod lookup;
mod numbers;
mod older;
mod rebuild;
mod record;
mod scan;
mod scan_hosted;
mod usage;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures_channel::oneshot;

pub use conditions::{Condition, Unmet};
use database::Shared;
pub use hosted::{
    REFERRER_BYTES_MAX, ReferrerRecord, TOMBSTONE_SECONDS, TombstoneRecord, UploadId, UploadRecord,
};
pub use hosted_names::{Holding, Page};
pub use lists::{LIST_BYTES_MAX, LISTS_BYTES_MAX, ListRecord};
pub use numbers::PoolRecord;
pub use record::{BlobAt, BlobRecord, LinkRecord, NO_OWNER, TagRecord};
pub use scan::{Mark, Piece};
pub use usage::Usage;
use writer::{Asked, Message, Writer};

use crate::oci::{Digest, Scope};
use crate::runtime::start_service;

/// How long a write that did not ask for durability may stay in memory only.
pub const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// Offers that may wait for the thread; those over it are dropped, and made again by the next who
/// reads the content.
const OFFERS_MAX: usize = 256;

/// What went wrong with the catalog.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CatalogError {
    /// The database could not be opened or created.
    #[error(
        "cannot open the catalog {path}: {cause}; \
         is another ringport using this store, or does the file come from a newer version?"
    )]
    Open {
        /// The database file.
        path: PathBuf,
        /// What redb said.
        cause: String,
    },
    /// A transaction failed; nothing of it was kept.
    #[error("the catalog did not take a write: {cause}; check the disk that holds the store")]
    Write {
        /// What redb said.
        cause: String,
    },
    /// There is no number left.
    #[error(
        "the catalog has given out all {given} numbers that there are for {what}, and none is used \
         twice; start with a new [storage] root"
    )]
    NoNumber {
        /// For what.
        what: &'static str,
        /// How many there were.
        given: usize,
    },
    /// A record could not be read back.
    #[error("the catalog record {key} is damaged: {cause}")]
    Record {
        /// Its key.
        key: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A name was deleted after the work that would put it had begun.
    #[error("{key} was deleted while this was under way, and stays so; push it again")]
    Deleted {
        /// The name and its repository.
        key: String,
    },
    /// What the work asked for is not so.
    #[error(transparent)]
    Unmet(#[from] Unmet),
    /// A record that no catalog keeps.
    #[error("the catalog does not take {key}: {cause}")]
    Refused {
        /// Its key.
        key: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The catalog thread has ended, or the database is being opened again after a failure.
    #[error("the catalog is closed")]
    Closed,
}

/// One change of names.
#[derive(Debug, Clone)]
pub enum Write {
    /// Content is in the store. With `is_synced` its bytes are on the disk. Cached content never
    /// takes the place of hosted content.
    PutBlob {
        /// The content.
        record: BlobRecord,
        /// Whether its bytes are durable already.
        is_synced: bool,
    },
    /// Content leaves the store, if its record is still this one.
    RemoveBlob(BlobAt),
    /// Hosted content that only upstreams' repositories link is cached from now on, if its record
    /// is still this one.
    HandToCache(BlobAt),
    /// The bytes of this content are on the disk now, and right if they were doubtful; those that
    /// were put by then, before the disk was synced.
    Synced {
        /// The content.
        digest: Digest,
        /// [`Catalog::moment`] before the sync began.
        until: Moment,
    },
    /// Bind a tag.
    PutTag(TagRecord),
    /// Forget a tag.
    RemoveTag(TagRecord),
    /// Link content into a repository.
    PutLink(LinkRecord),
    /// Content that is linked is in use at this time; of the record only key and time count. Refused
    /// like a put if the link was deleted meanwhile, without effect if it is not there.
    TouchLink(LinkRecord),
    /// Forget a link.
    RemoveLink(LinkRecord),
    /// A hosted manifest names a subject.
    PutReferrer(ReferrerRecord),
    /// The manifest is gone; only the key of the record counts.
    RemoveReferrer(ReferrerRecord),
    /// An upload has begun, or has come further.
    PutUpload(UploadRecord),
    /// An upload was finished, cancelled, or has expired.
    RemoveUpload(UploadId),
    /// An upstream's list has come, or was confirmed.
    PutList(ListRecord),
    /// Forget a list, unless it has been confirmed since.
    RemoveList {
        /// The repository that it is about.
        scope: Scope,
        /// Which.
        name: String,
        /// When it was last confirmed, Unix seconds.
        checked_at: u64,
    },
    /// Forget that a name was deleted, unless it was deleted again since the record was read.
    RemoveTombstone(TombstoneRecord),
}

/// What became of a [`Write`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// Whether it was applied. Only writes of content may not be: then its record is the one before.
    pub is_applied: bool,
    /// The record of the same content before; `None` for all other writes.
    pub before: Option<BlobRecord>,
}

/// A point in the order of commits, within the life of this process: see [`Catalog::moment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(u64);

/// Who is told of writes: the index.
pub trait Subscriber: Send {
    /// This is so: a write was applied, or one that was not has met this instead.
    fn applied(&mut self, write: &Write);
    /// The catalog could not take a write that concerns cached content, and it is true all the
    /// same, as far as nothing is known against it.
    fn unkept(&mut self, write: &Write) {
        self.applied(write);
    }
    /// Everything up to this commit was told.
    fn group(&mut self, number: u64);
    /// Small content that somebody has read and verified, to be kept at hand.
    fn offered(&mut self, digest: &Digest, content: &[u8]);
    /// Every record of the catalog has been told since the last [`Catalog::rebuild`] or
    /// [`Tended::Rebuild`].
    fn rebuilt(&mut self);
    /// Time for a short piece of work of its own, a millisecond or so. Called after each group,
    /// once a minute when there is none, and again at once while it says [`Tended::Busy`].
    fn tend(&mut self) -> Tended;
    /// The catalog closes; nothing more will be told.
    fn closed(&mut self);
}

/// What [`Subscriber::tend`] wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tended {
    /// Nothing before the next write, or the next minute.
    Idle,
    /// More of the same, as soon as waiting writes have been served.
    Busy,
    /// To be told the whole catalog again.
    Rebuild,
}

/// What was found when the catalog was opened.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Sixteen random bytes that name this store for its whole life.
    pub store_id: [u8; 16],
    /// The last process ended in good order, or on this same boot of the machine: whatever was
    /// written is still in the page cache or on the disk.
    pub is_intact: bool,
    /// Content that was not synced at a power cut and has not been checked since.
    pub suspects: Vec<Digest>,
    /// The number of the last commit; 0 in a new catalog.
    pub group: u64,
    /// Blobs, links and tags together.
    pub records: u64,
}

/// The catalog, to be started with [`Unstarted::start`] after its subscriber has been made.
pub struct Unstarted {
    shared: Arc<Shared>,
    opened: Opened,
}

/// The sending side of the catalog. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    // Every message belongs to a live request or fill, whose numbers are limited elsewhere.
    messages: crossbeam_channel::Sender<Message>,
    offers: Arc<AtomicUsize>,
    shared: Arc<Shared>,
}

impl Catalog {
    /// Opens or creates the database file and marks the store as in use. Blocks.
    ///
    /// # Errors
    /// The file cannot be opened or is locked by another process.
    pub fn open(path: &Path) -> Result<Unstarted, CatalogError> {
        let (shared, opened) = Shared::open(path)?;
        Ok(Unstarted { shared: Arc::new(shared), opened })
    }

    /// Applies `writes` together, in order. With `durable` they are on disk when this returns.
    ///
    /// # Errors
    /// The catalog kept nothing of `writes`. Without `durable` they were told to the subscriber
    /// all the same: they concern cached content, and are true until the process ends.
    pub async fn write(&self, writes: Vec<Write>, durable: bool) -> Result<(), CatalogError> {
        self.write_told(writes, durable).await.map(drop)
    }

    /// The same, and what became of each of them, in order.
    ///
    /// # Errors
    /// As [`Catalog::write`].
    pub async fn write_told(
        &self,
        writes: Vec<Write>,
        durable: bool,
    ) -> Result<Vec<Effect>, CatalogError> {
        self.send(writes, (None, Vec::new()), durable)?.await.unwrap_or(Err(CatalogError::Closed))
    }

    /// Now. For [`Catalog::write_unless_deleted`] to be asked before the first look at a name
    /// that is to be put, by a push when its last request begins; for [`Write::Synced`] before the
    /// sync.
    pub fn moment(&self) -> Moment {
        self.shared.moment()
    }

    /// Applies `writes` durably as [`Catalog::write`] does, unless a hosted tag or link that they
    /// put was deleted after `since`: then none of them. A name that was deleted and put again by
    /// somebody else is there, and no reason to refuse. Tells what became of each, in order.
    ///
    /// # Errors
    /// [`CatalogError::Deleted`], or the catalog failed; it kept nothing of `writes`.
    pub async fn write_unless_deleted(
        &self,
        since: Moment,
        writes: Vec<Write>,
    ) -> Result<Vec<Effect>, CatalogError> {
        self.write_if(since, Vec::new(), writes).await
    }

    /// The same, and only if all `conditions` hold when it is applied.
    ///
    /// # Errors
    /// As before, and [`CatalogError::Unmet`].
    pub async fn write_if(
        &self,
        since: Moment,
        conditions: Vec<Condition>,
        writes: Vec<Write>,
    ) -> Result<Vec<Effect>, CatalogError> {
        let sent = self.send(writes, (Some(since), conditions), true)?;
        sent.await.unwrap_or(Err(CatalogError::Closed))
    }

    fn send(
        &self,
        writes: Vec<Write>,
        (since, conditions): (Option<Moment>, Vec<Condition>),
        durable: bool,
    ) -> Result<oneshot::Receiver<Result<Vec<Effect>, CatalogError>>, CatalogError> {
        for write in &writes {
            match write {
                Write::PutReferrer(record) => record.check()?,
                Write::PutList(record) => record.check()?,
                _ => {}
            }
        }
        let (answer, result) = oneshot::channel();
        let asked = Asked { writes, since, conditions, durable, answer };
        self.messages.send(Message::Apply(asked)).map_err(|_| CatalogError::Closed)?;
        Ok(result)
    }

    /// The same without waiting, for what nobody waits for.
    pub fn write_soon(&self, writes: Vec<Write>) {
        if !writes.is_empty() {
            // A closed catalog needs no names any more.
            let _ = self.send(writes, (None, Vec::new()), false);
        }
    }

    /// Offers small content to the subscriber, if it has the time. The caller has verified that
    /// the bytes are what the digest promises.
    pub fn offer(&self, digest: Digest, content: Bytes) {
        if self.offers.fetch_add(1, Ordering::Relaxed) >= OFFERS_MAX {
            self.offers.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        // A closed catalog needs nothing any more.
        let _ = self.messages.send(Message::Offer { digest, content });
    }

    /// Asks the thread to tell the subscriber every record, in pieces between writes.
    pub fn rebuild(&self) {
        let _ = self.messages.send(Message::Rebuild);
    }

    /// Whether the last write failed. The thread tries again with each write and every
    /// [`FLUSH_INTERVAL`].
    pub fn is_failing(&self) -> bool {
        self.shared.is_failing()
    }

    /// The same from a thread that may wait.
    ///
    /// # Errors
    /// As [`Catalog::write`].
    pub fn write_blocking(&self, writes: Vec<Write>, durable: bool) -> Result<(), CatalogError> {
        pollster::block_on(self.write(writes, durable))
    }

    /// [`Catalog::write_told`] from a thread that may wait.
    ///
    /// # Errors
    /// As [`Catalog::write`].
    pub fn write_told_blocking(
        &self,
        writes: Vec<Write>,
        durable: bool,
    ) -> Result<Vec<Effect>, CatalogError> {
        pollster::block_on(self.write_told(writes, durable))
    }

    /// Asks the thread to make everything durable and to end. Join its handle afterwards. With
    /// `in_order` the next start trusts all content: say so only when every byte of it is on the
    /// disk.
    pub fn close(&self, in_order: bool) {
        self.close_after(move || in_order);
    }

    /// The same, asking for the order when nothing more is taken: `sync` makes every byte durable,
    /// on the catalog's thread, and says whether it could. What comes into place after it has no
    /// name, so nobody vouches for it.
    pub fn close_after(&self, sync: impl FnOnce() -> bool + Send + 'static) {
        // A thread that has ended already needs no asking.
        let _ = self.messages.send(Message::Close(Box::new(sync)));
    }
}

impl Unstarted {
    /// What was found.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system refused it.
    pub fn start(
        self,
        subscriber: Box<dyn Subscriber>,
    ) -> Result<(Catalog, JoinHandle<()>), CatalogError> {
        let (messages, queue) = crossbeam_channel::unbounded();
        let offers = Arc::<AtomicUsize>::default();
        let writer = Writer::new(self.shared.clone(), offers.clone(), subscriber);
        let handle = start_service("catalog", move || writer.run(&queue))
            .map_err(|error| CatalogError::Write { cause: error.to_string() })?;
        Ok((Catalog { messages, offers, shared: self.shared }, handle))
    }
}

fn failed(error: impl std::fmt::Display) -> CatalogError {
    CatalogError::Write { cause: error.to_string() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
