//! Walking through the records of hosted content, in pieces, as `scan` does.

use std::ops::Bound;

use super::hosted::{REFERRERS, TOMBSTONES, UPLOADS};
use super::record::LINKS;
use super::{
    Catalog, CatalogError, Mark, Piece, ReferrerRecord, TOMBSTONE_SECONDS, TombstoneRecord,
    UploadRecord, Write, failed,
};
use crate::oci::{Digest, Scope};
use crate::runtime::blocking;

/// Most bytes of text in a piece of referrers, give or take a record: a client reads a list of them
/// as one manifest.
const REFERRERS_BYTES: usize = crate::limits::MANIFEST_BYTES_MAX / 4;
/// Tombstones looked at in one go.
const PIECE: usize = 1024;

impl Mark {
    /// Where a list of referrers goes on that ended with this digest, or text.
    pub fn behind(digest: impl Into<String>) -> Self {
        Self((String::new(), String::new(), digest.into()))
    }
}

impl Catalog {
    /// The next referrers of one subject, in the order of their digests' text: at most `max`, and
    /// less if they are large. One whose manifest has left the repository is none.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn find_referrers(
        &self,
        scope: &Scope,
        subject: &Digest,
        after: Option<Mark>,
        max: usize,
    ) -> Result<Piece<ReferrerRecord>, CatalogError> {
        let (catalog, scope, subject) = (self.clone(), scope.clone(), *subject);
        blocking(move || catalog.referrers_now(&scope, &subject, after.as_ref(), max))
            .await
            .unwrap_or_else(|error| Err(failed(error)))
    }

    /// The same from a thread that may wait.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn referrers_now(
        &self,
        scope: &Scope,
        subject: &Digest,
        after: Option<&Mark>,
        max: usize,
    ) -> Result<Piece<ReferrerRecord>, CatalogError> {
        let transaction = self.snapshot()?;
        let table = transaction.open_table(REFERRERS).map_err(failed)?;
        let links = transaction.open_table(LINKS).map_err(failed)?;
        let subject = subject.to_string();
        let within = (scope.upstream_str(), scope.repository.as_str(), subject.as_str());
        // Digests are never empty: this is before the first.
        let last = after.map_or("", |mark| mark.0.2.as_str());
        let from = Bound::Excluded((within.0, within.1, within.2, last));
        let range = table.range::<(&str, &str, &str, &str)>((from, Bound::Unbounded));
        let mut piece = Piece::new();
        let mut weight = 0;
        for entry in range.map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            let (a, b, c, referrer) = key.value();
            if within != (a, b, c) {
                break;
            }
            // A manifest that could not be read when it was deleted has left its record behind.
            if links.get((a, b, referrer)).map_err(failed)?.is_none() {
                continue;
            }
            let record = ReferrerRecord::read(key.value(), value.value());
            weight += record.as_ref().map_or(0, ReferrerRecord::weight);
            piece.take(record);
            if piece.is_full(max) || weight >= REFERRERS_BYTES {
                piece.next = Some(Mark((String::new(), String::new(), referrer.to_owned())));
                break;
            }
        }
        Ok(piece)
    }

    /// The next `max` uploads under way, in the order of their ids. Blocks.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn scan_uploads(
        &self,
        after: Option<&Mark>,
        max: usize,
    ) -> Result<Piece<UploadRecord>, CatalogError> {
        self.scan_plain(UPLOADS, after, max, UploadRecord::read)
    }

    /// The next `max` tombstones, ordered by repository and name. Blocks.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn scan_tombstones(
        &self,
        after: Option<&Mark>,
        max: usize,
    ) -> Result<Piece<TombstoneRecord>, CatalogError> {
        self.scan_scoped(TOMBSTONES, None, after, max, TombstoneRecord::read)
    }

    /// Removes the tombstones that are [`TOMBSTONE_SECONDS`] old at `now`, in Unix seconds; how
    /// many. Blocks.
    ///
    /// # Errors
    /// The database cannot be read or written.
    pub fn forget_tombstones(&self, now: u64) -> Result<u64, CatalogError> {
        let mut forgotten = 0;
        let mut after = None;
        loop {
            let piece = self.scan_tombstones(after.as_ref(), PIECE)?;
            let old = |record: &TombstoneRecord| {
                record.deleted_at.saturating_add(TOMBSTONE_SECONDS) <= now
            };
            let writes: Vec<Write> =
                piece.records.into_iter().filter(old).map(Write::RemoveTombstone).collect();
            forgotten += writes.len() as u64;
            if !writes.is_empty() {
                self.write_blocking(writes, false)?;
            }
            after = piece.next;
            if after.is_none() {
                return Ok(forgotten);
            }
        }
    }
}
