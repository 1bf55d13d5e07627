//! gc (`ringport gc`): frees hosted content that no tag leads to, and what was left behind.
//!
//! First go the tags that the rule of their repository keeps no longer (`retention`). Then mark and
//! sweep, one repository at a time (`mark`, `sweep`). Roots are the tags, and whatever was
//! linked within the last [`GRACE_SECONDS`]: an upload in progress. From a manifest on, its
//! descriptors are followed, and the manifests whose `subject` it is. What is not reached loses
//! its link; content without a link in any hosted repository goes. A manifest that cannot be read
//! keeps its whole repository: what it refers to is not known.

mod mark;
mod prune;
mod retention;
mod sweep;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use prune::Pruned;

use super::lists::LIST_SECONDS_MAX;
use super::scrub::CATALOG_LOST;
use super::upkeep::{Problems, Progress, Upkeep};
use crate::catalog::{CatalogError, LinkRecord, Mark, ReferrerRecord, Write};
use crate::oci::{Digest, Scope};
use crate::runtime::clock;
use crate::storage::Pool;

/// What was linked this recently is kept, whether or not anything leads to it: blobs come before
/// the manifest that names them, and a slow upload of a large image may take hours.
pub const GRACE_SECONDS: u64 = 24 * 3600;
/// How long damaged files are kept for whoever wants to look at them.
pub const QUARANTINE_SECONDS: u64 = 7 * 24 * 3600;
/// Records read at once.
const PIECE: usize = 1024;

/// How much of one kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freed {
    /// How many.
    pub count: u64,
    /// Bytes on the disk.
    pub bytes: u64,
}

/// What a collection freed, or would free.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// Nothing was freed, only counted.
    pub dry_run: bool,
    /// Tags of hosted repositories that the rule keeps no longer.
    #[serde(default)]
    pub expired_tags: Freed,
    /// The first thousand of them, as `repository:tag`.
    #[serde(default)]
    pub expired: Vec<String>,
    /// Links of hosted repositories that no tag leads to.
    pub unreachable_links: Freed,
    /// Hosted content that no hosted repository links any more.
    pub unreachable_blobs: Freed,
    /// The same, but an upstream's repository links it too: it stays, as cached content.
    pub handed_to_cache: Freed,
    /// Links whose content is gone.
    pub dangling_links: Freed,
    /// Files in quarantine for more than seven days.
    pub quarantined: Freed,
    /// Files without a name.
    pub orphans: Freed,
    /// It was told to stop before it was done.
    pub stopped: bool,
    /// What could not be decided or freed.
    pub problems: Problems,
}

impl GcReport {
    /// Whether everything could be decided and freed.
    pub fn is_well(&self) -> bool {
        self.problems.told.is_empty() && !self.stopped
    }

    /// Bytes that the disk gets back.
    pub fn freed_bytes(&self) -> u64 {
        self.unreachable_blobs.bytes + self.quarantined.bytes + self.orphans.bytes
    }
}

impl Freed {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }

    fn add_many(&mut self, count: u64) {
        self.count += count;
    }
}

/// One collection.
struct Collection<'a> {
    upkeep: &'a Upkeep,
    progress: &'a Progress,
    /// When it began, Unix seconds: what is linked from then on is kept.
    began: u64,
    /// All that hosted repositories go on linking.
    kept: HashSet<Digest>,
    /// What lost a link in this collection, and so is known to be out of its grace.
    released: HashSet<Digest>,
    /// No link that was read was damaged: all hosted ones, and those read along with the last.
    knows_all_links: bool,
    report: GcReport,
}

impl Upkeep {
    /// Frees what nothing needs; with `dry_run` only counts it.
    ///
    /// # Errors
    /// The catalog cannot be read or written. What was freed until then is freed.
    pub fn collect(&self, dry_run: bool, progress: &Progress) -> Result<GcReport, CatalogError> {
        self.collect_at(clock::unix_seconds(), dry_run, progress)
    }

    /// The same at another time.
    fn collect_at(
        &self,
        began: u64,
        dry_run: bool,
        progress: &Progress,
    ) -> Result<GcReport, CatalogError> {
        let mut collection = Collection {
            upkeep: self,
            progress,
            began,
            kept: HashSet::new(),
            released: HashSet::new(),
            knows_all_links: true,
            report: GcReport { dry_run, ..GcReport::default() },
        };
        collection.repositories()?;
        collection.blobs()?;
        collection.dangling_links()?;
        collection.files()?;
        if !dry_run {
            self.catalog.forget_tombstones(began)?;
            self.catalog.forget_lists(began.saturating_sub(LIST_SECONDS_MAX))?;
        }
        collection.report.stopped = progress.is_stopped();
        Ok(collection.report)
    }
}

