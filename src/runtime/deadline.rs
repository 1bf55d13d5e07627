//! Deadlines of client connections, kept by one sweep a worker instead of a timer an operation.
//!
//! A connection sets its deadline with one store. A sweep (every [`SWEEP`]) shuts down the reading
//! side of sockets whose deadline has passed: the receive in flight completes with 0 bytes, the
//! owner sees [`Deadline::expired`], may still answer, and closes. Nothing is cancelled, no buffer
//! is abandoned, and a request costs no timer. Limits are therefore kept to within one sweep.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::client::ClientStream;
use super::{sleep, spawn};

/// How often deadlines are looked at.
pub const SWEEP: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// Waiting to read: expiry ends the reading side.
    Read,
    /// Waiting to write: expiry ends both sides.
    Write,
}

struct State {
    fd: RawFd,
    due: Cell<Option<Instant>>,
    watch: Cell<Watch>,
    idle: Cell<bool>,
    expired: Cell<bool>,
    /// The number of its handshake, while there is one.
    handshake: Cell<Option<u64>>,
    /// Whether its handshake was ended for another one: whatever has come meanwhile.
    is_given_up: Cell<bool>,
}

thread_local! {
    static SLOTS: RefCell<Vec<Option<Rc<State>>>> = const { RefCell::new(Vec::new()) };
    static FREE: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    /// Handshakes begun, and under way.
    static HANDSHAKES: Cell<(u64, usize)> = const { Cell::new((0, 0)) };
}

/// The deadline of one connection; deregisters itself when dropped. Must be dropped before the
/// stream it watches: declare it after the stream, or in a struct before it.
pub struct Deadline {
    state: Rc<State>,
    slot: usize,
}

impl Deadline {
    /// Watches `stream` on the current worker; nothing is due yet.
    pub fn watch(stream: &ClientStream) -> Self {
        let state = Rc::new(State {
            fd: stream.socket().borrow().as_raw_fd(),
            due: Cell::new(None),
            watch: Cell::new(Watch::Read),
            idle: Cell::new(false),
            expired: Cell::new(false),
            handshake: Cell::new(None),
            is_given_up: Cell::new(false),
        });
        let slot = SLOTS.with(|slots| {
            let mut slots = slots.borrow_mut();
            let free = FREE.with(|free| free.borrow_mut().pop());
            match free.and_then(|n| slots.get_mut(n).map(|slot| (n, slot))) {
                Some((n, slot)) => {
                    *slot = Some(state.clone());
                    n
                }
                None => {
                    slots.push(Some(state.clone()));
                    slots.len() - 1
                }
            }
        });
        Self { state, slot }
    }

    /// A request must arrive by `due`; `idle` says that none has begun, so that a drain may end
    /// the connection at once.
    pub fn read_by(&self, due: Instant, idle: bool) {
        self.state.expired.set(false);
        self.state.watch.set(Watch::Read);
        self.state.idle.set(idle);
        self.state.due.set(Some(due));
    }

    /// The client must take bytes by `due`.
    pub fn write_by(&self, due: Instant) {
        // The sweep may have ended a wait for a request that had in fact arrived: it is answered.
        self.state.expired.set(false);
        self.state.watch.set(Watch::Write);
        self.state.idle.set(false);
        self.state.due.set(Some(due));
    }

    /// Nothing is due until told otherwise (we are the ones working).
    pub fn clear(&self) {
        self.state.idle.set(false);
        self.state.due.set(None);
    }

    /// Counts as a handshake until the returned value is dropped. When more than `max` are under way
    /// on this worker, the one that began first is ended: whoever lets handshakes hang must not keep
    /// others out, and one that goes on is over in two round trips.
    pub fn handshake(&self, max: usize) -> Handshake {
        let (number, count) = HANDSHAKES.get();
        HANDSHAKES.set((number + 1, count + 1));
        self.state.handshake.set(Some(number));
        if count >= max {
            end_first_handshake();
        }
        Handshake(self.state.clone())
    }

    /// Whether the sweep ended this connection's wait.
    pub fn expired(&self) -> bool {
        self.state.expired.get() || self.state.is_given_up.get()
    }
}

/// A handshake under way.
pub struct Handshake(Rc<State>);

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.handshake.set(None);
        let (number, count) = HANDSHAKES.get();
        HANDSHAKES.set((number, count.saturating_sub(1)));
    }
}

fn end_first_handshake() {
    SLOTS.with_borrow(|slots| {
        let under_way = slots.iter().flatten();
        let first = under_way.filter(|state| state.handshake.get().is_some());
        if let Some(state) = first.min_by_key(|state| state.handshake.get()) {
            state.end();
            state.is_given_up.set(true);
            state.handshake.set(None);
        }
    });
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let slot = self.slot;
        // During thread exit the table may be gone already; then there is nothing to leave.
        let _ = SLOTS.try_with(|slots| {
            if let Some(entry) = slots.borrow_mut().get_mut(slot) {
                *entry = None;
            }
        });
        let _ = FREE.try_with(|free| free.borrow_mut().push(slot));
    }
}

impl State {
    fn end(&self) {
        self.expired.set(true);
        self.due.set(None);
        let how = match self.watch.get() {
            Watch::Read => rustix::net::Shutdown::Read,
            Watch::Write => rustix::net::Shutdown::Both,
        };
        // SAFETY: the state is in the table only while its `Deadline` lives, which by its
        // contract is dropped before the stream that owns the descriptor.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd) };
        // A socket the client has closed already needs no ending.
        let _ = rustix::net::shutdown(fd, how);
    }
}

/// Starts the sweep of the current worker.
pub(super) fn start_sweep() {
    spawn(async {
        loop {
            sleep(SWEEP).await;
            end_those(|state, now| state.due.get().is_some_and(|due| due <= now));
        }
    });
}

/// Ends all connections of this worker that wait for a request that has not begun.
pub fn end_idle() {
    end_those(|state, _| state.idle.get());
}

fn end_those(which: impl Fn(&State, Instant) -> bool) {
    let now = super::clock::now();
    SLOTS.with(|slots| {
        for state in slots.borrow().iter().flatten() {
            if which(state, now) {
                state.end();
            }
        }
    });
}
