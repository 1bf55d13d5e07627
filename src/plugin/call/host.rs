//! The host's function table: what a plugin calls back.
//!
//! These functions must not panic (a panic would end the process at their `extern "C"`): they
//! index nothing, unwrap nothing and only allocate within the ABI's limits.

use ringport_plugin_abi as abi;

use super::{CONTEXT_MAGIC, Context};
use crate::plugin::answer::{Answer, Refused, RemoteDraft};

pub(super) static HOST: abi::Host = abi::Host {
    size: size_of::<abi::Host>() as u32,
    reserved: 0,
    abi_major: abi::ABI_MAJOR,
    abi_minor: abi::ABI_MINOR,
    product: abi::Str::new(concat!("ringport/", env!("CARGO_PKG_VERSION"))),
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

/// Hands the answer and the bytes of an emit call to `run`.
///
/// # Safety
/// The contract of the emit functions: `ctx` is null or what a running hook of this thread was
/// handed, and every string of a sane length is readable.
unsafe fn emit<const N: usize>(
    ctx: *mut abi::Ctx,
    strings: [abi::Str; N],
    run: impl FnOnce(&mut Answer, [&[u8]; N]) -> Result<(), Refused>,
) -> abi::Status {
    let context = ctx.cast::<Context>();
    // SAFETY: null, or a live context by the caller's promise; while a hook runs, `ContextBox`
    // makes no reference to it.
    let Some(context) = (unsafe { context.as_mut() }) else { return abi::INVALID };
    if context.magic != CONTEXT_MAGIC {
        return abi::INVALID;
    }
    let mut bytes: [&[u8]; N] = [&[]; N];
    let mut is_readable = true;
    for (bytes, string) in bytes.iter_mut().zip(strings) {
        // SAFETY: the caller's promise.
        match unsafe { read(string) } {
            Some(found) => *bytes = found,
            None => is_readable = false,
        }
    }
    let outcome = match is_readable {
        true => run(&mut context.answer, bytes),
        false => context.answer.refuse_pointer(),
    };
    match outcome {
        Ok(()) => abi::OK,
        Err(Refused) => abi::INVALID,
    }
}

/// The bytes; `None` without a look at them where pointer or length can't be right.
///
/// # Safety
/// A string of a sane length is readable, during `'a`.
unsafe fn read<'a>(string: abi::Str) -> Option<&'a [u8]> {
    if string.len > abi::STRING_BYTES_MAX {
        return None;
    }
    // SAFETY: the caller's promise.
    unsafe { string.as_bytes() }
}

/// As [`emit`], for a struct that a plugin could not be right about.
///
/// # Safety
/// As for [`emit`].
unsafe fn refuse_pointer(ctx: *mut abi::Ctx) -> abi::Status {
    // SAFETY: the caller's promise.
    unsafe { emit(ctx, [], |answer, []| answer.refuse_pointer()) }
}

unsafe extern "C" fn emit_upstream(ctx: *mut abi::Ctx, name: abi::Str, repo: abi::Str) -> i32 {
    // SAFETY: the contract of the emit functions.
    unsafe {
        emit(ctx, [name, repo], |answer, [name, repo]| {
            answer.add_candidate("emit_upstream", name, repo, [b"", b""])
        })
    }
}

unsafe extern "C" fn emit_candidate(ctx: *mut abi::Ctx, candidate: *const abi::Candidate) -> i32 {
    // SAFETY: the contract of the emit functions: null, or a struct that begins with its size,
    // whose strings are readable.
    unsafe {
        let Some(c) = abi::read_sized(candidate) else { return refuse_pointer(ctx) };
        let strings = [c.upstream, c.repository, c.credential, c.forward_ns];
        emit(ctx, strings, |answer, [name, repo, credential, ns]| {
            answer.add_candidate("emit_candidate", name, repo, [credential, ns])
        })
    }
}

unsafe extern "C" fn emit_hosted(ctx: *mut abi::Ctx, repository: abi::Str) -> abi::Status {
    // SAFETY: the contract of the emit functions.
    unsafe { emit(ctx, [repository], |answer, [repository]| answer.set_hosted(repository)) }
}

unsafe extern "C" fn emit_rule(ctx: *mut abi::Ctx, text: abi::Str) -> abi::Status {
    // SAFETY: the contract of the emit functions.
    unsafe { emit(ctx, [text], |answer, [text]| answer.set_rule(text)) }
}

unsafe extern "C" fn emit_error(ctx: *mut abi::Ctx, text: abi::Str) -> abi::Status {
    // SAFETY: the contract of the emit functions.
    unsafe { emit(ctx, [text], |answer, [text]| answer.set_error(text)) }
}

unsafe extern "C" fn emit_freshness(ctx: *mut abi::Ctx, ttl_ms: u64, stale_ms: u64) -> i32 {
    // SAFETY: the contract of the emit functions.
    unsafe { emit(ctx, [], |answer, []| answer.set_freshness(ttl_ms, stale_ms)) }
}

unsafe extern "C" fn emit_immutable(ctx: *mut abi::Ctx) -> abi::Status {
    // SAFETY: the contract of the emit functions.
    unsafe { emit(ctx, [], |answer, []| answer.set_immutable()) }
}

unsafe extern "C" fn emit_cacheable(ctx: *mut abi::Ctx, depends_on: u64) -> abi::Status {
    // SAFETY: the contract of the emit functions.
    unsafe { emit(ctx, [], |answer, []| answer.set_cacheable(depends_on)) }
}

unsafe extern "C" fn emit_placement(ctx: *mut abi::Ctx, placement: *const abi::Placement) -> i32 {
    // SAFETY: the contract of the emit functions: null, or a struct that begins with its size,
    // whose strings are readable.
    unsafe {
        let Some(placement) = abi::read_sized(placement) else { return refuse_pointer(ctx) };
        emit(ctx, [placement.pool], |answer, [pool]| answer.set_placement(&placement, pool))
    }
}

unsafe extern "C" fn emit_remote(ctx: *mut abi::Ctx, remote: *const abi::Remote) -> abi::Status {
    // SAFETY: the contract of the emit functions: null, or a struct that begins with its size; its
    // strings, its array of `header_count` headers and their strings are readable.
    unsafe {
        let Some(remote) = abi::read_sized(remote) else { return refuse_pointer(ctx) };
        if remote.headers.is_null() && remote.header_count > 0 || !remote.headers.is_aligned() {
            return refuse_pointer(ctx);
        }
        // One more than allowed is enough to see that there are too many.
        let mut headers = Vec::new();
        for index in 0..remote.header_count.min(abi::REMOTE_HEADERS_MAX + 1) {
            let abi::Header { name, value } = remote.headers.add(index).read();
            let (Some(name), Some(value)) = (read(name), read(value)) else {
                return refuse_pointer(ctx);
            };
            headers.push((name, value));
        }
        emit(ctx, [remote.method, remote.url], |answer, [method, url]| {
            let (purpose, expires_unix_ms) = (remote.purpose, remote.expires_unix_ms);
            answer.add_remote(RemoteDraft { purpose, method, url, headers, expires_unix_ms })
        })
    }
}

unsafe extern "C" fn want_header(ctx: *mut abi::Ctx, name: abi::Str) -> abi::Status {
    // SAFETY: the contract of the host's functions.
    unsafe { emit(ctx, [name], |answer, [name]| answer.want_header(name)) }
}

unsafe extern "C" fn want_refresh(ctx: *mut abi::Ctx, interval_ms: u64) -> abi::Status {
    // SAFETY: the contract of the host's functions.
    unsafe { emit(ctx, [], |answer, []| answer.want_refresh(interval_ms)) }
}
