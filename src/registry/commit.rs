//! The only place where bytes and names become visible.
//!
//! Order, always: bytes verified and in place → catalog → index. The index never names what is
//! not there, and the catalog never names what was not verified. Cached content skips the syncs:
//! losing it costs a fetch, and a file that did not survive is found out when it is opened.

use std::sync::Arc;

use bytes::Bytes;

use super::PullError;
use super::state::Shared;
use crate::catalog::{LinkRecord, TagRecord, Write};
use crate::index::{LinkEntry, TagEntry};
use crate::oci::{Digest, Scope, Tag};
use crate::runtime::clock;
use crate::storage::Staged;

/// A manifest that has been checked and is to be kept.
#[derive(Debug, Clone)]
pub(super) struct ManifestContent {
    pub(super) digest: Digest,
    pub(super) media_type: Arc<str>,
    pub(super) bytes: Bytes,
}

/// Commits a downloaded blob and links it into the repository it was fetched for.
pub(super) async fn blob(
    shared: &Shared,
    scope: &Scope,
    digest: &Digest,
    staged: Staged,
) -> Result<(), PullError> {
    let size = staged.commit(false).await?;
    link(shared, scope, digest, size).await;
    Ok(())
}

/// Records that the upstream has answered for stored content in this repository.
pub(super) async fn link(shared: &Shared, scope: &Scope, digest: &Digest, size: u64) {
    // A manifest that is also asked for as a blob keeps its media type.
    let media_type = shared.index.link(scope, digest).and_then(|known| known.media_type);
    let entry = LinkEntry { size, media_type, linked_at: clock::unix_seconds() };
    remember(shared, vec![link_write(scope, digest, &entry)]).await;
    shared.index.insert_link(scope, digest, entry);
}

/// Commits a manifest, links it, and binds `tag` to it if there is one.
pub(super) async fn manifest(
    shared: &Shared,
    scope: &Scope,
    content: &ManifestContent,
    tag: Option<&Tag>,
) -> Result<(), PullError> {
    let ManifestContent { digest, media_type, bytes } = content;
    let size = bytes.len() as u64;
    if shared.index.blob(digest).is_none() {
        let mut staged = Staged::create(shared.store.clone(), *digest).await?;
        staged.append(bytes.clone()).await?;
        staged.commit(false).await?;
    }
    let now = clock::unix_seconds();
    let entry = LinkEntry { size, media_type: Some(media_type.clone()), linked_at: now };
    let mut writes = vec![link_write(scope, digest, &entry)];
    let binding = tag.map(|tag| {
        let bound = TagEntry { digest: *digest, fetched_at: now, checked_at: now, retry_at: 0 };
        writes.push(Write::PutTag(tag_record(scope, tag, &bound)));
        (tag, bound)
    });
    remember(shared, writes).await;
    shared.index.insert_link(scope, digest, entry);
    if let Some((tag, bound)) = binding {
        shared.index.insert_tag(scope, tag, bound);
    }
    Ok(())
}

/// Records that the upstream has just confirmed a tag's binding.
pub(super) async fn confirm_tag(
    shared: &Shared,
    scope: &Scope,
    tag: &Tag,
    known: TagEntry,
) -> TagEntry {
    let entry = TagEntry { checked_at: clock::unix_seconds(), retry_at: 0, ..known };
    remember(shared, vec![Write::PutTag(tag_record(scope, tag, &entry))]).await;
    shared.index.insert_tag(scope, tag, entry);
    entry
}

/// Forgets a tag that the upstream says does not exist.
pub(super) async fn forget_tag(shared: &Shared, scope: &Scope, tag: &Tag, known: &TagEntry) {
    shared.index.remove_tag(scope, tag);
    remember(shared, vec![Write::RemoveTag(tag_record(scope, tag, known))]).await;
}

/// Writes names of cached content. That the catalog does not take them must not fail a pull of
/// content that is right: they are lost with the process, and fetched again after it.
async fn remember(shared: &Shared, writes: Vec<Write>) {
    if let Err(error) = shared.catalog.write(writes, false).await {
        tracing::error!(%error, "names of cached content will be forgotten at the next start");
    }
}

fn link_write(scope: &Scope, digest: &Digest, entry: &LinkEntry) -> Write {
    Write::PutLink(LinkRecord {
        scope: scope.clone(),
        digest: *digest,
        media_type: entry.media_type.as_deref().map(str::to_owned),
        size: entry.size,
        linked_at: entry.linked_at,
    })
}

fn tag_record(scope: &Scope, tag: &Tag, entry: &TagEntry) -> TagRecord {
    TagRecord {
        scope: scope.clone(),
        tag: tag.clone(),
        digest: entry.digest,
        fetched_at: entry.fetched_at,
        checked_at: entry.checked_at,
    }
}
