//! Asking whether what is stored still holds: when not to, and how behind a client's back.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use papaya::HashSet;

use super::PullError;
use super::error::RETRY_AFTER_DEFAULT;
use super::state::Registry;
use crate::oci::{Scope, ScopeKey};
use crate::runtime::{clock, spawn};
use crate::telemetry::Revalidation;
use crate::upstream::Hops;

/// Longest rest between two revalidations of one name, whatever `Retry-After` says, in seconds.
const REST_MAX: u64 = 600;
/// Revalidations that may run behind clients' backs at once. Over it a name goes on being served
/// until one of those that ask for it finds a place, or its time is over altogether.
const BACKGROUND_MAX: usize = 256;

/// The names that are being asked for behind clients' backs, over all workers.
#[derive(Default)]
pub(super) struct Background {
    names: HashSet<ScopeKey>,
    count: AtomicUsize,
}

/// One of them; dropping it is its end.
struct Running {
    background: Arc<Background>,
    key: ScopeKey,
}

/// Why none is begun.
#[derive(Debug, PartialEq, Eq)]
enum NoPlace {
    /// One runs for this name.
    Running,
    /// Too many run.
    Full,
}

impl Background {
    fn begin(self: &Arc<Self>, key: ScopeKey) -> Result<Running, NoPlace> {
        // Over the bound by as many as there are workers at most, for as long as this takes.
        if self.count.load(Ordering::Relaxed) >= BACKGROUND_MAX {
            return Err(NoPlace::Full);
        }
        if !self.names.pin().insert(key) {
            return Err(NoPlace::Running);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(Running { background: self.clone(), key })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.background.names.pin().remove(&self.key);
        self.background.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Registry {
    /// Why no request is to be spent now on asking whether this stored name still holds; `None`:
    /// ask. `may_be_stale`: it may be served unasked, so that a rate limit can be spared.
    ///
    /// Every revalidation, of tags and of lists, for a waiting client or behind one, passes here
    /// first.
    pub(super) fn spared(
        &self,
        scope: &Scope,
        key: &ScopeKey,
        (now, may_be_stale): (u64, bool),
    ) -> Option<&'static str> {
        let is_rationed = || {
            let upstream = scope.upstream.as_ref().filter(|_| may_be_stale);
            upstream.is_some_and(|upstream| !self.client().may_revalidate(upstream))
        };
        let reason = if self.shared().resting.contains(key, now) {
            "the upstream failed a moment ago"
        } else if is_rationed() {
            "what is left of the upstream's rate limit is kept for what nobody has"
        } else {
            return None;
        };
        self.count_revalidation(scope, Revalidation::PutOff);
        Some(reason)
    }

    /// Runs a revalidation on this worker that no client waits for, unless one runs for the same
    /// name: only then `work` is called. What it makes joins those that clients do wait for, and
    /// notes its own failure.
    pub(super) fn revalidate_behind<W: Future<Output = ()> + 'static>(
        &self,
        scope: &Scope,
        key: ScopeKey,
        work: impl FnOnce() -> W,
    ) {
        match self.shared().background.begin(key) {
            Ok(running) => {
                let work = work();
                spawn(Hops::current().carry(async move {
                    work.await;
                    drop(running);
                }));
            }
            Err(NoPlace::Running) => {}
            Err(NoPlace::Full) => self.count_revalidation(scope, Revalidation::PutOff),
        }
    }

    /// Leaves a failing upstream alone for a while as far as this name is concerned.
    pub(super) fn rest(
        &self,
        scope: &Scope,
        (name, key): (&dyn Display, ScopeKey),
        error: &PullError,
    ) {
        if error.is_upstream_failure() {
            let wait = error.retry_after().unwrap_or(RETRY_AFTER_DEFAULT);
            let retry_at = clock::unix_seconds() + wait.min(REST_MAX);
            self.shared().resting.insert(key, retry_at);
            tracing::warn!(%scope, %name, %error, "what is stored could not be revalidated");
        }
    }

    pub(super) fn count_revalidation(&self, scope: &Scope, outcome: Revalidation) {
        if let Some(upstream) = &scope.upstream {
            self.metrics().revalidated(upstream, outcome);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::oci::RepositoryName;

    fn key(n: usize) -> ScopeKey {
        let repository = RepositoryName::parse("org/app").unwrap();
        Scope { upstream: None, repository }.document_key(&n.to_string())
    }

    #[test]
    fn one_a_name_and_no_more_than_a_few_hundred() {
        let background = Arc::<Background>::default();
        let mut running = vec![background.begin(key(0)).ok().unwrap()];
        assert_eq!(background.begin(key(0)).err(), Some(NoPlace::Running));
        running.extend((1..BACKGROUND_MAX).map(|n| background.begin(key(n)).ok().unwrap()));
        assert_eq!(background.begin(key(BACKGROUND_MAX)).err(), Some(NoPlace::Full));
        drop(running.remove(0));
        assert!(background.begin(key(0)).is_ok(), "one ended");
        drop(running);
        assert_eq!(background.count.load(Ordering::Relaxed), 0);
    }
}
