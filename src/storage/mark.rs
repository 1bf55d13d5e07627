//! What a pool's folder is recognized by: a small file that names the store and the pool, so that
//! disks which were swapped, come from elsewhere or are not mounted are found out before anything is
//! read from or written to them.

use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{CWD, OFlags, RenameFlags};
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::oci::{Algorithm, Digest};

const FILE: &str = "pool.json";
/// More than any mark has.
const BYTES_MAX: u64 = 4096;

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mark {
    /// A hash of the store's id, which itself is nobody's business.
    store: String,
    number: u8,
    name: String,
}

/// What lies in a folder.
pub(super) struct Found {
    text: Vec<u8>,
    /// Held as the pool's lock. Only read, so that a disk that takes no writes can be locked too.
    pub(super) file: std::fs::File,
}

impl Mark {
    pub(super) fn new(store_id: &[u8; 16], number: u8, name: &str) -> Self {
        let store = Digest::of(Algorithm::Sha256, store_id).hex().to_string();
        let store = store.get(..32).unwrap_or_default().to_owned();
        Self { store, number, name: name.to_owned() }
    }

    /// Marks a folder, durably.
    pub(super) fn write(&self, root: &Path) -> io::Result<Found> {
        let path = root.join(FILE);
        let new = root.join(format!("{FILE}.new"));
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&new)?;
        serde_json::to_writer(&mut file, self)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        rustix::fs::renameat_with(CWD, &new, CWD, &path, RenameFlags::NOREPLACE)?;
        std::fs::File::open(root)?.sync_all()?;
        open(root)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// A folder that becomes a pool must not be a store already.
    pub(super) fn refuse_occupied(&self, root: &Path) -> Result<(), StoreError> {
        let occupied = ["blobs", "catalog.redb"].into_iter().find(|name| root.join(name).exists());
        let Some(name) = occupied else { return Ok(()) };
        let found = format!("a store's {name} without {FILE}");
        Err(self.wrong(root, "an empty folder", found, "give the pool another path, or empty it"))
    }

    /// Refuses what is not this pool.
    pub(super) fn compare(&self, found: &Found, root: &Path) -> Result<(), StoreError> {
        let expected = format!("pool {:?}, number {}, of this store", self.name, self.number);
        let other: Self = serde_json::from_slice(&found.text).map_err(|error| {
            let found = format!("a {FILE} that cannot be read ({error})");
            self.wrong(
                root,
                &expected,
                found,
                "check the disk; to start it anew, empty the folder \
                and give the pool another name",
            )
        })?;
        if other == *self {
            return Ok(());
        }
        let Self { store, number, name } = &other;
        let whose = if *store == self.store { "of this store" } else { "of another store" };
        let found = format!("pool {name:?}, number {number}, {whose}");
        let remedy = match *store == self.store {
            true => {
                "are two disks swapped, or was the pool given another name? Set path and name \
                     as they were"
            }
            false => "mount the right disk, or set `path` to a folder of this store's own",
        };
        Err(self.wrong(root, &expected, found, remedy))
    }

    pub(super) fn wrong(
        &self,
        path: &Path,
        expected: &str,
        found: String,
        remedy: &'static str,
    ) -> StoreError {
        let (name, path) = (self.name.clone(), path.to_owned());
        StoreError::WrongPool { name, path, expected: expected.to_owned(), found, remedy }
    }
}

/// The mark in a folder; `None` when there is none.
pub(super) fn open(root: &Path) -> io::Result<Option<Found>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let path = root.join(FILE);
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut text = Vec::new();
    (&file).take(BYTES_MAX).read_to_end(&mut text)?;
    Ok(Some(Found { text, file }))
}
