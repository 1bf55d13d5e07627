//! Who may ask an upstream for what, and with which login, so that its rate limit is never the
//! client's problem while the content can be had.
//!
//! One for the process: all workers spend from the same budgets (docs/UPSTREAMS.md, "Rate limits").
//! A login is a namespace, alone or with a named credential behind it.
//!
//! ```text
//! Free    everything is asked
//! Saving  tags that are stored are answered stale, unasked; what nobody has is fetched
//! Empty   nothing that counts is sent: another login, the stored tag, or 429 with Retry-After
//! ```
//!
//! **Invariant:** the lock is held for arithmetic only, and never on the way of a hit.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::HeaderMap;

use super::budget::{Budget, Pressure};
use super::ratelimit::RateLimit;
use super::reply;
use crate::oci::Namespace;
use crate::runtime::clock;

/// Logins with nearly as much left as the best one are as good as it: a login that is changed with
/// every request needs twice the tokens.
const SHARE_STEP: f64 = 0.1;

/// The budgets of all logins.
#[derive(Default)]
pub struct Governor {
    logins: Mutex<HashMap<Namespace, Login>>,
    held_back: AtomicU64,
    spared: AtomicU64,
}

#[derive(Default)]
struct Login {
    budget: Budget,
    /// As last logged.
    pressure: Option<Pressure>,
}

/// What is known of one login's rate limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginBudget {
    /// The namespace, with `#` and the credential's name behind it if it is a named one.
    pub login: Namespace,
    /// Requests that a window allows.
    pub limit: u64,
    /// How many of them are left.
    pub remaining: u64,
    /// When none will be left if it goes on like this; `None`: never.
    pub used_up_in: Option<Duration>,
}

/// A request that counts and is under way.
pub(super) struct Permit {
    governor: Arc<Governor>,
    login: Option<Namespace>,
}

impl Governor {
    /// Whether a request may be sent with this login now. The permit is kept until it is answered.
    ///
    /// # Errors
    /// How long to wait at least.
    pub(super) fn admit(
        self: &Arc<Self>,
        login: &Namespace,
        counts: bool,
    ) -> Result<Permit, Duration> {
        let now = now_ms();
        let mut logins = self.lock();
        // Who has never been told anything is not held back, and needs no entry before it is.
        let admitted = match counts {
            true => logins.entry(login.clone()).or_default().budget.admit(true, now),
            false => logins.get_mut(login).map_or(Ok(()), |known| known.budget.admit(false, now)),
        };
        drop(logins);
        match admitted {
            Ok(()) => Ok(Permit { governor: self.clone(), login: counts.then(|| login.clone()) }),
            Err(wait) => {
                self.held_back.fetch_add(1, Ordering::Relaxed);
                Err(wait)
            }
        }
    }

    /// Takes note of an answer of an upstream's own to a request with this login.
    pub(super) fn answered(&self, login: &Namespace, counted: bool, status: u16, head: &HeaderMap) {
        let told = RateLimit::read(head);
        let refusal = (status == 429).then(|| (counted, reply::retry_after(head)));
        let now = now_ms();
        let mut logins = self.lock();
        if told.is_none() && refusal.is_none() && !logins.contains_key(login) {
            return;
        }
        let known = logins.entry(login.clone()).or_default();
        known.budget.answered(told, refusal, now);
        let pressure = known.budget.pressure(now);
        if known.pressure.replace(pressure).unwrap_or(Pressure::Free) != pressure {
            let figures = (known.budget.figures(now), known.budget.forecast(now));
            drop(logins);
            log(login, pressure, figures);
        }
    }

