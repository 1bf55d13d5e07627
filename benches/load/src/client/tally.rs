//! What one thread, or all of them, counted.

use std::time::Duration;

use hdrhistogram::Histogram;

/// How many wrong answers are told one by one.
const WRONG_TOLD_MAX: usize = 8;
/// Of latencies; longer ones count as this.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// Counts of a measured window.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Answers that came whole.
    pub(crate) requests: u64,
    /// Of bodies.
    pub(crate) body_bytes: u64,
    /// From the request (the intended time of a paced one) to the last byte, in ns.
    pub(crate) latency: Histogram<u64>,
    /// From the time at which a paced request was due until the client noticed, in ns.
    pub(crate) lateness: Histogram<u64>,
    /// What was not as it had to be.
    pub(crate) wrong: Vec<String>,
    /// How many there were of those.
    pub(crate) wrong_count: u64,
    /// Connections that the server closed and the client opened again.
    pub(crate) reconnects: u64,
    /// The client's own CPU time, without that of looks in vain.
    pub(crate) cpu: Duration,
    /// CPU time of looks in vain, by threads that do not sleep.
    pub(crate) in_vain: Duration,
}

impl Tally {
    /// Nothing yet.
    ///
    /// # Errors
    /// If there can be no histogram.
    pub(crate) fn new() -> Result<Tally, String> {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).map_err(|e| format!("histogram: {e}"))
        };
        Ok(Tally {
            requests: 0,
            body_bytes: 0,
            latency: histogram()?,
            lateness: histogram()?,
            wrong: Vec::new(),
            wrong_count: 0,
            reconnects: 0,
            cpu: Duration::ZERO,
            in_vain: Duration::ZERO,
        })
    }

    /// What was wrong, and how many more of it there were than are told.
    pub(crate) fn told(&self) -> Vec<String> {
        let more = self.wrong_count.saturating_sub(self.wrong.len() as u64);
        let more = (more > 0).then(|| format!("and {more} more"));
        self.wrong.iter().cloned().chain(more).collect()
    }

    /// Keeps what was wrong; only so many are told, all are counted.
    pub(crate) fn note_wrong(&mut self, what: String) {
        self.wrong_count += 1;
        if self.wrong.len() < WRONG_TOLD_MAX {
            self.wrong.push(what);
        }
    }

    /// What the client kept its cores busy with.
    pub(crate) fn occupied(&self) -> Duration {
        self.cpu + self.in_vain
    }

    /// Puts another thread's counts to these.
    pub(crate) fn add(&mut self, other: Tally) {
        self.requests += other.requests;
        self.body_bytes += other.body_bytes;
        // Both have the same bounds, so there is nothing to fail.
        let _ = self.latency.add(&other.latency);
        let _ = self.lateness.add(&other.lateness);
        self.wrong_count += other.wrong_count - other.wrong.len() as u64;
        for what in other.wrong {
            self.note_wrong(what);
        }
        self.reconnects += other.reconnects;
        self.cpu += other.cpu;
        self.in_vain += other.in_vain;
    }
}
