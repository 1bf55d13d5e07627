//! Counters and times of every plugin on every worker. The worker writes, a scrape reads.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringport_plugin_abi as abi;

/// Words for the statuses in metrics and logs; the index is the ABI's number.
pub const STATUS_NAMES: [&str; 7] =
    ["ok", "decline", "not_found", "denied", "unavailable", "invalid", "internal"];

/// Upper bounds of the time histogram's buckets in seconds; a last bucket has no bound. The
/// budget of a call, 20 µs, is one of them.
pub const CALL_SECONDS_BOUNDS: [f64; 13] =
    [2e-7, 1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3, 5e-2];

/// The same bounds as the clock counts.
const BOUNDS_NS: [u64; CALL_SECONDS_BOUNDS.len()] = [
    200, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    5_000_000, 50_000_000,
];

/// The calls of one worker whose 99th percentile is compared with the budget.
const BUDGET_WINDOW: u64 = 1000;

/// One plugin's figures on one worker, since the server started; a reload does not end them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginStats {
    /// Its name in the configuration.
    pub plugin: Arc<str>,
    /// The worker's number.
    pub worker: usize,
    /// Calls of `resolve`.
    pub resolve: HookStats,
    /// Calls of `place`.
    pub place: HookStats,
    /// OK answers that broke a rule of the ABI and were refused.
    pub broken_answers: u64,
    /// Requests refused without a call, because the instance is poisoned.
    pub refused_calls: u64,
    /// The instance failed on this worker and is not called any more.
    pub is_poisoned: bool,
    /// Calls that took longer than the budget.
    pub over_budget: u64,
    /// Runs of 1000 calls of which more than 10 took longer than the budget.
    pub budget_breaches: u64,
}

/// The calls of one hook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookStats {
    /// By the status the plugin returned, as in [`STATUS_NAMES`]; statuses that the ABI doesn't
    /// know count as `internal`.
    pub calls: [u64; STATUS_NAMES.len()],
    /// By duration: not cumulative, the buckets of [`CALL_SECONDS_BOUNDS`] and the rest.
    pub durations: [u64; CALL_SECONDS_BOUNDS.len() + 1],
    /// Time spent in calls.
    pub duration_sum: Duration,
}

/// A counter that one thread at a time adds to, without the cost of an atomic addition. Relaxed
/// order suffices: a scrape may see one counter a moment before another.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// Gives back the new value.
    pub(super) fn add(&self, count: u64) -> u64 {
        let value = self.get().wrapping_add(count);
        self.0.store(value, Ordering::Relaxed);
        value
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn take(&self) -> u64 {
        let value = self.get();
        self.0.store(0, Ordering::Relaxed);
        value
    }
}

/// The hooks whose calls are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    Resolve,
    Place,
}

/// The counters behind [`PluginStats`].
#[derive(Debug, Default)]
pub(super) struct CallStats {
    worker: usize,
    resolve: HookCounters,
    place: HookCounters,
    broken_answers: Counter,
    refused_calls: Counter,
    /// Instances that failed and have no successor yet; more than one for a moment only.
    poisoned: AtomicUsize,
    over_budget: Counter,
    budget_breaches: Counter,
    window_calls: Counter,
    window_over: Counter,
}

#[derive(Debug, Default)]
struct HookCounters {
    calls: [Counter; STATUS_NAMES.len()],
    durations: [Counter; CALL_SECONDS_BOUNDS.len() + 1],
    duration_sum_ns: Counter,
}

impl CallStats {
    pub(super) fn new(worker: usize) -> CallStats {
        CallStats { worker, ..CallStats::default() }
    }

    pub(super) fn worker(&self) -> usize {
        self.worker
    }

    /// Counts one call. Whether it ended a run of calls that breaches the budget: then the number
    /// of such runs.
    pub(super) fn record(
        &self,
        hook: Hook,
        status: abi::Status,
        took_ns: u64,
        budget_ns: u64,
    ) -> Option<u64> {
        let counters = match hook {
            Hook::Resolve => &self.resolve,
            Hook::Place => &self.place,
        };
        counters.record(status, took_ns);
        let is_over = took_ns > budget_ns;
        if is_over {
            self.over_budget.add(1);
            self.window_over.add(1);
        }
        if self.window_calls.add(1) < BUDGET_WINDOW {
            return None;
        }
        self.window_calls.take();
        let is_breach = self.window_over.take() > BUDGET_WINDOW / 100;
        is_breach.then(|| self.budget_breaches.add(1))
    }

    /// Counts an answer that broke a rule; gives back how many there were, this one included.
    pub(super) fn record_broken_answer(&self) -> u64 {
        self.broken_answers.add(1)
    }

    pub(super) fn record_refused_call(&self) {
        self.refused_calls.add(1);
    }

    /// An instance failed on this worker.
    pub(super) fn add_poisoned(&self) {
        self.poisoned.fetch_add(1, Ordering::Relaxed);
    }

    /// One that had failed has a successor, or has ended.
    pub(super) fn end_poisoned(&self) {
        self.poisoned.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self, plugin: &Arc<str>) -> PluginStats {
        PluginStats {
            plugin: Arc::clone(plugin),
            worker: self.worker,
            resolve: self.resolve.snapshot(),
            place: self.place.snapshot(),
            broken_answers: self.broken_answers.get(),
            refused_calls: self.refused_calls.get(),
            is_poisoned: self.poisoned.load(Ordering::Relaxed) > 0,
            over_budget: self.over_budget.get(),
            budget_breaches: self.budget_breaches.get(),
        }
    }
}

