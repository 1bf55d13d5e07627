//! What all threads of one measurement go by: first they warm up, then the window is open, then
//! they stop.

use std::sync::atomic::{AtomicU8, Ordering};

const WARMING: u8 = 0;
const OPEN: u8 = 1;
const OVER: u8 = 2;

/// Where a measurement is.
#[derive(Debug, Default)]
pub(crate) struct Clock(AtomicU8);

impl Clock {
    /// Answers count from now on.
    pub(crate) fn open(&self) {
        self.0.store(OPEN, Ordering::Release);
    }

    /// Nothing counts any more; threads come home.
    pub(crate) fn stop(&self) {
        self.0.store(OVER, Ordering::Release);
    }

    /// Whether answers count.
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire) == OPEN
    }

    /// Whether threads come home.
    pub(crate) fn is_over(&self) -> bool {
        self.0.load(Ordering::Acquire) == OVER
    }

    /// Whether it has begun at all.
    pub(crate) fn is_warming(&self) -> bool {
        self.0.load(Ordering::Acquire) == WARMING
    }
}

/// Ends the measurement when whoever holds it is gone, for better or worse.
pub(crate) struct StopOnDrop<'a>(pub(crate) &'a Clock);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
