//! The index: what answers hits. A derived table of blobs, links and tags that any worker reads
//! without a lock and without touching the disk.
//!
//! This is its first form: concurrent hash tables in memory, filled from the catalog at start. It
//! stands behind the same seam as the memory-mapped table that will replace it.
//!
//! May import: `oci`.
//!
//! **Invariant:** the index is a hint. Files and catalog are the truth; whoever serves a hit
//! confirms it by opening the file and comparing its size, and forgets the entry otherwise.
//! **Invariant:** only `registry::commit` (and the load at start) writes entries that make content
//! visible, after the bytes are in place and the catalog knows them.
//!
//! Deliberately absent: eviction, persistence, anything that decides about freshness.

use std::sync::Arc;

use papaya::HashMap;

use crate::oci::{Digest, Scope, ScopeKey, Tag};

/// What a tag pointed at, and when that was learnt. All times are Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TagEntry {
    /// The manifest the tag is bound to.
    pub digest: Digest,
    /// When this binding was first fetched.
    pub fetched_at: u64,
    /// When the upstream last confirmed it.
    pub checked_at: u64,
    /// Not to be revalidated before this time, because the upstream failed or asked for it.
    pub retry_at: u64,
}

/// Proof that a repository holds some content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkEntry {
    /// Size of the content in bytes.
    pub size: u64,
    /// The media type a manifest was served with; `None` for blobs.
    pub media_type: Option<Arc<str>>,
    /// When the link was made, Unix seconds.
    pub linked_at: u64,
}

/// The tables. Shared by all workers.
#[derive(Default)]
pub struct Index {
    blobs: HashMap<Digest, u64>,
    links: HashMap<ScopeKey, LinkEntry>,
    tags: HashMap<ScopeKey, TagEntry>,
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

impl Index {
    /// An empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the tag is bound to, if known.
    pub fn tag(&self, scope: &Scope, tag: &Tag) -> Option<TagEntry> {
        self.tags.pin().get(&scope.tag_key(tag)).copied()
    }

    /// The link from the repository to the content, if there is one.
    pub fn link(&self, scope: &Scope, digest: &Digest) -> Option<LinkEntry> {
        self.links.pin().get(&scope.link_key(digest)).cloned()
    }

    /// The size of stored content, whoever linked it. Knowing it is no permission to serve it.
    pub fn blob(&self, digest: &Digest) -> Option<u64> {
        self.blobs.pin().get(digest).copied()
    }

    /// Binds a tag.
    pub fn insert_tag(&self, scope: &Scope, tag: &Tag, entry: TagEntry) {
        self.tags.pin().insert(scope.tag_key(tag), entry);
    }

    /// Forgets a tag.
    pub fn remove_tag(&self, scope: &Scope, tag: &Tag) {
        self.tags.pin().remove(&scope.tag_key(tag));
    }

    /// Makes content visible in a repository.
    pub fn insert_link(&self, scope: &Scope, digest: &Digest, entry: LinkEntry) {
        self.blobs.pin().insert(*digest, entry.size);
        self.links.pin().insert(scope.link_key(digest), entry);
    }

    /// Forgets stored content whose file turned out to be missing or damaged. Links stay: they
    /// are proof of access, not of presence.
    pub fn remove_blob(&self, digest: &Digest) {
        self.blobs.pin().remove(digest);
    }

    /// How full the tables are.
    pub fn counts(&self) -> IndexCounts {
        IndexCounts {
            blobs: self.blobs.pin().len(),
            links: self.links.pin().len(),
            tags: self.tags.pin().len(),
        }
    }
}