impl HookCounters {
    fn record(&self, status: abi::Status, ns: u64) {
        let index = usize::try_from(status).ok().filter(|index| *index < STATUS_NAMES.len());
        let internal = STATUS_NAMES.len() - 1;
        if let Some(calls) = self.calls.get(index.unwrap_or(internal)) {
            calls.add(1);
        }
        // Most calls are in the first buckets.
        let index = BOUNDS_NS.iter().position(|bound| ns <= *bound).unwrap_or(BOUNDS_NS.len());
        if let Some(bucket) = self.durations.get(index) {
            bucket.add(1);
        }
        self.duration_sum_ns.add(ns);
    }

    fn snapshot(&self) -> HookStats {
        HookStats {
            calls: self.calls.each_ref().map(Counter::get),
            durations: self.durations.each_ref().map(Counter::get),
            duration_sum: Duration::from_nanos(self.duration_sum_ns.get()),
        }
    }
}

/// The counters of all plugins, beyond the life of any instance: a successor goes on with those of
/// its name. One set for each name and worker that ever started.
#[derive(Debug, Default)]
pub(super) struct Figures {
    of_plugins: Mutex<Vec<(Arc<str>, Arc<CallStats>)>>,
    /// Answers given without a call, by worker.
    remembered: Mutex<Vec<(usize, Arc<Counter>)>>,
}

impl Figures {
    pub(super) fn of_plugin(&self, plugin: &Arc<str>, worker: usize) -> Arc<CallStats> {
        let mut all = self.of_plugins.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.iter().find(|(name, stats)| name == plugin && stats.worker() == worker);
        if let Some((_, stats)) = known {
            return Arc::clone(stats);
        }
        let stats = Arc::new(CallStats::new(worker));
        all.push((Arc::clone(plugin), Arc::clone(&stats)));
        stats
    }

    pub(super) fn remembered(&self, worker: usize) -> Arc<Counter> {
        let mut all = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, counter)) = all.iter().find(|(number, _)| *number == worker) {
            return Arc::clone(counter);
        }
        let counter = Arc::<Counter>::default();
        all.push((worker, Arc::clone(&counter)));
        counter
    }

    pub(super) fn remembered_sum(&self) -> u64 {
        let all = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(_, counter)| counter.get()).sum()
    }

    pub(super) fn snapshot(&self) -> Vec<PluginStats> {
        let all = self.of_plugins.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(name, stats)| stats.snapshot(name)).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    const BUDGET_NS: u64 = 20_000;

    #[test]
    fn calls_land_in_their_bucket_and_status() {
        let stats = CallStats::new(3);
        stats.record(Hook::Resolve, abi::OK, 1_000, BUDGET_NS);
        stats.record(Hook::Resolve, abi::DENIED, 1_001, BUDGET_NS);
        stats.record(Hook::Resolve, 77, 1_000_000_000, BUDGET_NS);
        stats.record(Hook::Resolve, -1, 20_000, BUDGET_NS);
        stats.record(Hook::Place, abi::DECLINE, 1, BUDGET_NS);
        let snapshot = stats.snapshot(&"p".into());
        assert_eq!(snapshot.resolve.calls, [1, 0, 0, 1, 0, 0, 2]);
        assert_eq!(snapshot.resolve.durations, [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(snapshot.resolve.duration_sum, Duration::from_nanos(1_000_022_001));
        assert_eq!((snapshot.place.calls[1], snapshot.place.durations[0]), (1, 1));
        assert_eq!(snapshot.over_budget, 1);
    }

    #[test]
    fn both_spellings_of_the_bounds_agree() {
        for (seconds, ns) in CALL_SECONDS_BOUNDS.iter().zip(BOUNDS_NS) {
            assert_eq!(Duration::from_secs_f64(*seconds), Duration::from_nanos(ns));
        }
    }

    #[test]
    fn a_run_with_more_than_one_slow_call_in_a_hundred_breaches_the_budget() {
        let stats = CallStats::new(0);
        let run = |slow: u64| {
            let took = |n| if n < slow { 2 * BUDGET_NS } else { BUDGET_NS };
            let record = |n| stats.record(Hook::Resolve, abi::OK, took(n), BUDGET_NS);
            (0..BUDGET_WINDOW).filter_map(record).next()
        };
        assert_eq!(
            [run(0), run(10), run(11), run(10), run(1000)],
            [None, None, Some(1), None, Some(2)]
        );
        let snapshot = stats.snapshot(&"p".into());
        assert_eq!((snapshot.over_budget, snapshot.budget_breaches), (1031, 2));
    }

    #[test]
    fn figures_outlive_instances() {
        let figures = Figures::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        figures.of_plugin(&a, 0).record_broken_answer();
        figures.of_plugin(&b, 0).add_poisoned();
        assert_eq!(figures.of_plugin(&a, 0).record_broken_answer(), 2);
        let poisoned = || figures.snapshot().iter().map(|one| one.is_poisoned).collect::<Vec<_>>();
        assert_eq!(poisoned(), [false, true]);
        // The successor fails too, before its predecessor has ended.
        figures.of_plugin(&b, 0).add_poisoned();
        figures.of_plugin(&b, 0).end_poisoned();
        assert_eq!(poisoned(), [false, true]);
        figures.of_plugin(&b, 0).end_poisoned();
        assert_eq!(poisoned(), [false, false]);
        figures.remembered(1).add(2);
        figures.remembered(0).add(1);
        assert_eq!(figures.remembered_sum(), 3);
    }
}
