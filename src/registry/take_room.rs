//! A place for new content: room promised in a pool, and a staging file there that has taken it.

use super::space::{Claim, Reservation};
use super::state::Shared;
use crate::catalog::NO_OWNER;
use crate::oci::{Digest, Scope};
use crate::storage::{StageError, Staged};

/// Why there is none.
#[derive(Debug)]
pub(super) enum NoPlace {
    /// No pool has the room.
    NoRoom,
    /// The disks fail.
    Failed(StageError),
}

/// Promises room for `bytes` in the pool that is wanted, or in another one, and takes it from the
/// disk. What one pool refuses is offered to the others.
pub(super) async fn take_room(
    shared: &Shared,
    (scope, digest): (&Scope, &Digest),
    bytes: u64,
    wanted: Option<u8>,
) -> Result<(Staged, Reservation), NoPlace> {
    let claim = Claim { pool: 0, owner: shared.owner(scope), is_hosted: false, bytes };
    find_room(shared, digest, claim, wanted).await
}

/// The same for content that is ours: only the disks limit it.
pub(super) async fn take_hosted_room(
    shared: &Shared,
    digest: &Digest,
    bytes: u64,
) -> Result<(Staged, Reservation), NoPlace> {
    let claim = Claim { pool: 0, owner: NO_OWNER, is_hosted: true, bytes };
    find_room(shared, digest, claim, None).await
}

async fn find_room(
    shared: &Shared,
    digest: &Digest,
    claim: Claim,
    wanted: Option<u8>,
) -> Result<(Staged, Reservation), NoPlace> {
    let mut why = NoPlace::NoRoom;
    let mut tried = Vec::new();
    while let Some(pool) = shared.space.choose_pool(&claim, digest, wanted, &tried) {
        let claim = Claim { pool, ..claim };
        // Only once: each wait is as long as a client has patience for.
        let reservation = match tried.is_empty() {
            true => shared.space.reserve(claim).await.ok(),
            false => shared.space.try_reserve(claim),
        };
        tried.push(pool);
        let Some(mut reservation) = reservation else { continue };
        match Staged::create(&shared.store, claim.pool, *digest, claim.bytes).await {
            Ok(staged) => {
                reservation.allocated();
                return Ok((staged, reservation));
            }
            Err(error) => {
                tracing::warn!(pool, %error, "a pool does not take new content");
                shared.space.refused(pool);
                if !error.is_full() {
                    why = NoPlace::Failed(error);
                }
            }
        }
    }
    Err(why)
}
