//! What is measured: time a call, memory over many calls and many lives.

use std::time::{Duration, Instant};

use crate::frame::{EmptyAt, Shape};
use crate::memory::{Held, voluntary_switches};
use crate::report::{Event, Finding, Problem};
use crate::run::Run;

const TIMED_ROUNDS: usize = 10;
const TIMED_CALLS: usize = 1_000;
/// Enough is known of a plugin that takes longer.
const TIMED_MAX: Duration = Duration::from_millis(1_500);
/// Far above any machine's load: the median of the best round, as a multiple of the budget.
const MEDIAN_MAX: u32 = 10;
/// The same for the 99th percentile.
const P99_MAX: u32 = 100;
/// Growth is looked for in each of so many windows: a leak is in all of them.
const WINDOWS: usize = 4;
const LIVES: usize = 50;
/// A window that takes longer ends early; the report says how many calls there were.
const WINDOW_TIME_MAX: Duration = Duration::from_secs(4);
/// A sign of life comes about so often: less than anybody's patience.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// Calls between two looks at the clock, which is not to be what is measured.
const CALLS_STRIDE: usize = 64;
/// What malloc may keep for itself.
const HEAP_NOISE: usize = 4096;
const RESIDENT_NOISE: usize = 2 << 20;

/// Times of one round, sorted.
struct Times(Vec<Duration>);

impl Times {
    fn at(&self, percent: usize) -> Duration {
        let index = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(index).copied().unwrap_or_default()
    }
}

pub(super) fn time(run: &mut Run<'_>) -> Result<(), Finding> {
    let (life, mut worker) = run.start()?;
    let frames = run.frames(&life, Shape::Exact, EmptyAt::Null);
    let (mut best, mut all): (Option<Times>, Vec<Duration>) = (None, Vec::new());
    let (mut switches, started) = (u64::MAX, Instant::now());
    for _ in 0..TIMED_ROUNDS {
        if started.elapsed() > TIMED_MAX {
            break;
        }
        let mut times = Vec::with_capacity(TIMED_CALLS);
        let before = voluntary_switches();
        for frame in frames.iter().cycle().take(TIMED_CALLS) {
            let started = Instant::now();
            worker.call(frame);
            times.push(started.elapsed());
        }
        switches = switches.min(voluntary_switches().saturating_sub(before));
        (run.tell)(Event::Alive);
        all.extend_from_slice(&times);
        times.sort_unstable();
        let times = Times(times);
        if best.as_ref().is_none_or(|best| times.at(99) < best.at(99)) {
            best = Some(times);
        }
    }
    drop((worker, life));
    all.sort_unstable();
    let (all, best) = (Times(all), best.unwrap_or(Times(Vec::new())));
    let budget = run.world.budget;
    let figures = format!(
        "p50 {:?}, p99 {:?}, longest {:?} of {} calls; p99 of the best round {:?}, budget {budget:?}",
        all.at(50),
        all.at(99),
        all.at(100),
        all.0.len(),
        best.at(99)
    );
    // One call in a hundred may meet a page that is not there yet.
    if switches > TIMED_CALLS as u64 / 100 {
        let found = format!("{switches} times asleep in {TIMED_CALLS} calls ({figures})");
        let remedy = "no sleep, lock or I/O in resolve; what is slow belongs into refresh";
        return Err(Problem::new("a resolve that never waits", found, remedy).breaks(13));
    }
    if best.at(50) > budget * MEDIAN_MAX || best.at(99) > budget * P99_MAX {
        let expected = format!(
            "p99 within {budget:?} (failed beyond {MEDIAN_MAX} times that at p50, {P99_MAX} times \
             at p99)"
        );
        let remedy = "prepare in configure, worker_start or refresh what resolve only looks up";
        return Err(Problem::new(expected, figures, remedy).breaks(13));
    }
    let remark = if best.at(99) > budget { "; OVER BUDGET here" } else { "" };
    run.pass(13, format!("{figures}{remark}"));
    run.pass(13, histogram(&all));
    Ok(())
}

