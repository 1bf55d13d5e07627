//! Short spans, measured by the processor's own counter.
//!
//! Asking the clock costs 25 ns, and a quick resolver is asked and measured in 100: here the
//! counter that the clock is made of is read instead, without the fences and the arithmetic.
//! Only where the kernel has chosen that counter for its clock, so that it runs at one rate and
//! alike on all processors, and as soon as its rate is known, which is learnt beside the first
//! spans and without waiting. Everywhere else, and before, the clock is asked as ever.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// What the kernel makes its clock of.
const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
/// The rate is known when the counter has been seen at both ends of this.
const LEARNT_AFTER: Duration = Duration::from_millis(20);
/// Both ends are to lie no further apart: while a machine is suspended, clock and counter differ.
const LEARNT_WITHIN: Duration = Duration::from_secs(1);
/// Clock and counter were read at the same time if not more than this lies between two readings
/// of the clock around that of the counter: with the above, spans are true to 1 in 10,000.
const SAME_TIME: Duration = Duration::from_micros(1);

/// Nanoseconds of one tick times 2^32; 0: not known.
static RATE: AtomicU64 = AtomicU64::new(0);
/// The first reading of both; empty where the counter is not to be used.
static BEGINNING: OnceLock<Option<Mutex<(Instant, u64)>>> = OnceLock::new();

/// The beginning of a span.
#[derive(Clone, Copy, Debug)]
pub struct Mark(Reading);

#[derive(Clone, Copy, Debug)]
enum Reading {
    Ticks(u64),
    Clock(Instant),
}

/// Begins to learn the counter's rate, once in a process. Reads a small file.
pub fn prepare() {
    // The first time takes longer than it may, since the code comes from the disk or another cache.
    let first = || (0..16).find_map(|_| both()).map(Mutex::new);
    BEGINNING.get_or_init(|| is_clock_of_kernel(Path::new(CLOCK_SOURCE)).then(first).flatten());
}

/// A span begins.
pub fn mark() -> Mark {
    if RATE.load(Ordering::Relaxed) != 0
        && let Some(ticks) = ticks()
    {
        return Mark(Reading::Ticks(ticks));
    }
    learn();
    Mark(Reading::Clock(Instant::now()))
}

impl Mark {
    /// How long ago it was, in nanoseconds; 0 should the counter have gone back.
    pub fn elapsed_ns(self) -> u64 {
        match self.0 {
            Reading::Ticks(then) => {
                let took = ticks().unwrap_or(then).saturating_sub(then);
                to_ns(took, RATE.load(Ordering::Relaxed))
            }
            Reading::Clock(then) => u64::try_from(then.elapsed().as_nanos()).unwrap_or(u64::MAX),
        }
    }
}

#[cold]
fn learn() {
    let Some(Some(beginning)) = BEGINNING.get() else { return };
    // Another one learns it.
    let Ok(mut beginning) = beginning.try_lock() else { return };
    let waited = beginning.0.elapsed();
    if waited < LEARNT_AFTER {
        return;
    }
    let Some(end) = both() else { return };
    if waited > LEARNT_WITHIN {
        *beginning = end;
    } else if let Some(rate) = rate(*beginning, end) {
        RATE.store(rate, Ordering::Relaxed);
    }
}

/// Nanoseconds of one tick times 2^32, if that is a number to count with.
fn rate(from: (Instant, u64), to: (Instant, u64)) -> Option<u64> {
    let ns = to.0.saturating_duration_since(from.0).as_nanos();
    let rate = (ns << 32).checked_div(u128::from(to.1.checked_sub(from.1)?))?;
    u64::try_from(rate).ok().filter(|rate| *rate != 0)
}

fn to_ns(ticks: u64, rate: u64) -> u64 {
    u64::try_from((u128::from(ticks) * u128::from(rate)) >> 32).unwrap_or(u64::MAX)
}

/// Clock and counter; `None` where somebody else had the processor in between.
fn both() -> Option<(Instant, u64)> {
    let before = Instant::now();
    let ticks = ticks()?;
    (before.elapsed() <= SAME_TIME).then_some((before, ticks))
}

fn is_clock_of_kernel(source: &Path) -> bool {
    std::fs::read_to_string(source).is_ok_and(|name| name.trim() == "tsc")
}

#[cfg(target_arch = "x86_64")]
fn ticks() -> Option<u64> {
    // SAFETY: every x86-64 processor has the instruction, and where the kernel's clock is made of
    // it (`BEGINNING`) processes may use it: they read the clock by it.
    Some(unsafe { std::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn ticks() -> Option<u64> {
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_as_long_as_the_clock_says_before_and_after_the_rate_is_known() {
        prepare();
        let began = Instant::now();
        let mut by_counter = 0;
        // Until a few were measured by the counter, or for long enough to see that it isn't used.
        while by_counter < 3 && began.elapsed() < Duration::from_secs(2) {
            let outer = Instant::now();
            let mark = mark();
            let inner = Instant::now();
            std::thread::sleep(Duration::from_millis(5));
            let least = inner.elapsed().as_nanos() as u64;
            let found = mark.elapsed_ns();
            let most = outer.elapsed().as_nanos() as u64;
            // The rate is true to 1 in 10,000; here 1 in 1,000 is enough.
            assert!(least - least / 1000 <= found, "{mark:?}: {found} ns, at least {least}");
            assert!(found <= most + most / 1000, "{mark:?}: {found} ns, at most {most}");
            by_counter += u64::from(matches!(mark.0, Reading::Ticks(_)));
        }
        let is_ready = BEGINNING.get().is_some_and(Option::is_some);
        assert!(by_counter > 0 || !is_ready || RATE.load(Ordering::Relaxed) == 0);
    }

    #[test]
    fn rates_are_numbers_to_count_with() {
        let now = Instant::now();
        let later = now + Duration::from_millis(20);
        let rate_of = |ticks| rate((now, 1_000), (later, ticks));
        assert_eq!(rate_of(1_000), None, "no tick");
        assert_eq!(rate_of(999), None, "it went back");
        let rate = rate_of(1_000 + 52_000_000).unwrap();
        assert_eq!(to_ns(52_000_000, rate), 19_999_999);
        assert_eq!(to_ns(u64::MAX, u64::MAX), u64::MAX);
    }

    #[test]
    fn the_counter_is_used_only_where_the_kernel_uses_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("current_clocksource");
        assert!(!is_clock_of_kernel(&file), "no such file");
        for (name, expected) in [("tsc\n", true), ("kvm-clock\n", false), ("", false)] {
            std::fs::write(&file, name).unwrap();
            assert_eq!(is_clock_of_kernel(&file), expected, "{name:?}");
        }
    }
}
