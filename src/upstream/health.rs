//! Which endpoints are worth asking, as all workers have found them.
//!
//! ```text
//! well      asked in the order of the configuration
//! troubled  for TROUBLED_FOR after a failure of any kind: asked after those that are well
//! down      not to be connected to, DOWN_AFTER times in a row: not asked at all, but for one
//!           request (the probe) each time that a pause is over; the pauses double
//! ```
//!
//! A failure to connect costs each client its time limit; an endpoint that answers with nonsense,
//! 5xx, late, or breaks off in mid-body may do better for the next path. So only the first kind
//! makes an endpoint down.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::runtime::clock;

/// How long an endpoint is asked after the others since it failed.
const TROUBLED_FOR: Duration = Duration::from_secs(10);
/// Failures to connect in a row after which an endpoint is down.
const DOWN_AFTER: u32 = 3;
/// The first pause; each probe that fails doubles it.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause: who comes back is found within it.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How a request to an endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// It answered, be it that something is not there.
    Well,
    /// It failed, or broke off.
    Trouble,
    /// Another one, asked after it, was faster: nobody knows how it would have ended.
    Late,
    /// No connection could be made.
    Unconnected,
}

/// What is known of the endpoints, by their names; one for the process.
#[derive(Default)]
pub struct Health {
    endpoints: Mutex<HashMap<Arc<str>, State>>,
    hedges: AtomicU64,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Failures to connect in a row.
    unconnected: u32,
    troubled_until: Option<Instant>,
    /// Down, and not asked before this.
    paused_until: Option<Instant>,
}

