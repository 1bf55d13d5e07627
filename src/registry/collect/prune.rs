//! Names of upstreams' repositories whose content has made room: nothing is served by them any
//! more, and nobody else takes them away.

use super::{GRACE_SECONDS, PIECE};
use crate::catalog::{CatalogError, LinkRecord, Piece, TagRecord, Write};
use crate::oci::Digest;
use crate::registry::upkeep::Upkeep;

/// What was pruned, or would be.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// Links to content that is not stored.
    pub links: u64,
    /// Tags whose manifest is not stored.
    pub tags: u64,
}

impl Upkeep {
    /// Removes the links and tags of upstreams' repositories whose content is not stored, and that
    /// were made or confirmed more than [`GRACE_SECONDS`] before `now` (Unix seconds); with
    /// `dry_run` only counts them. `go_on` is asked after each piece. Blocks.
    ///
    /// # Errors
    /// The catalog cannot be read or written. What was removed until then is removed.
    pub fn prune(
        &self,
        now: u64,
        dry_run: bool,
        go_on: impl Fn() -> bool,
    ) -> Result<Pruned, CatalogError> {
        let mut pruned = Pruned::default();
        let is_old = |time: u64| time.saturating_add(GRACE_SECONDS) <= now;
        let mut after = None;
        loop {
            let Piece { records, next, .. } = self.catalog.scan_links(after.as_ref(), PIECE)?;
            let mut writes = Vec::new();
            for link in records {
                let is_ours = link.scope.upstream.is_none();
                if !is_ours && is_old(link.linked_at) && self.is_gone(&link.digest)? {
                    writes.extend(self.unless_new_link(link)?);
                }
            }
            pruned.links += writes.len() as u64;
            self.write_unless(dry_run, writes)?;
            after = next;
            if after.is_none() || !go_on() {
                break;
            }
        }
        while go_on() {
            let Piece { records, next, .. } = self.catalog.scan_tags(after.as_ref(), PIECE)?;
            let mut writes = Vec::new();
            for tag in records {
                let is_ours = tag.scope.upstream.is_none();
                if !is_ours && is_old(tag.checked_at) && self.is_gone(&tag.digest)? {
                    writes.extend(self.unless_new_tag(tag)?);
                }
            }
            pruned.tags += writes.len() as u64;
            self.write_unless(dry_run, writes)?;
            after = next;
            if after.is_none() {
                break;
            }
        }
        Ok(pruned)
    }

    fn is_gone(&self, digest: &Digest) -> Result<bool, CatalogError> {
        Ok(self.catalog.blob_now(digest)?.is_none())
    }

    /// What was made anew since it was found stays.
    fn unless_new_link(&self, link: LinkRecord) -> Result<Option<Write>, CatalogError> {
        let now = self.catalog.link_now(&link.scope, &link.digest)?;
        Ok(now.filter(|now| *now == link).map(Write::RemoveLink))
    }

    fn unless_new_tag(&self, tag: TagRecord) -> Result<Option<Write>, CatalogError> {
        let now = self.catalog.tag_now(&tag.scope, &tag.tag)?;
        Ok(now.filter(|now| *now == tag).map(Write::RemoveTag))
    }

    fn write_unless(&self, dry_run: bool, writes: Vec<Write>) -> Result<(), CatalogError> {
        // They may come back with a crash: then they are pruned once more.
        if dry_run || writes.is_empty() {
            Ok(())
        } else {
            self.catalog.write_blocking(writes, false)
        }
    }
}
