//! The C calls into a plugin, the emit functions it calls back, and the handles in between.
//!
//! Everything else of this module is safe Rust: what crosses is borrowed for the call and copied
//! out by `answer`. The emit functions must not panic (a panic would end the process at their
//! `extern "C"`): they index nothing, unwrap nothing and only allocate within the ABI's limits.

use std::net::IpAddr;
use std::ptr::null_mut;
use std::sync::Arc;

use ringport_plugin_abi as abi;

use super::answer::{Answer, Phase, Refused};
use super::declared::Declared;
use super::handshake::Table;
use super::{RequestKind, ResolveRequest};

/// First word behind a `ringport_ctx*`: a plugin that makes its own is refused, not believed.
const CONTEXT_MAGIC: u64 = u64::from_le_bytes(*b"RPCONTXT");

static HOST: abi::Host = abi::Host {
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
    features: 0,
    emit_candidate: None,
    emit_immutable: None,
    emit_cacheable: None,
    emit_placement: None,
    emit_remote: None,
    want_header: None,
    want_refresh: None,
};

/// What a `ringport_ctx*` points at.
#[repr(C)]
struct Context {
    magic: u64,
    answer: Answer,
}

/// Owns a [`Context`] by its raw pointer: between `begin` and the end of a hook the plugin's emit
/// calls use that pointer, so no Rust reference to it may live meanwhile.
#[derive(Debug)]
struct ContextBox(*mut Context);

impl ContextBox {
    fn new(declared: Arc<Declared>) -> ContextBox {
        let context = Context { magic: CONTEXT_MAGIC, answer: Answer::new(declared) };
        ContextBox(Box::into_raw(Box::new(context)))
    }

    /// Runs `hook` with this context, which is closed again before this returns.
    fn run(
        &mut self,
        phase: Phase,
        hook: impl FnOnce(*mut abi::Ctx) -> abi::Status,
    ) -> abi::Status {
        self.answer().begin(phase);
        let status = hook(self.0.cast());
        self.answer().end();
        status
    }

    fn answer(&mut self) -> &mut Answer {
        // SAFETY: allocated by `new`, freed by `drop` only; `&mut self` makes this the only use.
        unsafe { &mut (*self.0).answer }
    }
}

