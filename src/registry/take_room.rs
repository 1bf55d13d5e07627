//! A place for new content: room promised in a pool, and a staging file there that has taken it.
//!
//! A fill makes its file while its upstream is asked, in the pool that is likely to be the one, and
//! takes the room from a disk that has plenty of it when its first bytes are there: on a file system
//! that looks for free inodes and blocks on the disk each of these takes up to a millisecond, in which
//! a client would wait.

use std::sync::Arc;

use super::Space;
use super::space::{Claim, Reservation};
use super::state::Shared;
use crate::catalog::NO_OWNER;
use crate::oci::{Digest, Scope};
use crate::storage::{StageError, Staged, Store};

/// So little is written sooner than a disk with plenty could be asked for it.
const WRITTEN_SOON_BYTES: u64 = 1024 * 1024;

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
    find_room((&shared.space, &shared.store), digest, claim, wanted, None).await
}

/// A staging file without room, made before the size of its content is known, where that will
/// likely be. `None` where the disks refuse, which shows again when it is needed.
pub(super) async fn make_ahead(
    shared: &Shared,
    (scope, digest): (&Scope, &Digest),
    wanted: Option<u8>,
) -> Option<Staged> {
    let claim = Claim { pool: 0, owner: shared.owner(scope), is_hosted: false, bytes: 0 };
    let pool = shared.space.choose_pool(&claim, digest, wanted, &[])?;
    Staged::create(&shared.store, pool, *digest, 0).await.ok()
}

/// The same as [`take_room`] for a fill, which may have made its file. Of a disk that has plenty the
/// room is only promised: it is taken by [`take_promised`].
pub(super) async fn take_room_for_fill(
    shared: &Shared,
    (scope, digest): (&Scope, &Digest),
    bytes: u64,
    wanted: Option<u8>,
    made: &mut Option<Staged>,
) -> Result<(Staged, Reservation), NoPlace> {
    let claim = Claim { pool: 0, owner: shared.owner(scope), is_hosted: false, bytes };
    find_room((&shared.space, &shared.store), digest, claim, wanted, Some(made)).await
}

/// Takes from the disk what was only promised to content of known size, if anything was.
///
/// # Errors
/// The disk has not got it, or fails.
pub(super) async fn take_promised(
    space: &Space,
    staged: &Staged,
    place: &mut Reservation,
) -> Result<(), StageError> {
    if place.is_taken() {
        return Ok(());
    }
    if place.bytes() > WRITTEN_SOON_BYTES
        && let Err(error) = staged.take_room(place.bytes()).await
    {
        space.refused(staged.pool());
        return Err(error);
    }
    place.allocated();
    Ok(())
}

/// The same for content that is ours: only the disks limit it.
pub(super) async fn take_hosted_room(
    shared: &Shared,
    digest: &Digest,
    bytes: u64,
) -> Result<(Staged, Reservation), NoPlace> {
    let claim = Claim { pool: 0, owner: NO_OWNER, is_hosted: true, bytes };
    find_room((&shared.space, &shared.store), digest, claim, None, None).await
}

async fn find_room(
    (space, store): (&Arc<Space>, &Store),
    digest: &Digest,
    claim: Claim,
    wanted: Option<u8>,
    of_fill: Option<&mut Option<Staged>>,
) -> Result<(Staged, Reservation), NoPlace> {
    let may_wait = of_fill.is_some();
    let mut made = of_fill.and_then(Option::take);
    let mut why = NoPlace::NoRoom;
    let mut tried = Vec::new();
    while let Some(pool) = space.choose_pool(&claim, digest, wanted, &tried) {
        let claim = Claim { pool, ..claim };
        // Only once: each wait is as long as a client has patience for.
        let reservation = match tried.is_empty() {
            true => space.reserve(claim).await.ok(),
            false => space.try_reserve(claim),
        };
        tried.push(pool);
        let Some(mut reservation) = reservation else { continue };
        let is_later = may_wait && space.has_plenty(claim.pool);
        let bytes = if is_later { 0 } else { claim.bytes };
        let staged = match made.take().filter(|staged| staged.pool() == claim.pool) {
            Some(staged) => staged.take_room(bytes).await.map(|()| staged),
            None => Staged::create(store, claim.pool, *digest, bytes).await,
        };
        match staged {
            Ok(staged) => {
                if !is_later {
                    reservation.allocated();
                }
                return Ok((staged, reservation));
            }
            Err(error) => {
                tracing::warn!(pool, %error, "a pool does not take new content");
                space.refused(pool);
                if !error.is_full() {
                    why = NoPlace::Failed(error);
                }
            }
        }
    }
    Err(why)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::SpaceLimits;
    use super::*;
    use crate::oci::Algorithm;
    use crate::runtime::tests::{DRIVERS, on_workers};
    use crate::storage::ROOT_POOL;

    const BYTES: u64 = 2 << 20;

    #[test]
    fn a_fill_uses_the_file_it_has_made_and_takes_its_room_later_where_there_is_plenty() {
        for driver in DRIVERS {
            on_workers(1, driver, |_| async {
                let folder = tempfile::tempdir().unwrap();
                let (store, _) = Store::open(folder.path()).unwrap();
                let limits = SpaceLimits { total: 16 * BYTES, ..Default::default() };
                let (space, _queue) = Space::new(&store, limits);
                let digest = Digest::of(Algorithm::Sha256, b"content");
                let claim =
                    Claim { pool: ROOT_POOL, owner: NO_OWNER, is_hosted: false, bytes: BYTES };
                let files = || std::fs::read_dir(folder.path().join("staging")).unwrap().count();
                let length = |staged: &Staged| staged.shared().metadata().unwrap().len();

                let mut made = Some(Staged::create(&store, ROOT_POOL, digest, 0).await.unwrap());
                let at = (&space, &store);
                let found = find_room(at, &digest, claim, None, Some(&mut made)).await;
                let (staged, mut place) = found.unwrap();
                assert_eq!((made.is_none(), files(), length(&staged)), (true, 1, 0));
                assert_eq!((place.is_taken(), space.reserved()), (false, BYTES));
                take_promised(&space, &staged, &mut place).await.unwrap();
                assert_eq!((place.is_taken(), length(&staged)), (true, BYTES));

                // What a disk has left is not believed any more.
                space.refused(ROOT_POOL);
                let found = find_room(at, &digest, claim, None, Some(&mut None)).await;
                let (staged, place) = found.unwrap();
                assert_eq!((place.is_taken(), length(&staged)), (true, BYTES));
            });
        }
    }
}
