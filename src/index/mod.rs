//! The index: what answers hits. A derived table of blobs, links and tags that any worker reads
//! without a lock and without touching the disk.
//!
//! This is its first form: concurrent hash tables in memory, filled from the catalog. It stands
//! behind the same seam as the memory-mapped table that will replace it.
//!
//! May import: `oci`.
//!
//! **Invariant:** the index is a hint. Files and catalog are the truth; whoever serves a hit
//! confirms it by opening the file and comparing its size, and forgets the entry otherwise.
//! **Invariant:** there is one [`IndexWriter`], and the catalog thread owns it: entries appear
//! after the bytes are in place and the catalog knows them.
//!
//! Deliberately absent: eviction, persistence, anything that decides about freshness.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use papaya::HashMap;

use crate::oci::{Digest, Scope, ScopeKey, Tag};

/// Stored content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobEntry {
    /// Its size in bytes.
    pub size: u64,
    /// The pool that holds its file.
    pub pool: u8,
    /// Whether it is ours: never evicted.
    pub is_hosted: bool,
}

/// What a tag points at. Times are Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TagEntry {
    /// The manifest the tag is bound to.
    pub digest: Digest,
    /// When the upstream last confirmed it.
    pub checked_at: u64,
}

/// Proof that a repository holds some content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkEntry {
    /// The media type a manifest was served with; `None` for blobs.
    pub media_type: Option<Arc<str>>,
    /// When the link was made, Unix seconds.
    pub linked_at: u64,
}

/// How many entries the index holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexCounts {
    /// Stored contents.
    pub blobs: usize,
    /// Repository to content links.
    pub links: usize,
    /// Tags.
    pub tags: usize,
}

#[derive(Default)]
struct Tables {
    blobs: HashMap<Digest, BlobEntry>,
    links: HashMap<ScopeKey, LinkEntry>,
    tags: HashMap<ScopeKey, TagEntry>,
    uses: HashMap<Digest, (u32, u32)>,
    // To draw from. Locked by the catalog thread and by the one that makes room, never by a worker.
    order: Mutex<Vec<Digest>>,
    complete: AtomicBool,
}

/// Stored content that was drawn at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampled {
    /// Which.
    pub digest: Digest,
    /// What is stored.
    pub entry: BlobEntry,
    /// When it was last used, in [`Index::minute`]s.
    pub last_use_minute: u32,
    /// How often it was used, saturating.
    pub hits: u32,
}

/// The count of uses after one more at `now_minute`: halved at the end of each day, so that what was
/// popular long ago does not stay for ever. One use a minute is counted.
pub fn counted(hits: u32, last_use_minute: u32, now_minute: u32) -> u32 {
    const DAY: u32 = 24 * 60;
    if now_minute == last_use_minute {
        return hits.max(1);
    }
    let days = (now_minute / DAY).abs_diff(last_use_minute / DAY);
    hits.checked_shr(days).unwrap_or(0).saturating_add(1)
}

/// The reading side. Shared by all workers.
pub struct Index(Arc<Tables>);

/// The writing side. There is one.
pub struct IndexWriter(Arc<Tables>);

impl Index {
    /// An empty index that is to be filled from the catalog.
    pub fn open() -> (Arc<Self>, IndexWriter) {
        let tables = Arc::<Tables>::default();
        (Arc::new(Self(tables.clone())), IndexWriter(tables))
    }

    /// What the tag is bound to, if known.
    pub fn tag(&self, scope: &Scope, tag: &Tag) -> Option<TagEntry> {
        self.0.tags.pin().get(&scope.tag_key(tag)).copied()
    }

    /// The link from the repository to the content, if there is one.
    pub fn link(&self, scope: &Scope, digest: &Digest) -> Option<LinkEntry> {
        self.0.links.pin().get(&scope.link_key(digest)).cloned()
    }

    /// Stored content, whoever linked it. Knowing it is no permission to serve it.
    pub fn blob(&self, digest: &Digest) -> Option<BlobEntry> {
        self.0.blobs.pin().get(digest).copied()
    }

    /// Now, in the minutes that uses are noted in.
    pub fn minute(&self) -> u32 {
        let seconds = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        u32::try_from(seconds / 60).unwrap_or(u32::MAX)
    }

    /// Notes a use of stored content.
    pub fn touch(&self, digest: &Digest) {
        let minute = self.minute();
        let uses = self.0.uses.pin();
        if uses.get(digest).is_some_and(|&(last, _)| last == minute) {
            // Counted already; most hits of a wave write nothing.
            return;
        }
        let next = |&(last, hits): &(u32, u32)| (minute, counted(hits, last, minute));
        uses.update_or_insert(*digest, next, (minute, 1));
    }

    /// Stored content drawn by a random number; `None` when it hit nothing.
    pub fn sample(&self, random: u64) -> Option<Sampled> {
        let digest = {
            let mut order = self.0.order.lock().unwrap_or_else(PoisonError::into_inner);
            let nth = usize::try_from(random % (order.len().max(1) as u64)).ok()?;
            let digest = *order.get(nth)?;
            if !self.0.blobs.pin().contains_key(&digest) {
                // It has left the store since; its place is cleared now that somebody looks.
                order.swap_remove(nth);
                return None;
            }
            digest
        };
        let entry = self.0.blobs.pin().get(&digest).copied()?;
        let (last_use_minute, hits) = self.0.uses.pin().get(&digest).copied().unwrap_or((0, 0));
        Some(Sampled { digest, entry, last_use_minute, hits })
    }

    /// Whether something may be in the catalog that is not in here: a miss then proves nothing.
    pub fn may_miss(&self) -> bool {
        !self.0.complete.load(Ordering::Acquire)
    }

    /// How full the tables are.
    pub fn counts(&self) -> IndexCounts {
        let Tables { blobs, links, tags, .. } = &*self.0;
        IndexCounts { blobs: blobs.pin().len(), links: links.pin().len(), tags: tags.pin().len() }
    }
}

impl IndexWriter {
    /// Stored content becomes visible.
    pub fn put_blob(&mut self, digest: &Digest, entry: &BlobEntry) {
        if self.0.blobs.pin().insert(*digest, *entry).is_none() {
            self.0.order.lock().unwrap_or_else(PoisonError::into_inner).push(*digest);
        }
    }

    /// Content has left the store, or its file turned out to be missing or damaged.
    pub fn remove_blob(&mut self, digest: &Digest) {
        self.0.blobs.pin().remove(digest);
        self.0.uses.pin().remove(digest);
    }

    /// Content becomes visible in a repository.
    pub fn put_link(&mut self, scope: &Scope, digest: &Digest, entry: &LinkEntry) {
        self.0.links.pin().insert(scope.link_key(digest), entry.clone());
    }

    /// Forgets a link.
    pub fn remove_link(&mut self, scope: &Scope, digest: &Digest) {
        self.0.links.pin().remove(&scope.link_key(digest));
    }

    /// Binds a tag.
    pub fn put_tag(&mut self, scope: &Scope, tag: &Tag, entry: &TagEntry) {
        self.0.tags.pin().insert(scope.tag_key(tag), *entry);
    }

    /// Forgets a tag.
    pub fn remove_tag(&mut self, scope: &Scope, tag: &Tag) {
        self.0.tags.pin().remove(&scope.tag_key(tag));
    }

    /// Everything in the catalog has been put in here.
    pub fn rebuilt(&mut self) {
        self.0.complete.store(true, Ordering::Release);
    }
}
