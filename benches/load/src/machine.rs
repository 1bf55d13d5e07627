//! The machine: its cores, what it is, and what `/proc` tells of processes and of memory.
//!
//! **Invariant:** nothing here changes what another process does, but for pages that are dropped
//! from memory on purpose.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::Advice;
use rustix::process::Pid;
use rustix::thread::CpuSet;

use crate::record::Machine;

/// What this machine is.
pub(crate) fn facts(network: String) -> Machine {
    let cpu = field("/proc/cpuinfo", "model name").unwrap_or_default();
    let memory = field("/proc/meminfo", "MemTotal").and_then(|kib| kib_of(&kib));
    let name = rustix::system::uname();
    let kernel =
        format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy());
    // All there are, not those that this process has pinned itself to.
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cores = cpus.lines().filter(|line| line.starts_with("processor")).count();
    Machine { cpu, cores, kernel, memory_bytes: memory.unwrap_or(0), network }
}

/// The cores this process may use, in their order.
pub(crate) fn allowed_cores() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return vec![0] };
    (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
}

/// Pins the thread that calls, and what it starts later.
///
/// # Errors
/// Which cores were refused, and why.
pub(crate) fn pin(cores: &[usize]) -> Result<(), String> {
    let mut set = CpuSet::new();
    for &core in cores.iter().filter(|core| **core < CpuSet::MAX_CPU) {
        set.set(core);
    }
    rustix::thread::sched_setaffinity(None, &set)
        .map_err(|e| format!("pinning to cores {cores:?}: {e}: name cores that this process has"))
}

/// Puts the thread that calls before all others of its core, also those that are preferred (what
/// watches over a machine often is): whether that was allowed.
pub(crate) fn hurry() -> bool {
    let thread = rustix::thread::gettid();
    let id = thread.as_raw_nonzero().to_string();
    // There is no safe call for it; util-linux is everywhere.
    let mut chrt = Command::new("chrt");
    chrt.args(["--fifo", "--pid", "10", &id]).stdout(Stdio::null()).stderr(Stdio::null());
    chrt.status().is_ok_and(|status| status.success())
        || rustix::process::setpriority_process(Some(thread), -15).is_ok()
}

/// The CPU time the calling thread has had.
pub(crate) fn own_thread_cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// What a process and its children have used since they began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    /// Of each thread.
    threads: BTreeMap<u32, Duration>,
    /// Of all threads, ended ones too, in ticks.
    ticked: Duration,
    /// The most memory each had, added up.
    pub(crate) rss_peak_bytes: u64,
    /// The memory each has now, added up.
    pub(crate) rss_bytes: u64,
    /// How often a thread waited for something.
    pub(crate) waits: u64,
}

impl Usage {
    /// Of that process and its children; all zero when it is gone or nobody's.
    pub(crate) fn of(root: Option<u32>) -> Usage {
        let mut usage = Usage::default();
        for process in root.map(family).unwrap_or_default() {
            usage.add(process);
        }
        usage
    }

    fn add(&mut self, process: u32) {
        let folder = format!("/proc/{process}");
        let status = fs::read_to_string(format!("{folder}/status")).unwrap_or_default();
        let kib = |name: &str| field_of(&status, name).and_then(|v| kib_of(&v)).unwrap_or(0);
        self.rss_peak_bytes += kib("VmHWM");
        self.rss_bytes += kib("VmRSS");
        self.ticked += ticks(&folder).unwrap_or_default();
        for thread in numbers(&format!("{folder}/task")) {
            let own = format!("{folder}/task/{thread}");
            if let Some(ran) = scheduled(&own) {
                self.threads.insert(thread, ran);
            }
            let status = fs::read_to_string(format!("{own}/status")).unwrap_or_default();
            let waits = field_of(&status, "voluntary_ctxt_switches");
            self.waits += waits.and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
        }
    }

    /// CPU time between the two. The scheduler's own figures are exact but lack threads that ended
    /// in between; the process's own have them, in ticks: when the two disagree, those count.
    pub(crate) fn cpu_since(&self, before: &Usage) -> Duration {
        let exact: Duration = self.threads_since(before).into_iter().sum();
        let ticked = self.ticked.saturating_sub(before.ticked);
        if ticked > exact + Duration::from_millis(40) || exact.is_zero() { ticked } else { exact }
    }

    /// CPU time of each thread between the two, the busiest first.
    pub(crate) fn threads_since(&self, before: &Usage) -> Vec<Duration> {
        let mut each: Vec<Duration> = self
            .threads
            .iter()
            .map(|(thread, ran)| {
                ran.saturating_sub(before.threads.get(thread).copied().unwrap_or_default())
            })
            .collect();
        each.sort_unstable_by(|a, b| b.cmp(a));
        each
    }
}

