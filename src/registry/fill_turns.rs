//! At most `fills_max` downloads at a time from one upstream; the others wait for their turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_lock::{Semaphore, SemaphoreGuardArc};

use super::PullError;
use crate::oci::Scope;
use crate::runtime::timeout;

/// How many fills may wait for each that may run.
const WAITING_PER_TURN: usize = 32;
/// Longest wait: clients give up on a head that does not come for 30 s.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// The turns of one upstream.
pub(super) struct FillTurns {
    fills_max: usize,
    running: Arc<Semaphore>,
    entered: AtomicUsize,
}

/// A place in the queue; leaves it when dropped.
pub(super) struct FillPlace {
    turns: Arc<FillTurns>,
    upstream: String,
}

impl FillTurns {
    pub(super) fn new(fills_max: usize) -> Self {
        let running = Arc::new(Semaphore::new(fills_max));
        Self { fills_max, running, entered: AtomicUsize::new(0) }
    }

    /// Enters the queue, unless it is full.
    pub(super) fn enter(self: &Arc<Self>, scope: &Scope) -> Result<FillPlace, PullError> {
        let place = FillPlace { turns: self.clone(), upstream: scope.upstream_str().to_owned() };
        let ahead = self.entered.fetch_add(1, Ordering::Relaxed);
        if ahead >= self.fills_max.saturating_mul(1 + WAITING_PER_TURN) {
            return Err(PullError::Busy(format!(
                "{ahead} downloads from {} are running or waiting; its fills_max is {}: try \
                 again, or raise it",
                place.upstream, self.fills_max,
            )));
        }
        Ok(place)
    }
}

impl FillPlace {
    /// Waits for a turn, which lasts until the guard is dropped. Turns are given in order.
    pub(super) async fn turn(&self) -> Result<SemaphoreGuardArc, PullError> {
        timeout(WAIT_MAX, self.turns.running.acquire_arc()).await.map_err(|_| {
            PullError::Busy(format!(
                "no download from {} ended within {WAIT_MAX:?}; its fills_max is {}: try again, \
                 or raise it",
                self.upstream, self.turns.fills_max,
            ))
        })
    }
}

impl Drop for FillPlace {
    fn drop(&mut self) {
        self.turns.entered.fetch_sub(1, Ordering::Relaxed);
    }
}
