//! The C side of a [`Resolver`]: its function table, the guard around every hook, and the only
//! pointers of the SDK outside the fake host (`read` takes the host's structs apart).
//!
//! Behind each opaque handle stands a box whose first word is a magic number. It is compared
//! before use: a host that mixes its handles up gets INTERNAL, not a wild read of a plugin's state.

mod read;

use std::any::Any;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ringport_plugin_abi as abi;

use crate::resolver::{Refusal, Resolver, Status, Verdict};

const INSTANCE_MAGIC: u64 = u64::from_le_bytes(*b"RPINSTAN");
const WORKER_MAGIC: u64 = u64::from_le_bytes(*b"RPWORKER");
/// Written over the magic when a handle ends: a second end, or a use after it, is seen while the
/// memory has not been reused.
const ENDED_MAGIC: u64 = 0;

/// What a `ringport_instance*` of this SDK points at.
#[repr(C)]
struct InstanceBox<R> {
    magic: u64,
    host: abi::Host,
    resolver: Arc<R>,
}

/// What a `ringport_worker*` of this SDK points at.
#[repr(C)]
struct WorkerBox<R: Resolver> {
    magic: u64,
    poisoned: bool,
    host: abi::Host,
    resolver: Arc<R>,
    state: R::Worker,
}

/// The function table of `R`; [`export!`](crate::export) puts it into a static.
pub const fn table<R: Resolver>() -> abi::Plugin {
    abi::Plugin {
        size: size_of::<abi::Plugin>() as u32,
        reserved: 0,
        magic: abi::PLUGIN_MAGIC,
        abi_major: abi::ABI_MAJOR,
        abi_minor: abi::ABI_MINOR,
        capabilities: 0,
        name: abi::Str::new(R::NAME),
        version: abi::Str::new(R::VERSION),
        configure: Some(configure::<R>),
        worker_start: Some(worker_start::<R>),
        resolve: Some(resolve::<R>),
        worker_stop: Some(worker_stop::<R>),
        destroy: Some(destroy::<R>),
        place: None,
        refresh: None,
    }
}

/// Takes the answer of one `resolve`. What breaks a rule of the host (an upstream that is not
/// declared, a repository outside the grammar) turns the answer into a 500 that says so.
pub struct Answer<'a> {
    host: &'a abi::Host,
    ctx: *mut abi::Ctx,
    /// A context belongs to one call on one thread.
    _call: PhantomData<*mut ()>,
}

impl Answer<'_> {
    /// Appends a candidate in order of preference: a declared upstream, by its canonical name or
    /// an alias, and the repository to ask it for.
    pub fn upstream(&mut self, upstream: &str, repository: &str) {
        if let Some(emit) = self.host.emit_upstream {
            // SAFETY: `ctx` is this call's and the call is running; the strings are live.
            unsafe { emit(self.ctx, abi::Str::new(upstream), abi::Str::new(repository)) };
        }
    }

    /// Answers with a repository of our own; once, and without upstream candidates.
    pub fn hosted(&mut self, repository: &str) {
        if let Some(emit) = self.host.emit_hosted {
            // SAFETY: as in `upstream`.
            unsafe { emit(self.ctx, abi::Str::new(repository)) };
        }
    }

    /// Names the rule that decided, in a few words, for `ringport explain`.
    pub fn rule(&mut self, text: &str) {
        if let Some(emit) = self.host.emit_rule {
            // SAFETY: as in `upstream`.
            unsafe { emit(self.ctx, abi::Str::new(text)) };
        }
    }

    /// Bounds a tag's freshness in milliseconds; `None` leaves the upstream's configured bound.
    pub fn freshness(&mut self, tag_ttl_ms: Option<u64>, stale_max_ms: Option<u64>) {
        if let Some(emit) = self.host.emit_freshness {
            let or_unset = |bound: Option<u64>| bound.unwrap_or(abi::MS_UNSET);
            // SAFETY: as in `upstream`.
            unsafe { emit(self.ctx, or_unset(tag_ttl_ms), or_unset(stale_max_ms)) };
        }
    }

    fn error(&mut self, text: &str) {
        if let Some(emit) = self.host.emit_error {
            // SAFETY: as in `upstream`.
            unsafe { emit(self.ctx, abi::Str::new(text)) };
        }
    }

    /// The one place where outcomes become statuses. A refusal's text is emitted.
    fn finish<T>(&mut self, outcome: Result<T, Refusal>, ok: impl FnOnce(T) -> abi::Status) -> i32 {
        match outcome {
            Ok(value) => ok(value),
            Err(refusal) => {
                self.error(&refusal.message);
                refusal.status.to_abi()
            }
        }
    }
}

impl Status {
    /// The ABI's number.
    pub(crate) fn to_abi(self) -> abi::Status {
        match self {
            Status::Ok => abi::OK,
            Status::Decline => abi::DECLINE,
            Status::NotFound => abi::NOT_FOUND,
            Status::Denied => abi::DENIED,
            Status::Unavailable => abi::UNAVAILABLE,
            Status::Invalid => abi::INVALID,
            Status::Internal => abi::INTERNAL,
        }
    }

    /// From the ABI's number; unknown ones are INTERNAL.
    pub(crate) fn from_abi(status: abi::Status) -> Status {
        match status {
            abi::OK => Status::Ok,
            abi::DECLINE => Status::Decline,
            abi::NOT_FOUND => Status::NotFound,
            abi::DENIED => Status::Denied,
            abi::UNAVAILABLE => Status::Unavailable,
            abi::INVALID => Status::Invalid,
            _ => Status::Internal,
        }
    }
}

