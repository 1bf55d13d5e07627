//! Opening the pools beside the root, and telling a disk that is missing from one that is wrong.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::layout::{Store, StoreError};
use super::mark::{self, Found, Mark};
use super::pool::{Pool, is_disk_fault, make_folder, take_lock};

/// A pool to be opened beside the root.
#[derive(Debug, Clone, Copy)]
pub struct WantedPool<'a> {
    /// What the catalog's records call it; not [`ROOT_POOL`](super::ROOT_POOL).
    pub number: u8,
    /// What the configuration calls it.
    pub name: &'a str,
    /// Its folder.
    pub path: &'a Path,
    /// Whether it was there at an earlier start.
    pub is_made: bool,
}

/// A pool that has content of this store and is not there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingPool {
    /// What the catalog's records call it.
    pub number: u8,
    /// What the configuration calls it, or called it.
    pub name: String,
    /// Whether the configuration still names it: then it may come back.
    pub is_declared: bool,
}

impl Store {
    /// Opens a further pool; returns whether it is there. One that was there before and has lost
    /// its disk is left out: what it holds is fetched again, and nothing is put into the empty
    /// mount point. One whose disk takes no writes is read on. Blocks: call it before serving.
    ///
    /// # Errors
    /// [`StoreError::WrongPool`]: its folder belongs to another pool or store; or what a disk that
    /// is well does not do.
    pub fn open_pool(
        &mut self,
        store_id: &[u8; 16],
        wanted: WantedPool<'_>,
    ) -> Result<bool, StoreError> {
        let mark = Mark::new(store_id, wanted.number, wanted.name);
        let Some((root, found)) = self.find(&wanted, &mark)? else { return Ok(false) };
        mark.compare(&found, &root)?;
        let lock = found.file;
        match take_lock(&lock) {
            Ok(true) => {}
            Ok(false) => return Err(StoreError::Locked { path: root }),
            Err(source) => return Err(StoreError::Io { path: root, source }),
        }
        let pool = Pool::new(wanted.number, wanted.name, root, lock);
        match pool.prepare() {
            Ok(swept) => tracing::info!(pool = wanted.name, swept, "pool opened"),
            Err((_, error)) if wanted.is_made && is_disk_fault(&error) => pool.poison(&error),
            Err((path, source)) => return Err(StoreError::Io { path, source }),
        }
        if !wanted.is_made && self.pools().any(|other| other.device() == pool.device()) {
            tracing::warn!(pool = wanted.name, path = %wanted.path.display(),
                "a new pool lies on the same file system as another; is its disk mounted?");
        }
        let place = usize::from(wanted.number);
        if self.pools.len() <= place {
            self.pools.resize(place + 1, None);
        }
        if let Some(slot) = self.pools.get_mut(place) {
            *slot = Some(Arc::new(pool));
        }
        Ok(true)
    }

    /// The folder and its mark, made when this is the pool's first time; `None` when it is missing.
    fn find(
        &mut self,
        wanted: &WantedPool<'_>,
        mark: &Mark,
    ) -> Result<Option<(PathBuf, Found)>, StoreError> {
        let at = |source| StoreError::Io { path: wanted.path.to_owned(), source };
        if !wanted.is_made {
            make_folder(wanted.path).map_err(at)?;
        }
        let looked = wanted.path.canonicalize().and_then(|root| Ok((mark::open(&root)?, root)));
        let (found, root) = match looked {
            Err(error) if wanted.is_made && is_missing(&error) => {
                self.leave_out(wanted, &error.to_string());
                return Ok(None);
            }
            looked => looked.map_err(at)?,
        };
        if let Some(other) = self.pools().find(|other| other.root() == root) {
            let found = format!("the folder of pool {:?}", other.name());
            return Err(mark.wrong(&root, "a folder of its own", found, "give it another path"));
        }
        match found {
            Some(found) => Ok(Some((root, found))),
            None if wanted.is_made => {
                self.leave_out(wanted, "there is no pool.json; is its disk mounted?");
                Ok(None)
            }
            None => {
                mark.refuse_occupied(&root)?;
                let found = mark.write(&root).map_err(at)?;
                Ok(Some((root, found)))
            }
        }
    }

    fn leave_out(&mut self, wanted: &WantedPool<'_>, why: &str) {
        let WantedPool { number, name, path, .. } = *wanted;
        tracing::error!(pool = name, path = %path.display(), why,
            "a pool is missing and left out; what it holds is fetched again. Mount its disk and \
             start again; if the disk is lost, give the pool that replaces it another name");
        self.missing.push(MissingPool { number, name: name.to_owned(), is_declared: true });
    }

    /// Notes a pool that has content and that the configuration names no more.
    pub fn pool_undeclared(&mut self, number: u8, name: &str) {
        tracing::info!(
            pool = name,
            "a pool is no longer in the configuration; what it holds is fetched again, and \
             `ringport verify` forgets it"
        );
        self.missing.push(MissingPool { number, name: name.to_owned(), is_declared: false });
    }
}

/// Whether the disk is gone, rather than something wrong with what is on it.
fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || is_disk_fault(error)
}
