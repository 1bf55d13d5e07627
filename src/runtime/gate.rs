//! How much bulk a worker moves before it looks at its ring again.
//!
//! A window of a blob takes a worker as long as some dozen small requests. When many sockets have
//! room at once, all of their windows would run before the next small request is even seen: so only
//! [`BULK_BYTES_PER_POLL`] of them run between two polls of the ring (or of epoll), and the others
//! queue, first come, first served.
//!
//! That a poll has taken place is told by the worker itself: a byte written to a socket of its own
//! comes back with what the next poll brings. It is written only when somebody queues, and only then
//! an operation is in flight: one that never ended would keep the ring from being torn down.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt;
use futures_util::future::join;
use monoio::io::AsyncReadRent;

use super::spawn;
use crate::limits::BULK_BYTES_PER_POLL;

/// The gate of one worker.
struct Gate {
    /// Whether the next poll is to be noticed.
    is_rung: bool,
    /// Who notices it, when he waits for something to do.
    keeper: Option<Waker>,
    /// Bytes let through since the last poll that was noticed.
    spent: u64,
    /// Those who wait, with how much they want to move. A number once given out is not given again.
    queue: VecDeque<(u64, Waker)>,
    /// The number of the first in the queue: who has a smaller one has been let through.
    first: u64,
}

thread_local! {
    /// `None` where it could not be set up: then everyone is let through.
    static GATE: RefCell<Option<Gate>> = const { RefCell::new(None) };
}

/// Sets the gate of the current worker up.
///
/// # Errors
/// No descriptor is left.
pub(super) fn set_up() -> io::Result<()> {
    let (bell, ear) = UnixStream::pair()?;
    bell.set_nonblocking(true)?;
    ear.set_nonblocking(true)?;
    let ear = monoio::net::UnixStream::from_std(ear)?;
    let queue = VecDeque::new();
    GATE.set(Some(Gate { is_rung: false, keeper: None, spent: 0, queue, first: 0 }));
    spawn(keep(bell, ear));
    Ok(())
}

/// Ends the gate of the current worker, which ends: everyone is let through.
pub(super) fn take_down() {
    drop(GATE.take());
}

/// Of a turn of `whole` bytes `left` were not moved: others may. But trying costs something, too, so an
/// eighth counts in any case.
pub fn bulk_unused(whole: u64, left: u64) {
    let bytes = left.min(whole - whole / 8);
    // After the worker's end nobody has to know.
    let _ = GATE.try_with(|gate| {
        if let Some(gate) = gate.borrow_mut().as_mut() {
            gate.spent = gate.spent.saturating_sub(bytes);
        }
    });
}

/// Whether `bytes` of a body may be moved by this worker without a wait; then their turn is taken.
pub fn bulk_turn_now(bytes: u64) -> bool {
    let turn = GATE.try_with(|gate| {
        gate.borrow_mut().as_mut().is_none_or(|gate| {
            let is_open = gate.is_open();
            if is_open {
                gate.spent += bytes;
            }
            is_open
        })
    });
    // After the worker's end nobody has to wait.
    turn.unwrap_or(true)
}

/// Whether bodies queue for their turn: what is left to the ring then waits for as much of them as
/// may be moved before it is looked at.
pub fn bulk_waits() -> bool {
    GATE.try_with(|gate| gate.borrow().as_ref().is_some_and(|gate| !gate.queue.is_empty()))
        .unwrap_or(false)
}

/// Waits until `bytes` of a body may be moved by this worker.
pub async fn bulk_turn(bytes: u64) {
    let mut number = None;
    poll_fn(|cx| {
        // After the worker's end, and where there is no gate, nobody has to wait.
        let turn = GATE.try_with(|gate| {
            gate.borrow_mut().as_mut().map(|gate| gate.turn(bytes, &mut number, cx))
        });
        turn.ok().flatten().unwrap_or(Poll::Ready(()))
    })
    .await;
}

impl Gate {
    fn turn(&mut self, bytes: u64, number: &mut Option<u64>, cx: &mut Context<'_>) -> Poll<()> {
        match *number {
            None if self.is_open() => {
                self.spent += bytes;
                return Poll::Ready(());
            }
            None => {
                *number = Some(self.first + self.queue.len() as u64);
                self.queue.push_back((bytes, cx.waker().clone()));
                self.ring();
            }
            Some(number) if number < self.first => return Poll::Ready(()),
            Some(number) => {
                let place = usize::try_from(number - self.first).unwrap_or(usize::MAX);
                if let Some((_, waker)) = self.queue.get_mut(place) {
                    waker.clone_from(cx.waker());
                }
            }
        }
        Poll::Pending
    }

