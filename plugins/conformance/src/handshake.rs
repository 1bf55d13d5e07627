//! From an entry function to hooks that can be called, as a host of any minor does it.

use ringport_plugin_abi as abi;

use crate::report::{Finding, Handshake, Problem};

/// The capability bits of each minor; a plugin of an older minor has those of its own.
const CAPABILITIES: [u64; abi::ABI_MINOR as usize + 1] = [0, abi::CAN_PLACE | abi::CAN_REFRESH];
/// Up to the version numbers the table is the same in every major.
const FROZEN_BYTES: u32 = 24;

/// What is checked: a plugin's table, or the function that returns it.
#[derive(Clone, Copy, Debug)]
pub struct Subject(Source);

#[derive(Clone, Copy, Debug)]
enum Source {
    Linked(&'static abi::Plugin),
    Loaded(abi::EntryFn),
}

impl Subject {
    /// A plugin written with the SDK that is linked into this program: its `PLUGIN`.
    pub const fn linked(plugin: &'static abi::Plugin) -> Subject {
        Subject(Source::Linked(plugin))
    }

    /// A plugin that was loaded.
    ///
    /// # Safety
    /// `entry` must be what `ringport_plugin.h` says of `ringport_plugin_entry`, in a library that
    /// is never unloaded.
    pub const unsafe fn loaded(entry: abi::EntryFn) -> Subject {
        Subject(Source::Loaded(entry))
    }

    fn ask(self, host_major: u32, host_minor: u32) -> *const abi::Plugin {
        match self.0 {
            Source::Linked(plugin) => plugin,
            // SAFETY: promised to `loaded`; the function takes any two numbers.
            Source::Loaded(entry) => unsafe { entry(host_major, host_minor) },
        }
    }

    /// What the plugin answers a host of another major: anything but a crash.
    pub(crate) fn ask_other_major(self) {
        self.ask(abi::ABI_MAJOR + 1, 0);
    }
}

/// A checked table, copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    pub(crate) configure: abi::ConfigureFn,
    pub(crate) worker_start: abi::WorkerStartFn,
    pub(crate) resolve: abi::ResolveFn,
    pub(crate) worker_stop: abi::WorkerStopFn,
    pub(crate) destroy: abi::DestroyFn,
    pub(crate) place: Option<abi::PlaceFn>,
    pub(crate) refresh: Option<abi::RefreshFn>,
}

/// Shakes hands as a host of minor `host_minor`.
pub(crate) fn shake_hands(
    subject: Subject,
    host_minor: u32,
) -> Result<(Handshake, Table), Box<Finding>> {
    let plugin = subject.ask(abi::ABI_MAJOR, host_minor);
    // SAFETY: by the contract, null or a table that lives as long as the process.
    unsafe { check(plugin, host_minor) }.map_err(Box::new)
}

/// # Safety
/// `plugin` must be null or point at a table that begins as `ringport_plugin` does, whose first
/// 24 bytes, or `size` bytes if that is more, are readable, and whose strings are.
unsafe fn check(plugin: *const abi::Plugin, minor: u32) -> Result<(Handshake, Table), Finding> {
    let fails = |expected: &str, found: &str, remedy: &str| Problem::new(expected, found, remedy);
    if plugin.is_null() || !plugin.is_aligned() {
        let found = if plugin.is_null() { "null" } else { "a misaligned pointer" };
        let remedy = "return the address of a static ringport_plugin, whatever the host's version";
        return Err(fails("a table from ringport_plugin_entry", found, remedy).breaks(5));
    }
    // SAFETY: within the 24 bytes that are the same in every major.
    let (size, magic, major, own_minor) = unsafe {
        (
            (&raw const (*plugin).size).read(),
            (&raw const (*plugin).magic).read(),
            (&raw const (*plugin).abi_major).read(),
            (&raw const (*plugin).abi_minor).read(),
        )
    };
    if magic != abi::PLUGIN_MAGIC {
        let expected = format!("magic {:#018x}", abi::PLUGIN_MAGIC);
        let remedy = "set `magic` to RINGPORT_PLUGIN_MAGIC";
        return Err(fails(&expected, &format!("{magic:#018x}"), remedy).breaks(5));
    }
    if size >= FROZEN_BYTES && major != abi::ABI_MAJOR {
        let expected = format!("ABI major {}", abi::ABI_MAJOR);
        let remedy = "build the plugin with this server's ringport_plugin.h";
        return Err(fails(&expected, &format!("major {major}"), remedy).breaks(6));
    }
    if (size as usize) < abi::PLUGIN_SIZE_MIN {
        let expected = format!("a table of at least {} bytes", abi::PLUGIN_SIZE_MIN);
        let remedy = "set `size` to sizeof(ringport_plugin)";
        return Err(fails(&expected, &format!("size {size}"), remedy).breaks(5));
    }
    if own_minor > minor {
        let expected = format!("ABI {major}.{minor} or an older minor");
        let remedy = "use a newer server, or say the oldest minor that will do";
        return Err(fails(&expected, &format!("{major}.{own_minor}"), remedy).breaks(6));
    }
    // SAFETY: non-null, aligned, and `size` bytes are readable by the caller's promise.
    let Some(mut table) = (unsafe { abi::read_sized(plugin) }) else {
        return Err(fails("a table", "a misaligned pointer", "align it").breaks(5));
    };
    if own_minor == 0 {
        // What lies there is none of 1.0's business.
        (table.place, table.refresh) = (None, None);
    }
    // SAFETY: the strings of the table are readable by the caller's promise.
    let (name, version) = unsafe { (text(table.name), text(table.version)) };
    let handshake = Handshake {
        name,
        version,
        abi: (major, own_minor),
        capabilities: table.capabilities,
        table_bytes: size,
    };
    let hooks = check_contents(&table, &handshake)?;
    Ok((handshake, hooks))
}

