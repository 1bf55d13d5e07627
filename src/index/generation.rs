//! One generation of the table: a file of fixed size, its slots, counts and access hints.
//!
//! It never grows. When it is too small, or lost something, a successor is filled beside it and
//! swapped in; the last reader to leave unmaps the old one.

mod uses;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::file::{Gates, IndexFile};
use super::layout::{
    ACCESS_MINUTE_MAX, BODY_AT, BUCKET_LANE_WORDS, BUCKET_SLOTS, BUCKETS_MAX, Header, INDEX_MAGIC,
    Key, Kind, LAYOUT_HASH, LINE_WORDS, LIVE_APPLIED, LIVE_APPLIED_CHECK, LIVE_AT, LIVE_CACHED,
    LIVE_CACHED_CHECK, LIVE_COUNTS, LIVE_PINNED, LIVE_PINNED_CHECK, LIVE_WORDS, SCHEMA, Slot,
    Value, access_range, index_bytes, seed,
};
use super::table::{Found, Identity, Placed, Swept, Table};
use super::{IndexCounts, Lookup};

pub(super) use uses::Access;
use uses::Uses;

/// The live words of [`Value::cached_bytes`], each with its check.
const SUMS: [(usize, usize); 2] =
    [(LIVE_CACHED, LIVE_CACHED_CHECK), (LIVE_PINNED, LIVE_PINNED_CHECK)];

/// Part of the slots that may be in use before a larger generation is asked for. Up to here an
/// entry that finds both its buckets full is a matter of chance in millions.
const LOAD_MAX_PERCENT: u64 = 75;

/// What a part of a table lies in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// The map that all processes would share.
    Shared,
    /// The uses, as this process knows them.
    Uses,
}

pub(super) struct Generation {
    file: IndexFile,
    uses: Uses,
    identity: Identity,
    buckets: u64,
    epoch_minute: u64,
    /// Whether everything the catalog knows was put here, so that a miss is an answer.
    is_complete: AtomicBool,
    /// Whether an entry was refused or found damaged: then it never is complete again.
    is_flawed: AtomicBool,
}

impl Generation {
    /// Makes an empty one with at least this many slots, on disk if that works.
    ///
    /// # Errors
    /// No space, and (at the first one) no memory either; or more slots than a file can have.
    pub(super) fn create(
        path: &Path,
        (number, slots, epoch_minute): (u64, u64, u64),
        store_id: [u8; 16],
        boot_id: Option<[u8; 16]>,
    ) -> io::Result<Self> {
        let buckets = slots.div_ceil(BUCKET_SLOTS as u64).max(2);
        let file_bytes = index_bytes(buckets).ok_or_else(|| {
            let most = BUCKETS_MAX * BUCKET_SLOTS as u64;
            io::Error::other(format!("{slots} slots are too many; the most are {most}"))
        })?;
        let header = Header {
            magic: INDEX_MAGIC,
            schema: SCHEMA,
            layout: LAYOUT_HASH,
            store_id,
            generation: number,
            size: buckets,
            file_bytes,
            boot_id: boot_id.unwrap_or_default(),
            is_clean: false,
            is_complete: false,
            epoch_minute,
            sequence: 0,
        };
        let file = IndexFile::create_somewhere(path, header)?.filled_first();
        let made = Self::over(file, false)?;
        made.set_sums([0; 2]);
        Ok(made)
    }

    /// Opens an earlier one; with it, whether it had been closed.
    ///
    /// # Errors
    /// Why it is not to be believed.
    pub(super) fn open(
        path: &Path,
        number: u64,
        store_id: [u8; 16],
        boot_id: Option<[u8; 16]>,
    ) -> Result<(Self, bool), String> {
        let gates = Gates {
            magic: INDEX_MAGIC,
            store_id,
            boot_id,
            file_bytes: index_bytes,
            needs_complete: true,
        };
        let (file, was_clean) = IndexFile::open(path, &gates)?;
        if file.header().generation != number {
            return Err("it was renamed".to_owned());
        }
        // What was put after the catalog's last commit, or not put after it, is not known when
        // the process was killed: complete only if it was closed.
        let opened = Self::over(file, was_clean).map_err(|error| error.to_string())?;
        if SUMS.iter().any(|&(at, check)| opened.pair(at, check).is_none()) {
            // Killed between the two stores of the pair, or damaged: seldom enough to read it all.
            let values = (0..opened.slots() as usize).filter_map(|number| opened.entry(number));
            let sums = values.fold([0_u64; 2], |[cached, pinned], (_, value)| {
                let [more, more_pinned] = value.cached_bytes();
                [cached.wrapping_add(more), pinned.wrapping_add(more_pinned)]
            });
            opened.set_sums(sums);
        }
        Ok((opened, was_clean))
    }

    fn over(file: IndexFile, is_complete: bool) -> io::Result<Self> {
        let header = file.header();
        let identity =
            Identity::new(header.store_id, seed(header.store_id, header.generation), header.size);
        Ok(Self {
            uses: Uses::of(file.map(), header.size)?,
            file,
            identity,
            buckets: header.size,
            epoch_minute: header.epoch_minute,
            is_complete: AtomicBool::new(is_complete),
            is_flawed: AtomicBool::new(false),
        })
    }

