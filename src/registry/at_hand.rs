//! What can be answered here and now: manifests that are fresh, linked, and small enough to lie in the
//! index; blobs that are linked and lie there too, or whose file this worker keeps open.
//!
//! What is said here is a part of what [`Registry::pull_manifest`] and [`Registry::pull_blob`] say,
//! without their waits: most pulls of a mirror end here, and a future costs each of them more than all
//! look-ups together.

use super::freshness::{self, State};
use super::state::Registry;
use super::{Content, Freshness, Pull};
use crate::index::{Lookup, SMALL_BYTES_MAX};
use crate::oci::{Digest, KeyedScope, Reference, Tag};
use crate::runtime::clock;
use crate::telemetry::CacheResult;

impl Registry {
    /// The manifest, if no upstream, no file and no catalog has to be asked for it. `None` says
    /// nothing: then [`Registry::pull_manifest`] is to be asked. A tag may be as old as `bounds` says. The
    /// content comes along if `is_content_needed`, which is told the digest.
    pub fn manifest_at_hand(
        &self,
        scope: &KeyedScope,
        reference: &Reference,
        bounds: impl FnOnce(&Tag) -> Freshness,
        is_content_needed: impl FnOnce(&Digest) -> bool,
    ) -> Option<Pull> {
        let shared = self.shared();
        // What is suspect is hashed before its first use, and that takes a while.
        if !shared.suspects.is_empty() {
            return None;
        }
        let now = clock::unix_seconds();
        let (digest, checked_at) = match reference {
            Reference::Digest(digest) => (*digest, None),
            Reference::Tag(tag) => {
                let Lookup::Hit(entry) = shared.index.tag_of(&scope.tag_key(tag)) else {
                    return None;
                };
                let state = bounds(tag).state(entry.checked_at, now, || scope.tag_key(tag));
                if state != State::Fresh {
                    return None;
                }
                (entry.digest, Some(entry.checked_at))
            }
        };
        let Lookup::Hit(link) = shared.index.link_of(&scope.link_key(&digest)) else {
            return None;
        };
        let media_type = link.media_type?;
        let (entry, content) = if is_content_needed(&digest) {
            let mut bytes = Vec::new();
            let found = shared.index.use_small(&digest, now, &mut bytes);
            let Lookup::Hit((entry, true)) = found else { return None };
            (entry, Content::Memory(Some(bytes).filter(|bytes| !bytes.is_empty())?.into()))
        } else {
            let found = shared.index.use_small_unread(&digest, now);
            let Lookup::Hit((entry, true)) = found else { return None };
            (entry, Content::HeadOnly)
        };
        // In a missing pool: what that means depends on whose it is.
        shared.store.pool(entry.pool).ok()?;
        Some(Pull {
            digest,
            media_type: Some(media_type),
            size: entry.size,
            content,
            cache: CacheResult::Hit,
            age: freshness::age(checked_at.unwrap_or(link.linked_at), now),
            overdue: 0,
            warning: None,
        })
    }

    /// The blob, if no upstream, no catalog and no other thread has to be asked for it. `None` says
    /// nothing: then [`Registry::pull_blob`] is to be asked.
    pub fn blob_at_hand(&self, scope: &KeyedScope, digest: &Digest) -> Option<Pull> {
        let shared = self.shared();
        if !shared.suspects.is_empty() {
            return None;
        }
        let now = clock::unix_seconds();
        let Lookup::Hit(link) = shared.index.link_of(&scope.link_key(digest)) else {
            return None;
        };
        let mut bytes = Vec::new();
        let Lookup::Hit((entry, _)) = shared.index.use_small(digest, now, &mut bytes) else {
            return None;
        };
        let content = if entry.size > SMALL_BYTES_MAX as u64 {
            // Looked up again with a lease in hand, see leases.rs.
            let lease = shared.leases.take(digest);
            let Lookup::Hit(entry) = shared.index.use_blob(digest, now) else { return None };
            let blob = shared.store.kept_open(entry.pool, digest, entry.size)?;
            Content::Stored(blob, lease)
        } else if !bytes.is_empty() && shared.store.pool(entry.pool).is_ok() {
            Content::Memory(bytes.into())
        } else {
            return None;
        };
        Some(Pull {
            digest: *digest,
            media_type: None,
            size: entry.size,
            content,
            cache: CacheResult::Hit,
            age: freshness::age(link.linked_at, now),
            overdue: 0,
            warning: None,
        })
    }
}
