//! The Rust twin of `include/ringport_plugin.h`: types, constants, and the two careful ways to
//! read what came from the other side ([`Str::as_bytes`], [`read_sized`]).
//!
//! The header is normative: what each hook means, which thread it runs on, who owns what, how the
//! versions grow. Read it there. Here stand only the same shapes in Rust, for the host
//! (`ringport::plugin`) and for the SDK (`ringport-plugin-sdk`). A plugin written in Rust uses the
//! SDK and never this crate.
//!
//! **Invariant:** every struct has the size and offsets the C compiler gives the header's struct
//! of the same name, and every constant its value (`tests/layout.rs` compiles a C probe).
//! **Invariant:** no Rust `enum` and no reference crosses: a foreign plugin may write any bits.
//!
//! **Invariant:** what [`text`] hands out is UTF-8.
//!
//! Deliberately absent: allocation, std, and any function that calls across the boundary.
#![no_std]

use core::marker::{PhantomData, PhantomPinned};
use core::mem::MaybeUninit;

mod constants;

pub use constants::*;

/// `ringport_str`: bytes that someone else owns; null with length 0 is empty.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Str {
    /// First byte; may be null when `len` is 0.
    pub ptr: *const u8,
    /// Length in bytes.
    pub len: usize,
}

impl Str {
    /// The empty string.
    pub const EMPTY: Str = Str { ptr: core::ptr::null(), len: 0 };

    /// Points at `text`, which must outlive every use of the result.
    pub const fn new(text: &str) -> Str {
        Str { ptr: text.as_ptr(), len: text.len() }
    }

    /// The bytes, or `None` for a null pointer with a length or a length no object can have.
    ///
    /// # Safety
    /// A non-null `ptr` must point at `len` readable bytes that nobody writes during `'a`.
    pub const unsafe fn as_bytes<'a>(self) -> Option<&'a [u8]> {
        if self.len == 0 {
            return Some(&[]);
        }
        if self.ptr.is_null() || self.len > isize::MAX as usize {
            return None;
        }
        // SAFETY: non-null and not longer than an object may be; the rest is the caller's promise.
        Some(unsafe { core::slice::from_raw_parts(self.ptr, self.len) })
    }
}

/// The text that these bytes are, if they are UTF-8. Nearly all that crosses is short and ASCII,
/// which the standard library's check looks at byte by byte; here it is as wide words as fit.
pub fn text(bytes: &[u8]) -> Option<&str> {
    const TOP_BITS: u64 = u64::MAX / 0xff * 0x80;
    if any_of(bytes) & TOP_BITS != 0 {
        return core::str::from_utf8(bytes).ok();
    }
    // SAFETY: no byte has its top bit set, so all are ASCII, which is UTF-8.
    Some(unsafe { core::str::from_utf8_unchecked(bytes) })
}

/// All bytes, one over the other. Words may overlap: a byte that is looked at twice is no harm.
#[inline]
fn any_of(bytes: &[u8]) -> u64 {
    if let Some(last) = bytes.last_chunk::<16>() {
        let words = bytes.as_chunks::<16>().0.iter();
        let any =
            words.fold(u128::from_ne_bytes(*last), |any, word| any | u128::from_ne_bytes(*word));
        return any as u64 | (any >> 64) as u64;
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return u64::from_ne_bytes(*first) | u64::from_ne_bytes(*last);
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return u64::from(u32::from_ne_bytes(*first) | u32::from_ne_bytes(*last));
    }
    bytes.iter().fold(0, |any, byte| any | u64::from(*byte))
}

/// `ringport_header`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Its name.
    pub name: Str,
    /// Its value.
    pub value: Str,
}

/// Makes a type of which only pointers exist: not constructible, not `Send`, not `Unpin`.
macro_rules! opaque {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[repr(C)]
        pub struct $name {
            _opaque: [u8; 0],
            _marker: PhantomData<(*mut u8, PhantomPinned)>,
        }
    };
}

opaque!(
    /// `ringport_instance`: one configured plugin; the plugin's own.
    Instance
);
opaque!(
    /// `ringport_worker`: a plugin's state of one worker; the plugin's own.
    Worker
);
opaque!(
    /// `ringport_ctx`: one call's answer under construction; the host's own.
    Ctx
);

