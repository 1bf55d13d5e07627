//! Idle connections of one worker, bounded in number and age.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use super::connection::Sender;
use super::url::Origin;
use crate::oci::Namespace;
use crate::runtime::{clock, sleep, spawn, timeout};

/// Idle connections to one origin.
const IDLE_PER_ORIGIN_MAX: usize = 16;
/// Idle connections of one worker to all origins.
const IDLE_MAX: usize = 128;
/// Shorter than the 60 s after which most servers close, so that few requests meet a closing one.
const IDLE_AGE_MAX: Duration = Duration::from_secs(50);
/// How long a connection that just finished a body may take to be ready again.
const READY_WITHIN: Duration = Duration::from_millis(20);

/// What a connection may be reused for. The upstream is part of it: trust, client certificate and
/// `allow_private` are per upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PoolKey {
    pub(super) upstream: Namespace,
    pub(super) origin: Origin,
}

struct Idle {
    sender: Sender,
    since: Instant,
}

/// The idle connections; the last one put back is taken first.
#[derive(Default)]
pub(super) struct Pool {
    idle: RefCell<HashMap<PoolKey, Vec<Idle>>>,
    is_sweeping: Cell<bool>,
}

impl Pool {
    /// A connection that was open and ready a moment ago, if there is one.
    pub(super) async fn take(&self, key: &PoolKey) -> Option<Sender> {
        loop {
            let mut sender = self.pop(key)?;
            if sender.is_ready() {
                return Some(sender);
            }
            if !sender.is_closed()
                && matches!(timeout(READY_WITHIN, sender.ready()).await, Ok(Ok(())))
            {
                return Some(sender);
            }
        }
    }

    fn pop(&self, key: &PoolKey) -> Option<Sender> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(key)?;
        let now = clock::now();
        connections.retain(|c| !c.sender.is_closed() && now - c.since < IDLE_AGE_MAX);
        let last = connections.pop();
        if connections.is_empty() {
            idle.remove(key);
        }
        last.map(|idle| idle.sender)
    }

    /// Takes a connection back whose response has been read to its end. Closes it when there are
    /// enough.
    pub(super) fn put(self: &Rc<Self>, key: PoolKey, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.values().map(Vec::len).sum::<usize>() >= IDLE_MAX {
            return;
        }
        let connections = idle.entry(key).or_default();
        if connections.len() < IDLE_PER_ORIGIN_MAX {
            connections.push(Idle { sender, since: clock::now() });
        }
        drop(idle);
        if !self.is_sweeping.replace(true) {
            spawn(sweep(Rc::downgrade(self)));
        }
    }

    /// Closes what is too old or was closed by the server; true while something is left.
    fn discard_old(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        let now = clock::now();
        idle.retain(|_, connections| {
            connections.retain(|c| !c.sender.is_closed() && now - c.since < IDLE_AGE_MAX);
            !connections.is_empty()
        });
        !idle.is_empty()
    }

    #[cfg(test)]
    pub(super) fn idle_count(&self) -> usize {
        self.idle.borrow().values().map(Vec::len).sum()
    }
}

/// Runs while there are idle connections, so that they are closed even if nobody asks for them.
async fn sweep(pool: Weak<Pool>) {
    loop {
        sleep(IDLE_AGE_MAX / 4).await;
        let Some(pool) = pool.upgrade() else { return };
        if !pool.discard_old() {
            pool.is_sweeping.set(false);
            return;
        }
    }
}
