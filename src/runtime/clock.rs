//! The two clocks: wall time in whole seconds for what is stored and sent, monotonic time for
//! everything that is measured or waited for.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// For how long a reading of the wall clock serves [`unix_seconds_at`].
const KEPT: Duration = Duration::from_millis(10);

thread_local! {
    /// The last reading for [`unix_seconds_at`], and when it was.
    static READ: Cell<Option<(Instant, u64)>> = const { Cell::new(None) };
}

/// Seconds since 1970-01-01 UTC. A clock set before 1970 reads as 0 instead of failing.
pub fn unix_seconds() -> u64 {
    unix_time().as_secs()
}

/// Time since 1970-01-01 UTC with the clock's own resolution; 0 when the clock is set before 1970.
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

/// The same for who has just read the other clock, which said `now`: up to 10 ms old, so that a busy worker
/// reads one clock for a request and not two.
pub fn unix_seconds_at(now: Instant) -> u64 {
    let is_new = |at: Instant| now.checked_duration_since(at).is_some_and(|age| age < KEPT);
    match READ.get() {
        Some((at, seconds)) if is_new(at) => seconds,
        _ => {
            let seconds = unix_seconds();
            READ.set(Some((now, seconds)));
            seconds
        }
    }
}

/// The monotonic clock.
pub fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_serves_a_moment_and_no_other_time() {
        let now = now();
        let (before, read, after) = (unix_seconds(), unix_seconds_at(now), unix_seconds());
        assert!((before..=after).contains(&read));
        READ.set(Some((now, 7)));
        assert_eq!(unix_seconds_at(now), 7);
        assert_eq!(unix_seconds_at(now + KEPT - Duration::from_nanos(1)), 7);
        assert!(unix_seconds_at(now + KEPT) >= before, "too old");
        READ.set(Some((now + KEPT, 7)));
        assert!(unix_seconds_at(now) >= before, "from later than now");
    }
}
