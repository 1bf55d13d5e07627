//! The database file: opened, marked as in use, opened again after a failure.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, WriteTransaction,
};

use super::apply::{Batch, Tables};
use super::record::{BLOBS, LINKS, META, SUSPECTS, TAGS, UNSYNCED};
use super::{CatalogError, Effect, Moment, Opened, failed, older};
use crate::oci::Digest;

/// Memory that redb may use for pages; hits don't come here, so a little is enough.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

const STORE_ID: &str = "store_id";
/// The boot id under which a process has the store open; empty after a clean stop.
const IN_USE: &str = "in_use";
/// The number of the last commit of writes, little-endian.
const GROUP: &str = "group";

/// What the writer and the look-ups share.
pub(super) struct Shared {
    path: PathBuf,
    // `None` after a storage error, until the writer has opened the file again: redb refuses all
    // work after one, and opening it goes back to the last durable commit. Locked only to take a
    // reference, by the catalog thread and the blocking pool, never by a worker.
    database: Mutex<Option<Arc<Database>>>,
    failing: AtomicBool,
    /// The number of the last commit; changed by the catalog thread alone.
    group: AtomicU64,
}

/// A commit that was made.
pub(super) struct Committed {
    /// Its number.
    pub(super) group: u64,
    /// For each batch in turn what became of its writes, or why it is not part of it.
    pub(super) outcomes: Vec<Result<Vec<Effect>, CatalogError>>,
}

impl Shared {
    pub(super) fn open(path: &Path) -> Result<(Self, Opened), CatalogError> {
        let open_error = |error: CatalogError| CatalogError::Open {
            path: path.to_owned(),
            cause: error.to_string(),
        };
        let database = open_database(path).map_err(open_error)?;
        let opened = take_into_use(&database).map_err(open_error)?;
        let shared = Self {
            path: path.to_owned(),
            database: Mutex::new(Some(Arc::new(database))),
            failing: AtomicBool::new(false),
            group: AtomicU64::new(opened.group),
        };
        Ok((shared, opened))
    }

    pub(super) fn database(&self) -> Option<Arc<Database>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_database(&self, database: Option<Arc<Database>>) {
        *self.database.lock().unwrap_or_else(PoisonError::into_inner) = database;
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    pub(super) fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
    }

    /// After a failure: nobody uses the database until it has been opened again.
    pub(super) fn drop_database(&self) {
        self.set_database(None);
    }

    /// Opens the file again; fails while a look-up still reads the old snapshot.
    pub(super) fn open_again(&self) -> Result<(), CatalogError> {
        let database = open_database(&self.path)?;
        // Commits that were not durable are undone. Their numbers are not given again while this
        // process runs: a moment within it must stay before what comes after it.
        self.group.fetch_max(last_group(&database)?, Ordering::AcqRel);
        self.set_database(Some(Arc::new(database)));
        Ok(())
    }

    /// Now: behind every delete that was answered, before every one that comes.
    pub(super) fn moment(&self) -> Moment {
        Moment(self.group.load(Ordering::Acquire))
    }