    /// Whether one more need not queue.
    fn is_open(&self) -> bool {
        self.queue.is_empty() && self.spent < BULK_BYTES_PER_POLL
    }

    /// Has the next poll noticed.
    fn ring(&mut self) {
        self.is_rung = true;
        if let Some(keeper) = self.keeper.take() {
            keeper.wake();
        }
    }

    /// A poll has taken place.
    fn open(&mut self) {
        self.is_rung = false;
        self.spent = 0;
        while self.spent < BULK_BYTES_PER_POLL
            && let Some((bytes, waker)) = self.queue.pop_front()
        {
            // One that has been given up in between wastes its turn only.
            self.spent += bytes;
            self.first += 1;
            waker.wake();
        }
        self.is_rung = !self.queue.is_empty();
    }
}

/// Opens the gate with each poll that was asked to be noticed.
async fn keep(bell: UnixStream, mut ear: monoio::net::UnixStream) {
    let mut heard = vec![0; 1];
    while rung().await {
        // The ear waits first: epoll has nothing to tell of what is there already.
        let write = std::future::ready(()).map(|()| (&bell).write(&[0]));
        let ((read, buffer), written) = join(ear.read(heard), write).await;
        heard = buffer;
        if !matches!((&read, &written), (Ok(1..), Ok(1..))) {
            tracing::error!(?read, ?written, "large bodies hold up small ones on this worker");
            // Everyone goes on, only less fairly.
            let gate = GATE.take();
            return gate.into_iter().flat_map(|gate| gate.queue).for_each(|(_, it)| it.wake());
        }
        GATE.with_borrow_mut(|gate| gate.as_mut().map(Gate::open));
    }
}

/// Waits until somebody wants a poll to be noticed; `false` when the gate has been taken down.
async fn rung() -> bool {
    poll_fn(|cx| {
        GATE.with_borrow_mut(|gate| match gate {
            Some(gate) if gate.is_rung => Poll::Ready(true),
            Some(gate) => {
                gate.keeper = Some(cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(false),
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::tests::{DRIVERS, on_workers};
    use std::cell::Cell;
    use std::rc::Rc;

    #[test]
    fn what_is_small_goes_between_what_is_large() {
        for driver in DRIVERS {
            on_workers(1, driver, move |_| async move {
                let (done, moved) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0_u64)));
                for _ in 0..64 {
                    let (done, moved) = (done.clone(), moved.clone());
                    spawn(async move {
                        for _ in 0..8 {
                            bulk_turn(BULK_BYTES_PER_POLL / 4).await;
                            moved.set(moved.get() + 1);
                        }
                        done.set(done.get() + 1);
                    });
                }
                // What another poll brings, again and again.
                let (mut bell, ear) = UnixStream::pair().unwrap();
                ear.set_nonblocking(true).unwrap();
                let mut ear = monoio::net::UnixStream::from_std(ear).unwrap();
                let (mut polls, mut most, mut before) = (0, 0, 0);
                while done.get() < 64 {
                    // It waits first: epoll has nothing to tell of what is there already.
                    let write = async { bell.write_all(&[0]).unwrap() };
                    let ((read, _), ()) =
                        futures_util::future::join(ear.read(vec![0; 1]), write).await;
                    assert_eq!(read.unwrap(), 1);
                    most = most.max(moved.get() - before);
                    before = moved.get();
                    polls += 1;
                }
                assert_eq!(moved.get(), 64 * 8, "{driver:?}: everyone had all turns");
                assert!(most <= 8, "{driver:?}: {most} large pieces before one small one");
                assert!(polls >= 64, "{driver:?}: {polls} polls");
            });
        }
    }

    #[test]
    fn one_that_gives_up_holds_up_nobody() {
        on_workers(1, crate::runtime::Driver::Epoll, |_| async {
            bulk_turn(BULK_BYTES_PER_POLL).await;
            for _ in 0..100 {
                let given_up = crate::runtime::timeout(std::time::Duration::ZERO, bulk_turn(1));
                let _ = given_up.await;
            }
            bulk_turn(BULK_BYTES_PER_POLL).await;
            bulk_turn(1).await;
        });
    }
}
