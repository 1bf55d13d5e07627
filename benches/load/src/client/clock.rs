//! What all threads of one measurement go by: first they warm up, then the window is open, then
//! they stop.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

const WARMING: u8 = 0;
const OPEN: u8 = 1;
const OVER: u8 = 2;

/// Where a measurement is.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    at: AtomicU8,
    /// For those who wait for a change.
    moving: Mutex<()>,
    moved: Condvar,
}

impl Clock {
    /// Answers count from now on.
    pub(crate) fn open(&self) {
        self.go(OPEN);
    }

    /// Nothing counts any more; threads come home.
    pub(crate) fn stop(&self) {
        self.go(OVER);
    }

    /// Whether answers count.
    pub(crate) fn is_open(&self) -> bool {
        self.at.load(Ordering::Acquire) == OPEN
    }

    /// Whether threads come home.
    pub(crate) fn is_over(&self) -> bool {
        self.at.load(Ordering::Acquire) == OVER
    }

    /// Waits until answers count, or nothing does any more.
    pub(crate) fn await_open(&self) {
        let moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        let is_warming = |_: &mut ()| self.at.load(Ordering::Acquire) == WARMING;
        drop(self.moved.wait_while(moving, is_warming));
    }

    fn go(&self, to: u8) {
        let moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        self.at.store(to, Ordering::Release);
        drop(moving);
        self.moved.notify_all();
    }
}

/// Ends the measurement when whoever holds it is gone, for better or worse.
pub(crate) struct StopOnDrop<'a>(pub(crate) &'a Clock);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
