//! What can be answered here and now: manifests that are fresh, linked, and small enough to lie in the
//! index; blobs that are linked and lie there too, or whose file this worker keeps open.
//!
//! What is said here is a part of what [`Registry::pull_manifest`] and [`Registry::pull_blob`] say,
//! without their waits: most pulls of a mirror end here, and a future costs each of them more than all
//! look-ups together.

use std::time::Instant;

use super::freshness::{self, State};
use super::state::Registry;
use super::{Content, Freshness, Pull};
use crate::index::{Lookup, SMALL_BYTES_MAX, SmallAt};
use crate::oci::{Digest, KeyedScope, Reference, Tag};
use crate::runtime::clock;
use crate::telemetry::CacheResult;

impl Registry {
    /// The manifest, if no upstream, no file and no catalog has to be asked for it. `None` says
    /// nothing: then [`Registry::pull_manifest`] is to be asked. A tag may be as old as `bounds`
    /// says.
    pub fn manifest_at_hand(
        &self,
        scope: &KeyedScope,
        reference: &Reference,
        bounds: impl FnOnce(&Tag) -> Freshness,
        now: Instant,
    ) -> Option<Pull> {
        let shared = self.shared();
        // What is suspect is hashed before its first use, and that takes a while.
        if !shared.suspects.is_empty() {
            return None;
        }
        let at = clock::unix_seconds_at(now);
        let index = shared.index.view();
        let (digest, checked_at) = match reference {
            Reference::Digest(digest) => (*digest, None),
            Reference::Tag(tag) => {
                let Lookup::Hit(entry) = index.tag_of(&scope.tag_key(tag)) else {
                    return None;
                };
                let state = bounds(tag).state(entry.checked_at, at, || scope.tag_key(tag));
                if state != State::Fresh {
                    return None;
                }
                (entry.digest, Some(entry.checked_at))
            }
        };
        let Lookup::Hit(link) = index.link_of(&scope.link_key(&digest)) else {
            return None;
        };
        let media_type = link.media_type?;
        let Lookup::Hit((entry, Some(small))) = index.use_small(&digest, at) else {
            return None;
        };
        if entry.size == 0 {
            return None;
        }
        // In a missing pool: what that means depends on whose it is.
        shared.store.pool(entry.pool).ok()?;
        Some(Pull {
            digest,
            media_type: Some(media_type),
            size: entry.size,
            content: Content::InIndex(small),
            cache: CacheResult::Hit,
            age: freshness::age(checked_at.unwrap_or(link.linked_at), at),
            overdue: 0,
            warning: None,
        })
    }

    /// The blob, if no upstream, no catalog and no other thread has to be asked for it. `None` says
    /// nothing: then [`Registry::pull_blob`] is to be asked.
    pub fn blob_at_hand(&self, scope: &KeyedScope, digest: &Digest, now: Instant) -> Option<Pull> {
        let shared = self.shared();
        if !shared.suspects.is_empty() {
            return None;
        }
        let at = clock::unix_seconds_at(now);
        let index = shared.index.view();
        let Lookup::Hit(link) = index.link_of(&scope.link_key(digest)) else {
            return None;
        };
        let Lookup::Hit((entry, small)) = index.use_small(digest, at) else {
            return None;
        };
        let content = if entry.size > SMALL_BYTES_MAX as u64 {
            // Looked up again with a lease in hand, in the table that holds then: see leases.rs.
            drop(index);
            let lease = shared.leases.take(digest);
            let Lookup::Hit(entry) = shared.index.use_blob(digest, at) else { return None };
            let blob = shared.store.kept_open(entry.pool, digest, entry.size, now)?;
            Content::Stored(blob, lease)
        } else {
            Content::InIndex(small.filter(|_| entry.size > 0)?)
        };
        shared.store.pool(entry.pool).ok()?;
        Some(Pull {
            digest: *digest,
            media_type: None,
            size: entry.size,
            content,
            cache: CacheResult::Hit,
            age: freshness::age(link.linked_at, at),
            overdue: 0,
            warning: None,
        })
    }

    /// Appends content that is at hand in the index to `out`; `false`, and `out` as it was, when it is
    /// there no more.
    pub fn copy_small(&self, content: &SmallAt, out: &mut Vec<u8>) -> bool {
        self.shared().index.copy_small(content, out)
    }
}
