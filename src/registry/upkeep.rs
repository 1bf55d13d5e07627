//! What scrub and gc stand on: the store, a bounded rate, and keeping out of the way of pushes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use async_lock::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use serde::{Deserialize, Serialize};

use super::{HostedRules, Pushes};
use crate::catalog::Catalog;
use crate::runtime::clock;
use crate::storage::Store;

/// Problems that a report spells out; the log has all of them.
const PROBLEMS_MAX: usize = 100;
/// Longest sleep of the pace, so that a stop is noticed.
const NAP: Duration = Duration::from_millis(100);
/// What a file costs beyond its bytes: opening it.
const FILE_COST_BYTES: u64 = 4096;
/// How long a file may be in place without having its name yet.
const NAMELESS_MAX: Duration = Duration::from_secs(24 * 3600);
/// Clocks of file systems run behind by a tick.
const CLOCK_SLACK: Duration = Duration::from_secs(2);

/// Keeps pushes and the removal of hosted content apart.
///
/// A push holds [`PushGate::pushing`] from looking up what it refers to until the catalog has its
/// links and its tag, links anew (with the present time) everything that it refers to, and so
/// finds each content either there to stay or gone. Removal looks again at what was linked since
/// it began while nobody pushes, removes, and lets the pushes go on. Pulls and fills know nothing
/// of this: what they lose, they fetch again.
///
/// Only one push at a time waits for the lock itself. Readers that wait for an [`RwLock`] wake each
/// other, also when the next writer is there already: two of one worker would do that for ever, and
/// the worker would not look at its ring again.
#[derive(Debug, Default)]
pub struct PushGate {
    lock: RwLock<()>,
    first: Mutex<()>,
}

impl PushGate {
    /// For a push, while it makes content visible.
    pub async fn pushing(&self) -> RwLockReadGuard<'_, ()> {
        let _first = self.first.lock().await;
        self.lock.read().await
    }

    /// For a removal; waits, so never on a worker.
    pub(super) fn removing(&self) -> RwLockWriteGuard<'_, ()> {
        self.lock.write_blocking()
    }
}

/// The store as scrub and gc see it. They block: run them on a thread of their own.
pub struct Upkeep {
    pub(super) store: Arc<Store>,
    pub(super) catalog: Catalog,
    pub(super) gate: Arc<PushGate>,
    pub(super) rules: HostedRules,
    /// A file that was there before belongs to nobody who is only about to name it.
    pub(super) since: SystemTime,
}

impl Upkeep {
    /// For the process that holds the store; to be made before anything is written to it.
    pub fn new(store: Arc<Store>, catalog: Catalog, pushes: &Pushes) -> Self {
        let now = SystemTime::UNIX_EPOCH + clock::unix_time();
        let since = now.checked_sub(CLOCK_SLACK).unwrap_or(now);
        let Pushes { gate, rules, .. } = pushes.clone();
        Self { store, catalog, gate, rules, since }
    }

    /// A file that has not changed since then and has no name gets none any more: it was there
    /// before this process, or for longer than any commit takes. `now` in Unix seconds.
    pub(super) fn settled_before(&self, now: u64) -> SystemTime {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
        self.since.max(now.checked_sub(NAMELESS_MAX).unwrap_or(SystemTime::UNIX_EPOCH))
    }
}

/// How far a scrub has come; read by whoever draws it.
#[derive(Debug, Default)]
pub struct Progress {
    pub(super) blobs_total: AtomicU64,
    pub(super) bytes_total: AtomicU64,
    pub(super) blobs: AtomicU64,
    pub(super) bytes: AtomicU64,
    stop: AtomicBool,
}

/// A moment of [`Progress`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressNow {
    /// Contents there are, as counted at the start.
    pub blobs_total: u64,
    /// Their bytes.
    pub bytes_total: u64,
    /// Contents looked at.
    pub blobs: u64,
    /// Bytes read.
    pub bytes: u64,
}

impl Progress {
    /// How far it is.
    pub fn now(&self) -> ProgressNow {
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        ProgressNow {
            blobs_total: read(&self.blobs_total),
            bytes_total: read(&self.bytes_total),
            blobs: read(&self.blobs),
            bytes: read(&self.bytes),
        }
    }

    /// Asks for an early end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// A rate that is kept by sleeping.
pub(super) struct Pace<'a> {
    bytes_per_second: u64,
    from: Instant,
    spent: u64,
    progress: &'a Progress,
}

impl<'a> Pace<'a> {
    pub(super) fn new(bytes_per_second: u64, progress: &'a Progress) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), from: clock::now(), spent: 0, progress }
    }

    /// For opening a file.
    pub(super) fn file(&mut self) -> bool {
        self.spend(FILE_COST_BYTES)
    }

    /// Waits until `bytes` more are due; `false` when it was told to stop.
    pub(super) fn spend(&mut self, bytes: u64) -> bool {
        self.spent += bytes;
        let due_after = Duration::from_secs_f64(self.spent as f64 / self.bytes_per_second as f64);
        loop {
            if self.progress.is_stopped() {
                return false;
            }
            let behind = self.from.elapsed();
            if behind >= due_after {
                if behind - due_after > Duration::from_secs(1) {
                    // The disk was slower than allowed; that is not made up for by a burst.
                    (self.from, self.spent) = (clock::now(), 0);
                }
                return true;
            }
            std::thread::sleep((due_after - behind).min(NAP));
        }
    }
}

/// What a report spells out, bounded.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problems {
    /// One sentence each; the first hundred.
    pub told: Vec<String>,
    /// How many more the log has.
    pub more: u64,
}

impl Problems {
    /// Logs a problem and notes it while there is room.
    pub(super) fn add(&mut self, problem: String) {
        tracing::warn!("{problem}");
        if self.told.len() < PROBLEMS_MAX {
            self.told.push(problem);
        } else {
            self.more += 1;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
pub(super) mod tests;
