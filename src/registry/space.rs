//! How much the store may hold: what is there, what is promised, and who waits for room.
//!
//! ```text
//! held = used       cached content that has a name
//!      + reserved   promised to downloads in progress
//!      + leaving    evicted, but its bytes are not free yet: to be removed, or still being read
//! ```
//!
//! **Invariant:** nothing is promised that would bring `held` over the limit, and a byte is counted
//! in at least one of the three from before it is on the disk until after it has left. What is
//! counted twice for a moment (content is named before its promise ends) only makes others wait.

mod reservation;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender};

use crate::runtime::clock;
pub use reservation::RoomRequest;
pub(super) use reservation::{NoRoom, Reservation, Waiting};

/// A store over its limit is emptied by this part of it more than it has to, at most
/// [`LOW_WATERMARK_BYTES`], so that not every download has to wait for an eviction of its own.
const LOW_WATERMARK_PARTS: u64 = 20;
/// More than this frees nobody sooner: a big store need not throw away hours of downloads at once.
const LOW_WATERMARK_BYTES: u64 = 8 << 30;
/// Room that is left to the catalog and to others on the same disk.
const DISK_MARGIN_BYTES: u64 = 4 * 1024 * 1024;
/// For how long a refusal makes the disk count as full, in seconds.
const REFUSED_SECONDS: u64 = 3;

/// Bytes of cached content, kept and promised.
#[derive(Debug)]
pub struct Space {
    max: u64,
    used: AtomicU64,
    reserved: AtomicU64,
    leaving: AtomicU64,
    /// Of what is reserved, bytes that have not been taken from the disk yet.
    on_the_way: AtomicU64,
    disk_free: AtomicU64,
    /// When the disk last had no room for a fill, Unix seconds.
    refused_at: AtomicU64,
    no_room: AtomicU64,
    is_stuck: AtomicBool,
    evicted: AtomicU64,
    evicted_bytes: AtomicU64,
    /// Fills in the queue for room: newcomers stand behind them.
    waiting: AtomicUsize,
    requests: Sender<RoomRequest>,
}

impl Space {
    /// Room for `max` bytes, and the end that is told when some is wanted.
    pub fn new(max: u64) -> (Arc<Self>, Receiver<RoomRequest>) {
        // Every request belongs to a fill, whose numbers are limited; a hint is only sent where
        // none is waiting.
        let (requests, queue) = crossbeam_channel::unbounded();
        let space = Self {
            max,
            used: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
            leaving: AtomicU64::new(0),
            on_the_way: AtomicU64::new(0),
            disk_free: AtomicU64::new(u64::MAX),
            refused_at: AtomicU64::new(0),
            no_room: AtomicU64::new(0),
            is_stuck: AtomicBool::new(false),
            evicted: AtomicU64::new(0),
            evicted_bytes: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            requests,
        };
        (Arc::new(space), queue)
    }

    // ---- what is there ----

    /// What the store holds, told by who has it in writing.
    pub(super) fn set_used(&self, bytes: u64) {
        self.used.store(bytes, Ordering::Relaxed);
    }

    /// Content has been committed.
    pub(super) fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Content has left the store.
    pub(super) fn subtract(&self, bytes: u64) {
        // Never below zero, whatever was counted before a crash. Released after what was added to
        // `leaving`, so that nobody sees it in neither.
        let less = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self.used.fetch_update(Ordering::Release, Ordering::Relaxed, less);
    }

    /// Content is about to lose its name; its bytes are on the disk for a while.
    pub(super) fn leaves(&self, bytes: u64) {
        self.leaving.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The bytes of content that lost its name are free.
    pub(super) fn has_left(&self, bytes: u64) {
        let more = |free: u64| Some(free.saturating_add(bytes));
        let _ = self.disk_free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        self.leaving.fetch_sub(bytes, Ordering::Relaxed);
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
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes promised to downloads in progress.
    pub fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Bytes of evicted content that are not free yet, because somebody reads them.
    pub fn leaving(&self) -> u64 {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Bytes that cached content may have.
    pub fn max(&self) -> u64 {
        self.max
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

    /// Whether the disk has no room for new content: just now, or for as long as it is full.
    pub fn is_full(&self) -> bool {
        let refused_at = self.refused_at.load(Ordering::Relaxed);
        clock::unix_seconds().saturating_sub(refused_at) < REFUSED_SECONDS
            || self.disk_free.load(Ordering::Relaxed) < DISK_MARGIN_BYTES
    }

    /// What the file system has left, as just looked at.
    pub fn set_disk_free(&self, bytes: u64) {
        self.disk_free.store(bytes, Ordering::Relaxed);
    }

    // ---- making room ----

    fn held(&self) -> u64 {
        // In the order in which bytes move: whoever sees fewer reserved or used sees where they
        // have gone.
        let reserved = self.reserved.load(Ordering::Acquire);
        let used = self.used.load(Ordering::Acquire);
        let leaving = self.leaving.load(Ordering::Relaxed);
        used.saturating_add(reserved).saturating_add(leaving)
    }

    /// How many bytes lack for `bytes` more to fit, into the limit and onto the disk.
    pub(super) fn lacking(&self, bytes: u64) -> u64 {
        let wanted = self.on_the_way.load(Ordering::Relaxed).saturating_add(bytes);
        let on_disk = wanted.saturating_add(DISK_MARGIN_BYTES);
        let over_disk = on_disk.saturating_sub(self.disk_free.load(Ordering::Relaxed));
        self.held().saturating_add(bytes).saturating_sub(self.max).max(over_disk)
    }

    /// Whether the disk has no room for these.
    pub(super) fn lacks_disk(&self, bytes: u64) -> bool {
        let wanted = self.on_the_way.load(Ordering::Relaxed).saturating_add(bytes);
        wanted.saturating_add(DISK_MARGIN_BYTES) > self.disk_free.load(Ordering::Relaxed)
    }

    /// How many bytes are held over the low watermark.
    pub(super) fn above_low(&self) -> u64 {
        let distance = (self.max / LOW_WATERMARK_PARTS).min(LOW_WATERMARK_BYTES);
        self.held().saturating_sub(self.max - distance)
    }

    /// The disk has no room for a fill.
    pub(super) fn disk_refused(&self) {
        self.refused_at.store(clock::unix_seconds(), Ordering::Relaxed);
    }

    /// The disk refused bytes that were thought to fit.
    pub(super) fn refused(&self) {
        self.disk_refused();
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
