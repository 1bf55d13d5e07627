//! Byte ranges (RFC 9110 §14): one range, open-ended or suffix; anything else means the whole.

use std::fmt;

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

/// One range of bytes, of a content whose size need not be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// `5-9`, `5-`: from the first to the last one, or to the end.
    From {
        /// Offset of the first byte.
        first: u64,
        /// Offset of the last byte; `None` is the end, whatever it is.
        last: Option<u64>,
    },
    /// `-5`: so many bytes at the end, or all there are.
    Last(u64),
}

impl ByteRange {
    /// Reads a `Range` value. Several ranges, another unit and bad syntax give `None`: they are
    /// ignored, as §14.2 permits.
    pub fn parse(header: &str) -> Option<Self> {
        let (first, last) = single_range(header)?;
        match (number(first), number(last)) {
            (Number::Absent, Number::Is(length)) => Some(Self::Last(length)),
            (Number::Is(first), Number::Absent) => Some(Self::From { first, last: None }),
            (Number::Is(first), Number::Is(last)) => Some(Self::From { first, last: Some(last) }),
            (Number::Absent, Number::Absent) | (Number::Bad, _) | (_, Number::Bad) => None,
        }
    }

    /// What it asks of a content of `size` bytes.
    ///
    /// `bytes=500-0` gives 416, which §14.2 permits and the OCI conformance suite asks for. A
    /// content of no bytes has no range to give: the field is ignored then, so that clients which
    /// send `bytes=0-` with every request (containerd) get their empty blob.
    pub fn within(self, size: u64) -> RangeOutcome {
        let Some(end) = size.checked_sub(1) else { return RangeOutcome::Whole };
        match self {
            Self::Last(length) if length > 0 => {
                RangeOutcome::Partial { first: size.saturating_sub(length), last: end }
            }
            Self::From { first, last } if first <= end && last.is_none_or(|last| first <= last) => {
                RangeOutcome::Partial { first, last: last.map_or(end, |last| last.min(end)) }
            }
            Self::Last(_) | Self::From { .. } => RangeOutcome::Unsatisfiable,
        }
    }

    /// Whether it goes to the end, wherever that is: `5-`.
    pub fn is_open_ended(self) -> bool {
        matches!(self, Self::From { last: None, .. })
    }

    /// Whether some content has such a range.
    pub fn is_sound(self) -> bool {
        match self {
            Self::Last(length) => length > 0,
            Self::From { first, last } => last.is_none_or(|last| first <= last),
        }
    }
}

/// `5-9`, as it follows `bytes=`.
impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From { first, last: Some(last) } => write!(f, "{first}-{last}"),
            Self::From { first, last: None } => write!(f, "{first}-"),
            Self::Last(length) => write!(f, "-{length}"),
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

    fn parse(header: &str, size: u64) -> RangeOutcome {
        ByteRange::parse(header).map_or(Whole, |range| range.within(size))
    }

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
    fn a_range_is_written_as_it_is_read() {
        for (text, is_sound) in
            [("5-9", true), ("5-", true), ("-5", true), ("9-5", false), ("-0", false)]
        {
            let range = ByteRange::parse(&format!("bytes={text}")).expect(text);
            assert_eq!((range.to_string().as_str(), range.is_sound()), (text, is_sound));
        }
    }

    #[test]
    fn content_range_texts() {
        assert_eq!(content_range(500, 1499, 2048), "bytes 500-1499/2048");
        assert_eq!(unsatisfied(2048), "bytes */2048");
    }
}