    fn table(&self) -> Table<'_> {
        let (map, buckets) = (self.file.map(), self.buckets as usize);
        let slots = map.words(BODY_AT, buckets.saturating_mul(BUCKET_SLOTS * LINE_WORDS));
        let lanes_at = access_range(buckets).end;
        let lanes = map.words(lanes_at, buckets.saturating_mul(BUCKET_LANE_WORDS));
        Table::new(slots, lanes, self.identity)
    }

    fn live(&self, word: usize) -> Option<&AtomicU64> {
        self.file.map().words(LIVE_AT, LIVE_WORDS).get(word)
    }

    fn live_now(&self, word: usize) -> u64 {
        self.live(word).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    pub(super) fn number(&self) -> u64 {
        self.file.header().generation
    }

    pub(super) fn buckets(&self) -> u64 {
        self.buckets
    }

    pub(super) fn slots(&self) -> u64 {
        self.buckets * BUCKET_SLOTS as u64
    }

    pub(super) fn epoch_minute(&self) -> u64 {
        self.epoch_minute
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.file.map().is_poisoned()
    }

    pub(super) fn is_on_disk(&self) -> bool {
        self.file.is_on_disk()
    }

    /// Whether a miss proves nothing.
    #[inline]
    pub(super) fn may_miss(&self) -> bool {
        !self.is_complete.load(Ordering::Acquire)
            || self.is_flawed.load(Ordering::Relaxed)
            || self.is_poisoned()
    }

    /// Looks a key up. Any thread, no lock, no system call.
    #[inline]
    pub(super) fn look_up(&self, key: &Key) -> Lookup<(usize, Value)> {
        // Before the look: an entry put after it, by who then declares the table complete, would
        // else be denied.
        let may_miss = self.may_miss();
        match self.table().find(key) {
            Found::Entry { number, slot } => match slot.decode() {
                Some((_, value)) => Lookup::Hit((number, value)),
                None => Lookup::Unsure,
            },
            Found::Absent if may_miss || self.is_poisoned() => Lookup::Unsure,
            Found::Absent => Lookup::Miss,
            Found::Busy => Lookup::Unsure,
            Found::Damaged => {
                self.is_flawed.store(true, Ordering::Relaxed);
                Lookup::Unsure
            }
        }
    }

    /// What look-ups read of the file, the part that each of them needs first.
    pub(super) fn parts(&self) -> [(Part, Range<usize>); 3] {
        let uses = access_range(self.buckets as usize);
        let bytes = usize::try_from(self.file.header().file_bytes).unwrap_or(usize::MAX);
        [
            (Part::Shared, uses.end..bytes),
            (Part::Shared, BODY_AT..uses.start),
            (Part::Uses, 0..uses.len()),
        ]
    }

    /// Brings some of a part into memory. Blocks on the disk.
    ///
    /// # Errors
    /// The kernel cannot, or the disk failed.
    pub(super) fn populate(&self, part: Part, bytes: Range<usize>) -> io::Result<()> {
        match part {
            Part::Shared => self.file.map().populate(bytes),
            Part::Uses => self.uses.populate(bytes),
        }
    }

    /// The entry in a slot, if it holds one.
    pub(super) fn entry(&self, number: usize) -> Option<(Key, Value)> {
        self.table().slot(number).as_ref().and_then(Slot::decode)
    }

    // ---- what only the writer calls ------------------------------------------------------------

    /// Places an entry; the number of its slot, unless there was no room. `access` is its hint if
    /// it is new here; without one, it was used now.
    pub(super) fn put(&self, key: &Key, value: &Value, access: Option<Access>) -> Option<usize> {
        if self.is_poisoned() {
            return None;
        }
        let mut swept = Swept::default();
        let placed = self.table().place(key, value, &mut swept);
        if swept.damaged > 0 || placed == Placed::Refused {
            self.is_flawed.store(true, Ordering::Relaxed);
        }
        self.own_up();
        match placed {
            Placed::New { number } => {
                self.count(key.kind, 1);
                self.count_cached([0; 2], value.cached_bytes());
                let access = access.unwrap_or(Access { minute: now_minute(), hits: 0 });
                self.uses.store(number, self.packed(access));
                Some(number)
            }
            Placed::Known { number, old } => {
                self.count_cached(cached_bytes(&old), value.cached_bytes());
                Some(number)
            }
            Placed::Refused => None,
        }
    }

    pub(super) fn remove(&self, key: &Key) {
        if self.is_poisoned() {
            return;
        }
        let mut swept = Swept::default();
        if let Some(old) = self.table().remove(key, &mut swept) {
            self.count(key.kind, u64::MAX);
            self.count_cached(cached_bytes(&old), [0; 2]);
        }
        if swept.damaged > 0 {
            self.is_flawed.store(true, Ordering::Relaxed);
        }
        self.own_up();
    }

    /// A flawed table must not be taken for complete by the next process either.
    fn own_up(&self) {
        if self.is_flawed.load(Ordering::Relaxed) && self.file.header().is_complete {
            self.mark_complete(false);
        }
    }

    /// Declares that everything is in here, unless something is known not to be. The file says so
    /// once it has it all.
    pub(super) fn complete(&self) {
        if !self.is_flawed.load(Ordering::Relaxed) && !self.is_poisoned() {
            if self.file.map().is_shared() {
                self.mark_complete(true);
            }
            self.is_complete.store(true, Ordering::Release);
        }
    }

    /// Puts the next `bytes` of what was filled in memory into the file; whether all is there.
    ///
    /// # Errors
    /// The disk failed. The table goes on in memory.
    pub(super) fn share(&self, bytes: usize) -> io::Result<bool> {
        let map = self.file.map();
        if map.is_shared() {
            return Ok(true);
        }
        let is_all = map.share(bytes)?;
        if is_all && !self.may_miss() {
            self.mark_complete(true);
        }
        Ok(is_all)
    }

    /// Takes that back: there is something that it has not been told.
    pub(super) fn doubt(&self) {
        self.is_complete.store(false, Ordering::Release);
        self.mark_complete(false);
    }

    fn mark_complete(&self, is_complete: bool) {
        if let Err(error) = self.file.mark(|header| header.is_complete = is_complete) {
            tracing::warn!(%error, "the header of the index was not written");
        }
    }

    /// Whether a successor is due: too full, flawed, poisoned, or its clock of access runs out.
    pub(super) fn is_outgrown(&self) -> bool {
        let counts = self.counts();
        let used = counts.blobs + counts.links + counts.tags;
        let age = now_minute().saturating_sub(self.epoch_minute);
        self.is_flawed.load(Ordering::Relaxed)
            || self.is_poisoned()
            || used * 100 > self.slots() * LOAD_MAX_PERCENT
            || age > ACCESS_MINUTE_MAX
    }

    fn count(&self, kind: Kind, change: u64) {
        let at = match kind {
            Kind::Blob => 0,
            Kind::Link => 1,
            Kind::Tag | Kind::Dead => 2,
        };
        if let Some(word) = self.live(LIVE_COUNTS + at) {
            let count = word.load(Ordering::Relaxed).wrapping_add(change).min(self.slots());
            word.store(count, Ordering::Relaxed);
        }
    }

    /// Wraps around like its sum, so that no order of changes and no absurd size makes it drift.
    fn count_cached(&self, less: [u64; 2], more: [u64; 2]) {
        if less != more {
            let changes = less.into_iter().zip(more);
            let mut sums = [self.live_now(LIVE_CACHED), self.live_now(LIVE_PINNED)];
            for (sum, (less, more)) in sums.iter_mut().zip(changes) {
                *sum = sum.wrapping_sub(less).wrapping_add(more);
            }
            self.set_sums(sums);
        }
    }

    fn set_sums(&self, sums: [u64; 2]) {
        for ((at, check), sum) in SUMS.into_iter().zip(sums) {
            self.set_pair(at, check, sum);
        }
    }

    pub(super) fn counts(&self) -> IndexCounts {
        // Not checksummed, so bounded here.
        let at = |word| self.live_now(word).min(self.slots());
        IndexCounts {
            blobs: at(LIVE_COUNTS),
            links: at(LIVE_COUNTS + 1),
            tags: at(LIVE_COUNTS + 2),
            // Read without its check: a look between the two stores is no damage.
            cached_bytes: self.live_now(LIVE_CACHED),
            pinned_bytes: self.live_now(LIVE_PINNED),
            slots: self.slots(),
        }
    }

    /// The last group of changes that was noted as applied; 0 when none was.
    pub(super) fn applied(&self) -> u64 {
        self.pair(LIVE_APPLIED, LIVE_APPLIED_CHECK).unwrap_or(0)
    }

    pub(super) fn set_applied(&self, group: u64) {
        self.set_pair(LIVE_APPLIED, LIVE_APPLIED_CHECK, group);
    }

    /// A live word that its complement proves; `None` when it does not.
    fn pair(&self, at: usize, check: usize) -> Option<u64> {
        let [value, check] = [at, check].map(|at| Some(self.live(at)?.load(Ordering::Relaxed)));
        value.filter(|value| check == Some(!value))
    }

    fn set_pair(&self, at: usize, check: usize, value: u64) {
        for (at, value) in [(at, value), (check, !value)] {
            if let Some(word) = self.live(at) {
                // After everything that it tells of.
                word.store(value, Ordering::Release);
            }
        }
    }

    /// What was not complete in this process is not complete in the next, whatever the header of
    /// a killed process said.
    pub(super) fn close(&self) -> io::Result<()> {
        if !self.may_miss() {
            self.share(usize::MAX)?;
        }
        self.write_uses(0, usize::MAX)?;
        self.file.close(!self.may_miss())
    }

    pub(super) fn remove_file(&self) {
        self.file.remove();
    }
}

fn cached_bytes(slot: &Slot) -> [u64; 2] {
    slot.decode().map_or([0; 2], |(_, value)| value.cached_bytes())
}

/// Minutes since 1970.
pub(super) fn now_minute() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 60)
}