/// `ringport_upstream`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Upstream {
    /// Size of the writer's struct, in bytes.
    pub size: u32,
    /// `UPSTREAM_*` bits.
    pub flags: u32,
    /// The canonical namespace.
    pub canonical_name: Str,
    /// First of `alias_count` further namespaces that mean the same upstream.
    pub aliases: *const Str,
    /// Number of aliases.
    pub alias_count: usize,
    /// First of `credential_count` names of credentials. 1.1
    pub credentials: *const Str,
    /// Number of credentials.
    pub credential_count: usize,
}

/// `ringport_configure_args`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ConfigureArgs {
    /// Size of the writer's struct, in bytes.
    pub size: u32,
    /// Workers the server runs, at least 1.
    pub worker_count: u32,
    /// Name of the `[[plugin]]` entry.
    pub name: Str,
    /// `[plugin.config]` as TOML text.
    pub config: Str,
    /// First of `upstream_count` pointers.
    pub upstreams: *const *const Upstream,
    /// Number of declared upstreams.
    pub upstream_count: usize,
    /// First of `pool_count` names of storage pools. 1.1
    pub pools: *const Str,
    /// Number of pools.
    pub pool_count: usize,
    /// First of `remote_tier_count` origins.
    pub remote_tiers: *const Str,
    /// Number of remote tiers.
    pub remote_tier_count: usize,
}

/// `ringport_resolve_request`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ResolveRequest {
    /// Size of the writer's struct, in bytes.
    pub size: u32,
    /// `KIND_*`.
    pub kind: u32,
    /// The HTTP method.
    pub method: Str,
    /// Normalised `ns` query parameter, or empty.
    pub query_ns: Str,
    /// Normalised `X-Dragonfly-Registry`, or empty.
    pub header_ns: Str,
    /// The repository as it stands in the path.
    pub name: Str,
    /// Tag or digest, or empty.
    pub reference: Str,
    /// Network byte order.
    pub client_address: [u8; 16],
    /// 4, 16, or 0 when unknown.
    pub client_address_len: u32,
    /// 0.
    pub reserved: u32,
    /// `NS_*`. 1.1
    pub ns_source: u32,
    /// Number of `headers`.
    pub header_count: u32,
    /// The namespace that `ns_source` names, normalised.
    pub ns: Str,
    /// The name without the prefix that names the registry.
    pub repository: Str,
    /// Who asks, as authenticated.
    pub principal: Str,
    /// First of `header_count` values.
    pub headers: *const Str,
}

/// `ringport_candidate`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Size of the writer's struct, in bytes.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// A declared upstream.
    pub upstream: Str,
    /// What the repository is called there.
    pub repository: Str,
    /// One of the upstream's credentials, or empty.
    pub credential: Str,
    /// A declared namespace to send along as `ns=`, or empty.
    pub forward_ns: Str,
}

/// `ringport_place_request`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PlaceRequest {
    /// Size of the writer's struct, in bytes.
    pub size: u32,
    /// `KIND_*`.
    pub kind: u32,
    /// `MOMENT_*`.
    pub moment: u32,
    /// 0.
    pub reserved: u32,
    /// Canonical; empty for hosted content.
    pub upstream: Str,
    /// The repository.
    pub repository: Str,
    /// The digest, or empty.
    pub digest: Str,
    /// The media type, or empty.
    pub media_type: Str,
    /// The size, or `BYTES_UNKNOWN`.
    pub content_bytes: u64,
}

/// `ringport_placement`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// Size of the writer's struct, in bytes.
    pub size: u32,
    /// `CLASS_*`.
    pub storage_class: u32,
    /// A declared pool, or empty.
    pub pool: Str,
    /// How long after its commit it makes room first of all, in milliseconds; 0: no bound.
    pub ttl_ms: u64,
    /// From minus to plus `PRIORITY_MAX`.
    pub priority: i32,
    /// 0.
    pub reserved: u32,
}

/// `ringport_remote`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Remote {
    /// Size of the writer's struct, in bytes.
    pub size: u32,
    /// `REMOTE_*`.
    pub purpose: u32,
    /// The HTTP method.
    pub method: Str,
    /// Below one of the declared remote tiers.
    pub url: Str,
    /// First of `header_count` headers.
    pub headers: *const Header,
    /// Number of headers.
    pub header_count: usize,
    /// Not sent after this, in milliseconds since 1970; 0: never expires.
    pub expires_unix_ms: u64,
}

