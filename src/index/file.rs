//! A mapped file and its header: made, recognised, marked. Index and small-object files share it.
//!
//! **Invariant:** recognition fails closed. Whatever is not exactly as expected is not read at
//! all; there is no repair.
//! **Invariant:** a file says "not clean" on disk before anything is stored through its map, and
//! "clean" only after everything stored is on disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::layout::{HEADER_BYTES, HEADERS_AT, Header, LAYOUT_HASH, SCHEMA};
use super::map::Map;

/// What a file has to say to be believed.
pub(super) struct Gates {
    pub(super) magic: u64,
    pub(super) store_id: [u8; 16],
    pub(super) boot_id: Option<[u8; 16]>,
    /// What the whole file must measure for a given size field; `None` for an impossible size.
    pub(super) file_bytes: fn(u64) -> Option<u64>,
    /// Whether a file that does not hold everything yet is of use.
    pub(super) needs_complete: bool,
}

/// A mapped file with a header.
pub(super) struct IndexFile {
    map: Map,
    header: Mutex<Header>,
    path: Option<PathBuf>,
}

impl IndexFile {
    /// Makes the file at `path`; in memory without a file when that cannot be done there.
    ///
    /// # Errors
    /// Neither is possible; the error is that of the file.
    pub(super) fn create_somewhere(path: &Path, header: Header) -> io::Result<Self> {
        Self::create(path, header).or_else(|error| {
            let map = Map::anonymous(header.file_bytes)
                .map_err(|_| io::Error::other(format!("{error}; nor is there memory for it")))?;
            tracing::warn!(path = %path.display(), %error,
                bytes = header.file_bytes,
                "the index is kept in memory and will be rebuilt at each start: its file cannot \
                 be made; put the store on a local disk (ext4, xfs) with enough free space");
            Self::begin(map, header, None)
        })
    }

    /// Makes the file at `path`, where none is. Its header is on disk when this returns.
    ///
    /// # Errors
    /// No space, no permission, an unsuitable file system, or the disk failed.
    pub(super) fn create(path: &Path, header: Header) -> io::Result<Self> {
        let map = Map::create(path, header.file_bytes)?;
        Self::begin(map, header, Some(path.to_owned())).inspect_err(|_| {
            // If that fails, too, the next start does not believe the file and removes it.
            let _ = std::fs::remove_file(path);
        })
    }

    fn begin(map: Map, header: Header, path: Option<PathBuf>) -> io::Result<Self> {
        let file = Self { map, header: Mutex::new(header), path };
        file.mark(|_| ())?;
        if let Some(path) = &file.path {
            file.map.sync()?;
            if let Some(folder) = path.parent() {
                File::open(folder)?.sync_all()?;
            }
        }
        Ok(file)
    }

    /// A file that was just made, to be filled at random: see [`Map::filled_first`].
    pub(super) fn filled_first(self) -> Self {
        if self.path.is_none() {
            return self;
        }
        Self { map: self.map.filled_first(), ..self }
    }

    /// Opens what an earlier process left, and marks it as in use; with it, whether that process
    /// had closed it.
    ///
    /// # Errors
    /// Why the file is not to be believed, as a sentence.
    pub(super) fn open(path: &Path, gates: &Gates) -> Result<(Self, bool), String> {
        let text = |error: io::Error| format!("it cannot be read: {error}");
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(text)?;
        let metadata = file.metadata().map_err(text)?;
        if !metadata.is_file() {
            return Err("it is not a plain file".to_owned());
        }
        let found = newest(&file).ok_or("neither copy of its header is whole")?;
        gates.admit(&found, metadata.len())?;
        let map = Map::over(file, found.file_bytes).map_err(text)?;
        let opened = Self { map, header: Mutex::new(found), path: Some(path.to_owned()) };
        let was_clean = found.is_clean;
        opened
            .mark(|header| {
                header.is_clean = false;
                header.boot_id = gates.boot_id.unwrap_or_default();
            })
            .and_then(|()| {
                // A file that was not clean says so on disk already; syncing it would write back
                // all that the killed process stored, for nothing.
                if was_clean { opened.map.sync() } else { Ok(()) }
            })
            .map_err(|error| format!("it cannot be marked as in use: {error}"))?;
        Ok((opened, was_clean))
    }