impl Drop for ContextBox {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw` in `new` and dropped once.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// A configured instance of a plugin, not yet ended.
#[derive(Debug)]
pub(super) struct RawInstance {
    table: Table,
    instance: *mut abi::Instance,
    declared: Arc<Declared>,
}

// SAFETY: the ABI makes an instance usable from any thread and constant after `configure`; the
// host serialises `worker_start`, `worker_stop` and `destroy` (see `instance`).
unsafe impl Send for RawInstance {}
// SAFETY: as for `Send`; `&RawInstance` only reaches `worker_start`.
unsafe impl Sync for RawInstance {}

/// How a start-up hook failed.
#[derive(Debug)]
pub(super) enum StartFailure {
    Refused { status: abi::Status, message: String },
    NoHandle,
}

impl RawInstance {
    /// Calls `configure`. `config` is TOML text.
    pub(super) fn configure(
        table: Table,
        name: &str,
        config: &str,
        worker_count: u32,
        declared: Arc<Declared>,
    ) -> Result<RawInstance, StartFailure> {
        let str_of = |namespace: &crate::oci::Namespace| abi::Str::new(namespace.as_str());
        let aliases: Vec<Vec<abi::Str>> =
            declared.upstreams().iter().map(|u| u.aliases.iter().map(str_of).collect()).collect();
        let upstreams: Vec<abi::Upstream> = declared
            .upstreams()
            .iter()
            .zip(&aliases)
            .map(|(upstream, aliases)| abi::Upstream {
                size: size_of::<abi::Upstream>() as u32,
                flags: upstream.flags,
                canonical_name: str_of(&upstream.canonical_name),
                aliases: aliases.as_ptr(),
                alias_count: aliases.len(),
                credentials: std::ptr::null(),
                credential_count: 0,
            })
            .collect();
        let pointers: Vec<*const abi::Upstream> =
            upstreams.iter().map(std::ptr::from_ref).collect();
        let args = abi::ConfigureArgs {
            size: size_of::<abi::ConfigureArgs>() as u32,
            worker_count,
            name: abi::Str::new(name),
            config: abi::Str::new(config),
            upstreams: pointers.as_ptr(),
            upstream_count: pointers.len(),
            pools: std::ptr::null(),
            pool_count: 0,
            remote_tiers: std::ptr::null(),
            remote_tier_count: 0,
        };
        let mut context = ContextBox::new(Arc::clone(&declared));
        let mut instance = null_mut();
        let status = context.run(Phase::Setup, |ctx| {
            // SAFETY: a checked function of the contract's type; all that `args` points at lives
            // to the end of this function, and `HOST` for ever.
            unsafe { (table.configure)(&raw const HOST, &raw const args, ctx, &raw mut instance) }
        });
        check_started(status, context.answer(), instance.is_null())?;
        Ok(RawInstance { table, instance, declared })
    }

    /// Calls `worker_start`. Never at the same time as another start or stop of this instance.
    pub(super) fn start_worker(&self, number: u32) -> Result<RawWorker, StartFailure> {
        let mut context = ContextBox::new(Arc::clone(&self.declared));
        let mut worker = null_mut();
        let status = context.run(Phase::Setup, |ctx| {
            // SAFETY: the instance is configured and lives as long as `self`.
            unsafe { (self.table.worker_start)(self.instance, number, ctx, &raw mut worker) }
        });
        check_started(status, context.answer(), worker.is_null())?;
        Ok(RawWorker {
            resolve: self.table.resolve,
            worker_stop: self.table.worker_stop,
            worker,
            context,
        })
    }

    /// What the handshake found.
    pub(super) fn table(&self) -> &Table {
        &self.table
    }
}

impl Drop for RawInstance {
    fn drop(&mut self) {
        // SAFETY: made by `configure`, ended once; `instance` keeps it alive past its workers.
        unsafe { (self.table.destroy)(self.instance) }
    }
}

fn check_started(
    status: abi::Status,
    answer: &mut Answer,
    is_null: bool,
) -> Result<(), StartFailure> {
    if status != abi::OK {
        let mut message = std::mem::take(&mut answer.error);
        if message.is_empty() {
            message.push_str("it gave no reason (emit_error)");
        }
        return Err(StartFailure::Refused { status, message });
    }
    if let Some(broken) = answer.broken.take() {
        return Err(StartFailure::Refused { status: abi::INTERNAL, message: broken });
    }
    if is_null { Err(StartFailure::NoHandle) } else { Ok(()) }
}

/// One worker's state within a plugin, not yet stopped. Used by one thread at a time.
#[derive(Debug)]
pub(super) struct RawWorker {
    resolve: abi::ResolveFn,
    worker_stop: abi::WorkerStopFn,
    worker: *mut abi::Worker,
    context: ContextBox,
}

// SAFETY: the ABI lets a worker's state be made on one thread and used on another, one at a time;
// `RawWorker` is not `Sync`, and `resolve` takes `&mut self`.
unsafe impl Send for RawWorker {}

impl RawWorker {
    /// Calls `resolve`; what was emitted is in the answer.
    pub(super) fn resolve(&mut self, request: &ResolveRequest<'_>) -> (abi::Status, &mut Answer) {
        let request = to_abi(request);
        let (resolve, worker) = (self.resolve, self.worker);
        let status = self.context.run(Phase::Resolve, |ctx| {
            // SAFETY: started and not stopped, `&mut self` makes this its only user; `request`
            // borrows from the caller's, which outlives the call.
            unsafe { resolve(worker, &raw const request, ctx) }
        });
        (status, self.context.answer())
    }
}

impl Drop for RawWorker {
    fn drop(&mut self) {
        // SAFETY: made by `worker_start`, ended once, never used afterwards.
        unsafe { (self.worker_stop)(self.worker) }
    }
}

fn to_abi(request: &ResolveRequest<'_>) -> abi::ResolveRequest {
    let namespace = |namespace: Option<&crate::oci::Namespace>| {
        namespace.map_or(abi::Str::EMPTY, |namespace| abi::Str::new(namespace.as_str()))
    };
    let mut client_address = [0; 16];
    let client_address_len = match request.client {
        None => 0,
        Some(IpAddr::V4(address)) => {
            for (to, from) in client_address.iter_mut().zip(address.octets()) {
                *to = from;
            }
            4
        }
        Some(IpAddr::V6(address)) => {
            client_address = address.octets();
            16
        }
    };
    abi::ResolveRequest {
        size: size_of::<abi::ResolveRequest>() as u32,
        kind: match request.kind {
            RequestKind::Manifest => abi::KIND_MANIFEST,
            RequestKind::Blob => abi::KIND_BLOB,
            RequestKind::Tags => abi::KIND_TAGS,
            RequestKind::Referrers => abi::KIND_REFERRERS,
        },
        method: abi::Str::new(request.method),
        query_ns: namespace(request.ns),
        header_ns: namespace(request.header),
        name: abi::Str::new(request.name),
        reference: abi::Str::new(request.reference),
        client_address,
        client_address_len,
        reserved: 0,
        ns_source: abi::NS_NONE,
        header_count: 0,
        ns: abi::Str::EMPTY,
        repository: abi::Str::new(request.name),
        principal: abi::Str::EMPTY,
        headers: std::ptr::null(),
    }
}

/// Hands the answer and the bytes of an emit call to `run`.
///
/// # Safety
/// The contract of the emit functions: `ctx` is null or what a running hook of this thread was
/// handed, and every string is readable.
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
    // SAFETY: the caller's promise.
    let bytes = strings.map(|string| unsafe { string.as_bytes() });
    let outcome = match bytes.contains(&None) {
        true => context.answer.refuse_string(),
        false => run(&mut context.answer, bytes.map(Option::unwrap_or_default)),
    };
    match outcome {
        Ok(()) => abi::OK,
        Err(Refused) => abi::INVALID,
    }
}

unsafe extern "C" fn emit_upstream(ctx: *mut abi::Ctx, name: abi::Str, repo: abi::Str) -> i32 {
    // SAFETY: the contract of the emit functions.
    unsafe { emit(ctx, [name, repo], |answer, [name, repo]| answer.add_upstream(name, repo)) }
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
