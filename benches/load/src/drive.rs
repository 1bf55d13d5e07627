//! One measurement: threads of the load generator beside each other, and what the server, the
//! client and the machine used meanwhile.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::scope;
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::client::clock::{Clock, StopOnDrop};
use crate::client::{Ask, Tally, load, paced, tls_load};
use crate::house::Settings;
use crate::machine::{self, Cores, Usage};
use crate::servers::Running;

/// How long it may take until all connections are open.
const OPEN_SECONDS_MAX: f64 = 60.0;
/// Until the server has taken connections that are open here: nobody can see when it has.
const SETTLE_SECONDS: f64 = 0.15;
/// How often it is looked whether the run is to end: a signal only leaves a mark.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is asked of the server, by whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load<'a> {
    /// What the busy connections ask, in turn.
    pub(crate) asks: &'a [Ask],
    /// How many there are.
    pub(crate) connections: usize,
    /// Whether each request is asked once and then it is over; else for `seconds`.
    pub(crate) once: bool,
    /// How long the window is; of a pass over everything, how long it may take.
    pub(crate) seconds: f64,
    /// What is asked beside them, at a rate.
    pub(crate) beside: Option<Beside<'a>>,
    /// The door to go through instead, with a thread for each connection.
    pub(crate) tls: Option<Door<'a>>,
    /// On which the load is made; a thread each.
    pub(crate) client_cores: &'a [usize],
    /// On which the server is.
    pub(crate) server_cores: &'a [usize],
}

impl<'a> Load<'a> {
    /// Connections that ask again as soon as they have an answer, for as long as the settings say.
    pub(crate) fn of(settings: &'a Settings, asks: &'a [Ask], connections: usize) -> Load<'a> {
        Load {
            asks,
            connections,
            once: false,
            seconds: settings.seconds,
            beside: None,
            tls: None,
            client_cores: &settings.client_cores,
            server_cores: &settings.server_cores,
        }
    }

    /// The cores of both, each once: they may be the same.
    fn cores(&self) -> Vec<usize> {
        let mut cores = [self.client_cores, self.server_cores].concat();
        cores.sort_unstable();
        cores.dedup();
        cores
    }
}

/// Requests at a rate, beside the others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beside<'a> {
    /// What is asked, in turn.
    pub(crate) asks: &'a [Ask],
    /// How often.
    pub(crate) per_second: u32,
    /// Over how many connections.
    pub(crate) connections: usize,
}

/// A server's door for TLS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door<'a> {
    /// Where.
    pub(crate) addr: SocketAddr,
    /// Of the client.
    pub(crate) config: &'a Arc<ClientConfig>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Of the window.
    pub(crate) seconds: f64,
    /// Of the busy connections.
    pub(crate) bulk: Tally,
    /// Of those beside them.
    pub(crate) beside: Option<Tally>,
    /// CPU time of the server; nothing where it cannot be seen.
    pub(crate) server_cpu: Option<Duration>,
    /// Of each of its threads, the busiest first.
    pub(crate) server_threads: Vec<Duration>,
    /// How often its threads waited.
    pub(crate) server_waits: u64,
    /// The most memory it had since it began.
    pub(crate) rss_peak_bytes: u64,
    /// What came from disks, whoever asked.
    pub(crate) disk_read_bytes: u64,
    /// Time that the cores of both were busy for others, and stolen from the machine.
    others: Duration,
    stolen: Duration,
    /// Whether the probe was allowed to go first on its core.
    pub(crate) hurried: bool,
    client_cores: usize,
    server_cores: usize,
    all_cores: usize,
}

/// What is read before the window and after it.
struct Seen {
    at: Instant,
    usage: Usage,
    cores: Cores,
    disk_read_bytes: u64,
}

impl Seen {
    fn now(running: &Running, load: &Load<'_>) -> Seen {
        Seen {
            usage: Usage::of(running.id()),
            cores: Cores::now(&load.cores()),
            disk_read_bytes: machine::disk_read_bytes(),
            at: Instant::now(),
        }
    }
}

