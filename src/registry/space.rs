//! How much the store may hold: its accounts, what is promised, and who waits for room.
//!
//! Content is held against the limits of the whole store, of its pool, and of the upstream that
//! brought it, if that has one (`account`); a pool has a disk, too (`rooms`). A store without
//! further pools and limits has nothing to add up but itself.

mod reservation;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender};

use super::account::Account;
use super::rooms::{self, Room};
use crate::oci::Digest;
use crate::storage::Store;
pub use reservation::RoomRequest;
pub(super) use reservation::{Claim, NoRoom, Reservation, Waiting};

/// What the configuration allows.
#[derive(Debug, Clone, Default)]
pub struct SpaceLimits {
    /// Bytes of cached content, over all pools.
    pub total: u64,
    /// The same in pools that have a limit of their own, by their numbers.
    pub pools: HashMap<u8, u64>,
    /// The same of owners that have one.
    pub owners: HashMap<u16, u64>,
}

/// Bytes of cached content, kept and promised.
#[derive(Debug)]
pub struct Space {
    total: Account,
    rooms: Vec<Room>,
    owners: HashMap<u16, Account>,
    /// Whether content may be in the index that counts for nobody, or not for all accounts.
    is_divided: bool,
    no_room: AtomicU64,
    is_stuck: AtomicBool,
    evicted: AtomicU64,
    evicted_bytes: AtomicU64,
    /// Fills in the queue for room: newcomers stand behind them.
    waiting: AtomicUsize,
    requests: Sender<RoomRequest>,
}

/// Whose limit is reached: only what is held against it makes room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Owner(u16),
    Pool(u8),
    Total,
}

impl Limit {
    /// Whether this content is held against it.
    pub(super) fn counts(self, pool: u8, owner: u16) -> bool {
        match self {
            Self::Owner(of) => of == owner,
            Self::Pool(of) => of == pool,
            Self::Total => true,
        }
    }
}

impl Space {
    /// Room in the pools of this store, and the end that is told when some is wanted.
    pub fn new(store: &Store, limits: SpaceLimits) -> (Arc<Self>, Receiver<RoomRequest>) {
        // Every request belongs to a fill, whose numbers are limited; a hint is only sent where
        // none is waiting.
        let (requests, queue) = crossbeam_channel::unbounded();
        let room = |pool: &Arc<crate::storage::Pool>| {
            let max = limits.pools.get(&pool.number()).copied().unwrap_or(u64::MAX);
            Room::new(pool.clone(), max)
        };
        let rooms: Vec<Room> = store.pools().map(room).collect();
        let owners: HashMap<u16, Account> =
            limits.owners.into_iter().map(|(owner, max)| (owner, Account::new(max))).collect();
        let space = Self {
            total: Account::new(limits.total),
            is_divided: rooms.len() > 1 || !store.missing().is_empty() || !owners.is_empty(),
            rooms,
            owners,
            no_room: AtomicU64::new(0),
            is_stuck: AtomicBool::new(false),
            evicted: AtomicU64::new(0),
            evicted_bytes: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            requests,
        };
        (Arc::new(space), queue)
    }

    fn room(&self, pool: u8) -> Option<&Room> {
        self.rooms.iter().find(|room| room.pool().number() == pool)
    }

    /// The accounts of content in this pool; none when the pool is missing, for then its bytes
    /// are nowhere.
    fn accounts(&self, claim: &Claim) -> impl Iterator<Item = &Account> {
        let room = self.room(claim.pool).filter(|_| !claim.is_hosted);
        let owner = room.and_then(|_| self.owners.get(&claim.owner));
        let total = room.map(|_| &self.total);
        owner.into_iter().chain(room.map(|room| &room.account)).chain(total)
    }

    // ---- what is there ----

    /// Whether [`Space::set_used`] wants to be told of each content, or just of all at once.
    pub(super) fn is_divided(&self) -> bool {
        self.is_divided
    }

