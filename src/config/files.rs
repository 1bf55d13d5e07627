//! The files that a configuration names: present, readable, and secrets closed to others.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Permission bits a secret file must not have: write for the group, anything for others.
const OPEN_TO_OTHERS: u32 = 0o027;

/// Permission bits a program must not have: write for anybody but the owner.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why a file can't be used, in the words of a `Problem`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub expected: &'static str,
    pub found: String,
    pub remedy: String,
}

/// A regular file that this process may open.
pub(super) fn readable(path: &Path) -> Result<(), Refusal> {
    open(path).map(|_mode| ())
}

/// A readable file that its owner (0600) or its owner and group (0640) alone can read.
pub(super) fn secret(path: &Path) -> Result<(), Refusal> {
    let mode = open(path)?;
    if mode & OPEN_TO_OTHERS == 0 {
        return Ok(());
    }
    let shown = path.display();
    Err(Refusal {
        expected: "a secret file with mode 0600 or 0640",
        found: format!("{shown} with mode {mode:04o}"),
        remedy: format!("run: chmod 600 {shown}"),
    })
}

/// A program that nobody but root and us may exchange for another.
pub(super) fn program(path: &Path) -> Result<(), Refusal> {
    let shown = path.display();
    let refused = |found: String, remedy: String| Refusal {
        expected: "a program that belongs to root or to the user we run as, and that only its owner \
                   can write",
        found,
        remedy,
    };
    let metadata = std::fs::metadata(path)
        .map_err(|error| refused(format!("{shown}: {error}"), String::new()))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if !metadata.is_file() {
        return Err(refused(format!("{shown}, which is no regular file"), String::new()));
    }
    if mode & 0o111 == 0 {
        let found = format!("{shown} with mode {mode:04o}, which can't be run");
        return Err(refused(found, format!("run: chmod 755 {shown}")));
    }
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != 0 && metadata.uid() != own {
        let found = format!("{shown}, which belongs to the user {}", metadata.uid());
        return Err(refused(found, format!("run: chown root {shown}")));
    }
    match mode & WRITABLE_BY_OTHERS {
        0 => Ok(()),
        _ => {
            let found = format!("{shown} with mode {mode:04o}");
            Err(refused(found, format!("run: chmod go-w {shown}")))
        }
    }
}

/// Whether a configured program may still be run: an absolute path, a file that belongs to root or
/// to us, that can be run, and that nobody else can write.
///
/// # Errors
/// What was expected and found, and the way out, in one sentence.
pub fn check_program(path: &Path) -> Result<(), String> {
    program(path).map_err(sentence)
}

/// Whether a configured secret file may still be read: there, and closed to others.
///
/// # Errors
/// What was expected and found, and the way out, in one sentence.
pub fn check_secret(path: &Path) -> Result<(), String> {
    secret(path).map_err(sentence)
}

fn sentence(refusal: Refusal) -> String {
    let Refusal { expected, found, remedy } = refusal;
    format!("expected {expected}, found {found}; {remedy}").trim_end_matches("; ").to_owned()
}

/// The permission bits. Asked of the opened file, not of the name: no race between the two.
fn open(path: &Path) -> Result<u32, Refusal> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| Refusal {
        expected: "a file that can be read",
        found: format!("{shown}: {error}"),
        remedy: String::new(),
    };
    // Not a FIFO: opening one would wait for its writer.
    let kind = std::fs::metadata(path).map_err(unreadable)?;
    if !kind.is_file() {
        return Err(Refusal {
            expected: "a regular file",
            found: format!("{shown}, which is none"),
            remedy: String::new(),
        });
    }
    let metadata = File::open(path).and_then(|file| file.metadata()).map_err(unreadable)?;
    Ok(metadata.permissions().mode() & 0o7777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_must_be_closed_to_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("password");
        std::fs::write(&path, "hunter2").expect("written");
        let cases = [
            (0o600, true),
            (0o400, true),
            (0o640, true),
            (0o440, true),
            (0o644, false),
            (0o604, false),
            (0o660, false),
            (0o777, false),
        ];
        for (mode, accepted) in cases {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("mode set");
            let seen = secret(&path);
            assert_eq!(seen.is_ok(), accepted, "{mode:o}");
            if let Err(refusal) = seen {
                assert!(refusal.remedy.contains("chmod 600"), "{refusal:?}");
                assert!(!refusal.found.contains("hunter2"));
            }
        }
        assert_eq!(readable(&path), Ok(()));
    }

    #[test]
    fn missing_files_and_folders_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(readable(folder.path()).is_err());
        let missing = readable(&folder.path().join("none")).expect_err("not there");
        assert!(missing.found.contains("No such file"), "{missing:?}");
    }
}
