//! A place for new content: room promised in a pool, and a staging file there that has taken it.

use super::space::{Claim, Reservation};
use super::state::Shared;
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
    let owner = shared.owner(scope);
    let mut why = NoPlace::NoRoom;
    let mut tried = Vec::new();
    while let Some(pool) = shared.space.choose_pool(bytes, digest, wanted, &tried) {
        let claim = Claim { pool, owner, bytes };
        // Only once: each wait is as long as a client has patience for.
        let reservation = match tried.is_empty() {
            true => shared.space.reserve(claim).await.ok(),
            false => shared.space.try_reserve(claim),
        };
        tried.push(pool);
        let Some(mut reservation) = reservation else { continue };
        match stage(shared, digest, &claim).await {
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

async fn stage(shared: &Shared, digest: &Digest, claim: &Claim) -> Result<Staged, StageError> {
    let staged = Staged::create(&shared.store, claim.pool, *digest).await?;
    staged.allocate(claim.bytes).await?;
    Ok(staged)
}
