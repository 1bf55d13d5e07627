//! The counters as metric families. Names follow Prometheus: base units, `_total` on counters
//! (added by the encoder), one unit per family. Combinations that never happened are left out.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::Shared;
use super::cells::{Cell, Cells, FIRST_BYTE_BOUNDS_US, Times, UpstreamCells};
use super::labels::{CacheResult, FillOutcome, Revalidation, RouteKind, STATUS_COUNT, status_word};
use crate::oci::Namespace;

/// A counter without labels: name, unit, help and where it is kept.
type Sum = (&'static str, Option<Unit>, &'static str, fn(&Cells) -> &Cell);

const SUMS: &[Sum] = &[
    ("ringport_response", Some(Unit::Bytes), "Body bytes sent to clients", |c| &c.response_bytes),
    (
        "ringport_copied",
        Some(Unit::Bytes),
        "Body bytes that passed user memory on the way to a client",
        |c| &c.copied_bytes,
    ),
    // Not `ringport_connections_total`: OpenMetrics has one type per family, and
    // `ringport_connections` is the gauge.
    ("ringport_connections_accepted", None, "Connections accepted", |c| &c.connections_total),
    ("ringport_accept_errors", None, "Failed attempts to accept a connection", |c| {
        &c.accept_errors
    }),
    ("ringport_panics", None, "Requests ended by a panic", |c| &c.panics),
    ("ringport_tls_probes", None, "TLS handshakes refused on the plain port", |c| &c.tls_probes),
    (
        "ringport_route_conflicts",
        None,
        "Requests whose header, ns and path named different upstreams",
        |c| &c.route_conflicts,
    ),
    (
        "ringport_loops",
        None,
        "Requests refused because they came through this mirror before, or through too many",
        |c| &c.loops,
    ),
    ("ringport_fill_resumes", None, "Fills continued by Range after a break", |c| &c.fill_resumes),
    ("ringport_ranges_fetched", None, "Requests for ranges of sparse fills", |c| &c.ranges_fetched),
    (
        "ringport_extent",
        Some(Unit::Bytes),
        "Body bytes sent from blobs that were not whole yet and filled by ranges",
        |c| &c.extent_bytes,
    ),
];

/// The collector of everything that workers count.
#[derive(Debug)]
pub(super) struct Exposition {
    shared: Arc<Shared>,
}

/// A single counter that someone else keeps.
pub(super) struct ReadValue {
    pub name: &'static str,
    pub help: &'static str,
    pub is_counter: bool,
    pub read: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// A gauge that someone else keeps, for each value of a label.
pub(super) struct ReadValues {
    pub name: &'static str,
    pub help: &'static str,
    pub label: &'static str,
    pub read: Box<dyn Fn() -> Vec<(String, u64)> + Send + Sync>,
}

impl fmt::Debug for ReadValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadValues").field(&self.name).finish()
    }
}

impl Collector for ReadValues {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let gauge = MetricType::Gauge;
        let mut family = encoder.encode_descriptor(self.name, self.help, None, gauge)?;
        for (value, figure) in (self.read)() {
            let labels = [(self.label, value.as_str())];
            let figure = i64::try_from(figure).unwrap_or(i64::MAX);
            family.encode_family(&labels)?.encode_gauge(&figure)?;
        }
        Ok(())
    }
}

/// A counter that someone else keeps, for each set of values of some labels.
pub(super) struct ReadCounts<const N: usize> {
    pub name: &'static str,
    pub help: &'static str,
    pub labels: [&'static str; N],
    pub read: Box<dyn Fn() -> Vec<([String; N], u64)> + Send + Sync>,
}

impl<const N: usize> fmt::Debug for ReadCounts<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadCounts").field(&self.name).finish()
    }
}

impl<const N: usize> Collector for ReadCounts<N> {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let counter = MetricType::Counter;
        let mut family = encoder.encode_descriptor(self.name, self.help, None, counter)?;
        for (values, count) in (self.read)() {
            let labels: Vec<(&str, &str)> =
                self.labels.into_iter().zip(values.iter().map(String::as_str)).collect();
            encode_count(&mut family.encode_family(&labels)?, count)?;
        }
        Ok(())
    }
}

impl fmt::Debug for ReadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadValue").field(&self.name).finish()
    }
}

impl Collector for ReadValue {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let kind = if self.is_counter { MetricType::Counter } else { MetricType::Gauge };
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        let value = (self.read)();
        if self.is_counter {
            return encode_count(&mut metric, value);
        }
        metric.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        self.requests(&mut encoder)?;
        self.first_byte(&mut encoder)?;
        self.sums(&mut encoder)?;
        self.fills(&mut encoder)?;
        self.upstreams(&mut encoder)?;
        self.freshness(&mut encoder)?;
        self.workers(&mut encoder)?;
        self.facts(&mut encoder)
    }
}

