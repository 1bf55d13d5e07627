//! Looking after stored files from threads that may wait: hashing them, setting damaged ones
//! aside, walking through all of them.

use std::fs::Metadata;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::{Advice, RenameFlags};

use super::pool::Pool;
use crate::oci::{Digest, Digester};
use crate::runtime::{File, clock};

/// Files put into quarantine by this process.
static QUARANTINED: AtomicU64 = AtomicU64::new(0);

/// How many files this process has put into quarantine.
pub(super) fn quarantined_count() -> u64 {
    QUARANTINED.load(Ordering::SeqCst)
}

/// Bytes read and hashed in one go.
const CHUNK_BYTES: usize = 256 * 1024;

/// Which file it was that was looked at: names may be given to another one meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
}

/// What a stored file turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inspection {
    /// Exactly what its name promises.
    Right {
        /// Its size in bytes.
        size: u64,
    },
    /// There is no file.
    Missing,
    /// There is one, and it must not be served.
    Damaged {
        /// What is wrong with it.
        why: String,
        /// Which file that was; `None` when it could not even be opened.
        identity: Option<FileIdentity>,
    },
    /// The caller has had enough before the end.
    Stopped,
}

/// A file that lies below `blobs` or `quarantine`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFile {
    /// Where.
    pub path: PathBuf,
    /// The pool's number.
    pub pool: u8,
    /// What its name and place promise; `None` when no content is called so.
    pub digest: Option<Digest>,
    /// When it was put into quarantine, Unix seconds; `None` when it does not lie there.
    pub quarantined_at: Option<u64>,
    /// Its size in bytes.
    pub size: u64,
    /// When it last came to be there or was changed.
    pub changed_at: SystemTime,
}

