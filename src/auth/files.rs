//! What `[auth]` names, as read: users and keys. Read at the start, at a reload, and when one of the
//! files has changed.

use std::fs::Metadata;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ring::hmac;

use super::htpasswd::{Htpasswd, HtpasswdError};
use super::keys::{self, KeyError};
use super::passwords::Passwords;
use super::token::Tokens;
use crate::config::Auth;

/// Longest file of users or keys, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Users and keys of one reading. No `Debug`: it has hashes.
pub struct AuthFiles {
    pub(super) config: Auth,
    pub(super) passwords: Option<Arc<Passwords>>,
    pub(super) tokens: Option<Tokens>,
    /// As they were before they were read: a change in between shows at the next look.
    stamps: Vec<(PathBuf, Stamp)>,
}

/// Why users or keys could not be read. Holds no secret.
#[derive(Debug, thiserror::Error)]
#[error("{key} {path}: {fault}")]
pub struct AuthFilesError {
    key: &'static str,
    path: String,
    fault: FileFault,
}

#[derive(Debug, thiserror::Error)]
enum FileFault {
    #[error("expected a file that can be read, found: {0}")]
    Unreadable(std::io::Error),
    #[error("expected at most {FILE_BYTES_MAX} bytes, found more")]
    TooLong,
    #[error("expected UTF-8, found something else")]
    NotText,
    #[error(transparent)]
    Htpasswd(#[from] HtpasswdError),
    #[error(transparent)]
    Keys(#[from] KeyError),
}

/// What changes when a file is written or replaced; `None` for a file that is not there.
pub(super) type Stamp = Option<Written>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    changed: (i64, i64),
    modified: (i64, i64),
    inode: u64,
    length: u64,
}

impl AuthFiles {
    /// Reads what the configuration names, only to tell whether it can be read. Blocks.
    ///
    /// # Errors
    /// The key, the file, what was expected and found, and the way out.
    pub fn check(config: &Auth) -> Result<(), AuthFilesError> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[]);
        Self::read(config, &key, &Arc::default()).map(|_| ())
    }

    /// Reads what the configuration names. Blocks.
    pub(super) fn read(
        config: &Auth,
        key: &hmac::Key,
        runs: &Arc<AtomicU64>,
    ) -> Result<Self, AuthFilesError> {
        let stamps = paths(config).map(|path| (path.clone(), stamp(path))).collect();
        let passwords = config.htpasswd_file.as_deref().map(read_users).transpose()?;
        let tokens = match &config.token {
            Some(token) => {
                let mut found = Vec::new();
                for path in &token.key_files {
                    let failed = failed("auth.token.key_files", path);
                    let read = read_file(path).and_then(|bytes| Ok(keys::read(&bytes)?));
                    found.extend(read.map_err(&failed)?);
                    if found.len() > keys::KEYS_MAX {
                        return Err(failed(KeyError::TooMany.into()));
                    }
                }
                Some(Tokens::new(token, found))
            }
            None => None,
        };
        let passwords = passwords.map(|users| Passwords::new(users, key.clone(), runs.clone()));
        Ok(Self { config: config.clone(), passwords, tokens, stamps })
    }

    /// The configuration they were read by.
    pub fn config(&self) -> &Auth {
        &self.config
    }

    /// How many users and keys there are.
    pub(super) fn sizes(&self) -> (usize, usize) {
        let users = self.passwords.as_ref().map_or(0, |passwords| passwords.users());
        (users, self.tokens.as_ref().map_or(0, Tokens::keys))
    }

    /// The files as they are now, if that is not how they were when they were read. Blocks.
    pub(super) fn change(&self) -> Option<Vec<Stamp>> {
        let now: Vec<_> = self.stamps.iter().map(|(path, _)| stamp(path)).collect();
        let is_same = self.stamps.iter().map(|(_, stamp)| stamp).eq(&now);
        (!is_same).then_some(now)
    }
}

fn stamp(path: &Path) -> Stamp {
    let written = |metadata: Metadata| Written {
        changed: (metadata.ctime(), metadata.ctime_nsec()),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        inode: metadata.ino(),
        length: metadata.len(),
    };
    std::fs::metadata(path).ok().map(written)
}

fn paths(config: &Auth) -> impl Iterator<Item = &PathBuf> {
    let keys = config.token.iter().flat_map(|token| &token.key_files);
    config.htpasswd_file.iter().chain(keys)
}

fn read_users(path: &Path) -> Result<Htpasswd, AuthFilesError> {
    let read = || {
        let bytes = read_file(path)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| FileFault::NotText)?;
        Ok(Htpasswd::parse(text)?)
    };
    read().map_err(failed("auth.htpasswd_file", path))
}

fn read_file(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, FileFault> {
    // Not a FIFO: opening one would wait for its writer.
    if !std::fs::metadata(path).map_err(FileFault::Unreadable)?.is_file() {
        return Err(FileFault::Unreadable(std::io::Error::other("no regular file")));
    }
    let file = std::fs::File::open(path).map_err(FileFault::Unreadable)?;
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(FileFault::Unreadable)?;
    match bytes.len() as u64 > FILE_BYTES_MAX {
        true => Err(FileFault::TooLong),
        false => Ok(bytes),
    }
}

fn failed(key: &'static str, path: &Path) -> impl Fn(FileFault) -> AuthFilesError {
    let path = path.display().to_string();
    move |fault| AuthFilesError { key, path: path.clone(), fault }
}
