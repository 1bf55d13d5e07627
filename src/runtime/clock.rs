//! The two clocks: wall time in whole seconds for what is stored and sent, monotonic time for
//! everything that is measured or waited for.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01 UTC. A clock set before 1970 reads as 0 instead of failing.
pub fn unix_seconds() -> u64 {
    unix_time().as_secs()
}

/// Time since 1970-01-01 UTC with the clock's own resolution; 0 when the clock is set before 1970.
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

/// The monotonic clock.
pub fn now() -> Instant {
    Instant::now()
}