/// Loads a server and counts.
///
/// # Errors
/// What could not be set up; an interruption. Wrong answers are in the tallies.
pub(crate) fn drive(
    running: &Running,
    load: &Load<'_>,
    interrupted: &AtomicBool,
) -> Result<Measured, String> {
    let clock = Clock::default();
    let next = AtomicUsize::new(0);
    let is_apart = load.client_cores.iter().all(|core| !load.server_cores.contains(core));
    // Beside a probe only if that goes first all the same.
    let spins = AtomicBool::new(is_apart && load.beside.is_none());
    let threads = match load.tls {
        Some(_) => load.connections,
        None => load.client_cores.len().min(load.connections),
    };
    scope(|scope| {
        let stop = StopOnDrop(&clock);
        let (clock, next, spins) = (&clock, &next, &spins);
        // Nothing is sent: those who hang up are what is waited for.
        let ((opening, all_open), (working, all_done)) = (channel(), channel());
        let mut bulk = Vec::new();
        for thread in 0..threads {
            let share = load.connections / threads;
            let more = usize::from(thread < load.connections % threads);
            let work = load::Work {
                addr: running.addr,
                asks: load.asks,
                connections: share + more,
                once: load.once.then_some(next),
                spins,
                seed: thread as u64 * 7919,
            };
            let secure = load.tls.map(|Door { addr, config }| tls_load::Work {
                addr,
                config,
                asks: load.asks,
                number: thread,
            });
            let core = load.client_cores.get(thread % load.client_cores.len().max(1)).copied();
            let (opening, working) = (opening.clone(), working.clone());
            bulk.push(scope.spawn(move || {
                let _until_its_end = working;
                core.map_or(Ok(()), |core| machine::pin(&[core]))?;
                match secure {
                    Some(work) => tls_load::run(work, clock, opening),
                    None => load::run(work, clock, opening),
                }
            }));
        }
        drop(opening);
        // With no busy connections at all, only time ends a measurement.
        let _nobody_else = (threads == 0).then_some(working);
        let beside = load.beside.map(|beside| {
            let pace = paced::Pace {
                addr: running.addr,
                asks: beside.asks,
                per_second: beside.per_second,
                connections: beside.connections,
            };
            let core = load.client_cores.last().copied();
            scope.spawn(move || {
                core.map_or(Ok(()), |core| machine::pin(&[core]))?;
                let hurried = machine::hurry();
                spins.store(is_apart && hurried, Ordering::Relaxed);
                paced::run(pace, clock).map(|tally| (tally, hurried))
            })
        });
        if !wait(OPEN_SECONDS_MAX, &all_open, interrupted)? {
            let (name, addr) = (&running.name, running.addr);
            let count = load.connections;
            return Err(format!(
                "{name}: {count} connections to {addr} were not open after {OPEN_SECONDS_MAX} s"
            ));
        }
        let warming = if load.once { 0.0 } else { load.seconds / 4.0 };
        wait(warming.max(SETTLE_SECONDS), &all_done, interrupted)?;
        let before = Seen::now(running, load);
        clock.open();
        wait(load.seconds, &all_done, interrupted)?;
        let after = Seen::now(running, load);
        drop(stop);
        let mut total = Tally::new()?;
        for thread in bulk {
            total.add(thread.join().map_err(|_| "a thread of the client panicked")??);
        }
        let beside = match beside {
            Some(thread) => Some(thread.join().map_err(|_| "the probe of the client panicked")??),
            None => None,
        };
        Ok(Measured::of(running, load, &before, &after, total, beside))
    })
}

