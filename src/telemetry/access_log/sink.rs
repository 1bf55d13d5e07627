//! Where the lines go.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::AccessLogError;
use crate::config::AccessTarget;

/// How often it is looked whether the file was renamed or removed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// An open target.
pub(super) enum Sink {
    Stdout,
    Stderr,
    File { file: File, path: PathBuf, looked: Instant },
}

impl Sink {
    /// `None` for the target "off".
    pub(super) fn open(target: &AccessTarget) -> Result<Option<Sink>, AccessLogError> {
        match target {
            AccessTarget::Off => Ok(None),
            AccessTarget::Stdout => Ok(Some(Sink::Stdout)),
            AccessTarget::Stderr => Ok(Some(Sink::Stderr)),
            AccessTarget::File(path) => match append_to(path) {
                Ok(file) => {
                    let looked = Instant::now();
                    Ok(Some(Sink::File { file, path: path.clone(), looked }))
                }
                Err(source) => {
                    Err(AccessLogError::Open { path: path.display().to_string(), source })
                }
            },
        }
    }

    /// Writes whole lines. A file that was renamed (logrotate) or removed is opened anew first.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Sink::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(lines).and_then(|()| out.flush())
            }
            Sink::Stderr => io::stderr().lock().write_all(lines),
            Sink::File { file, path, looked } => {
                if looked.elapsed() >= LOOK_EVERY {
                    *looked = Instant::now();
                    if !is_at(file, path) {
                        *file = append_to(path)?;
                    }
                }
                file.write_all(lines)
            }
        }
    }
}

/// Readable by the owner and the group: user agents and addresses are nobody else's business.
fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// Whether `path` still names `file`.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => identity(open) == identity(named),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renamed_file_is_opened_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        let mut sink = Sink::open(&AccessTarget::File(path.clone())).expect("opened").expect("on");
        sink.write(b"one\n").expect("written");
        std::fs::rename(&path, folder.path().join("old.log")).expect("renamed");
        if let Sink::File { looked, .. } = &mut sink {
            *looked =
                Instant::now().checked_sub(LOOK_EVERY).expect("a clock past its first second");
        }
        sink.write(b"two\n").expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "two\n");
        let old = std::fs::read_to_string(folder.path().join("old.log")).expect("read");
        assert_eq!(old, "one\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let target = AccessTarget::File("/proc/none/access.log".into());
        let error = Sink::open(&target).err().expect("refused").to_string();
        assert!(error.contains("/proc/none/access.log") && error.contains("log.access"), "{error}");
    }
}