/// `ringport_host`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Size of the writer's struct, in bytes.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// The host's ABI major.
    pub abi_major: u32,
    /// The host's ABI minor.
    pub abi_minor: u32,
    /// Product and version, for logs.
    pub product: Str,
    /// Appends an upstream candidate: upstream, repository.
    pub emit_upstream: Option<unsafe extern "C" fn(*mut Ctx, Str, Str) -> Status>,
    /// Answers with a hosted repository.
    pub emit_hosted: Option<unsafe extern "C" fn(*mut Ctx, Str) -> Status>,
    /// Names the rule that decided.
    pub emit_rule: Option<unsafe extern "C" fn(*mut Ctx, Str) -> Status>,
    /// Explains a refusal.
    pub emit_error: Option<unsafe extern "C" fn(*mut Ctx, Str) -> Status>,
    /// Bounds a tag's freshness: tag_ttl, stale_max, in milliseconds.
    pub emit_freshness: Option<unsafe extern "C" fn(*mut Ctx, u64, u64) -> Status>,
    /// `HOST_*` bits. 1.1
    pub features: u64,
    /// Appends an upstream candidate with all it can say.
    pub emit_candidate: Option<unsafe extern "C" fn(*mut Ctx, *const Candidate) -> Status>,
    /// The tag never changes.
    pub emit_immutable: Option<unsafe extern "C" fn(*mut Ctx) -> Status>,
    /// The answer may be remembered: `BY_*` bits.
    pub emit_cacheable: Option<unsafe extern "C" fn(*mut Ctx, u64) -> Status>,
    /// Answers `place`.
    pub emit_placement: Option<unsafe extern "C" fn(*mut Ctx, *const Placement) -> Status>,
    /// Adds a request to a remote tier.
    pub emit_remote: Option<unsafe extern "C" fn(*mut Ctx, *const Remote) -> Status>,
    /// Asks for a request header's value in each resolve.
    pub want_header: Option<unsafe extern "C" fn(*mut Ctx, Str) -> Status>,
    /// Asks for `refresh` at this interval in milliseconds.
    pub want_refresh: Option<unsafe extern "C" fn(*mut Ctx, u64) -> Status>,
}

/// `configure`
pub type ConfigureFn =
    unsafe extern "C" fn(*const Host, *const ConfigureArgs, *mut Ctx, *mut *mut Instance) -> Status;
/// `worker_start`
pub type WorkerStartFn =
    unsafe extern "C" fn(*const Instance, u32, *mut Ctx, *mut *mut Worker) -> Status;
/// `resolve`
pub type ResolveFn = unsafe extern "C" fn(*mut Worker, *const ResolveRequest, *mut Ctx) -> Status;
/// `worker_stop`
pub type WorkerStopFn = unsafe extern "C" fn(*mut Worker);
/// `destroy`
pub type DestroyFn = unsafe extern "C" fn(*mut Instance);
/// `place`
pub type PlaceFn = unsafe extern "C" fn(*mut Worker, *const PlaceRequest, *mut Ctx) -> Status;
/// `refresh`
pub type RefreshFn =
    unsafe extern "C" fn(*const Instance, *const Host, *mut Ctx, *mut *mut Instance) -> Status;
/// `ringport_plugin_entry`: host major, host minor.
pub type EntryFn = unsafe extern "C" fn(u32, u32) -> *const Plugin;

/// `ringport_plugin`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Plugin {
    /// Size of the writer's struct, in bytes.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// [`PLUGIN_MAGIC`].
    pub magic: u64,
    /// The ABI major the plugin was built for.
    pub abi_major: u32,
    /// The oldest ABI minor that will do for the plugin.
    pub abi_minor: u32,
    /// `CAN_*` bits.
    pub capabilities: u64,
    /// What the plugin is.
    pub name: Str,
    /// The plugin's own version.
    pub version: Str,
    /// Builds an instance from a configuration.
    pub configure: Option<ConfigureFn>,
    /// Starts one worker's state.
    pub worker_start: Option<WorkerStartFn>,
    /// Routes one request.
    pub resolve: Option<ResolveFn>,
    /// Ends one worker's state.
    pub worker_stop: Option<WorkerStopFn>,
    /// Ends an instance.
    pub destroy: Option<DestroyFn>,
    /// Says where content is stored. 1.1
    pub place: Option<PlaceFn>,
    /// Makes a successor.
    pub refresh: Option<RefreshFn>,
}

