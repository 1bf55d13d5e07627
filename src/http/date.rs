//! The `Date` of responses (RFC 9110 §6.6.1), formatted at most once a second.

use std::time::{Duration, UNIX_EPOCH};

/// The last second of the year 9999, after which an HTTP date can't be written.
const LAST_SECOND: u64 = 253_402_300_799;

/// Formats `unix_seconds` as an IMF-fixdate, `Sun, 06 Nov 1994 08:49:37 GMT`.
/// A clock beyond the year 9999 yields that year's last second.
pub fn format(unix_seconds: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_seconds.min(LAST_SECOND)))
}

/// Keeps the text of the current second. One per worker; the clock is the caller's.
#[derive(Debug)]
pub struct DateCache {
    second: u64,
    text: String,
}

impl DateCache {
    /// A cache that holds the epoch.
    pub fn new() -> Self {
        Self { second: 0, text: format(0) }
    }

    /// The text for `unix_seconds`, formatted again only when the second is another one.
    pub fn at(&mut self, unix_seconds: u64) -> &str {
        if unix_seconds != self.second {
            self.second = unix_seconds;
            self.text = format(unix_seconds);
        }
        &self.text
    }
}

impl Default for DateCache {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_imf_fixdates_whatever_the_clock_says() {
        let cases = [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (LAST_SECOND, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ];
        let mut cache = DateCache::new();
        for (second, expected) in cases {
            assert_eq!(format(second), expected);
            assert_eq!(cache.at(second), expected);
            assert_eq!(cache.at(second), expected);
        }
        assert_eq!(cache.at(0), cases[0].1, "a clock set back is followed");
    }
}
