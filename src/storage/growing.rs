//! Content that comes in several requests: a file of its own below `uploads`, which outlives the
//! process, until it is committed or removed.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use super::layout::Store;
use super::pieces::Piece;
use super::pool::Pool;
use super::staged::{Staged, hash};
use crate::oci::{Algorithm, Digest, Digester};
use crate::runtime::{File, blocking_long};

/// The file of one upload, opened for one request. What stands in it behind the bytes that were
/// acknowledged means nothing.
#[derive(Clone)]
pub struct Growing {
    pool: Arc<Pool>,
    path: PathBuf,
    file: Rc<File>,
}

/// A file below `uploads`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundUpload {
    /// The upload's number; `None` when no upload is called so.
    pub number: Option<u128>,
    /// Where.
    pub path: PathBuf,
    /// The number of its pool.
    pub pool: u8,
    /// Its size in bytes.
    pub size: u64,
}

impl Growing {
    /// Opens the file of the upload of this number, and makes it if it is not there.
    ///
    /// # Errors
    /// The disk refused, or the pool is missing or takes nothing.
    pub async fn open(store: &Store, pool: u8, number: u128) -> io::Result<Self> {
        let pool = store.pool(pool)?.clone();
        pool.expect_well()?;
        let path = pool.upload_path(number);
        let file = Rc::new(File::open_or_create(path.clone()).await?);
        Ok(Self { pool, path, file })
    }

    /// Takes room for `length` bytes behind `from` from the disk.
    ///
    /// # Errors
    /// There is not that much.
    pub async fn allocate_behind(&self, from: u64, length: u64) -> io::Result<()> {
        self.file.allocate_behind(from, length).await
    }

    /// Writes at `offset`, and returns what was written.
    ///
    /// # Errors
    /// The disk refused; some of it may have been written.
    pub async fn write_at(&self, piece: Piece, offset: u64) -> (io::Result<()>, Piece) {
        piece.write(&self.file, offset).await
    }

    /// Drops what stands behind `length` bytes.
    ///
    /// # Errors
    /// As ftruncate(2).
    pub async fn cut(&self, length: u64) -> io::Result<()> {
        self.file.cut(length).await
    }

    /// Makes what was written so far durable, and the file's name too. A failure ends writing to
    /// the pool: what the disk holds of it then nobody can tell.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub async fn sync(&self) -> io::Result<()> {
        let synced = self.sync_data().await;
        let synced = match self.path.parent() {
            Some(folder) if synced.is_ok() => File::sync_directory(folder.to_owned()).await,
            _ => synced,
        };
        synced.inspect_err(|error| self.pool.poison(error))
    }

    /// The same of the bytes only.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub async fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data().await.inspect_err(|error| self.pool.poison(error))
    }

    /// Reads the first `size` bytes and hashes them, off the worker. Nobody may be writing.
    ///
    /// # Errors
    /// The disk failed, or the file is shorter.
    pub async fn hash(&self, algorithm: Algorithm, size: u64) -> io::Result<Digester> {
        let file = self.file.shared().clone();
        blocking_long(move || hash(&file, Digester::new(algorithm), size)).await?
    }

    /// Takes it for content of this digest, to be committed: `digester` has seen its `size` bytes,
    /// and nothing stands behind them. From now on it is removed when it is dropped.
    pub fn into_staged(self, digest: Digest, digester: Digester, size: u64) -> Staged {
        Staged::of_parts(self.pool, self.path, self.file, digest, digester, size)
    }
}

impl Pool {
    pub(super) fn uploads_folder(&self) -> PathBuf {
        self.root().join("uploads")
    }

    fn upload_path(&self, number: u128) -> PathBuf {
        self.uploads_folder().join(format!("{number:032x}"))
    }

    /// All that lies below `uploads`. Blocks.
    ///
    /// # Errors
    /// As readdir(3) and lstat(2).
    pub fn uploads(&self) -> io::Result<Vec<FoundUpload>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.uploads_folder())? {
            let path = entry?.path();
            let metadata = std::fs::symlink_metadata(&path)?;
            let name = path.file_name().and_then(|name| name.to_str());
            let number = name.filter(|_| metadata.is_file());
            let number = number.and_then(|name| u128::from_str_radix(name, 16).ok());
            let number = number.filter(|number| self.upload_path(*number) == path);
            found.push(FoundUpload { number, path, pool: self.number(), size: metadata.len() });
        }
        Ok(found)
    }

    /// Removes the file of an upload; one that is not there is fine. Blocks.
    ///
    /// # Errors
    /// As unlink(2), except ENOENT.
    pub fn remove_upload(&self, number: u128) -> io::Result<()> {
        match std::fs::remove_file(self.upload_path(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Cuts the file of an upload off behind `length` bytes. Blocks.
    ///
    /// # Errors
    /// As open(2) and ftruncate(2).
    pub fn cut_upload(&self, number: u128, length: u64) -> io::Result<()> {
        let file = std::fs::OpenOptions::new().write(true).open(self.upload_path(number))?;
        file.set_len(length)
    }
}
