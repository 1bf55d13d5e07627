//! Scrub (`ringport verify`): every stored content is read and compared with its digest; what is
//! damaged is set aside and forgotten, so that the next pull fetches it again.
//!
//! Cached content loses nothing by that. Hosted content has nowhere to come from: its loss is told
//! as such, and its links stay, so that a push of the same content makes it whole.

mod files;

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

pub(super) use files::CATALOG_LOST;

use super::upkeep::{Pace, Problems, Progress, Upkeep};
use crate::catalog::{BlobRecord, CatalogError, Write};
use crate::oci::Digest;
use crate::storage::{FileIdentity, Inspection, Pool};

/// Records read at once.
const PIECE: usize = 1024;
/// Looks at content that is replaced while it is looked at.
const LOOKS_MAX: usize = 3;

/// What a scrub found, and did about it.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Contents looked at.
    pub blobs: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Cached contents whose file was damaged; set aside, the next pull fetches them.
    pub damaged: u64,
    /// Hosted contents whose file was damaged; set aside.
    pub damaged_hosted: u64,
    /// Names of cached content without a file; removed.
    pub missing: u64,
    /// The same of hosted content.
    pub missing_hosted: u64,
    /// Files without a name; removed.
    pub orphans: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// Files that are called like no content; set aside.
    pub foreign: u64,
    /// Contents of pools that are missing; they were not looked at.
    pub out_of_reach: u64,
    /// What could not be repaired.
    pub unrepaired: u64,
    /// It was told to stop before it had seen everything.
    pub stopped: bool,
    /// The findings, one by one.
    pub problems: Problems,
}

impl VerifyReport {
    /// Whether all is well now: nothing hosted was lost, everything else could be repaired, and
    /// everything was seen.
    pub fn is_well(&self) -> bool {
        self.damaged_hosted + self.missing_hosted + self.unrepaired == 0 && !self.stopped
    }

    /// All that was damaged.
    pub fn damage(&self) -> u64 {
        self.damaged + self.damaged_hosted
    }

    fn unrepaired(&mut self, problem: String) {
        self.unrepaired += 1;
        self.problems.add(problem);
    }
}

/// What came of looking at one content.
enum Looked {
    Done,
    /// It was replaced meanwhile: look again.
    Changed,
    Stopped,
}

impl Upkeep {
    /// Looks at everything, at `bytes_per_second` at most.
    ///
    /// # Errors
    /// The catalog cannot be read. What was found until then is in the log.
    pub fn verify(
        &self,
        bytes_per_second: u64,
        progress: &Progress,
    ) -> Result<VerifyReport, CatalogError> {
        let mut report = VerifyReport::default();
        self.measure(progress)?;
        let mut pace = Pace::new(bytes_per_second, progress);
        let mut after = None;
        loop {
            let piece = self.catalog.scan_blobs(after.as_ref(), PIECE)?;
            for error in piece.damaged {
                report.unrepaired(error.to_string());
            }
            for record in &piece.records {
                if !self.verify_blob(record, progress, &mut pace, &mut report)? {
                    report.stopped = true;
                    return Ok(report);
                }
            }
            after = piece.next;
            if after.is_none() {
                break;
            }
        }
        self.verify_files(progress, &mut report)?;
        self.tell_missing_pools(&mut report);
        Ok(report)
    }

    /// Looks at these contents only, as fast as the disk allows.
    ///
    /// # Errors
    /// As [`Upkeep::verify`].
    pub fn verify_these(&self, digests: &[Digest]) -> Result<VerifyReport, CatalogError> {
        let mut report = VerifyReport::default();
        let progress = Progress::default();
        let mut pace = Pace::new(u64::MAX, &progress);
        for digest in digests {
            if let Some(record) = self.catalog.blob_now(digest)? {
                self.verify_blob(&record, &progress, &mut pace, &mut report)?;
            }
        }
        Ok(report)
    }

