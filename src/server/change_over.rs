//! Each worker takes its part of something new; what it had before ends elsewhere.

use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use super::start::ServeError;
use super::state::WorkerState;
use crate::runtime::{Workers, start_service};

/// How long workers may take to change over before that is worth a warning; they do it between
/// two tasks, so milliseconds are usual.
const CHANGE_OVER_MAX: Duration = Duration::from_secs(10);
/// How many things may wait for their end before nothing new is made: a chain for each worker
/// comes with every reload.
const WAITING_MAX: usize = 1024;

/// Where things that were replaced end, one after another: a thread that may wait for a plugin,
/// which neither a worker nor a reload may.
pub(super) struct Ending(crossbeam_channel::Sender<Box<dyn Send>>);

impl Ending {
    /// Starts the thread; it ends with this.
    ///
    /// # Errors
    /// The operating system refused the thread.
    pub(super) fn start() -> Result<Self, ServeError> {
        let (ending, replaced) = crossbeam_channel::unbounded::<Box<dyn Send>>();
        start_service("ending", move || replaced.iter().for_each(drop))
            .map_err(|source| ServeError::System { what: "a thread to end plugins", source })?;
        Ok(Self(ending))
    }

    /// Ends it soon. Never waits.
    pub(super) fn end(&self, replaced: impl Send + 'static) {
        // Without the thread, which a panic has ended, it never ends: here it might wait.
        if let Err(refused) = self.0.send(Box::new(replaced)) {
            std::mem::forget(refused.into_inner());
        }
    }

    /// So much waits that something hangs.
    pub(super) fn is_behind(&self) -> bool {
        self.0.len() > WAITING_MAX
    }
}

/// Hands each worker its part and waits until all have taken it, for at most ten seconds; one that
/// is later takes it then. What they had before ends in `ending`.
pub(super) fn change_over<N: Send + 'static, O: Send + 'static>(
    workers: &Workers,
    parts: Vec<N>,
    ending: &Ending,
    take: fn(&Rc<WorkerState>, N) -> O,
) {
    let (done, all_done) = mpsc::channel::<()>();
    for (worker, part) in parts.into_iter().enumerate() {
        let (done, ending) = (done.clone(), Ending(ending.0.clone()));
        let posted = workers.post(worker, move || {
            if let Some(state) = WorkerState::current() {
                ending.end(take(&state, part));
            }
            drop(done);
        });
        if let Err(error) = posted {
            tracing::warn!(%error, "a worker was gone before it could change over");
        }
    }
    drop(done);
    // Nobody sends: it is disconnected when the last worker is done.
    if all_done.recv_timeout(CHANGE_OVER_MAX) == Err(mpsc::RecvTimeoutError::Timeout) {
        tracing::warn!("a worker takes longer than {CHANGE_OVER_MAX:?} to change over");
    }
}
