//! The index: what answers hits. A table of blobs, links and tags in mapped memory that any worker
//! reads without a lock or a system call, and a ring of small contents beside it.
//!
//! The bytes are specified in FORMAT.md. The way down: [`Index`] (look-ups, `reader`) and
//! [`IndexWriter`] (changes, `writer`) -> `generation` (one table file) and `small` (the ring) ->
//! `table` (which slot) -> `protocol` (memory orders) and `layout` (bytes) -> `file` (header,
//! recognition) -> `map` and `sigbus` (the only `unsafe`).
//!
//! May import: `oci`, `keeping`. One door: `memmap2` only in `map`, the signal only in `sigbus`.
//!
//! **Invariant:** the index is a hint. Files and catalog are the truth; whoever serves a hit
//! confirms it by opening the file and comparing its size, and forgets the entry otherwise. No
//! acknowledgement waits for the index, and none is given because of it.
//! **Invariant:** one writer (the catalog's thread) after the catalog knows; readers never store to
//! a file's map. What they note of uses stays in the memory of the process, and the writer puts it
//! into the file, about once a minute.
//! **Invariant:** a look-up gives what was put, or none. A torn, damaged, foreign or misplaced slot
//! never answers. [`Lookup::Miss`] is only said when everything known to be stored is in here.
//! **Invariant:** recovery is binary: a file is believed whole or dropped and filled again.
//! **Invariant:** no number read from a file is used before it is bounded; nothing here panics.
//!
//! A large table is filled in memory and then put into its file at once: entries come to it at
//! random, so that the kernel would write each of its pages back again and again meanwhile.
//!
//! A look-up takes no lock and makes no system call, but it reads a map of a file. After a start
//! `warm` reads all of it into memory; before it is there, and where the machine is so short of
//! memory that the kernel drops pages of it again, a look-up waits for the disk to read one page
//! (4 KiB, or some around it), and its worker with it.
//!
//! Deliberately absent: repair, growing in place, pointers in files, eviction policy, freshness.

mod file;
mod generation;
mod layout;
mod map;
mod media;
mod protocol;
mod reader;
mod recovery;
mod sigbus;
mod small;
mod table;
mod warm;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;

use crate::keeping::Keeping;
use crate::oci::Digest;

pub use reader::{Index, SmallAt, View};
pub use writer::IndexWriter;

/// Largest content that is kept in the ring, in bytes. Manifests and indexes are mostly 0.5 to
/// 20 KiB and image configs 2 to 30 KiB, so that nearly all of them fit; and a ring of 64 MiB still
/// holds 2,000 of the largest. Copying 32 KiB out costs less than opening a file.
pub const SMALL_BYTES_MAX: usize = 32 * 1024;

/// Where the index lies and how large it is.
#[derive(Debug, Clone)]
pub struct IndexOptions {
    /// Its folder, made if missing. Nothing else may be kept there.
    pub folder: PathBuf,
    /// The random id of the store, kept in the catalog. It keys the hash, too: whoever knows it can
    /// make content that fills one bucket, so it is not published.
    pub store_id: [u8; 16],
    /// Fewest slots. A slot takes 64 bytes, with all around it 70; ask for 1.4 times the
    /// entries expected (one for each blob, link and tag).
    pub slots_min: u64,
    /// Bytes for small contents; 0 for none, else at least 256 KiB are taken.
    pub small_bytes: u64,
}

impl IndexOptions {
    /// For a store in which about this many blobs are expected: three slots for each (for itself,
    /// a link and some tags, a third left free) and 1 KiB in the ring (every fourth or so is a
    /// manifest or a config, of a few KiB), within bounds: 65,536 slots (4.5 MiB) and 8 MiB at
    /// least, a ring of 1 GiB at most. More entries come in with a larger generation, see
    /// [`IndexWriter::needs_growth`]; the ring keeps its size.
    pub fn sized(folder: PathBuf, store_id: [u8; 16], blobs_expected: u64) -> Self {
        Self {
            folder,
            store_id,
            slots_min: blobs_expected.saturating_mul(3).max(1 << 16),
            small_bytes: blobs_expected.saturating_mul(1024).clamp(8 << 20, 1 << 30),
        }
    }
}

/// What came of opening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// The table of an earlier process is in use.
    Trusted {
        /// Whether that process had closed it. If not, it was killed: every entry is one that was
        /// put, but the last changes may be missing, removals among them, and [`Index::may_miss`]
        /// holds until [`IndexWriter::rebuilt`].
        clean: bool,
        /// What was last given to [`IndexWriter::set_applied`]; 0 for nothing. If the catalog
        /// stands at the same group, nothing is missing.
        applied: u64,
    },
    /// It is empty; the catalog has to be put into it.
    Rebuild {
        /// Why an earlier table, if any, was dropped. A sentence.
        why: String,
    },
}

