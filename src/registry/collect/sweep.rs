//! Removing what was not reached, in batches, each while nobody pushes.

use std::collections::HashSet;
use std::time::Duration;

use super::{Collection, GRACE_SECONDS, PIECE};
use crate::catalog::{BlobAt, BlobRecord, CatalogError, Effect, LinkRecord, Write};
use crate::oci::{Digest, Scope};

impl Collection<'_> {
    /// Marks one repository and removes the links that were not reached.
    pub(super) fn repository(&mut self, scope: &Scope) -> Result<(), CatalogError> {
        let grace = self.began.saturating_sub(GRACE_SECONDS).saturating_add(1);
        let Some(repository) = self.read_repository(scope)? else {
            return self.keep_whole(scope);
        };
        let reached = repository.reached(grace);
        let subjects = repository.subjects();
        let (kept, unreached): (Vec<LinkRecord>, Vec<LinkRecord>) =
            repository.links.into_iter().partition(|link| reached.contains(&link.digest));
        self.kept.extend(kept.iter().map(|link| link.digest));
        if unreached.is_empty() && repository.expired.is_empty() {
            return Ok(());
        }
        let upkeep = self.upkeep;
        let _removing = (!self.report.dry_run).then(|| upkeep.gate.removing());
        let mut spared = HashSet::new();
        if self.report.dry_run {
            self.report.add_expired(&repository.expired);
        } else {
            // Once more, now that nobody pushes: what came since may lead to what had no way, and a
            // tag that was pushed since is new.
            let Some(now) = self.read_repository(scope)? else { return self.keep_whole(scope) };
            self.report.add_expired(&now.expired);
            upkeep.remove_tags(now.expired.clone())?;
            spared = now.reached(grace);
            self.kept.extend(now.links.iter().map(|l| l.digest).filter(|d| spared.contains(d)));
        }
        for link in unreached.iter().filter(|link| !spared.contains(&link.digest)) {
            self.report.unreachable_links.add(0);
            self.released.insert(link.digest);
        }
        self.remove_links(unreached, &spared, &subjects)
    }

    /// Nothing of a repository goes.
    fn keep_whole(&mut self, scope: &Scope) -> Result<(), CatalogError> {
        let mut after = None;
        loop {
            let piece = self.upkeep.catalog.scan_links_of(scope, after.as_ref(), PIECE)?;
            self.kept.extend(piece.records.iter().map(|link| link.digest));
            after = piece.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Removes hosted content that no hosted repository links. A link that cannot be read may be
    /// the one that keeps a content: then nothing is removed.
    pub(super) fn blobs(&mut self) -> Result<(), CatalogError> {
        let mut after = None;
        loop {
            if self.progress.is_stopped() || !self.knows_all_links {
                return Ok(());
            }
            let piece = self.upkeep.catalog.scan_blobs(after.as_ref(), PIECE)?;
            let unlinked = piece.records.into_iter().filter(|blob| {
                blob.is_hosted && !self.kept.contains(&blob.digest) && self.is_old_file(blob)
            });
            let unlinked: Vec<BlobRecord> = unlinked.collect();
            if !unlinked.is_empty() {
                self.remove_blobs(unlinked)?;
            }
            after = piece.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Whether the file is out of its grace: content may have come without having a link yet.
    fn is_old_file(&self, blob: &BlobRecord) -> bool {
        if self.released.contains(&blob.digest) {
            return true;
        }
        let Ok(pool) = self.upkeep.store.pool(blob.pool) else { return false };
        let Ok(Some(file)) = pool.file_at(&pool.blob_path(&blob.digest)) else { return true };
        let changed = file.changed_at.duration_since(std::time::UNIX_EPOCH);
        self.is_old(changed.unwrap_or(Duration::ZERO).as_secs())
    }

    fn remove_blobs(&mut self, unlinked: Vec<BlobRecord>) -> Result<(), CatalogError> {
        let upkeep = self.upkeep;
        let candidates: HashSet<Digest> = unlinked.iter().map(|blob| blob.digest).collect();
        // Before the pushes have to wait: of these there may be millions, and what an upstream's
        // repository links from now on can be fetched again.
        let cached = self.linked(&candidates, false)?;
        let _removing = (!self.report.dry_run).then(|| upkeep.gate.removing());
        let hosted = self.linked(&candidates, true)?;
        let mut writes = Vec::new();
        // What is just being committed anew is left to the next run.
        let mut turns = upkeep.store.turns();
        for blob in unlinked
            .into_iter()
            .filter(|blob| !hosted.contains(&blob.digest) && turns.try_take(&blob.digest))
        {
            if cached.contains(&blob.digest) {
                self.report.handed_to_cache.add(blob.size);
                writes.push(Write::HandToCache(blob.at()));
            } else {
                self.report.unreachable_blobs.add(blob.size);
                writes.push(Write::RemoveBlob(blob.at()));
            }
        }
        if self.report.dry_run {
            return Ok(());
        }
        // The names first: a crash in between leaves files without a name, which the next run
        // finds, and never a name without its file.
        let effects = upkeep.catalog.write_told_blocking(writes.clone(), true)?;
        for (write, Effect { is_applied, .. }) in writes.iter().zip(effects) {
            // What has changed meanwhile stays.
            let Write::RemoveBlob(BlobAt { pool, digest, .. }) = *write else { continue };
            if !is_applied {
                continue;
            }
            // In a missing pool it waits as a file without a name for the pool to come back.
            if !upkeep.store.has_pool(pool) {
                continue;
            }
            if let Err(error) = upkeep.store.remove_blob(pool, &digest) {
                self.report
                    .problems
                    .add(format!("the file of {digest} cannot be removed: {error}"));
            }
        }
        Ok(())
    }

    /// Which of these contents are linked now: in hosted repositories, as far as their links
    /// were not to go, or in those of upstreams.
    fn linked(
        &self,
        candidates: &HashSet<Digest>,
        is_hosted: bool,
    ) -> Result<HashSet<Digest>, CatalogError> {
        let mut linked = HashSet::new();
        let mut after = None;
        loop {
            let piece = self.upkeep.catalog.scan_links(after.as_ref(), PIECE)?;
            for link in &piece.records {
                let is_ours = link.scope.upstream.is_none();
                if is_hosted && !is_ours {
                    // Hosted links come before all others.
                    return Ok(linked);
                }
                let was_to_go = is_ours && self.report.dry_run && link.linked_at < self.began;
                if is_ours == is_hosted && !was_to_go && candidates.contains(&link.digest) {
                    linked.insert(link.digest);
                }
            }
            after = piece.next;
            if after.is_none() {
                return Ok(linked);
            }
        }
    }
}
