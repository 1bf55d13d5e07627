//! Puts content in its place and gives it its names, durably.
//!
//! Order: bytes verified and synced, in place, folder synced ([`place`]) → catalog, in one durable
//! batch with all names that belong to it ([`Placed::name`]) → index (told by the catalog before
//! that returns) → the answer.

use std::time::Duration;

use super::PushError;
use crate::catalog::{BlobRecord, CatalogError, Condition, LinkRecord, Moment, NO_OWNER, Write};
use crate::keeping::Keeping;
use crate::oci::{Digest, Scope};
use crate::registry::commit::remove_second;
use crate::registry::space::Reservation;
use crate::registry::state::{Registry, Shared};
use crate::registry::take_room::{self, NoPlace};
use crate::runtime::{blocking, clock, sleep, spawn};
use crate::storage::{Staged, Turn};

/// How often, and how often at most, a catalog that has failed is asked whether it kept a name.
const TAKE_BACK_PAUSE: Duration = Duration::from_secs(1);
const TAKE_BACK_TRIES: usize = 60;

/// Content that is in place, durable and without its name yet; nobody else puts or removes it
/// while this lives.
pub(super) struct Placed<'a> {
    shared: &'a Shared,
    record: BlobRecord,
    _turn: Turn<'a>,
}

/// Takes room on a disk for `bytes` of this content, evicting cached content if need be, and a
/// staging file there that has it. The promise is held until the content is named or given up.
///
/// # Errors
/// [`PushError::NoRoom`], or the disks fail.
pub(super) async fn take_room(
    shared: &Shared,
    digest: &Digest,
    bytes: u64,
) -> Result<(Staged, Reservation), PushError> {
    take_room::take_hosted_room(shared, digest, bytes).await.map_err(|why| match why {
        NoPlace::NoRoom => PushError::NoRoom(format!(
            "no disk has room for the {bytes} bytes of {digest}; delete something, or ask for a \
             larger disk"
        )),
        NoPlace::Failed(error) => error.into(),
    })
}

/// Moves what has come to its place. The caller holds
/// [`PushGate::pushing`](crate::registry::PushGate::pushing) already, until it has called
/// [`Placed::name`].
///
/// # Errors
/// The content is not its digest's, or the disk failed; nothing has a name then.
pub(super) async fn place<'a>(
    shared: &'a Shared,
    digest: &Digest,
    staged: Staged,
) -> Result<Placed<'a>, PushError> {
    expect_catalog(shared)?;
    let turn = shared.store.turn(digest).await;
    let pool = staged.pool();
    let size = staged.commit(true).await?;
    Ok(Placed { shared, record: hosted(*digest, size, pool), _turn: turn })
}

impl Placed<'_> {
    /// Its link into a repository. What is linked as a manifest already stays one.
    ///
    /// # Errors
    /// The catalog cannot be asked.
    pub(super) async fn link(
        &self,
        scope: &Scope,
        media_type: Option<String>,
    ) -> Result<Write, PushError> {
        link(self.shared, scope, &self.record.digest, media_type).await
    }

    /// Names it, together with all that `writes` put, if all `conditions` hold: `since` is
    /// [`Catalog::moment`] from before the first look at what these name.
    ///
    /// # Errors
    /// The catalog failed, a condition does not hold, or one of the names was deleted meanwhile;
    /// nothing is named then.
    ///
    /// [`Catalog::moment`]: crate::catalog::Catalog::moment
    pub(super) async fn name(
        self,
        (since, conditions): (Moment, Vec<Condition>),
        writes: Vec<Write>,
    ) -> Result<(), PushError> {
        let Self { shared, record, _turn } = self;
        let BlobRecord { digest, pool, .. } = record;
        let mut all = vec![Write::PutBlob { record, is_synced: true }];
        all.extend(writes);
        let effects = match shared.catalog.write_if(since, conditions, all).await {
            Ok(effects) => effects,
            Err(error) => {
                if matches!(error, CatalogError::Deleted { .. } | CatalogError::Unmet(_)) {
                    take_back(shared, &digest, pool).await;
                } else {
                    spawn(take_back_later(digest, pool));
                }
                if matches!(error, CatalogError::Write { .. }) && shared.space.is_full() {
                    return Err(PushError::NoRoom(format!("{digest} was not stored: {error}")));
                }
                return Err(error.into());
            }
        };
        shared.trust(&digest);
        remove_second(shared, &digest, pool, effects.first()).await;
        Ok(())
    }
}

/// That the catalog takes writes, as far as is known: what is put in place while it does not
/// would have no name, and fill the disk. It is tried again each second.
///
/// # Errors
/// It does not.
pub(super) fn expect_catalog(shared: &Shared) -> Result<(), PushError> {
    if !shared.catalog.is_failing() {
        return Ok(());
    }
    let message = "the catalog takes no writes just now; see the log and the disk of the store";
    Err(match shared.space.is_full() {
        true => PushError::NoRoom(message.to_owned()),
        false => PushError::Busy(message.to_owned()),
    })
}

/// The same after the catalog has failed: whether it has the name all the same is known when it
/// can be asked again. After that many tries gc finds the file.
async fn take_back_later(digest: Digest, pool: u8) {
    let Ok(registry) = Registry::current() else { return };
    let shared = registry.shared();
    for _ in 0..TAKE_BACK_TRIES {
        sleep(TAKE_BACK_PAUSE).await;
        if shared.catalog.find_blob(&digest).await.is_ok() {
            let _turn = shared.store.turn(&digest).await;
            return take_back(shared, &digest, pool).await;
        }
    }
}

/// Removes the file of content that was refused its name, unless it has one from somebody else:
/// whoever is over their limit must not fill the disk. In the turn of this content.
async fn take_back(shared: &Shared, digest: &Digest, pool: u8) {
    // Where that cannot be known the file stays, and gc finds it.
    if !matches!(shared.catalog.find_blob(digest).await, Ok(None)) {
        return;
    }
    let (store, content) = (shared.store.clone(), *digest);
    let removed = blocking(move || store.remove_blob(pool, &content)).await;
    if !matches!(removed, Ok(Ok(()))) {
        tracing::warn!(%digest, pool, "a file without a name stays; `ringport gc` removes it");
    }
}

/// The link of content into a repository, made now. What is linked as a manifest already stays one.
///
/// # Errors
/// The catalog cannot be asked.
pub(super) async fn link(
    shared: &Shared,
    scope: &Scope,
    digest: &Digest,
    media_type: Option<String>,
) -> Result<Write, PushError> {
    let media_type = match media_type {
        Some(media_type) => Some(media_type),
        None => {
            let known = shared.find_link(scope, digest).await?;
            known.and_then(|link| link.media_type).map(|text| text.to_string())
        }
    };
    let linked_at = clock::unix_seconds();
    Ok(Write::PutLink(LinkRecord { scope: scope.clone(), digest: *digest, media_type, linked_at }))
}

/// The record of content that is ours.
pub(super) fn hosted(digest: Digest, size: u64, pool: u8) -> BlobRecord {
    let keeping = Keeping::default();
    BlobRecord { digest, size, pool, is_hosted: true, owner: NO_OWNER, keeping }
}
