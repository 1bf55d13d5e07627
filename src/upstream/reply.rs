//! What a response's head must and must not say. Pure; hyper has parsed it before.

use std::time::{Duration, SystemTime};

use hyper::header::{
    AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderName, RETRY_AFTER,
    TRANSFER_ENCODING,
};
use hyper::{HeaderMap, Version};

use super::message::ContentRange;
use crate::http::ByteRange;
use crate::limits::CONTENT_LENGTH_MAX;

/// Longest wait an upstream can impose on us.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Oldest answer that a cache is believed to give, in seconds: a year. It only has to be more than
/// any `tag_ttl` and `stale_max` together.
const AGE_MAX: u64 = 365 * 24 * 60 * 60;
/// How much of an upstream's text goes into an error.
const SHOWN_BYTES_MAX: usize = 100;

/// Expected and found.
pub(super) type Mismatch = (&'static str, String);

/// The body's length as the head tells it, `None` when it is chunked or runs to the end.
///
/// hyper takes several equal `Content-Length` and ignores one beside `Transfer-Encoding`; both are
/// the stuff of response smuggling and no registry sends them.
pub(super) fn content_length(
    headers: &HeaderMap,
    version: Version,
) -> Result<Option<u64>, Mismatch> {
    let encodings: Vec<_> = headers.get_all(TRANSFER_ENCODING).iter().collect();
    if let [first, others @ ..] = encodings.as_slice() {
        let is_chunked = first.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !is_chunked || !others.is_empty() || version != Version::HTTP_11 {
            return Err(("at most Transfer-Encoding: chunked", shown(headers, &TRANSFER_ENCODING)));
        }
        if headers.contains_key(CONTENT_LENGTH) {
            return Err((
                "Content-Length or Transfer-Encoding",
                format!("both, with length {}", shown(headers, &CONTENT_LENGTH)),
            ));
        }
        return Ok(None);
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    let digits = length.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|text| text.parse::<u64>().ok()) {
        Some(bytes) if bytes <= CONTENT_LENGTH_MAX && lengths.next().is_none() => Ok(Some(bytes)),
        _ => Err(("one Content-Length below 2^53", shown(headers, &CONTENT_LENGTH))),
    }
}

/// Refuses every content coding: decoding would change the bytes, passing it on would too.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), Mismatch> {
    let is_identity = |value: &hyper::header::HeaderValue| {
        value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity")
    };
    match headers.get_all(CONTENT_ENCODING).iter().all(is_identity) {
        true => Ok(()),
        false => Err(("no Content-Encoding", shown(headers, &CONTENT_ENCODING))),
    }
}

/// The `Content-Range` of a 206, if it is what `asked` asks for and fits `length`: from the first
/// byte asked for, to the last one asked for or the end of the whole.
pub(super) fn content_range(
    headers: &HeaderMap,
    asked: Option<ByteRange>,
    length: Option<u64>,
) -> Result<ContentRange, Mismatch> {
    const FITTING: &str = "a Content-Range that fits the range asked for";
    let found = || shown(headers, &CONTENT_RANGE);
    let asked = asked.ok_or(("200, as no range was asked for", "206".to_owned()))?;
    let mut values = headers.get_all(CONTENT_RANGE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err((FITTING, found()));
    };
    let range = value.to_str().ok().and_then(parse_content_range).ok_or((FITTING, found()))?;
    let is_to_end = range.total.is_none_or(|total| range.last + 1 == total);
    let fits = match (asked, range.total) {
        (ByteRange::From { first, last: Some(last) }, total) => {
            let is_cut = total.is_some() && range.last < last && is_to_end;
            range.first == first && (range.last == last || is_cut)
        }
        (ByteRange::From { first, last: None }, _) => range.first == first && is_to_end,
        (ByteRange::Last(length), Some(total)) => {
            range.first == total.saturating_sub(length) && is_to_end
        }
        // Nobody can tell where the last bytes of an unknown number begin.
        (ByteRange::Last(_), None) => false,
    };
    if !fits {
        return Err((FITTING, found()));
    }
    match length {
        Some(bytes) if bytes != range.last - range.first + 1 => Err((
            "a Content-Length equal to that of the Content-Range",
            format!("{bytes} for {}", found()),
        )),
        _ => Ok(range),
    }
}

/// `bytes first-last/total`, RFC 9110 §14.4.
fn parse_content_range(text: &str) -> Option<ContentRange> {
    let number = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u64>().ok().filter(|&n| plain && n <= CONTENT_LENGTH_MAX)
    };
    let (unit, rest) = text.split_once(' ')?;
    let (range, total) = rest.trim_matches(' ').split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let total = if total == "*" { None } else { Some(number(total)?) };
    let is_sound = first <= last && total.is_none_or(|total| last < total);
    (unit.eq_ignore_ascii_case("bytes") && is_sound).then_some(ContentRange { first, last, total })
}

/// `Retry-After` in seconds or as a date, at most a day.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            date.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO)
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// `Age` (RFC 9111 §5.1): for how many seconds the answer has been in caches between us and who
/// vouches for it, at most a year. One that is not a number says nothing.
pub(super) fn age(headers: &HeaderMap) -> u64 {
    let mut ages = headers.get_all(AGE).iter();
    let (Some(age), None) = (ages.next(), ages.next()) else { return 0 };
    let digits = age.to_str().ok().filter(|text| {
        !text.is_empty() && text.len() <= 20 && text.bytes().all(|b| b.is_ascii_digit())
    });
    // More than fits a number is still a number, and a large one.
    digits.map_or(0, |text| text.parse().unwrap_or(u64::MAX)).min(AGE_MAX)
}

