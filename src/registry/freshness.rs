//! How old a tag's binding, or a list, may be.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::state::{Shared, UpstreamPolicy};
use crate::oci::{RepositoryName, Scope, ScopeKey, Tag};
use crate::plugin::glob_matches;

/// How far a clock may be set back, in seconds, before what was confirmed by the old time counts
/// as due.
const CLOCK_STEP_MAX: u64 = 60;
/// The last tenth of `tag_ttl` is what names that came together are spread over.
const SPREAD_PART: u64 = 10;

/// Bounds on the age of a name, from the upstream's configuration or the resolver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// Younger than this, a binding is answered without the upstream; at nine tenths of it some
    /// are asked for already.
    pub tag_ttl: Duration,
    /// How much longer it is answered at once, while the upstream is asked behind the answer.
    pub stale_while_revalidate: Duration,
    /// How much longer than `tag_ttl` it may answer while the upstream fails.
    pub stale_max: Duration,
}

/// What may be done with what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Answer with it.
    Fresh,
    /// Answer with it and ask the upstream behind that.
    Late,
    /// Ask the upstream first.
    Due,
}

impl Freshness {
    const NONE: Self = Self::of_ttl(Duration::ZERO);

    const fn of_ttl(tag_ttl: Duration) -> Self {
        Self { tag_ttl, stale_while_revalidate: Duration::ZERO, stale_max: Duration::ZERO }
    }

    /// The configured bounds for a repository; no bound at all for hosted ones, which we own.
    pub(super) fn of(shared: &Shared, scope: &Scope) -> Self {
        Self::by(scope, shared.policy(scope).as_deref())
    }

    fn by(scope: &Scope, policy: Option<&UpstreamPolicy>) -> Self {
        match (&scope.upstream, policy) {
            (None, _) => Self { stale_max: Duration::MAX, ..Self::of_ttl(Duration::MAX) },
            (Some(_), Some(policy)) => Self {
                tag_ttl: policy.tag_ttl,
                stale_while_revalidate: policy.stale_while_revalidate,
                stale_max: policy.stale_max,
            },
            // A reload has taken the upstream away under a request.
            (Some(_), None) => Self::NONE,
        }
    }

    /// What may be done at `now` with what the upstream confirmed at `checked_at`, both in Unix
    /// seconds. `key` is called only when the exact end of its time matters.
    pub(super) fn state(&self, checked_at: u64, now: u64, key: impl FnOnce() -> ScopeKey) -> State {
        let (age, ttl) = (age(checked_at, now), self.tag_ttl.as_secs());
        let spread = ttl / SPREAD_PART;
        if checked_at > now + CLOCK_STEP_MAX {
            State::Due
        } else if age < ttl - spread
            || (age < ttl && age < ttl - part_of(spread, &key(), checked_at))
        {
            State::Fresh
        } else if age < ttl.saturating_add(self.stale_while_revalidate.as_secs())
            && !self.stale_while_revalidate.is_zero()
        {
            State::Late
        } else {
            State::Due
        }
    }

    /// Whether what was confirmed at `checked_at` may still answer while the upstream fails.
    pub(super) fn allows_stale(&self, checked_at: u64, now: u64) -> bool {
        let ttl = self.tag_ttl.as_secs();
        age(checked_at, now) < ttl.saturating_add(self.stale_max.as_secs())
    }

    /// Seconds by which the time of what was confirmed at `checked_at` is over.
    pub(super) fn overdue(&self, checked_at: u64, now: u64) -> u64 {
        age(checked_at, now).saturating_sub(self.tag_ttl.as_secs())
    }
}

/// How much earlier, from 0 to `spread` seconds, this name is asked for than its `tag_ttl` says. The
/// same for all who ask between two confirmations, and another one after each.
fn part_of(spread: u64, key: &ScopeKey, checked_at: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, checked_at).hash(&mut hasher);
    hasher.finish() % spread.saturating_add(1)
}

/// The pattern of `immutable_tags` that this tag matches.
pub fn immutable_by<'p>(
    patterns: &'p [String],
    repository: &RepositoryName,
    tag: &Tag,
) -> Option<&'p str> {
    if patterns.is_empty() {
        return None;
    }
    let name = format!("{repository}:{tag}");
    patterns.iter().map(String::as_str).find(|pattern| glob_matches(pattern, &name))
}

