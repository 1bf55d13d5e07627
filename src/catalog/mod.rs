//! The catalog: durable names (tags and links) in redb, on a thread of their own.
//!
//! May import: `oci`, `runtime::clock`.
//!
//! **Invariant:** only this module knows redb, and only the catalog thread touches the database;
//! everybody else sends it [`Write`]s and awaits the answer.
//! **Invariant:** writes are applied in the order they were sent, many in one transaction. A write
//! that asks for durability is answered after its transaction is on disk; others are answered
//! when they are applied, and reach the disk within [`FLUSH_INTERVAL`] or at a clean stop.
//! **Invariant:** the canonical upstream is part of every key; the empty upstream is ourselves.
//!
//! Deliberately absent: bytes of content (files hold them), look-ups at request time (the index
//! answers those).

mod record;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_channel::oneshot;

pub use record::{LinkRecord, TagRecord};
use writer::{Health, Message, Writer};

/// How long a write that did not ask for durability may stay in memory only.
pub const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

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
    /// A record could not be read back.
    #[error("the catalog record {key} is damaged: {cause}")]
    Record {
        /// Its key.
        key: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The catalog thread has ended.
    #[error("the catalog is closed")]
    Closed,
}

/// One change of names.
#[derive(Debug, Clone)]
pub enum Write {
    /// Bind a tag.
    PutTag(TagRecord),
    /// Forget a tag.
    RemoveTag(TagRecord),
    /// Link content into a repository.
    PutLink(LinkRecord),
}

/// The sending side of the catalog. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    // Every message belongs to a live request or fill, whose numbers are limited elsewhere.
    messages: crossbeam_channel::Sender<Message>,
    health: Arc<Health>,
}

/// What is read at start, one record at a time.
pub struct Loaded {
    /// All tags.
    pub tags: Vec<TagRecord>,
    /// All links.
    pub links: Vec<LinkRecord>,
    /// Records that could not be read and were skipped.
    pub damaged: Vec<CatalogError>,
}

impl Catalog {
    /// Opens or creates the database file, reads all names, and starts the thread. `progress` is
    /// told how many records have been read, every few thousand.
    ///
    /// # Errors
    /// The file cannot be opened, is locked by another process, or no thread can be started.
    pub fn open(
        path: &Path,
        progress: impl FnMut(u64),
    ) -> Result<(Self, Loaded, JoinHandle<()>), CatalogError> {
        let open_error = |cause: String| CatalogError::Open { path: path.to_owned(), cause };
        let health = Arc::<Health>::default();
        let writer = Writer::open(path, health.clone()).map_err(&open_error)?;
        let loaded = writer.load(progress)?;
        let (messages, queue) = crossbeam_channel::unbounded();
        let handle = std::thread::Builder::new()
            .name("catalog".into())
            .spawn(move || writer.run(&queue))
            .map_err(|error| open_error(error.to_string()))?;
        Ok((Self { messages, health }, loaded, handle))
    }

    /// Applies `writes` together, in order. With `durable` they are on disk when this returns.
    ///
    /// # Errors
    /// Nothing of `writes` was kept.
    pub async fn write(&self, writes: Vec<Write>, durable: bool) -> Result<(), CatalogError> {
        let (answer, result) = oneshot::channel();
        self.messages
            .send(Message::Apply { writes, durable, answer })
            .map_err(|_| CatalogError::Closed)?;
        result.await.unwrap_or(Err(CatalogError::Closed))
    }

    /// Whether the last write failed. The thread tries again with each write and every
    /// [`FLUSH_INTERVAL`].
    pub fn is_failing(&self) -> bool {
        self.health.is_failing()
    }

    /// Asks the thread to make everything durable and to end. Join its handle afterwards.
    pub fn close(&self) {
        // A thread that has ended already needs no asking.
        let _ = self.messages.send(Message::Close);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
