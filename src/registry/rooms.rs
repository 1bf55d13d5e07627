//! What each pool has room for, and which of them new content goes to.
//!
//! Content is spread in proportion to the free room of the pools, so that a disk which is added fills
//! along with the others, instead of taking all that is new and all that is asked for with it. When
//! none has room any more, all are equally likely: eviction then empties the chosen one by a part
//! of its size, which again comes out in proportion. The draw is made by the digest: what was evicted
//! comes back to where it was, and two workers never differ.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::account::Account;
use super::space::Claim;
use crate::oci::Digest;
use crate::runtime::clock;
use crate::storage::Pool;

/// Room that is left to the catalog and to others on the same disk.
const DISK_MARGIN_BYTES: u64 = 4 * 1024 * 1024;
/// For how long a refusal makes a disk count as full, in seconds.
const REFUSED_SECONDS: u64 = 3;
/// A disk that has so much left besides all that is promised need not be asked before clients are
/// told that content comes.
const PLENTY_BYTES: u64 = 1024 * 1024 * 1024;
/// For how long it has to be asked all the same when it has refused: a quota does not show in what a
/// file system has left. In seconds.
const DISTRUST_SECONDS: u64 = 600;
/// For how long nothing is tried to be removed from a pool after that has failed, in seconds.
const FIXED_SECONDS: u64 = 60;

/// A pool that is there, with its limit and its disk.
pub(super) struct Room {
    pub(super) account: Account,
    pool: Arc<Pool>,
    /// Of what is reserved, bytes that have not been taken from the disk yet.
    on_the_way: AtomicU64,
    disk_free: AtomicU64,
    /// When the disk last refused a fill, Unix seconds.
    refused_at: AtomicU64,
    /// When content could not be removed, Unix seconds.
    fixed_at: AtomicU64,
}

