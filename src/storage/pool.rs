//! One pool: a folder on some disk, with blobs, staging and quarantine of its own.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::inspect::is_passing;
use crate::oci::{Algorithm, Digest};
use crate::runtime::clock;

/// A pool that is there. Its lock is held until it is dropped.
pub struct Pool {
    number: u8,
    name: String,
    root: PathBuf,
    boot: u64,
    next: AtomicU64,
    poisoned: AtomicBool,
    device: u64,
    lock: std::fs::File,
}

impl Pool {
    pub(super) fn new(number: u8, name: &str, root: PathBuf, lock: std::fs::File) -> Self {
        Self {
            number,
            name: name.to_owned(),
            root,
            boot: clock::unix_seconds(),
            next: AtomicU64::new(0),
            poisoned: AtomicBool::new(false),
            device: lock.metadata().map_or(0, |metadata| metadata.dev()),
            lock,
        }
    }

    /// Makes the folders that are missing and empties staging; returns how many files that were.
    /// The error tells where.
    pub(super) fn prepare(&self) -> Result<usize, (PathBuf, io::Error)> {
        for folder in self.blob_folders() {
            make_folder(&folder).map_err(|error| (folder, error))?;
        }
        let uploads = self.uploads_folder();
        make_folder(&uploads).map_err(|error| (uploads, error))?;
        let staging = self.root.join("staging");
        make_folder(&staging).and_then(|()| sweep(&staging)).map_err(|error| (staging, error))
    }

    /// What the catalog's records call it.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// What the configuration calls it; `root` for the store's root.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Names the file system it lies on.
    pub(super) fn device(&self) -> u64 {
        self.device
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

    /// The folders that hold stored content.
    pub fn blob_folders(&self) -> Vec<PathBuf> {
        let of = |algorithm: Algorithm| {
            let folder = self.root.join("blobs").join(algorithm.as_str());
            (0..=255_u8).map(move |shard| folder.join(format!("{shard:02x}")))
        };
        of(Algorithm::Sha256).chain(of(Algorithm::Sha512)).collect()
    }

    /// Where damaged files go.
    pub fn quarantine_folder(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// A staging path that no other fill of this or an earlier process uses.
    pub(super) fn staging_path(&self) -> PathBuf {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        self.root.join("staging").join(format!("{:x}-{n:x}", self.boot))
    }

    /// Takes no more content until the process is started again: a sync has failed, and what the
    /// disk holds of later writes nobody can tell (an error is told only once). What is stored is
    /// read on.
    ///
    /// What the process or the machine was short of before the disk was asked says nothing of it.
    pub(super) fn poison(&self, error: &io::Error) {
        if error.raw_os_error().is_none() || is_passing(error) {
            return;
        }
        if !self.poisoned.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, pool = self.name, root = %self.root.display(),
                "a disk failed: the pool takes nothing more; check the disk and start again");
        }
    }

    /// Whether it takes no more content.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Relaxed)
    }

    /// That it takes content.
    pub(super) fn expect_well(&self) -> io::Result<()> {
        if self.is_poisoned() {
            let why = format!("the pool {} is read-only since its disk failed", self.name);
            return Err(io::Error::other(why));
        }
        Ok(())
    }

    /// Makes everything in it durable (syncfs). When that fails, it takes no more content. Blocks.
    ///
    /// # Errors
    /// Some bytes did not reach the disk, and nobody can tell which.
    pub fn sync(&self) -> io::Result<()> {
        rustix::fs::syncfs(&self.lock).map_err(|errno| {
            let error = io::Error::from(errno);
            self.poison(&error);
            error
        })
    }

    /// Bytes that its file system still has room for. Blocks.
    pub(super) fn disk_free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.lock)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// `false` when another process holds it.
pub(super) fn take_lock(file: &std::fs::File) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether this is the fault of a disk, or of the way to it, and not of how it was set up.
pub(super) fn is_disk_fault(error: &io::Error) -> bool {
    let faults = [
        Errno::IO,
        Errno::ROFS,
        Errno::NXIO,
        Errno::NODEV,
        Errno::STALE,
        Errno::NOTCONN,
        Errno::TIMEDOUT,
        Errno::UCLEAN,
        Errno::NOMEDIUM,
        Errno::REMOTEIO,
    ];
    faults.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn sweep(staging: &Path) -> io::Result<usize> {
    let mut swept = 0;
    for entry in std::fs::read_dir(staging)? {
        let entry = entry?;
        // Nothing of ours, but no reason not to start either.
        match entry.file_type()?.is_dir() {
            true => std::fs::remove_dir_all(entry.path())?,
            false => std::fs::remove_file(entry.path())?,
        }
        swept += 1;
    }
    Ok(swept)
}
