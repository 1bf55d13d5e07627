//! Durations (`"5m"`, `"1h30m"`) and sizes (`"100GiB"`) as people write them.

use std::time::Duration;

/// Longest duration a key may hold: anything above is a typing error, not a wish.
pub(super) const DURATION_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Unit and its length in microseconds, longest first; the order is the one [`format_duration`]
/// tries, and the one in which a composed duration must name its units.
const DURATION_UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

/// Unit and its bytes. The binary units come first so that [`format_size`] prefers them.
const SIZE_UNITS: [(&str, u64); 11] = [
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("PB", 1_000_000_000_000_000),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Reads `"250ms"`, `"5m"`, `"1h30m"`: whole numbers with a unit of d, h, m, s, ms or us, each at
/// most once and longest first. The error says what is wrong, not where.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut rest = text;
    let mut total_us: u64 = 0;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let (number, after) = split_number(rest)?;
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, remaining) = after.split_at(letters);
        let found = DURATION_UNITS.iter().position(|(name, _)| *name == unit);
        let Some(position) = found else {
            return Err(format!("`{unit}` is not one of the units d, h, m, s, ms, us"));
        };
        if position < next_unit {
            return Err("name each unit once, the longest first, as in 1h30m".into());
        }
        next_unit = position + 1;
        let unit_us = DURATION_UNITS.get(position).map_or(1, |(_, us)| *us);
        total_us = number
            .checked_mul(unit_us)
            .and_then(|us| total_us.checked_add(us))
            .ok_or("the number is too large")?;
        rest = remaining;
    }
    let total = Duration::from_micros(total_us);
    match text.is_empty() {
        true => Err("it is empty".into()),
        false if total > DURATION_MAX => Err("at most 3650d is allowed".into()),
        false => Ok(total),
    }
}

/// Writes a duration so that [`parse_duration`] reads the same one (microseconds are the finest).
pub fn format_duration(duration: Duration) -> String {
    let total_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let exact = DURATION_UNITS.iter().find(|(_, us)| total_us > 0 && total_us.is_multiple_of(*us));
    match exact {
        Some((unit, us)) => format!("{}{unit}", total_us / us),
        None => "0s".to_owned(),
    }
}

/// Reads `"100GiB"` (powers of 1024: KiB to PiB), `"100GB"` (powers of 1000: kB to PB), `"512B"`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_number(text)?;
    let found = SIZE_UNITS.iter().find(|(name, _)| *name == unit);
    let Some((_, bytes)) = found else {
        return Err(format!("`{unit}` is not one of the units B, KiB, MiB, GiB, TiB, PiB, kB..PB"));
    };
    number.checked_mul(*bytes).ok_or_else(|| "the number is too large".into())
}

/// Writes a size so that [`parse_size`] reads the same one.
pub fn format_size(size: u64) -> String {
    let exact = SIZE_UNITS.iter().find(|(_, bytes)| size > 0 && size.is_multiple_of(*bytes));
    match exact {
        Some((unit, bytes)) => format!("{}{unit}", size / bytes),
        None => "0B".to_owned(),
    }
}

/// The leading whole number and what follows it.
fn split_number(text: &str) -> Result<(u64, &str), String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    match (number.is_empty(), rest.is_empty()) {
        (true, _) => Err("it must start with a whole number".into()),
        (_, true) => Err("the unit is missing".into()),
        _ => match number.parse() {
            Ok(value) => Ok((value, rest)),
            Err(_) => Err("the number is too large".into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        let cases: [(&str, Option<u64>); 18] = [
            ("0s", Some(0)),
            ("250ms", Some(250)),
            ("5m", Some(300_000)),
            ("1h30m", Some(5_400_000)),
            ("1d12h", Some(129_600_000)),
            ("1m1ms", Some(60_001)),
            ("3650d", Some(315_360_000_000)),
            ("3651d", None),
            ("", None),
            ("5", None),
            ("m", None),
            ("5 m", None),
            ("-5m", None),
            ("1.5h", None),
            ("5M", None),
            ("30m1h", None),
            ("1m1m", None),
            ("99999999999999999999s", None),
        ];
        for (text, expected) in cases {
            let read = parse_duration(text);
            assert_eq!(read.as_ref().ok().map(Duration::as_millis), expected.map(u128::from));
            if let Ok(duration) = read {
                assert_eq!(parse_duration(&format_duration(duration)), Ok(duration), "{text}");
            }
        }
        assert_eq!(format_duration(Duration::from_secs(90)), "90s");
        assert_eq!(format_duration(Duration::from_secs(7200)), "2h");
    }

    #[test]
    fn sizes_are_read_and_written() {
        let cases: [(&str, Option<u64>); 12] = [
            ("0B", Some(0)),
            ("512B", Some(512)),
            ("4KiB", Some(4096)),
            ("100GiB", Some(100 << 30)),
            ("100GB", Some(100_000_000_000)),
            ("1PiB", Some(1 << 50)),
            ("100", None),
            ("100G", None),
            ("GiB", None),
            ("1.5GiB", None),
            ("99999999PiB", None),
            ("100 GiB", None),
        ];
        for (text, expected) in cases {
            let read = parse_size(text);
            assert_eq!(read.as_ref().ok().copied(), expected, "{text}");
            if let Ok(size) = read {
                assert_eq!(parse_size(&format_size(size)), Ok(size), "{text}");
            }
        }
        assert_eq!(format_size(100 << 30), "100GiB");
        assert_eq!(format_size(1_500_000), "1500kB");
    }
}