/// All values of a header, shortened, with nothing in it that could break a log line.
fn shown(headers: &HeaderMap, name: &HeaderName) -> String {
    let values: Vec<_> = headers
        .get_all(name)
        .iter()
        .map(|value| {
            value.as_bytes().escape_ascii().take(SHOWN_BYTES_MAX).map(char::from).collect()
        })
        .collect::<Vec<String>>();
    match values.is_empty() {
        true => format!("no {name}"),
        false => format!("\"{}\"", values.join("\", \"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, value.parse().expect("a value"));
        }
        map
    }

    #[test]
    fn an_age_is_a_number_or_none() {
        let cases = [
            ("0", 0),
            ("240", 240),
            ("0240", 240),
            ("99999999999999999999", AGE_MAX),
            ("31536001", AGE_MAX),
            ("-1", 0),
            ("+5", 0),
            ("5, 6", 0),
            ("5s", 0),
            ("1.5", 0),
            ("", 0),
            ("000000000000000000000000000007", 0),
        ];
        for (text, seconds) in cases {
            assert_eq!(age(&headers(&[("age", text)])), seconds, "{text}");
        }
        assert_eq!(age(&headers(&[])), 0);
        assert_eq!(age(&headers(&[("age", "7"), ("age", "7")])), 0);
    }

    #[test]
    fn framing_is_strict() {
        const CL: &str = "content-length";
        const TE: &str = "transfer-encoding";
        type Lines<'a> = &'a [(&'static str, &'a str)];
        let cases: [(Lines<'_>, Version, Option<Option<u64>>); 14] = [
            (&[], Version::HTTP_11, Some(None)),
            (&[(CL, "0")], Version::HTTP_11, Some(Some(0))),
            (&[(CL, "12")], Version::HTTP_10, Some(Some(12))),
            (&[(TE, "chunked")], Version::HTTP_11, Some(None)),
            (&[(TE, "Chunked")], Version::HTTP_11, Some(None)),
            (&[(TE, "chunked")], Version::HTTP_10, None),
            (&[(TE, "gzip, chunked")], Version::HTTP_11, None),
            (&[(TE, "chunked"), (TE, "chunked")], Version::HTTP_11, None),
            (&[(TE, "chunked"), (CL, "5")], Version::HTTP_11, None),
            (&[(CL, "5"), (CL, "5")], Version::HTTP_11, None),
            (&[(CL, "5, 5")], Version::HTTP_11, None),
            (&[(CL, "+5")], Version::HTTP_11, None),
            (&[(CL, "")], Version::HTTP_11, None),
            (&[(CL, "18446744073709551615")], Version::HTTP_11, None),
        ];
        for (lines, version, expected) in cases {
            assert_eq!(content_length(&headers(lines), version).ok(), expected, "{lines:?}");
        }
    }

    #[test]
    fn only_identity_passes() {
        let cases = [("identity", true), ("Identity", true), ("gzip", false), ("", false)];
        for (value, passes) in cases {
            let map = headers(&[("content-encoding", value)]);
            assert_eq!(check_encoding(&map).is_ok(), passes, "{value}");
        }
        assert!(check_encoding(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn a_206_answers_what_was_asked() {
        let open = |first| Some(ByteRange::From { first, last: None });
        let closed = |first, last| Some(ByteRange::From { first, last: Some(last) });
        let last = |length| Some(ByteRange::Last(length));
        let cases = [
            (open(5), "bytes 5-9/10", Some(5), true),
            (open(5), "bytes 5-9/*", None, true),
            (open(5), "BYTES 5-9/10", None, true),
            (closed(5, 7), "bytes 5-7/10", Some(3), true),
            (closed(5, 7), "bytes 5-7/*", Some(3), true),
            (closed(5, 70), "bytes 5-9/10", Some(5), true),
            (open(5), "bytes 0-9/10", Some(10), false),
            (open(5), "bytes 6-9/10", None, false),
            (open(5), "bytes 5-8/10", None, false),
            (open(5), "bytes 5-9/10", Some(6), false),
            (open(5), "bytes 5-10/10", None, false),
            (open(5), "bytes 5-4/10", None, false),
            (open(5), "bytes 5-/10", None, false),
            (open(5), "bytes */10", None, false),
            (open(5), "items 5-9/10", None, false),
            (open(5), "5-9/10", None, false),
            (open(5), "bytes +5-9/10", None, false),
            (open(5), "bytes 5-18446744073709551615/*", None, false),
            (closed(5, 7), "bytes 5-8/10", None, false),
            (closed(5, 7), "bytes 5-6/10", None, false),
            (closed(5, 7), "bytes 5-6/*", None, false),
            (None, "bytes 0-9/10", None, false),
            (last(3), "bytes 7-9/10", Some(3), true),
            (last(30), "bytes 0-9/10", Some(10), true),
            (last(3), "bytes 7-9/*", Some(3), false),
            (last(3), "bytes 6-9/10", Some(4), false),
            (last(3), "bytes 7-8/10", Some(2), false),
        ];
        for (asked, value, length, fits) in cases {
            let map = headers(&[("content-range", value)]);
            assert_eq!(content_range(&map, asked, length).is_ok(), fits, "{asked:?} {value}");
        }
        assert!(content_range(&HeaderMap::new(), open(5), None).is_err());
        let twice = headers(&[("content-range", "bytes 5-9/10"); 2]);
        assert!(content_range(&twice, open(5), None).is_err());
    }

    #[test]
    fn retry_after_is_read_and_bounded() {
        let cases = [
            ("0", Some(0)),
            ("120", Some(120)),
            ("99999999999", Some(86_400)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(86_400)),
            ("soon", None),
            ("-1", None),
        ];
        for (value, expected) in cases {
            let wait = retry_after(&headers(&[("retry-after", value)]));
            assert_eq!(wait, expected.map(Duration::from_secs), "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