impl Pool {
    /// Reads stored content and compares it with its digest and `size`. After each piece `go_on` is
    /// told how many bytes were read, and says whether to go on.
    ///
    /// # Errors
    /// Only what is no fault of the file: no descriptor or memory is left.
    pub fn inspect(
        &self,
        digest: &Digest,
        size: u64,
        mut go_on: impl FnMut(u64) -> bool,
    ) -> io::Result<Inspection> {
        let path = self.blob_path(digest);
        let damaged = |why: String, identity| Ok(Inspection::Damaged { why, identity });
        let (mut file, metadata) = match File::open_plain(&path) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Inspection::Missing);
            }
            Err(error) if is_passing(&error) => return Err(error),
            Err(error) => return damaged(format!("it cannot be opened: {error}"), None),
        };
        let identity = Some(FileIdentity::of(&metadata));
        if !metadata.is_file() {
            return damaged("it is no regular file".to_owned(), identity);
        }
        if metadata.len() != size {
            return damaged(format!("it has {} bytes, expected {size}", metadata.len()), identity);
        }
        // Reading everything once must not push out what is in use. Only advice.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::NoReuse);
        let mut digester = Digester::new(digest.algorithm());
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut total = 0;
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    digester.update(buffer.get(..read).unwrap_or_default());
                    total += read as u64;
                    if !go_on(read as u64) {
                        return Ok(Inspection::Stopped);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_passing(&error) => return Err(error),
                Err(error) => {
                    return damaged(format!("reading failed at byte {total}: {error}"), identity);
                }
            }
        }
        let found = digester.finish();
        if found != *digest {
            return damaged(format!("it hashes to {found}"), identity);
        }
        if total != size {
            return damaged(format!("it had {total} bytes, expected {size}"), identity);
        }
        Ok(Inspection::Right { size })
    }

    /// Whether the file that stands in the place of this content is the same; then it stays, and
    /// with `durable` its bytes are on the disk when this returns. Whatever else stands there is set
    /// aside.
    ///
    /// # Errors
    /// It could not be told, made durable, or set aside.
    pub(super) fn keeps(&self, digest: &Digest, size: u64, durable: bool) -> io::Result<bool> {
        match self.inspect(digest, size, |_| true)? {
            Inspection::Right { .. } if durable => {
                let (file, _) = File::open_plain(&self.blob_path(digest))?;
                file.sync_data().inspect_err(|error| self.poison(error))?;
                Ok(true)
            }
            Inspection::Right { .. } => Ok(true),
            Inspection::Missing | Inspection::Stopped => Ok(false),
            Inspection::Damaged { why, identity } => {
                let identity = identity.map_or_else(|| self.identity(digest), |it| Ok(Some(it)))?;
                let path = self.blob_path(digest);
                let to = self.quarantine(&path, identity)?;
                tracing::warn!(%digest, why, ?to, "what stood in the place of content is set aside");
                Ok(false)
            }
        }
    }

    /// The file that has this content's name now, if there is one.
    ///
    /// # Errors
    /// As lstat(2), except ENOENT.
    pub fn identity(&self, digest: &Digest) -> io::Result<Option<FileIdentity>> {
        match std::fs::symlink_metadata(self.blob_path(digest)) {
            Ok(metadata) => Ok(Some(FileIdentity::of(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Moves a file out of `blobs` into `quarantine`; returns where it is now. With `identity`
    /// only that file is moved: another one that has taken its name stays, and `None` is returned.
    ///
    /// # Errors
    /// As rename(2).
    pub fn quarantine(
        &self,
        path: &Path,
        identity: Option<FileIdentity>,
    ) -> io::Result<Option<PathBuf>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let folder = self.quarantine_folder();
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let to = folder.join(format!("{:x}-{n:x}-{name}", clock::unix_seconds()));
        let cwd = rustix::fs::CWD;
        rustix::fs::renameat_with(cwd, path, cwd, &to, RenameFlags::NOREPLACE)?;
        let moved = FileIdentity::of(&std::fs::symlink_metadata(&to)?);
        if identity.is_some_and(|expected| expected != moved) {
            rustix::fs::renameat_with(cwd, &to, cwd, path, RenameFlags::NOREPLACE)?;
            return Ok(None);
        }
        // Whoever keeps it open learns that it is not what lies under its name any more.
        QUARANTINED.fetch_add(1, Ordering::SeqCst);
        Ok(Some(to))
    }

    /// Removes what lies in quarantine for good; what is gone already is fine.
    ///
    /// # Errors
    /// As unlink(2), except ENOENT.
    pub fn discard(&self, file: &FoundFile) -> io::Result<()> {
        let is_folder = std::fs::symlink_metadata(&file.path).is_ok_and(|found| found.is_dir());
        let removed = match is_folder {
            true => std::fs::remove_dir_all(&file.path),
            false => std::fs::remove_file(&file.path),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// What lies in a folder of the pool; empty when there is no such folder. One folder at a
    /// time, so that what is held in memory stays small.
    ///
    /// # Errors
    /// As readdir(3).
    pub fn files_in(&self, folder: &Path) -> io::Result<Vec<FoundFile>> {
        let entries = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            found.extend(self.file_at(&entry?.path())?);
        }
        Ok(found)
    }

    /// What lies at this path of the pool, if anything does.
    ///
    /// # Errors
    /// As lstat(2), except ENOENT.
    pub fn file_at(&self, path: &Path) -> io::Result<Option<FoundFile>> {
        let metadata = match std::fs::symlink_metadata(path) {
            // It has just gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata?,
        };
        Ok(Some(FoundFile {
            digest: self.digest_of(path),
            quarantined_at: self.quarantined_at(path),
            size: if metadata.is_file() { metadata.len() } else { 0 },
            changed_at: changed_at(&metadata),
            path: path.to_owned(),
            pool: self.number(),
        }))
    }

    /// The time in the name that [`Pool::quarantine`] gave it. Not the file's own times: these
    /// need not change with a move.
    fn quarantined_at(&self, path: &Path) -> Option<u64> {
        let name = path.strip_prefix(self.quarantine_folder()).ok()?.to_str()?;
        u64::from_str_radix(name.split('-').next()?, 16).ok()
    }

    /// The digest whose file lies at `path`.
    fn digest_of(&self, path: &Path) -> Option<Digest> {
        let hex = path.file_name()?.to_str()?;
        let algorithm = path.parent()?.parent()?.file_name()?.to_str()?;
        let digest = Digest::parse(&format!("{algorithm}:{hex}")).ok()?;
        (self.blob_path(&digest) == *path).then_some(digest)
    }
}

impl FileIdentity {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// The last change of content, name or place (ctime): a file keeps its other times when it moves.
fn changed_at(metadata: &Metadata) -> SystemTime {
    let seconds = u64::try_from(metadata.ctime()).unwrap_or(0);
    let nanos = u32::try_from(metadata.ctime_nsec()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos.min(999_999_999))
}

/// Errors of the process or the machine, which say nothing about the file.
pub(super) fn is_passing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let passing = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
    passing.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