    /// Counts what there is to do.
    fn measure(&self, progress: &Progress) -> Result<(), CatalogError> {
        let (mut blobs, mut bytes, mut after) = (0, 0_u64, None);
        loop {
            let piece = self.catalog.scan_blobs(after.as_ref(), PIECE)?;
            blobs += piece.records.len() as u64;
            bytes = piece.records.iter().fold(bytes, |sum, blob| sum.saturating_add(blob.size));
            after = piece.next;
            if after.is_none() {
                break;
            }
        }
        progress.blobs_total.store(blobs, Ordering::Relaxed);
        progress.bytes_total.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Looks at one content; `false` when told to stop.
    fn verify_blob(
        &self,
        record: &BlobRecord,
        progress: &Progress,
        pace: &mut Pace<'_>,
        report: &mut VerifyReport,
    ) -> Result<bool, CatalogError> {
        let Ok(pool) = self.store.pool(record.pool) else {
            self.out_of_reach(record, report)?;
            return Ok(true);
        };
        for _ in 0..LOOKS_MAX {
            if !pace.file() {
                return Ok(false);
            }
            let mut read_bytes = 0;
            let found = pool.inspect(&record.digest, record.size, |read| {
                read_bytes += read;
                progress.bytes.fetch_add(read, Ordering::Relaxed);
                pace.spend(read)
            });
            report.bytes += read_bytes;
            let looked = match found {
                Ok(found) => self.judge(pool, record, found, report)?,
                Err(error) => {
                    report.unrepaired(format!("{} was not looked at: {error}", record.digest));
                    Looked::Done
                }
            };
            match looked {
                Looked::Done => {
                    report.blobs += 1;
                    progress.blobs.fetch_add(1, Ordering::Relaxed);
                    return Ok(true);
                }
                Looked::Changed => {}
                Looked::Stopped => return Ok(false),
            }
        }
        report.unrepaired(format!("{} is replaced as fast as it is looked at", record.digest));
        Ok(true)
    }

    fn judge(
        &self,
        pool: &Pool,
        record: &BlobRecord,
        found: Inspection,
        report: &mut VerifyReport,
    ) -> Result<Looked, CatalogError> {
        match found {
            Inspection::Right { .. } => Ok(Looked::Done),
            Inspection::Stopped => Ok(Looked::Stopped),
            Inspection::Missing => self.forget_missing(pool, record, report),
            Inspection::Damaged { why, identity } => {
                self.set_aside(pool, record, &why, identity, report)
            }
        }
    }

    /// A file is not what its name promises. Only that file is set aside, not what may have
    /// replaced it since.
    fn set_aside(
        &self,
        pool: &Pool,
        record: &BlobRecord,
        why: &str,
        identity: Option<FileIdentity>,
        report: &mut VerifyReport,
    ) -> Result<Looked, CatalogError> {
        let digest = record.digest;
        let identity = match identity {
            Some(identity) => Some(identity),
            None => pool.identity(&digest).ok().flatten(),
        };
        let _removing = self.gate.removing();
        match pool.identity(&digest) {
            Ok(now) if now == identity => {}
            Ok(_) => return Ok(Looked::Changed),
            Err(error) => {
                report.unrepaired(format!("{digest} is damaged ({why}) and stays: {error}"));
                return Ok(Looked::Done);
            }
        }
        // Its name goes first: a pull that comes now fetches it anew, and what it commits is
        // another file than the one that is moved.
        if !self.forget(record)? {
            return Ok(Looked::Changed);
        }
        let (kind, count) = match record.is_hosted {
            true => ("hosted", &mut report.damaged_hosted),
            false => ("cached", &mut report.damaged),
        };
        *count += 1;
        match pool.quarantine(&pool.blob_path(&digest), identity) {
            Ok(Some(to)) => {
                let to = to.display();
                report.problems.add(format!("{kind} {digest} is damaged: {why}; moved to {to}"));
            }
            Ok(None) => {
                report.problems.add(format!("{kind} {digest} was damaged ({why}) and replaced"));
            }
            Err(error) => report.unrepaired(format!(
                "{kind} {digest} is damaged ({why}); its name was removed, but its file cannot be \
                 moved to quarantine: {error}"
            )),
        }
        Ok(Looked::Done)
    }

    /// There was no file for a name.
    fn forget_missing(
        &self,
        pool: &Pool,
        record: &BlobRecord,
        report: &mut VerifyReport,
    ) -> Result<Looked, CatalogError> {
        let digest = &record.digest;
        let _removing = self.gate.removing();
        if self.catalog.blob_now(digest)?.as_ref() != Some(record) {
            // It was evicted between the record and the file, or came back in another pool.
            return Ok(Looked::Done);
        }
        match pool.identity(digest) {
            Ok(None) => {}
            Ok(Some(_)) => return Ok(Looked::Changed),
            Err(error) => {
                report.unrepaired(format!("{digest} cannot be looked for: {error}"));
                return Ok(Looked::Done);
            }
        }
        if !self.forget(record)? {
            return Ok(Looked::Done);
        }
        let (kind, count) = match record.is_hosted {
            true => ("hosted", &mut report.missing_hosted),
            false => ("cached", &mut report.missing),
        };
        *count += 1;
        report.problems.add(format!("{kind} {digest} has no file; its name was removed"));
        Ok(Looked::Done)
    }

    /// Its pool is not there. One that may come back keeps its content; one that the configuration
    /// names no more was given up, but nobody gives up hosted content by that.
    fn out_of_reach(
        &self,
        record: &BlobRecord,
        report: &mut VerifyReport,
    ) -> Result<(), CatalogError> {
        let missing = self.store.missing().iter().find(|pool| pool.number == record.pool);
        if record.is_hosted || missing.is_none_or(|pool| pool.is_declared) {
            report.out_of_reach += 1;
            return Ok(());
        }
        report.missing += u64::from(self.forget(record)?);
        Ok(())
    }

    fn tell_missing_pools(&self, report: &mut VerifyReport) {
        if report.out_of_reach == 0 {
            return;
        }
        let names: Vec<&str> = self.store.missing().iter().map(|pool| pool.name.as_str()).collect();
        let (count, names) = (report.out_of_reach, names.join(", "));
        report.unrepaired(format!(
            "{count} contents were not looked at, because they lie in missing pools ({names}): \
             mount their disks and start again, or take lost ones out of the configuration"
        ));
    }

    /// Removes a name; `false` when it has changed meanwhile. Of hosted content for good: it must
    /// not come back with a crash.
    fn forget(&self, record: &BlobRecord) -> Result<bool, CatalogError> {
        let writes = vec![Write::RemoveBlob(record.at())];
        let effects = self.catalog.write_told_blocking(writes, record.is_hosted)?;
        Ok(effects.iter().any(|effect| effect.is_applied))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