    pub(super) fn map(&self) -> &Map {
        &self.map
    }

    pub(super) fn header(&self) -> Header {
        *self.lock()
    }

    /// Whether it will be there after a restart.
    pub(super) fn is_on_disk(&self) -> bool {
        self.path.is_some()
    }

    /// Changes the header, over the older copy. Not synced.
    ///
    /// # Errors
    /// The disk failed.
    pub(super) fn mark(&self, change: impl FnOnce(&mut Header)) -> io::Result<()> {
        let mut header = self.lock();
        let mut next = *header;
        change(&mut next);
        next.sequence = next.sequence.wrapping_add(1);
        let [even, odd] = HEADERS_AT;
        let at = if next.sequence.is_multiple_of(2) { even } else { odd };
        self.map.write_at(&next.encode(), at)?;
        *header = next;
        Ok(())
    }

    /// Puts everything on disk, then says so in the header.
    ///
    /// # Errors
    /// The disk failed; the file stays "not clean" and the next start does not believe it.
    pub(super) fn close(&self, is_complete: bool) -> io::Result<()> {
        if self.path.is_none() || self.map.is_poisoned() {
            return Ok(());
        }
        self.map.sync()?;
        self.mark(|header| {
            header.is_clean = true;
            header.is_complete = is_complete;
        })?;
        self.map.sync()
    }

    /// Removes the name; the map stays usable until it is dropped.
    pub(super) fn remove(&self) {
        let Some(path) = &self.path else { return };
        // Marked first: should the name stay, no later start must take what is in there for all.
        let marked = self.mark(|header| header.is_complete = false);
        if let Err(error) = marked.and_then(|()| std::fs::remove_file(path)) {
            tracing::warn!(path = %path.display(), %error, "an old index file was not removed");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Header> {
        self.header.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gates {
    /// In the order of reliability.md, section 6, rule 3: each later gate trusts the earlier.
    fn admit(&self, found: &Header, length: u64) -> Result<(), String> {
        if found.magic != self.magic {
            return Err("it is another kind of file".to_owned());
        }
        if found.schema != SCHEMA {
            return Err(format!("it has schema {} and this version writes {SCHEMA}", found.schema));
        }
        if found.layout != LAYOUT_HASH {
            return Err("a build with another layout wrote it".to_owned());
        }
        if found.store_id != self.store_id {
            return Err("it belongs to another store".to_owned());
        }
        let expected = (self.file_bytes)(found.size);
        if expected != Some(found.file_bytes) || length != found.file_bytes {
            return Err(format!(
                "it has {length} bytes, its header says {}, and that does not fit its size",
                found.file_bytes
            ));
        }
        if self.needs_complete && !found.is_complete {
            return Err("it had not been filled, or had lost entries".to_owned());
        }
        let is_same_boot = self.boot_id.is_some_and(|boot_id| boot_id == found.boot_id);
        if !found.is_clean && !is_same_boot {
            return Err("the machine went down without closing it".to_owned());
        }
        Ok(())
    }
}

/// The valid header copy with the higher sequence.
fn newest(file: &File) -> Option<Header> {
    use std::os::unix::fs::FileExt as _;
    let copies = HEADERS_AT.map(|at| {
        let mut bytes = [0; HEADER_BYTES];
        file.read_exact_at(&mut bytes, at as u64).ok()?;
        Header::decode(&bytes)
    });
    copies.into_iter().flatten().max_by_key(|header| header.sequence)
}

/// The id of this boot of the machine. `None` where the kernel does not tell.
pub(super) fn boot_id() -> Option<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    parse_boot_id(text.trim())
}

fn parse_boot_id(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let id = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)?;
    (id != 0).then(|| id.to_le_bytes())
}
