//! The only place where bytes and names become visible.
//!
//! Order, always: bytes verified and in place → catalog → index (the catalog tells it). The index
//! never names what is not there, and the catalog never names what was not verified. Cached content skips the syncs:
//! losing it costs a fetch, and a file that did not survive is found out when it is opened.

use std::sync::Arc;

use bytes::Bytes;

use super::state::Shared;
use super::take_room::{NoPlace, take_room};
use super::{Freshness, Placing, PullError};
use crate::catalog::{BlobRecord, Effect, LinkRecord, TagRecord, Write};
use crate::index::{SMALL_BYTES_MAX, TagEntry};
use crate::keeping::Keeping;
use crate::oci::{Digest, Scope, Tag};
use crate::runtime::{blocking, clock};
use crate::storage::Staged;

/// A manifest that has been checked.
#[derive(Debug, Clone)]
pub(super) struct ManifestContent {
    pub(super) digest: Digest,
    pub(super) media_type: Arc<str>,
    pub(super) bytes: Bytes,
    /// What it names: config and layers, or manifests.
    pub(super) children: Arc<[Digest]>,
    /// It is in the store now.
    pub(super) is_kept: bool,
}

/// Commits a downloaded blob and links it into the repository it was fetched for.
pub(super) async fn blob(
    shared: &Shared,
    scope: &Scope,
    digest: &Digest,
    (staged, placing): (Staged, &Placing),
) -> Result<(), PullError> {
    let pool = staged.pool();
    let turn = shared.store.turn(digest).await;
    let size = staged.commit(false).await?;
    let link = link_write(shared, scope, digest, None).await?;
    let before = shared.index.blob(digest).hit();
    // Another upstream's download has been here first: its terms hold.
    let stored = before.filter(|entry| shared.store.has_pool(entry.pool));
    let terms = || placing.keeping(clock::unix_seconds());
    let keeping = stored.map_or_else(terms, |entry| entry.keeping);
    let blob = blob_write(shared, scope, digest, (size, pool, keeping));
    let effects = remember(shared, vec![blob, link]).await;
    shared.note_content_present(scope, digest);
    shared.syncer.committed(digest, pool);
    remove_second(shared, digest, pool, effects.first()).await;
    drop(turn);
    Ok(())
}

/// Content has one file, the one that its name leads to; another one would count for nobody.
/// Another upstream's download may have put it into another pool, or it is hosted there. In the
/// turn of this content.
pub(super) async fn remove_second(
    shared: &Shared,
    digest: &Digest,
    pool: u8,
    effect: Option<&Effect>,
) {
    let Some(Effect { is_applied, before: Some(before) }) = effect else { return };
    let left = if *is_applied { before.pool } else { pool };
    if before.pool == pool || !shared.store.has_pool(left) {
        return;
    }
    let (store, content) = (shared.store.clone(), *digest);
    let removed = blocking(move || store.remove_blob(left, &content)).await;
    if !matches!(removed, Ok(Ok(()))) {
        tracing::warn!(%digest, pool = left, "a second file stays; `ringport gc` removes it");
    }
}

/// Records that the upstream has answered for stored content in this repository.
pub(super) async fn link(shared: &Shared, scope: &Scope, digest: &Digest) -> Result<(), PullError> {
    let link = link_write(shared, scope, digest, None).await?;
    remember(shared, vec![link]).await;
    shared.note_content_present(scope, digest);
    Ok(())
}

