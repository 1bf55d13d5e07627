//! `RateLimit-Limit` and `RateLimit-Remaining` as Docker Hub and its imitators send them.
//!
//! `100;w=21600`: 100 requests in 21,600 seconds (draft-ietf-httpapi-ratelimit-headers-05, whose
//! list of further policies is left unread: the first is the one that counts now).

use std::time::Duration;

use hyper::HeaderMap;

/// Longest window that is believed: 30 days.
const WINDOW_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Window of a limit that names none: Docker Hub's of six hours.
const WINDOW: Duration = Duration::from_secs(6 * 60 * 60);
/// Largest limit that is believed; more is as good as none.
const LIMIT_MAX: u64 = 1_000_000_000;

/// What an answer says of the login's rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RateLimit {
    /// Requests in a window; at least 1.
    pub(super) limit: u64,
    /// How many are left.
    pub(super) remaining: u64,
    /// At least a second.
    pub(super) window: Duration,
}

impl RateLimit {
    /// Both fields, if they are there and make sense.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let (limit, window) = field(headers, "ratelimit-limit")?;
        let (remaining, _) = field(headers, "ratelimit-remaining")?;
        let window = window.unwrap_or(WINDOW).min(WINDOW_MAX);
        let is_sound = (1..=LIMIT_MAX).contains(&limit) && window >= Duration::from_secs(1);
        is_sound.then_some(Self { limit, remaining, window })
    }
}

/// The number, and the parameter `w` in seconds.
fn field(headers: &HeaderMap, name: &str) -> Option<(u64, Option<Duration>)> {
    let text = headers.get(name)?.to_str().ok()?;
    let first = text.split(',').next().unwrap_or_default();
    let mut parts = first.split(';').map(str::trim);
    let number = parts.next()?.parse().ok()?;
    let window = parts.find_map(|part| part.strip_prefix("w=")?.parse().ok());
    Some((number, window.map(Duration::from_secs)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_registries_send_is_read_and_nonsense_is_not() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let some = |limit, remaining, window| Some(RateLimit { limit, remaining, window });
        for (limit, remaining, expected) in [
            ("100;w=21600", "76;w=21600", some(100, 76, hours(6))),
            ("200", "0", some(200, 0, hours(6))),
            ("100; w=3600", "99", some(100, 99, hours(1))),
            ("10, 100;w=3600", "3", some(10, 3, hours(6))),
            ("100;w=99999999999", "3", some(100, 3, WINDOW_MAX)),
            ("100;w=x", "3", some(100, 3, hours(6))),
            ("0;w=3600", "0", None),
            ("100;w=0", "3", None),
            ("-1", "3", None),
            ("100", "", None),
            ("99999999999999999999", "3", None),
            ("9999999999", "3", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("ratelimit-limit", limit.parse().unwrap());
            headers.insert("ratelimit-remaining", remaining.parse().unwrap());
            assert_eq!(RateLimit::read(&headers), expected, "{limit} {remaining}");
        }
        assert_eq!(RateLimit::read(&HeaderMap::new()), None);
    }
}