    /// Commits what is not refused of `batches`.
    pub(super) fn commit(
        &self,
        batches: &[Batch<'_>],
        durable: bool,
    ) -> Result<Committed, CatalogError> {
        let database = self.database().ok_or(CatalogError::Closed)?;
        let group = self.group.load(Ordering::Acquire).saturating_add(1);
        let mut transaction = database.begin_write().map_err(failed)?;
        if durable {
            // So that opening after a crash needs no walk through all records.
            transaction.set_quick_repair(true);
        } else {
            transaction.set_durability(Durability::None).map_err(failed)?;
        }
        let mut outcomes = Vec::with_capacity(batches.len());
        {
            let mut tables = Tables::open(&transaction, group)?;
            for batch in batches {
                outcomes.push(tables.apply(batch)?);
            }
            let mut meta = transaction.open_table(META).map_err(failed)?;
            meta.insert(GROUP, &group.to_le_bytes()[..]).map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
        self.group.store(group, Ordering::Release);
        Ok(Committed { group, outcomes })
    }

    /// Marks the store as left in good order.
    pub(super) fn leave(&self) -> Result<(), CatalogError> {
        let database = self.database().ok_or(CatalogError::Closed)?;
        let transaction = database.begin_write().map_err(failed)?;
        {
            let mut meta = transaction.open_table(META).map_err(failed)?;
            meta.insert(IN_USE, &b""[..]).map_err(failed)?;
            // Everything was synced before the store is left; suspects stay what they are.
            let mut unsynced = transaction.open_table(UNSYNCED).map_err(failed)?;
            unsynced.retain(|_, _| false).map_err(failed)?;
        }
        transaction.commit().map_err(failed)
    }
}

fn open_database(path: &Path) -> Result<Database, CatalogError> {
    Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(failed)
}

/// Creates what is missing, finds out how the last process ended, and says that we are here.
fn take_into_use(database: &Database) -> Result<Opened, CatalogError> {
    let boot = boot_id();
    let mut transaction = database.begin_write().map_err(failed)?;
    transaction.set_quick_repair(true);
    let (store_id, last_user) = {
        let mut meta = transaction.open_table(META).map_err(failed)?;
        let known = meta
            .get(STORE_ID)
            .map_err(failed)?
            .and_then(|value| <[u8; 16]>::try_from(value.value()).ok());
        let store_id = match known {
            Some(id) => id,
            None => {
                let id = random_id();
                meta.insert(STORE_ID, &id[..]).map_err(failed)?;
                id
            }
        };
        let last_user = meta.get(IN_USE).map_err(failed)?.map(|v| v.value().to_vec());
        meta.insert(IN_USE, boot.as_slice()).map_err(failed)?;
        (store_id, last_user.unwrap_or_default())
    };
    // Look-ups count on every table being there.
    drop(Tables::open(&transaction, 0)?);
    older::take_over_all(&transaction)?;
    let is_intact = last_user.is_empty() || last_user == boot;
    if !is_intact {
        suspect_unsynced(&transaction)?;
    }
    transaction.commit().map_err(failed)?;
    Ok(Opened {
        store_id,
        is_intact,
        suspects: suspects(database)?,
        group: last_group(database)?,
        records: count_records(database)?,
    })
}

fn last_group(database: &Database) -> Result<u64, CatalogError> {
    let transaction = database.begin_read().map_err(failed)?;
    let meta = transaction.open_table(META).map_err(failed)?;
    let value = meta.get(GROUP).map_err(failed)?;
    Ok(value.and_then(|value| value.value().try_into().ok()).map_or(0, u64::from_le_bytes))
}

/// Cheap whatever the tables hold: each keeps its length.
fn count_records(database: &Database) -> Result<u64, CatalogError> {
    let transaction = database.begin_read().map_err(failed)?;
    let blobs = transaction.open_table(BLOBS).map_err(failed)?.len().map_err(failed)?;
    let links = transaction.open_table(LINKS).map_err(failed)?.len().map_err(failed)?;
    let tags = transaction.open_table(TAGS).map_err(failed)?.len().map_err(failed)?;
    Ok(blobs.saturating_add(links).saturating_add(tags))
}

/// After a power cut: what was not synced is doubtful until it has been checked, however often
/// the process is started before that.
fn suspect_unsynced(transaction: &WriteTransaction) -> Result<(), CatalogError> {
    let unsynced = transaction.open_table(UNSYNCED).map_err(failed)?;
    let mut suspects = transaction.open_table(SUSPECTS).map_err(failed)?;
    for entry in unsynced.iter().map_err(failed)? {
        let (key, _) = entry.map_err(failed)?;
        suspects.insert(key.value(), ()).map_err(failed)?;
    }
    Ok(())
}

fn suspects(database: &Database) -> Result<Vec<Digest>, CatalogError> {
    let transaction = database.begin_read().map_err(failed)?;
    let table = transaction.open_table(SUSPECTS).map_err(failed)?;
    let mut digests = Vec::new();
    for entry in table.iter().map_err(failed)? {
        let (key, _) = entry.map_err(failed)?;
        digests.extend(Digest::parse(key.value()).ok());
    }
    Ok(digests)
}

/// Names this boot of the machine. Where the kernel does not tell, every boot looks new, and
/// nothing is trusted that should not be.
fn boot_id() -> Vec<u8> {
    std::fs::read("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim_ascii().to_vec())
        .unwrap_or_else(|_| random_id().to_vec())
}

fn random_id() -> [u8; 16] {
    use std::hash::{BuildHasher, RandomState};
    let half = || RandomState::new().hash_one(std::process::id()).to_le_bytes();
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(half().into_iter().chain(half())) {
        *to = from;
    }
    id
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    /// Changes tables behind the catalog's back.
    pub(in super::super) fn tamper(path: &Path, change: impl FnOnce(&WriteTransaction)) {
        let database = open_database(path).unwrap();
        let transaction = database.begin_write().unwrap();
        change(&transaction);
        transaction.commit().unwrap();
    }

    #[test]
    fn the_number_of_a_commit_is_given_once_in_a_process() {
        let folder = tempfile::tempdir().unwrap();
        let (shared, _) = Shared::open(&folder.path().join("catalog.redb")).unwrap();
        shared.commit(&[], true).unwrap();
        // As after a failure that undid two more; closing the file would have kept them.
        shared.group.store(3, Ordering::Release);
        shared.drop_database();
        shared.open_again().unwrap();
        assert_eq!(shared.moment(), Moment(3));
        assert_eq!(shared.commit(&[], true).unwrap().group, 4);
    }

    /// Makes the file look as if the machine had been started since it was last in use.
    pub(in super::super) fn pretend_another_boot(path: &Path) {
        tamper(path, |transaction| {
            let mut meta = transaction.open_table(META).unwrap();
            meta.insert(IN_USE, &b"another boot"[..]).unwrap();
        });
    }
}
