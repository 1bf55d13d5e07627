//! Small bounded tables shared by all workers, each entry kept by the worker that owns its key.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::runtime::{Workers, clock};

/// One table a worker. Shard `i` is only touched on worker `i` (from inside a `SingleFlight`, which
/// runs there), so a lock is never waited for: it only makes the sharing safe.
pub(super) struct Shards<K, V> {
    tables: Box<[Mutex<HashMap<K, V>>]>,
    workers: Workers,
    /// Entries a shard.
    capacity: usize,
}

/// What a table needs to know to make room.
pub(super) trait Perishable {
    /// When the entry is of no use any more.
    fn perishes(&self) -> Instant;
}

impl<K: Hash + Eq + Clone, V: Perishable + Clone> Shards<K, V> {
    pub(super) fn new(workers: Workers, capacity: usize) -> Self {
        let tables = (0..workers.count()).map(|_| Mutex::default()).collect();
        Self { tables, workers, capacity }
    }

    /// The entry for `key`, perished or not.
    pub(super) fn find(&self, key: &K) -> Option<V> {
        let table = self.tables.get(self.workers.owner_of(key))?;
        table.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Keeps `value`; when the shard is full the perished go first, then the next to perish.
    pub(super) fn keep(&self, key: K, value: V) {
        let Some(table) = self.tables.get(self.workers.owner_of(&key)) else { return };
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= self.capacity && !table.contains_key(&key) {
            let now = clock::now();
            table.retain(|_, kept| kept.perishes() > now);
            if table.len() >= self.capacity {
                let next = table.iter().min_by_key(|(_, kept)| kept.perishes());
                if let Some(next) = next.map(|(key, _)| key.clone()) {
                    table.remove(&next);
                }
            }
        }
        table.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::upstream::tests::on_workers;

    impl Perishable for Instant {
        fn perishes(&self) -> Instant {
            *self
        }
    }

    #[test]
    fn a_full_shard_gives_up_what_perishes_first() {
        on_workers(1, |context| async move {
            let shards = Shards::new(context.workers, 3);
            let in_seconds = |n| clock::now() + Duration::from_secs(n);
            for (key, seconds) in [("a", 30), ("b", 10), ("c", 20), ("a", 40)] {
                shards.keep(key, in_seconds(seconds));
            }
            shards.keep("d", in_seconds(50));
            let left = ["a", "b", "c", "d"].map(|key| shards.find(&key).is_some());
            assert_eq!(left, [true, false, true, true]);
            // The perished leave together.
            shards.keep("c", clock::now());
            shards.keep("d", clock::now());
            shards.keep("e", in_seconds(1));
            let left = ["a", "c", "d", "e"].map(|key| shards.find(&key).is_some());
            assert_eq!(left, [true, false, false, true]);
        });
    }
}
