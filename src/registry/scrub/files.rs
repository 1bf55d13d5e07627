//! Files below `blobs` that nothing names, or that are no content at all.

use std::io;
use std::path::Path;

use super::VerifyReport;
use crate::catalog::CatalogError;
use crate::oci::Digest;
use crate::registry::upkeep::{Progress, Upkeep};
use crate::runtime::clock;
use crate::storage::{FoundFile, Pool};

/// What is said then; nothing is an orphan.
pub(in crate::registry) const CATALOG_LOST: &str = "there are files of content, but the catalog names none at \
    all, so none was removed: if catalog.redb was lost, bring it back; if the content may go, \
    remove the folder blobs while the server is stopped";

impl Upkeep {
    /// Looks for files that nothing names.
    pub(super) fn verify_files(
        &self,
        progress: &Progress,
        report: &mut VerifyReport,
    ) -> Result<(), CatalogError> {
        let knows_content = progress.now().blobs_total > 0;
        for pool in self.store.pools() {
            for folder in pool.blob_folders() {
                if progress.is_stopped() {
                    report.stopped = true;
                    return Ok(());
                }
                if !self.verify_folder(pool, &folder, knows_content, report)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The same in one folder; `false` when looking further is of no use.
    fn verify_folder(
        &self,
        pool: &Pool,
        folder: &Path,
        knows_content: bool,
        report: &mut VerifyReport,
    ) -> Result<bool, CatalogError> {
        let files = match pool.files_in(folder) {
            Ok(files) => files,
            Err(error) => {
                report.unrepaired(format!("{} cannot be read: {error}", folder.display()));
                return Ok(true);
            }
        };
        let settled_before = self.settled_before(clock::unix_seconds());
        for file in files.iter().filter(|file| file.changed_at < settled_before) {
            match file.digest {
                None => set_aside_foreign(pool, file, report),
                Some(digest) if self.is_orphan(file, &digest)? => {
                    if !knows_content {
                        report.unrepaired(CATALOG_LOST.to_owned());
                        return Ok(false);
                    }
                    self.remove_found_orphan(pool, file, report);
                }
                Some(_) => {}
            }
        }
        Ok(true)
    }

    fn remove_found_orphan(&self, pool: &Pool, file: &FoundFile, report: &mut VerifyReport) {
        let path = file.path.display();
        match self.remove_orphan(pool, file) {
            Ok(true) => {
                report.orphans += 1;
                report.orphan_bytes += file.size;
                report.problems.add(format!("{path} had no name; removed"));
            }
            Ok(false) => {}
            Err(error) => report.unrepaired(format!("{path} has no name, and stays: {error}")),
        }
    }

    /// Whether nothing names this content in this pool: what was fetched again while a pool was
    /// missing has its name in another one.
    pub(in crate::registry) fn is_orphan(
        &self,
        file: &FoundFile,
        digest: &Digest,
    ) -> Result<bool, CatalogError> {
        Ok(self.catalog.blob_now(digest)?.is_none_or(|record| record.pool != file.pool))
    }

    /// Removes a file that nothing names; `false` when it has got a name or a successor meanwhile.
    pub(in crate::registry) fn remove_orphan(
        &self,
        pool: &Pool,
        file: &FoundFile,
    ) -> io::Result<bool> {
        let Some(digest) = file.digest else { return Ok(false) };
        let _removing = self.gate.removing();
        let mut turns = self.store.turns();
        if !turns.try_take(&digest) {
            // It is just getting one.
            return Ok(false);
        }
        if !self.is_orphan(file, &digest).map_err(io::Error::other)? {
            return Ok(false);
        }
        let is_same = pool.file_at(&file.path)?.is_some_and(|now| now == *file);
        if is_same {
            self.store.remove_blob(pool.number(), &digest)?;
        }
        Ok(is_same)
    }
}

fn set_aside_foreign(pool: &Pool, file: &FoundFile, report: &mut VerifyReport) {
    let path = file.path.display();
    match pool.quarantine(&file.path, None) {
        Ok(_) => {
            report.foreign += 1;
            report.problems.add(format!("{path} is no content; set aside"));
        }
        Err(error) => report.unrepaired(format!("{path} is no content, and stays: {error}")),
    }
}
