//! The figures of plugins, which keep them themselves, as metric families.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// One plugin's figures on one worker.
#[derive(Clone, Debug)]
pub struct PluginFigures {
    /// Its name in the configuration.
    pub plugin: String,
    /// The worker's number.
    pub worker: usize,
    /// The calls of each hook that is measured.
    pub hooks: Vec<HookFigures>,
    /// Other counters: their metric's name without `_total`, and the count. Each is one of
    /// [`PLUGIN_COUNTERS`].
    pub counters: Vec<(&'static str, u64)>,
    /// Whether it failed and is not called any more.
    pub is_poisoned: bool,
}

/// The calls of one hook.
#[derive(Clone, Debug)]
pub struct HookFigures {
    /// `resolve` or `place`.
    pub hook: &'static str,
    /// By status.
    pub calls: Vec<(&'static str, u64)>,
    /// Upper bounds in seconds, the last infinite, and the calls in each bucket alone.
    pub buckets: Vec<(f64, u64)>,
    /// Time spent, in seconds.
    pub seconds: f64,
}

/// The counters of a plugin on a worker: name without `_total`, and help.
pub const PLUGIN_COUNTERS: [(&str, &str); 4] = [
    ("ringport_plugin_broken_answers", "Answers of plugins that broke a rule and were refused"),
    ("ringport_plugin_refused_calls", "Requests refused because the plugin had failed before"),
    ("ringport_plugin_over_budget", "Calls of plugins that took longer than their budget"),
    (
        "ringport_plugin_budget_breaches",
        "Runs of 1000 calls of which more than 10 took longer than the budget",
    ),
];

/// Reads the figures when somebody asks.
pub(super) struct Plugins {
    pub(super) read: Box<dyn Fn() -> Vec<PluginFigures> + Send + Sync>,
}

impl fmt::Debug for Plugins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plugins")
    }
}

impl Collector for Plugins {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let all = (self.read)();
        calls(&all, &mut encoder)?;
        times(&all, &mut encoder)?;
        for (name, help) in PLUGIN_COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for one in &all {
                let count = one.counters.iter().find(|(counter, _)| *counter == name);
                let worker = one.worker.to_string();
                let labels = [("plugin", one.plugin.as_str()), ("worker", worker.as_str())];
                let mut metric = family.encode_family(&labels)?;
                let count = count.map_or(0, |(_, count)| *count);
                metric.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        let help = "1 when the plugin failed on the worker, whose requests it decides get 503";
        let gauge = MetricType::Gauge;
        let mut family =
            encoder.encode_descriptor("ringport_plugin_poisoned", help, None, gauge)?;
        for one in &all {
            let worker = one.worker.to_string();
            let labels = [("plugin", one.plugin.as_str()), ("worker", worker.as_str())];
            family.encode_family(&labels)?.encode_gauge(&i64::from(one.is_poisoned))?;
        }
        Ok(())
    }
}

/// What never happened is left out.
fn calls(all: &[PluginFigures], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Calls of plugins, by hook and the status they returned";
    let counter = MetricType::Counter;
    let mut family = encoder.encode_descriptor("ringport_plugin_calls", help, None, counter)?;
    for (one, hook) in all.iter().flat_map(|one| one.hooks.iter().map(move |hook| (one, hook))) {
        let worker = one.worker.to_string();
        for (status, count) in hook.calls.iter().filter(|(_, count)| *count > 0) {
            let labels = [
                ("plugin", one.plugin.as_str()),
                ("worker", worker.as_str()),
                ("hook", hook.hook),
                ("status", *status),
            ];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_counter::<NoLabelSet, _, u64>(count, None)?;
        }
    }
    Ok(())
}

fn times(all: &[PluginFigures], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let (help, unit) = ("Time that calls of plugins took", Some(&Unit::Seconds));
    let histogram = MetricType::Histogram;
    let mut family = encoder.encode_descriptor("ringport_plugin_call", help, unit, histogram)?;
    for (one, hook) in all.iter().flat_map(|one| one.hooks.iter().map(move |hook| (one, hook))) {
        let count: u64 = hook.buckets.iter().map(|(_, count)| count).sum();
        if count == 0 {
            continue;
        }
        let worker = one.worker.to_string();
        let labels =
            [("plugin", one.plugin.as_str()), ("worker", worker.as_str()), ("hook", hook.hook)];
        let mut metric = family.encode_family(&labels)?;
        metric.encode_histogram::<NoLabelSet>(hook.seconds, count, &hook.buckets, None)?;
    }
    Ok(())
}
