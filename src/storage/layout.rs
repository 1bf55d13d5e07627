//! A store: its pools, and the way to a file by the number of its pool.

use std::any::Any;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use rustix::io::Errno;

use super::inspect::quarantined_count;
use super::open_files;
use super::open_pool::MissingPool;
use super::pool::{Pool, make_folder, take_lock};
use super::turns::Turns;
use crate::oci::Digest;
use crate::runtime::{File, blocking, clock};

/// The number of the pool that is the store's root itself.
pub const ROOT_POOL: u8 = 0;

/// Stores opened by this process: tests open several.
static STORES: AtomicU64 = AtomicU64::new(0);

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A folder or file of the store could not be made or read.
    #[error("the store {path} cannot be used: {source}; check owner, mode and free space")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process holds the store.
    #[error(
        "the store {path} is in use by another ringport; stop that one or give this one its own \
         [storage] root"
    )]
    Locked {
        /// The store's root.
        path: PathBuf,
    },
    /// What lies in the folder of a pool is not that pool.
    #[error("[[storage.pool]] {name:?}: expected {expected} in {path}, found {found}; {remedy}")]
    WrongPool {
        /// The pool, as the configuration calls it.
        name: String,
        /// Its folder.
        path: PathBuf,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
        /// The way out.
        remedy: &'static str,
    },
}

/// An opened store. One per process; its locks are held until it is dropped.
pub struct Store {
    /// By their numbers; `None` for numbers that are missing or not given out.
    pub(super) pools: Vec<Option<Arc<Pool>>>,
    pub(super) missing: Vec<MissingPool>,
    pub(super) turns: Turns,
    /// Which of the stores of this process.
    number: u64,
}

/// A blob opened for reading.
#[derive(Debug, Clone)]
pub struct OpenBlob {
    /// The file; positional reads only.
    pub file: Arc<std::fs::File>,
    /// Its size in bytes.
    pub size: u64,
}

impl Store {
    /// Creates what is missing below `root` (mode 0700), takes the lock, and removes what an
    /// earlier process left in staging. Blocks: call it before serving.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is left half-made that a next call could not go on with.
    pub fn open(root: &Path) -> Result<(Self, usize), StoreError> {
        let at = |source| StoreError::Io { path: root.to_owned(), source };
        make_folder(root).map_err(at)?;
        let root = root.canonicalize().map_err(at)?;
        let path = root.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(|source| StoreError::Io { path: path.clone(), source })?;
        match take_lock(&lock) {
            Ok(true) => {}
            Ok(false) => return Err(StoreError::Locked { path: root }),
            Err(source) => return Err(StoreError::Io { path, source }),
        }
        let pool = Pool::new(ROOT_POOL, "root", root, lock);
        let swept = pool.prepare().map_err(|(path, source)| StoreError::Io { path, source })?;
        Ok((
            Self {
                pools: vec![Some(Arc::new(pool))],
                missing: Vec::new(),
                turns: Turns::new(),
                number: STORES.fetch_add(1, Ordering::Relaxed),
            },
            swept,
        ))
    }

    /// Where the index lies.
    pub fn index_path(&self) -> PathBuf {
        self.root().join("index")
    }

