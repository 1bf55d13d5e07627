//! Starting workers: one thread a core, its driver, its mailbox, its sweep.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use super::blocking::BlockingPool;
use super::mailbox::{Mailbox, WORKER, Workers};
use super::{deadline, gate, spawn};

/// What completes I/O on the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// io_uring.
    IoUring,
    /// epoll, with file work on the blocking pool.
    Epoll,
}

impl Driver {
    /// The word used in config, log and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// Why workers could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The operating system refused a thread.
    #[error("cannot start worker {worker}: {source}; raise the limit on tasks or lower `workers`")]
    Thread {
        /// Which one.
        worker: usize,
        /// What the system said.
        source: io::Error,
    },
    /// io_uring was demanded and is not there.
    #[error(
        "io_uring was asked for but this kernel or sandbox refuses it \
         (kernel.io_uring_disabled, seccomp); use driver = \"auto\" or \"epoll\""
    )]
    NoIoUring,
}

/// What a worker is handed when it starts.
#[derive(Clone)]
pub struct WorkerContext {
    /// This worker's number, from 0.
    pub worker: usize,
    /// All workers.
    pub workers: Workers,
}

/// The driver to use: `wanted`, or what this machine offers.
///
/// # Errors
/// [`StartError::NoIoUring`] when io_uring is wanted and not there.
pub fn driver_for(wanted: Option<Driver>) -> Result<Driver, StartError> {
    match (wanted, monoio::utils::detect_uring()) {
        (Some(Driver::IoUring), false) => Err(StartError::NoIoUring),
        (Some(Driver::Epoll), _) | (None, false) => Ok(Driver::Epoll),
        (Some(Driver::IoUring) | None, true) => Ok(Driver::IoUring),
    }
}

/// Raises the soft limit on open descriptors to the hard limit; returns what is in force, `None`
/// for no limit.
pub fn raise_descriptor_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    if raised.is_ok() { maximum } else { current }
}

/// Whether the current worker's I/O goes by a ring. Must be called on a worker.
pub fn has_ring() -> bool {
    !monoio::utils::is_legacy()
}

/// The number of the current worker, if this thread is one.
pub fn worker_id() -> Option<usize> {
    WORKER.get()
}

/// Starts `count` workers, each pinned to a core of its own as far as there are cores, and runs
/// `main` on each. The handles end when the mains end. A worker whose driver cannot be set up
/// calls `failed` instead of `main`.
///
/// # Errors
/// The operating system refused a thread.
pub fn start<M, Fut, F>(
    count: usize,
    driver: Driver,
    pool: &BlockingPool,
    main: M,
    failed: F,
) -> Result<(Workers, Vec<JoinHandle<()>>), StartError>
where
    M: Fn(WorkerContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + 'static,
    F: Fn(usize, io::Error) + Send + Sync + 'static,
{
    let failed = Arc::new(failed);
    let (workers, mailboxes) = Workers::create(count);
    let main = Arc::new(main);
    let cores = allowed_cores();
    let mut handles = Vec::with_capacity(count);
    for (worker, mailbox) in mailboxes.into_iter().enumerate() {
        let context = WorkerContext { worker, workers: workers.clone() };
        let (main, failed, pool) = (main.clone(), failed.clone(), pool.clone());
        let core = (count <= cores.len()).then(|| cores.get(worker).copied()).flatten();
        let handle = std::thread::Builder::new()
            .name(format!("worker-{worker}"))
            .spawn(move || {
                if let Err(error) = run(context, driver, core, &pool, mailbox, main.as_ref()) {
                    failed(worker, error);
                }
            })
            .map_err(|source| StartError::Thread { worker, source })?;
        handles.push(handle);
    }
    Ok((workers, handles))
}

/// The cores this process may run on, which in a container are fewer than the machine has.
fn allowed_cores() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return Vec::new() };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
}

fn run<M, Fut>(
    context: WorkerContext,
    driver: Driver,
    core: Option<usize>,
    pool: &BlockingPool,
    mailbox: Mailbox,
    main: &M,
) -> io::Result<()>
where
    M: Fn(WorkerContext) -> Fut,
    Fut: Future<Output = ()> + 'static,
{
    if let Some(core) = core
        && let Err(error) = monoio::utils::bind_to_cpu_set([core])
    {
        tracing::warn!(worker = context.worker, core, %error, "worker is not pinned to its core");
    }
    pool.attach();
    WORKER.set(Some(context.worker));
    let future = async move {
        deadline::start_sweep();
        if let Err(error) = gate::set_up() {
            tracing::warn!(%error, "large bodies will hold up small ones on this worker");
        }
        spawn(mailbox.serve());
        main(context).await;
        gate::take_down();
    };
    match driver {
        Driver::IoUring => build_ring()?.block_on(future),
        Driver::Epoll => {
            RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?.block_on(future);
        }
    }
    Ok(())
}

/// A ring with the flags that halve the cost of a small request (one issuer, completions run when
/// we ask for them); plain set-up on kernels before 6.1.
fn build_ring() -> io::Result<monoio::Runtime<monoio::time::TimeDriver<IoUringDriver>>> {
    let build = |flags: &io_uring::Builder| {
        RuntimeBuilder::<IoUringDriver>::new()
            .uring_builder(flags.clone())
            .with_entries(4096)
            .enable_timer()
            .build()
    };
    let mut tuned = io_uring::IoUring::builder();
    tuned.setup_single_issuer().setup_defer_taskrun();
    build(&tuned).or_else(|_| build(&io_uring::IoUring::builder()))
}
