//! The thread that evicts cached content when the store is over its limit, and gives the room to
//! the fills that wait for it.
//!
//! One thread, so that choosing, removing and promising need no lock: what it frees nobody else
//! takes, and who came first is served first. Names go in transactions of many, because each costs
//! about as much as the choice of a hundred victims.

mod choose;
mod evict;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::RoomRequest;
use super::leases::{Detached, Leases};
use super::needs::Needs;
use super::space::{Claim, Limit, Space, Waiting};
use super::state::Shared;
use crate::catalog::Catalog;
use crate::index::Index;
use crate::runtime::{clock, start_service};
use crate::storage::Store;
use choose::{Random, Victim};

/// How often the thread looks around unasked.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The same while somebody waits for room, or while evicted content is still being read.
const SHORT_INTERVAL: Duration = Duration::from_millis(10);
/// How long files may take to be closed that workers keep open between two hits, several times what
/// these need; and how often that is looked at.
const CLOSING_MAX: Duration = Duration::from_millis(200);
const CLOSING_LOOK: Duration = Duration::from_millis(2);
/// How often it is told that nothing may be evicted: a store that is too small for what is pulled
/// through it comes and goes in that state.
const TELL_INTERVAL: Duration = Duration::from_secs(60);
/// Most contents that go in one transaction: bounds how long the first in the queue waits.
const BATCH_MAX: usize = 64;

/// Starts the thread; it ends with the process.
///
/// # Errors
/// The operating system refused it.
pub(super) fn start(shared: &Shared, requests: Receiver<RoomRequest>) -> io::Result<()> {
    let maker = RoomMaker {
        store: shared.store.clone(),
        index: shared.index.clone(),
        catalog: shared.catalog.clone(),
        space: shared.space.clone(),
        leases: shared.leases.clone(),
        needs: shared.needs.clone(),
        random: Random(clock::unix_time().as_nanos() as u64 | 1),
        requests,
        queue: VecDeque::new(),
        leaving: Vec::new(),
        told_at: None,
        evicted_at: None,
    };
    start_service("space", move || maker.run())?;
    Ok(())
}

/// The thread's state.
struct RoomMaker {
    store: Arc<Store>,
    index: Arc<Index>,
    catalog: Catalog,
    space: Arc<Space>,
    leases: Arc<Leases>,
    needs: Arc<Needs>,
    random: Random,
    requests: Receiver<RoomRequest>,
    /// First come, first served.
    queue: VecDeque<Waiting>,
    /// Removed, but still being read: their bytes are on the disk. Each has a reader, so there are
    /// never more than answers in progress.
    leaving: Vec<(Detached, Claim)>,
    /// When it was last told that nothing may be evicted.
    told_at: Option<Instant>,
    /// When the evictions that the disk has not been asked about began.
    evicted_at: Option<Instant>,
}

