//! The unit of a metric, by the end of its name, and numbers as people read them.

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    BytesPerSecond,
    PerSecond,
    MillisPerGib,
    Bytes,
    Micros,
    Millis,
    Seconds,
    Percent,
    Count,
}

/// The unit that stands at the end of a metric's name. A name that ends in none is a count.
pub(crate) fn unit(metric: &str) -> Unit {
    let per = metric.split_once("_per_").map(|(what, _)| what);
    match per {
        Some("bytes") if metric.ends_with("_per_second") => return Unit::BytesPerSecond,
        _ if metric.ends_with("bytes_per_second") => return Unit::BytesPerSecond,
        _ if metric.ends_with("_per_second") => return Unit::PerSecond,
        _ if metric.ends_with("ms_per_gib") => return Unit::MillisPerGib,
        _ => {}
    }
    let counted = per.unwrap_or(metric);
    match counted.rsplit('_').next().unwrap_or(counted) {
        "bytes" => Unit::Bytes,
        "us" => Unit::Micros,
        "ms" => Unit::Millis,
        "seconds" => Unit::Seconds,
        "percent" => Unit::Percent,
        _ => Unit::Count,
    }
}

/// A metric's name in words, without its unit: `latency_p99_us` is "latency p99".
pub(crate) fn title(metric: &str) -> String {
    match metric {
        "bytes_per_second" => return "throughput".to_owned(),
        "requests_per_second" => return "requests a second".to_owned(),
        "cpu_us_per_request" => return "server CPU a request".to_owned(),
        "cpu_ms_per_gib" => return "server CPU a GiB".to_owned(),
        "rss_peak_bytes" => return "server memory, peak".to_owned(),
        _ => {}
    }
    if let Some(of) = metric.strip_suffix("_bytes_per_second") {
        return format!("{} throughput", of.replace('_', " "));
    }
    let (what, per) = metric.split_once("_per_").map_or((metric, None), |(w, p)| (w, Some(p)));
    let name = match what.rsplit_once('_') {
        Some((rest, "us" | "ms" | "seconds" | "bytes" | "percent")) => rest,
        _ => what,
    };
    let name = name.replace('_', " ");
    per.map_or(name.clone(), |per| format!("{name} per {}", per.replace('_', " ")))
}

/// A value with its unit, to three digits: `9.81 GB/s`, `7.04 µs`, `36.2 MiB`.
pub(crate) fn shown(metric: &str, value: f64) -> String {
    let steps: &[(f64, &str)] = match unit(metric) {
        Unit::BytesPerSecond => &[(1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s"), (1.0, "B/s")],
        Unit::PerSecond => &[(1.0, "/s")],
        Unit::MillisPerGib => &[(1.0, "ms/GiB")],
        Unit::Bytes => {
            &[(1_073_741_824.0, "GiB"), (1_048_576.0, "MiB"), (1024.0, "KiB"), (1.0, "B")]
        }
        Unit::Micros => &[(1e6, "s"), (1e3, "ms"), (1.0, "µs")],
        Unit::Millis => &[(1e3, "s"), (1.0, "ms"), (1e-3, "µs")],
        Unit::Seconds => &[(1.0, "s"), (1e-3, "ms"), (1e-6, "µs")],
        Unit::Percent => &[(1.0, "%")],
        Unit::Count => &[(1.0, "")],
    };
    let size = value.abs();
    let step = steps.iter().find(|(one, _)| size >= *one).or(steps.last());
    let (one, name) = step.copied().unwrap_or((1.0, ""));
    let digits = digits(value / one);
    if name.is_empty() || name == "/s" { digits + name } else { format!("{digits} {name}") }
}

/// A number to three digits, thousands set apart: `0.0712`, `7.04`, `118`, `141 312`.
pub(crate) fn digits(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    // The steps are a hair early: 9.997 is 10.0, not 10.00.
    match value.abs() {
        size if size >= 999.5 => thousands(value),
        size if size >= 99.95 || size == 0.0 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.9995 => format!("{value:.2}"),
        size if size >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

/// A whole number with a thin space before every third digit.
fn thousands(value: f64) -> String {
    let plain = format!("{value:.0}");
    let (sign, number) = plain.strip_prefix('-').map_or(("", plain.as_str()), |rest| ("-", rest));
    let mut text = sign.to_owned();
    for (at, digit) in number.chars().enumerate() {
        if at > 0 && (number.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_unit_of_their_name() {
        let cases = [
            ("bytes_per_second", 9.8123e9, "9.81 GB/s"),
            ("stream_bytes_per_second", 2.0e6, "2.00 MB/s"),
            ("requests_per_second", 141_312.4, "141\u{202f}312/s"),
            ("cpu_us_per_request", 7.041, "7.04 µs"),
            ("latency_p99_us", 25_900.0, "25.9 ms"),
            ("cpu_ms_per_gib", 118.2, "118 ms/GiB"),
            ("rss_peak_bytes", 37_958_451.0, "36.2 MiB"),
            ("bytes_per_connection", 7_900.0, "7.71 KiB"),
            ("client_busy_percent", 97.3, "97.3 %"),
            ("total_seconds", 0.25, "250 ms"),
            ("upstream_gets", 1.0, "1.00"),
            ("cpu_us_per_request", f64::NAN, "–"),
        ];
        for (metric, value, text) in cases {
            assert_eq!(shown(metric, value), if text == "–" { "– µs" } else { text }, "{metric}");
        }
    }

    #[test]
    fn numbers_have_three_digits() {
        let cases = [
            (0.0, "0"),
            (0.0712, "0.0712"),
            (0.9996, "1.00"),
            (9.994, "9.99"),
            (9.997, "10.0"),
            (99.96, "100"),
            (999.6, "1\u{202f}000"),
            (-1_234_567.0, "-1\u{202f}234\u{202f}567"),
        ];
        for (value, text) in cases {
            assert_eq!(digits(value), text);
        }
    }

    #[test]
    fn titles_leave_the_unit_out() {
        assert_eq!(title("latency_p99_us"), "latency p99");
        assert_eq!(title("bytes_per_second"), "throughput");
        assert_eq!(title("stream_bytes_per_second"), "stream throughput");
        assert_eq!(title("upstream_gets"), "upstream gets");
        assert_eq!(title("bytes_per_connection"), "bytes per connection");
        assert_eq!(title("rss_bytes_per_connection"), "rss per connection");
        assert_eq!(title("cpu_us_per_image"), "cpu per image");
        assert_eq!(title("pulls_per_second"), "pulls per second");
    }
}
