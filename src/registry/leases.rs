//! Which stored content is being read at this moment: removing its file would free nothing yet, so
//! eviction chooses something else.
//!
//! A [`Lease`] is counted by what holds it: an answer in progress from before its file is opened
//! until its last byte was sent or its client has left, and a download for as long as somebody may
//! read its file. Nothing of it has to be given back, so nothing can be forgotten.
//!
//! Readers and eviction share no lock; instead each of them first says what it does and then looks
//! at what the other one did:
//!
//! ```text
//! reader     take a lease                → look the content up → open its file
//! eviction   take the name out of index  → detach the leases   → remove the file
//! ```
//!
//! So whoever finds a name that is about to go has a lease that eviction finds. It then removes
//! the file all the same, because the name has gone, but counts its bytes as there until that
//! lease ends ([`Leases::detach`]).

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Weak};

use foldhash::fast::RandomState;
use papaya::{Compute, HashMap, Operation};

use crate::oci::Digest;

/// Content that is being read. Never more entries than answers and downloads in progress.
#[derive(Default)]
pub struct Leases {
    // The holders own the entry, the table only knows of it: an entry without holders cannot come
    // to life again, so it can be removed without asking who might be taking it just now.
    entries: HashMap<Digest, Weak<Entry>, RandomState>,
}

struct Entry {
    leases: Arc<Leases>,
    digest: Digest,
    /// How many of those who hold it only keep its file open.
    kept: AtomicUsize,
}

/// Keeps content from being evicted while it lives. Cheap to clone.
#[derive(Clone)]
pub struct Lease(Arc<Entry>);

/// Counts a file that is kept open between two answers: its content may be evicted, but its bytes are
/// on the disk until this has ended.
pub(super) struct KeptOpen(Arc<Entry>);

/// The leases that content had when its name was taken away.
pub(super) struct Detached(Weak<Entry>);

impl Leases {
    /// A lease on this content, whether or not it is stored. To be taken before the content is
    /// looked up: eviction then either finds the lease, or has taken the name away already.
    pub fn take(self: &Arc<Self>, digest: &Digest) -> Lease {
        let entry = self.entry(digest);
        // The look-up that follows must not be made before others can see the lease.
        fence(Ordering::SeqCst);
        Lease(entry)
    }

    fn entry(self: &Arc<Self>, digest: &Digest) -> Arc<Entry> {
        let entries = self.entries.pin();
        let mut fresh = None;
        loop {
            if let Some(entry) = entries.get(digest).and_then(Weak::upgrade) {
                return entry;
            }
            let mine: &Arc<Entry> = fresh.get_or_insert_with(|| {
                Arc::new(Entry { leases: self.clone(), digest: *digest, kept: AtomicUsize::new(0) })
            });
            let outcome = entries.compute(*digest, |there| match there {
                Some((_, held)) if held.strong_count() > 0 => Operation::Abort(()),
                _ => Operation::Insert(Arc::downgrade(mine)),
            });
            if !matches!(outcome, Compute::Aborted(())) {
                return mine.clone();
            }
        }
    }

    /// Whether somebody reads this content.
    pub(super) fn holds(&self, digest: &Digest) -> bool {
        self.entries.pin().get(digest).and_then(Weak::upgrade).is_some_and(|entry| entry.is_read())
    }

    /// Separates the leases of content whose name has just been taken out of the index from those
    /// that will be taken on its successor; `None` when it has none.
    pub(super) fn detach(&self, digest: &Digest) -> Option<Detached> {
        // Whoever has no lease yet must not find the name any more.
        fence(Ordering::SeqCst);
        let held = self.entries.pin().remove(digest).cloned()?;
        (held.strong_count() > 0).then_some(Detached(held))
    }

    /// Content that is being read.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.entries.pin().len()
    }
}

impl Lease {
    /// On what.
    pub fn digest(&self) -> &Digest {
        &self.0.digest
    }

    /// Counts its file as open for longer than the lease.
    pub(super) fn keep_open(&self) -> KeptOpen {
        let kept = KeptOpen(self.0.clone());
        kept.0.kept.fetch_add(1, Ordering::Release);
        kept
    }
}

