//! What a token service answers (distribution's token spec). Pure.

use std::time::Duration;

use serde::Deserialize;

/// The spec's default when `expires_in` is missing or of no use.
const LIFETIME_DEFAULT: Duration = Duration::from_secs(60);
/// No token is trusted to live longer.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest token. Docker Hub's are about 3 KiB.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// A token and how long it lives from now.
pub(super) struct Granted {
    pub(super) token: String,
    pub(super) lifetime: Duration,
}

#[derive(Deserialize)]
struct Reply {
    token: Option<String>,
    access_token: Option<String>,
    /// A number by the spec; some services write other things.
    expires_in: Option<serde_json::Value>,
    issued_at: Option<serde_json::Value>,
}

/// Reads the reply. `now` is in seconds since 1970.
///
/// # Errors
/// What was expected; never any part of the reply.
pub(super) fn parse(body: &[u8], now: u64) -> Result<Granted, &'static str> {
    let reply: Reply =
        serde_json::from_slice(body).map_err(|_| "expected a JSON object with a token")?;
    // `token` and `access_token` are the same by the spec; either may be missing or empty.
    let token = [reply.token, reply.access_token]
        .into_iter()
        .flatten()
        .find(|token| !token.is_empty())
        .ok_or("expected `token` or `access_token` in the reply, found neither")?;
    if token.len() > TOKEN_BYTES_MAX || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("expected a token of at most 16 KiB of printable ASCII");
    }
    let lifetime = reply
        .expires_in
        .and_then(|value| value.as_u64())
        .filter(|&seconds| seconds > 0)
        .map_or(LIFETIME_DEFAULT, Duration::from_secs)
        .min(LIFETIME_MAX);
    let issued = reply.issued_at.as_ref().and_then(|v| v.as_str()).and_then(parse_rfc3339);
    Ok(Granted { token, lifetime: remaining(lifetime, issued, now) })
}

/// What is left of `lifetime` when the token was issued at `issued`. A time from which nothing
/// would be left is a wrong clock on one side rather than a dead token; then the reply counts.
fn remaining(lifetime: Duration, issued: Option<u64>, now: u64) -> Duration {
    let age = Duration::from_secs(issued.map_or(0, |issued| now.saturating_sub(issued)));
    if age < lifetime { lifetime - age } else { lifetime }
}

/// Seconds since 1970 of `2026-01-02T03:04:05[.678]Z` or with `+01:00`.
pub(super) fn parse_rfc3339(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<i64>().ok())?
    };
    let is = |at: usize, any: &[u8]| text.as_bytes().get(at).is_some_and(|b| any.contains(b));
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let shaped = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
    let ranged = (1..=12).contains(&month) && (1..=31).contains(&day);
    if !shaped || !ranged || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let zone = text.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let at = text.len() - zone.len();
            let sign = if is(at, b"+") { 1 } else { -1 };
            let shaped = is(at, b"+-") && is(at + 3, b":") && zone.len() == 6;
            let seconds = number(at + 1..at + 3)? * 3600 + number(at + 4..at + 6)? * 60;
            shaped.then_some(sign * seconds)?
        }
    };
    let seconds = days_from_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    u64::try_from(seconds - offset).ok()
}

/// Days from 1970-01-01 in the Gregorian calendar: years begin in March, so that the leap day is
/// the last of its year.
fn days_from_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days_before_month = (153 * month + 2) / 5;
    year * 365 + year / 4 - year / 100 + year / 400 + days_before_month + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read() {
        let cases = [
            (r#"{"token":"a"}"#, "a", 60),
            (r#"{"access_token":"b","expires_in":300}"#, "b", 300),
            (r#"{"token":"a","access_token":"b","expires_in":5}"#, "a", 5),
            (r#"{"token":"","access_token":"b"}"#, "b", 60),
            (r#"{"token":null,"access_token":"b","extra":[1]}"#, "b", 60),
            (r#"{"token":"a","expires_in":0}"#, "a", 60),
            (r#"{"token":"a","expires_in":-1}"#, "a", 60),
            (r#"{"token":"a","expires_in":"300"}"#, "a", 60),
            (r#"{"token":"a","expires_in":1e99}"#, "a", 60),
            (r#"{"token":"a","expires_in":99999999999}"#, "a", 86_400),
            (r#"{"token":"a","expires_in":300,"issued_at":"1970-01-01T00:16:00Z"}"#, "a", 260),
            (r#"{"token":"a","expires_in":300,"issued_at":"1970-01-01T00:20:00Z"}"#, "a", 300),
            (r#"{"token":"a","expires_in":300,"issued_at":"1970-01-01T00:00:00Z"}"#, "a", 300),
            (r#"{"token":"a","expires_in":300,"issued_at":"yesterday"}"#, "a", 300),
            (r#"{"token":"a","expires_in":300,"issued_at":7}"#, "a", 300),
        ];
        for (body, token, seconds) in cases {
            let granted = parse(body.as_bytes(), 1000).expect(body);
            assert_eq!((granted.token.as_str(), granted.lifetime.as_secs()), (token, seconds));
        }
    }

    #[test]
    fn what_is_no_token_is_refused_without_showing_it() {
        let long = format!(r#"{{"token":"{}"}}"#, "x".repeat(TOKEN_BYTES_MAX + 1));
        let cases = [
            "",
            "<html>",
            "[]",
            "{}",
            "\"canary\"",
            r#"{"token":""}"#,
            r#"{"token":7}"#,
            r#"{"token":"can ary"}"#,
            r#"{"token":"can\r\nary"}"#,
            r#"{"token":"canary\u00e9"}"#,
            long.as_str(),
        ];
        for body in cases {
            let error = parse(body.as_bytes(), 1000).err().expect(body);
            assert!(!error.contains("can"), "{error}");
        }
    }

    #[test]
    fn times_are_read() {
        let cases = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:00Z", Some(951_825_600)),
            ("2026-11-21T11:36:00.123456789Z", Some(1_795_260_960)),
            ("2026-11-21T12:36:00+01:00", Some(1_795_260_960)),
            ("2026-11-21t10:06:00.5-01:30", Some(1_795_260_960)),
            ("1969-12-31T23:59:59Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-11-21T24:00:00Z", None),
            ("2026-11-21T11:36:00", None),
            ("2026-11-21T11:36:00+1:00", None),
            ("2026-11-21", None),
            ("+026-11-21T11:36:00Z", None),
            ("\u{e9}026-11-21T11:36:00Z", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_rfc3339(text), expected, "{text}");
        }
    }
}
