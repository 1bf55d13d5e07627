//! From a foreign plugin table to one that can be called: the checks of the ABI's version rule.
//!
//! In this order: non-null → aligned → magic → size → major → minor → capabilities → name →
//! version → hooks. Each failure is refused with what was expected, what was found and the way
//! out; none is only a warning.

use ringport_plugin_abi as abi;
use ringport_plugin_conformance::Subject;

use super::error::Fault;

/// The capability bits of each minor up to ours; a plugin of an older minor has those of its own.
const CAPABILITIES: [u64; abi::ABI_MINOR as usize + 1] = [0, abi::CAN_PLACE | abi::CAN_REFRESH];
/// Up to the version numbers the table is the same in every major.
const FROZEN_BYTES: u32 = 24;

/// A checked table, copied: what the plugin does to its own later changes nothing here.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) abi_minor: u32,
    pub(super) capabilities: u64,
    pub(super) configure: abi::ConfigureFn,
    pub(super) worker_start: abi::WorkerStartFn,
    pub(super) resolve: abi::ResolveFn,
    pub(super) worker_stop: abi::WorkerStopFn,
    pub(super) destroy: abi::DestroyFn,
    /// With [`abi::CAN_PLACE`].
    pub(super) place: Option<abi::PlaceFn>,
    /// With [`abi::CAN_REFRESH`].
    pub(super) refresh: Option<abi::RefreshFn>,
}

/// A library's `ringport_plugin_entry`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry(abi::EntryFn);

impl Entry {
    /// # Safety
    /// `function` must be what `ringport_plugin.h` says of `ringport_plugin_entry`, in a library
    /// that is never unloaded.
    pub(super) unsafe fn new(function: abi::EntryFn) -> Entry {
        Entry(function)
    }

    /// For the conformance kit, which shakes hands itself.
    pub(super) fn subject(self) -> Subject {
        // SAFETY: what was promised to `new`.
        unsafe { Subject::loaded(self.0) }
    }
}

/// Asks a loaded library's entry function for its table and checks it.
pub(super) fn shake_hands(entry: Entry) -> Result<Table, Fault> {
    // SAFETY: promised to `Entry::new`; the function takes any two numbers.
    let plugin = unsafe { (entry.0)(abi::ABI_MAJOR, abi::ABI_MINOR) };
    // SAFETY: by the contract, null or a table that lives as long as the process.
    unsafe { check(plugin) }
}

/// Checks the table of a plugin that is linked in.
pub(super) fn check_linked(plugin: &'static abi::Plugin) -> Result<Table, Fault> {
    // SAFETY: a static of the twin's type; its strings are live, since its makers are in this
    // program and `abi::Plugin` is only built by the SDK from statics.
    unsafe { check(plugin) }
}

/// # Safety
/// `plugin` must be null or point at a table that begins as `ringport_plugin` does, whose first
/// 24 bytes, or `size` bytes if that is more, are readable, and whose strings are.
unsafe fn check(plugin: *const abi::Plugin) -> Result<Table, Fault> {
    if plugin.is_null() {
        return Err(Fault::RefusedHost);
    }
    if !plugin.is_aligned() {
        return Err(Fault::Misaligned);
    }
    // SAFETY: within the 24 bytes that are the same in every major. Raw reads, since a table of
    // another version may be shorter than our struct.
    let (size, magic, major, minor) = unsafe {
        (
            (&raw const (*plugin).size).read(),
            (&raw const (*plugin).magic).read(),
            (&raw const (*plugin).abi_major).read(),
            (&raw const (*plugin).abi_minor).read(),
        )
    };
    if magic != abi::PLUGIN_MAGIC {
        return Err(Fault::WrongMagic { found: magic });
    }
    // A table of another major may be of any size that holds the frozen part; that it is of
    // another major tells more than its size.
    if size >= FROZEN_BYTES && major != abi::ABI_MAJOR {
        return Err(Fault::OtherMajor { found: major });
    }
    if (size as usize) < abi::PLUGIN_SIZE_MIN {
        return Err(Fault::ShortTable { found: size });
    }
    if minor > abi::ABI_MINOR {
        return Err(Fault::NewerMinor { found: minor });
    }
    // SAFETY: non-null, aligned, and `size` bytes are readable by the caller's promise.
    let copy = unsafe { abi::read_sized(plugin) }.ok_or(Fault::Misaligned)?;
    let known = CAPABILITIES.get(minor as usize).copied().unwrap_or(0);
    let unknown = copy.capabilities & !known;
    if unknown != 0 {
        return Err(Fault::UnknownCapabilities { found: unknown, known, minor });
    }
    // SAFETY: the strings of the table are readable by the caller's promise; `bounded` looks at
    // no more bytes than the limit allows.
    let (name, version) = unsafe {
        (bounded(copy.name, abi::NAME_BYTES_MAX), bounded(copy.version, abi::VERSION_BYTES_MAX))
    };
    let name = name.and_then(|bytes| text_if(bytes, is_name));
    let version = version.and_then(|bytes| text_if(bytes, is_version));
    let required = |hook| Fault::MissingHook { hook };
    Ok(Table {
        name: name.map_err(|found| Fault::BadName { found })?,
        version: version.map_err(|found| Fault::BadVersion { found })?,
        abi_minor: minor,
        capabilities: copy.capabilities,
        configure: copy.configure.ok_or_else(|| required("configure"))?,
        worker_start: copy.worker_start.ok_or_else(|| required("worker_start"))?,
        resolve: copy.resolve.ok_or_else(|| required("resolve"))?,
        worker_stop: copy.worker_stop.ok_or_else(|| required("worker_stop"))?,
        destroy: copy.destroy.ok_or_else(|| required("destroy"))?,
        place: promised(copy.capabilities, abi::CAN_PLACE, copy.place, "place")?,
        refresh: promised(copy.capabilities, abi::CAN_REFRESH, copy.refresh, "refresh")?,
    })
}

/// The hook that a capability bit promises; without the bit it is as if it were not there.
fn promised<F>(
    capabilities: u64,
    bit: u64,
    f: Option<F>,
    hook: &'static str,
) -> Result<Option<F>, Fault> {
    match (capabilities & bit != 0, f) {
        (false, _) => Ok(None),
        (true, Some(f)) => Ok(Some(f)),
        (true, None) => Err(Fault::MissingHook { hook }),
    }
}

/// # Safety
/// As for `abi::Str::as_bytes`, for a string that is not longer than `max`.
unsafe fn bounded(string: abi::Str, max: usize) -> Result<&'static [u8], String> {
    if string.len > max {
        return Err(format!("{} bytes", string.len));
    }
    // SAFETY: the caller's promise.
    unsafe { string.as_bytes() }.ok_or_else(|| "a null pointer".to_owned())
}

fn text_if(bytes: &[u8], is_good: impl FnOnce(&[u8]) -> bool) -> Result<String, String> {
    let text = String::from_utf8_lossy(bytes);
    if is_good(bytes) { Ok(text.into_owned()) } else { Err(format!("{text:?}")) }
}

/// `[a-z][a-z0-9_-]*`
fn is_name(bytes: &[u8]) -> bool {
    let is_inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(b);
    bytes.first().is_some_and(u8::is_ascii_lowercase) && bytes.iter().all(is_inner)
}

fn is_version(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| b.is_ascii_graphic() || *b == b' ')
}
