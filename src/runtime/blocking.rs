//! The blocking pool: where calls that may wait go (getaddrinfo, directory work, and all file
//! work of the epoll driver), so that workers never do.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_channel::oneshot;

use super::task::panic_message;

type Job = Box<dyn FnOnce() + Send>;

thread_local! {
    static POOL: RefCell<Option<BlockingPool>> = const { RefCell::new(None) };
}

/// Why a blocking call gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockingError {
    /// The call panicked.
    #[error("a blocking call panicked: {0}")]
    Panicked(String),
    /// The pool is gone or was never attached to this thread.
    #[error("the blocking pool is not running")]
    Stopped,
    /// The operating system refused a thread.
    #[error("the operating system refused a thread: {0}")]
    NoThread(String),
    /// More calls are waiting than the pool accepts.
    #[error("the blocking pool is full: {0} calls are waiting")]
    Full(usize),
}

impl From<BlockingError> for std::io::Error {
    fn from(error: BlockingError) -> Self {
        std::io::Error::other(error)
    }
}

/// Fixed sets of threads, each fed by a bounded queue: one for the disk, one for reading ahead, one for
/// names, one for what takes long, one for passwords. A resolver that does not answer then holds up look-ups only, never a hit, and
/// so do large files that are hashed. Cloning shares it.
#[derive(Clone)]
pub struct BlockingPool {
    disk: crossbeam_channel::Sender<Job>,
    ahead: crossbeam_channel::Sender<Job>,
    names: crossbeam_channel::Sender<Job>,
    long: crossbeam_channel::Sender<Job>,
    passwords: crossbeam_channel::Sender<Job>,
}

/// Threads that read ahead: enough to keep a disk busy. They give way to the workers: sixteen of them
/// at the workers' own priority made a small request wait for 40 ms on a core that they share.
const AHEAD_THREADS: usize = 8;
const AHEAD_NICE: i32 = 19;
/// Threads and queue of the look-ups of names.
const NAME_THREADS: usize = 4;
const NAME_QUEUE: usize = 1024;
/// The same of what takes long: as many as leave a slow disk to others.
const LONG_THREADS: usize = 2;
const LONG_QUEUE: usize = 1024;
/// The same of passwords, whose comparing is a computation of up to seconds: as many as leave most
/// cores to others, and no more waiting than are done while a client is still there.
const PASSWORD_THREADS: usize = 2;
const PASSWORD_QUEUE: usize = 64;

impl BlockingPool {
    /// Starts `threads` threads for the disk, which accept at most `capacity` waiting calls, and
    /// a few for names and for what takes long.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub fn start(threads: usize, capacity: usize) -> std::io::Result<Self> {
        let disk = start_lane("disk", 0, threads, capacity)?;
        let ahead = start_lane("ahead", AHEAD_NICE, AHEAD_THREADS, capacity)?;
        let names = start_lane("names", 0, NAME_THREADS, NAME_QUEUE)?;
        let long = start_lane("long", 0, LONG_THREADS, LONG_QUEUE)?;
        let passwords = start_lane("passwords", 0, PASSWORD_THREADS, PASSWORD_QUEUE)?;
        Ok(Self { disk, ahead, names, long, passwords })
    }

    /// Makes this pool the one that [`blocking`] uses on the current thread.
    pub fn attach(&self) {
        POOL.with(|pool| *pool.borrow_mut() = Some(self.clone()));
    }
}

fn start_lane(
    name: &str,
    nice: i32,
    threads: usize,
    capacity: usize,
) -> std::io::Result<crossbeam_channel::Sender<Job>> {
    let (jobs, queue) = crossbeam_channel::bounded::<Job>(capacity);
    for n in 0..threads {
        let queue = queue.clone();
        std::thread::Builder::new().name(format!("{name}-{n}")).spawn(move || {
            if nice != 0 {
                // Of this thread only; it can always be made nicer.
                let _ = rustix::process::nice(nice);
            }
            for job in queue {
                job();
            }
        })?;
    }
    Ok(jobs)
}