impl Drop for KeptOpen {
    fn drop(&mut self) {
        self.0.kept.fetch_sub(1, Ordering::Release);
    }
}

impl Detached {
    /// Whether somebody still reads the file that was removed, or keeps it open.
    pub(super) fn is_held(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Whether nobody reads it, and it is only kept open: then it is closed soon.
    pub(super) fn is_closing(&self) -> bool {
        self.0.upgrade().is_some_and(|entry| !entry.is_read())
    }
}

impl Entry {
    /// Whether somebody besides the caller holds it for more than to keep its file open. Who begins
    /// or ends to keep it open counts as a reader for that moment.
    fn is_read(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > self.kept.load(Ordering::Acquire) + 1
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let entries = self.leases.entries.pin();
        // By now another reader may have made an entry of its own under this digest. That one
        // stays; an error only says so.
        let _ = entries.remove_if(&self.digest, |_, held| held.strong_count() == 0);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&self.0.digest).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;
    use std::sync::atomic::AtomicBool;

    fn digest(n: usize) -> Digest {
        Digest::of(Algorithm::Sha256, n.to_string().as_bytes())
    }

    #[test]
    fn content_is_held_until_the_last_of_its_leases_ends() {
        let leases = Arc::<Leases>::default();
        assert!(!leases.holds(&digest(1)));
        let first = leases.take(&digest(1));
        let second = leases.take(&digest(1));
        let third = second.clone();
        drop((first, second));
        assert!(leases.holds(&digest(1)) && !leases.holds(&digest(2)));
        drop(third);
        assert!(!leases.holds(&digest(1)));
        assert_eq!(leases.count(), 0, "nothing is left of leases that ended");
    }

    #[test]
    fn a_file_that_is_kept_open_holds_nothing_but_its_bytes() {
        let leases = Arc::<Leases>::default();
        let lease = leases.take(&digest(1));
        let kept = lease.keep_open();
        assert!(leases.holds(&digest(1)));
        drop(lease);
        assert!(!leases.holds(&digest(1)), "it may be evicted");
        let lease = leases.take(&digest(1));
        assert!(leases.holds(&digest(1)));
        drop(lease);
        let detached = leases.detach(&digest(1)).unwrap();
        assert!(detached.is_held() && detached.is_closing(), "its bytes are there");
        drop(kept);
        assert!(!detached.is_held() && !detached.is_closing());
    }

    #[test]
    fn leases_of_what_has_gone_are_not_those_of_what_came_after_it() {
        let leases = Arc::<Leases>::default();
        assert!(leases.detach(&digest(1)).is_none());
        let old = leases.take(&digest(1));
        let detached = leases.detach(&digest(1)).unwrap();
        assert!(!leases.holds(&digest(1)) && detached.is_held());
        let new = leases.take(&digest(1));
        drop(old);
        assert!(leases.holds(&digest(1)) && !detached.is_held());
        drop(new);
        assert_eq!(leases.count(), 0);
    }

    #[test]
    fn no_lease_is_lost_between_threads_that_take_and_drop() {
        let leases = Arc::<Leases>::default();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        for n in 0..50_000 {
                            let lease = leases.take(&digest(n % 3));
                            assert!(leases.holds(&lease.0.digest), "round {n}");
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    leases.count();
                }
            });
            for reader in readers {
                reader.join().unwrap();
            }
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(leases.count(), 0);
    }

    #[test]
    fn whoever_finds_a_name_that_goes_is_found_by_the_one_who_takes_it_away() {
        let leases = Arc::<Leases>::default();
        for _ in 0..5_000 {
            let is_named = AtomicBool::new(true);
            let (found, detached) = std::thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    let lease = leases.take(&digest(1));
                    is_named.load(Ordering::Relaxed).then_some(lease)
                });
                is_named.store(false, Ordering::Relaxed);
                let detached = leases.detach(&digest(1));
                (reader.join().unwrap(), detached)
            });
            assert!(found.is_none() || detached.is_some_and(|it| it.is_held()));
        }
    }
}
