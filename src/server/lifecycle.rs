//! What the whole process is doing: starting, serving, draining.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

/// Shared by all workers and the main thread.
#[derive(Debug)]
pub(super) struct Lifecycle {
    serving: AtomicBool,
    draining: AtomicBool,
    /// Clients connected now, of each worker.
    connections: Box<[CachePadded<AtomicUsize>]>,
}

/// Counts one client's connection for a worker as long as it lives, also while it is on its way there.
pub(super) struct Seat {
    lifecycle: Arc<Lifecycle>,
    worker: usize,
}

impl Lifecycle {
    /// Of a process with so many workers that is starting.
    pub(super) fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            serving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            connections: (0..workers).map(|_| CachePadded::default()).collect(),
        })
    }

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
        self.connections.iter().map(|count| count.load(Ordering::Acquire)).sum()
    }

    /// Clients connected to one worker.
    pub(super) fn connections_of(&self, worker: usize) -> usize {
        self.connections.get(worker).map_or(0, |count| count.load(Ordering::Acquire))
    }

    /// Which worker is to serve a connection that `worker` has accepted: itself, unless another has
    /// clearly fewer. The kernel goes by a hash of addresses, which spreads thousands well and eight
    /// connections of one client as eight coins fall.
    pub(super) fn best_for(&self, worker: usize) -> usize {
        let own = self.connections_of(worker);
        let counts = self.connections.iter().map(|count| count.load(Ordering::Relaxed));
        match counts.enumerate().min_by_key(|(_, count)| *count) {
            Some((other, least)) if own > least + 1 + least / 8 => other,
            _ => worker,
        }
    }

    /// Takes a seat for a connection.
    pub(super) fn seat(self: &Arc<Self>, worker: usize) -> Seat {
        if let Some(count) = self.connections.get(worker) {
            count.fetch_add(1, Ordering::AcqRel);
        }
        Seat { lifecycle: self.clone(), worker }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(count) = self.lifecycle.connections.get(self.worker) {
            count.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_where_clearly_fewer_are() {
        let lifecycle = Lifecycle::new(3);
        let mut seats: Vec<Seat> = Vec::new();
        for _ in 0..8 {
            seats.push(lifecycle.seat(lifecycle.best_for(0)));
        }
        let counts = |lifecycle: &Lifecycle| [0, 1, 2].map(|one| lifecycle.connections_of(one));
        assert_eq!(counts(&lifecycle), [4, 2, 2]);
        for _ in 0..292 {
            seats.push(lifecycle.seat(lifecycle.best_for(0)));
        }
        // An eighth is not worth the way to another worker.
        assert_eq!((counts(&lifecycle), lifecycle.connections()), ([108, 96, 96], 300));
        assert_eq!((lifecycle.best_for(1), lifecycle.best_for(2)), (1, 2));
        seats.retain(|seat| seat.worker == 1);
        assert_eq!((counts(&lifecycle), lifecycle.best_for(1)), ([0, 96, 0], 0));
    }
}