impl Room {
    pub(super) fn new(pool: Arc<Pool>, max: u64) -> Self {
        Self {
            account: Account::new(max),
            pool,
            on_the_way: AtomicU64::new(0),
            disk_free: AtomicU64::new(u64::MAX),
            refused_at: AtomicU64::new(0),
            fixed_at: AtomicU64::new(0),
        }
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(super) fn disk_free(&self) -> u64 {
        self.disk_free.load(Ordering::Relaxed)
    }

    /// What the file system has left, as just looked at.
    pub(super) fn set_disk_free(&self, bytes: u64) {
        self.disk_free.store(bytes, Ordering::Relaxed);
    }

    /// The disk has no room for a fill, or fails it.
    pub(super) fn refused(&self) {
        self.refused_at.store(clock::unix_seconds(), Ordering::Relaxed);
    }

    /// Content of it cannot be removed: its disk is read-only, or fails.
    pub(super) fn cannot_remove(&self) {
        self.fixed_at.store(clock::unix_seconds(), Ordering::Relaxed);
    }

    /// Whether nothing makes room in it: just now, or until the process is started again.
    pub(super) fn is_fixed(&self) -> bool {
        let fixed_at = self.fixed_at.load(Ordering::Relaxed);
        let was_fixed = clock::unix_seconds().saturating_sub(fixed_at) < FIXED_SECONDS;
        was_fixed || self.pool.is_poisoned()
    }

    fn was_refused(&self) -> bool {
        let refused_at = self.refused_at.load(Ordering::Relaxed);
        clock::unix_seconds().saturating_sub(refused_at) < REFUSED_SECONDS
    }

    /// Whether the disk has no room for new content: just now, or for as long as it is full.
    pub(super) fn is_full(&self) -> bool {
        self.was_refused() || self.disk_free() < DISK_MARGIN_BYTES
    }

    /// Whether the disk has so much more than what is promised that a promise can be relied on.
    pub(super) fn has_plenty(&self) -> bool {
        let refused_at = self.refused_at.load(Ordering::Relaxed);
        let left = self.disk_free().saturating_sub(self.on_the_way.load(Ordering::Relaxed));
        clock::unix_seconds().saturating_sub(refused_at) >= DISTRUST_SECONDS && left >= PLENTY_BYTES
    }

    /// Promises `bytes`, if they fit into the limit and onto the disk.
    pub(super) fn reserve(&self, bytes: u64) -> bool {
        if !self.reserve_disk(bytes) {
            return false;
        }
        let is_promised = self.account.reserve(bytes);
        if !is_promised {
            self.on_the_way.fetch_sub(bytes, Ordering::Relaxed);
        }
        is_promised
    }

    /// The same of what is held against no limit.
    pub(super) fn reserve_disk(&self, bytes: u64) -> bool {
        let free = self.disk_free().saturating_sub(DISK_MARGIN_BYTES);
        let fits = |wanted: u64| Some(wanted.saturating_add(bytes)).filter(|&all| all <= free);
        self.on_the_way.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// A promise ends, of which `on_the_way` was not taken from the disk. Its account is released
    /// by whoever holds it.
    pub(super) fn release_disk(&self, on_the_way: u64) {
        self.on_the_way.fetch_sub(on_the_way, Ordering::Relaxed);
    }

    /// What is promised has been taken from the disk. Until the disk is looked at again, it has
    /// that much less.
    pub(super) fn allocated(&self, bytes: u64) {
        let less = |free: u64| Some(free.saturating_sub(bytes));
        let _ = self.disk_free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.on_the_way.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes of evicted content are free, whether or not the disk says so already.
    pub(super) fn freed(&self, bytes: u64) {
        let more = |free: u64| Some(free.saturating_add(bytes));
        let _ = self.disk_free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// How many bytes of the disk lack for `bytes` more.
    pub(super) fn disk_lacking(&self, bytes: u64) -> u64 {
        let wanted = self.on_the_way.load(Ordering::Relaxed).saturating_add(bytes);
        wanted.saturating_add(DISK_MARGIN_BYTES).saturating_sub(self.disk_free())
    }

    /// Bytes that fit without evicting anything.
    fn free(&self, is_hosted: bool) -> u64 {
        let on_the_way = self.on_the_way.load(Ordering::Relaxed);
        let taken = DISK_MARGIN_BYTES.saturating_add(on_the_way);
        let on_disk = self.disk_free().saturating_sub(taken);
        if is_hosted {
            return on_disk;
        }
        self.account.max().saturating_sub(self.account.held()).min(on_disk)
    }
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").field("pool", &self.pool.name()).finish_non_exhaustive()
    }
}

/// The pool for the bytes of new content, wherever `claim` is, other than those that were `tried`: the one that is wanted,
/// if it takes anything, else one of those that have room, else one of those that can be given some.
/// `None` when no pool takes it.
pub(super) fn choose<'a>(
    rooms: impl Iterator<Item = &'a Room>,
    &Claim { bytes, is_hosted, .. }: &Claim,
    digest: &Digest,
    wanted: Option<u8>,
    tried: &[u8],
) -> Option<u8> {
    let usable: Vec<&Room> = rooms
        .filter(|room| !room.pool.is_poisoned() && !tried.contains(&room.pool.number()))
        .filter(|room| is_hosted || bytes <= room.account.max())
        .collect();
    if let Some(wanted) = usable.iter().find(|room| Some(room.pool.number()) == wanted) {
        return Some(wanted.pool.number());
    }
    let calm: Vec<&Room> = usable.iter().copied().filter(|room| !room.was_refused()).collect();
    // A disk that has just refused is asked again when there is no other.
    let asked = if calm.is_empty() { usable } else { calm };
    let weighted = |room: &&Room| (room.pool.number(), room.free(is_hosted));
    let with_room: Vec<(u8, u64)> =
        asked.iter().map(weighted).filter(|&(_, free)| free > 0 && free >= bytes).collect();
    if with_room.is_empty() {
        let all: Vec<(u8, u64)> = asked.iter().map(|room| (room.pool.number(), 1)).collect();
        return draw(&all, digest);
    }
    draw(&with_room, digest)
}

/// Weighted rendezvous hashing: each number wins in proportion to its weight, and a digest goes to
/// the same one as long as the weights stay about the same.
fn draw(weights: &[(u8, u64)], digest: &Digest) -> Option<u8> {
    let head = digest.as_bytes().first_chunk::<8>().map_or(0, |head| u64::from_le_bytes(*head));
    let score = |&(number, weight): &(u8, u64)| {
        let mixed = mix(head ^ mix(u64::from(number) + 1));
        // Between 0 and 1, neither of them included.
        let uniform = ((mixed >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        weight as f64 / -uniform.ln()
    };
    weights.iter().max_by(|a, b| score(a).total_cmp(&score(b))).map(|&(number, _)| number)
}

/// The finalizer of splitmix64: each bit of the outcome depends on all bits.
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;
    use crate::storage::{Store, WantedPool};

    const GIB: u64 = 1 << 30;

    fn digest(n: u32) -> Digest {
        Digest::of(Algorithm::Sha256, &n.to_le_bytes())
    }

    /// Rooms over pools that are all in one temporary folder, with these limits and free disks.
    fn rooms(sizes: &[(u64, u64)]) -> (Vec<Room>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(&folder.path().join("root")).unwrap();
        for number in 1..sizes.len() as u8 {
            let (name, path) = (format!("p{number}"), folder.path().join(number.to_string()));
            let wanted = WantedPool { number, name: &name, path: &path, is_made: false };
            assert!(store.open_pool(&[1; 16], wanted).unwrap());
        }
        let rooms: Vec<Room> = store
            .pools()
            .zip(sizes)
            .map(|(pool, &(max, disk))| {
                let room = Room::new(pool.clone(), max);
                room.set_disk_free(disk.saturating_add(DISK_MARGIN_BYTES));
                room
            })
            .collect();
        (rooms, folder)
    }

    fn claim(bytes: u64) -> Claim {
        Claim { pool: 0, owner: 0, is_hosted: false, bytes }
    }

    /// How many of 1,000 contents go to each.
    fn spread(rooms: &[Room], bytes: u64, tried: &[u8]) -> Vec<usize> {
        let mut counts = vec![0; rooms.len()];
        for n in 0..1000 {
            let chosen = choose(rooms.iter(), &claim(bytes), &digest(n), None, tried);
            counts[usize::from(chosen.unwrap())] += 1;
        }
        counts
    }

    #[test]
    fn content_is_spread_in_proportion_to_free_room() {
        let (rooms, _folder) = rooms(&[(u64::MAX, GIB), (2 * GIB, 9 * GIB), (u64::MAX, GIB)]);
        let counts = spread(&rooms, 1 << 20, &[]);
        assert!((420..580).contains(&counts[1]), "half of the room: {counts:?}");
        assert!((180..320).contains(&counts[0]), "a quarter of the room: {counts:?}");
        assert_eq!(spread(&rooms, 1 << 20, &[]), counts, "the same each time");
        let without = spread(&rooms, 1 << 20, &[1]);
        assert!(without[1] == 0 && (400..600).contains(&without[0]), "{without:?}");
        assert_eq!(spread(&rooms, GIB + 1, &[])[1], 1000, "only one has so much");
    }

    #[test]
    fn full_ones_are_equally_likely_and_refused_ones_are_left_alone() {
        let (rooms, _folder) = rooms(&[(GIB, u64::MAX), (9 * GIB, u64::MAX)]);
        rooms[0].account.set_used(GIB);
        rooms[1].account.set_used(9 * GIB);
        let counts = spread(&rooms, 1 << 20, &[]);
        assert!((420..580).contains(&counts[0]), "{counts:?}");
        assert_eq!(spread(&rooms, 2 * GIB, &[])[1], 1000, "larger than the other may be");
        rooms[1].refused();
        assert_eq!(spread(&rooms, 1 << 20, &[])[0], 1000);
        rooms[0].refused();
        assert!(spread(&rooms, 1 << 20, &[])[1] > 400, "both were refused: both are asked");
        assert_eq!(
            choose(rooms.iter(), &claim(1), &digest(1), Some(1), &[]),
            Some(1),
            "as it is wanted"
        );
        assert_eq!(
            choose(rooms.iter(), &claim(1), &digest(1), Some(1), &[1]),
            Some(0),
            "not that one"
        );
        assert_eq!(choose(rooms.iter(), &claim(1), &digest(1), Some(7), &[0, 1]), None);
    }

    #[test]
    fn a_promise_fits_the_limit_and_the_disk_or_is_not_given() {
        let (rooms, _folder) = rooms(&[(GIB, GIB / 2)]);
        let room = &rooms[0];
        assert!(!room.reserve(GIB / 2 + 1) && room.reserve(GIB / 2));
        assert!(!room.reserve(1), "the disk is promised");
        assert_eq!(room.disk_lacking(1), 1);
        room.allocated(GIB / 2);
        assert!(!room.reserve(1), "and now taken");
        room.set_disk_free(GIB);
        assert!(!room.reserve(GIB / 2 + 1), "over the limit");
        assert!(room.reserve(1 << 20));
        room.release_disk(1 << 20);
        room.account.release(1 << 20);
        room.account.release(GIB / 2);
        assert_eq!((room.account.reserved(), room.disk_lacking(GIB / 2)), (0, 0));
    }
    #[test]
    fn plenty_is_what_is_left_besides_promises_on_a_disk_that_did_not_refuse() {
        let (rooms, _folder) = rooms(&[(u64::MAX, 2 * GIB)]);
        let room = &rooms[0];
        assert!(room.has_plenty() && room.reserve(GIB) && room.has_plenty());
        assert!(room.reserve(8 << 20) && !room.has_plenty(), "too much of it is promised");
        room.release_disk(8 << 20);
        assert!(room.has_plenty());
        room.refused();
        assert!(!room.has_plenty(), "it said something else than it did");
    }
}