/// A struct that crosses: it begins with `size: u32`, and what a plugin or host of any version
/// writes into it is a valid value, all bytes zero too.
///
/// # Safety
/// Both must hold for the implementing type.
pub unsafe trait Crossing: Copy {}

macro_rules! crossing {
    ($($name:ident),+) => {
        $(
            // SAFETY: `repr(C)`, first field `size: u32`; the rest are integers, raw pointers and
            // optional functions, for which any bits are valid as far as reading goes, and zero is
            // 0, null and `None`.
            unsafe impl Crossing for $name {}
        )+
    };
}
crossing!(
    Upstream,
    ConfigureArgs,
    ResolveRequest,
    Candidate,
    PlaceRequest,
    Placement,
    Remote,
    Host,
    Plugin
);

/// Copies the part of a foreign struct that both sides know, with the rest zero: `min(size,
/// size_of::<T>())` bytes. `None` for a null or misaligned pointer.
///
/// # Safety
/// A non-null `ptr` must point at a readable `u32` size, and that many bytes of a struct that
/// began as some version of `T` must be readable there and not change meanwhile.
pub unsafe fn read_sized<T: Crossing>(ptr: *const T) -> Option<T> {
    if ptr.is_null() || !ptr.is_aligned() {
        return None;
    }
    // SAFETY: the caller promises a readable `u32` at the start.
    let size = unsafe { ptr.cast::<u32>().read() };
    let known = (size as usize).min(size_of::<T>());
    if known == size_of::<T>() {
        // The usual case, and a copy whose length the compiler knows is a few moves.
        // SAFETY: that many bytes are readable, and any of them make a `T` (`Crossing`).
        return Some(unsafe { ptr.read() });
    }
    let mut copy = MaybeUninit::<T>::zeroed();
    // SAFETY: `known` bytes are readable by the caller's promise and fit into `copy`, a local that
    // can't overlap with them; all zero is a valid `T` (`Crossing`), and so is any version's prefix.
    unsafe {
        core::ptr::copy_nonoverlapping(ptr.cast::<u8>(), copy.as_mut_ptr().cast::<u8>(), known);
        Some(copy.assume_init())
    }
}

/// As [`read_sized`], but a struct that has all we know stays where it is; a shorter one is copied
/// into `room`.
///
/// # Safety
/// As for [`read_sized`], for as long as what is returned is used.
pub unsafe fn view_sized<T: Crossing>(ptr: *const T, room: &mut MaybeUninit<T>) -> Option<&T> {
    if ptr.is_null() || !ptr.is_aligned() {
        return None;
    }
    // SAFETY: the caller promises a readable `u32` at the start.
    if unsafe { ptr.cast::<u32>().read() } as usize >= size_of::<T>() {
        // SAFETY: aligned, that many bytes are readable and don't change during `'a`, and any of
        // them make a `T` (`Crossing`).
        return Some(unsafe { &*ptr });
    }
    // SAFETY: the caller's promise.
    unsafe { read_sized(ptr) }.map(|copy| &*room.write(copy))
}

// SAFETY: the contract makes the plugin table and the strings in it constant for the life of the
// process; only its function pointers are ever called, and they state their own threading.
unsafe impl Sync for Plugin {}
// SAFETY: as for `Sync`: nothing in the table belongs to a thread.
unsafe impl Send for Plugin {}
// SAFETY: the host table is constant from before `configure` until after `destroy`.
unsafe impl Sync for Host {}
// SAFETY: as for `Sync`: nothing in the table belongs to a thread.
unsafe impl Send for Host {}

const _: () = assert!(size_of::<usize>() == 8, "the ABI is defined for 64-bit platforms only");
const _: () = assert!(size_of::<Plugin>() >= PLUGIN_SIZE_MIN);