    /// The pools that are there, the root first.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.iter().flatten()
    }

    /// The pools that have content and are not there.
    pub fn missing(&self) -> &[MissingPool] {
        &self.missing
    }

    /// The pool of this number.
    ///
    /// # Errors
    /// It is missing.
    pub fn pool(&self, number: u8) -> io::Result<&Arc<Pool>> {
        self.pools.get(usize::from(number)).and_then(Option::as_ref).ok_or_else(|| {
            let known = self.missing.iter().find(|pool| pool.number == number);
            let name = known.map_or("of an unknown name", |pool| pool.name.as_str());
            let message = format!("the pool {name} (number {number}) is missing");
            io::Error::new(io::ErrorKind::NotConnected, message)
        })
    }

    /// Whether the pool of this number is there.
    pub fn has_pool(&self, number: u8) -> bool {
        self.pools.get(usize::from(number)).is_some_and(Option::is_some)
    }

    /// Where the catalog's database lies.
    pub fn catalog_path(&self) -> PathBuf {
        self.root().join("catalog.redb")
    }

    /// The store's folder.
    pub(super) fn root(&self) -> &Path {
        // The root is opened with the store, and never leaves it.
        self.pools().next().map_or(Path::new(""), |pool| pool.root())
    }

    /// Whether no pool takes content any more.
    pub fn is_poisoned(&self) -> bool {
        self.pools().all(|pool| pool.is_poisoned())
    }

    /// Makes everything in all pools durable. Blocks.
    ///
    /// # Errors
    /// Of the first pool where it failed; the others were synced all the same.
    pub fn sync(&self) -> io::Result<()> {
        let failed: Vec<io::Error> = self.pools().filter_map(|pool| pool.sync().err()).collect();
        failed.into_iter().next().map_or(Ok(()), Err)
    }

    /// Bytes that the file system of a pool still has room for. Pools that share one get equal
    /// parts of it. Blocks.
    ///
    /// # Errors
    /// As fstatvfs(3); or the pool is missing.
    pub fn free_bytes(&self, pool: u8) -> io::Result<u64> {
        let pool = self.pool(pool)?;
        let sharing = self.pools().filter(|other| other.device() == pool.device()).count();
        Ok(pool.disk_free_bytes()? / sharing.max(1) as u64)
    }

    /// Removes the file of stored content; one that is gone already is fine. Whoever reads it goes
    /// on reading. Blocks.
    ///
    /// # Errors
    /// As unlink(2), except ENOENT; or the pool is missing.
    pub fn remove_blob(&self, pool: u8, digest: &Digest) -> io::Result<()> {
        let removed = std::fs::remove_file(self.pool(pool)?.blob_path(digest));
        open_files::note_removal();
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Stored content whose file this worker keeps open; `None` says nothing.
    pub fn kept_open(
        &self,
        pool: u8,
        digest: &Digest,
        size: u64,
        now: Instant,
    ) -> Option<OpenBlob> {
        let key = open_files::Key { store: self.number, pool, digest: *digest };
        let file = open_files::find(&key, size, quarantined_count(), now)?;
        Some(OpenBlob { file, size })
    }

    /// Opens stored content and confirms its size. `None` when it is not there or its size is
    /// not `size`: then the index was wrong and the content has to be fetched again. The worker keeps
    /// the file open for a while, and what `hold` returns as long as that.
    ///
    /// # Errors
    /// The disk failed, the pool is missing, or no descriptor is left.
    pub async fn open_blob(
        &self,
        pool: u8,
        digest: &Digest,
        size: u64,
        hold: impl FnOnce() -> Box<dyn Any>,
    ) -> io::Result<Option<OpenBlob>> {
        let home = self.pool(pool)?;
        let key = open_files::Key { store: self.number, pool, digest: *digest };
        // Asked before the file is opened: what is put into quarantine afterwards is seen.
        let quarantined = quarantined_count();
        if let Some(file) = open_files::find(&key, size, quarantined, clock::now()) {
            return Ok(Some(OpenBlob { file, size }));
        }
        match File::open(home.blob_path(digest)).await {
            Ok((file, found)) if found == size => {
                open_files::keep(key, &file, (size, quarantined), hold());
                Ok(Some(OpenBlob { file, size }))
            }
            Ok((_, found)) => {
                tracing::warn!(%digest, expected = size, found,
                    "stored content has the wrong size and will be fetched again");
                Ok(None)
            }
            Err(error) if is_no_content(&error) => Ok(None),
            Err(error) => {
                if is_out_of_descriptors(&error) {
                    open_files::close_all();
                }
                Err(error)
            }
        }
    }

    /// Reads small stored content whole and proves it by its digest. `None` when it is not there
    /// or is not what its name promises: then it has to be fetched again.
    ///
    /// # Errors
    /// The disk failed, the pool is missing, or no descriptor is left.
    pub async fn read_small(
        &self,
        pool: u8,
        digest: &Digest,
        size: u64,
    ) -> io::Result<Option<Bytes>> {
        let (path, digest) = (self.pool(pool)?.blob_path(digest), *digest);
        let read = blocking(move || {
            let (file, _) = File::open_regular(&path)?;
            let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
            // One byte more would show that it has grown.
            io::Read::read_to_end(&mut io::Read::take(file, size.saturating_add(1)), &mut content)?;
            let is_right = Digest::of(digest.algorithm(), &content) == digest;
            Ok::<_, io::Error>(is_right.then(|| Bytes::from(content)))
        });
        match read.await? {
            Ok(None) => {
                tracing::warn!(%digest, "stored content is damaged and will be fetched again");
                Ok(None)
            }
            Err(error) if is_no_content(&error) => Ok(None),
            other => other,
        }
    }
}

/// Whether there is no file, or something else in its place: every other error tells of the disk
/// or of this process, and nothing of the content.
fn is_no_content(error: &io::Error) -> bool {
    let kinds = [Errno::NOENT, Errno::LOOP, Errno::NOTDIR, Errno::ISDIR];
    kinds.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    let kinds = [Errno::MFILE, Errno::NFILE];
    kinds.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