    /// The positions of `logins` in the order to try them: most left first, in steps, so that one
    /// stays with a login as long as another is not clearly better.
    pub(super) fn order<'n>(&self, logins: impl Iterator<Item = &'n Namespace>) -> Vec<usize> {
        let now = now_ms();
        let known = self.lock();
        let step = |login| {
            let share = known.get(login).map_or(1.0, |known| known.budget.share(now));
            (share / SHARE_STEP) as u32
        };
        let steps: Vec<u32> = logins.map(step).collect();
        drop(known);
        let mut order: Vec<usize> = (0..steps.len()).collect();
        order.sort_by_key(|&at| std::cmp::Reverse(steps.get(at).copied()));
        order
    }

    /// Whether one of these logins has enough left to ask whether a stored tag has moved; counts
    /// the times when not.
    pub(super) fn may_revalidate<'n>(
        &self,
        mut logins: impl Iterator<Item = &'n Namespace>,
    ) -> bool {
        let now = now_ms();
        let known = self.lock();
        let is_free = logins.any(|login| {
            known.get(login).is_none_or(|known| known.budget.pressure(now) == Pressure::Free)
        });
        drop(known);
        if !is_free {
            self.spared.fetch_add(1, Ordering::Relaxed);
        }
        is_free
    }

    /// Requests that were not sent because there was nothing left for them.
    pub fn held_back(&self) -> u64 {
        self.held_back.load(Ordering::Relaxed)
    }

    /// Revalidations that were not made, to save what is left.
    pub fn spared(&self) -> u64 {
        self.spared.load(Ordering::Relaxed)
    }

    /// All logins whose upstream tells a limit.
    pub fn budgets(&self) -> Vec<LoginBudget> {
        let now = now_ms();
        let known = self.lock();
        let told = known.iter().filter_map(|(login, Login { budget, .. })| {
            let (limit, remaining) = budget.figures(now)?;
            let (login, used_up_in) = (login.clone(), budget.forecast(now));
            Some(LoginBudget { login, limit, remaining, used_up_in })
        });
        let mut told: Vec<LoginBudget> = told.collect();
        drop(known);
        told.sort_by(|a, b| a.login.as_str().cmp(b.login.as_str()));
        told
    }

    /// What is worth knowing after a restart, as JSON.
    pub fn save(&self) -> String {
        let now = now_ms();
        let known = self.lock();
        // In one order, so that it can be compared with the last one; written without the lock.
        let worth: BTreeMap<String, Budget> = known
            .iter()
            .filter(|(_, known)| !known.budget.is_spent_knowledge(now))
            .map(|(login, known)| (login.as_str().to_owned(), known.budget.clone()))
            .collect();
        drop(known);
        // Numbers and strings only: it can't fail.
        serde_json::to_string(&worth).unwrap_or_default()
    }

    /// Goes on with what [`Governor::save`] gave.
    ///
    /// # Errors
    /// It is something else; nothing was taken over.
    pub fn restore(&self, saved: &str) -> Result<(), serde_json::Error> {
        let budgets: HashMap<String, Budget> = serde_json::from_str(saved)?;
        let mut logins = self.lock();
        for (login, budget) in budgets {
            if let Ok(login) = Namespace::from_stored(&login) {
                logins.insert(login, Login { budget, pressure: None });
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Namespace, Login>> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(login) = &self.login else { return };
        if let Some(known) = self.governor.lock().get_mut(login) {
            known.budget.done();
        }
    }
}

fn log(
    login: &Namespace,
    pressure: Pressure,
    (figures, used_up_in): (Option<(u64, u64)>, Option<Duration>),
) {
    let (limit, remaining) = figures.unzip();
    match pressure {
        Pressure::Free => {
            tracing::info!(%login, remaining, limit, "an upstream's rate limit has recovered");
        }
        Pressure::Saving => {
            let minutes = used_up_in.map(|left| left.as_secs() / 60);
            tracing::warn!(%login, remaining, limit, used_up_in_minutes = minutes,
                "an upstream's rate limit is three quarters used up: tags are answered stale \
                 until it recovers; another login (`rotate`) or a longer tag_ttl would help");
        }
        Pressure::Empty => {
            tracing::warn!(%login, remaining, limit,
                "an upstream's rate limit is used up: what is not stored is answered with 429");
        }
    }
}

fn now_ms() -> u64 {
    u64::try_from(clock::unix_time().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn login(text: &str) -> Namespace {
        Namespace::from_stored(text).unwrap()
    }

    fn head(remaining: u64) -> HeaderMap {
        let mut head = HeaderMap::new();
        head.insert("ratelimit-limit", "100;w=21600".parse().unwrap());
        head.insert("ratelimit-remaining", remaining.into());
        head
    }

    #[test]
    fn the_login_with_most_left_comes_first_but_not_for_little() {
        let governor = Arc::new(Governor::default());
        let names = ["a.io", "a.io#x", "a.io#y"].map(login);
        assert_eq!(governor.order(names.iter()), [0, 1, 2]);
        governor.answered(&names[0], true, 200, &head(55));
        assert_eq!(governor.order(names.iter()), [1, 2, 0]);
        governor.answered(&names[1], true, 200, &head(51));
        governor.answered(&names[2], true, 200, &head(58));
        assert_eq!(governor.order(names.iter()), [0, 1, 2]);
        governor.answered(&names[0], true, 429, &head(0));
        assert_eq!(governor.order(names.iter()), [1, 2, 0]);
        assert!(governor.may_revalidate(names.iter()));
        assert!(!governor.may_revalidate(names.iter().take(1)));
        assert_eq!(governor.spared(), 1);
    }

    #[test]
    fn permits_count_while_they_live_and_all_is_saved() {
        let governor = Arc::new(Governor::default());
        let name = login("a.io#x");
        governor.answered(&name, true, 200, &head(2));
        let first = governor.admit(&name, true).unwrap_or_else(|wait| panic!("{wait:?}"));
        let _second = governor.admit(&name, true).unwrap_or_else(|wait| panic!("{wait:?}"));
        assert!(governor.admit(&name, true).is_err());
        assert_eq!(governor.held_back(), 1);
        drop(first);
        assert!(governor.admit(&name, true).is_ok());
        let after = Governor::default();
        after.restore(&governor.save()).unwrap();
        let [budget] = &*after.budgets() else { panic!("{:?}", after.budgets()) };
        assert_eq!((&budget.login, budget.limit, budget.remaining), (&name, 100, 2));
        assert!(after.restore("{").is_err());
        assert!(
            after.restore(r#"{"no name":{"bucket":null,"refused":null,"refusals":0}}"#).is_ok()
        );
        assert_eq!(after.budgets().len(), 1);
    }
}
