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
    /// More calls are waiting than the pool accepts.
    #[error("the blocking pool is full: {0} calls are waiting")]
    Full(usize),
}

impl From<BlockingError> for std::io::Error {
    fn from(error: BlockingError) -> Self {
        std::io::Error::other(error)
    }
}

/// A fixed set of threads fed by one bounded queue. Cloning shares it.
#[derive(Clone)]
pub struct BlockingPool {
    jobs: crossbeam_channel::Sender<Job>,
    capacity: usize,
}

impl BlockingPool {
    /// Starts `threads` threads that accept at most `capacity` waiting calls.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub fn start(threads: usize, capacity: usize) -> std::io::Result<Self> {
        let (jobs, queue) = crossbeam_channel::bounded::<Job>(capacity);
        for n in 0..threads {
            let queue = queue.clone();
            std::thread::Builder::new().name(format!("blocking-{n}")).spawn(move || {
                for job in queue {
                    job();
                }
            })?;
        }
        Ok(Self { jobs, capacity })
    }

    /// Makes this pool the one that [`blocking`] uses on the current thread.
    pub fn attach(&self) {
        POOL.with(|pool| *pool.borrow_mut() = Some(self.clone()));
    }
}

/// Runs `call` on the blocking pool and waits for its result without occupying the worker.
///
/// # Errors
/// The pool is full or stopped, or the call panicked. If this future is dropped the call still
/// runs to its end.
pub async fn blocking<R, F>(call: F) -> Result<R, BlockingError>
where
    R: Send + 'static,
    F: FnOnce() -> R + Send + 'static,
{
    let Some(pool) = POOL.with(|pool| pool.borrow().clone()) else {
        return Err(BlockingError::Stopped);
    };
    let (answer, result) = oneshot::channel();
    let job: Job = Box::new(move || {
        let outcome = catch_unwind(AssertUnwindSafe(call))
            .map_err(|payload| BlockingError::Panicked(panic_message(payload.as_ref())));
        // The caller may have gone; then nobody needs the result.
        let _ = answer.send(outcome);
    });
    pool.jobs.try_send(job).map_err(|error| match error {
        crossbeam_channel::TrySendError::Full(_) => BlockingError::Full(pool.capacity),
        crossbeam_channel::TrySendError::Disconnected(_) => BlockingError::Stopped,
    })?;
    result.await.unwrap_or(Err(BlockingError::Stopped))
}
