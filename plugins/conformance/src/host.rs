//! The played hosts' tables: same version, later minor, 1.0; and what a `ringport_ctx*` points at.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringport_plugin_abi as abi;

use crate::answer::{Phase, Refused, State};
use crate::frame::Grown;
use crate::world::World;

/// A minor that nobody has defined yet.
pub(crate) const LATER_MINOR: u32 = abi::ABI_MINOR + 1;
/// Size of `ringport_host` in 1.0.
const HOST_1_0: u32 = 72;
/// First word behind a ctx: a plugin that makes up its own is refused, not believed.
const CONTEXT_MAGIC: u64 = u64::from_le_bytes(*b"RPKITCTX");

/// Which host is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostVersion {
    /// Ours, with our structs.
    Same,
    /// Our minor, with larger structs.
    SameLarger,
    /// A later minor: a larger table, features and flags that nobody knows yet.
    Later,
    /// 1.0, without everything that came later.
    Old,
}

impl HostVersion {
    pub(crate) fn minor(self) -> u32 {
        match self {
            HostVersion::Same | HostVersion::SameLarger => abi::ABI_MINOR,
            HostVersion::Later => LATER_MINOR,
            HostVersion::Old => 0,
        }
    }
}

const SAME: abi::Host = abi::Host {
    size: size_of::<abi::Host>() as u32,
    reserved: 0,
    abi_major: abi::ABI_MAJOR,
    abi_minor: abi::ABI_MINOR,
    product: abi::Str::new(concat!("ringport-conformance/", env!("CARGO_PKG_VERSION"))),
    emit_upstream: Some(emit_upstream),
    emit_hosted: Some(emit_hosted),
    emit_rule: Some(emit_rule),
    emit_error: Some(emit_error),
    emit_freshness: Some(emit_freshness),
    features: abi::HOST_REMOTE_TIER,
    emit_candidate: Some(emit_candidate),
    emit_immutable: Some(emit_immutable),
    emit_cacheable: Some(emit_cacheable),
    emit_placement: Some(emit_placement),
    emit_remote: Some(emit_remote),
    want_header: Some(want_header),
    want_refresh: Some(want_refresh),
};

const LARGER_BYTES: u32 = size_of::<Grown<abi::Host>>() as u32;

static HOSTS: [Grown<abi::Host>; 3] = [
    Grown::new(SAME),
    Grown::new(abi::Host {
        size: LARGER_BYTES,
        abi_minor: LATER_MINOR,
        features: abi::HOST_REMOTE_TIER | 1 << 40,
        ..SAME
    }),
    Grown::new(abi::Host {
        size: HOST_1_0,
        abi_minor: 0,
        features: 0,
        emit_candidate: None,
        emit_immutable: None,
        emit_cacheable: None,
        emit_placement: None,
        emit_remote: None,
        want_header: None,
        want_refresh: None,
        ..SAME
    }),
];

/// The table of a host; lives for ever.
pub(crate) fn table(version: HostVersion) -> *const abi::Host {
    let [same, later, old] = &HOSTS;
    let host = match version {
        HostVersion::Same | HostVersion::SameLarger => same,
        HostVersion::Later => later,
        HostVersion::Old => old,
    };
    (&raw const *host).cast()
}

/// What a `ringport_ctx*` points at. Behind a lock, so that a plugin that emits from a thread of
/// its own is found out and nothing worse.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Context {
    magic: u64,
    state: Mutex<State>,
}

