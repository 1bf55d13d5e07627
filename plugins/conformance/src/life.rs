//! The C calls: one instance with its workers, from `configure` to `destroy`.

use std::ptr::null_mut;
use std::sync::{Arc, Mutex, PoisonError};

use ringport_plugin_abi as abi;

use crate::answer::{Answer, Phase, status_name};
use crate::frame::Frame;
use crate::handshake::Table;
use crate::host::{self, Context, HostVersion};
use crate::report::{Finding, Problem};
use crate::setup::Setup;
use crate::world::World;

/// What every life of the plugin under check shares.
#[derive(Clone, Debug)]
pub(crate) struct Kit {
    pub(crate) table: Table,
    pub(crate) world: Arc<World>,
    /// Rules that were broken whatever the hooks returned.
    faults: Arc<Mutex<Vec<Finding>>>,
}

impl Kit {
    pub(crate) fn new(table: Table, world: Arc<World>) -> Kit {
        Kit { table, world, faults: Arc::default() }
    }

    /// What was found since the last time, beside what the calls told.
    pub(crate) fn take_faults(&self) -> Vec<Finding> {
        std::mem::take(&mut *self.faults.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, context: &Context) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.append(&mut context.state().faults);
    }
}

/// A configured instance; it is destroyed when it and its workers are dropped.
#[derive(Clone, Debug)]
pub(crate) struct Life(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kit: Kit,
    version: HostVersion,
    instance: *mut abi::Instance,
    /// Every context that was handed out. They live as long as the instance, so that one which is
    /// used too late is still there to tell of it.
    contexts: Mutex<Vec<Arc<Context>>>,
    headers_wanted: usize,
    refresh_ms: Option<u64>,
    /// Where the plugin must not look any more; kept, so that it finds what we left there.
    _setup: Option<Setup>,
}

// SAFETY: the ABI makes an instance usable from any thread and constant after `configure`; the kit
// starts, stops and destroys on one thread, or in drops that the last owner runs.
unsafe impl Send for Inner {}
// SAFETY: as for `Send`; contexts are behind locks.
unsafe impl Sync for Inner {}

impl Life {
    /// Calls `configure`; with `spoil`, its arguments are overwritten afterwards.
    pub(crate) fn start(kit: &Kit, version: HostVersion, spoil: bool) -> Result<Life, Finding> {
        let mut setup = Setup::new(&kit.world, version, 4);
        let context = Arc::new(Context::new(Arc::clone(&kit.world), kit.table.refresh.is_some()));
        let mut instance = null_mut();
        let status = context.run(Phase::Configure, "configure", |ctx| {
            // SAFETY: a checked function of the contract's type; what `setup` points at lives
            // until the instance has ended, and the host's table for ever.
            unsafe {
                (kit.table.configure)(host::table(version), setup.as_ptr(), ctx, &raw mut instance)
            }
        });
        kit.note(&context);
        check_started("configure", status, &context, instance.is_null())?;
        if spoil {
            setup.spoil();
        }
        Ok(Life::of(kit, version, instance, context, Some(setup)))
    }

    fn of(
        kit: &Kit,
        version: HostVersion,
        instance: *mut abi::Instance,
        context: Arc<Context>,
        setup: Option<Setup>,
    ) -> Life {
        let (headers_wanted, refresh_ms) = {
            let state = context.state();
            (state.headers_wanted.len(), state.refresh_ms)
        };
        Life(Arc::new(Inner {
            kit: kit.clone(),
            version,
            instance,
            contexts: Mutex::new(vec![context]),
            headers_wanted,
            refresh_ms,
            _setup: setup,
        }))
    }

    /// How many headers' values each request carries.
    pub(crate) fn headers_wanted(&self) -> usize {
        self.0.headers_wanted
    }

    /// It asked to be refreshed.
    pub(crate) fn wants_refresh(&self) -> bool {
        self.0.refresh_ms.is_some()
    }

    fn context(&self) -> Arc<Context> {
        let inner = &self.0;
        let can_refresh = inner.kit.table.refresh.is_some();
        let context = Arc::new(Context::new(Arc::clone(&inner.kit.world), can_refresh));
        let mut contexts = inner.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        contexts.push(Arc::clone(&context));
        context
    }

    /// Calls `worker_start`. Never at the same time as another start or stop.
    pub(crate) fn start_worker(&self, number: u32) -> Result<Worker, Finding> {
        let context = self.context();
        let mut worker = null_mut();
        let status = context.run(Phase::Setup, "worker_start", |ctx| {
            // SAFETY: the instance is configured and lives as long as `self`.
            unsafe {
                (self.0.kit.table.worker_start)(self.0.instance, number, ctx, &raw mut worker)
            }
        });
        self.0.kit.note(&context);
        check_started("worker_start", status, &context, worker.is_null())?;
        Ok(Worker { worker, context, life: self.clone() })
    }

