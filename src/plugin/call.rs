//! The C calls into a plugin, and the handles in between.
//!
//! Everything else of this module is safe Rust: what crosses is borrowed for the call (`lend`) and
//! copied out by `answer`, which the emit functions (`host`) fill.

mod host;
mod lend;

use std::ptr::null_mut;
use std::sync::Arc;

use ringport_plugin_abi as abi;

use self::host::HOST;
use super::answer::{Answer, Phase, Wishes};
use super::declared::Declared;
use super::handshake::Table;
use super::view::View;
use super::{PlaceRequest, ResolveRequest};

/// First word behind a `ringport_ctx*`: a plugin that makes its own is refused, not believed.
const CONTEXT_MAGIC: u64 = u64::from_le_bytes(*b"RPCONTXT");

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
        // SAFETY: made by `Box::into_raw` in `new` and dropped once. The magic goes first, so that
        // a plugin that comes too late after all is more likely refused than believed.
        unsafe {
            (&raw mut (*self.0).magic).write_volatile(0);
            drop(Box::from_raw(self.0));
        }
    }
}

/// A configured instance of a plugin, not yet ended.
#[derive(Debug)]
pub(super) struct RawInstance {
    table: Table,
    instance: *mut abi::Instance,
    declared: Arc<Declared>,
    wishes: Wishes,
    /// Of the call that made it: a plugin that kept that ctx is refused for as long as it lives.
    _context: ContextBox,
}

// SAFETY: the ABI makes an instance usable from any thread and constant after `configure`; the
// host serialises `worker_start`, `worker_stop`, `refresh` and `destroy` (see `instance`).
unsafe impl Send for RawInstance {}
// SAFETY: as for `Send`; `&RawInstance` only reaches `worker_start` and `refresh`.
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
        let mut context = ContextBox::new(Arc::clone(&declared));
        let mut instance = null_mut();
        let status = lend::Lent::new(&declared).with_args(name, config, worker_count, |args| {
            let can_refresh = table.refresh.is_some();
            context.run(Phase::Configure { can_refresh }, |ctx| {
                // SAFETY: a checked function of the contract's type; all that `args` points at
                // lives while this closure runs, and `HOST` for ever.
                unsafe { (table.configure)(&raw const HOST, args, ctx, &raw mut instance) }
            })
        });
        let checked = check_started(status, context.answer(), instance.is_null());
        let wishes = context.answer().take_wishes();
        // Given to us beside a broken answer too: dropping it destroys it.
        let raw = is_given(status, instance).then(|| RawInstance {
            table,
            instance,
            declared,
            wishes,
            _context: context,
        });
        checked.and(raw.ok_or(StartFailure::NoHandle))
    }

    /// Calls `refresh`; `None` when nothing has changed. Never at the same time as a start or stop
    /// of this instance.
    pub(super) fn refresh(&self) -> Result<Option<RawInstance>, StartFailure> {
        let Some(refresh) = self.table.refresh else { return Ok(None) };
        let mut context = ContextBox::new(Arc::clone(&self.declared));
        let mut successor = null_mut();
        let status = context.run(Phase::Setup, |ctx| {
            // SAFETY: the instance is configured and lives as long as `self`, `HOST` for ever.
            unsafe { refresh(self.instance, &raw const HOST, ctx, &raw mut successor) }
        });
        let checked = check_started(status, context.answer(), false);
        let raw = is_given(status, successor).then(|| RawInstance {
            table: self.table.clone(),
            instance: successor,
            declared: Arc::clone(&self.declared),
            wishes: self.wishes.clone(),
            _context: context,
        });
        checked.map(|()| raw)
    }

    /// Calls `worker_start`. Never at the same time as another start or stop of this instance.
    pub(super) fn start_worker(&self, number: u32) -> Result<RawWorker, StartFailure> {
        let mut context = ContextBox::new(Arc::clone(&self.declared));
        let mut worker = null_mut();
        let status = context.run(Phase::Setup, |ctx| {
            // SAFETY: the instance is configured and lives as long as `self`.
            unsafe { (self.table.worker_start)(self.instance, number, ctx, &raw mut worker) }
        });
        let checked = check_started(status, context.answer(), worker.is_null());
        let raw = is_given(status, worker).then(|| RawWorker {
            resolve: self.table.resolve,
            place: self.table.place,
            worker_stop: self.table.worker_stop,
            worker,
            context,
        });
        checked.and(raw.ok_or(StartFailure::NoHandle))
    }

    /// What the handshake found.
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// What the plugin asked for in `configure`.
    pub(super) fn wishes(&self) -> &Wishes {
        &self.wishes
    }
}

impl Drop for RawInstance {
    fn drop(&mut self) {
        // SAFETY: made by `configure` or `refresh`, ended once; `instance` keeps it alive past its
        // workers.
        unsafe { (self.table.destroy)(self.instance) }
    }
}

/// Whether a handle is ours to end: with any other status it is not looked at.
fn is_given<T>(status: abi::Status, handle: *mut T) -> bool {
    status == abi::OK && !handle.is_null()
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
    place: Option<abi::PlaceFn>,
    worker_stop: abi::WorkerStopFn,
    worker: *mut abi::Worker,
    context: ContextBox,
}

// SAFETY: the ABI lets a worker's state be made on one thread and used on another, one at a time;
// `RawWorker` is not `Sync`, and its calls take `&mut self`.
unsafe impl Send for RawWorker {}

impl RawWorker {
    /// Calls `resolve`; what was emitted is in the answer. `headers` borrow from the request.
    pub(super) fn resolve(
        &mut self,
        request: &ResolveRequest<'_>,
        view: &View<'_>,
        headers: &[abi::Str],
    ) -> (abi::Status, &mut Answer) {
        let request = lend::resolve_request(request, view, headers);
        let (resolve, worker) = (self.resolve, self.worker);
        let status = self.context.run(Phase::Resolve, |ctx| {
            // SAFETY: started and not stopped, `&mut self` makes this its only user; `request`
            // borrows from the caller's, which outlives the call.
            unsafe { resolve(worker, &raw const request, ctx) }
        });
        (status, self.context.answer())
    }

    /// Calls `place`, if the plugin has it; what was emitted is in the answer.
    pub(super) fn place(
        &mut self,
        request: &PlaceRequest<'_>,
    ) -> Option<(abi::Status, &mut Answer)> {
        let (place, worker) = (self.place?, self.worker);
        let phase =
            Phase::Place { is_stored: request.is_stored, is_hosted: request.upstream.is_none() };
        let digest = request.digest.map(ToString::to_string).unwrap_or_default();
        let request = lend::place_request(request, &digest);
        let status = self.context.run(phase, |ctx| {
            // SAFETY: as in `resolve`.
            unsafe { place(worker, &raw const request, ctx) }
        });
        Some((status, self.context.answer()))
    }

    /// Whether the plugin has the hook.
    pub(super) fn can_place(&self) -> bool {
        self.place.is_some()
    }
}

impl Drop for RawWorker {
    fn drop(&mut self) {
        // SAFETY: made by `worker_start`, ended once, never used afterwards.
        unsafe { (self.worker_stop)(self.worker) }
    }
}
