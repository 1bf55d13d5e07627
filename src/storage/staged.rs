//! Content on its way in: hashed at once, written in pieces, then committed or gone.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::layout::Store;
use super::pieces::{Piece, Pieces};
use super::pool::Pool;
use crate::oci::{Digest, Digester};
use crate::runtime::{File, blocking_long, spawn};

/// Tries to take a place where something else stands.
const PLACE_TRIES_MAX: usize = 3;
/// Bytes read at once while hashing what came in any order.
const HASH_BUFFER: usize = 256 * 1024;

/// Why content did not become stored content.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StageError {
    /// The bytes are not what the digest promises.
    #[error(transparent)]
    Digest(Box<DigestMismatch>),
    /// The disk did not take it.
    #[error("cannot store {digest}: {cause}; check space and health of the disk")]
    Io {
        /// The content.
        digest: Box<Digest>,
        /// What the system said.
        cause: String,
        /// Whether the disk was full.
        full: bool,
    },
}

impl StageError {
    /// Whether it is only that the disk is full.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { full: true, .. })
    }
}

/// Content that is not what its digest promises.
#[derive(Debug, Clone, thiserror::Error)]
#[error("content of {size} bytes hashes to {found}, expected {expected}; nothing was kept")]
pub struct DigestMismatch {
    /// What was asked for.
    pub expected: Digest,
    /// What arrived.
    pub found: Digest,
    /// How many bytes arrived.
    pub size: u64,
}

/// A file in staging. Dropped without a commit, the file is removed.
pub struct Staged {
    pool: Arc<Pool>,
    path: Option<PathBuf>,
    file: Rc<File>,
    digest: Digest,
    digester: Digester,
    /// Bytes that it will have, as far as that is known; 0 else.
    expected: u64,
    pieces: Pieces,
    /// What the disk refused, and where: behind it there may be a hole, whatever was hashed.
    lost: Option<(u64, StageError)>,
}

/// Writes anywhere into a file in staging, for content that does not come in order.
#[derive(Clone)]
pub struct StagedWriter {
    file: Rc<File>,
    digest: Digest,
}

impl Staged {
    /// An empty staging file for content of this digest, in the pool of this number, with room for
    /// `bytes` that is taken from the disk, so that it cannot run out in the middle.
    ///
    /// # Errors
    /// The disk refused, or the pool takes nothing; [`StageError::Io`] with `full` when there is not
    /// that much.
    pub async fn create(
        store: &Store,
        pool: u8,
        digest: Digest,
        bytes: u64,
    ) -> Result<Self, StageError> {
        let pool = store.pool(pool).map_err(|error| io_error(&digest, &error))?.clone();
        pool.expect_well().map_err(|error| io_error(&digest, &error))?;
        let path = pool.staging_path();
        let file = File::create(path.clone(), bytes).await.map_err(|e| io_error(&digest, &e))?;
        let digester = Digester::new(digest.algorithm());
        let (path, file, pieces) = (Some(path), Rc::new(file), Pieces::behind(0));
        Ok(Self { pool, path, file, digest, digester, expected: bytes, pieces, lost: None })
    }

    /// Tells how many bytes it will have, where that was not known when it was made: the last of them
    /// need not be gathered.
    pub fn will_have(&mut self, bytes: u64) {
        self.expected = bytes;
    }

    /// Takes room for `bytes` from the disk, where nothing or less was asked for when it was made.
    ///
    /// # Errors
    /// As [`Staged::create`].
    pub async fn take_room(&self, bytes: u64) -> Result<(), StageError> {
        if bytes == 0 {
            return Ok(());
        }
        self.file.allocate(bytes).await.map_err(|error| io_error(&self.digest, &error))
    }

    pub(super) fn of_parts(
        pool: Arc<Pool>,
        path: PathBuf,
        file: Rc<File>,
        digest: Digest,
        digester: Digester,
        size: u64,
    ) -> Self {
        let (path, pieces) = (Some(path), Pieces::behind(size));
        Self { pool, path, file, digest, digester, expected: size, pieces, lost: None }
    }

    /// Appends `bytes`, hashing them on the way. What does not end a piece, or the content, is not
    /// written yet.
    ///
    /// # Errors
    /// The disk refused; the content must be given up.
    pub async fn append(&mut self, mut bytes: Bytes) -> Result<(), StageError> {
        self.expect_whole()?;
        self.digester.update(&bytes);
        let ends = self.size() + bytes.len() as u64 == self.expected;
        loop {
            let at = self.written();
            let Some(piece) = self.pieces.take(&mut bytes, ends) else { return Ok(()) };
            self.write(piece, at).await?;
        }
    }

    /// Writes what was appended and is not written yet.
    ///
    /// # Errors
    /// As [`Staged::append`].
    pub async fn settle(&mut self) -> Result<(), StageError> {
        self.expect_whole()?;
        let at = self.written();
        match self.pieces.rest() {
            Some(piece) => self.write(piece, at).await,
            None => Ok(()),
        }
    }

    async fn write(&mut self, piece: Piece, at: u64) -> Result<(), StageError> {
        let (written, piece) = piece.write(&self.file, at).await;
        self.pieces.give_back(piece);
        written.map_err(|error| {
            let error = io_error(&self.digest, &error);
            self.lost = Some((at, error.clone()));
            error
        })
    }

    /// Writes to it in any order. Whoever has written all of it calls [`Staged::hash_all`].
    pub fn writer(&self) -> StagedWriter {
        StagedWriter { file: self.file.clone(), digest: self.digest }
    }

