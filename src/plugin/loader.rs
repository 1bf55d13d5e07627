//! From a path in the configuration to a library in memory. The only user of libloading.
//!
//! What is loaded is a private copy of the file's bytes, sealed in memory: the linker knows
//! libraries by path and inode, and would hand out the old code for a file that was replaced; and
//! a file that is overwritten in place would take the running code's pages away.
//!
//! **Invariant:** nothing is loaded whose file others than root and the server's user own or may
//! write to, or whose bytes differ from the pin. The bytes that were hashed are those that run.
//! **Invariant:** a library is never unloaded: destructors of thread-locals, and any pointer that
//! escaped, would outlive its code. So each new version costs its size, and one descriptor, until
//! the process ends; the same bytes are loaded once.
//!
//! What this can't see: who may write to the folders above the file. They are the operator's.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use ringport_plugin_abi as abi;
use rustix::fs::{MemfdFlags, SealFlags};
use sha2::{Digest as _, Sha256};

use super::error::Fault;
use super::handshake::Entry;

/// Far above any plugin; a bound on what is read and hashed.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What copies are called in the process's maps: not as their files, since a name of 255 bytes is too
/// long here.
const COPY_NAME: &str = "ringport-plugin";

/// The entry functions of what was loaded, by the sha256 of its bytes; `None`: it has none, which
/// another load would not change.
static LOADED: Mutex<Option<HashMap<String, Option<Entry>>>> = Mutex::new(None);

/// A plugin file in memory.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) entry: Entry,
    /// Of the file, in lower-case hex.
    pub(super) sha256: String,
}

/// Checks and loads one file. Bytes that are loaded already are used again.
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
    let bytes = read(&file)?;
    let sha256: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    if let Some(expected) = pin.filter(|pin| !pin.eq_ignore_ascii_case(&sha256)) {
        return Err(Fault::WrongDigest { expected: expected.to_owned(), found: sha256 });
    }
    // Held over the load, so that the same bytes are loaded once.
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let loaded = loaded.get_or_insert_default();
    if let Some(entry) = loaded.get(&sha256) {
        return Ok(Loaded { entry: entry.ok_or(Fault::NoEntry)?, sha256 });
    }
    let copy = private_copy(&bytes).map_err(Fault::NoCopy)?;
    let library = open(format!("/proc/self/fd/{}", copy.as_raw_fd()).as_ref())?;
    // Never closed: the linker would take the next library by the same number for this one.
    std::mem::forget(copy);
    let entry = find_entry(&library);
    loaded.insert(sha256.clone(), entry);
    Ok(Loaded { entry: entry.ok_or(Fault::NoEntry)?, sha256 })
}

/// The bytes in a sealed file in memory, which nobody else can name or change.
fn private_copy(bytes: &[u8]) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create(COPY_NAME, flags)?);
    file.write_all(bytes)?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
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

fn read(file: &File) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Fault::Unreadable)?;
    match bytes.len() as u64 {
        found if found > FILE_BYTES_MAX => Err(Fault::TooLarge { max: FILE_BYTES_MAX, found }),
        _ => Ok(bytes),
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

fn find_entry(library: &Library) -> Option<Entry> {
    // SAFETY: only read as a pointer-sized value here.
    let symbol = unsafe { library.get::<Option<abi::EntryFn>>(abi::ENTRY_SYMBOL.as_bytes()) };
    let function = symbol.ok().and_then(|symbol| *symbol)?;
    // SAFETY: that a function of this name has the contract's type can't be checked; a library
    // that exports another under it breaks the contract. `open` never unloads.
    Some(unsafe { Entry::new(function) })
}