impl Context {
    pub(crate) fn new(world: Arc<World>, can_refresh: bool) -> Context {
        Context { magic: CONTEXT_MAGIC, state: Mutex::new(State::new(world, can_refresh)) }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `hook` with this context, which is closed again before this returns.
    pub(crate) fn run(
        &self,
        phase: Phase,
        name: &'static str,
        hook: impl FnOnce(*mut abi::Ctx) -> abi::Status,
    ) -> abi::Status {
        self.state().begin(phase, name);
        let status = hook((&raw const *self).cast_mut().cast());
        self.state().end(status);
        status
    }
}

/// Hands the state and the bytes of an emit call to `run`.
///
/// # Safety
/// `ctx` is null, or a context that lives; strings of a sane length are readable.
unsafe fn emit<const N: usize>(
    function: &str,
    ctx: *mut abi::Ctx,
    strings: [abi::Str; N],
    run: impl FnOnce(&mut State, [&[u8]; N]) -> Result<(), Refused>,
) -> abi::Status {
    // SAFETY: the caller's promise; only shared references to a context exist.
    let Some(context) = (unsafe { ctx.cast::<Context>().cast_const().as_ref() }) else {
        return abi::INVALID;
    };
    if context.magic != CONTEXT_MAGIC {
        return abi::INVALID;
    }
    let mut state = context.state();
    let is_garbage =
        |s: &&abi::Str| s.len > abi::STRING_BYTES_MAX || (s.ptr.is_null() && s.len > 0);
    let outcome = match strings.iter().find(is_garbage) {
        Some(string) => state.refuse_string(function, *string),
        None => {
            // SAFETY: of a sane length, so readable by the caller's promise.
            let bytes = strings.map(|string| unsafe { string.as_bytes() }.unwrap_or_default());
            run(&mut state, bytes)
        }
    };
    match outcome {
        Ok(()) => abi::OK,
        Err(Refused) => abi::INVALID,
    }
}

/// As [`emit`], for a struct.
///
/// # Safety
/// As for [`emit`]; `from` is null or a sized struct.
unsafe fn emit_struct<T: abi::Crossing, const N: usize>(
    function: &str,
    ctx: *mut abi::Ctx,
    from: *const T,
    strings: impl FnOnce(&T) -> [abi::Str; N],
    run: impl FnOnce(&mut State, &T, [&[u8]; N]) -> Result<(), Refused>,
) -> abi::Status {
    // SAFETY: the caller's promise, for all three calls.
    unsafe {
        let Some(known) = abi::read_sized(from) else {
            let found = "a null or misaligned pointer";
            return emit(function, ctx, [], |state, []| state.refuse_struct(function, found));
        };
        let size = from.cast::<u32>().read();
        // Less than its first string behind `size` is no version of it.
        if size < 24 {
            let found = format!("size {size}");
            return emit(function, ctx, [], |state, []| state.refuse_struct(function, &found));
        }
        emit(function, ctx, strings(&known), |state, bytes| run(state, &known, bytes))
    }
}

unsafe extern "C" fn emit_upstream(ctx: *mut abi::Ctx, name: abi::Str, repo: abi::Str) -> i32 {
    let name_of = "emit_upstream";
    // SAFETY: the contract of the emit functions.
    unsafe {
        emit(name_of, ctx, [name, repo], |state, [name, repo]| {
            state.add_candidate(name_of, [name, repo, &[], &[]])
        })
    }
}

unsafe extern "C" fn emit_candidate(ctx: *mut abi::Ctx, from: *const abi::Candidate) -> i32 {
    let name_of = "emit_candidate";
    let strings = |c: &abi::Candidate| [c.upstream, c.repository, c.credential, c.forward_ns];
    // SAFETY: the contract of the emit functions.
    unsafe {
        emit_struct(name_of, ctx, from, strings, |state, _, strings| {
            state.add_candidate(name_of, strings)
        })
    }
}

unsafe extern "C" fn emit_hosted(ctx: *mut abi::Ctx, repository: abi::Str) -> abi::Status {
    // SAFETY: the contract of the emit functions.
    unsafe { emit("emit_hosted", ctx, [repository], |state, [name]| state.set_hosted(name)) }
}

unsafe extern "C" fn emit_rule(ctx: *mut abi::Ctx, text: abi::Str) -> abi::Status {
    // SAFETY: the contract of the emit functions.
    unsafe { emit("emit_rule", ctx, [text], |state, [_]| state.set_rule()) }
}

unsafe extern "C" fn emit_error(ctx: *mut abi::Ctx, text: abi::Str) -> abi::Status {
    // SAFETY: the contract of the emit functions.
    unsafe { emit("emit_error", ctx, [text], |state, [text]| state.set_error(text)) }
}

unsafe extern "C" fn emit_freshness(ctx: *mut abi::Ctx, ttl_ms: u64, stale_ms: u64) -> i32 {
    // SAFETY: the contract of the emit functions.
    unsafe { emit("emit_freshness", ctx, [], |state, []| state.set_freshness(ttl_ms, stale_ms)) }
}

unsafe extern "C" fn emit_immutable(ctx: *mut abi::Ctx) -> abi::Status {
    // SAFETY: the contract of the emit functions.
    unsafe { emit("emit_immutable", ctx, [], |state, []| state.set_immutable()) }
}

unsafe extern "C" fn emit_cacheable(ctx: *mut abi::Ctx, depends_on: u64) -> abi::Status {
    // SAFETY: the contract of the emit functions.
    unsafe { emit("emit_cacheable", ctx, [], |state, []| state.set_cacheable(depends_on)) }
}

unsafe extern "C" fn emit_placement(ctx: *mut abi::Ctx, from: *const abi::Placement) -> i32 {
    // SAFETY: the contract of the emit functions.
    unsafe {
        emit_struct(
            "emit_placement",
            ctx,
            from,
            |p| [p.pool],
            |state, placement, [pool]| state.set_placement(placement, pool),
        )
    }
}

unsafe extern "C" fn emit_remote(ctx: *mut abi::Ctx, from: *const abi::Remote) -> abi::Status {
    // SAFETY: the contract of the emit functions.
    unsafe {
        emit_struct(
            "emit_remote",
            ctx,
            from,
            |r| [r.method, r.url],
            |state, remote, strings| state.add_remote(remote, strings),
        )
    }
}

unsafe extern "C" fn want_header(ctx: *mut abi::Ctx, name: abi::Str) -> abi::Status {
    // SAFETY: the contract of the host's functions.
    unsafe { emit("want_header", ctx, [name], |state, [name]| state.want_header(name)) }
}

unsafe extern "C" fn want_refresh(ctx: *mut abi::Ctx, interval_ms: u64) -> abi::Status {
    // SAFETY: the contract of the host's functions.
    unsafe { emit("want_refresh", ctx, [], |state, []| state.want_refresh(interval_ms)) }
}