    /// What the store holds, told by who has it in writing.
    pub(super) fn set_used(&self, claims: impl IntoIterator<Item = Claim>) {
        let mut total = 0_u64;
        let mut pools: HashMap<u8, u64> = HashMap::new();
        let mut owners: HashMap<u16, u64> = HashMap::new();
        for claim in claims.into_iter().filter(|claim| self.room(claim.pool).is_some()) {
            total = total.saturating_add(claim.bytes);
            let pool = pools.entry(claim.pool).or_default();
            *pool = pool.saturating_add(claim.bytes);
            if self.owners.contains_key(&claim.owner) {
                let owner = owners.entry(claim.owner).or_default();
                *owner = owner.saturating_add(claim.bytes);
            }
        }
        self.total.set_used(total);
        for room in &self.rooms {
            room.account.set_used(pools.get(&room.pool().number()).copied().unwrap_or(0));
        }
        for (owner, account) in &self.owners {
            account.set_used(owners.get(owner).copied().unwrap_or(0));
        }
    }

    /// Content has been committed.
    pub(super) fn add(&self, claim: &Claim) {
        self.accounts(claim).for_each(|account| account.add(claim.bytes));
    }

    /// Content has left the store.
    pub(super) fn subtract(&self, claim: &Claim) {
        self.accounts(claim).for_each(|account| account.subtract(claim.bytes));
    }

    /// Content is about to lose its name; its bytes are on the disk for a while.
    pub(super) fn leaves(&self, claim: &Claim) {
        self.accounts(claim).for_each(|account| account.leaves(claim.bytes));
    }

    /// The bytes of content that lost its name are free.
    pub(super) fn has_left(&self, claim: &Claim) {
        if let Some(room) = self.room(claim.pool) {
            room.freed(claim.bytes);
        }
        self.accounts(claim).for_each(|account| account.has_left(claim.bytes));
    }

    /// Content that was about to leave has kept its name, or got it again.
    pub(super) fn stays(&self, claim: &Claim) {
        self.accounts(claim).for_each(|account| account.has_left(claim.bytes));
    }

