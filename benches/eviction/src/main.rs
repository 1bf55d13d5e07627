//! `eviction-sim`: plays a made-up CI trace through caches of several sizes under several eviction
//! policies, and prints hit ratios as Markdown. docs/EVICTION.md tells what came out.

mod arguments;
mod report;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use arguments::Arguments;
use ringport_bench_eviction::policies::{Kind, ROWS, SHIPPED};
use ringport_bench_eviction::replay::{Ratios, Room, replay};
use ringport_bench_eviction::trace::Trace;

/// Cache sizes, as shares of all bytes that the trace ever asks for.
const SHARES: [f64; 4] = [0.01, 0.05, 0.10, 0.25];

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            // Nothing else is left to try when standard error is gone.
            let _ = writeln!(std::io::stderr(), "eviction-sim: {problem}");
            return ExitCode::from(2);
        }
    };
    let is_wanted = |kind: &Kind| !arguments.main_rows || kind.is_exact() || *kind == SHIPPED;
    let rows: Vec<Kind> = ROWS.into_iter().filter(is_wanted).collect();
    let mut found = Vec::new();
    let mut notes = String::new();
    for &seed in &arguments.seeds {
        let trace = Trace::generate(&arguments.trace, seed);
        notes.push_str(&report::describe(&trace, seed));
        found.push(measure(&rows, &trace, &arguments));
    }
    let text = report::tables(&rows, &notes, &found);
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The ratios of each row, at each share.
fn measure(rows: &[Kind], trace: &Trace, arguments: &Arguments) -> Vec<[Ratios; SHARES.len()]> {
    let next_uses = trace.next_uses();
    let footprint: u64 = trace.sizes.iter().sum();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(vec![[Ratios::default(); SHARES.len()]; rows.len()]);
    let work = || loop {
        let cell = next.fetch_add(1, Ordering::Relaxed);
        let (row, column) = (cell / SHARES.len(), cell % SHARES.len());
        let Some(kind) = rows.get(row) else { break };
        let capacity = (footprint as f64 * SHARES[column]) as u64;
        let room = Room { high: capacity, low: (capacity as f64 * arguments.low_watermark) as u64 };
        let ratios = replay(trace, &next_uses, *kind, room);
        if let Ok(mut found) = found.lock() {
            found[row][column] = ratios;
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(work);
        }
    });
    found.into_inner().unwrap_or_default()
}
