//! What is seen of plugins: their metrics, and their part in readiness.

use crate::plugin::{CALL_SECONDS_BOUNDS, ChainObserver, HookStats, PluginStats, STATUS_NAMES};
use crate::telemetry::{HookFigures, Metrics, PluginFigures};

/// Figures of plugins, read when somebody asks; also of those that a reload brings.
pub(super) fn attach_plugins(metrics: &Metrics, observer: ChainObserver) {
    let read = observer.clone();
    metrics.attach_plugins(move || read.stats().iter().map(figures).collect());
    let help = "Requests routed by an answer that a plugin allowed to be remembered";
    metrics.attach_counter("ringport_resolve_remembered", help, move || observer.remembered());
}

/// A plugin that failed, for `/readyz`: what to say, and whether all workers that it runs on refuse
/// its requests.
///
/// As long as one worker is whole the process stays ready: the others fail closed, and a plugin
/// that one hostile request can make fail must not empty a whole fleet of mirrors.
pub(super) struct Failed {
    pub(super) text: String,
    pub(super) is_everywhere: bool,
}

/// The plugins that failed on some worker.
pub(super) fn failed(stats: &[PluginStats]) -> Vec<Failed> {
    let mut failed: Vec<Failed> = Vec::new();
    let mut names: Vec<&str> = stats.iter().map(|one| &*one.plugin).collect();
    names.dedup();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let of_it = || stats.iter().filter(|one| &*one.plugin == name);
        let (poisoned, all) = (of_it().filter(|one| one.is_poisoned).count(), of_it().count());
        if poisoned > 0 {
            failed.push(Failed {
                text: format!(
                    "plugin {name}: failed on {poisoned} of {all} workers, where the requests it \
                     decides get 503 until a reload or restart; the log says why"
                ),
                is_everywhere: poisoned == all,
            });
        }
    }
    failed
}

fn figures(stats: &PluginStats) -> PluginFigures {
    PluginFigures {
        plugin: stats.plugin.to_string(),
        worker: stats.worker,
        hooks: vec![hook("resolve", &stats.resolve), hook("place", &stats.place)],
        counters: vec![
            ("ringport_plugin_broken_answers", stats.broken_answers),
            ("ringport_plugin_refused_calls", stats.refused_calls),
            ("ringport_plugin_over_budget", stats.over_budget),
            ("ringport_plugin_budget_breaches", stats.budget_breaches),
        ],
        is_poisoned: stats.is_poisoned,
    }
}

fn hook(name: &'static str, stats: &HookStats) -> HookFigures {
    let bounds = CALL_SECONDS_BOUNDS.into_iter().chain([f64::INFINITY]);
    HookFigures {
        hook: name,
        calls: STATUS_NAMES.into_iter().zip(stats.calls).collect(),
        buckets: bounds.zip(stats.durations).collect(),
        seconds: stats.duration_sum.as_secs_f64(),
    }
}
