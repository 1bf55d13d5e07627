//! Cross-worker calls: every worker has a mailbox of jobs; keys are owned by workers.
//!
//! State that all workers need (which blob is being filled, which token is fresh) is kept by the
//! worker that owns its key and touched there only, so that no worker ever waits for a lock.

use std::cell::Cell;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt;

use super::task::spawn;

pub(super) type Job = Box<dyn FnOnce() + Send>;

thread_local! {
    pub(super) static WORKER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The called worker has stopped, or the call's task panicked, before there was a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("worker {worker} ended the call without a result (it panicked or is stopping)")]
pub struct WorkerGone {
    /// The worker that was called.
    pub worker: usize,
}

/// Addresses of all workers. Cheap to clone.
#[derive(Clone)]
pub struct Workers {
    // Unbounded, and yet bounded: a job is sent only on behalf of a live request or fill, whose
    // numbers are limited where they are admitted.
    mailboxes: Arc<[mpsc::UnboundedSender<Job>]>,
}

/// The receiving end of one worker's mailbox.
pub(super) struct Mailbox(mpsc::UnboundedReceiver<Job>);

impl Workers {
    pub(super) fn create(count: usize) -> (Self, Vec<Mailbox>) {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..count).map(|_| mpsc::unbounded()).map(|(tx, rx)| (tx, Mailbox(rx))).unzip();
        (Self { mailboxes: senders.into() }, receivers)
    }

    /// How many workers there are (at least 1).
    pub fn count(&self) -> usize {
        self.mailboxes.len()
    }

    /// The worker that owns `key`: the same for the life of the process, on every worker.
    pub fn owner_of(&self, key: &(impl Hash + ?Sized)) -> usize {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        (hasher.finish() % self.count().max(1) as u64) as usize
    }

    /// Runs `make` and the future it returns on `worker` (which may be the current one) and waits
    /// for the result. The future goes on to its end if the caller is dropped.
    ///
    /// # Errors
    /// [`WorkerGone`] when the worker is stopping or the future panicked.
    pub async fn call<R, F, Fut>(&self, worker: usize, make: F) -> Result<R, WorkerGone>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = R> + 'static,
        R: Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        let job = move || {
            spawn(async move {
                // The caller may have gone; the work was done all the same.
                let _ = answer.send(make().await);
            });
        };
        self.post(worker, job)?;
        result.await.map_err(|_| WorkerGone { worker })
    }

    /// Runs `job` on `worker` without waiting; on the current worker it runs at once.
    ///
    /// # Errors
    /// [`WorkerGone`] when the worker has stopped.
    pub fn post(
        &self,
        worker: usize,
        job: impl FnOnce() + Send + 'static,
    ) -> Result<(), WorkerGone> {
        if WORKER.get() == Some(worker) {
            job();
            return Ok(());
        }
        let mailbox = self.mailboxes.get(worker).ok_or(WorkerGone { worker })?;
        mailbox.unbounded_send(Box::new(job)).map_err(|_| WorkerGone { worker })
    }
}

impl Mailbox {
    /// Runs the jobs as they come, on the current worker.
    pub(super) async fn serve(mut self) {
        while let Some(job) = self.0.next().await {
            // A job only spawns a guarded task; one that panics itself must not end the mailbox.
            let _ = super::task::catch_panic(async move { job() }).await;
        }
    }
}
