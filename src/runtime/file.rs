//! Positional file I/O that never blocks the worker: the ring, or the blocking pool on epoll.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{OFlags, RenameFlags};
use rustix::io::Errno;

use super::blocking::blocking;

/// An open file. The inner handle can be shared with other workers, each of which makes its own
/// `File` of it.
pub struct File {
    shared: Arc<std::fs::File>,
    // The ring needs an owner of its own (a duplicate), made on first use.
    ring: Option<monoio::fs::File>,
}

impl File {
    /// Opens an existing file for reading and tells its length in bytes.
    ///
    /// # Errors
    /// As open(2) and fstat(2); a symbolic link as last path component is refused. EISDIR for
    /// whatever else is no regular file.
    pub async fn open(path: PathBuf) -> io::Result<(Arc<std::fs::File>, u64)> {
        blocking(move || {
            let (file, length) = Self::open_regular(&path)?;
            Ok((Arc::new(file), length))
        })
        .await?
    }

    /// The same from a thread that may wait.
    ///
    /// # Errors
    /// As [`File::open`].
    pub fn open_regular(path: &Path) -> io::Result<(std::fs::File, u64)> {
        let (file, metadata) = Self::open_plain(path)?;
        if !metadata.is_file() {
            return Err(Errno::ISDIR.into());
        }
        Ok((file, metadata.len()))
    }

    /// Opens whatever stands there, and tells what it is. Blocks.
    ///
    /// # Errors
    /// As open(2) and fstat(2); a symbolic link as last path component is refused.
    pub fn open_plain(path: &Path) -> io::Result<(std::fs::File, std::fs::Metadata)> {
        // Without waiting: a FIFO that somebody put there must not hold us up for ever.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        Ok((file, metadata))
    }

