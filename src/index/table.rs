//! The table: which slots a key can lie in, finding it there, placing it there.
//!
//! Works on any slice of words, so tests (and Miri) run it over plain memory. Every key has two
//! buckets of 16 slots. The fingerprints of all slots lie together, 16 bits each, so that they stay
//! in the processor's caches, and a look-up goes to memory, almost always, just for the slot that
//! holds the answer. A new entry goes to the emptier of its buckets and never moves; removing one
//! leaves no trace that look-ups pay for.
//!
//! In each of its buckets a key has a **first choice**, a slot that it gets if that is free: so a
//! look-up can ask the memory for both before it knows the fingerprints, and four times in five
//! the slot is on its way while they are. It is a guess about time only: what is in a slot counts
//! if its fingerprint says so, whichever slot it is.
//!
//! **Invariant:** a fingerprint is stored after its slot and cleared before the slot is reused,
//! each in one atomic store, so a killed writer leaves no half-made bucket.

use std::sync::atomic::{AtomicU64, Ordering};

use super::layout::{
    BUCKET_LANE_WORDS, BUCKET_SLOTS, Key, Kind, LANE_BITS, LANE_BLOB, LINE_WORDS, Slot, Value,
    WORD_LANES, halves,
};
use super::map::prefetch;
use super::protocol::{publish, snapshot};

/// A slot.
type Line = [AtomicU64; LINE_WORDS];
/// The fingerprints of a bucket.
type Lanes = [AtomicU64; BUCKET_LANE_WORDS];

const LANE_MASK: u64 = (1 << LANE_BITS) - 1;

/// How often a reader looks at a slot that is being written before it gives up: the writer needs
/// about 20 ns for a slot, unless it lost its processor there.
const ATTEMPTS: u32 = 64;

/// What the first choice is worth where two buckets are compared, in halves of a free slot: it
/// wins over a bucket that has one more.
const CHOICE_MERIT: usize = 3;

/// What is the same for all slots of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    seed: u32,
    hash_key: [u64; 2],
    buckets: u64,
}

/// What a look-up came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The entry and the number of its slot.
    Entry { number: usize, slot: Slot },
    /// Not there.
    Absent,
    /// The writer was in the way.
    Busy,
    /// A slot that could be it is damaged.
    Damaged,
}

/// What became of an entry that was to be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    /// In a slot that was free.
    New { number: usize },
    /// Over the same key, or it said the same already; what was there before.
    Known { number: usize, old: Slot },
    /// Both buckets are full.
    Refused,
}

/// What the writer swept away on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Swept {
    /// Slots with a wrong checksum: their entries are lost to the index.
    pub(super) damaged: u32,
}

/// A table over borrowed words.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    lines: &'a [Line],
    lanes: &'a [Lanes],
    identity: Identity,
}

struct Home {
    buckets: [usize; 2],
    /// The place in each of them where the key would be put first.
    choices: [usize; 2],
    fingerprint: u64,
}

impl Identity {
    /// `seed` goes into every checksum. The store id also keys the hash: whoever does not know it
    /// cannot choose content that fills one bucket.
    pub(super) fn new(store_id: [u8; 16], seed: u32, buckets: u64) -> Self {
        Self { seed, hash_key: halves(store_id), buckets }
    }

    fn home(&self, key: &Key) -> Home {
        let [k0, k1] = self.hash_key;
        let [a, b, ..] = key.words;
        let first = mix(a ^ k0, b ^ k1);
        let second = mix(first ^ k1, b ^ 0x9e37_79b9_7f4a_7c15);
        let bucket = |hash: u64| ((u128::from(hash) * u128::from(self.buckets)) >> 64) as usize;
        let one = bucket(first);
        let mut other = bucket(second);
        if other == one {
            other = if (one as u64) + 1 < self.buckets { one + 1 } else { 0 };
        }
        let fingerprint = match key.kind {
            Kind::Blob => second & LANE_MASK | LANE_BLOB,
            // 0 means "free", so no fingerprint is 0.
            _ => (second & LANE_MASK & !LANE_BLOB).max(LANE_BLOB << 1),
        };
        // Bits that neither chose a bucket nor are in the fingerprint, of which a bucket's places
        // would otherwise hold a few each.
        let choice = |shift: u32| (first >> shift) as usize % BUCKET_SLOTS;
        Home { buckets: [one, other], choices: [choice(0), choice(8)], fingerprint }
    }
}

