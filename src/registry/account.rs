//! What is held against one limit: that of the whole store, of a pool, or of an upstream.
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
//! Not counted are files without a name, what is in quarantine, and, while an index that was lost is
//! filled, what it has not been told yet: for so long there may be more than the limit.

use std::sync::atomic::{AtomicU64, Ordering};

/// An account over its limit is emptied by this part of it more than it has to, at most
/// [`LOW_WATERMARK_BYTES`], so that not every download has to wait for an eviction of its own.
const LOW_WATERMARK_PARTS: u64 = 20;
/// More than this frees nobody sooner: a big store need not throw away hours of downloads at once.
const LOW_WATERMARK_BYTES: u64 = 8 << 30;

/// One limit, and what is held against it.
#[derive(Debug)]
pub(super) struct Account {
    max: u64,
    used: AtomicU64,
    reserved: AtomicU64,
    leaving: AtomicU64,
}

impl Account {
    pub(super) fn new(max: u64) -> Self {
        let (used, reserved, leaving) = Default::default();
        Self { max, used, reserved, leaving }
    }

    pub(super) fn max(&self) -> u64 {
        self.max
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
    }

    pub(super) fn leaving(&self) -> u64 {
        self.leaving.load(Ordering::Relaxed)
    }

    /// What is stored, told by who has it in writing.
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
        self.leaving.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Promises `bytes`, if they fit.
    pub(super) fn reserve(&self, bytes: u64) -> bool {
        let more = |reserved: u64| {
            let used = self.used.load(Ordering::Acquire);
            let held = used.saturating_add(self.leaving.load(Ordering::Relaxed));
            let all = held.saturating_add(reserved).saturating_add(bytes);
            (all <= self.max).then(|| reserved.saturating_add(bytes))
        };
        self.reserved.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// A promise ends. Released after its content was counted as used.
    pub(super) fn release(&self, bytes: u64) {
        self.reserved.fetch_sub(bytes, Ordering::Release);
    }

    pub(super) fn held(&self) -> u64 {
        // In the order in which bytes move: whoever sees fewer reserved or used sees where they
        // have gone.
        let reserved = self.reserved.load(Ordering::Acquire);
        let used = self.used.load(Ordering::Acquire);
        let leaving = self.leaving.load(Ordering::Relaxed);
        used.saturating_add(reserved).saturating_add(leaving)
    }

    /// How many bytes lack for `bytes` more to fit.
    pub(super) fn lacking(&self, bytes: u64) -> u64 {
        self.held().saturating_add(bytes).saturating_sub(self.max)
    }

    /// How many bytes are held over the low watermark.
    pub(super) fn above_low(&self) -> u64 {
        let distance = (self.max / LOW_WATERMARK_PARTS).min(LOW_WATERMARK_BYTES);
        self.held().saturating_sub(self.max - distance)
    }
}