    /// Creates a file that must not exist yet, for writing and reading, mode 0600, and takes `room`
    /// bytes from the disk for it, so that they cannot lack later. Where the file system cannot,
    /// nothing is promised.
    ///
    /// # Errors
    /// As open(2); ENOSPC and its like.
    pub async fn create(path: PathBuf, room: u64) -> io::Result<Self> {
        let to_open = path.clone();
        let file = blocking(move || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(0o600);
            let file = options.open(&to_open)?;
            allocate(&file, room).inspect_err(|_| {
                // Best effort: staging is swept at the next start in any case.
                let _ = std::fs::remove_file(&to_open);
            })?;
            Ok::<_, io::Error>(file)
        })
        .await??;
        let made = Self::from_shared(Arc::new(file));
        if made.is_err() {
            // As above.
            let _ = Self::remove(&path).await;
        }
        made
    }

    /// Opens a file for writing and reading, and makes it if it is not there, mode 0600.
    ///
    /// # Errors
    /// As open(2); a symbolic link as last path component is refused.
    pub async fn open_or_create(path: PathBuf) -> io::Result<Self> {
        let file = blocking(move || {
            let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            options.custom_flags(flags).open(path)
        })
        .await??;
        Self::from_shared(Arc::new(file))
    }

    /// Takes a shared handle into use on this worker.
    ///
    /// # Errors
    /// No descriptor is left for the ring's duplicate.
    pub fn from_shared(shared: Arc<std::fs::File>) -> io::Result<Self> {
        let ring = if monoio::utils::is_legacy() {
            None
        } else {
            Some(monoio::fs::File::from_std(shared.try_clone()?)?)
        };
        Ok(Self { shared, ring })
    }

    /// The handle that other workers may read from.
    pub fn shared(&self) -> &Arc<std::fs::File> {
        &self.shared
    }

    /// Takes room for the first `length` bytes from the disk (fallocate). Where the file system
    /// cannot, nothing is promised.
    ///
    /// # Errors
    /// ENOSPC and its like.
    pub async fn allocate(&self, length: u64) -> io::Result<()> {
        let file = self.shared.clone();
        blocking(move || allocate(&file, length)).await?
    }

    /// Takes room for `length` bytes behind `from` without making the file longer. Where the file
    /// system cannot, nothing is promised.
    ///
    /// # Errors
    /// ENOSPC and its like.
    pub async fn allocate_behind(&self, from: u64, length: u64) -> io::Result<()> {
        let file = self.shared.clone();
        blocking(move || {
            let flags = rustix::fs::FallocateFlags::KEEP_SIZE;
            match rustix::fs::fallocate(&file, flags, from, length) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        })
        .await?
    }

    /// Cuts it off behind `length` bytes, and gives back what was taken from the disk for more.
    ///
    /// # Errors
    /// As ftruncate(2).
    pub async fn cut(&self, length: u64) -> io::Result<()> {
        let file = self.shared.clone();
        blocking(move || file.set_len(length)).await?
    }

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// As pwrite(2), ENOSPC and EIO above all.
    pub async fn write_all_at(&self, bytes: Bytes, offset: u64) -> io::Result<()> {
        match &self.ring {
            Some(ring) => ring.write_all_at(bytes, offset).await.0,
            None => {
                let file = self.shared.clone();
                blocking(move || file.write_all_at(&bytes, offset)).await?
            }
        }
    }

    /// The same of a buffer that is to be used again: it comes back in any case but one, that nobody
    /// is left to do the work.
    ///
    /// # Errors
    /// As [`File::write_all_at`].
    pub async fn write_buffer_at(&self, buffer: Vec<u8>, offset: u64) -> (io::Result<()>, Vec<u8>) {
        match &self.ring {
            Some(ring) => ring.write_all_at(buffer, offset).await,
            None => {
                let file = self.shared.clone();
                let written = blocking(move || (file.write_all_at(&buffer, offset), buffer)).await;
                written.unwrap_or_else(|error| (Err(error.into()), Vec::new()))
            }
        }
    }

    /// Reads up to `length` bytes at `offset`; fewer at the end of the file.
    ///
    /// # Errors
    /// As pread(2).
    pub async fn read_at(&self, length: usize, offset: u64) -> io::Result<Vec<u8>> {
        match &self.ring {
            Some(ring) => {
                let (result, mut buffer) = ring.read_at(Vec::with_capacity(length), offset).await;
                buffer.truncate(result?);
                Ok(buffer)
            }
            None => {
                let file = self.shared.clone();
                blocking(move || {
                    let mut buffer = vec![0; length];
                    let read = file.read_at(&mut buffer, offset)?;
                    buffer.truncate(read);
                    Ok(buffer)
                })
                .await?
            }
        }
    }

    /// Makes the content durable (fdatasync).
    ///
    /// # Errors
    /// Whatever the disk says; an error is told once only, so the file must then be given up.
    pub async fn sync_data(&self) -> io::Result<()> {
        match &self.ring {
            Some(ring) => ring.sync_data().await,
            None => {
                let file = self.shared.clone();
                blocking(move || file.sync_data()).await?
            }
        }
    }

    /// Moves a file within its file system to a name that nothing has.
    ///
    /// # Errors
    /// As renameat2(2): `AlreadyExists` when something has it, which stays.
    pub async fn rename_new(from: PathBuf, to: PathBuf) -> io::Result<()> {
        blocking(move || {
            let cwd = rustix::fs::CWD;
            match rustix::fs::renameat_with(cwd, &from, cwd, &to, RenameFlags::NOREPLACE) {
                // Where the file system cannot (NFS): a link replaces nothing either.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    std::fs::hard_link(&from, &to)?;
                    std::fs::remove_file(&from)
                }
                renamed => Ok(renamed?),
            }
        })
        .await?
    }

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// As fsync(2).
    pub async fn sync_directory(path: PathBuf) -> io::Result<()> {
        blocking(move || std::fs::File::open(path)?.sync_all()).await?
    }

    /// Removes a file; one that is not there is fine.
    ///
    /// # Errors
    /// As unlink(2), except ENOENT.
    pub async fn remove(path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        let removed = blocking(move || std::fs::remove_file(path)).await?;
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// Takes room for a file of `length` bytes from the disk, where the file system can.
fn allocate(file: &std::fs::File, length: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, length) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
