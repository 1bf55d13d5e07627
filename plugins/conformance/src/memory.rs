//! What this process holds, to see whether it grows.

/// Memory and descriptors at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Bytes that `malloc` has given out, where that can be asked.
    pub(crate) heap: usize,
    /// Bytes in memory, those of other allocators included.
    pub(crate) resident: usize,
    pub(crate) descriptors: usize,
}

impl Held {
    pub(crate) fn now() -> Held {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = statm.split_whitespace().nth(1).and_then(|text| text.parse().ok());
        let descriptors = std::fs::read_dir("/proc/self/fd").map(Iterator::count);
        Held {
            heap: heap_bytes(),
            // Pages of another size than 4 KiB make the figure too small, never a false alarm.
            resident: pages.unwrap_or(0_usize).saturating_mul(4096),
            descriptors: descriptors.unwrap_or(0),
        }
    }
}

#[cfg(target_env = "gnu")]
fn heap_bytes() -> usize {
    // SAFETY: it takes no arguments and only reads malloc's own counters, under malloc's locks.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks.saturating_add(info.hblkhd)
}

/// Other C libraries don't tell; what is resident has to do.
#[cfg(not(target_env = "gnu"))]
fn heap_bytes() -> usize {
    0
}

/// How often this thread has given up the processor by itself: to sleep, to wait for a lock or for
/// I/O. Being pushed off it by others does not count, so a busy machine does not show here.
pub(crate) fn voluntary_switches() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}
