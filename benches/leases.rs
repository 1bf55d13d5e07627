//! What a lease costs a hit: taken and given back, when nobody else reads the same content and when
//! others do, on one and on two threads. Times are for one lease on one thread.
//!
//! `cargo bench --bench leases`

#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use ringport::oci::{Algorithm, Digest};
use ringport::registry::Leases;

/// Contents that the threads go through in turn.
const CONTENTS: usize = 1000;

fn digests() -> Vec<Digest> {
    (0..CONTENTS).map(|n| Digest::of(Algorithm::Sha256, &n.to_le_bytes())).collect()
}

/// Takes and drops `rounds` leases on each of `threads` threads; the time of the slowest.
fn timed(leases: &Arc<Leases>, digests: &[Digest], threads: usize, rounds: u64) -> Duration {
    let run = |offset: usize| {
        let begin = Instant::now();
        for digest in digests.iter().cycle().skip(offset).take(rounds as usize) {
            black_box(leases.take(digest));
        }
        begin.elapsed()
    };
    std::thread::scope(|scope| {
        let run = &run;
        let running: Vec<_> = (0..threads).map(|n| scope.spawn(move || run(n * 389))).collect();
        running.into_iter().map(|one| one.join().unwrap()).max().unwrap_or_default()
    })
}

fn costs(c: &mut Criterion) {
    let digests = digests();
    let mut group = c.benchmark_group("take and drop");
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    for threads in [1, 2] {
        let leases = Arc::<Leases>::default();
        group.bench_function(format!("nobody else reads it, {threads} threads"), |b| {
            b.iter_custom(|rounds| timed(&leases, &digests, threads, rounds));
        });
        group.bench_function(format!("all the same content, {threads} threads"), |b| {
            b.iter_custom(|rounds| timed(&leases, &digests[..1], threads, rounds));
        });
        let held: Vec<_> = digests.iter().map(|digest| leases.take(digest)).collect();
        group.bench_function(format!("others read it, {threads} threads"), |b| {
            b.iter_custom(|rounds| timed(&leases, &digests, threads, rounds));
        });
        drop(held);
    }
    group.finish();
}

criterion_group!(benches, costs);
criterion_main!(benches);