/// Runs a plugin's code; a panic comes back as INTERNAL with its text.
fn guarded<T>(hook: &str, run: impl FnOnce() -> Result<T, Refusal>) -> (bool, Result<T, Refusal>) {
    // Unwind safety: after a panic the state behind the closure is only ever dropped.
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(outcome) => (false, outcome),
        Err(payload) => {
            let message = format!("the plugin panicked in {hook}: {}", panic_text(&*payload));
            // A payload whose own drop panics would unwind out of here; leaking it can't.
            std::mem::forget(payload);
            (true, Err(Refusal::internal(message)))
        }
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no text)")
}

unsafe extern "C" fn configure<R: Resolver>(
    host: *const abi::Host,
    args: *const abi::ConfigureArgs,
    ctx: *mut abi::Ctx,
    out: *mut *mut abi::Instance,
) -> abi::Status {
    // SAFETY: the contract: both tables begin with their size and are constant for the call.
    let (host, args) = unsafe { (abi::read_sized(host), abi::read_sized(args)) };
    let (Some(host), Some(args)) = (host, args) else { return abi::INTERNAL };
    if out.is_null() {
        return abi::INTERNAL;
    }
    let mut answer = Answer { host: &host, ctx, _call: PhantomData };
    let (_, outcome) = guarded("configure", || {
        // SAFETY: the contract: what `args` points at is readable during this call.
        let (setup, config) = unsafe { read::read_setup(&args)? };
        let config = crate::config::parse(config).map_err(Refusal::invalid)?;
        R::configure(&setup, config)
    });
    answer.finish(outcome, |resolver| {
        let resolver = Arc::new(resolver);
        let instance = Box::new(InstanceBox { magic: INSTANCE_MAGIC, host, resolver });
        // SAFETY: non-null (checked) and, by the contract, writable by us.
        unsafe { out.write(Box::into_raw(instance).cast()) };
        abi::OK
    })
}

unsafe extern "C" fn worker_start<R: Resolver>(
    instance: *const abi::Instance,
    number: u32,
    ctx: *mut abi::Ctx,
    out: *mut *mut abi::Worker,
) -> abi::Status {
    // SAFETY: the contract: null, or what `configure` of this table made and not yet destroyed.
    let Some(instance) = (unsafe { instance.cast::<InstanceBox<R>>().as_ref() }) else {
        return abi::INTERNAL;
    };
    if instance.magic != INSTANCE_MAGIC || out.is_null() {
        return abi::INTERNAL;
    }
    let mut answer = Answer { host: &instance.host, ctx, _call: PhantomData };
    let (_, outcome) = guarded("worker_start", || instance.resolver.start_worker(number));
    answer.finish(outcome, |state| {
        let worker = Box::new(WorkerBox {
            magic: WORKER_MAGIC,
            poisoned: false,
            host: instance.host,
            resolver: Arc::clone(&instance.resolver),
            state,
        });
        // SAFETY: non-null (checked) and, by the contract, writable by us.
        unsafe { out.write(Box::into_raw(worker).cast()) };
        abi::OK
    })
}

unsafe extern "C" fn resolve<R: Resolver>(
    worker: *mut abi::Worker,
    request: *const abi::ResolveRequest,
    ctx: *mut abi::Ctx,
) -> abi::Status {
    // SAFETY: the contract: null, or what `worker_start` of this table made, not yet stopped, and
    // used by this thread alone.
    let Some(worker) = (unsafe { worker.cast::<WorkerBox<R>>().as_mut() }) else {
        return abi::INTERNAL;
    };
    if worker.magic != WORKER_MAGIC {
        return abi::INTERNAL;
    }
    let WorkerBox { host, resolver, state, poisoned, .. } = worker;
    let mut answer = Answer { host, ctx, _call: PhantomData };
    if *poisoned {
        let refusal = Refusal::unavailable("the plugin panicked on this worker before");
        return answer.finish(Err(refusal), |()| abi::OK);
    }
    let (panicked, outcome) = guarded("resolve", || {
        // SAFETY: the contract: the request and what it points at are readable during this call.
        let request = unsafe { read::read_request(request)? };
        resolver.resolve(state, &request, &mut answer)
    });
    *poisoned = panicked;
    answer.finish(outcome, |verdict| match verdict {
        Verdict::Answered => abi::OK,
        Verdict::Decline => abi::DECLINE,
    })
}

unsafe extern "C" fn worker_stop<R: Resolver>(worker: *mut abi::Worker) {
    let worker = worker.cast::<WorkerBox<R>>();
    // SAFETY: the contract: null, or ours and not yet stopped.
    unsafe {
        if worker.is_null() || (*worker).magic != WORKER_MAGIC {
            return;
        }
        (*worker).magic = ENDED_MAGIC;
        drop_guarded(Box::from_raw(worker));
    }
}

unsafe extern "C" fn destroy<R: Resolver>(instance: *mut abi::Instance) {
    let instance = instance.cast::<InstanceBox<R>>();
    // SAFETY: the contract: null, or ours and not yet destroyed.
    unsafe {
        if instance.is_null() || (*instance).magic != INSTANCE_MAGIC {
            return;
        }
        (*instance).magic = ENDED_MAGIC;
        drop_guarded(Box::from_raw(instance));
    }
}

/// Drops a plugin's state; a panic in one of its destructors ends here.
fn drop_guarded<T>(state: Box<T>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(state))) {
        std::mem::forget(payload);
    }
}
