//! The C side of a [`Resolver`]: its function table, the guard around every hook, and the only
//! pointers of the SDK outside the fake host (`read` takes the host's structs apart).
//!
//! Behind each opaque handle stands a box whose first word is a magic number. It is compared
//! before use: a host that mixes its handles up gets INTERNAL, not a wild read of a plugin's state.

mod answer;
mod read;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ringport_plugin_abi as abi;

use self::answer::Emit;
pub(crate) use self::answer::Wishes;
pub use self::answer::{Answer, PlaceAnswer};
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
        capabilities: {
            let place = if R::PLACES { abi::CAN_PLACE } else { 0 };
            place | if R::REFRESHES { abi::CAN_REFRESH } else { 0 }
        },
        name: abi::Str::new(R::NAME),
        version: abi::Str::new(R::VERSION),
        configure: Some(configure::<R>),
        worker_start: Some(worker_start::<R>),
        resolve: Some(resolve::<R>),
        worker_stop: Some(worker_stop::<R>),
        destroy: Some(destroy::<R>),
        place: if R::PLACES { Some(place::<R>) } else { None },
        refresh: if R::REFRESHES { Some(refresh::<R>) } else { None },
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
    let emit = Emit::new(&host, ctx);
    let (_, outcome) = guarded("configure", || {
        // SAFETY: the contract: what `args` points at is readable during this call.
        let (setup, config) = unsafe { read::read_setup(&args, Wishes(emit))? };
        let config = crate::config::parse(config).map_err(Refusal::invalid)?;
        R::configure(&setup, config)
    });
    emit.finish(outcome, |resolver| {
        // SAFETY: non-null (checked) and, by the contract, writable by us.
        unsafe { out.write(new_instance(host, resolver)) };
        abi::OK
    })
}

fn new_instance<R: Resolver>(host: abi::Host, resolver: R) -> *mut abi::Instance {
    let resolver = Arc::new(resolver);
    Box::into_raw(Box::new(InstanceBox { magic: INSTANCE_MAGIC, host, resolver })).cast()
}

unsafe extern "C" fn refresh<R: Resolver>(
    instance: *const abi::Instance,
    _host: *const abi::Host,
    ctx: *mut abi::Ctx,
    out: *mut *mut abi::Instance,
) -> abi::Status {
    // SAFETY: the contract: null, or what `configure` or `refresh` of this table made and not yet
    // destroyed.
    let Some(instance) = (unsafe { instance.cast::<InstanceBox<R>>().as_ref() }) else {
        return abi::INTERNAL;
    };
    if instance.magic != INSTANCE_MAGIC || out.is_null() {
        return abi::INTERNAL;
    }
    let (_, outcome) = guarded("refresh", || instance.resolver.refresh());
    Emit::new(&instance.host, ctx).finish(outcome, |successor| {
        if let Some(successor) = successor {
            // SAFETY: non-null (checked) and, by the contract, writable by us.
            unsafe { out.write(new_instance(instance.host, successor)) };
        }
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
    let (_, outcome) = guarded("worker_start", || instance.resolver.start_worker(number));
    Emit::new(&instance.host, ctx).finish(outcome, |state| {
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

/// Runs a hook of a worker, unless a panic has ended its state before.
///
/// # Safety
/// `worker` is null, or what `worker_start` of this table made, not yet stopped, and used by this
/// thread alone.
unsafe fn on_worker<R: Resolver>(
    hook: &str,
    worker: *mut abi::Worker,
    ctx: *mut abi::Ctx,
    run: impl FnOnce(&R, &mut R::Worker, Emit<'_>) -> Result<Verdict, Refusal>,
) -> abi::Status {
    // SAFETY: the caller's promise.
    let Some(worker) = (unsafe { worker.cast::<WorkerBox<R>>().as_mut() }) else {
        return abi::INTERNAL;
    };
    if worker.magic != WORKER_MAGIC {
        return abi::INTERNAL;
    }
    let WorkerBox { host, resolver, state, poisoned, .. } = worker;
    let emit = Emit::new(host, ctx);
    if *poisoned {
        let refusal = Refusal::unavailable("the plugin panicked on this worker before");
        return emit.finish(Err(refusal), |()| abi::OK);
    }
    let (panicked, outcome) = guarded(hook, || run(resolver, state, emit));
    *poisoned = panicked;
    emit.finish(outcome, |verdict| match verdict {
        Verdict::Answered => abi::OK,
        Verdict::Decline => abi::DECLINE,
    })
}

unsafe extern "C" fn resolve<R: Resolver>(
    worker: *mut abi::Worker,
    request: *const abi::ResolveRequest,
    ctx: *mut abi::Ctx,
) -> abi::Status {
    let run = |resolver: &R, state: &mut R::Worker, emit: Emit<'_>| {
        let mut room = read::Room::new();
        // SAFETY: the contract: the request and what it points at are readable during this call.
        let request = unsafe { read::read_request(request, &mut room)? };
        resolver.resolve(state, &request, &mut Answer(emit))
    };
    // SAFETY: the contract.
    unsafe { on_worker("resolve", worker, ctx, run) }
}

unsafe extern "C" fn place<R: Resolver>(
    worker: *mut abi::Worker,
    request: *const abi::PlaceRequest,
    ctx: *mut abi::Ctx,
) -> abi::Status {
    let run = |resolver: &R, state: &mut R::Worker, emit: Emit<'_>| {
        // SAFETY: the contract: the request and what it points at are readable during this call.
        let request = unsafe { read::read_place_request(request)? };
        resolver.place(state, &request, &mut PlaceAnswer(emit))
    };
    // SAFETY: the contract.
    unsafe { on_worker("place", worker, ctx, run) }
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
