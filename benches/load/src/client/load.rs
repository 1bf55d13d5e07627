//! The closed loop: each connection asks again as soon as its answer is whole.
//!
//! Where the client's cores are its own, its threads do not sleep when nothing has come: to wake a
//! sleeping core costs whoever does it, which is the server, several times what the bytes cost in a
//! virtual machine, and the more the faster the server is. Time spent looking in vain is not
//! counted as work of the client.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;

use super::clock::Clock;
use super::connection::{Connection, Progress, Scratch};
use super::{Ask, Tally};

/// How often a thread looks at the clock when nothing comes.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
/// A look in vain takes less.
const LOOK_MAX: Duration = Duration::from_micros(5);
/// How many looks in vain it takes to look for silent connections.
const LOOKS: u64 = 1 << 20;
/// An answer that makes no progress for so long will not come.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Connections that end unasked one after another.
const REFUSALS_MAX: u32 = 100;

/// What one thread does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work<'a> {
    /// Where.
    pub(crate) addr: SocketAddr,
    /// What, in turn.
    pub(crate) asks: &'a [Ask],
    /// Of this thread.
    pub(crate) connections: usize,
    /// With it, each request is asked once by one of all threads, and then it is over.
    pub(crate) once: Option<&'a AtomicUsize>,
    /// Whether its core is its own.
    pub(crate) spins: &'a AtomicBool,
    /// Which piece of bodies is compared, and where in `asks` it begins.
    pub(crate) seed: u64,
}

struct Slot {
    connection: Connection,
    /// Which request is under way, of how many so far.
    ask: usize,
    is_idle: bool,
    refusals: u32,
    heard: Instant,
}

struct Thread<'a> {
    work: Work<'a>,
    epoll: OwnedFd,
    slots: Vec<Slot>,
    scratch: Scratch,
    tally: Tally,
    /// Whether any connection has something to do.
    is_busy: bool,
}

/// Runs until the clock stops, or everything has been asked once. Hangs up `opening` when its
/// connections are open.
///
/// # Errors
/// What could not be set up. Wrong answers are in the tally.
pub(crate) fn run(work: Work<'_>, clock: &Clock, opening: Sender<()>) -> Result<Tally, String> {
    let mut thread = Thread::open(work)?;
    drop(opening);
    if work.once.is_some() {
        clock.await_open();
    }
    for slot in 0..thread.slots.len() {
        thread.next(slot, clock.is_open());
    }
    let mut cpu_before = None;
    let (mut in_vain, mut looks) = (Duration::ZERO, 0_u64);
    let mut events = vec![Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 64];
    while !clock.is_over() && thread.is_busy {
        let spins = work.spins.load(Ordering::Relaxed);
        let looked = Instant::now();
        let wait = if spins { AT_ONCE } else { LOOK_EVERY };
        let came = match epoll::wait(&thread.epoll, events.as_mut_slice(), Some(&wait)) {
            Ok(came) => came,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(format!("epoll: {error}")),
        };
        let counts = clock.is_open();
        if counts && cpu_before.is_none() {
            cpu_before = Some(crate::machine::own_thread_cpu());
        }
        for event in events.iter().take(came) {
            thread.ready(usize::try_from(event.data.u64()).unwrap_or(usize::MAX), counts);
        }
        if came == 0 {
            looks += 1;
            // What took longer was somebody else's turn on this core.
            let took = looked.elapsed().min(LOOK_MAX);
            in_vain += if spins && counts { took } else { Duration::ZERO };
            if !spins || looks.is_multiple_of(LOOKS) {
                thread.give_up_silent();
            }
        }
    }
    let cpu = crate::machine::own_thread_cpu();
    let used = cpu.saturating_sub(cpu_before.unwrap_or(cpu));
    thread.tally.in_vain = in_vain.min(used);
    thread.tally.cpu = used.saturating_sub(in_vain);
    Ok(thread.tally)
}