/// The process and all that came from it.
pub(crate) fn family(root: u32) -> Vec<u32> {
    let mut all = vec![root];
    let mut at = 0;
    while let Some(&process) = all.get(at) {
        at += 1;
        for thread in numbers(&format!("/proc/{process}/task")) {
            let path = format!("/proc/{process}/task/{thread}/children");
            let children = fs::read_to_string(path).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    all
}

/// How many files and sockets a process and its children have open.
pub(crate) fn open_files(root: u32) -> usize {
    let of = |process: &u32| numbers(&format!("/proc/{process}/fd")).len();
    family(root).iter().map(of).sum()
}

/// How many files this process may have open.
pub(crate) fn open_files_max() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// A number of a process, as rustix wants it.
pub(crate) fn pid(number: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(number).ok()?)
}

/// Time that cores were busy, and stolen by the machine's host.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cores {
    busy: Duration,
    stolen: Duration,
}

impl Cores {
    /// Of these cores, since the machine's start.
    pub(crate) fn now(cores: &[usize]) -> Cores {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let mut found = Cores::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let core = words.next().and_then(|name| name.strip_prefix("cpu"));
            let core = core.and_then(|number| number.parse::<usize>().ok());
            if !core.is_some_and(|core| cores.contains(&core)) {
                continue;
            }
            let ticks: Vec<u64> = words.map(|word| word.parse().unwrap_or(0)).collect();
            let at = |n: usize| ticks.get(n).copied().unwrap_or(0);
            // user, nice, system, irq, softirq
            found.busy += ticks_as_time(at(0) + at(1) + at(2) + at(5) + at(6));
            found.stolen += ticks_as_time(at(7));
        }
        found
    }

    /// Busy and stolen time since `before`.
    pub(crate) fn since(&self, before: &Cores) -> (Duration, Duration) {
        (self.busy.saturating_sub(before.busy), self.stolen.saturating_sub(before.stolen))
    }
}

/// Bytes that came from disks since the machine's start, whoever asked for them.
pub(crate) fn disk_read_bytes() -> u64 {
    let text = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let kib = text.lines().find_map(|line| line.strip_prefix("pgpgin "));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Drops the pages of all files below a folder. What is dirty cannot be dropped, so it is written
/// first.
///
/// # Errors
/// The file system's.
pub(crate) fn drop_pages(folder: &Path) -> io::Result<()> {
    rustix::fs::sync();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let file = File::open(entry.path())?;
                rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
            }
        }
    }
    Ok(())
}

/// Whether files there lie in memory anyway.
pub(crate) fn is_in_memory(folder: &Path) -> bool {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    rustix::fs::statfs(folder).is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(TMPFS_MAGIC))
}

/// Raises the limit of open files as far as it goes.
pub(crate) fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // What cannot be raised shows when something cannot be opened.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn scheduled(task: &str) -> Option<Duration> {
    let text = fs::read_to_string(format!("{task}/schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

fn ticks(process: &str) -> Option<Duration> {
    let text = fs::read_to_string(format!("{process}/stat")).ok()?;
    let after_name = text.rsplit_once(')')?.1;
    let used = after_name.split_whitespace().skip(11).take(2);
    let ticks: u64 = used.map(|word| word.parse().unwrap_or(0)).sum();
    Some(ticks_as_time(ticks))
}

fn ticks_as_time(ticks: u64) -> Duration {
    let second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_nanos(ticks.saturating_mul(1_000_000_000 / second))
}

fn numbers(folder: &str) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn field(path: &str, name: &str) -> Option<String> {
    field_of(&fs::read_to_string(path).ok()?, name)
}

fn field_of(text: &str, name: &str) -> Option<String> {
    let value = |line: &str| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim().to_owned())
    };
    text.lines().find_map(value)
}

fn kib_of(text: &str) -> Option<u64> {
    Some(text.strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_its_own_work() {
        let own = Some(std::process::id());
        let (before, began) = (Usage::of(own), own_thread_cpu());
        let mut sum = 0_u64;
        // Work is counted, not time: somebody else may have the core.
        while own_thread_cpu().saturating_sub(began) < Duration::from_millis(60) {
            sum = std::hint::black_box(sum.wrapping_mul(31) + 1);
        }
        let after = Usage::of(own);
        assert!(after.cpu_since(&before) > Duration::from_millis(30), "{:?}", after.threads);
        assert!(after.rss_bytes > 0 && after.rss_peak_bytes >= after.rss_bytes);
        assert!(family(std::process::id()).contains(&std::process::id()));
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "VmHWM:\t  12 kB\nnonvoluntary_ctxt_switches:\t5\nvoluntary_ctxt_switches:\t3\n";
        assert_eq!(field_of(text, "VmHWM").and_then(|v| kib_of(&v)), Some(12 * 1024));
        assert_eq!(field_of(text, "voluntary_ctxt_switches").as_deref(), Some("3"));
    }
}
