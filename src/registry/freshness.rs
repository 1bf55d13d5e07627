//! How old a tag's binding may be.

use std::time::Duration;

use super::state::Shared;
use crate::index::TagEntry;
use crate::oci::Scope;

/// How far a clock may be set back, in seconds, before what was confirmed by the old time counts
/// as due.
const CLOCK_STEP_MAX: u64 = 60;

/// Bounds on the age of a tag's binding, from the upstream's configuration or the resolver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// Younger than this, a binding is answered without the upstream.
    pub tag_ttl: Duration,
    /// How much longer it may answer while the upstream fails.
    pub stale_max: Duration,
}

/// What may be done with a known binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Answer with it.
    Fresh,
    /// Ask the upstream first.
    Due,
    /// The upstream failed a moment ago or asked for patience: do not ask again yet.
    Resting,
}

impl Freshness {
    /// The configured bounds for a repository; no bound at all for hosted ones, which we own.
    pub(super) fn of(shared: &Shared, scope: &Scope) -> Self {
        match (&scope.upstream, shared.policy(scope)) {
            (None, _) => Self { tag_ttl: Duration::MAX, stale_max: Duration::MAX },
            (Some(_), Some(policy)) => {
                Self { tag_ttl: policy.tag_ttl, stale_max: policy.stale_max }
            }
            // A reload has taken the upstream away under a request.
            (Some(_), None) => Self { tag_ttl: Duration::ZERO, stale_max: Duration::ZERO },
        }
    }

    pub(super) fn state(&self, entry: &TagEntry, is_resting: bool, now: u64) -> State {
        let is_from_the_future = entry.checked_at > now + CLOCK_STEP_MAX;
        if age(entry, now) < self.tag_ttl.as_secs() && !is_from_the_future {
            State::Fresh
        } else if is_resting {
            State::Resting
        } else {
            State::Due
        }
    }

    /// Whether the binding may still answer while the upstream fails.
    pub(super) fn allows_stale(&self, entry: &TagEntry, now: u64) -> bool {
        age(entry, now) < self.tag_ttl.as_secs().saturating_add(self.stale_max.as_secs())
    }
}

impl super::Registry {
    /// The bounds for tags of a repository: what the resolver said, else what is configured.
    pub fn freshness(
        &self,
        scope: &Scope,
        (tag_ttl, stale_max): (Option<Duration>, Option<Duration>),
    ) -> Freshness {
        let configured = Freshness::of(self.shared(), scope);
        Freshness {
            tag_ttl: tag_ttl.unwrap_or(configured.tag_ttl),
            stale_max: stale_max.unwrap_or(configured.stale_max),
        }
    }
}

/// Seconds since the upstream last vouched for the binding. A clock that was set back makes it 0.
pub(super) fn age(entry: &TagEntry, now: u64) -> u64 {
    now.saturating_sub(entry.checked_at)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::oci::{Algorithm, Digest};

    #[test]
    fn a_binding_is_fresh_then_due_then_too_old() {
        let bounds =
            Freshness { tag_ttl: Duration::from_secs(10), stale_max: Duration::from_secs(100) };
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let entry = TagEntry { digest, checked_at: 1000 };
        for (now, is_resting, state, stale) in [
            (1000, false, State::Fresh, true),
            (1009, true, State::Fresh, true),
            (1010, false, State::Due, true),
            (1010, true, State::Resting, true),
            (1109, false, State::Due, true),
            (1110, false, State::Due, false),
            (1110, true, State::Resting, false),
            (950, false, State::Fresh, true),
            (500, false, State::Due, true),
        ] {
            assert_eq!(bounds.state(&entry, is_resting, now), state, "at {now}");
            assert_eq!(bounds.allows_stale(&entry, now), stale, "at {now}");
        }
        let zero = Freshness { tag_ttl: Duration::ZERO, stale_max: Duration::ZERO };
        assert_eq!(zero.state(&entry, false, 1000), State::Due);
        assert!(!zero.allows_stale(&entry, 1000));
    }
}