/// Runs `call`, which waits for the disk, on the blocking pool; waits for its result without
/// occupying the worker.
///
/// # Errors
/// The pool is full or stopped, or the call panicked. If this future is dropped the call still
/// runs to its end.
pub async fn blocking<R, F>(call: F) -> Result<R, BlockingError>
where
    R: Send + 'static,
    F: FnOnce() -> R + Send + 'static,
{
    run(|pool| &pool.disk, call).await
}

/// The same for a call that reads what will be sent next, and may give way to all else.
///
/// # Errors
/// As [`blocking`].
pub async fn blocking_ahead<R, F>(call: F) -> Result<R, BlockingError>
where
    R: Send + 'static,
    F: FnOnce() -> R + Send + 'static,
{
    run(|pool| &pool.ahead, call).await
}

/// The same for a call that resolves names.
///
/// # Errors
/// As [`blocking`].
pub async fn blocking_names<R, F>(call: F) -> Result<R, BlockingError>
where
    R: Send + 'static,
    F: FnOnce() -> R + Send + 'static,
{
    run(|pool| &pool.names, call).await
}

/// The same for a call that reads whole files, and may take minutes.
///
/// # Errors
/// As [`blocking`].
pub async fn blocking_long<R, F>(call: F) -> Result<R, BlockingError>
where
    R: Send + 'static,
    F: FnOnce() -> R + Send + 'static,
{
    run(|pool| &pool.long, call).await
}

/// The same for a call that compares a password.
///
/// # Errors
/// As [`blocking`]. The queue is short, so that it is full soon.
pub async fn blocking_passwords<R, F>(call: F) -> Result<R, BlockingError>
where
    R: Send + 'static,
    F: FnOnce() -> R + Send + 'static,
{
    run(|pool| &pool.passwords, call).await
}

/// The same for a call that waits for somebody else for seconds, on a thread of its own: a few of
/// them would hold up all others on the pool. How many there may be is for the caller to bound.
///
/// # Errors
/// The thread was refused, or the call panicked.
pub async fn blocking_alone<R, F>(call: F) -> Result<R, BlockingError>
where
    R: Send + 'static,
    F: FnOnce() -> R + Send + 'static,
{
    let (answer, result) = oneshot::channel();
    let work = move || {
        let outcome = catch_unwind(AssertUnwindSafe(call))
            .map_err(|payload| BlockingError::Panicked(panic_message(payload.as_ref())));
        // The caller may have gone; then nobody needs the result.
        let _ = answer.send(outcome);
    };
    std::thread::Builder::new()
        .name("alone".into())
        .spawn(work)
        .map_err(|error| BlockingError::NoThread(error.to_string()))?;
    result.await.unwrap_or(Err(BlockingError::Stopped))
}

async fn run<R, F>(
    lane: fn(&BlockingPool) -> &crossbeam_channel::Sender<Job>,
    call: F,
) -> Result<R, BlockingError>
where
    R: Send + 'static,
    F: FnOnce() -> R + Send + 'static,
{
    let Some(jobs) = POOL.with(|pool| pool.borrow().as_ref().map(|pool| lane(pool).clone())) else {
        return Err(BlockingError::Stopped);
    };
    let (answer, result) = oneshot::channel();
    let job: Job = Box::new(move || {
        let outcome = catch_unwind(AssertUnwindSafe(call))
            .map_err(|payload| BlockingError::Panicked(panic_message(payload.as_ref())));
        // The caller may have gone; then nobody needs the result.
        let _ = answer.send(outcome);
    });
    jobs.try_send(job).map_err(|error| match error {
        crossbeam_channel::TrySendError::Full(_) => {
            BlockingError::Full(jobs.capacity().unwrap_or_default())
        }
        crossbeam_channel::TrySendError::Disconnected(_) => BlockingError::Stopped,
    })?;
    result.await.unwrap_or(Err(BlockingError::Stopped))
}