impl Health {
    /// The positions of these endpoints in the order to ask them.
    pub(super) fn order<'n>(&self, names: impl Iterator<Item = &'n Arc<str>>) -> Vec<usize> {
        let now = clock::now();
        let known = self.lock();
        let rank = |name| known.get(name).map_or(0, |state: &State| state.rank(now));
        let ranks: Vec<u8> = names.map(rank).collect();
        drop(known);
        let mut order: Vec<usize> = (0..ranks.len()).collect();
        order.sort_by_key(|&at| ranks.get(at).copied());
        order
    }

    /// Whether this endpoint may be asked now. Of one that is down the first to ask after a pause
    /// is the probe; for all others the next pause has begun.
    ///
    /// # Errors
    /// How long it will not be asked.
    pub(super) fn admit(&self, name: &Arc<str>) -> Result<(), Duration> {
        let now = clock::now();
        let mut known = self.lock();
        let Some(state) = known.get_mut(name) else { return Ok(()) };
        match state.paused_until {
            Some(until) if now < until => Err(until - now),
            Some(_) => {
                state.paused_until = Some(now + state.pause());
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Remembers how an endpoint was found.
    pub(super) fn note(&self, name: &Arc<str>, finding: Finding) {
        let now = clock::now();
        let mut known = self.lock();
        if finding == Finding::Well {
            // What is well needs no entry.
            if known.remove(name).is_some_and(|state| state.paused_until.is_some()) {
                drop(known);
                tracing::info!(endpoint = %name, "an endpoint is there again");
            }
            return;
        }
        let state = known.entry(name.clone()).or_default();
        state.troubled_until = Some(now + TROUBLED_FOR);
        match finding {
            // It could be connected to.
            Finding::Trouble => (state.unconnected, state.paused_until) = (0, None),
            Finding::Unconnected => state.unconnected = state.unconnected.saturating_add(1),
            Finding::Late | Finding::Well => {}
        }
        if finding != Finding::Unconnected {
            return;
        }
        if state.unconnected >= DOWN_AFTER {
            let (is_new, pause) = (state.paused_until.is_none(), state.pause());
            state.paused_until = Some(now + pause);
            drop(known);
            if is_new {
                tracing::warn!(endpoint = %name, ?pause,
                    "an endpoint can't be connected to: it is left alone, but for a probe each pause");
            }
        }
    }

    /// A second endpoint is asked because the first is late.
    pub(super) fn hedged(&self) {
        self.hedges.fetch_add(1, Ordering::Relaxed);
    }

    /// How often a second endpoint was asked because the first was late.
    pub fn hedges(&self) -> u64 {
        self.hedges.load(Ordering::Relaxed)
    }

    /// Forgets the endpoints that are not among `names`: nobody asks them any more.
    pub fn retain<'n>(&self, names: impl Iterator<Item = &'n Arc<str>>) {
        let names: HashSet<&Arc<str>> = names.collect();
        self.lock().retain(|name, _| names.contains(name));
    }

    /// The endpoints that are down, by their names.
    pub fn down(&self) -> Vec<Arc<str>> {
        let known = self.lock();
        let down = known.iter().filter(|(_, state)| state.paused_until.is_some());
        down.map(|(name, _)| name.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, State>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn rank(&self, now: Instant) -> u8 {
        match (self.paused_until, self.troubled_until) {
            (Some(until), _) if now < until => 2,
            // Who asks next is the probe: behind one that answers nobody would ever look.
            (Some(_), _) => 0,
            (None, Some(until)) if now < until => 1,
            _ => 0,
        }
    }

    fn pause(&self) -> Duration {
        let doubled = self.unconnected.saturating_sub(DOWN_AFTER).min(10);
        PAUSE.saturating_mul(1 << doubled).min(PAUSE_MAX)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn trouble_puts_it_behind_and_dead_lines_take_it_out() {
        let health = Health::default();
        let names: [Arc<str>; 3] = ["a", "b", "c"].map(Arc::from);
        let order = || health.order(names.iter());
        assert_eq!(order(), [0, 1, 2]);
        health.note(&names[0], Finding::Trouble);
        assert_eq!(order(), [1, 2, 0]);
        for _ in 0..DOWN_AFTER {
            assert!(health.down().is_empty() && health.admit(&names[1]).is_ok());
            health.note(&names[1], Finding::Unconnected);
        }
        assert_eq!(order(), [2, 0, 1]);
        assert_eq!(health.down(), [names[1].clone()]);
        let wait = health.admit(&names[1]).unwrap_err();
        assert!(wait <= PAUSE && wait > PAUSE / 2, "{wait:?}");
        health.admit(&names[0]).unwrap();
        health.note(&names[1], Finding::Well);
        health.note(&names[0], Finding::Well);
        assert_eq!(order(), [0, 1, 2]);
        health.admit(&names[1]).unwrap();
    }

    #[test]
    fn one_that_is_late_is_neither_up_nor_down_and_one_that_is_gone_is_forgotten() {
        let health = Health::default();
        let names: [Arc<str>; 2] = ["a", "b"].map(Arc::from);
        (0..10 * DOWN_AFTER).for_each(|_| health.note(&names[0], Finding::Late));
        assert!(health.down().is_empty());
        assert_eq!(health.order(names.iter()), [1, 0]);
        (0..DOWN_AFTER).for_each(|_| health.note(&names[0], Finding::Unconnected));
        health.note(&names[0], Finding::Late);
        assert_eq!(health.down(), [names[0].clone()], "nothing was heard of it");
        health.retain(names[1..].iter());
        assert!(health.down().is_empty());
    }

    #[test]
    fn one_probe_a_pause_and_longer_pauses() {
        let health = Health::default();
        let name: Arc<str> = "a".into();
        (0..DOWN_AFTER).for_each(|_| health.note(&name, Finding::Unconnected));
        let over = |health: &Health| {
            let mut known = health.lock();
            known.get_mut(&name).unwrap().paused_until = Some(clock::now());
        };
        for seconds in [2, 4, 8, 16, 30, 30] {
            over(&health);
            let names = [Arc::from("other"), name.clone()];
            health.note(&names[0], Finding::Trouble);
            assert_eq!(health.order(names.iter()), [1, 0], "it is looked for");
            health.admit(&name).unwrap();
            assert_eq!(health.order(names.iter()), [0, 1], "once");
            assert!(health.admit(&name).is_err(), "one at a time");
            health.note(&name, Finding::Unconnected);
            let wait = health.admit(&name).unwrap_err();
            let expected = Duration::from_secs(seconds);
            assert!(wait <= expected && wait > expected / 2, "{wait:?} of {expected:?}");
        }
        over(&health);
        health.admit(&name).unwrap();
        health.note(&name, Finding::Trouble);
        health.admit(&name).unwrap();
    }
}
