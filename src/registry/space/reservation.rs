//! Promises of room: asked for by a fill, given by whoever has some.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_channel::oneshot;

use super::{DISK_MARGIN_BYTES, Space};
use crate::runtime::timeout;

/// How long a fill waits for room before it is passed through instead.
const ROOM_TIMEOUT: Duration = Duration::from_secs(3);

/// What the thread that makes room is told.
pub struct RoomRequest(pub(in crate::registry) Option<Waiting>);

/// A fill that waits for room.
pub(in crate::registry) struct Waiting {
    pub(in crate::registry) bytes: u64,
    pub(in crate::registry) answer: oneshot::Sender<Reservation>,
}

/// A fill that has more bytes than the store has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::registry) struct NoRoom;

/// Bytes promised to one fill; given back when dropped, by when they are either used or gone.
#[derive(Debug)]
pub(in crate::registry) struct Reservation {
    space: Arc<Space>,
    bytes: u64,
    /// Of these, not taken from the disk yet.
    on_the_way: u64,
}

impl Space {
    /// Promises `bytes` to a fill, after room has been made if need be: first come, first served.
    ///
    /// # Errors
    /// [`NoRoom`]: it is larger than the store, or nothing could be evicted in time.
    pub(in crate::registry) async fn reserve(
        self: &Arc<Self>,
        bytes: u64,
    ) -> Result<Reservation, NoRoom> {
        if bytes > self.max {
            self.no_room.fetch_add(1, Ordering::Relaxed);
            return Err(NoRoom);
        }
        if self.waiting.load(Ordering::Relaxed) == 0
            && let Some(reservation) = self.try_reserve(bytes)
        {
            return Ok(reservation);
        }
        let (answer, granted) = oneshot::channel();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let found = if self.requests.send(RoomRequest(Some(Waiting { bytes, answer }))).is_ok() {
            timeout(ROOM_TIMEOUT, granted).await
        } else {
            Ok(Err(oneshot::Canceled))
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        match found {
            Ok(Ok(reservation)) => Ok(reservation),
            Ok(Err(oneshot::Canceled)) | Err(_) => {
                self.no_room.fetch_add(1, Ordering::Relaxed);
                Err(NoRoom)
            }
        }
    }

    /// The same at once or not at all.
    pub(in crate::registry) fn try_reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        let more = |reserved: u64| {
            let used = self.used.load(Ordering::Acquire);
            let held = used.saturating_add(self.leaving.load(Ordering::Relaxed));
            let all = held.saturating_add(reserved).saturating_add(bytes);
            (all <= self.max).then(|| reserved.saturating_add(bytes))
        };
        let free = self.disk_free.load(Ordering::Relaxed).saturating_sub(DISK_MARGIN_BYTES);
        let fits_disk = |wanted: u64| Some(wanted.saturating_add(bytes)).filter(|&all| all <= free);
        let relaxed = Ordering::Relaxed;
        self.on_the_way.fetch_update(relaxed, relaxed, fits_disk).ok()?;
        if self.reserved.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_err() {
            self.on_the_way.fetch_sub(bytes, Ordering::Relaxed);
            return None;
        }
        Some(Reservation { space: self.clone(), bytes, on_the_way: bytes })
    }
}

impl Reservation {
    /// Bytes promised.
    pub(in crate::registry) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is promised has been taken from the disk. Until the disk is looked at again, it has
    /// that much less.
    pub(in crate::registry) fn allocated(&mut self) {
        let bytes = std::mem::take(&mut self.on_the_way);
        let less = |free: u64| Some(free.saturating_sub(bytes));
        let _ = self.space.disk_free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.space.on_the_way.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Promises `bytes` more, for content whose size nobody has told.
    ///
    /// # Errors
    /// As [`Space::reserve`].
    pub(in crate::registry) async fn grow(&mut self, bytes: u64) -> Result<(), NoRoom> {
        if self.bytes.saturating_add(bytes) > self.space.max {
            return Err(NoRoom);
        }
        let mut more = self.space.reserve(bytes).await?;
        // Neither of the two may give it back twice.
        self.bytes += std::mem::take(&mut more.bytes);
        self.on_the_way += std::mem::take(&mut more.on_the_way);
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.space.on_the_way.fetch_sub(self.on_the_way, Ordering::Relaxed);
        // Released after the content was counted as used.
        self.space.reserved.fetch_sub(self.bytes, Ordering::Release);
        if self.space.waiting.load(Ordering::Relaxed) > 0 {
            self.space.look();
        }
    }
}