fn check_contents(table: &abi::Plugin, handshake: &Handshake) -> Result<Table, Finding> {
    let Handshake { name, version, abi: (major, minor), capabilities, .. } = handshake;
    let known = CAPABILITIES.get(*minor as usize).copied().unwrap_or_default();
    if capabilities & !known != 0 {
        let expected = format!("capabilities of ABI {major}.{minor} ({known:#x}) or none");
        let remedy = "set `capabilities` to RINGPORT_CAN_* of your own minor, or 0";
        return Err(Problem::new(expected, format!("{capabilities:#x}"), remedy).breaks(5));
    }
    let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if !begins || name.len() > abi::NAME_BYTES_MAX || !name.bytes().all(is_inner) {
        let expected = format!("a `name` of 1 to {} bytes [a-z][a-z0-9_-]*", abi::NAME_BYTES_MAX);
        let remedy = "name what the plugin is, such as \"corp-policy\"";
        return Err(Problem::new(expected, format!("{name:?}"), remedy).breaks(5));
    }
    if version.is_empty() || !version.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        let bytes = abi::VERSION_BYTES_MAX;
        let expected = format!("a `version` of 1 to {bytes} printable ASCII bytes");
        let remedy = "give the plugin's own version, such as \"1.0\"";
        return Err(Problem::new(expected, format!("{version:?}"), remedy).breaks(5));
    }
    let required = |hook: &str| {
        let expected = format!("the required hook `{hook}`");
        Problem::new(expected, "null", "fill every hook of 1.0 in the table").breaks(5)
    };
    let promised = |bit: u64, is_null: bool, hook: &str| {
        let remedy = "give the hook, or take the bit away";
        let expected = format!("the hook `{hook}`, which `capabilities` promises");
        match capabilities & bit != 0 && is_null {
            true => Err(Problem::new(expected, "null", remedy).breaks(5)),
            false => Ok(()),
        }
    };
    promised(abi::CAN_PLACE, table.place.is_none(), "place")?;
    promised(abi::CAN_REFRESH, table.refresh.is_none(), "refresh")?;
    Ok(Table {
        configure: table.configure.ok_or_else(|| required("configure"))?,
        worker_start: table.worker_start.ok_or_else(|| required("worker_start"))?,
        resolve: table.resolve.ok_or_else(|| required("resolve"))?,
        worker_stop: table.worker_stop.ok_or_else(|| required("worker_stop"))?,
        destroy: table.destroy.ok_or_else(|| required("destroy"))?,
        place: table.place.filter(|_| capabilities & abi::CAN_PLACE != 0),
        refresh: table.refresh.filter(|_| capabilities & abi::CAN_REFRESH != 0),
    })
}

/// A string of the table; what can't be one becomes a text that no check lets pass.
///
/// # Safety
/// As for `abi::Str::as_bytes`, for a string that is not longer than a version may be.
unsafe fn text(string: abi::Str) -> String {
    if string.len > abi::VERSION_BYTES_MAX {
        return format!("({} bytes)\n", string.len);
    }
    // SAFETY: the caller's promise.
    match unsafe { string.as_bytes() } {
        None => "(a null pointer)\n".to_owned(),
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    }
}
