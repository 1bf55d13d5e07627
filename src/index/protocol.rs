//! The memory orders: how one writer and many readers share words without a lock.
//!
//! Generic over the atomic word, so that the model checker in `tests/model_checked.rs` runs this
//! code and not a copy of it. The two protocols are sequence locks after H.-J. Boehm, "Can
//! seqlocks get along with programming language memory models?" (MSPC 2012), section 4: data are
//! relaxed atomics, and fences keep them between the two looks at the sequence.

use std::sync::atomic::{AtomicU64, Ordering};

use super::layout::SEQUENCE_MASK;

/// A shared word. The one implementation outside tests is [`AtomicU64`].
pub(super) trait Word {
    fn load(&self, order: Ordering) -> u64;
    fn store(&self, value: u64, order: Ordering);
    fn fence(order: Ordering);
}

impl Word for AtomicU64 {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        Self::load(self, order)
    }
    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        Self::store(self, value, order);
    }
    #[inline]
    fn fence(order: Ordering) {
        std::sync::atomic::fence(order);
    }
}

/// Replaces a slot. Only the one writer calls this. `image` is asked for the new words under the
/// sequence they will carry; the first word must hold it.
pub(super) fn publish<W: Word, const N: usize>(slot: &[W; N], image: impl FnOnce(u64) -> [u64; N]) {
    let Some((first, rest)) = slot.split_first() else { return };
    let old = first.load(Ordering::Relaxed) & SEQUENCE_MASK;
    // A killed writer can have left it odd, so the next odd number is not always `old + 1`.
    let busy = ((old + 1) | 1) & SEQUENCE_MASK;
    let done = (busy + 1) & SEQUENCE_MASK;
    first.store(busy, Ordering::Relaxed);
    W::fence(Ordering::Release);
    let image = image(done);
    let Some((head, tail)) = image.split_first() else { return };
    for (to, word) in rest.iter().zip(tail) {
        to.store(*word, Ordering::Relaxed);
    }
    first.store(*head, Ordering::Release);
}

/// Copies a slot, all of it from one publication. `None` when the writer was in it at each of
/// `attempts`, or died in it.
#[inline]
pub(super) fn snapshot<W: Word, const N: usize>(slot: &[W; N], attempts: u32) -> Option<[u64; N]> {
    let (first, rest) = slot.split_first()?;
    for _ in 0..attempts {
        let before = first.load(Ordering::Acquire);
        if before & 1 == 0 {
            let mut copy = [before; N];
            for (to, word) in copy.iter_mut().skip(1).zip(rest) {
                *to = word.load(Ordering::Relaxed);
            }
            W::fence(Ordering::Acquire);
            if first.load(Ordering::Relaxed) == before {
                return Some(copy);
            }
        }
        std::hint::spin_loop();
    }
    None
}

/// Announces that the ring is about to be overwritten up to `end`, then writes. Only the one
/// writer calls this.
pub(super) fn overwrite<W: Word>(
    reserved: &W,
    end: u64,
    region: &[W],
    image: impl Iterator<Item = u64>,
) {
    reserved.store(end, Ordering::Relaxed);
    W::fence(Ordering::Release);
    for (to, word) in region.iter().zip(image) {
        to.store(word, Ordering::Relaxed);
    }
}

/// After a copy out of the ring: how far the writer may have come while it was made. If that is
/// past what was copied, the copy is worthless.
#[inline]
pub(super) fn reserved_after_copy<W: Word>(reserved: &W) -> u64 {
    W::fence(Ordering::Acquire);
    reserved.load(Ordering::Relaxed)
}