    /// Content made room.
    pub(super) fn count_eviction(&self, bytes: u64) {
        self.evicted.fetch_add(1, Ordering::Relaxed);
        self.evicted_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    // ---- figures ----

    /// Contents and bytes that made room since the start.
    pub fn evictions(&self) -> (u64, u64) {
        (self.evicted.load(Ordering::Relaxed), self.evicted_bytes.load(Ordering::Relaxed))
    }

    /// Bytes of cached content.
    pub fn used(&self) -> u64 {
        self.total.used()
    }

    /// Bytes promised to downloads in progress.
    pub fn reserved(&self) -> u64 {
        self.total.reserved()
    }

    /// Bytes of evicted content that are not free yet, because somebody reads them.
    pub fn leaving(&self) -> u64 {
        self.total.leaving()
    }

    /// Bytes that cached content may have.
    pub fn max(&self) -> u64 {
        self.total.max()
    }

    /// Bytes of cached content in a pool; `None` when it is missing.
    pub fn used_in(&self, pool: u8) -> Option<u64> {
        self.room(pool).map(|room| room.account.used())
    }

    /// Bytes that a pool with a limit of its own may have.
    pub fn max_in(&self, pool: u8) -> Option<u64> {
        let max = self.room(pool).map(|room| room.account.max());
        max.filter(|&max| max < u64::MAX)
    }

    /// Bytes that the disk of a pool has left, as last looked at; `None` when it is missing.
    pub fn disk_free_in(&self, pool: u8) -> Option<u64> {
        self.room(pool).map(Room::disk_free)
    }

    /// Bytes of cached content that an owner with a limit of its own brought, and that limit.
    pub fn owned(&self, owner: u16) -> Option<(u64, u64)> {
        self.owners.get(&owner).map(|account| (account.used(), account.max()))
    }

    /// Fills that found no room since the start.
    pub fn no_room(&self) -> u64 {
        self.no_room.load(Ordering::Relaxed)
    }

    /// Whether room lacks and nothing may be evicted.
    pub fn is_stuck(&self) -> bool {
        self.is_stuck.load(Ordering::Relaxed)
    }

    /// Says whether room lacks although nothing may be evicted; returns whether that is news.
    pub(super) fn set_stuck(&self, is_stuck: bool) -> bool {
        self.is_stuck.swap(is_stuck, Ordering::Relaxed) != is_stuck
    }

    /// Whether no disk has room for new content: just now, or for as long as it is full.
    pub fn is_full(&self) -> bool {
        self.rooms.iter().all(Room::is_full)
    }

    /// Looks at what the disks have left. Blocks.
    pub fn look_at_disks(&self, store: &Store) {
        for room in &self.rooms {
            let pool = room.pool();
            match store.free_bytes(pool.number()) {
                Ok(free) => room.set_disk_free(free),
                Err(error) => {
                    tracing::error!(%error, pool = pool.name(), "cannot tell what a disk has left");
                }
            }
        }
    }

    // ---- making room ----

    /// The pool for new content, as [`rooms::choose`] says.
    pub(super) fn choose_pool(
        &self,
        claim: &Claim,
        digest: &Digest,
        wanted: Option<u8>,
        tried: &[u8],
    ) -> Option<u8> {
        rooms::choose(self.rooms.iter(), claim, digest, wanted, tried)
    }

    /// What lacks for a claim to fit: whose limit it is, and by how much. The narrowest limit
    /// first, because what makes room there makes room in the wider ones.
    pub(super) fn lacks(&self, claim: &Claim) -> Option<(Limit, u64)> {
        if claim.is_hosted {
            let disk = self.room(claim.pool).map_or(0, |room| room.disk_lacking(claim.bytes));
            return (disk > 0).then_some((Limit::Pool(claim.pool), disk));
        }
        let owner = self.owners.get(&claim.owner).map_or(0, |it| it.lacking(claim.bytes));
        let pool = self.room(claim.pool).map_or(0, |room| {
            room.account.lacking(claim.bytes).max(room.disk_lacking(claim.bytes))
        });
        let total = self.total.lacking(claim.bytes);
        let all = [
            (Limit::Owner(claim.owner), owner),
            (Limit::Pool(claim.pool), pool),
            (Limit::Total, total),
        ];
        all.into_iter().find(|(_, lacking)| *lacking > 0)
    }

    /// A limit that is exceeded by what is there already. Not of a pool that cannot be emptied.
    pub(super) fn exceeded(&self, except: &[Limit]) -> Option<(Limit, u64)> {
        let owners = self.owners.iter().map(|(owner, it)| (Limit::Owner(*owner), it.lacking(0)));
        let pools = self.rooms.iter().filter(|room| !room.is_fixed()).map(|room| {
            let lacking = room.account.lacking(0).max(room.disk_lacking(0));
            (Limit::Pool(room.pool().number()), lacking)
        });
        let total = std::iter::once((Limit::Total, self.total.lacking(0)));
        let mut all = owners.chain(pools).chain(total);
        all.find(|(limit, lacking)| *lacking > 0 && !except.contains(limit))
    }

    /// How many bytes are held over the low watermark of a limit.
    pub(super) fn above_low(&self, limit: Limit) -> u64 {
        match limit {
            Limit::Owner(owner) => self.owners.get(&owner).map_or(0, Account::above_low),
            Limit::Pool(pool) => self.room(pool).map_or(0, |room| room.account.above_low()),
            Limit::Total => self.total.above_low(),
        }
    }

    /// Content of this pool cannot be removed.
    pub(super) fn cannot_remove(&self, pool: u8) {
        if let Some(room) = self.room(pool) {
            room.cannot_remove();
        }
    }

    /// Whether trying to make room in this pool is of no use.
    pub(super) fn is_fixed(&self, pool: u8) -> bool {
        self.room(pool).is_some_and(Room::is_fixed)
    }

    /// Whether the disk of a pool has so much more than what is promised that a promise can be
    /// relied on.
    pub(super) fn has_plenty(&self, pool: u8) -> bool {
        self.room(pool).is_some_and(Room::has_plenty)
    }

    /// Whether the disk has no room for these.
    pub(super) fn lacks_disk(&self, claim: &Claim) -> bool {
        self.room(claim.pool).is_none_or(|room| room.disk_lacking(claim.bytes) > 0)
    }

    /// The disk of a pool has no room for a fill, or fails it.
    pub(super) fn disk_refused(&self, pool: u8) {
        if let Some(room) = self.room(pool) {
            room.refused();
        }
    }

    /// The disk refused bytes that were thought to fit.
    pub(super) fn refused(&self, pool: u8) {
        self.disk_refused(pool);
        self.look();
    }

    /// Tells the thread that makes room to look around.
    fn look(&self) {
        // One hint is enough, however many want room.
        if self.requests.is_empty() {
            let _ = self.requests.send(RoomRequest(None));
        }
    }
}
