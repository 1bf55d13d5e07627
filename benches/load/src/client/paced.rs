//! Requests at a given rate. The latency of each counts from the moment at which it was due, even
//! when no connection was free then: a server that stalls is not asked less for it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;

use super::clock::Clock;
use super::connection::{Connection, Progress, Scratch};
use super::{Ask, Tally};

/// Requests that may be due and not sent. More are dropped: that takes minutes without an answer.
const OVERDUE_MAX: usize = 1 << 20;

/// What is asked, and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace<'a> {
    /// Where.
    pub(crate) addr: SocketAddr,
    /// What, in turn.
    pub(crate) asks: &'a [Ask],
    /// Of all connections together.
    pub(crate) per_second: u32,
    /// Over which the requests are spread.
    pub(crate) connections: usize,
}

struct Probe<'a> {
    pace: Pace<'a>,
    epoll: rustix::fd::OwnedFd,
    lanes: Vec<Lane>,
    /// Those that wait for nothing.
    free: Vec<usize>,
    due: VecDeque<Instant>,
    asked: usize,
    scratch: Scratch,
    tally: Tally,
}

struct Lane {
    connection: Connection,
    /// Which request is under way.
    ask: usize,
    is_free: bool,
}

/// Runs until the clock stops.
///
/// # Errors
/// What could not be set up. Wrong answers are in the tally.
pub(crate) fn run(pace: Pace<'_>, clock: &Clock) -> Result<Tally, String> {
    let mut probe = Probe::open(pace)?;
    let mut cpu_before = None;
    let step = Duration::from_secs(1) / pace.per_second.max(1);
    let mut next = Instant::now() + step;
    let mut events = vec![Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 64];
    while !clock.is_over() {
        let counts = clock.is_open();
        if counts && cpu_before.is_none() {
            cpu_before = Some(crate::machine::own_thread_cpu());
        }
        while next <= Instant::now() {
            if counts {
                probe.tally.lateness.saturating_record(nanoseconds(next.elapsed()));
            }
            if probe.due.len() < OVERDUE_MAX {
                probe.due.push_back(next);
            }
            next += step;
        }
        probe.send_due(counts)?;
        let wait = next.saturating_duration_since(Instant::now()).min(Duration::from_millis(20));
        let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
        let came = match epoll::wait(&probe.epoll, events.as_mut_slice(), Some(&wait)) {
            Ok(came) => came,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(format!("epoll: {error}")),
        };
        for event in events.iter().take(came) {
            probe.ready(usize::try_from(event.data.u64()).unwrap_or(usize::MAX), counts)?;
        }
    }
    probe.count_unanswered(cpu_before.is_some());
    let cpu = crate::machine::own_thread_cpu();
    probe.tally.cpu = cpu.saturating_sub(cpu_before.unwrap_or(cpu));
    Ok(probe.tally)
}

impl<'a> Probe<'a> {
    fn open(pace: Pace<'a>) -> Result<Probe<'a>, String> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|e| format!("epoll: {e}"))?;
        let mut probe = Probe {
            pace,
            epoll,
            lanes: Vec::new(),
            free: (0..pace.connections).collect(),
            due: VecDeque::new(),
            asked: 0,
            scratch: Scratch::new(1),
            tally: Tally::new()?,
        };
        for n in 0..pace.connections {
            let connection = probe.connect(n)?;
            probe.lanes.push(Lane { connection, ask: 0, is_free: true });
        }
        Ok(probe)
    }

    fn connect(&self, n: usize) -> Result<Connection, String> {
        let failed = |e: &dyn std::fmt::Display| format!("connecting to {}: {e}", self.pace.addr);
        let connection = Connection::open(self.pace.addr).map_err(|e| failed(&e))?;
        let data = EventData::new_u64(n as u64);
        epoll::add(&self.epoll, &connection.socket, data, EventFlags::IN)
            .map_err(|e| failed(&e))?;
        Ok(connection)
    }

    fn send_due(&mut self, counts: bool) -> Result<(), String> {
        while let (Some(&due), Some(&at)) = (self.due.front(), self.free.last()) {
            let ask = self.asked % self.pace.asks.len().max(1);
            let (Some(lane), Some(request)) = (self.lanes.get_mut(at), self.pace.asks.get(ask))
            else {
                return Ok(());
            };
            if lane.connection.ask(request, due).is_err() {
                self.replace(at, counts)?;
                continue;
            }
            (lane.ask, lane.is_free) = (ask, false);
            self.asked += 1;
            self.due.pop_front();
            self.free.pop();
        }
        Ok(())
    }

    fn ready(&mut self, at: usize, counts: bool) -> Result<(), String> {
        let Some(lane) = self.lanes.get_mut(at) else { return Ok(()) };
        let Some(request) = self.pace.asks.get(lane.ask) else { return Ok(()) };
        if lane.is_free {
            return self.replace(at, counts);
        }
        let connection = &mut lane.connection;
        match connection.advance(request, &mut self.scratch, &mut self.tally, counts) {
            Ok(Progress::Waiting) => return Ok(()),
            Ok(Progress::Whole { closes }) => {
                if counts {
                    self.tally.requests += 1;
                    let took = nanoseconds(connection.began.elapsed());
                    self.tally.latency.saturating_record(took);
                }
                if closes {
                    self.replace(at, counts)?;
                }
            }
            Ok(Progress::Refused) => {
                // Due since then, and still to be asked.
                let due = connection.began;
                self.due.push_front(due);
                self.replace(at, counts)?;
            }
            Err(what) => {
                self.tally.note_wrong(what);
                self.replace(at, counts)?;
            }
        }
        if let Some(lane) = self.lanes.get_mut(at) {
            lane.is_free = true;
            self.free.push(at);
        }
        Ok(())
    }

    fn replace(&mut self, at: usize, counts: bool) -> Result<(), String> {
        let fresh = self.connect(at)?;
        if let Some(lane) = self.lanes.get_mut(at) {
            lane.connection = fresh;
        }
        self.tally.reconnects += u64::from(counts);
        Ok(())
    }

    /// Requests without an answer took at least as long as they have waited: without them a
    /// server would gain by never answering.
    fn count_unanswered(&mut self, counts: bool) {
        if !counts {
            return;
        }
        let median = self.tally.latency.value_at_quantile(0.5);
        let busy = self.lanes.iter().filter(|lane| !lane.is_free);
        let waiting = busy.map(|lane| lane.connection.began);
        for due in waiting.chain(self.due.iter().copied()) {
            let waited = nanoseconds(due.elapsed());
            // Those that are merely under way would count as quick ones.
            if waited > median {
                self.tally.latency.saturating_record(waited);
            }
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
