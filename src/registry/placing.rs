//! Where new content goes, as far as the registry acts on it.

use std::time::Duration;

use super::state::Shared;
use crate::keeping::{Keeping, PRIORITY_MAX};
use crate::plugin::{Placement, RemotePurpose, RemoteRequest, StorageClass};

/// What is decided about content before it is fetched. Content that is stored already stays where
/// it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Placing {
    /// The number of the pool that is preferred; another one takes what that one has no room for.
    /// `None`: the store's choice.
    pub pool: Option<u8>,
    /// Whether it is stored at all; if not, it is passed through to each who asks.
    pub is_kept: bool,
    /// Whether it never makes room, until its `ttl` is over.
    pub is_pinned: bool,
    /// Each step doubles what keeping it is worth.
    pub priority: i8,
    /// How long after its commit it makes room before all else; `None`: never.
    pub ttl: Option<Duration>,
}

/// All that is decided about content that has to be fetched.
#[derive(Debug, Clone, Default)]
pub struct Decided {
    /// Where it goes.
    pub placing: Placing,
    /// Requests to remote tiers that may have it, in the order in which they are sent before the
    /// upstream is asked. Signed for this fetch: two that differ only in them are the same.
    pub reads: Vec<RemoteRequest>,
}

/// Asked when content has to be fetched, and not before.
pub type Place<'a> = &'a dyn Fn() -> Decided;

impl Default for Placing {
    /// What holds when nobody decides.
    fn default() -> Self {
        Self { is_kept: true, ..Self::PASSED }
    }
}

impl Placing {
    /// Passed through: what holds when whoever decides has failed.
    pub const PASSED: Self =
        Self { pool: None, is_kept: false, is_pinned: false, priority: 0, ttl: None };

    /// What it comes to for content that is committed at `now` (Unix seconds).
    pub(super) fn keeping(&self, now: u64) -> Keeping {
        // Not earlier than was asked for.
        let seconds =
            |ttl: Duration| ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
        Keeping {
            is_pinned: self.is_pinned,
            priority: self.priority,
            expires_at: self.ttl.map(|ttl| now.saturating_add(seconds(ttl))),
        }
    }
}

impl From<Placing> for Decided {
    fn from(placing: Placing) -> Self {
        Self { placing, reads: Vec::new() }
    }
}

impl Shared {
    /// All that a plugin's answer means here.
    pub fn decided(&self, mut placement: Placement) -> Decided {
        let mut reads = std::mem::take(&mut placement.remotes);
        reads.retain(|request| request.purpose == RemotePurpose::Read);
        Decided { placing: self.placing(&placement), reads }
    }

    /// What a plugin's answer means here. Of a pool that is declared and missing the store's choice
    /// is made, as for everything that was in it.
    fn placing(&self, placement: &Placement) -> Placing {
        let named = |name: &str| {
            let pool = self.store.pools().find(|pool| pool.name() == name);
            pool.map(|pool| pool.number())
        };
        Placing {
            pool: placement.pool.as_deref().and_then(named),
            is_kept: placement.class != StorageClass::PassThrough,
            is_pinned: placement.class == StorageClass::Pinned,
            // In its bounds already: a plugin's answer is refused otherwise.
            priority: i8::try_from(placement.priority)
                .map_or(0, |priority| priority.clamp(-PRIORITY_MAX, PRIORITY_MAX)),
            ttl: placement.ttl,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_to_live_counts_from_the_commit_and_is_never_cut_short() {
        for (ttl, expires_at) in [
            (None, None),
            (Some(Duration::from_secs(60)), Some(1060)),
            (Some(Duration::from_millis(1)), Some(1001)),
            (Some(Duration::from_millis(u64::MAX)), Some(1000 + u64::MAX / 1000 + 1)),
            (Some(Duration::MAX), Some(u64::MAX)),
        ] {
            let placing = Placing { ttl, is_pinned: true, priority: -4, ..Placing::default() };
            let expected = Keeping { is_pinned: true, priority: -4, expires_at };
            assert_eq!(placing.keeping(1000), expected, "{ttl:?}");
        }
    }
}
