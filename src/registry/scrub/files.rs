//! Files below `blobs` that nothing names, or that are no content at all.

use std::io;

use super::VerifyReport;
use crate::catalog::CatalogError;
use crate::oci::Digest;
use crate::registry::upkeep::{Progress, Upkeep};
use crate::storage::FoundFile;

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
        for folder in self.store.blob_folders() {
            if progress.is_stopped() {
                report.stopped = true;
                return Ok(());
            }
            let files = match self.store.files_in(&folder) {
                Ok(files) => files,
                Err(error) => {
                    report.unrepaired(format!("{} cannot be read: {error}", folder.display()));
                    continue;
                }
            };
            for file in files.iter().filter(|file| file.changed_at < self.since) {
                match file.digest {
                    None => self.set_aside_foreign(file, report),
                    Some(digest) if self.is_orphan(&digest)? => {
                        if !knows_content {
                            report.unrepaired(CATALOG_LOST.to_owned());
                            return Ok(());
                        }
                        self.remove_found_orphan(file, &digest, report);
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    fn set_aside_foreign(&self, file: &FoundFile, report: &mut VerifyReport) {
        let path = file.path.display();
        match self.store.quarantine(&file.path, None) {
            Ok(_) => {
                report.foreign += 1;
                report.problems.add(format!("{path} is no content; set aside"));
            }
            Err(error) => report.unrepaired(format!("{path} is no content, and stays: {error}")),
        }
    }

    fn remove_found_orphan(&self, file: &FoundFile, digest: &Digest, report: &mut VerifyReport) {
        let path = file.path.display();
        match self.remove_orphan(file, digest) {
            Ok(true) => {
                report.orphans += 1;
                report.orphan_bytes += file.size;
                report.problems.add(format!("{path} had no name; removed"));
            }
            Ok(false) => {}
            Err(error) => report.unrepaired(format!("{path} has no name, and stays: {error}")),
        }
    }

    /// Whether nothing names this content.
    pub(in crate::registry) fn is_orphan(&self, digest: &Digest) -> Result<bool, CatalogError> {
        Ok(self.catalog.blob_now(digest)?.is_none())
    }

    /// Removes a file that nothing names; `false` when it has got a name or a successor meanwhile.
    pub(in crate::registry) fn remove_orphan(
        &self,
        file: &FoundFile,
        digest: &Digest,
    ) -> io::Result<bool> {
        let _removing = self.gate.removing();
        if !self.is_orphan(digest).map_err(io::Error::other)? {
            return Ok(false);
        }
        let is_same = self.store.file_at(&file.path)?.is_some_and(|now| now == *file);
        if is_same {
            self.store.remove_blob(digest)?;
        }
        Ok(is_same)
    }
}
