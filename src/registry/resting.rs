//! Tags and lists whose upstream has just failed: not asked for again until a time.

use papaya::HashMap;

use crate::oci::ScopeKey;

/// Names that may rest at once. Over it the oldest knowledge is not worth keeping: all is forgotten,
/// and each name costs one more question.
const RESTING_MAX: usize = 100_000;

/// Until when they rest, in Unix seconds. Not kept over a restart.
#[derive(Default)]
pub(super) struct Resting(HashMap<ScopeKey, u64>);

impl Resting {
    /// Whether this name is to be left alone at `now`.
    pub(super) fn contains(&self, key: &ScopeKey, now: u64) -> bool {
        let resting = self.0.pin();
        match resting.get(key) {
            Some(&until) if now < until => true,
            Some(_) => {
                resting.remove(key);
                false
            }
            None => false,
        }
    }

    /// Leaves this name alone until `until`.
    pub(super) fn insert(&self, key: ScopeKey, until: u64) {
        let resting = self.0.pin();
        if resting.len() >= RESTING_MAX {
            resting.clear();
        }
        resting.insert(key, until);
    }
}