/// Why there is no index, or no larger one.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The folder could not be made or read.
    #[error("the index folder {path} cannot be used: {source}; check owner, mode and free space")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file could not be made, nor memory instead of it.
    #[error("the index file {path} cannot be made: {source}; free space, or ask for fewer slots")]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It could not be put on disk at the end; the next start fills a new one.
    #[error("the index file {path} was not closed: {source}; it will be rebuilt at the next start")]
    Close {
        /// The folder of the file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The answer of a look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup<T> {
    /// The entry.
    Hit(T),
    /// There is none, and nothing is known to be missing here. Damage that leaves zeros behind
    /// cannot be told from "none": who would deny hosted content asks the catalog all the same.
    Miss,
    /// Not known here: ask the catalog. The index is being filled, or lost something, or the
    /// writer was in the way, or the value does not fit a slot.
    Unsure,
}

impl<T> Lookup<T> {
    /// The entry, if there is one.
    pub fn hit(self) -> Option<T> {
        match self {
            Self::Hit(entry) => Some(entry),
            Self::Miss | Self::Unsure => None,
        }
    }

    /// The same of another kind.
    pub fn map<U>(self, to: impl FnOnce(T) -> U) -> Lookup<U> {
        match self {
            Self::Hit(entry) => Lookup::Hit(to(entry)),
            Self::Miss => Lookup::Miss,
            Self::Unsure => Lookup::Unsure,
        }
    }

    fn and_then<U>(self, then: impl FnOnce(T) -> Option<U>) -> Lookup<U> {
        match self {
            Self::Hit(entry) => then(entry).map_or(Lookup::Unsure, Lookup::Hit),
            Self::Miss => Lookup::Miss,
            Self::Unsure => Lookup::Unsure,
        }
    }
}

/// Stored content, whoever linked it. Knowing it is no permission to serve it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobEntry {
    /// Size in bytes.
    pub size: u64,
    /// The disk it lies on.
    pub pool: u8,
    /// Who brought it, as the catalog numbers them; 0 for nobody who is known.
    pub owner: u16,
    /// Whether it is hosted: then it is never evicted.
    pub is_hosted: bool,
    /// On which terms it is kept otherwise. Its expiry is held in 32 bits, which ends in 2106.
    pub keeping: Keeping,
}

/// Proof that a repository holds some content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkEntry {
    /// The media type a manifest was served with; `None` for blobs.
    pub media_type: Option<Arc<str>>,
    /// When the link was made, Unix seconds.
    pub linked_at: u64,
}

/// What a tag points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TagEntry {
    /// The manifest the tag is bound to.
    pub digest: Digest,
    /// When the upstream last confirmed it, Unix seconds. Kept in 32 bits, which ends in 2106.
    pub checked_at: u64,
}

/// How many entries the index holds. Hints: a killed process can leave them off by a few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexCounts {
    /// Stored contents.
    pub blobs: u64,
    /// Repository to content links.
    pub links: u64,
    /// Tags.
    pub tags: u64,
    /// Bytes of the contents that are not hosted: what an eviction could free. After `kill -9` the
    /// change that was under way may be missing.
    pub cached_bytes: u64,
    /// As many of them as are pinned, whether or not that has expired.
    pub pinned_bytes: u64,
    /// Slots for all of them.
    pub slots: u64,
}

/// A blob chosen at random, for eviction to judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The first 32 bytes of its digest.
    pub prefix: [u8; 32],
    /// Its digest, where 32 bytes are the whole of it. A SHA-512 is found in the catalog by its
    /// prefix.
    pub digest: Option<Digest>,
    /// What is known about it.
    pub entry: BlobEntry,
    /// When it was last used, in minutes since 1970. A hint.
    pub last_use_minute: u64,
    /// How often it was used, as [`counted`] counts; 0 to 4095. A hint.
    pub hits: u32,
}

/// The count of uses after one more at `now_minute`: halved at the end of each day, so that what was
/// popular long ago does not stay for ever. One use a minute is counted, so a count stays below
/// 2,881. Both minutes since 1970.
pub fn counted(hits: u32, last_use_minute: u32, now_minute: u32) -> u32 {
    const DAY: u32 = 24 * 60;
    if now_minute == last_use_minute {
        return hits.max(1);
    }
    let days = (now_minute / DAY).abs_diff(last_use_minute / DAY);
    hits.checked_shr(days).unwrap_or(0).saturating_add(1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
