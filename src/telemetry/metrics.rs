//! Counters kept per worker and put together when someone asks.
//!
//! Each worker counts into fixed arrays of its own (`cells`), so counting takes no lock, allocates
//! nothing and shares no cache line with another worker. [`Metrics::render`] adds them up or labels
//! them (`exposition`), in the OpenMetrics text format that Prometheus reads.

mod cells;
mod exposition;
mod labels;
mod plugins;
mod process;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::oci::Namespace;
use cells::Cells;
pub use labels::{CacheResult, FillOutcome, Revalidation, RouteKind};
pub use plugins::{HookFigures, PLUGIN_COUNTERS, PluginFigures};

/// Upstreams that reloads may add before a restart; each costs its counters on every worker.
const NAMESPACES_SPARE: usize = 32;

/// The `Content-Type` of what [`Metrics::render`] returns.
pub const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All counters of the process. `Send + Sync`; made once and shared by `Arc`.
pub struct Metrics {
    shared: Arc<Shared>,
    /// Locked to attach (start, reload) and to render, never by a request.
    registry: Mutex<Registry>,
}

/// What the collector reads while the registry is locked.
#[derive(Debug)]
struct Shared {
    /// One per worker, then one for the threads that are no workers.
    cells: Vec<Arc<CachePadded<Cells>>>,
    namespaces: ArcSwap<Vec<Namespace>>,
    namespaces_max: usize,
    driver: OnceLock<&'static str>,
    started_unix_seconds: f64,
}

/// One worker's handle; cheap to clone.
#[derive(Clone, Debug)]
pub struct WorkerMetrics {
    cells: Arc<CachePadded<Cells>>,
    shared: Arc<Shared>,
}

impl Metrics {
    /// Counters for `workers` workers and for the upstreams of `namespaces` (canonical, in the
    /// order in which [`WorkerMetrics::upstream_answered`] and its siblings number them).
    pub fn new(workers: usize, namespaces: impl IntoIterator<Item = Namespace>) -> Arc<Metrics> {
        let namespaces: Vec<Namespace> = namespaces.into_iter().collect();
        let namespaces_max = namespaces.len() + NAMESPACES_SPARE;
        let new_cells = |_| Arc::new(CachePadded::new(Cells::new(namespaces_max)));
        let shared = Arc::new(Shared {
            cells: (0..=workers).map(new_cells).collect(),
            namespaces: ArcSwap::from_pointee(namespaces),
            namespaces_max,
            driver: OnceLock::new(),
            started_unix_seconds: process::unix_seconds(),
        });
        let mut registry = Registry::default();
        registry.register_collector(Box::new(exposition::Exposition::new(shared.clone())));
        registry.register_collector(Box::new(process::Process));
        Arc::new(Metrics { shared, registry: Mutex::new(registry) })
    }

    /// The handle of worker `worker`; a number that is no worker's gets the one of the other
    /// threads, shown as `worker="other"`.
    pub fn worker(&self, worker: usize) -> WorkerMetrics {
        let own = self.shared.cells.get(worker).or(self.shared.cells.last());
        // `cells` is never empty; a fresh set, counted by nobody, only serves the type.
        let cells = own.cloned().unwrap_or_else(|| Arc::new(CachePadded::new(Cells::new(0))));
        WorkerMetrics { cells, shared: self.shared.clone() }
    }

    /// Goes on with these upstreams too (a reload). At most 32 more than at the start are counted,
    /// since each worker's cells are fixed; gives back those that are not.
    pub fn add_namespaces(
        &self,
        namespaces: impl IntoIterator<Item = Namespace>,
    ) -> Vec<Namespace> {
        let mut known = self.shared.namespaces.load().as_ref().clone();
        let mut left_out = Vec::new();
        for namespace in namespaces.into_iter().collect::<Vec<_>>() {
            match known.contains(&namespace) {
                true => {}
                false if known.len() < self.shared.namespaces_max => known.push(namespace),
                false => left_out.push(namespace),
            }
        }
        self.shared.namespaces.store(Arc::new(known));
        left_out
    }