/// How many of 100 calls took at most 1, 2, 5, ... microseconds.
fn histogram(times: &Times) -> String {
    let bounds = [1, 2, 5, 10, 20, 50, 100, 1000];
    let count = times.0.len().max(1) as f64;
    let share = |us: u64| {
        let within = times.0.partition_point(|time| *time <= Duration::from_micros(us));
        format!("<={us} us {:.1}%", within as f64 * 100.0 / count)
    };
    bounds.map(share).join(", ")
}

/// The smallest growth of any window.
#[derive(Clone, Copy)]
struct Growth {
    heap: usize,
    resident: usize,
    descriptors: usize,
    /// What was done in the smallest window.
    turns: usize,
}

/// Does `turn` many times in windows, after one that counts for nothing; looks at the clock after
/// every `stride` of them.
fn grow(run: &mut Run<'_>, turns: usize, stride: usize, mut turn: impl FnMut()) -> Growth {
    let mut least =
        Growth { heap: usize::MAX, resident: usize::MAX, descriptors: usize::MAX, turns };
    let mut before = Held::now();
    for window in 0..=WINDOWS {
        let (started, mut done) = (Instant::now(), 0);
        let mut told = started;
        while done < turns {
            turn();
            done += 1;
            if done % stride != 0 {
                continue;
            }
            if started.elapsed() > WINDOW_TIME_MAX {
                break;
            }
            if told.elapsed() > ALIVE_INTERVAL {
                (run.tell)(Event::Alive);
                told = Instant::now();
            }
        }
        (run.tell)(Event::Alive);
        let now = Held::now();
        if window > 0 {
            least = Growth {
                heap: least.heap.min(now.heap.saturating_sub(before.heap)),
                resident: least.resident.min(now.resident.saturating_sub(before.resident)),
                descriptors: least
                    .descriptors
                    .min(now.descriptors.saturating_sub(before.descriptors)),
                turns: least.turns.min(done),
            };
        }
        before = now;
    }
    least
}

fn judge(growth: Growth, what: &str, remedy: &str) -> Result<(), Finding> {
    let Growth { heap, resident, descriptors, turns } = growth;
    // A byte in 16 turns: less than the smallest allocation in every 300th.
    let is_leak =
        heap > HEAP_NOISE + turns / 16 || resident > RESIDENT_NOISE + turns || descriptors > 0;
    if !is_leak {
        return Ok(());
    }
    let found = format!(
        "{heap} bytes more of malloc's, {resident} more resident, {descriptors} more descriptors, \
         after {turns} {what}, {WINDOWS} times in a row"
    );
    Err(Problem::new("memory that does not grow", found, remedy).breaks(10))
}

pub(super) fn calls(run: &mut Run<'_>) -> Result<(), Finding> {
    let (life, mut worker) = run.start()?;
    let frames = run.frames(&life, Shape::Exact, EmptyAt::Null);
    let turns = run.options.calls / WINDOWS;
    let mut next = frames.iter().cycle();
    let growth = grow(run, turns, CALLS_STRIDE, || {
        if let Some(frame) = next.next() {
            worker.call(frame);
        }
    });
    drop((worker, life));
    judge(growth, "calls", "free what a call made before it returns, or keep it within a bound")?;
    run.pass(10, format!("nothing grows over {} calls", growth.turns * WINDOWS));
    Ok(())
}

pub(super) fn lives(run: &mut Run<'_>) -> Result<(), Finding> {
    let kit = run.kit()?;
    let mut refused = None;
    let growth = grow(run, LIVES, 1, || {
        let life = crate::life::Life::start(&kit, crate::host::HostVersion::Same, false);
        let lived = life.and_then(|life| life.start_worker(0).map(drop));
        refused = refused.take().or(lived.err());
    });
    if let Some(finding) = refused {
        return Err(finding);
    }
    judge(growth, "lives", "worker_stop frees the worker, destroy the instance")?;
    run.pass(10, format!("nothing is left of {} lives", growth.turns * WINDOWS));
    Ok(())
}
