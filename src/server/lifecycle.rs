//! What the whole process is doing: starting, serving, draining.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Shared by all workers and the main thread.
#[derive(Debug, Default)]
pub(super) struct Lifecycle {
    serving: AtomicBool,
    draining: AtomicBool,
    connections: AtomicUsize,
}

impl Lifecycle {
    /// All workers listen.
    pub(super) fn set_serving(&self) {
        self.serving.store(true, Ordering::Release);
    }

    /// From now on connections end after their current request.
    pub(super) fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Why the process should get no new traffic; empty when it should.
    pub(super) fn not_ready(&self) -> Vec<&'static str> {
        let mut reasons = Vec::new();
        if !self.serving.load(Ordering::Acquire) {
            reasons.push("starting: not all workers listen yet");
        }
        if self.is_draining() {
            reasons.push("draining: the process was told to stop");
        }
        reasons
    }

    /// Clients connected now, over all workers.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn disconnected(&self) {
        self.connections.fetch_sub(1, Ordering::AcqRel);
    }
}
