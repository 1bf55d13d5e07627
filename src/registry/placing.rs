//! Where new content goes, as far as the registry acts on it.

use super::state::Shared;
use crate::plugin::{Placement, StorageClass};

/// What is decided about content before it is fetched. Content that is stored already stays where
/// it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Placing {
    /// The number of the pool that is preferred; another one takes what that one has no room for.
    /// `None`: the store's choice.
    pub pool: Option<u8>,
    /// Whether it is stored at all; if not, it is passed through to each who asks.
    pub is_kept: bool,
}

/// Asked when content has to be fetched, and not before.
pub type Place<'a> = &'a dyn Fn() -> Placing;

impl Default for Placing {
    /// What holds when nobody decides.
    fn default() -> Self {
        Self { pool: None, is_kept: true }
    }
}

impl Placing {
    /// Passed through: what holds when whoever decides has failed.
    pub const PASSED: Self = Self { pool: None, is_kept: false };
}

impl Shared {
    /// What a plugin's answer means here. Of a pool that is declared and missing the store's choice
    /// is made, as for everything that was in it.
    pub fn placing(&self, placement: &Placement) -> Placing {
        let named = |name: &str| {
            let pool = self.store.pools().find(|pool| pool.name() == name);
            pool.map(|pool| pool.number())
        };
        Placing {
            pool: placement.pool.as_deref().and_then(named),
            is_kept: placement.class != StorageClass::PassThrough,
        }
    }
}