impl RoomMaker {
    fn run(mut self) {
        loop {
            let is_idle = self.queue.is_empty() && self.leaving.is_empty();
            let interval = if is_idle { LOOK_INTERVAL } else { SHORT_INTERVAL };
            match self.requests.recv_timeout(interval) {
                Ok(RoomRequest(waiting)) => self.queue.extend(waiting),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.make_room();
            self.needs.tidy(clock::unix_seconds());
        }
    }

    /// Gives room to those who wait and evicts for them. What was over its limit is then emptied to
    /// its low watermark. Whoever has to wait for an upstream or a pool of which nothing may go
    /// steps aside for those who want room elsewhere.
    fn make_room(&mut self) {
        // Before the disks are asked: what they tell of as free is not to be added once more.
        self.settle();
        self.look_at_disks();
        let (mut stuck, mut emptied) = (Vec::new(), Vec::new());
        let mut aside = VecDeque::new();
        loop {
            self.settle();
            self.queue.extend(self.requests.try_iter().filter_map(|RoomRequest(it)| it));
            self.grant_in_order();
            let first = self.queue.front();
            let lacking = first.and_then(|first| self.space.lacks(&first.claim));
            let goal = lacking.or_else(|| self.space.exceeded(&stuck)).or_else(|| {
                let above_low = |limit: &Limit| (*limit, self.space.above_low(*limit));
                let is_due = |(limit, goal): &(Limit, u64)| *goal > 0 && !stuck.contains(limit);
                emptied.iter().map(above_low).find(is_due)
            });
            let Some((limit, goal)) = goal else { break };
            let is_stuck = stuck.contains(&limit);
            let victims = if is_stuck { Vec::new() } else { self.choose(limit, goal) };
            if victims.is_empty() || self.evict(victims) == 0 {
                stuck.push(limit);
                if lacking.is_some() {
                    aside.extend(self.queue.pop_front());
                }
                continue;
            }
            if !emptied.contains(&limit) {
                emptied.push(limit);
            }
            self.await_closing();
        }
        // The watermark is a wish only.
        let is_stuck = !aside.is_empty() || self.space.exceeded(&[]).is_some();
        self.tell_stuck(is_stuck);
        aside.append(&mut self.queue);
        self.queue = aside;
        if is_stuck {
            self.grant_what_fits();
        }
    }

    /// Asks the file systems what they have left. Some tell late of what was removed (until their next
    /// transaction is written): for a while after an eviction our own arithmetic counts, or one
    /// lack of room would evict all there is.
    fn look_at_disks(&mut self) {
        if self.evicted_at.is_some_and(|evicted| evicted.elapsed() < LOOK_INTERVAL) {
            return;
        }
        self.evicted_at = None;
        self.space.look_at_disks(&self.store);
    }

    /// Bytes of evicted content are free once its last reader has closed its file.
    fn settle(&mut self) {
        let space = &self.space;
        self.leaving.retain(|(reader, claim)| {
            let is_held = reader.is_held();
            if !is_held {
                space.has_left(claim);
            }
            is_held
        });
    }

    /// Waits until workers have closed what they only kept open. Its bytes count until then: without
    /// the wait more and more would be evicted in their place.
    fn await_closing(&self) {
        let began = clock::now();
        while self.leaving.iter().any(|(reader, _)| reader.is_closing())
            && began.elapsed() < CLOSING_MAX
        {
            std::thread::sleep(CLOSING_LOOK);
        }
    }

    fn grant_in_order(&mut self) {
        while let Some(first) = self.queue.pop_front() {
            if let Err(first) = self.grant(first) {
                return self.queue.push_front(first);
            }
        }
    }

    /// Nothing more can be evicted now: those who want little need not wait for one who wants much,
    /// and those for whom the disk is too small need not wait at all.
    fn grant_what_fits(&mut self) {
        let space = self.space.clone();
        for waiting in std::mem::take(&mut self.queue) {
            match self.grant(waiting) {
                Err(waiting) if !space.lacks_disk(&waiting.claim) => self.queue.push_back(waiting),
                // Dropped, which tells it that there is no room.
                Err(waiting) => space.disk_refused(waiting.claim.pool),
                Ok(()) => {}
            }
        }
    }

    /// Promises room, if there is some; whoever has given up waiting needs none.
    fn grant(&self, waiting: Waiting) -> Result<(), Waiting> {
        if waiting.answer.is_canceled() {
            return Ok(());
        }
        match self.space.try_reserve(waiting.claim) {
            // One that has given up in between gives it back by dropping it.
            Some(reservation) => {
                let _ = waiting.answer.send(reservation);
                Ok(())
            }
            None => Err(waiting),
        }
    }

    /// Keeps the state for the metrics, and tells of it when it changes.
    fn tell_stuck(&mut self, is_stuck: bool) {
        let space = &self.space;
        if !space.set_stuck(is_stuck) {
            return;
        }
        if !is_stuck {
            tracing::debug!(used = space.used(), max = space.max(), "there is room again");
        } else if self.told_at.is_none_or(|told| told.elapsed() >= TELL_INTERVAL) {
            self.told_at = Some(clock::now());
            tracing::warn!(
                used = space.used(),
                reserved = space.reserved(),
                leaving = space.leaving(),
                max = space.max(),
                waiting = self.queue.len(),
                "room lacks and nothing may be evicted: everything is hosted, pinned or in use, \
                 or others fill the disk; what finds no room is passed through"
            );
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