impl Exposition {
    pub(super) fn new(shared: Arc<Shared>) -> Exposition {
        Exposition { shared }
    }

    fn sum(&self, read: impl Fn(&Cells) -> u64) -> u64 {
        self.shared.cells.iter().fold(0, |sum, cells| sum.wrapping_add(read(cells)))
    }

    fn requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Requests answered, by kind, status and where the answer came from";
        let mut family =
            encoder.encode_descriptor("ringport_requests", help, None, MetricType::Counter)?;
        for kind in RouteKind::ALL {
            for (status, cache) in (0..STATUS_COUNT).flat_map(with_caches) {
                let count = self.sum(|cells| cells.requests(kind, status, cache));
                let labels = [
                    ("route_kind", kind.as_str()),
                    ("status", status_word(status)),
                    ("cache", cache.as_str()),
                ];
                encode_happened(&mut family, &labels, count)?;
            }
        }
        Ok(())
    }

    fn first_byte(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "From the end of the request's head to the first byte of the answer";
        let mut family = encoder.encode_descriptor(
            "ringport_time_to_first_byte",
            help,
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for kind in RouteKind::ALL {
            for cache in CacheResult::ALL {
                let times = self.shared.cells.iter().filter_map(|c| c.first_byte(kind, cache));
                let labels = [("route_kind", kind.as_str()), ("cache", cache.as_str())];
                encode_times(&mut family, &labels, times)?;
            }
        }
        Ok(())
    }

    fn sums(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, unit, help, read) in SUMS {
            let counter = MetricType::Counter;
            let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), counter)?;
            encode_count(&mut metric, self.sum(|cells| read(cells).read()))?;
        }
        Ok(())
    }

    fn fills(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Fills ended, by how";
        let mut family =
            encoder.encode_descriptor("ringport_fills", help, None, MetricType::Counter)?;
        for outcome in FillOutcome::ALL {
            let ended = |cells: &Cells| cells.fills.at(outcome as usize).map_or(0, Cell::read);
            let labels = [("outcome", outcome.as_str())];
            encode_count(&mut family.encode_family(&labels)?, self.sum(ended))?;
        }
        let help = "Fills under way";
        let mut metric =
            encoder.encode_descriptor("ringport_fills_active", help, None, MetricType::Gauge)?;
        metric.encode_gauge(&self.sum(|cells| cells.fills_active.read()).cast_signed())?;
        let help = "Blobs that are filled by ranges and not whole yet";
        let mut metric =
            encoder.encode_descriptor("ringport_sparse_fills", help, None, MetricType::Gauge)?;
        metric.encode_gauge(&self.sum(|cells| cells.sparse_fills.read()).cast_signed())
    }

    /// Each declared upstream with what `read` finds in its cells, over all workers.
    fn per_upstream(&self, read: impl Fn(&UpstreamCells) -> u64) -> Vec<(Namespace, u64)> {
        let namespaces = self.shared.namespaces.load();
        let numbered = namespaces.iter().cloned().enumerate();
        let read = |(index, namespace)| {
            let own = |cells: &Cells| cells.upstreams.get(index).map_or(0, &read);
            (namespace, self.sum(own))
        };
        numbered.map(read).collect()
    }

    fn upstreams(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counter = MetricType::Counter;
        let help = "Requests to upstreams; status \"none\" is no answer";
        let mut family =
            encoder.encode_descriptor("ringport_upstream_requests", help, None, counter)?;
        for status in 0..STATUS_COUNT {
            let answered = |cells: &UpstreamCells| cells.statuses.at(status).map_or(0, Cell::read);
            for (namespace, count) in self.per_upstream(answered) {
                let labels = [("namespace", namespace.as_str()), ("status", status_word(status))];
                encode_happened(&mut family, &labels, count)?;
            }
        }
        let unit = Some(&Unit::Bytes);
        let help = "Body bytes received from upstreams";
        let mut family = encoder.encode_descriptor("ringport_upstream", help, unit, counter)?;
        for (namespace, count) in self.per_upstream(|cells| cells.bytes.read()) {
            encode_count(&mut family.encode_family(&[("namespace", namespace.as_str())])?, count)?;
        }
        let help = "Tokens asked for, by upstream and outcome";
        let mut family =
            encoder.encode_descriptor("ringport_token_requests", help, None, counter)?;
        for (namespace, count) in self.per_upstream(|cells| cells.tokens_granted.read()) {
            let labels = [("namespace", namespace.as_str()), ("outcome", "granted")];
            encode_happened(&mut family, &labels, count)?;
        }
        for (namespace, count) in self.per_upstream(|cells| cells.tokens_refused.read()) {
            let labels = [("namespace", namespace.as_str()), ("outcome", "refused")];
            encode_happened(&mut family, &labels, count)?;
        }
        Ok(())
    }

    fn freshness(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counter = MetricType::Counter;
        let help = "Stored tags and lists whose time was over, by what came of asking for them";
        let mut family =
            encoder.encode_descriptor("ringport_revalidations", help, None, counter)?;
        for outcome in Revalidation::ALL {
            let came =
                |c: &UpstreamCells| c.revalidations.at(outcome as usize).map_or(0, Cell::read);
            for (namespace, count) in self.per_upstream(came) {
                let labels = [("namespace", namespace.as_str()), ("outcome", outcome.as_str())];
                encode_happened(&mut family, &labels, count)?;
            }
        }
        let help = "Requests answered 404 because the upstream has just said so";
        let mut family =
            encoder.encode_descriptor("ringport_negative_hits", help, None, counter)?;
        for (namespace, count) in self.per_upstream(|cells| cells.negative_hits.read()) {
            encode_happened(&mut family, &[("namespace", namespace.as_str())], count)?;
        }
        Ok(())
    }

    fn workers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (gauge, counter) = (MetricType::Gauge, MetricType::Counter);
        let mut family =
            encoder.encode_descriptor("ringport_connections", "Open connections", None, gauge)?;
        for (worker, cells) in self.named_workers() {
            let labels = [("worker", worker.as_str())];
            let open = cells.connections.read().cast_signed();
            family.encode_family(&labels)?.encode_gauge(&open)?;
        }
        let help = "Requests answered, by worker";
        let mut family =
            encoder.encode_descriptor("ringport_worker_requests", help, None, counter)?;
        for (worker, cells) in self.named_workers() {
            let labels = [("worker", worker.as_str())];
            encode_count(&mut family.encode_family(&labels)?, cells.requests_sum())?;
        }
        Ok(())
    }

    /// The last cells are those of the threads that are no workers; shown when they were used.
    fn named_workers(&self) -> impl Iterator<Item = (String, &Cells)> {
        let workers = self.shared.cells.len().saturating_sub(1);
        self.shared.cells.iter().enumerate().filter_map(move |(index, cells)| {
            let other_in_use = cells.requests_sum() > 0 || cells.connections.read() > 0;
            match index < workers {
                true => Some((index.to_string(), &***cells)),
                false => other_in_use.then(|| ("other".to_owned(), &***cells)),
            }
        })
    }

    fn facts(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let info = MetricType::Info;
        encoder
            .encode_descriptor("ringport_build", "The running program", None, info)?
            .encode_info(&version)?;
        if let Some(driver) = self.shared.driver.get() {
            encoder
                .encode_descriptor("ringport_driver", "How workers do I/O", None, info)?
                .encode_info(&[("driver", *driver)])?;
        }
        let (gauge, unit) = (MetricType::Gauge, Some(&Unit::Seconds));
        let help = "When the process started, since 1970-01-01";
        encoder
            .encode_descriptor("process_start_time", help, unit, gauge)?
            .encode_gauge(&self.shared.started_unix_seconds)
    }
}

