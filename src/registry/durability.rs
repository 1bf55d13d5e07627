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
use super::names::blob_at;
use super::state::{Registry, Shared};
use crate::catalog::{Catalog, Write};
use crate::index::BlobEntry;
use crate::oci::Digest;
use crate::runtime::{blocking, blocking_long, start_service};
use crate::storage::{FileIdentity, Inspection, Store};

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
    // What is committed from now on may miss the sync.
    let until = catalog.moment();
    for pool in store.pools() {
        let of_pool = batch.iter().filter(|(_, number)| *number == pool.number());
        let synced = |(digest, _): &(Digest, u8)| Write::Synced { digest: *digest, until };
        let writes: Vec<Write> = of_pool.map(synced).collect();
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

/// Content that nobody can vouch for, since a power cut or since reading it failed.
#[derive(Default)]
pub(super) struct Suspects(HashSet<Digest>);

impl Suspects {
    pub(super) fn new(digests: impl IntoIterator<Item = Digest>) -> Self {
        Self(digests.into_iter().collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Registry {
    /// Whether stored content may be used: at once, unless a power cut or a failing read has made it
    /// suspect; then it is hashed once. What is wrong is removed, but what is hosted stays.
    ///
    /// # Errors
    /// [`PullError::Storage`]: it cannot be told, or it is wrong and hosted.
    pub(super) async fn may_use(
        &self,
        digest: &Digest,
        entry: &BlobEntry,
    ) -> Result<bool, PullError> {
        let suspects = &self.shared().suspects.0;
        if suspects.is_empty() || !suspects.pin().contains(digest) {
            return Ok(true);
        }
        let (key, entry, shared) = (*digest, *entry, self.shared().clone());
        let checks = &self.shared().checks;
        checks.run(key, move || async move { check(&shared, key, entry).await }).await?
    }
}

impl Shared {
    /// Reading stored content has failed: before it is used again it is hashed.
    pub fn doubt(&self, digest: &Digest) {
        self.suspects.0.pin().insert(*digest);
    }

    /// It has just been verified and synced.
    pub(super) fn trust(&self, digest: &Digest) {
        self.suspects.0.pin().remove(digest);
    }
}

async fn check(shared: &Arc<Shared>, digest: Digest, entry: BlobEntry) -> Result<bool, PullError> {
    let BlobEntry { pool, size, is_hosted, .. } = entry;
    let store = shared.store.clone();
    let found = blocking_long(move || store.pool(pool)?.inspect(&digest, size, |_| true)).await;
    let found = found.map_err(|error| PullError::Storage(error.to_string()))?;
    match judge(found) {
        Verdict::Right => shared.syncer.committed(&digest, pool),
        Verdict::Wrong(why, identity) if !is_hosted => {
            tracing::warn!(%digest, why, "stored content is damaged and will be fetched again");
            forget(shared, digest, entry, identity).await?;
            shared.suspects.0.pin().remove(&digest);
            return Ok(false);
        }
        Verdict::Wrong(why, _) => {
            tracing::error!(%digest, why, "hosted content is damaged; run `ringport verify`");
            return Err(PullError::Storage(format!("hosted {digest} is damaged: {why}")));
        }
        Verdict::Unknown(why) => {
            return Err(PullError::Storage(format!("cannot check stored {digest}: {why}")));
        }
    }
    shared.suspects.0.pin().remove(&digest);
    Ok(true)
}

/// Cached content is not what its name promises. The name goes first, and then the file that was
/// looked at: both may have been replaced since, for hashing takes its time.
async fn forget(
    shared: &Arc<Shared>,
    digest: Digest,
    entry: BlobEntry,
    identity: Option<FileIdentity>,
) -> Result<(), PullError> {
    let _turn = shared.store.turn(&digest).await;
    let write = Write::RemoveBlob(blob_at(&digest, &entry));
    let effects = shared.catalog.write_told(vec![write], false).await?;
    if !effects.iter().any(|effect| effect.is_applied) || identity.is_none() {
        return Ok(());
    }
    let store = shared.store.clone();
    let removed = blocking(move || match store.pool(entry.pool)?.identity(&digest)? {
        now if now == identity => store.remove_blob(entry.pool, &digest),
        _ => Ok(()),
    });
    if let Err(error) = removed.await.unwrap_or_else(|error| Err(error.into())) {
        tracing::warn!(%digest, %error, "a damaged file stays; the next fill sets it aside");
    }
    Ok(())
}

/// What a look at suspect content says of it.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Right,
    /// And which file it was.
    Wrong(String, Option<FileIdentity>),
    Unknown(String),
}

fn judge(found: io::Result<Inspection>) -> Verdict {
    match found {
        Ok(Inspection::Right { .. }) => Verdict::Right,
        Ok(Inspection::Missing) => Verdict::Wrong("there is no file".to_owned(), None),
        // It could be opened, so the fault lies in its bytes, or under them.
        Ok(Inspection::Damaged { why, identity: identity @ Some(_) }) => {
            Verdict::Wrong(why, identity)
        }
        Ok(Inspection::Damaged { why, identity: None }) => Verdict::Unknown(why),
        Ok(Inspection::Stopped) => Verdict::Unknown("the check was stopped".to_owned()),
        Err(error) => Verdict::Unknown(error.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;
    use crate::registry::upkeep::tests::Scratch;

    #[test]
    fn only_bytes_that_are_wrong_or_cannot_be_read_are_wrong() {
        let scratch = Scratch::new();
        let digest = scratch.file(b"content");
        let look = |digest: &Digest| judge(scratch.pool().inspect(digest, 7, |_| true));
        assert_eq!(look(&digest), Verdict::Right);
        std::fs::write(scratch.path(&digest), b"CONTENT").unwrap();
        assert!(matches!(look(&digest), Verdict::Wrong(_, Some(_))));
        let missing = Digest::of(Algorithm::Sha256, b"missing");
        assert!(matches!(look(&missing), Verdict::Wrong(_, None)));
        // Something that can be opened by nobody stands for a disk that is not there.
        let path = scratch.path(&missing);
        std::os::unix::fs::symlink("elsewhere", path).unwrap();
        assert!(matches!(look(&missing), Verdict::Unknown(_)));
        let io = || io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        assert!(matches!(judge(Err(io())), Verdict::Unknown(_)));
    }
}
