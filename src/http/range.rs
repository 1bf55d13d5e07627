//! Byte ranges (RFC 9110 §14): one range, open-ended or suffix; anything else means the whole.

/// What a `Range` field asks of a content of known size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeOutcome {
    /// The field is to be ignored: answer 200 with everything.
    Whole,
    /// Answer 206 with these bytes, both ends included; `first <= last < size`.
    Partial {
        /// Offset of the first byte.
        first: u64,
        /// Offset of the last byte.
        last: u64,
    },
    /// Answer 416 with [`unsatisfied`] as `Content-Range`.
    Unsatisfiable,
}

/// Reads `header` (a `Range` value) against a content of `size` bytes.
///
/// Several ranges, another unit and bad syntax are ignored, as §14.2 permits. `bytes=500-0` gives
/// 416, which §14.2 permits as well and the OCI conformance suite asks for. A content of no bytes
/// has no range to give: the field is ignored then, so that clients which send `bytes=0-` with
/// every request (containerd) get their empty blob.
pub fn parse(header: &str, size: u64) -> RangeOutcome {
    let Some((first, last)) = single_range(header) else { return RangeOutcome::Whole };
    let Some(end) = size.checked_sub(1) else { return RangeOutcome::Whole };
    match (number(first), number(last)) {
        // `-500`: the last 500 bytes, or all there are.
        (Number::Absent, Number::Is(0)) => RangeOutcome::Unsatisfiable,
        (Number::Absent, Number::Is(length)) => {
            RangeOutcome::Partial { first: size.saturating_sub(length), last: end }
        }
        (Number::Is(first), Number::Absent) if first <= end => {
            RangeOutcome::Partial { first, last: end }
        }
        (Number::Is(first), Number::Is(last)) if first <= end && first <= last => {
            RangeOutcome::Partial { first, last: last.min(end) }
        }
        (Number::Is(_), Number::Absent | Number::Is(_)) => RangeOutcome::Unsatisfiable,
        (Number::Absent, Number::Absent) | (Number::Bad, _) | (_, Number::Bad) => {
            RangeOutcome::Whole
        }
    }
}

/// The `Content-Range` of a 206.
pub fn content_range(first: u64, last: u64, size: u64) -> String {
    format!("bytes {first}-{last}/{size}")
}

/// The `Content-Range` of a 416.
pub fn unsatisfied(size: u64) -> String {
    format!("bytes */{size}")
}

/// The two sides of the hyphen, if there is exactly one range in bytes.
fn single_range(header: &str) -> Option<(&str, &str)> {
    let (unit, ranges) = header.trim_matches([' ', '\t']).split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") || ranges.contains(',') {
        return None;
    }
    ranges.trim_matches([' ', '\t']).split_once('-')
}

enum Number {
    Absent,
    Is(u64),
    Bad,
}

/// Digits only; what is too large for a `u64` is beyond the end of any content.
fn number(text: &str) -> Number {
    if text.is_empty() {
        Number::Absent
    } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
        Number::Is(text.parse().unwrap_or(u64::MAX))
    } else {
        Number::Bad
    }
}

#[cfg(test)]
mod tests {
    use super::RangeOutcome::{Partial, Unsatisfiable, Whole};
    use super::*;

    #[test]
    fn ranges_of_2048_bytes() {
        let cases = [
            ("bytes=500-1499", Partial { first: 500, last: 1499 }),
            ("bytes=500-", Partial { first: 500, last: 2047 }),
            ("bytes=-500", Partial { first: 1548, last: 2047 }),
            ("bytes=2000-5000", Partial { first: 2000, last: 2047 }),
            ("bytes=0-", Partial { first: 0, last: 2047 }),
            ("bytes=0-0", Partial { first: 0, last: 0 }),
            ("bytes=2047-", Partial { first: 2047, last: 2047 }),
            ("bytes=2047-2047", Partial { first: 2047, last: 2047 }),
            ("bytes=-1", Partial { first: 2047, last: 2047 }),
            ("bytes=-2048", Partial { first: 0, last: 2047 }),
            ("bytes=-5000", Partial { first: 0, last: 2047 }),
            ("bytes=-99999999999999999999999", Partial { first: 0, last: 2047 }),
            ("bytes=7-99999999999999999999999", Partial { first: 7, last: 2047 }),
            ("bytes=007-010", Partial { first: 7, last: 10 }),
            ("Bytes=1-2", Partial { first: 1, last: 2 }),
            (" bytes= 1-2 ", Partial { first: 1, last: 2 }),
            ("bytes=500-0", Unsatisfiable),
            ("bytes=5000-10000", Unsatisfiable),
            ("bytes=2048-", Unsatisfiable),
            ("bytes=2048-2048", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=99999999999999999999999-", Unsatisfiable),
            ("bytes=0-1,5-6", Whole),
            ("bytes=0-1,", Whole),
            ("bytes=", Whole),
            ("bytes=-", Whole),
            ("bytes=--1", Whole),
            ("bytes=1--2", Whole),
            ("bytes=1-2-3", Whole),
            ("bytes=a-b", Whole),
            ("bytes=+1-2", Whole),
            ("bytes=1 -2", Whole),
            ("bytes=0x1-2", Whole),
            ("bytes=1", Whole),
            ("bytes 1-2", Whole),
            ("items=0-1", Whole),
            ("=0-1", Whole),
            ("", Whole),
        ];
        for (header, expected) in cases {
            assert_eq!(parse(header, 2048), expected, "{header:?}");
        }
    }

    #[test]
    fn sizes_at_the_edges() {
        for header in ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=5-", "bytes=-0", "bytes=1-0"] {
            assert_eq!(parse(header, 0), Whole, "{header}");
        }
        assert_eq!(parse("bytes=0-", 1), Partial { first: 0, last: 0 });
        assert_eq!(parse("bytes=1-", 1), Unsatisfiable);
        let last = u64::MAX - 1;
        assert_eq!(parse("bytes=0-99999999999999999999", u64::MAX), Partial { first: 0, last });
    }

    #[test]
    fn content_range_texts() {
        assert_eq!(content_range(500, 1499, 2048), "bytes 500-1499/2048");
        assert_eq!(unsatisfied(2048), "bytes */2048");
    }
}