    /// The number under which the calls to an upstream are counted, scoped or not.
    pub fn namespace_index(&self, namespace: &Namespace) -> Option<usize> {
        self.shared.namespace_index(namespace)
    }

    /// Says which driver the workers run on ("io_uring" or "epoll"). The first word counts.
    pub fn set_driver(&self, driver: &'static str) {
        let _already_said = self.shared.driver.set(driver);
    }

    /// Adds figures that are collected when someone asks, such as a plugin's.
    pub fn attach(&self, collector: Box<dyn Collector>) {
        self.lock_registry().register_collector(collector);
    }

    /// Adds one counter that is read by `read`; `name` is without `_total`.
    pub fn attach_counter(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        let read = Box::new(read);
        self.attach(Box::new(exposition::ReadValue { name, help, is_counter: true, read }));
    }

    /// Adds one gauge that is read by `read`.
    pub fn attach_gauge(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        let read = Box::new(read);
        self.attach(Box::new(exposition::ReadValue { name, help, is_counter: false, read }));
    }

    /// Adds a gauge with one label, whose values and figures are told by `read`. The values must
    /// be a closed set.
    pub fn attach_gauges(
        &self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        read: impl Fn() -> Vec<(String, u64)> + Send + Sync + 'static,
    ) {
        let read = Box::new(read);
        self.attach(Box::new(exposition::ReadValues { name, help, label, read }));
    }

    /// Adds counters with these labels, whose values and counts are told by `read`; `name` is
    /// without `_total`. The values must be closed sets.
    pub fn attach_counters<const N: usize>(
        &self,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
        read: impl Fn() -> Vec<([String; N], u64)> + Send + Sync + 'static,
    ) {
        let read = Box::new(read);
        self.attach(Box::new(exposition::ReadCounts { name, help, labels, read }));
    }

    /// Adds the figures of plugins, which `read` tells.
    pub fn attach_plugins(&self, read: impl Fn() -> Vec<PluginFigures> + Send + Sync + 'static) {
        self.attach(Box::new(plugins::Plugins { read: Box::new(read) }));
    }

    /// Everything in the OpenMetrics text format ([`METRICS_CONTENT_TYPE`]). Reads `/proc` and
    /// takes the registry's lock: call it on the blocking pool, not on a worker.
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        match encode(&mut text, &self.lock_registry()) {
            Ok(()) => text,
            // A `String` takes all there is; a collector that fails all the same ends the answer.
            Err(fmt::Error) => text + "# EOF\n",
        }
    }

    fn lock_registry(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn namespace_index(&self, namespace: &Namespace) -> Option<usize> {
        let namespaces = self.namespaces.load();
        namespaces.iter().position(|known| known.as_str() == namespace.base())
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("workers", &(self.shared.cells.len() - 1)).finish()
    }
}

impl WorkerMetrics {
    /// A request was answered with `status`, `body_bytes` of body were sent, and the first byte of
    /// the answer left, or was given to the ring with those of others, `first_byte` after the request's head
    /// was read (`None`: nothing was sent). To be
    /// called by the worker itself only: two threads at a time would lose counts.
    pub fn request(
        &self,
        kind: RouteKind,
        status: u16,
        cache: CacheResult,
        body_bytes: u64,
        first_byte: Option<Duration>,
    ) {
        self.cells.count_request(kind, status, cache);
        self.cells.response_bytes.add_alone(body_bytes);
        if let Some(first_byte) = first_byte {
            self.cells.observe_first_byte(kind, cache, first_byte);
        }
    }

    /// Body bytes that went through user memory on their way to a client. Stays 0 for hits. To be called
    /// by the worker itself only, too.
    pub fn copied(&self, bytes: u64) {
        self.cells.copied_bytes.add_alone(bytes);
    }

    /// A connection was accepted; it counts as open until the returned value is dropped.
    pub fn connection(&self) -> OpenConnection {
        self.cells.connections_total.add(1);
        self.cells.connections.add(1);
        OpenConnection { cells: self.cells.clone() }
    }

    /// A fill began; it counts as active until the returned value is finished or dropped.
    pub fn fill(&self) -> ActiveFill {
        self.cells.fills_active.add(1);
        let outcome = FillOutcome::Abandoned;
        ActiveFill { cells: self.cells.clone(), is_sparse: false, outcome }
    }