/// Multiply and fold: each bit of the result depends on all bits of both.
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

impl<'a> Table<'a> {
    /// `slots` are the buckets, `lanes` their fingerprints.
    pub(super) fn new(slots: &'a [AtomicU64], lanes: &'a [AtomicU64], identity: Identity) -> Self {
        Self { lines: slots.as_chunks().0, lanes: lanes.as_chunks().0, identity }
    }

    /// Looks a key up. Any thread, no lock.
    #[inline]
    pub(super) fn find(&self, key: &Key) -> Found {
        let home = self.identity.home(key);
        let [one, other] = home.buckets;
        for (bucket, choice) in home.buckets.into_iter().zip(home.choices) {
            if let Some(line) = self.lines.get(bucket * BUCKET_SLOTS + choice) {
                prefetch(line);
            }
        }
        // The lanes of both before any slot: two cache misses at a time instead of in a row.
        let lanes = [self.matching(one, home.fingerprint), self.matching(other, home.fingerprint)];
        let mut outcome = Found::Absent;
        for (bucket, lanes) in [(one, lanes[0]), (other, lanes[1])] {
            match self.find_in(bucket, lanes, key) {
                Found::Absent => {}
                found @ Found::Entry { .. } => return found,
                // What is in work or damaged shares the fingerprint; the key may still be there.
                found => outcome = found,
            }
        }
        outcome
    }

    #[inline]
    fn find_in(&self, bucket: usize, lanes: LaneSet, key: &Key) -> Found {
        let mut outcome = Found::Absent;
        for lane in lanes {
            let number = bucket * BUCKET_SLOTS + lane;
            let Some(line) = self.lines.get(number) else { continue };
            let Some(words) = snapshot(line, ATTEMPTS) else {
                outcome = Found::Busy;
                continue;
            };
            let slot = Slot(words);
            if !slot.is_whole(self.identity.seed, number as u64) {
                outcome = Found::Damaged;
            } else if key.is_in(&slot) {
                return Found::Entry { number, slot };
            }
        }
        outcome
    }

    #[inline]
    fn matching(&self, bucket: usize, fingerprint: u64) -> LaneSet {
        self.lanes.get(bucket).map_or(LaneSet(0), |lanes| matching(lanes, fingerprint))
    }

    /// The slot with this number, if it holds an entry that is whole. Any thread.
    pub(super) fn slot(&self, number: usize) -> Option<Slot> {
        let lanes = self.lanes.get(number / BUCKET_SLOTS)?;
        if lane_of(lanes, number % BUCKET_SLOTS) == 0 {
            return None;
        }
        let slot = Slot(snapshot(self.lines.get(number)?, ATTEMPTS)?);
        slot.is_whole(self.identity.seed, number as u64).then_some(slot)
    }

    /// The slots of a bucket that hold blobs, by their lanes alone, a bit each. Any thread.
    #[inline]
    pub(super) fn blobs_in(&self, bucket: usize) -> u32 {
        let Some(lanes) = self.lanes.get(bucket) else { return 0 };
        let mut found = 0;
        for (index, word) in lanes.iter().enumerate() {
            let word = word.load(Ordering::Acquire);
            for lane in 0..WORD_LANES {
                let is_blob = word >> (LANE_BITS * lane) & LANE_BLOB != 0;
                found |= u32::from(is_blob) << (WORD_LANES * index + lane);
            }
        }
        found
    }

    /// Like [`Table::find`], for the writer: what can hold no entry any more is freed on the way.
    pub(super) fn find_and_sweep(&self, key: &Key, swept: &mut Swept) -> Option<(usize, Slot)> {
        let home = self.identity.home(key);
        let mut found = None;
        for bucket in home.buckets {
            let Some(lanes) = self.lanes.get(bucket) else { continue };
            for lane in matching(lanes, home.fingerprint) {
                let number = bucket * BUCKET_SLOTS + lane;
                let Some(line) = self.lines.get(number) else { continue };
                // The only writer is here, so a busy slot is what a killed one left behind.
                let Some(words) = snapshot(line, 1) else {
                    set_lane(lanes, lane, 0);
                    continue;
                };
                let slot = Slot(words);
                if !slot.is_whole(self.identity.seed, number as u64) {
                    set_lane(lanes, lane, 0);
                    swept.damaged += 1;
                } else if key.is_in(&slot) {
                    found = Some((number, slot));
                }
            }
        }
        found
    }

