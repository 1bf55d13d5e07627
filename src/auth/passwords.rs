//! Whether a password is right. That is meant to be slow, so it is done on threads of its own, a
//! few at a time, and what was right is remembered for a while.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_channel::oneshot;
use ring::hmac;
use zeroize::Zeroizing;

use super::htpasswd::Htpasswd;
use crate::runtime::{blocking_passwords, clock};

/// How long a right password is not computed again.
const KEPT: Duration = Duration::from_secs(300);
/// Right passwords that are remembered. Each is a user's, so there are few.
const KEPT_MAX: usize = 4096;

/// A password under a key that this process alone has.
type Key = [u8; 32];

/// Of one reading of the file: when it is read again, what was right is forgotten with it.
pub(super) struct Passwords {
    users: Htpasswd,
    key: hmac::Key,
    /// Read without a lock; copied when one is added, which is rare beside the hashing.
    right: ArcSwap<HashMap<Key, Instant>>,
    /// Being computed, and who waits for it. Locked only by who has to compute or wait.
    running: Mutex<HashMap<Key, Vec<oneshot::Sender<Outcome>>>>,
    /// How often bcrypt ran; outlives this reading.
    runs: Arc<AtomicU64>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Right,
    /// It was right less than [`KEPT`] ago.
    Remembered,
    /// Wrong, or there is no such user.
    Wrong,
    /// Too many are being computed.
    Busy,
}

impl Passwords {
    pub(super) fn new(users: Htpasswd, key: hmac::Key, runs: Arc<AtomicU64>) -> Arc<Self> {
        let (right, running) = (ArcSwap::default(), Mutex::default());
        Arc::new(Self { users, key, right, running, runs })
    }

    /// Compares the password of `name`. The same question asked meanwhile gets the same answer.
    pub(super) async fn check(
        self: &Arc<Self>,
        name: &str,
        password: Zeroizing<Vec<u8>>,
    ) -> Outcome {
        let key = self.key_of(name, &password);
        if self.right.load().get(&key).is_some_and(|until| *until > clock::now()) {
            return Outcome::Remembered;
        }
        let (waiter, outcome) = oneshot::channel();
        if self.wait_with(key, waiter) {
            let (hash, is_known) = self.users.hash_of(name);
            let hash = hash.to_owned();
            let ending = Ending { of: self.clone(), key, outcome: Outcome::Busy };
            // Ends by itself if this future is dropped: others may wait for it. Without a place in
            // the queue the closure is dropped, and so it ends as busy.
            let computed = blocking_passwords(move || {
                // Whole: its fields alone would leave it outside.
                let mut ending: Ending = ending;
                ending.of.runs.fetch_add(1, Ordering::Relaxed);
                let is_same = bcrypt::verify(password.as_slice(), &hash).unwrap_or(false);
                ending.end(if is_same && is_known { Outcome::Right } else { Outcome::Wrong });
            });
            if let Err(error) = computed.await {
                tracing::warn!(%error, "a password was not checked");
            }
        }
        outcome.await.unwrap_or(Outcome::Busy)
    }

    pub(super) fn users(&self) -> usize {
        self.users.len()
    }

    /// Each part behind its length, so that no two logins have the same text.
    fn key_of(&self, name: &str, password: &[u8]) -> Key {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&(name.len() as u64).to_le_bytes());
        context.update(name.as_bytes());
        context.update(password);
        let mut key = [0; 32];
        key.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
        key
    }

    /// Whether this is the first who waits.
    fn wait_with(&self, key: Key, waiter: oneshot::Sender<Outcome>) -> bool {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let waiters = running.entry(key).or_default();
        waiters.push(waiter);
        waiters.len() == 1
    }

    fn remember(&self, key: Key) {
        self.right.rcu(|right| {
            let now = clock::now();
            let mut right = HashMap::clone(right);
            if right.len() >= KEPT_MAX {
                right.retain(|_, until| *until > now);
            }
            if right.len() >= KEPT_MAX
                && let Some(next) = right.iter().min_by_key(|(_, until)| **until).map(|(k, _)| *k)
            {
                right.remove(&next);
            }
            right.insert(key, now + KEPT);
            right
        });
    }
}

/// Tells everyone who waits, whatever happens to the computation.
struct Ending {
    of: Arc<Passwords>,
    key: Key,
    outcome: Outcome,
}

impl Ending {
    fn end(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if self.outcome == Outcome::Right {
            self.of.remember(self.key);
        }
        let mut running = self.of.running.lock().unwrap_or_else(PoisonError::into_inner);
        let waiters = running.remove(&self.key);
        drop(running);
        for waiter in waiters.unwrap_or_default() {
            // Who has gone needs no answer.
            let _ = waiter.send(self.outcome);
        }
    }
}