    /// Calls `refresh`: a successor, or `None` if nothing has changed, or if it could not.
    pub(crate) fn refresh(&self) -> Result<Option<Life>, Finding> {
        let inner = &self.0;
        let Some(refresh) = inner.kit.table.refresh else { return Ok(None) };
        let context = self.context();
        let mut successor = null_mut();
        let status = context.run(Phase::Setup, "refresh", |ctx| {
            let host = host::table(inner.version);
            // SAFETY: the instance is configured and lives as long as `self`.
            unsafe { refresh(inner.instance, host, ctx, &raw mut successor) }
        });
        inner.kit.note(&context);
        if let Some(finding) = judge_status("refresh", status) {
            return Err(finding);
        }
        if let Some(broken) = context.state().broken.take() {
            return Err(broken);
        }
        if status != abi::OK || successor.is_null() {
            return Ok(None);
        }
        let own = Arc::new(Context::new(Arc::clone(&inner.kit.world), true));
        let next = Life::of(&inner.kit, inner.version, successor, own, None);
        Ok(Some(next))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: made by `configure` or `refresh`, ended once, after its last worker.
        unsafe { (self.kit.table.destroy)(self.instance) }
        let contexts = self.contexts.get_mut().unwrap_or_else(PoisonError::into_inner);
        for context in contexts.drain(..) {
            self.kit.note(&context);
        }
    }
}

/// `worker_stop` and `destroy` with null.
pub(crate) fn end_nothing(table: &Table) {
    // SAFETY: by the contract both accept null.
    unsafe {
        (table.worker_stop)(null_mut());
        (table.destroy)(null_mut());
    }
}

fn check_started(
    hook: &'static str,
    status: abi::Status,
    context: &Context,
    is_null: bool,
) -> Result<(), Finding> {
    let mut state = context.state();
    if let Some(finding) = judge_status(hook, status).filter(|_| status != abi::INTERNAL) {
        return Err(finding);
    }
    if status != abi::OK {
        let reason = if state.error.is_empty() { "no reason (emit_error)" } else { &state.error };
        let found = format!("{}: {reason}", status_name(status));
        let (rule, remedy) = match hook {
            "configure" => (5, "check it with a configuration that it accepts (--config FILE)"),
            _ => (11, "start every worker that the server runs, or refuse in configure"),
        };
        return Err(Problem::new(format!("OK from {hook}"), found, remedy).breaks(rule));
    }
    if let Some(broken) = state.broken.take() {
        return Err(broken);
    }
    match is_null {
        false => Ok(()),
        true => {
            let found = format!("OK from {hook} with *out left null");
            let remedy = "set *out, or return another status";
            Err(Problem::new("a handle in *out", found, remedy).breaks(11))
        }
    }
}

/// A status that no hook should return.
pub(crate) fn judge_status(hook: &str, status: abi::Status) -> Option<Finding> {
    let (expected, remedy) = match status {
        abi::OK..=abi::INVALID => return None,
        abi::INTERNAL => (
            "a status other than INTERNAL, which takes the plugin out of use on that worker",
            "find what failed; answer what can't be decided now with UNAVAILABLE",
        ),
        _ => ("a status of the header", "return one of RINGPORT_OK to RINGPORT_INTERNAL"),
    };
    let found = format!("{} from {hook}", status_name(status));
    Some(Problem::new(expected, found, remedy).breaks(15))
}

/// What a call came to.
#[derive(Clone, Debug)]
pub(crate) struct Called {
    pub(crate) answer: Answer,
    /// The rule that an OK answer broke.
    pub(crate) broken: Option<Finding>,
    /// The text of `emit_error`.
    pub(crate) error: String,
}

/// One worker's state; stopped when dropped. Used by one thread at a time.
#[derive(Debug)]
pub(crate) struct Worker {
    worker: *mut abi::Worker,
    context: Arc<Context>,
    life: Life,
}

// SAFETY: the ABI lets a worker's state be made on one thread and used on another, one at a time;
// `Worker` is not `Sync`, and its calls take `&mut self`.
unsafe impl Send for Worker {}

impl Worker {
    /// Calls `resolve` and nothing else.
    pub(crate) fn call(&mut self, frame: &Frame) -> abi::Status {
        let (resolve, worker) = (self.life.0.kit.table.resolve, self.worker);
        self.context.run(Phase::Resolve, "resolve", |ctx| {
            // SAFETY: started and not stopped, `&mut self` makes this its only user; the frame
            // outlives the call.
            unsafe { resolve(worker, frame.as_ptr(), ctx) }
        })
    }

    /// Calls `resolve` and takes what was emitted.
    pub(crate) fn resolve(&mut self, frame: &Frame) -> Called {
        self.call(frame);
        self.taken()
    }

    /// Calls `place`, if there is one.
    pub(crate) fn place(&mut self, request: &abi::PlaceRequest) -> Option<Called> {
        let (place, worker) = (self.life.0.kit.table.place?, self.worker);
        self.context.run(Phase::Place, "place", |ctx| {
            // SAFETY: as in `call`.
            unsafe { place(worker, &raw const *request, ctx) }
        });
        Some(self.taken())
    }

    fn taken(&self) -> Called {
        let mut state = self.context.state();
        let (answer, error) = (std::mem::take(&mut state.answer), state.error.clone());
        let called = Called { answer, broken: state.broken.take(), error };
        drop(state);
        self.life.0.kit.note(&self.context);
        called
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // SAFETY: made by `worker_start`, ended once, never used afterwards.
        unsafe { (self.life.0.kit.table.worker_stop)(self.worker) }
    }
}
