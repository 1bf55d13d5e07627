//! One measurement: threads of the load generator beside each other, and what the server, the
//! client and the machine used meanwhile.

mod measured;

use std::net::SocketAddr;
use std::path::Path;
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
use crate::profiler::Recorded;
use crate::servers::Running;
pub(crate) use measured::Measured;

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
    /// Where a profiler listens.
    pub(crate) perf_control: Option<&'a Path>,
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
            perf_control: settings.perf_control.as_deref(),
            client_cores: &settings.client_cores,
            server_cores: &settings.server_cores,
        }
    }

    fn threads(&self) -> usize {
        match self.tls {
            Some(_) => self.connections,
            None => self.client_cores.len().min(self.connections),
        }
    }

    /// The cores of both, each once: they may be the same.
    pub(crate) fn cores(&self) -> Vec<usize> {
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

/// What one busy thread does.
enum Busy<'a> {
    Plain(load::Work<'a>),
    Secure(tls_load::Work<'a>),
}

impl<'a> Busy<'a> {
    fn of(
        load: &Load<'a>,
        addr: SocketAddr,
        thread: usize,
        next: &'a AtomicUsize,
        spins: &'a AtomicBool,
    ) -> Busy<'a> {
        let asks = load.asks;
        if let Some(Door { addr, config }) = load.tls {
            return Busy::Secure(tls_load::Work { addr, config, asks, number: thread });
        }
        let threads = load.threads().max(1);
        let more = usize::from(thread < load.connections % threads);
        Busy::Plain(load::Work {
            addr,
            asks,
            connections: load.connections / threads + more,
            once: load.once.then_some(next),
            spins,
            seed: thread as u64 * 7919,
        })
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
    let threads = load.threads();
    scope(|scope| {
        let stop = StopOnDrop(&clock);
        let (clock, next, spins) = (&clock, &next, &spins);
        // Nothing is sent: those who hang up are what is waited for.
        let ((opening, all_open), (working, all_done)) = (channel(), channel());
        let mut bulk = Vec::new();
        for thread in 0..threads {
            let busy = Busy::of(load, running.addr, thread, next, spins);
            let core = load.client_cores.get(thread % load.client_cores.len().max(1)).copied();
            let (opening, working) = (opening.clone(), working.clone());
            bulk.push(scope.spawn(move || {
                let _until_its_end = working;
                core.map_or(Ok(()), |core| machine::pin(&[core]))?;
                match busy {
                    Busy::Plain(work) => load::run(work, clock, opening),
                    Busy::Secure(work) => tls_load::run(work, clock, opening),
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
            return Err(not_open(running, load));
        }
        let warming = if load.once { 0.0 } else { load.seconds / 4.0 };
        wait(warming.max(SETTLE_SECONDS), &all_done, interrupted)?;
        let recorded = Recorded::begin(load.perf_control)?;
        let before = Seen::now(running, load);
        clock.open();
        wait(load.seconds, &all_done, interrupted)?;
        drop(recorded);
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

fn not_open(running: &Running, load: &Load<'_>) -> String {
    let (name, addr, count) = (&running.name, running.addr, load.connections);
    format!("{name}: {count} connections to {addr} were not open after {OPEN_SECONDS_MAX} s")
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn settings(server_cores: Vec<usize>, client_cores: Vec<usize>) -> Settings {
        let (ringport, given) = (std::path::PathBuf::new(), Vec::new());
        Settings {
            server_cores,
            client_cores,
            seconds: 0.3,
            quick: true,
            ringport,
            given,
            perf_control: None,
        }
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
