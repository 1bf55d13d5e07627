//! Promises of room: asked for by a fill, given by whoever has some.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_channel::oneshot;

use super::Space;
use crate::runtime::timeout;

/// How long a fill waits for room before it is passed through instead.
const ROOM_TIMEOUT: Duration = Duration::from_secs(3);

/// Bytes, the pool that they are in, and who brought them. What is ours is held against no limit
/// but that of its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::registry) struct Claim {
    pub(in crate::registry) pool: u8,
    pub(in crate::registry) owner: u16,
    pub(in crate::registry) is_hosted: bool,
    pub(in crate::registry) bytes: u64,
}

/// What the thread that makes room is told.
pub struct RoomRequest(pub(in crate::registry) Option<Waiting>);

/// A fill that waits for room.
pub(in crate::registry) struct Waiting {
    pub(in crate::registry) claim: Claim,
    pub(in crate::registry) answer: oneshot::Sender<Reservation>,
}

/// A fill that has more bytes than the store has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::registry) struct NoRoom;

/// Bytes promised to one fill; given back when dropped, by when they are either used or gone.
#[derive(Debug)]
pub(in crate::registry) struct Reservation {
    space: Arc<Space>,
    claim: Claim,
    /// Of these, not taken from the disk yet.
    on_the_way: u64,
}

impl Space {
    /// Promises bytes to a fill, after room has been made if need be: first come, first served.
    ///
    /// # Errors
    /// [`NoRoom`]: it is larger than a limit, or nothing could be evicted in time.
    pub(in crate::registry) async fn reserve(
        self: &Arc<Self>,
        claim: Claim,
    ) -> Result<Reservation, NoRoom> {
        if self.accounts(&claim).any(|account| claim.bytes > account.max()) {
            self.no_room.fetch_add(1, Ordering::Relaxed);
            return Err(NoRoom);
        }
        if self.waiting.load(Ordering::Relaxed) == 0
            && let Some(reservation) = self.try_reserve(claim)
        {
            return Ok(reservation);
        }
        let (answer, granted) = oneshot::channel();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let found = if self.requests.send(RoomRequest(Some(Waiting { claim, answer }))).is_ok() {
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
    pub(in crate::registry) fn try_reserve(self: &Arc<Self>, claim: Claim) -> Option<Reservation> {
        let room = self.room(claim.pool)?;
        if claim.is_hosted {
            let is_promised = room.reserve_disk(claim.bytes);
            let (space, on_the_way) = (self.clone(), claim.bytes);
            return is_promised.then(|| Reservation { space, claim, on_the_way });
        }
        if !room.reserve(claim.bytes) {
            return None;
        }
        let owner = self.owners.get(&claim.owner);
        let is_owned = owner.is_none_or(|account| account.reserve(claim.bytes));
        if is_owned && self.total.reserve(claim.bytes) {
            return Some(Reservation { space: self.clone(), claim, on_the_way: claim.bytes });
        }
        room.release_disk(claim.bytes);
        room.account.release(claim.bytes);
        if let Some(owner) = owner.filter(|_| is_owned) {
            owner.release(claim.bytes);
        }
        None
    }
}

impl Reservation {
    /// Bytes promised.
    pub(in crate::registry) fn bytes(&self) -> u64 {
        self.claim.bytes
    }

    /// Whether all that is promised has been taken from the disk.
    pub(in crate::registry) fn is_taken(&self) -> bool {
        self.on_the_way == 0
    }

    /// What is promised has been taken from the disk.
    pub(in crate::registry) fn allocated(&mut self) {
        let bytes = std::mem::take(&mut self.on_the_way);
        if let Some(room) = self.space.room(self.claim.pool) {
            room.allocated(bytes);
        }
    }

    /// Promises `bytes` more, for content whose size nobody has told.
    ///
    /// # Errors
    /// As [`Space::reserve`].
    pub(in crate::registry) async fn grow(&mut self, bytes: u64) -> Result<(), NoRoom> {
        let whole = Claim { bytes: self.claim.bytes.saturating_add(bytes), ..self.claim };
        if self.space.accounts(&whole).any(|account| whole.bytes > account.max()) {
            return Err(NoRoom);
        }
        let mut more = self.space.reserve(Claim { bytes, ..self.claim }).await?;
        // Neither of the two may give it back twice.
        self.claim.bytes += std::mem::take(&mut more.claim.bytes);
        self.on_the_way += std::mem::take(&mut more.on_the_way);
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(room) = self.space.room(self.claim.pool) {
            room.release_disk(self.on_the_way);
        }
        self.space.accounts(&self.claim).for_each(|account| account.release(self.claim.bytes));
        if self.space.waiting.load(Ordering::Relaxed) > 0 {
            self.space.look();
        }
    }
}
