//! Counters and times of every plugin on every worker. The worker writes, a scrape reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringport_plugin_abi as abi;

/// Words for the statuses in metrics and logs; the index is the ABI's number.
pub const STATUS_NAMES: [&str; 7] =
    ["ok", "decline", "not_found", "denied", "unavailable", "invalid", "internal"];

/// Upper bounds of the time histogram's buckets in seconds; a last bucket has no bound. The
/// budget of a call, 20 µs, is one of them.
pub const CALL_SECONDS_BOUNDS: [f64; 12] =
    [1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3, 5e-2];

/// The same bounds as the clock counts.
const BOUNDS_NS: [u64; CALL_SECONDS_BOUNDS.len()] = [
    1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 5_000_000,
    50_000_000,
];

/// One plugin's figures on one worker, since the server started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginStats {
    /// Its name in the configuration.
    pub plugin: Arc<str>,
    /// The worker's number.
    pub worker: usize,
    /// Calls of `resolve` by the status the plugin returned, as in [`STATUS_NAMES`]; statuses
    /// that the ABI doesn't know count as `internal`.
    pub calls: [u64; STATUS_NAMES.len()],
    /// OK answers that broke a rule of the ABI and were refused.
    pub broken_answers: u64,
    /// Requests refused without a call, because the instance is poisoned.
    pub refused_calls: u64,
    /// The instance failed on this worker and is not called any more.
    pub is_poisoned: bool,
    /// Calls by duration: not cumulative, the buckets of [`CALL_SECONDS_BOUNDS`] and the rest.
    pub durations: [u64; CALL_SECONDS_BOUNDS.len() + 1],
    /// Time spent in calls.
    pub duration_sum: Duration,
}

/// The atomics behind [`PluginStats`]. They are written by one thread at a time; relaxed order
/// suffices, since a scrape may see one counter a moment before another.
#[derive(Debug)]
pub(super) struct CallStats {
    worker: usize,
    calls: [AtomicU64; STATUS_NAMES.len()],
    broken_answers: AtomicU64,
    refused_calls: AtomicU64,
    is_poisoned: AtomicBool,
    durations: [AtomicU64; CALL_SECONDS_BOUNDS.len() + 1],
    duration_sum_ns: AtomicU64,
}

impl CallStats {
    pub(super) fn new(worker: usize) -> CallStats {
        CallStats {
            worker,
            calls: Default::default(),
            broken_answers: AtomicU64::new(0),
            refused_calls: AtomicU64::new(0),
            is_poisoned: AtomicBool::new(false),
            durations: Default::default(),
            duration_sum_ns: AtomicU64::new(0),
        }
    }

    pub(super) fn worker(&self) -> usize {
        self.worker
    }

    /// Counts one call.
    pub(super) fn record(&self, status: abi::Status, took: Duration) {
        let index = usize::try_from(status).ok().filter(|index| *index < STATUS_NAMES.len());
        let internal = STATUS_NAMES.len() - 1;
        if let Some(calls) = self.calls.get(index.unwrap_or(internal)) {
            calls.fetch_add(1, Ordering::Relaxed);
        }
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.durations.get(BOUNDS_NS.partition_point(|bound| *bound < ns)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.duration_sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Counts an answer that broke a rule; gives back how many there were, this one included.
    pub(super) fn record_broken_answer(&self) -> u64 {
        self.broken_answers.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    pub(super) fn record_refused_call(&self) {
        self.refused_calls.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_poisoned(&self, is_poisoned: bool) {
        self.is_poisoned.store(is_poisoned, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self, plugin: &Arc<str>) -> PluginStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PluginStats {
            plugin: Arc::clone(plugin),
            worker: self.worker,
            calls: self.calls.each_ref().map(read),
            broken_answers: read(&self.broken_answers),
            refused_calls: read(&self.refused_calls),
            is_poisoned: self.is_poisoned.load(Ordering::Relaxed),
            durations: self.durations.each_ref().map(read),
            duration_sum: Duration::from_nanos(read(&self.duration_sum_ns)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn calls_land_in_their_bucket_and_status() {
        let stats = CallStats::new(3);
        stats.record(abi::OK, Duration::from_nanos(1_000));
        stats.record(abi::DENIED, Duration::from_nanos(1_001));
        stats.record(77, Duration::from_secs(1));
        stats.record(-1, Duration::from_micros(20));
        let snapshot = stats.snapshot(&"p".into());
        assert_eq!(snapshot.calls, [1, 0, 0, 1, 0, 0, 2]);
        assert_eq!(snapshot.durations, [1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(snapshot.duration_sum, Duration::from_nanos(1_000_022_001));
    }

    #[test]
    fn both_spellings_of_the_bounds_agree() {
        for (seconds, ns) in CALL_SECONDS_BOUNDS.iter().zip(BOUNDS_NS) {
            assert_eq!(Duration::from_secs_f64(*seconds), Duration::from_nanos(ns));
        }
    }
}
