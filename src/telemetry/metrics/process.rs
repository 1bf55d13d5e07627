//! The process itself, under the names that every Prometheus dashboard knows.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// `/proc` counts processor time in hundredths of a second on every Linux that is not a museum's:
/// the number is part of the kernel's user interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads `/proc/self` when asked. What can't be read is left out.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let gauge = MetricType::Gauge;
        if let Some(bytes) = resident_bytes() {
            let (name, help) = ("process_resident_memory", "Memory in use");
            encoder
                .encode_descriptor(name, help, Some(&Unit::Bytes), gauge)?
                .encode_gauge(&bytes)?;
        }
        if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
            let open = u64::try_from(descriptors.count()).unwrap_or(u64::MAX);
            let (name, help) = ("process_open_fds", "Open file descriptors");
            encoder.encode_descriptor(name, help, None, gauge)?.encode_gauge(&open)?;
        }
        if let Some(limit) = descriptor_limit() {
            let (name, help) = ("process_max_fds", "Most file descriptors that may be open");
            encoder.encode_descriptor(name, help, None, gauge)?.encode_gauge(&limit)?;
        }
        if let Some(seconds) = processor_seconds() {
            let (name, help) = ("process_cpu", "Processor time used");
            encoder
                .encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, u64>(&seconds, None)?;
        }
        Ok(())
    }
}

/// Now, in seconds since 1970-01-01.
pub(super) fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// `VmRSS:    12345 kB`
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// `Max open files            1024                 524288               files`
fn descriptor_limit() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15 of `/proc/self/stat` (proc_pid_stat(5)); the second field is a name in
/// parentheses that may hold anything, so counting starts behind it.
fn processor_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let user: f64 = times.next()?.parse().ok()?;
    let system: f64 = times.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}