impl<'a> Thread<'a> {
    fn open(work: Work<'a>) -> Result<Thread<'a>, String> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|e| format!("epoll: {e}"))?;
        let tally = Tally::new()?;
        let scratch = Scratch::new(work.seed);
        let mut thread = Thread { work, epoll, slots: Vec::new(), scratch, tally, is_busy: true };
        for n in 0..work.connections {
            let connection = thread.connect(n)?;
            // Each begins somewhere else, so that not all want the same at the same time.
            let ask = if work.once.is_some() { 0 } else { n + work.seed as usize % 1024 };
            let heard = Instant::now();
            thread.slots.push(Slot { connection, ask, is_idle: true, refusals: 0, heard });
        }
        Ok(thread)
    }

    fn connect(&self, slot: usize) -> Result<Connection, String> {
        let failed = |e: &dyn std::fmt::Display| format!("connecting to {}: {e}", self.work.addr);
        let connection = Connection::open(self.work.addr).map_err(|e| failed(&e))?;
        let data = EventData::new_u64(slot as u64);
        epoll::add(&self.epoll, &connection.socket, data, EventFlags::IN)
            .map_err(|e| failed(&e))?;
        Ok(connection)
    }

    /// Nothing is asked over it any more.
    fn rest(&mut self, at: usize) {
        if let Some(slot) = self.slots.get_mut(at) {
            slot.is_idle = true;
        }
        self.is_busy = self.slots.iter().any(|slot| !slot.is_idle);
    }

    /// Begins the next request on a connection, if there is one.
    fn next(&mut self, at: usize, counts: bool) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        slot.ask = match self.work.once {
            Some(next) => next.fetch_add(1, Ordering::Relaxed),
            None => slot.ask + 1,
        };
        if self.work.once.is_some() && slot.ask >= self.work.asks.len() {
            self.rest(at);
            return;
        }
        self.send(at, counts);
    }

    fn send(&mut self, at: usize, counts: bool) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        let Some(ask) = self.work.asks.get(slot.ask % self.work.asks.len().max(1)) else { return };
        let now = Instant::now();
        slot.is_idle = false;
        slot.heard = now;
        // A connection that was closed meanwhile says so when it is read.
        match slot.connection.ask(ask, now) {
            Ok(()) => {}
            Err(error)
                if error.kind() == std::io::ErrorKind::BrokenPipe
                    || error.kind() == std::io::ErrorKind::ConnectionReset =>
            {
                self.again(at, counts);
            }
            Err(error) => {
                self.tally.note_wrong(format!("{}: {error}", ask.name));
                self.rest(at);
            }
        }
    }

    /// A new connection, and the same request once more.
    fn again(&mut self, at: usize, counts: bool) {
        let refusals = self.slots.get(at).map_or(0, |slot| slot.refusals + 1);
        self.reopen(at, counts);
        let Some(slot) = self.slots.get_mut(at) else { return };
        slot.refusals = refusals;
        if refusals > REFUSALS_MAX {
            self.rest(at);
            self.tally.note_wrong(format!("{}: closed unasked, {refusals} times", self.work.addr));
        } else if !slot.is_idle {
            self.send(at, counts);
        }
    }

    fn reopen(&mut self, at: usize, counts: bool) {
        let opened = self.connect(at);
        let Some(slot) = self.slots.get_mut(at) else { return };
        match opened {
            Ok(connection) => slot.connection = connection,
            Err(error) => {
                self.rest(at);
                self.tally.note_wrong(error);
            }
        }
        self.tally.reconnects += u64::from(counts);
    }

    fn ready(&mut self, at: usize, counts: bool) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        let Some(ask) = self.work.asks.get(slot.ask % self.work.asks.len().max(1)) else { return };
        if slot.is_idle {
            // The server closes a connection that nothing is asked of any more.
            let _ = epoll::delete(&self.epoll, &slot.connection.socket);
            return;
        }
        let progress = slot.connection.advance(ask, &mut self.scratch, &mut self.tally, counts);
        match progress {
            Ok(Progress::Waiting) => slot.heard = Instant::now(),
            Ok(Progress::Whole { closes }) => {
                slot.refusals = 0;
                if counts {
                    self.tally.requests += 1;
                    let took = slot.connection.began.elapsed().as_nanos();
                    self.tally.latency.saturating_record(u64::try_from(took).unwrap_or(u64::MAX));
                }
                if closes {
                    self.reopen(at, counts);
                }
                self.next(at, counts);
            }
            Ok(Progress::Refused) => self.again(at, counts),
            Err(what) => {
                self.tally.note_wrong(what);
                self.reopen(at, counts);
                self.next(at, counts);
            }
        }
    }

    fn give_up_silent(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| !slot.is_idle) {
            if slot.heard.elapsed() > SILENCE_MAX {
                slot.is_idle = true;
                let name = self.work.asks.get(slot.ask % self.work.asks.len().max(1));
                let name = name.map_or("", |ask| ask.name.as_str());
                self.tally.note_wrong(format!("{name}: silent for {SILENCE_MAX:?}"));
            }
        }
        self.is_busy = self.slots.iter().any(|slot| !slot.is_idle);
    }
}
