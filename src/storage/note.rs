//! Small texts beside the catalog that would be good to have after a restart and may be lost.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::Store;

/// Longest note, in bytes; a longer file was not written here.
const NOTE_BYTES_MAX: u64 = 1024 * 1024;

/// Which note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// What is left of the upstreams' rate limits.
    RateLimits,
}

impl Note {
    fn file_name(self) -> &'static str {
        match self {
            Self::RateLimits => "rate-limits.json",
        }
    }
}

impl Store {
    /// What was kept last; `None`: nothing. Blocks.
    ///
    /// # Errors
    /// The file cannot be read, or is longer than 1 MiB.
    pub fn note(&self, note: Note) -> io::Result<Option<String>> {
        let file = match std::fs::File::open(self.note_path(note)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut text = String::new();
        file.take(NOTE_BYTES_MAX + 1).read_to_string(&mut text)?;
        match text.len() as u64 > NOTE_BYTES_MAX {
            true => Err(io::Error::new(ErrorKind::InvalidData, "longer than 1 MiB")),
            false => Ok(Some(text)),
        }
    }

    /// Keeps another text in the place of the one before, whole or not at all. Blocks. It is not
    /// synced: a power cut may bring the one before back.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_note(&self, note: Note, text: &str) -> io::Result<()> {
        let path = self.note_path(note);
        let new = path.with_extension("new");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(&new, &path)
    }

    /// Where a note lies, for messages.
    pub fn note_path(&self, note: Note) -> PathBuf {
        self.root().join(note.file_name())
    }
}
