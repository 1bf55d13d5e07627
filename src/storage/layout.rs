//! The folders of a store, its lock, and opening what is in it.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use rustix::fs::FlockOperation;

use crate::oci::{Algorithm, Digest, Digester};
use crate::runtime::{File, blocking, clock};

/// Bytes read at once while hashing a whole file.
const HASH_BUFFER: usize = 256 * 1024;

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
}

/// An opened store. One per process; the lock is held until it is dropped.
pub struct Store {
    root: PathBuf,
    boot: u64,
    next: AtomicU64,
    poisoned: AtomicBool,
    lock: std::fs::File,
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
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { path, source }
        };
        make_folder(root).map_err(at(root))?;
        let root = root.canonicalize().map_err(at(root))?;
        let lock = take_lock(&root)?;
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for shard in 0..=255_u8 {
                let folder =
                    root.join("blobs").join(algorithm.as_str()).join(format!("{shard:02x}"));
                make_folder(&folder).map_err(at(&folder))?;
            }
        }
        let staging = root.join("staging");
        make_folder(&staging).map_err(at(&staging))?;
        let swept = sweep(&staging).map_err(at(&staging))?;
        let store = Self {
            root,
            boot: clock::unix_seconds(),
            next: AtomicU64::new(0),
            poisoned: AtomicBool::new(false),
            lock,
        };
        Ok((store, swept))
    }

    /// Where the index lies.
    pub fn index_path(&self) -> PathBuf {
        self.root.join("index")
    }

    /// The store's folder.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the catalog's database lies.
    pub fn catalog_path(&self) -> PathBuf {
        self.root.join("catalog.redb")
    }

    /// Where verified content of this digest lies.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let shard = hex.get(..2).unwrap_or("00").to_owned();
        let mut path = self.root.join("blobs");
        path.push(digest.algorithm().as_str());
        path.push(shard);
        path.push(hex);
        path
    }

    /// Takes no more content until the process is started again: a sync has failed, and what the
    /// disk holds of later writes nobody can tell (an error is told only once). What is stored is
    /// read on.
    pub(super) fn poison(&self, error: &io::Error) {
        if !self.poisoned.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, root = %self.root.display(),
                "a sync failed: the store takes nothing more; check the disk and start again");
        }
    }

    /// Whether the store takes no more content.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Relaxed)
    }

    /// Makes everything in the store durable (syncfs). Blocks.
    ///
    /// # Errors
    /// Some bytes did not reach the disk, and nobody can tell which.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.lock)?)
    }

    /// Bytes that the file system still has room for. Blocks.
    ///
    /// # Errors
    /// As fstatvfs(3).
    pub fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.lock)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Removes the file of stored content; one that is gone already is fine. Whoever reads it goes
    /// on reading. Blocks.
    ///
    /// # Errors
    /// As unlink(2), except ENOENT.
    pub fn remove_blob(&self, digest: &Digest) -> io::Result<()> {
        match std::fs::remove_file(self.blob_path(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads stored content and tells whether it is what its name promises. Blocks.
    ///
    /// # Errors
    /// The file cannot be opened or read.
    pub fn is_right(&self, digest: &Digest) -> io::Result<bool> {
        let mut file = std::fs::File::open(self.blob_path(digest))?;
        let mut digester = Digester::new(digest.algorithm());
        let mut buffer = vec![0; HASH_BUFFER];
        loop {
            match io::Read::read(&mut file, &mut buffer)? {
                0 => return Ok(digester.finish() == *digest),
                read => digester.update(buffer.get(..read).unwrap_or_default()),
            }
        }
    }

    /// A staging path that no other fill of this or an earlier process uses.
    pub(super) fn staging_path(&self) -> PathBuf {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        self.root.join("staging").join(format!("{:x}-{n:x}", self.boot))
    }

    /// Opens stored content and confirms its size. `None` when it is not there or its size is
    /// not `size`: then the index was wrong and the content has to be fetched again.
    ///
    /// # Errors
    /// The disk failed, or no descriptor is left.
    pub async fn open_blob(&self, digest: &Digest, size: u64) -> io::Result<Option<OpenBlob>> {
        match File::open(self.blob_path(digest)).await {
            Ok((file, found)) if found == size => Ok(Some(OpenBlob { file, size })),
            Ok((_, found)) => {
                tracing::warn!(%digest, expected = size, found,
                    "stored content has the wrong size and will be fetched again");
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Store {
    /// Reads small stored content whole and proves it by its digest. `None` when it is not there
    /// or is not what its name promises: then it has to be fetched again.
    ///
    /// # Errors
    /// The disk failed, or no descriptor is left.
    pub async fn read_small(&self, digest: &Digest, size: u64) -> io::Result<Option<Bytes>> {
        let (path, digest) = (self.blob_path(digest), *digest);
        let read = blocking(move || {
            let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
            let file = OpenOptions::new().read(true).custom_flags(nofollow).open(path)?;
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
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other,
        }
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn take_lock(root: &Path) -> Result<std::fs::File, StoreError> {
    let path = root.join("lock");
    let lock = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| StoreError::Io { path: path.clone(), source })?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Locked { path: root.to_owned() }),
        Err(errno) => Err(StoreError::Io { path, source: errno.into() }),
    }
}

fn sweep(staging: &Path) -> io::Result<usize> {
    let mut swept = 0;
    for entry in std::fs::read_dir(staging)? {
        std::fs::remove_file(entry?.path())?;
        swept += 1;
    }
    Ok(swept)
}