fn with_caches(status: usize) -> impl Iterator<Item = (usize, CacheResult)> {
    CacheResult::ALL.into_iter().map(move |cache| (status, cache))
}

fn encode_count(metric: &mut MetricEncoder<'_>, count: u64) -> fmt::Result {
    metric.encode_counter::<NoLabelSet, _, u64>(&count, None)
}

/// A combination, unless it never happened: most of them never do.
fn encode_happened<const N: usize>(
    family: &mut MetricEncoder<'_>,
    labels: &[(&'static str, &str); N],
    count: u64,
) -> fmt::Result {
    match count {
        0 => Ok(()),
        _ => encode_count(&mut family.encode_family(labels)?, count),
    }
}

fn encode_times<'a>(
    family: &mut MetricEncoder<'_>,
    labels: &[(&'static str, &str); 2],
    times: impl Iterator<Item = &'a Times>,
) -> fmt::Result {
    let bounds = FIRST_BYTE_BOUNDS_US.iter().map(|bound_us| seconds(*bound_us));
    // The encoder adds the buckets up and writes infinity as "+Inf".
    let mut buckets: Vec<(f64, u64)> =
        bounds.chain([f64::INFINITY]).map(|bound| (bound, 0)).collect();
    let mut sum_us: u64 = 0;
    for one in times {
        sum_us = sum_us.wrapping_add(one.sum_us.read());
        for ((_, count), more) in buckets.iter_mut().zip(one.buckets.read()) {
            *count += more;
        }
    }
    let count = buckets.iter().map(|(_, count)| count).sum();
    if count == 0 {
        return Ok(());
    }
    let mut metric = family.encode_family(labels)?;
    metric.encode_histogram::<NoLabelSet>(seconds(sum_us), count, &buckets, None)
}

/// Microseconds as seconds; exact enough far beyond the age of any process.
#[expect(clippy::cast_precision_loss, reason = "a sum of times need not be exact to the bit")]
fn seconds(time_us: u64) -> f64 {
    time_us as f64 / 1e6
}
