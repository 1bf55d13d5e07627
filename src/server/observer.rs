//! Counts what the upstream client tells, on the worker it happened on.

use std::sync::Arc;

use crate::oci::Namespace;
use crate::runtime;
use crate::telemetry::{Metrics, WorkerMetrics};
use crate::upstream::{Method, Observer};

/// Puts the calls to upstreams into the metrics.
pub(super) struct UpstreamCounters {
    metrics: Arc<Metrics>,
    workers: Vec<WorkerMetrics>,
}

impl UpstreamCounters {
    pub(super) fn new(metrics: Arc<Metrics>, workers: usize) -> Self {
        let workers = (0..workers).map(|worker| metrics.worker(worker)).collect();
        Self { metrics, workers }
    }

    /// The counters of the current worker, and the number of the upstream in them.
    fn at(&self, upstream: &Namespace) -> Option<(&WorkerMetrics, usize)> {
        let counters = self.workers.get(runtime::worker_id()?)?;
        Some((counters, self.metrics.namespace_index(upstream)?))
    }
}

impl Observer for UpstreamCounters {
    fn upstream_request(&self, upstream: &Namespace, _method: Method, status: Option<u16>) {
        match (self.at(upstream), status) {
            (Some((counters, index)), Some(status)) => counters.upstream_answered(index, status),
            (Some((counters, index)), None) => counters.upstream_failed(index),
            (None, _) => {}
        }
    }

    fn token_request(&self, upstream: &Namespace, status: Option<u16>) {
        if let Some((counters, index)) = self.at(upstream) {
            counters.token_requested(index, status == Some(200));
        }
    }

    fn upstream_bytes(&self, upstream: &Namespace, bytes: u64) {
        if let Some((counters, index)) = self.at(upstream) {
            counters.upstream_received(index, bytes);
        }
    }
}
