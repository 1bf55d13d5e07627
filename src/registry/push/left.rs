//! The uploads that an earlier process left: those that can go on become sessions again, of all
//! others everything is removed.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::sessions::{IDLE_SECONDS, Session, State, Uploader, Uploads};
use crate::catalog::{Catalog, CatalogError, Mark, UploadRecord, Write};
use crate::runtime::clock;
use crate::storage::{FoundUpload, Store};

/// Records read at once.
const PIECE: usize = 1024;

impl Uploads {
    /// What an earlier process left: sessions that can go on, with their files cut off behind the
    /// last byte that is surely there. `is_intact`: whatever was written is still there. Removes
    /// everything else. Blocks.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn load(store: &Store, catalog: &Catalog, is_intact: bool) -> Result<Self, CatalogError> {
        let uploads = Self::default();
        let mut files = files(store);
        let (mut after, mut gone): (Option<Mark>, Vec<Write>) = (None, Vec::new());
        loop {
            let piece = catalog.scan_uploads(after.as_ref(), PIECE)?;
            piece.damaged.iter().for_each(|error| tracing::warn!(%error, "an upload is lost"));
            for record in piece.records {
                let file = files.remove(&record.id.number());
                match resume(store, &record, file.as_ref(), is_intact) {
                    Some(session) => uploads.insert(session),
                    None => {
                        files.extend(file.map(|file| (record.id.number(), file)));
                        gone.push(Write::RemoveUpload(record.id));
                    }
                }
            }
            after = piece.next;
            if after.is_none() {
                break;
            }
        }
        let (resumable, ended, orphans) = (uploads.open(), gone.len(), files.len());
        catalog.write_soon(gone);
        for file in files.values() {
            remove_file(store, file);
        }
        if resumable + ended + orphans > 0 {
            tracing::info!(resumable, ended, files_removed = orphans, "uploads found");
        }
        Ok(uploads)
    }
}

/// The files of uploads in all pools, by number; what is none is removed.
fn files(store: &Store) -> HashMap<u128, FoundUpload> {
    let mut files = HashMap::new();
    for pool in store.pools() {
        let found = pool.uploads().unwrap_or_else(|error| {
            tracing::error!(%error, pool = pool.name(), "the uploads of a pool cannot be read");
            Vec::new()
        });
        for file in found {
            match file.number {
                // The number is 128 random bits, so no other pool has it too.
                Some(number) => drop(files.insert(number, file)),
                None => tracing::warn!(path = %file.path.display(), "not the file of an upload"),
            }
        }
    }
    files
}

/// Makes a session of what is left of it; `None` when too little is, or when it has expired.
fn resume(
    store: &Store,
    record: &UploadRecord,
    file: Option<&FoundUpload>,
    is_intact: bool,
) -> Option<Session> {
    let UploadRecord { id, scope, owner, started_at, last_active_at, confirmed, .. } = record;
    if last_active_at.saturating_add(IDLE_SECONDS) <= clock::unix_seconds() {
        return None;
    }
    let size = file.map_or(0, |file| file.size);
    if size < *confirmed {
        tracing::warn!(%id, size, confirmed, "an upload lacks bytes that were on the disk");
        return None;
    }
    let kept = if is_intact { size } else { *confirmed };
    if let Some(file) = file {
        let cut = store.pool(file.pool).and_then(|pool| pool.cut_upload(id.number(), kept));
        cut.inspect_err(|error| tracing::warn!(%id, %error, "an upload cannot go on")).ok()?;
    }
    let state = State::new(kept, file.map(|file| file.pool), Some(*confirmed));
    let session = Session::new(*id, Uploader { scope, name: owner }, *started_at, state);
    session.last_active.store(*last_active_at, Ordering::Relaxed);
    Some(session)
}

