//! Short names for requests, unique over workers and restarts, made without a lock.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use serde::{Serialize, Serializer};

/// One request's name, printed as `5f3c9a1b-0-1a2`: start of the process, worker, number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    boot: u32,
    worker: usize,
    number: u64,
}

/// One worker's source of [`RequestId`]s.
#[derive(Debug)]
pub struct RequestIds {
    boot: u32,
    worker: usize,
    next: Cell<u64>,
}

impl RequestIds {
    /// The source of worker `worker`. There must be one per worker: two would give the same names.
    pub fn new(worker: usize) -> RequestIds {
        RequestIds { boot: boot_prefix(), worker, next: Cell::new(0) }
    }

    /// The next name.
    pub fn next_id(&self) -> RequestId {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        RequestId { boot: self.boot, worker: self.worker, number }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:x}-{:x}", self.boot, self.worker, self.number)
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Tells the starts of the process apart. The seed of a `RandomState` is the random number the
/// standard library has; it need not be unguessable, only different.
fn boot_prefix() -> u32 {
    static BOOT: OnceLock<u32> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let hash = RandomState::new().hash_one(std::process::id());
        u32::try_from(hash >> 32).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_over_workers_and_short() {
        let mut seen = HashSet::new();
        for worker in 0..4 {
            let ids = RequestIds::new(worker);
            for _ in 0..100 {
                let name = ids.next_id().to_string();
                assert!(name.len() <= 16, "{name}");
                assert!(seen.insert(name));
            }
        }
    }

    #[test]
    fn a_name_tells_worker_and_number() {
        let ids = RequestIds::new(11);
        ids.next_id();
        let name = ids.next_id().to_string();
        assert!(name.ends_with("-b-1") && name.len() == 12, "{name}");
    }
}