    /// Places an entry, over its key if that is there. Only the one writer.
    pub(super) fn place(&self, key: &Key, value: &Value, swept: &mut Swept) -> Placed {
        let new = Slot::encode(key, value);
        if let Some((number, old)) = self.find_and_sweep(key, swept) {
            if !old.says_the_same(&new) {
                self.write(number, new);
            }
            return Placed::Known { number, old };
        }
        let home = self.identity.home(key);
        let mut best: Option<(usize, usize, usize)> = None;
        for (bucket, choice) in home.buckets.into_iter().zip(home.choices) {
            let Some(lanes) = self.lanes.get(bucket) else { continue };
            let free = free_lanes(lanes);
            let is_chosen = lane_of(lanes, choice) == 0;
            let Some(lane) = free.first.map(|first| if is_chosen { choice } else { first }) else {
                continue;
            };
            // The first choice outweighs one free slot, and no more: buckets have to fill evenly.
            let merit = 2 * free.count + if is_chosen { CHOICE_MERIT } else { 0 };
            if best.is_none_or(|(most, ..)| merit > most) {
                best = Some((merit, bucket, lane));
            }
        }
        let Some((_, bucket, lane)) = best else { return Placed::Refused };
        let number = bucket * BUCKET_SLOTS + lane;
        self.write(number, new);
        if let Some(lanes) = self.lanes.get(bucket) {
            set_lane(lanes, lane, home.fingerprint);
        }
        Placed::New { number }
    }

    /// Removes an entry; what was there. Only the one writer.
    pub(super) fn remove(&self, key: &Key, swept: &mut Swept) -> Option<Slot> {
        let (number, old) = self.find_and_sweep(key, swept)?;
        // Dead before its lane is free: killed between the two, it stays removed.
        self.write(number, Slot::dead());
        if let Some(lanes) = self.lanes.get(number / BUCKET_SLOTS) {
            set_lane(lanes, number % BUCKET_SLOTS, 0);
        }
        Some(old)
    }

    fn write(&self, number: usize, slot: Slot) {
        if let Some(line) = self.lines.get(number) {
            publish(line, |sequence| slot.sealed(sequence, self.identity.seed, number as u64).0);
        }
    }
}

/// Slots of a bucket, a bit each: word `w` and lane `l` in it are bit `16 * l + w`. So all four
/// words of a bucket are compared, and joined, without a branch and without leaving registers.
#[derive(Clone, Copy)]
struct LaneSet(u64);

impl Iterator for LaneSet {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0.wrapping_sub(1);
        (bit < 64).then(|| bit % LANE_BITS * WORD_LANES + bit / LANE_BITS)
    }
}

/// The slots of a bucket whose fingerprint is this one.
#[inline]
fn matching(lanes: &Lanes, fingerprint: u64) -> LaneSet {
    const ONES: u64 = u64::MAX / LANE_MASK;
    const TOPS: u64 = ONES << (LANE_BITS - 1);
    let wanted = fingerprint * ONES;
    let mut found = 0;
    for (index, word) in lanes.iter().enumerate() {
        let differing = word.load(Ordering::Acquire) ^ wanted;
        // The top bit of each lane that is not 0, without a carry from lane to lane.
        let not_zero = ((differing & !TOPS) + !TOPS) | differing;
        found |= (!not_zero & TOPS) >> (LANE_BITS - 1) << index;
    }
    LaneSet(found)
}

struct Free {
    count: usize,
    first: Option<usize>,
}

fn free_lanes(lanes: &Lanes) -> Free {
    let mut free = Free { count: 0, first: None };
    for lane in 0..BUCKET_SLOTS {
        if lane_of(lanes, lane) == 0 {
            free.count += 1;
            free.first = free.first.or(Some(lane));
        }
    }
    free
}

fn lane_of(lanes: &Lanes, lane: usize) -> u64 {
    let word = lanes.get(lane / WORD_LANES).map_or(0, |word| word.load(Ordering::Acquire));
    word >> (LANE_BITS * (lane % WORD_LANES)) & LANE_MASK
}

fn set_lane(lanes: &Lanes, lane: usize, fingerprint: u64) {
    if let Some(word) = lanes.get(lane / WORD_LANES) {
        let shift = LANE_BITS * (lane % WORD_LANES);
        let others = word.load(Ordering::Relaxed) & !(LANE_MASK << shift);
        word.store(others | fingerprint << shift, Ordering::Release);
    }
}