impl Collection<'_> {
    /// Whether something that came into being at `time` is out of its grace.
    fn is_old(&self, time: u64) -> bool {
        time.saturating_add(GRACE_SECONDS) <= self.began
    }

    /// Marks and sweeps the links of each hosted repository.
    fn repositories(&mut self) -> Result<(), CatalogError> {
        let mut after: Option<Mark> = None;
        let mut current: Option<Scope> = None;
        loop {
            // Hosted links come before all others.
            let piece = self.upkeep.catalog.scan_links(after.as_ref(), PIECE)?;
            for error in piece.damaged {
                self.knows_all_links = false;
                self.report.problems.add(format!("no content is freed: {error}"));
            }
            for LinkRecord { scope, .. } in piece.records {
                if scope.upstream.is_some() || self.progress.is_stopped() {
                    return Ok(());
                }
                if current.as_ref() != Some(&scope) {
                    self.repository(&scope)?;
                    current = Some(scope);
                }
            }
            after = piece.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Links whose content is gone: they permit nothing, and say nothing that could be used.
    fn dangling_links(&mut self) -> Result<(), CatalogError> {
        let mut after = None;
        loop {
            let piece = self.upkeep.catalog.scan_links(after.as_ref(), PIECE)?;
            let is_over = piece.records.last().is_none_or(|link| link.scope.upstream.is_some());
            let mut gone = Vec::new();
            for link in piece.records {
                // A hosted manifest is not forgotten with its content: a push can bring it back,
                // and until then its repository is kept whole.
                if link.scope.upstream.is_none()
                    && link.media_type.is_none()
                    && self.is_old(link.linked_at)
                    && self.upkeep.catalog.blob_now(&link.digest)?.is_none()
                {
                    self.report.dangling_links.add(0);
                    gone.push(link);
                }
            }
            if !gone.is_empty() {
                let upkeep = self.upkeep;
                // A push that finds such a link makes it anew, and brings the content.
                let _removing = (!self.report.dry_run).then(|| upkeep.gate.removing());
                self.remove_links(gone, &HashSet::new(), &HashMap::new())?;
            }
            after = piece.next;
            if self.progress.is_stopped() {
                return Ok(());
            }
            // Hosted links come before all others.
            if after.is_none() || is_over {
                break;
            }
        }
        let go_on = || !self.progress.is_stopped();
        let pruned = self.upkeep.prune(self.began, self.report.dry_run, go_on)?;
        self.report.dangling_links.count += pruned.links;
        Ok(())
    }

    /// Removes links, except those made anew since they were found and those to `spared` content.
    /// `subjects` tells which manifests refer to which: that goes with the link.
    fn remove_links(
        &mut self,
        links: Vec<LinkRecord>,
        spared: &HashSet<Digest>,
        subjects: &HashMap<Digest, Digest>,
    ) -> Result<(), CatalogError> {
        if self.report.dry_run || links.is_empty() {
            return Ok(());
        }
        let catalog = &self.upkeep.catalog;
        let mut writes = Vec::with_capacity(links.len());
        for link in links.into_iter().filter(|link| !spared.contains(&link.digest)) {
            let now = catalog.link_now(&link.scope, &link.digest)?;
            if now.is_some_and(|now| now.linked_at == link.linked_at) {
                let subject = subjects.get(&link.digest);
                writes.extend(subject.map(|subject| {
                    let key = ReferrerRecord::key(link.scope.clone(), *subject, link.digest);
                    Write::RemoveReferrer(key)
                }));
                writes.push(Write::RemoveLink(link));
            }
        }
        catalog.write_blocking(writes, true)
    }

    /// Old files in quarantine, and files without a name.
    fn files(&mut self) -> Result<(), CatalogError> {
        let store = self.upkeep.store.clone();
        for pool in store.pools() {
            self.quarantine(pool);
        }
        let first = self.upkeep.catalog.scan_blobs(None, 1)?;
        let knows_content = !first.records.is_empty() || self.report.unreachable_blobs.count > 0;
        for pool in store.pools() {
            for folder in pool.blob_folders() {
                if self.progress.is_stopped() || !self.orphans(pool, &folder, knows_content)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Old files in the quarantine of one pool.
    fn quarantine(&mut self, pool: &Pool) {
        let folder = pool.quarantine_folder();
        let kept = pool.files_in(&folder).unwrap_or_else(|error| {
            self.report.problems.add(format!("{} cannot be read: {error}", folder.display()));
            Vec::new()
        });
        for file in kept {
            let is_old = |time: u64| time.saturating_add(QUARANTINE_SECONDS) <= self.began;
            if !file.quarantined_at.is_some_and(is_old) {
                continue;
            }
            match if self.report.dry_run { Ok(()) } else { pool.discard(&file) } {
                Ok(()) => self.report.quarantined.add(file.size),
                Err(error) => {
                    self.report.problems.add(format!("{}: {error}", file.path.display()));
                }
            }
        }
    }

    /// The files without a name in one folder; `false` when looking further is of no use.
    fn orphans(
        &mut self,
        pool: &Pool,
        folder: &Path,
        knows_content: bool,
    ) -> Result<bool, CatalogError> {
        let upkeep = self.upkeep;
        let files = match pool.files_in(folder) {
            Ok(files) => files,
            Err(error) => {
                self.report.problems.add(format!("{} cannot be read: {error}", folder.display()));
                return Ok(true);
            }
        };
        let settled_before = upkeep.settled_before(self.began);
        for file in files.iter().filter(|file| file.changed_at < settled_before) {
            let Some(digest) = file.digest else { continue };
            if !upkeep.is_orphan(file, &digest)? {
                continue;
            }
            if !knows_content {
                self.report.problems.add(CATALOG_LOST.to_owned());
                return Ok(false);
            }
            let removed =
                if self.report.dry_run { Ok(true) } else { upkeep.remove_orphan(pool, file) };
            match removed {
                Ok(true) => self.report.orphans.add(file.size),
                Ok(false) => {}
                Err(error) => {
                    self.report.problems.add(format!("{}: {error}", file.path.display()));
                }
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
