//! What eviction is told: how content was used, and some of it, drawn at random.

use std::sync::atomic::{AtomicU32, Ordering};

use super::super::counted;
use super::super::layout::{
    ACCESS_HITS_MAX, ACCESS_MINUTE_MAX, ACCESS_MINUTE_SHIFT, BODY_AT, BUCKET_BYTES, BUCKET_SLOTS,
    Key, Value,
};
use super::Generation;

/// Draws of [`Generation::sample`], about 10 ns each where they miss: one blob in 100,000 slots is
/// found three times in four, one in a million once in eight times.
const SAMPLE_DRAWS: u64 = 1 << 14;

/// When and how often something was used. A hint: racing updates may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::index) struct Access {
    /// Minutes since 1970.
    pub(in crate::index) minute: u64,
    /// As [`counted`] counts; saturates at 4095.
    pub(in crate::index) hits: u32,
}

impl Generation {
    /// A blob drawn by `random`, each as likely as any other; `None` when all draws missed.
    ///
    /// Draws are of a bucket, whose lanes tell in half a cache line how many blobs it holds, and of
    /// a place in it, which can be empty: a bucket with two blobs has to win twice as often as one
    /// with one. The places are about as many as the fullest bucket has blobs; 16 would do always
    /// and cost eight times as many draws where blobs are rare.
    pub(in crate::index) fn sample(&self, random: u64) -> Option<(usize, Key, Value)> {
        let table = self.table();
        let places = (4 * self.counts().blobs / self.buckets + 2).min(BUCKET_SLOTS as u64);
        // Where there are few buckets, so many draws miss the only blob once in 3,000 times.
        let draws = (8 * places * self.buckets).min(SAMPLE_DRAWS);
        let mut state = random;
        (0..draws).find_map(|_| {
            let drawn = split_mix(&mut state);
            let bucket = ((u128::from(drawn) * u128::from(self.buckets)) >> 64) as usize;
            let mut blobs = table.blobs_in(bucket);
            let count = u64::from(blobs.count_ones());
            // The bucket used the high bits.
            let place = ((drawn & u64::from(u32::MAX)) * places.max(count)) >> 32;
            if place >= count {
                return None;
            }
            for _ in 0..place {
                blobs &= blobs - 1;
            }
            let number = bucket * BUCKET_SLOTS + blobs.trailing_zeros() as usize;
            match self.entry(number) {
                Some((key, value @ Value::Blob { .. })) => Some((number, key, value)),
                _ => None,
            }
        })
    }

    /// Notes a use at `minute` (since 1970). Stores nothing when one was noted in that minute.
    pub(in crate::index) fn touch(&self, number: usize, minute: u64) {
        let Some(entry) = self.access_entry(number) else { return };
        let old = entry.load(Ordering::Relaxed);
        let last = self.unpacked(old);
        // A minute that the clock cannot tell would else be a new one at each use.
        let minute =
            minute.clamp(self.epoch_minute, self.epoch_minute.saturating_add(ACCESS_MINUTE_MAX));
        let [last_minute, now_minute] =
            [last.minute, minute].map(|minute| u32::try_from(minute).unwrap_or(u32::MAX));
        let hits = counted(last.hits, last_minute, now_minute);
        let new = self.packed(Access { minute, hits });
        if new != old {
            entry.store(new, Ordering::Relaxed);
        }
    }

    pub(in crate::index) fn access(&self, number: usize) -> Access {
        let entry = self.access_entry(number).map_or(0, |entry| entry.load(Ordering::Relaxed));
        self.unpacked(entry)
    }

    fn unpacked(&self, entry: u32) -> Access {
        Access {
            minute: self.epoch_minute.saturating_add(u64::from(entry >> ACCESS_MINUTE_SHIFT)),
            hits: entry & ACCESS_HITS_MAX,
        }
    }

    pub(super) fn packed(&self, access: Access) -> u32 {
        let minute = access.minute.saturating_sub(self.epoch_minute).min(ACCESS_MINUTE_MAX);
        (minute as u32) << ACCESS_MINUTE_SHIFT | access.hits.min(ACCESS_HITS_MAX)
    }

    pub(super) fn access_entry(&self, number: usize) -> Option<&AtomicU32> {
        let at = BODY_AT + (self.buckets as usize).saturating_mul(BUCKET_BYTES);
        let count = (self.buckets as usize).saturating_mul(BUCKET_SLOTS);
        self.file.map().half_words(at, count).get(number)
    }
}

/// The next of a series of numbers, all of whose bits look random (Steele, Lea and Flood, "Fast
/// splittable pseudorandom number generators", 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
