//! One worker's counters: fixed arrays of atomics, made once.
//!
//! All additions are relaxed: the figures are independent of each other, and a scrape that sees one
//! request's status but not yet its bytes is as good as one a moment earlier.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::labels::{
    CacheResult, FillOutcome, Revalidation, RouteKind, STATUS_COUNT, STATUS_NONE, status_index,
};

const KINDS: usize = RouteKind::ALL.len();
const CACHES: usize = CacheResult::ALL.len();

/// Upper bounds of the time-to-first-byte buckets in microseconds: a hit takes tens of them, a miss
/// over the internet hundreds of thousands.
pub(super) const FIRST_BYTE_BOUNDS_US: [u64; 17] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// One count. As a gauge it may go below its worker's zero (opened here, closed there): the
/// arithmetic wraps, and the sum over all workers is right.
#[derive(Debug, Default)]
pub(super) struct Cell(AtomicU64);

impl Cell {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The same where nobody else adds: an atomic addition costs more than all else about a count.
    pub(super) fn add_alone(&self, count: u64) {
        self.0.store(self.read().wrapping_add(count), Ordering::Relaxed);
    }

    pub(super) fn subtract(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one upstream was asked and answered.
#[derive(Debug, Default)]
pub(super) struct UpstreamCells {
    pub statuses: Cells1<STATUS_COUNT>,
    pub bytes: Cell,
    pub tokens_granted: Cell,
    pub tokens_refused: Cell,
    pub revalidations: Cells1<{ Revalidation::ALL.len() }>,
    pub negative_hits: Cell,
}

/// A row of counts. (`Default` of the standard library's arrays ends at 32.)
#[derive(Debug)]
pub(super) struct Cells1<const N: usize>([Cell; N]);

impl<const N: usize> Default for Cells1<N> {
    fn default() -> Self {
        Cells1([const { Cell(AtomicU64::new(0)) }; N])
    }
}

impl<const N: usize> Cells1<N> {
    pub(super) fn at(&self, index: usize) -> Option<&Cell> {
        self.0.get(index)
    }

    pub(super) fn add_at(&self, index: usize, count: u64) {
        if let Some(cell) = self.0.get(index) {
            cell.add(count);
        }
    }

    fn add_alone_at(&self, index: usize, count: u64) {
        if let Some(cell) = self.0.get(index) {
            cell.add_alone(count);
        }
    }

    pub(super) fn read(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(Cell::read)
    }
}

/// A distribution of times: one count per bucket (the last is everything above) and their sum. In this
/// order, and from the beginning of a cache line on: so what a hit counts lies in one.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Times {
    pub sum_us: Cell,
    pub buckets: Cells1<{ FIRST_BYTE_BOUNDS_US.len() + 1 }>,
}

/// One worker's counters.
#[derive(Debug)]
pub(super) struct Cells {
    requests: Cells1<{ KINDS * CACHES * STATUS_COUNT }>,
    first_byte: Vec<Times>,
    pub response_bytes: Cell,
    pub copied_bytes: Cell,
    pub fills: Cells1<{ FillOutcome::ALL.len() }>,
    pub fills_active: Cell,
    pub fill_resumes: Cell,
    pub sparse_fills: Cell,
    pub ranges_fetched: Cell,
    pub extent_bytes: Cell,
    pub upstreams: Vec<UpstreamCells>,
    pub connections: Cell,
    pub connections_total: Cell,
    pub accept_errors: Cell,
    pub panics: Cell,
    pub tls_probes: Cell,
    pub route_conflicts: Cell,
    pub loops: Cell,
}

impl Cells {
    pub(super) fn new(upstreams: usize) -> Cells {
        Cells {
            requests: Cells1::default(),
            first_byte: (0..KINDS * CACHES).map(|_| Times::default()).collect(),
            response_bytes: Cell::default(),
            copied_bytes: Cell::default(),
            fills: Cells1::default(),
            fills_active: Cell::default(),
            fill_resumes: Cell::default(),
            sparse_fills: Cell::default(),
            ranges_fetched: Cell::default(),
            extent_bytes: Cell::default(),
            upstreams: (0..upstreams).map(|_| UpstreamCells::default()).collect(),
            connections: Cell::default(),
            connections_total: Cell::default(),
            accept_errors: Cell::default(),
            panics: Cell::default(),
            tls_probes: Cell::default(),
            route_conflicts: Cell::default(),
            loops: Cell::default(),
        }
    }

    pub(super) fn count_request(&self, kind: RouteKind, status: u16, cache: CacheResult) {
        self.requests.add_alone_at(request_index(kind, status_index(status), cache), 1);
    }

    /// Requests of one combination; `status` is a place in the status table.
    pub(super) fn requests(&self, kind: RouteKind, status: usize, cache: CacheResult) -> u64 {
        self.requests.at(request_index(kind, status, cache)).map_or(0, Cell::read)
    }

    /// Requests of all combinations.
    pub(super) fn requests_sum(&self) -> u64 {
        self.requests.read().sum()
    }

    pub(super) fn observe_first_byte(&self, kind: RouteKind, cache: CacheResult, time: Duration) {
        let Some(times) = self.first_byte(kind, cache) else { return };
        let time_us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        // Prometheus' bounds are inclusive.
        let bucket = FIRST_BYTE_BOUNDS_US.iter().position(|bound| time_us <= *bound);
        times.buckets.add_alone_at(bucket.unwrap_or(FIRST_BYTE_BOUNDS_US.len()), 1);
        times.sum_us.add_alone(time_us);
    }

    pub(super) fn first_byte(&self, kind: RouteKind, cache: CacheResult) -> Option<&Times> {
        self.first_byte.get(kind as usize * CACHES + cache as usize)
    }

    pub(super) fn count_fill(&self, outcome: FillOutcome) {
        self.fills.add_at(outcome as usize, 1);
    }

    /// `None`: there was no answer.
    pub(super) fn count_upstream(&self, upstream: usize, status: Option<u16>) {
        if let Some(cells) = self.upstreams.get(upstream) {
            cells.statuses.add_at(status.map_or(STATUS_NONE, status_index), 1);
        }
    }
}

fn request_index(kind: RouteKind, status: usize, cache: CacheResult) -> usize {
    (kind as usize * CACHES + cache as usize) * STATUS_COUNT + status
}
