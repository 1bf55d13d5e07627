//! From the page cache to the disk, and what to make of content after a power cut.
//!
//! Fills skip fsync: cached content can be fetched again. The catalog notes each as unsynced; a
//! thread syncs the whole file system every few seconds and clears the notes of what was there
//! before. After a power cut the noted content is suspect and is hashed before its first use.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use papaya::HashSet;

use super::PullError;
use super::state::{Registry, Shared};
use crate::catalog::{Catalog, Write};
use crate::oci::Digest;
use crate::runtime::{blocking, start_service};
use crate::storage::Store;

/// How often new content is made durable.
const SYNC_INTERVAL: Duration = Duration::from_secs(5);
/// Digests that may wait for the next sync; those over it stay noted until a clean stop.
const WAITING_MAX: usize = 65_536;

/// New content on its way to the disk.
pub(super) struct Syncer {
    waiting: crossbeam_channel::Sender<(Digest, u8)>,
}

impl Syncer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system refused it.
    pub(super) fn start(store: Arc<Store>, catalog: Catalog) -> io::Result<Self> {
        let (waiting, queue) = crossbeam_channel::bounded(WAITING_MAX);
        start_service("sync", move || {
            // Ends with the process, or when nobody can commit any more.
            while let Ok(first) = queue.recv() {
                std::thread::sleep(SYNC_INTERVAL);
                let batch: Vec<_> = std::iter::once(first).chain(queue.try_iter()).collect();
                sync(&store, &catalog, &batch);
            }
        })?;
        Ok(Self { waiting })
    }

    /// Content has been committed into this pool without a sync.
    pub(super) fn committed(&self, digest: &Digest, pool: u8) {
        // A full queue only means that this one stays noted as unsynced.
        let _ = self.waiting.try_send((*digest, pool));
    }
}

/// Syncs the pools that got something, and clears the notes of what they got. A pool that fails
/// is read-only from then on; what it got stays noted.
fn sync(store: &Store, catalog: &Catalog, batch: &[(Digest, u8)]) {
    for pool in store.pools() {
        let of_pool = batch.iter().filter(|(_, number)| *number == pool.number());
        let writes: Vec<Write> = of_pool.map(|(digest, _)| Write::Synced(*digest)).collect();
        if writes.is_empty() {
            continue;
        }
        match pool.sync() {
            Ok(()) => catalog.write_soon(writes),
            Err(error) => tracing::error!(%error, pool = pool.name(), count = writes.len(),
                "new content did not reach the disk; after a power cut it is checked"),
        }
    }
}

/// Content that nobody can vouch for since a power cut.
#[derive(Default)]
pub(super) struct Suspects(HashSet<Digest>);

impl Suspects {
    pub(super) fn new(digests: impl IntoIterator<Item = Digest>) -> Self {
        Self(digests.into_iter().collect())
    }
}

impl Registry {
    /// Whether stored content may be used: at once, unless a power cut has made it suspect; then
    /// it is hashed once, and removed if it is not what its name promises.
    pub(super) async fn may_use(&self, digest: &Digest, pool: u8) -> Result<bool, PullError> {
        let suspects = &self.shared().suspects.0;
        if suspects.is_empty() || !suspects.pin().contains(digest) {
            return Ok(true);
        }
        let (key, shared) = (*digest, self.shared().clone());
        let checks = &self.shared().checks;
        checks.run(key, move || async move { check(&shared, key, pool).await }).await?
    }
}

async fn check(shared: &Arc<Shared>, digest: Digest, pool: u8) -> Result<bool, PullError> {
    let store = shared.store.clone();
    let is_right = blocking(move || store.is_right(pool, &digest))
        .await
        .map_err(|error| PullError::Storage(error.to_string()))?;
    let is_right = match is_right {
        Ok(is_right) => is_right,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => {
            return Err(PullError::Storage(format!("cannot check stored {digest}: {error}")));
        }
    };
    if is_right {
        shared.syncer.committed(&digest, pool);
    } else {
        tracing::warn!(%digest, "content did not survive a power cut and will be fetched again");
        let store = shared.store.clone();
        // What cannot be removed now is replaced by the next fill.
        let _ = blocking(move || store.remove_blob(pool, &digest)).await;
        shared.catalog.write(vec![Write::RemoveBlob(digest)], false).await?;
    }
    shared.suspects.0.pin().remove(&digest);
    Ok(is_right)
}
