//! From a path in the configuration to a library in memory. The only user of libloading.
//!
//! **Invariant:** nothing is loaded whose file others than root and the server's user own or may
//! write to, or whose bytes differ from the pin.
//! **Invariant:** a library is never unloaded: destructors of thread-locals, and any pointer that
//! escaped, would outlive its code.
//!
//! What this can't see: who may write to the folders above the file. They are the operator's.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use ringport_plugin_abi as abi;
use sha2::{Digest as _, Sha256};

use super::error::Fault;
use super::handshake::Entry;

/// Far above any plugin; a bound on what is read and hashed.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What was loaded, by device and inode: the linker compares these, not the bytes, so for a file
/// that was overwritten in place it would hand out the old code under the new digest.
static LOADED: Mutex<Option<HashMap<(u64, u64), LoadedFile>>> = Mutex::new(None);

struct LoadedFile {
    sha256: String,
    entry: Entry,
}

/// A plugin file in memory.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) entry: Entry,
    /// Of the file, in lower-case hex.
    pub(super) sha256: String,
}

/// Checks and loads one file. A file that is loaded already is checked again and reused.
pub(super) fn load(path: &Path, pin: Option<&str>) -> Result<Loaded, Fault> {
    if !path.is_absolute() {
        return Err(Fault::RelativePath);
    }
    // Looked at before it is opened: opening a pipe would wait for its writer.
    expect_file(&std::fs::metadata(path).map_err(Fault::Unreadable)?)?;
    let file = File::open(path).map_err(Fault::Unreadable)?;
    let metadata = file.metadata().map_err(Fault::Unreadable)?;
    expect_file(&metadata)?;
    expect_trusted(&metadata)?;
    let sha256 = hash(&file, metadata.len())?;
    if let Some(expected) = pin.filter(|pin| !pin.eq_ignore_ascii_case(&sha256)) {
        return Err(Fault::WrongDigest { expected: expected.to_owned(), found: sha256 });
    }
    let identity = (metadata.dev(), metadata.ino());
    // Held over the load: two threads must not load one file with different ideas of its bytes.
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let loaded = loaded.get_or_insert_default();
    if let Some(before) = loaded.get(&identity) {
        if before.sha256 != sha256 {
            let loaded = before.sha256.clone();
            return Err(Fault::ChangedInPlace { loaded, found: sha256 });
        }
        return Ok(Loaded { entry: before.entry, sha256 });
    }
    let library = open(path)?;
    // `file` is still open, so its inode can't have been given to another file meanwhile.
    let now = std::fs::metadata(path).map_err(Fault::Unreadable)?;
    if (now.dev(), now.ino()) != identity {
        return Err(Fault::Replaced);
    }
    let entry = find_entry(&library)?;
    // The linker compares paths before inodes: for a new file under a path that it has loaded
    // before, it hands out the old library.
    if loaded.values().any(|other| other.entry.is_same(entry)) {
        return Err(Fault::OldCodeAtPath);
    }
    loaded.insert(identity, LoadedFile { sha256: sha256.clone(), entry });
    Ok(Loaded { entry, sha256 })
}

fn expect_file(metadata: &Metadata) -> Result<(), Fault> {
    let kind = metadata.file_type();
    let found = match kind {
        _ if kind.is_file() => return Ok(()),
        _ if kind.is_dir() => "a folder",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(Fault::NotAFile { found })
}

/// Owned by root or us, and writable by the owner only.
fn expect_trusted(metadata: &Metadata) -> Result<(), Fault> {
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != 0 && metadata.uid() != own {
        return Err(Fault::ForeignOwner { expected: own, found: metadata.uid() });
    }
    match metadata.mode() & 0o022 {
        0 => Ok(()),
        _ => Err(Fault::WritableByOthers { mode: metadata.mode() & 0o7777 }),
    }
}

/// The file's sha256 in hex.
fn hash(file: &File, length: u64) -> Result<String, Fault> {
    if length > FILE_BYTES_MAX {
        return Err(Fault::TooLarge { max: FILE_BYTES_MAX, found: length });
    }
    let mut hasher = Sha256::new();
    io::copy(&mut file.take(FILE_BYTES_MAX), &mut HashWriter(&mut hasher))
        .map_err(Fault::Unreadable)?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Binds every symbol now, so that a missing one fails here and not in the middle of a request,
/// and shows none to other libraries.
fn open(path: &Path) -> Result<std::mem::ManuallyDrop<Library>, Fault> {
    // SAFETY: loading runs the file's initialisers: native code with all our powers. That is what
    // the operator asked for by declaring it; the checks above are the condition.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
    // `ManuallyDrop`: never unloaded, also when the handshake fails (see the invariant).
    library.map(std::mem::ManuallyDrop::new).map_err(|error| Fault::NotLoadable(error.to_string()))
}

fn find_entry(library: &Library) -> Result<Entry, Fault> {
    // SAFETY: only read as a pointer-sized value here.
    let symbol = unsafe { library.get::<Option<abi::EntryFn>>(abi::ENTRY_SYMBOL.as_bytes()) };
    let function = symbol.ok().and_then(|symbol| *symbol).ok_or(Fault::NoEntry)?;
    // SAFETY: that a function of this name has the contract's type can't be checked; a library
    // that exports another under it breaks the contract. `open` never unloads.
    Ok(unsafe { Entry::new(function) })
}