    /// Reads the first `size` bytes again and hashes them, off the worker. Nothing may have been
    /// appended, and nobody may be writing any more.
    ///
    /// # Errors
    /// The disk failed, or the file is shorter.
    pub async fn hash_all(&mut self, size: u64) -> Result<(), StageError> {
        let failed = |error: io::Error| io_error(&self.digest, &error);
        let (file, digester) = (self.file.shared().clone(), Digester::new(self.digest.algorithm()));
        let hashed = blocking_long(move || hash(&file, digester, size)).await;
        self.digester = hashed.map_err(|error| failed(error.into()))?.map_err(failed)?;
        self.pieces = Pieces::behind(size);
        Ok(())
    }

    /// The number of the pool it is in.
    pub fn pool(&self) -> u8 {
        self.pool.number()
    }

    /// Bytes appended so far.
    pub fn size(&self) -> u64 {
        self.pieces.size()
    }

    /// How many of them are written.
    pub fn written(&self) -> u64 {
        let written = self.pieces.written();
        self.lost.as_ref().map_or(written, |(at, _)| written.min(*at))
    }

    /// Nothing that was appended is lost.
    fn expect_whole(&self) -> Result<(), StageError> {
        self.lost.as_ref().map_or(Ok(()), |(_, error)| Err(error.clone()))
    }

    /// The growing file, for readers on any worker. It stays readable after the commit.
    pub fn shared(&self) -> Arc<std::fs::File> {
        self.file.shared().clone()
    }

    /// Whether the bytes appended so far are exactly the promised content.
    ///
    /// # Errors
    /// [`StageError::Digest`]; what the disk refused before.
    pub fn verify(&self) -> Result<(), StageError> {
        self.expect_whole()?;
        let found = self.digester.clone().finish();
        if found == self.digest {
            return Ok(());
        }
        Err(StageError::Digest(Box::new(DigestMismatch {
            expected: self.digest,
            found,
            size: self.size(),
        })))
    }

    /// Verifies and moves the file to its place. With `durable` (hosted content) bytes and name
    /// are on disk when this returns; cached content skips the syncs, it can be fetched again.
    ///
    /// Nothing is replaced: a file that is there may be one that somebody was promised to find
    /// again. One with the same bytes is kept instead of this one, another one is set aside. Whoever
    /// names the content afterwards has its turn until then, see [`Store::turn`].
    ///
    /// # Errors
    /// Wrong digest or a failing disk; in both cases nothing may be named.
    pub async fn commit(mut self, durable: bool) -> Result<u64, StageError> {
        self.verify()?;
        self.settle().await?;
        let digest = self.digest;
        let failed = |error: io::Error| io_error(&digest, &error);
        let target = self.pool.blob_path(&digest);
        if durable {
            self.file.sync_data().await.map_err(|error| {
                self.pool.poison(&error);
                failed(error)
            })?;
            // An error is told once: it may have been told to somebody else's sync.
            self.pool.expect_well().map_err(failed)?;
        }
        self.take_place(&target, durable).await.map_err(failed)?;
        if durable
            && let Some(folder) = target.parent()
            && let Err(error) = File::sync_directory(folder.to_owned()).await
        {
            self.pool.poison(&error);
            // The file stays, without a name that leads to it: somebody else may have found it.
            return Err(failed(error));
        }
        Ok(self.size())
    }

    /// Moves the file to `target`, unless its like is there already.
    async fn take_place(&mut self, target: &Path, durable: bool) -> io::Result<()> {
        for _ in 0..PLACE_TRIES_MAX {
            let Some(from) = self.path.clone() else { return Ok(()) };
            match File::rename_new(from, target.to_owned()).await {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                moved => {
                    self.path = moved.is_err().then(|| self.path.take()).flatten();
                    return moved;
                }
            }
            let (pool, digest, size) = (self.pool.clone(), self.digest, self.size());
            if blocking_long(move || pool.keeps(&digest, size, durable)).await?? {
                return Ok(());
            }
        }
        let message = format!("{} is taken again as fast as it is cleared", target.display());
        Err(io::Error::other(message))
    }
}

impl StagedWriter {
    /// Writes `bytes` at `offset`, unhashed.
    ///
    /// # Errors
    /// The disk refused; the content must be given up.
    pub async fn write_at(&self, bytes: Bytes, offset: u64) -> Result<(), StageError> {
        let written = self.file.write_all_at(bytes, offset).await;
        written.map_err(|error| io_error(&self.digest, &error))
    }
}

/// Hashes the first `size` bytes of a file.
pub(super) fn hash(
    file: &std::fs::File,
    mut digester: Digester,
    size: u64,
) -> io::Result<Digester> {
    let (mut buffer, mut at) = (vec![0; HASH_BUFFER], 0);
    while at < size {
        let most = usize::try_from(size - at).unwrap_or(usize::MAX).min(HASH_BUFFER);
        let piece = buffer.get_mut(..most).unwrap_or_default();
        file.read_exact_at(piece, at)?;
        digester.update(piece);
        at += most as u64;
    }
    Ok(digester)
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            spawn(async move {
                if let Err(error) = File::remove(&path).await {
                    tracing::warn!(path = %path.display(), %error,
                        "a staging file could not be removed; the next start will");
                }
            });
        }
    }
}

fn io_error(digest: &Digest, error: &io::Error) -> StageError {
    let full = matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    );
    StageError::Io { digest: Box::new(*digest), cause: error.to_string(), full }
}
