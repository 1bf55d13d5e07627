//! What came of a measurement, and the figures that every scenario has.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Load, Seen};
use crate::client::Tally;
use crate::servers::Running;

/// What came of it.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Of the window.
    pub(crate) seconds: f64,
    /// Of the busy connections.
    pub(crate) bulk: Tally,
    /// Of those beside them.
    pub(crate) beside: Option<Tally>,
    /// CPU time of the server; nothing where it cannot be seen.
    pub(crate) server_cpu: Option<Duration>,
    /// Of each of its threads, the busiest first.
    pub(crate) server_threads: Vec<Duration>,
    /// How often its threads waited.
    pub(crate) server_waits: u64,
    /// The most memory it had since it began.
    pub(crate) rss_peak_bytes: u64,
    /// What came from disks, whoever asked.
    pub(crate) disk_read_bytes: u64,
    /// Time that the cores of both were busy for others, and stolen from the machine.
    others: Duration,
    stolen: Duration,
    /// Whether the probe was allowed to go first on its core.
    pub(crate) hurried: bool,
    client_cores: usize,
    server_cores: usize,
    all_cores: usize,
}

impl Measured {
    pub(super) fn of(
        running: &Running,
        load: &Load<'_>,
        before: &Seen,
        after: &Seen,
        bulk: Tally,
        beside: Option<(Tally, bool)>,
    ) -> Measured {
        let (beside, hurried) = match beside {
            Some((tally, hurried)) => (Some(tally), hurried),
            None => (None, false),
        };
        let server = after.usage.cpu_since(&before.usage);
        let client = bulk.occupied() + beside.as_ref().map_or(Duration::ZERO, Tally::occupied);
        let (busy, stolen) = after.cores.since(&before.cores);
        Measured {
            seconds: (after.at - before.at).as_secs_f64(),
            server_cpu: running.id().map(|_| server),
            server_threads: after.usage.threads_since(&before.usage),
            server_waits: after.usage.waits.saturating_sub(before.usage.waits),
            rss_peak_bytes: after.usage.rss_peak_bytes,
            disk_read_bytes: after.disk_read_bytes.saturating_sub(before.disk_read_bytes),
            others: busy.saturating_sub(server + client),
            stolen,
            hurried,
            bulk,
            beside,
            client_cores: load.client_cores.len().max(1),
            server_cores: load.server_cores.len().max(1),
            all_cores: load.cores().len().max(1),
        }
    }

    /// Itself, if all of so many answers came. With wrong ones among them it is none of a mirror's
    /// speed anyway, and they are told.
    ///
    /// # Errors
    /// How many came.
    pub(crate) fn whole(self, asked: usize) -> Result<Measured, String> {
        let came = self.bulk.requests;
        if came < asked as u64 && self.bulk.wrong_count == 0 {
            let seconds = self.seconds;
            return Err(format!("only {came} of {asked} answers came within {seconds:.0} s"));
        }
        Ok(self)
    }

    /// Puts a further pass to this one.
    pub(crate) fn add(&mut self, other: Measured) {
        self.seconds += other.seconds;
        self.bulk.add(other.bulk);
        if let (Some(own), Some(more)) = (self.beside.as_mut(), other.beside) {
            own.add(more);
        }
        if let (Some(own), Some(more)) = (self.server_cpu.as_mut(), other.server_cpu) {
            *own += more;
        }
        self.server_waits += other.server_waits;
        self.rss_peak_bytes = self.rss_peak_bytes.max(other.rss_peak_bytes);
        self.disk_read_bytes += other.disk_read_bytes;
        self.others += other.others;
        self.stolen += other.stolen;
    }

    /// What was wrong, of all connections.
    pub(crate) fn wrong(&self) -> Vec<String> {
        std::iter::once(&self.bulk).chain(&self.beside).flat_map(Tally::told).collect()
    }

    /// The figures that every scenario has. Latencies are those of `of`.
    pub(crate) fn metrics(&self, of: &Tally) -> BTreeMap<String, f64> {
        let mut found = BTreeMap::new();
        let mut put = |name: &str, value: f64| {
            if value.is_finite() {
                found.insert(name.to_owned(), value);
            }
        };
        let total = self.bulk.requests + self.beside.as_ref().map_or(0, |tally| tally.requests);
        let bytes = self.bulk.body_bytes + self.beside.as_ref().map_or(0, |t| t.body_bytes);
        put("requests_per_second", total as f64 / self.seconds);
        put("bytes_per_second", bytes as f64 / self.seconds);
        if let Some(cpu) = self.server_cpu.map(|cpu| cpu.as_secs_f64()) {
            put("cpu_us_per_request", cpu * 1e6 / total as f64);
            // Of small answers it would only say that they are small.
            if bytes >= total.saturating_mul(16 << 10).max(1 << 20) {
                put("cpu_ms_per_gib", cpu * 1e3 / (bytes as f64 / f64::from(1 << 30)));
            }
            let room = self.seconds * self.server_cores as f64;
            put("server_busy_percent", cpu / room * 100.0);
            put("rss_peak_bytes", self.rss_peak_bytes as f64);
        }
        let micro = |q: f64| of.latency.value_at_quantile(q) as f64 / 1e3;
        if !of.latency.is_empty() {
            put("latency_p50_us", micro(0.5));
            put("latency_p99_us", micro(0.99));
            put("latency_max_us", of.latency.max() as f64 / 1e3);
        }
        let client = self.bulk.cpu + self.beside.as_ref().map_or(Duration::ZERO, |t| t.cpu);
        let room = self.seconds * self.client_cores as f64;
        put("client_busy_percent", client.as_secs_f64() / room * 100.0);
        let all = self.seconds * self.all_cores as f64;
        put("others_busy_percent", self.others.as_secs_f64() / all * 100.0);
        put("stolen_percent", self.stolen.as_secs_f64() / all * 100.0);
        if of.reconnects > 0 {
            put("reconnects_per_second", of.reconnects as f64 / self.seconds);
        }
        found
    }
}
