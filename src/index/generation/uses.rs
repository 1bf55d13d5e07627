//! What eviction is told: how content was used, and some of it, drawn at random.
//!
//! Workers note uses in memory of the process alone; the writer puts what changed into the file, a
//! piece at a time, so that a later process knows it too.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::counted;
use super::super::layout::{
    ACCESS_BYTES, ACCESS_HITS_MAX, ACCESS_MINUTE_MAX, ACCESS_MINUTE_SHIFT, BUCKET_SLOTS, Key,
    PAGE_BYTES, Value, access_range,
};
use super::super::map::{Map, PrivatePart};
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

/// The access table as this process knows it, and which of its pieces (a page each) the file does
/// not have.
pub(super) struct Uses {
    known: PrivatePart,
    /// Where it lies in the file.
    at: usize,
    changed: Box<[AtomicBool]>,
}

impl Uses {
    /// That of a table file. Nothing is read here.
    pub(super) fn of(map: &Map, buckets: u64) -> io::Result<Self> {
        let bytes = access_range(buckets as usize);
        let pieces = bytes.len().div_ceil(PAGE_BYTES);
        Ok(Self {
            at: bytes.start,
            known: map.private_part(bytes)?,
            changed: (0..pieces).map(|_| AtomicBool::new(false)).collect(),
        })
    }

    fn load(&self, number: usize) -> u32 {
        let entry = self.known.half_words().get(number);
        entry.map_or(0, |entry| entry.load(Ordering::Relaxed))
    }

    pub(super) fn store(&self, number: usize, value: u32) {
        let piece = self.changed.get(number * ACCESS_BYTES / PAGE_BYTES);
        if let (Some(entry), Some(piece)) = (self.known.half_words().get(number), piece) {
            entry.store(value, Ordering::Relaxed);
            // Swapped here and in `write`: the later of the two sees what the earlier did.
            piece.swap(true, Ordering::AcqRel);
        }
    }

    pub(super) fn populate(&self, bytes: Range<usize>) -> io::Result<()> {
        self.known.populate(bytes)
    }

    /// Writes the changed pieces from `first` on, `most` of them; where to go on, if they were not
    /// all.
    fn write(&self, map: &Map, first: usize, most: usize) -> io::Result<Option<usize>> {
        let mut left = most;
        for (number, piece) in self.changed.iter().enumerate().skip(first) {
            if !piece.load(Ordering::Relaxed) {
                continue;
            }
            let Some(still_left) = left.checked_sub(1) else { return Ok(Some(number)) };
            left = still_left;
            piece.swap(false, Ordering::AcqRel);
            let entries = self.known.half_words().chunks(PAGE_BYTES / ACCESS_BYTES).nth(number);
            let entries = entries.unwrap_or_default().iter();
            let bytes: Vec<u8> =
                entries.flat_map(|entry| entry.load(Ordering::Relaxed).to_ne_bytes()).collect();
            map.write_at(&bytes, self.at + number * PAGE_BYTES)
                .inspect_err(|_| piece.store(true, Ordering::Relaxed))?;
        }
        Ok(None)
    }
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

    /// Notes a use at `minute` (since 1970). Stores nothing when one was noted in that minute, and
    /// nothing in the file ever: see [`Generation::write_uses`].
    pub(in crate::index) fn touch(&self, number: usize, minute: u64) {
        let old = self.uses.load(number);
        let last = self.unpacked(old);
        // A minute that the clock cannot tell would else be a new one at each use.
        let minute =
            minute.clamp(self.epoch_minute, self.epoch_minute.saturating_add(ACCESS_MINUTE_MAX));
        let [last_minute, now_minute] =
            [last.minute, minute].map(|minute| u32::try_from(minute).unwrap_or(u32::MAX));
        let hits = counted(last.hits, last_minute, now_minute);
        let new = self.packed(Access { minute, hits });
        if new != old {
            self.uses.store(number, new);
        }
    }

    pub(in crate::index) fn access(&self, number: usize) -> Access {
        self.unpacked(self.uses.load(number))
    }

    /// Puts uses that the file does not have into it, at most `most` pages of them from the page
    /// `first` on; where to go on, if that was not the end. Only the one writer.
    ///
    /// # Errors
    /// The disk failed. What was not written is tried again with the next round.
    pub(in crate::index) fn write_uses(
        &self,
        first: usize,
        most: usize,
    ) -> io::Result<Option<usize>> {
        // Before the table is in the file, what is written there is overwritten with it.
        if !self.is_on_disk() || self.is_poisoned() || !self.file.map().is_shared() {
            return Ok(None);
        }
        self.uses.write(self.file.map(), first, most)
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
}

/// The next of a series of numbers, all of whose bits look random (Steele, Lea and Flood, "Fast
/// splittable pseudorandom number generators", 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
