//! The memory orders of `protocol`, in every interleaving that loom can make. The code is the one
//! that runs in production: it is generic over the word. Slots have fewer words here, because the
//! number of interleavings grows with each; no checksum helps, so the sequence alone has to.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use loom::sync::atomic::AtomicU64 as LoomWord;

use super::super::protocol::{Word, overwrite, publish, reserved_after_copy, snapshot};

impl Word for LoomWord {
    fn load(&self, order: Ordering) -> u64 {
        Self::load(self, order)
    }
    fn store(&self, value: u64, order: Ordering) {
        Self::store(self, value, order);
    }
    fn fence(order: Ordering) {
        loom::sync::atomic::fence(order);
    }
}

fn words<const N: usize>() -> Arc<[LoomWord; N]> {
    Arc::new(std::array::from_fn(|_| LoomWord::new(0)))
}

fn all_interleavings(test: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(test);
}

#[test]
fn a_slot_is_read_whole_or_not_at_all() {
    all_interleavings(|| {
        let slot = words::<3>();
        let shared = slot.clone();
        let writer = loom::thread::spawn(move || {
            for value in 1..=2 {
                publish(&shared, |sequence| [sequence, value, value]);
            }
        });
        if let Some([sequence, a, b]) = snapshot(&slot, 2) {
            assert_eq!((a, b), (sequence / 2, sequence / 2), "torn");
        }
        writer.join().unwrap();
        assert_eq!(snapshot(&slot, 1), Some([4, 2, 2]));
    });
}

/// Put and remove in the table's order: lane after slot, dead before lane.
#[test]
fn a_lane_never_shows_a_slot_that_was_not_written() {
    all_interleavings(|| {
        let slot = words::<2>();
        let lane = Arc::new(LoomWord::new(0));
        let (shared, shared_lane) = (slot.clone(), lane.clone());
        let writer = loom::thread::spawn(move || {
            publish(&shared, |sequence| [sequence, 7]);
            shared_lane.store(1, Ordering::Release);
            publish(&shared, |sequence| [sequence, 0]);
            shared_lane.store(0, Ordering::Release);
        });
        if lane.load(Ordering::Acquire) == 1
            && let Some([sequence, value]) = snapshot(&slot, 2)
        {
            assert!(matches!((sequence, value), (2, 7) | (4, 0)), "{sequence} {value}");
        }
        writer.join().unwrap();
    });
}

/// A ring of one record of two words, overwritten while it is copied.
#[test]
fn what_the_ring_hands_out_was_not_overwritten() {
    const RING: u64 = 1;
    all_interleavings(|| {
        let (reserved, ring, position) = (words::<1>(), words::<2>(), words::<1>());
        let (to_reserved, to_ring, to_position) =
            (reserved.clone(), ring.clone(), position.clone());
        let writer = loom::thread::spawn(move || {
            for turn in 0..2 {
                overwrite(&to_reserved[0], turn + 1, &*to_ring, [turn + 10; 2].into_iter());
                // In the table this is the blob's slot, published with release.
                to_position[0].store(turn + 1, Ordering::Release);
            }
        });
        if let Some(from) = position[0].load(Ordering::Acquire).checked_sub(1) {
            let copy = [0, 1].map(|n: usize| ring[n].load(Ordering::Relaxed));
            let reserved = reserved_after_copy(&reserved[0]);
            if from < reserved && reserved <= from + RING {
                assert_eq!(copy, [from + 10; 2], "overwritten");
            }
        }
        writer.join().unwrap();
    });
}