impl super::Registry {
    /// The bounds for a tag of a repository, or for a list: what the configuration says of tags
    /// that never change, else what the resolver said, else what is configured.
    pub fn freshness(
        &self,
        scope: &Scope,
        tag: Option<&Tag>,
        (tag_ttl, stale_max): (Option<Duration>, Option<Duration>),
    ) -> Freshness {
        let policy = self.shared().policy(scope);
        let configured = Freshness::by(scope, policy.as_deref());
        let stale_max = stale_max.unwrap_or(configured.stale_max);
        let is_immutable = policy.zip(tag).is_some_and(|(policy, tag)| {
            immutable_by(&policy.immutable_tags, &scope.repository, tag).is_some()
        });
        match tag_ttl {
            _ if is_immutable => Freshness { stale_max, ..Freshness::of_ttl(Duration::MAX) },
            // A resolver that says how old a tag may be means just that.
            Some(tag_ttl) => Freshness { stale_max, ..Freshness::of_ttl(tag_ttl) },
            None => Freshness { stale_max, ..configured },
        }
    }
}

/// Seconds since the upstream last vouched for it. A clock that was set back makes it 0.
pub(super) fn age(checked_at: u64, now: u64) -> u64 {
    now.saturating_sub(checked_at)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::oci::Namespace;

    fn key(tag: &str) -> ScopeKey {
        let scope = Scope {
            upstream: Namespace::parse("a.example").ok(),
            repository: RepositoryName::parse("org/app").unwrap(),
        };
        scope.tag_key(&Tag::parse(tag).unwrap())
    }

    fn bounds(tag_ttl: u64, late: u64, stale_max: u64) -> Freshness {
        Freshness {
            tag_ttl: Duration::from_secs(tag_ttl),
            stale_while_revalidate: Duration::from_secs(late),
            stale_max: Duration::from_secs(stale_max),
        }
    }

    #[test]
    fn a_binding_is_fresh_then_late_then_due_then_too_old() {
        let (strict, lenient) = (bounds(9, 0, 100), bounds(9, 20, 100));
        for (now, without, with, stale) in [
            (1000, State::Fresh, State::Fresh, true),
            (1008, State::Fresh, State::Fresh, true),
            (1009, State::Due, State::Late, true),
            (1028, State::Due, State::Late, true),
            (1029, State::Due, State::Due, true),
            (1108, State::Due, State::Due, true),
            (1109, State::Due, State::Due, false),
            (950, State::Fresh, State::Fresh, true),
            (500, State::Due, State::Due, true),
        ] {
            assert_eq!(strict.state(1000, now, || key("v1")), without, "at {now}");
            assert_eq!(lenient.state(1000, now, || key("v1")), with, "at {now}");
            assert_eq!(strict.allows_stale(1000, now), stale, "at {now}");
        }
        assert_eq!(lenient.overdue(1000, 1008), 0);
        assert_eq!(lenient.overdue(1000, 1012), 3);
        assert_eq!(bounds(0, 0, 0).state(1000, 1000, || key("v1")), State::Due);
        assert!(!bounds(0, 0, 0).allows_stale(1000, 1000));
        let forever = Freshness::of_ttl(Duration::MAX);
        assert_eq!(forever.state(0, u64::MAX / 2, || key("v1")), State::Fresh);
    }

    /// Seconds after which this tag is no longer fresh.
    fn end_of(bounds: &Freshness, tag: &str, checked_at: u64) -> u64 {
        let is_over =
            |age: &u64| bounds.state(checked_at, checked_at + age, || key(tag)) != State::Fresh;
        (0..10_000).find(is_over).unwrap()
    }

    #[test]
    fn tags_that_came_together_are_spread_over_the_last_tenth_of_their_time() {
        let bounds = bounds(300, 0, 0);
        let tags = (0..600).map(|n| format!("v{n}"));
        let ends: Vec<u64> = tags.map(|tag| end_of(&bounds, &tag, 5000)).collect();
        assert!(ends.iter().all(|end| (270..=300).contains(end)), "{ends:?}");
        for second in 270..=300 {
            let together = ends.iter().filter(|end| **end == second).count();
            assert!((1..60).contains(&together), "{together} of 600 after {second} s");
        }
        // The same whoever asks, and another one after the next confirmation.
        assert_eq!(end_of(&bounds, "v1", 5000), end_of(&bounds, "v1", 5000));
        let later: Vec<u64> = (0..50).map(|n| end_of(&bounds, "v1", 5000 + 300 * n)).collect();
        assert!(later.iter().any(|end| *end != ends[1]), "always after {} s", ends[1]);
    }

    #[test]
    fn patterns_of_tags_are_compared_as_a_whole() {
        let repository = RepositoryName::parse("library/postgres").unwrap();
        let patterns = ["org/*".to_owned(), "library/*:16.*".to_owned()];
        for (tag, matched) in [("16.4", true), ("16.", true), ("16", false), ("latest", false)] {
            let tag = Tag::parse(tag).unwrap();
            let expected = matched.then_some("library/*:16.*");
            assert_eq!(immutable_by(&patterns, &repository, &tag), expected, "{tag}");
        }
    }
}