/// Commits a manifest, links it, and binds `tag` to it if there is one: as its registry vouched for
/// at that time, in Unix seconds.
pub(super) async fn manifest(
    shared: &Shared,
    scope: &Scope,
    content: &ManifestContent,
    tag: Option<(&Tag, u64)>,
    placing: &Placing,
) -> Result<(), PullError> {
    let ManifestContent { digest, media_type, bytes, children, .. } = content;
    let mut writes = Vec::with_capacity(3);
    // Held until its bytes count as used.
    let mut place = None;
    let mut stored = None;
    if shared.find_blob(scope, digest).await?.is_none() {
        let taken = take_room(shared, (scope, digest), bytes.len() as u64, placing.pool).await;
        let (mut staged, room) = taken.map_err(|why| no_place(scope, digest, why))?;
        place = Some(room);
        staged.append(bytes.clone()).await?;
        let pool = staged.pool();
        let turn = shared.store.turn(digest).await;
        let size = staged.commit(false).await?;
        let keeping = placing.keeping(clock::unix_seconds());
        writes.push(blob_write(shared, scope, digest, (size, pool, keeping)));
        stored = Some((pool, turn));
    }
    writes.push(link_write(shared, scope, digest, Some(media_type)).await?);
    if let Some((tag, checked_at)) = tag {
        writes.push(Write::PutTag(tag_record(scope, tag, digest, checked_at)));
        let ttl = Freshness::of(shared, scope).tag_ttl;
        shared.needs.bound(digest, children.clone(), checked_at, ttl);
    } else {
        shared.needs.named(digest, children.clone(), clock::unix_seconds());
    }
    let effects = remember(shared, writes).await;
    shared.note_content_present(scope, digest);
    if let Some((tag, _)) = tag {
        shared.note_present(&scope.tag_key(tag));
    }
    drop(place);
    if bytes.len() <= SMALL_BYTES_MAX {
        shared.catalog.offer(*digest, bytes.clone());
    }
    if let Some((pool, turn)) = stored {
        shared.syncer.committed(digest, pool);
        // The first of the writes was that of the content.
        remove_second(shared, digest, pool, effects.first()).await;
        drop(turn);
    }
    Ok(())
}

fn no_place(scope: &Scope, digest: &Digest, why: NoPlace) -> PullError {
    match why {
        NoPlace::NoRoom => PullError::NoRoom(format!("{scope}@{digest}: no room in the store")),
        NoPlace::Failed(error) => error.into(),
    }
}

/// Records that the upstream has confirmed a tag's binding, at that time in Unix seconds.
pub(super) async fn confirm_tag(
    shared: &Shared,
    scope: &Scope,
    tag: &Tag,
    known: TagEntry,
    checked_at: u64,
) -> TagEntry {
    let record = tag_record(scope, tag, &known.digest, checked_at);
    let entry = TagEntry { checked_at, ..known };
    let ttl = Freshness::of(shared, scope).tag_ttl;
    shared.needs.confirmed(&entry.digest, entry.checked_at, ttl);
    remember(shared, vec![Write::PutTag(record)]).await;
    entry
}

/// Forgets a tag that the upstream says does not exist.
pub(super) async fn forget_tag(shared: &Shared, scope: &Scope, tag: &Tag, known: &TagEntry) {
    remember(
        shared,
        vec![Write::RemoveTag(tag_record(scope, tag, &known.digest, known.checked_at))],
    )
    .await;
}

/// Writes names of cached content, and by that makes them visible. That the catalog cannot keep
/// them must not fail a pull of content that is right: they are then visible as long as the index
/// keeps them, at most until the process ends, and fetched again after that. A catalog that is
/// closed makes nothing visible. Returns what became of each, nothing when that is not known.
async fn remember(shared: &Shared, writes: Vec<Write>) -> Vec<Effect> {
    shared.catalog.write_told(writes, false).await.unwrap_or_else(|error| {
        tracing::error!(%error, "names of cached content will be forgotten at the next start");
        Vec::new()
    })
}

fn blob_write(
    shared: &Shared,
    scope: &Scope,
    digest: &Digest,
    (size, pool, keeping): (u64, u8, Keeping),
) -> Write {
    let owner = shared.owner(scope);
    let record = BlobRecord { digest: *digest, size, pool, is_hosted: false, owner, keeping };
    Write::PutBlob { record, is_synced: false }
}

/// The link of content into a repository; what is linked as a manifest already stays one.
async fn link_write(
    shared: &Shared,
    scope: &Scope,
    digest: &Digest,
    media_type: Option<&Arc<str>>,
) -> Result<Write, PullError> {
    let media_type = match media_type {
        Some(media_type) => Some(media_type.to_string()),
        None => {
            let known = shared.find_link(scope, digest).await?;
            known.and_then(|link| link.media_type).map(|text| text.to_string())
        }
    };
    Ok(Write::PutLink(LinkRecord {
        scope: scope.clone(),
        digest: *digest,
        media_type,
        linked_at: clock::unix_seconds(),
    }))
}

fn tag_record(scope: &Scope, tag: &Tag, digest: &Digest, checked_at: u64) -> TagRecord {
    TagRecord { scope: scope.clone(), tag: tag.clone(), digest: *digest, checked_at }
}