    /// A sparse fill began; it counts as one until the returned value is finished or dropped.
    pub fn sparse_fill(&self) -> ActiveFill {
        self.cells.sparse_fills.add(1);
        let outcome = FillOutcome::Abandoned;
        ActiveFill { cells: self.cells.clone(), is_sparse: true, outcome }
    }

    /// A range was asked of an upstream for a sparse fill.
    pub fn range_fetched(&self) {
        self.cells.ranges_fetched.add(1);
    }

    /// Body bytes sent from a sparse fill.
    pub fn extent_sent(&self, bytes: u64) {
        self.cells.extent_bytes.add(bytes);
    }

    /// A fill went on with a Range request after its upstream broke.
    pub fn fill_resumed(&self) {
        self.cells.fill_resumes.add(1);
    }

    /// The upstream numbered `namespace` answered with `status`; each hop and retry counts.
    pub fn upstream_answered(&self, namespace: usize, status: u16) {
        self.cells.count_upstream(namespace, Some(status));
    }

    /// A request to the upstream numbered `namespace` got no answer.
    pub fn upstream_failed(&self, namespace: usize) {
        self.cells.count_upstream(namespace, None);
    }

    /// Body bytes received from the upstream numbered `namespace`.
    pub fn upstream_received(&self, namespace: usize, bytes: u64) {
        if let Some(upstream) = self.cells.upstreams.get(namespace) {
            upstream.bytes.add(bytes);
        }
    }

    /// A token was asked for on behalf of the upstream numbered `namespace`.
    pub fn token_requested(&self, namespace: usize, granted: bool) {
        if let Some(upstream) = self.cells.upstreams.get(namespace) {
            let cell = if granted { &upstream.tokens_granted } else { &upstream.tokens_refused };
            cell.add(1);
        }
    }

    /// It was asked, or should have been, whether a stored name of this upstream still holds.
    pub fn revalidated(&self, namespace: &Namespace, outcome: Revalidation) {
        let index = self.shared.namespace_index(namespace);
        if let Some(upstream) = index.and_then(|index| self.cells.upstreams.get(index)) {
            upstream.revalidations.add_at(outcome as usize, 1);
        }
    }

    /// A request was answered 404 because this upstream has just said so.
    pub fn negative_hit(&self, namespace: &Namespace) {
        let index = self.shared.namespace_index(namespace);
        if let Some(upstream) = index.and_then(|index| self.cells.upstreams.get(index)) {
            upstream.negative_hits.add(1);
        }
    }

    /// `accept` failed (out of descriptors, most often).
    pub fn accept_error(&self) {
        self.cells.accept_errors.add(1);
    }

    /// A request's task panicked and was ended.
    pub fn panicked(&self) {
        self.cells.panics.add(1);
    }

    /// A TLS ClientHello came to the plain port and was answered.
    pub fn tls_probe(&self) {
        self.cells.tls_probes.add(1);
    }

    /// Header, `ns` and path of one request named different upstreams.
    pub fn route_conflict(&self) {
        self.cells.route_conflicts.add(1);
    }

    /// A request was refused because it came through this mirror before, or through too many.
    pub fn loop_refused(&self) {
        self.cells.loops.add(1);
    }
}

/// An open connection; dropping it is its end.
#[derive(Debug)]
pub struct OpenConnection {
    cells: Arc<CachePadded<Cells>>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.cells.connections.subtract(1);
    }
}

/// A fill under way. Dropped without [`ActiveFill::finish`] it counts as abandoned.
#[derive(Debug)]
pub struct ActiveFill {
    cells: Arc<CachePadded<Cells>>,
    is_sparse: bool,
    outcome: FillOutcome,
}

impl ActiveFill {
    /// The fill's end and how it came.
    pub fn finish(mut self, outcome: FillOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for ActiveFill {
    fn drop(&mut self) {
        let active =
            if self.is_sparse { &self.cells.sparse_fills } else { &self.cells.fills_active };
        active.subtract(1);
        self.cells.count_fill(self.outcome);
    }
}
