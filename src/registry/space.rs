//! How much the store may hold: accounting, reservations for fills, and making room.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use event_listener::Event;

use crate::runtime::{clock, timeout};

/// Down to which part of `max_size` room is made once it is exceeded.
const LOW_WATERMARK_PERCENT: u64 = 90;
/// Room that is left to the catalog and to others on the same disk.
const DISK_MARGIN_BYTES: u64 = 4 * 1024 * 1024;
/// For how long a refusal makes the store count as full, in seconds.
const REFUSED_SECONDS: u64 = 3;
/// How long a fill waits for room before it is passed through instead.
const ROOM_TIMEOUT: Duration = Duration::from_secs(3);

/// Bytes of cached content, kept and promised.
#[derive(Debug)]
pub struct Space {
    max: u64,
    used: AtomicU64,
    reserved: AtomicU64,
    disk_free: AtomicU64,
    /// When the disk last had no room for a fill, Unix seconds.
    refused_at: AtomicU64,
    evicted: AtomicU64,
    evicted_bytes: AtomicU64,
    /// Told when a fill lacks room.
    wanted: crossbeam_channel::Sender<()>,
    /// Told when room was made.
    made: Event,
}

/// A fill that has more bytes than the store has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRoom;

/// Bytes promised to one fill; given back when dropped, by when they are either used or gone.
pub(super) struct Reservation {
    space: Arc<Space>,
    bytes: u64,
}

impl Space {
    /// Room for `max` bytes, and the end that is told when some is wanted.
    pub fn new(max: u64) -> (Arc<Self>, crossbeam_channel::Receiver<()>) {
        let (wanted, queue) = crossbeam_channel::bounded(1);
        let space = Self {
            max,
            used: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
            disk_free: AtomicU64::new(u64::MAX),
            refused_at: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            evicted_bytes: AtomicU64::new(0),
            wanted,
            made: Event::new(),
        };
        (Arc::new(space), queue)
    }

    /// What the store holds, told by who has it in writing.
    pub(super) fn set_used(&self, bytes: u64) {
        self.used.store(bytes, Ordering::Relaxed);
        self.made.notify(usize::MAX);
    }

    /// Content has been committed. Until the disk is looked at again, it has that much less.
    pub(super) fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        let less = |free: u64| Some(free.saturating_sub(bytes));
        let _ = self.disk_free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Content has left the store.
    pub(super) fn subtract(&self, bytes: u64) {
        // Never below zero, whatever was counted before a crash.
        let less = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Content made room.
    pub(super) fn count_eviction(&self, bytes: u64) {
        self.evicted.fetch_add(1, Ordering::Relaxed);
        self.evicted_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Contents and bytes that made room since the start.
    pub fn evictions(&self) -> (u64, u64) {
        (self.evicted.load(Ordering::Relaxed), self.evicted_bytes.load(Ordering::Relaxed))
    }

    /// Bytes of cached content.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that cached content may have.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Whether new content finds no room: just now, or for as long as the disk is full.
    pub fn is_full(&self) -> bool {
        let refused_at = self.refused_at.load(Ordering::Relaxed);
        clock::unix_seconds().saturating_sub(refused_at) < REFUSED_SECONDS
            || self.disk_free.load(Ordering::Relaxed) < DISK_MARGIN_BYTES
    }

    /// The disk refused bytes that were thought to fit.
    pub(super) fn refused(&self) {
        self.refused_at.store(clock::unix_seconds(), Ordering::Relaxed);
        let _ = self.wanted.try_send(());
    }

    /// What the file system has left, as last looked at.
    pub fn set_disk_free(&self, bytes: u64) {
        self.disk_free.store(bytes, Ordering::Relaxed);
        self.made.notify(usize::MAX);
    }

    /// How many bytes have to go: none while below the limit, and then down to the low watermark.
    pub(super) fn excess(&self) -> u64 {
        let held = self.used().saturating_add(self.reserved.load(Ordering::Relaxed));
        let low = self.max / 100 * LOW_WATERMARK_PERCENT;
        let over_limit = if held > self.max { held - low } else { 0 };
        let free = self.disk_free.load(Ordering::Relaxed);
        over_limit.max(DISK_MARGIN_BYTES.saturating_sub(free))
    }

    /// Promises `bytes` to a fill, after room has been made if need be.
    ///
    /// # Errors
    /// [`NoRoom`]: it is larger than the store, or nothing could be evicted in time.
    pub(super) async fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, NoRoom> {
        if bytes > self.max {
            return Err(NoRoom);
        }
        let reservation = Reservation { space: self.clone(), bytes };
        self.reserved.fetch_add(bytes, Ordering::Relaxed);
        let room = async {
            loop {
                let made = self.made.listen();
                if self.fits() {
                    return;
                }
                // One signal is enough, however many want room.
                let _ = self.wanted.try_send(());
                made.await;
            }
        };
        timeout(ROOM_TIMEOUT, room).await.map(|()| reservation).map_err(|_| {
            self.refused();
            NoRoom
        })
    }

    /// Whether all that is promised fits, into the limit and onto the disk.
    fn fits(&self) -> bool {
        let reserved = self.reserved.load(Ordering::Relaxed);
        let on_disk = reserved.saturating_add(DISK_MARGIN_BYTES);
        self.used().saturating_add(reserved) <= self.max
            && on_disk <= self.disk_free.load(Ordering::Relaxed)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.space.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
        self.space.made.notify(usize::MAX);
    }
}