fn remove_file(store: &Store, file: &FoundUpload) {
    let Some(number) = file.number else { return };
    let removed = store.pool(file.pool).and_then(|pool| pool.remove_upload(number));
    if let Err(error) = removed {
        tracing::warn!(path = %file.path.display(), %error,
            "the file of an upload stays; the next start removes it");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::catalog::UploadId;
    use crate::oci::{RepositoryName, Scope};
    use crate::registry::upkeep::tests::Scratch;
    use crate::storage::ROOT_POOL;

    fn record(n: u128, confirmed: u64, active_at: u64) -> UploadRecord {
        let repository = RepositoryName::parse("team/app").unwrap();
        UploadRecord {
            id: UploadId::from_number(n),
            scope: Scope { upstream: None, repository },
            owner: "alice".to_owned(),
            started_at: 1,
            last_active_at: active_at,
            confirmed,
            pool: ROOT_POOL,
        }
    }

    struct Left(Scratch);

    impl Left {
        /// Uploads with so many bytes that are surely on the disk, and so many in their file.
        fn of(uploads: &[(u64, Option<usize>)]) -> Self {
            let left = Self(Scratch::new());
            for (n, (confirmed, in_file)) in (0..).zip(uploads) {
                let record = record(n, *confirmed, clock::unix_seconds());
                left.0.write(vec![Write::PutUpload(record)]);
                if let Some(size) = in_file {
                    std::fs::write(left.path(n), vec![7; *size]).unwrap();
                }
            }
            left
        }

        fn path(&self, n: u128) -> std::path::PathBuf {
            self.0.folder.path().join("uploads").join(format!("{n:032x}"))
        }

        fn load(&self, is_intact: bool) -> Uploads {
            Uploads::load(&self.0.upkeep.store, &self.0.upkeep.catalog, is_intact).unwrap()
        }

        /// What the session of this number has received, as its user sees it; and its file.
        fn size(&self, uploads: &Uploads, n: u128) -> Option<(u64, Option<u64>)> {
            let record = record(n, 0, 0);
            let by = Uploader { scope: &record.scope, name: "alice" };
            let session = uploads.find(by, &record.id.to_string()).ok()?;
            Some((session.received(), self.path(n).metadata().ok().map(|file| file.len())))
        }

        fn records(&self) -> usize {
            // What is written without waiting comes before what is waited for.
            self.0.write(Vec::new());
            self.0.upkeep.catalog.scan_uploads(None, 100).unwrap().records.len()
        }
    }

    #[test]
    fn after_a_kill_all_that_is_in_the_file_counts() {
        let left = Left::of(&[(0, Some(500)), (100, Some(500)), (0, None), (100, Some(99))]);
        let uploads = left.load(true);
        assert_eq!(left.size(&uploads, 0), Some((500, Some(500))));
        assert_eq!(left.size(&uploads, 1), Some((500, Some(500))));
        assert_eq!(left.size(&uploads, 2), Some((0, None)), "nothing had come yet");
        assert_eq!(left.size(&uploads, 3), None, "bytes that were on the disk are gone");
        assert!(!left.path(3).exists());
        assert_eq!((uploads.open(), left.records()), (3, 3));
    }

    #[test]
    fn after_a_power_cut_only_what_was_synced_counts() {
        let left = Left::of(&[(0, Some(500)), (100, Some(500)), (100, None)]);
        let uploads = left.load(false);
        assert_eq!(left.size(&uploads, 0), Some((0, Some(0))));
        assert_eq!(left.size(&uploads, 1), Some((100, Some(100))));
        assert_eq!(left.size(&uploads, 2), None);
        assert_eq!((uploads.open(), left.records()), (2, 2));
        // Once cut off, the next start may believe the file.
        assert_eq!(left.size(&left.load(true), 1), Some((100, Some(100))));
    }

    #[test]
    fn what_nobody_goes_on_with_is_removed() {
        let left = Left::of(&[(0, Some(5))]);
        let old = record(1, 0, clock::unix_seconds() - IDLE_SECONDS);
        left.0.write(vec![Write::PutUpload(old)]);
        for n in [1, 2] {
            std::fs::write(left.path(n), b"old, and nobody's").unwrap();
        }
        let foreign = left.path(0).with_file_name("notes.txt");
        std::fs::write(&foreign, b"somebody's").unwrap();
        let uploads = left.load(true);
        assert_eq!((uploads.open(), left.records()), (1, 1));
        assert!(left.path(0).exists() && !left.path(1).exists() && !left.path(2).exists());
        assert!(foreign.exists(), "not ours to remove");
        // And so is what becomes idle later, except while it is being served.
        let (store, catalog) = (&left.0.upkeep.store, &left.0.upkeep.catalog);
        let by = record(0, 0, 0);
        let by = Uploader { scope: &by.scope, name: "alice" };
        let session = uploads.find(by, &format!("{:032x}", 0)).unwrap();
        session.last_active.store(1, Ordering::Relaxed);
        {
            let _held = pollster::block_on(session.hold()).unwrap();
            session.last_active.store(1, Ordering::Relaxed);
            uploads.expire(store, catalog);
            assert_eq!(uploads.open(), 1);
        }
        uploads.expire(store, catalog);
        assert_eq!((uploads.open(), left.records(), left.path(0).exists()), (0, 0, false));
        assert!(pollster::block_on(session.hold()).is_err(), "whoever waited for it learns of it");
    }
}