/// Waits until all who hold the other side have hung up, or so many seconds are over; whether they
/// have.
fn wait(seconds: f64, on: &Receiver<()>, interrupted: &AtomicBool) -> Result<bool, String> {
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    loop {
        if interrupted.load(Ordering::Relaxed) {
            return Err("interrupted".to_owned());
        }
        let left = until.saturating_duration_since(Instant::now());
        match on.recv_timeout(left.min(LOOK_EVERY)) {
            Err(RecvTimeoutError::Disconnected) => return Ok(true),
            Err(RecvTimeoutError::Timeout) if left.is_zero() => return Ok(false),
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

impl Measured {
    fn of(
        running: &Running,
        load: &Load<'_>,
        before: &Seen,
        after: &Seen,
        bulk: Tally,
        beside: Option<(Tally, bool)>,
    ) -> Measured {
        let (beside, hurried) = match beside {
            Some((tally, hurried)) => (Some(tally), hurried),
            None => (None, false),
        };
        let server = after.usage.cpu_since(&before.usage);
        let client = bulk.occupied() + beside.as_ref().map_or(Duration::ZERO, Tally::occupied);
        let (busy, stolen) = after.cores.since(&before.cores);
        Measured {
            seconds: (after.at - before.at).as_secs_f64(),
            server_cpu: running.id().map(|_| server),
            server_threads: after.usage.threads_since(&before.usage),
            server_waits: after.usage.waits.saturating_sub(before.usage.waits),
            rss_peak_bytes: after.usage.rss_peak_bytes,
            disk_read_bytes: after.disk_read_bytes.saturating_sub(before.disk_read_bytes),
            others: busy.saturating_sub(server + client),
            stolen,
            hurried,
            bulk,
            beside,
            client_cores: load.client_cores.len().max(1),
            server_cores: load.server_cores.len().max(1),
            all_cores: load.cores().len().max(1),
        }
    }

    /// Itself, if all of so many answers came. With wrong ones among them it is none of a mirror's
    /// speed anyway, and they are told.
    ///
    /// # Errors
    /// How many came.
    pub(crate) fn whole(self, asked: usize) -> Result<Measured, String> {
        let came = self.bulk.requests;
        if came < asked as u64 && self.bulk.wrong_count == 0 {
            let seconds = self.seconds;
            return Err(format!("only {came} of {asked} answers came within {seconds:.0} s"));
        }
        Ok(self)
    }

    /// Puts a further pass to this one.
    pub(crate) fn add(&mut self, other: Measured) {
        self.seconds += other.seconds;
        self.bulk.add(other.bulk);
        if let (Some(own), Some(more)) = (self.beside.as_mut(), other.beside) {
            own.add(more);
        }
        if let (Some(own), Some(more)) = (self.server_cpu.as_mut(), other.server_cpu) {
            *own += more;
        }
        self.server_waits += other.server_waits;
        self.rss_peak_bytes = self.rss_peak_bytes.max(other.rss_peak_bytes);
        self.disk_read_bytes += other.disk_read_bytes;
        self.others += other.others;
        self.stolen += other.stolen;
    }

    /// What was wrong, of all connections.
    pub(crate) fn wrong(&self) -> Vec<String> {
        std::iter::once(&self.bulk).chain(&self.beside).flat_map(Tally::told).collect()
    }

    /// The figures that every scenario has. Latencies are those of `of`.
    pub(crate) fn metrics(&self, of: &Tally) -> BTreeMap<String, f64> {
        let mut found = BTreeMap::new();
        let mut put = |name: &str, value: f64| {
            if value.is_finite() {
                found.insert(name.to_owned(), value);
            }
        };
        let total = self.bulk.requests + self.beside.as_ref().map_or(0, |tally| tally.requests);
        let bytes = self.bulk.body_bytes + self.beside.as_ref().map_or(0, |t| t.body_bytes);
        put("requests_per_second", total as f64 / self.seconds);
        put("bytes_per_second", bytes as f64 / self.seconds);
        if let Some(cpu) = self.server_cpu.map(|cpu| cpu.as_secs_f64()) {
            put("cpu_us_per_request", cpu * 1e6 / total as f64);
            // Of small answers it would only say that they are small.
            if bytes >= total.saturating_mul(16 << 10).max(1 << 20) {
                put("cpu_ms_per_gib", cpu * 1e3 / (bytes as f64 / f64::from(1 << 30)));
            }
            let room = self.seconds * self.server_cores as f64;
            put("server_busy_percent", cpu / room * 100.0);
            put("rss_peak_bytes", self.rss_peak_bytes as f64);
        }
        let micro = |q: f64| of.latency.value_at_quantile(q) as f64 / 1e3;
        if !of.latency.is_empty() {
            put("latency_p50_us", micro(0.5));
            put("latency_p99_us", micro(0.99));
            put("latency_max_us", of.latency.max() as f64 / 1e3);
        }
        let client = self.bulk.cpu + self.beside.as_ref().map_or(Duration::ZERO, |t| t.cpu);
        let room = self.seconds * self.client_cores as f64;
        put("client_busy_percent", client.as_secs_f64() / room * 100.0);
        let all = self.seconds * self.all_cores as f64;
        put("others_busy_percent", self.others.as_secs_f64() / all * 100.0);
        put("stolen_percent", self.stolen.as_secs_f64() / all * 100.0);
        if of.reconnects > 0 {
            put("reconnects_per_second", of.reconnects as f64 / self.seconds);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn settings(server_cores: Vec<usize>, client_cores: Vec<usize>) -> Settings {
        let (ringport, given) = (std::path::PathBuf::new(), Vec::new());
        Settings { server_cores, client_cores, seconds: 0.3, quick: true, ringport, given }
    }

    #[test]
    fn a_core_of_both_is_one_core() {
        assert_eq!(Load::of(&settings(vec![0, 1], vec![1, 0]), &[], 1).cores(), [0, 1]);
    }

    #[test]
    fn a_pass_that_was_cut_is_no_figure() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        // Answers twice, and reads on.
        std::thread::spawn(move || {
            let (mut socket, mut buffer) = (listener.accept().unwrap().0, [0; 4096]);
            for _ in 0..2 {
                assert!(socket.read(&mut buffer).unwrap() > 0);
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na").unwrap();
            }
            while socket.read(&mut buffer).is_ok_and(|got| got > 0) {}
        });
        let cores = machine::allowed_cores();
        let settings = settings(cores.clone(), cores);
        let (asks, interrupted) = (vec![Ask::base(); 3], AtomicBool::new(false));
        let load = Load { once: true, ..Load::of(&settings, &asks, 1) };
        let running = Running { name: "short".to_owned(), addr, files: None, process: None };
        let measured = drive(&running, &load, &interrupted).unwrap();
        assert_eq!(measured.bulk.requests, 2);
        let found = measured.whole(asks.len()).unwrap_err();
        assert!(found.contains("only 2 of 3 answers"), "{found}");
    }
}
