//! Walking through all records, for scrub and gc: in pieces, each a snapshot of its own, so that
//! writes go on meanwhile. Called from threads that may wait.

use std::fmt::Write as _;
use std::ops::Bound;

use redb::{ReadTransaction, ReadableDatabase, TableDefinition, Value};

use super::record::{BLOBS, LINKS, ScopedKey, TAGS};
use super::{BlobRecord, Catalog, CatalogError, LinkRecord, TagRecord, failed};
use crate::oci::{Digest, Scope, Tag};

/// A piece of a walk.
#[derive(Debug)]
pub struct Piece<T> {
    /// The records that could be read, in the order of their keys.
    pub records: Vec<T>,
    /// What is wrong with those that could not.
    pub damaged: Vec<CatalogError>,
    /// Where to go on; `None` when this was the last piece.
    pub next: Option<Mark>,
}

/// A place in a walk: everything up to it has been told.
#[derive(Debug, Clone)]
pub struct Mark(pub(super) OwnedKey);

type OwnedKey = (String, String, String);

impl Catalog {
    /// The next `max` records of content, in the order of their digests' text. Blocks.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn scan_blobs(
        &self,
        after: Option<&Mark>,
        max: usize,
    ) -> Result<Piece<BlobRecord>, CatalogError> {
        self.scan_plain(BLOBS, after, max, BlobRecord::read)
    }

    /// The next `max` links, hosted ones first, ordered by upstream, repository and digest. Blocks.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn scan_links(
        &self,
        after: Option<&Mark>,
        max: usize,
    ) -> Result<Piece<LinkRecord>, CatalogError> {
        self.scan_scoped(LINKS, None, after, max, LinkRecord::read)
    }

    /// The next `max` links of one repository, ordered by digest. Blocks.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn scan_links_of(
        &self,
        scope: &Scope,
        after: Option<&Mark>,
        max: usize,
    ) -> Result<Piece<LinkRecord>, CatalogError> {
        self.scan_scoped(LINKS, Some(scope), after, max, LinkRecord::read)
    }

    /// The next `max` tags, hosted ones first, ordered by upstream, repository and name. Blocks.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn scan_tags(
        &self,
        after: Option<&Mark>,
        max: usize,
    ) -> Result<Piece<TagRecord>, CatalogError> {
        self.scan_scoped(TAGS, None, after, max, TagRecord::read)
    }

    /// The next `max` tags of one repository, ordered by name. Blocks.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn scan_tags_of(
        &self,
        scope: &Scope,
        after: Option<&Mark>,
        max: usize,
    ) -> Result<Piece<TagRecord>, CatalogError> {
        self.scan_scoped(TAGS, Some(scope), after, max, TagRecord::read)
    }

    /// The link from a repository to content, as [`Catalog::find_link`]. Blocks.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn link_now(
        &self,
        scope: &Scope,
        digest: &Digest,
    ) -> Result<Option<LinkRecord>, CatalogError> {
        let digest = digest.to_string();
        let transaction = self.snapshot()?;
        let table = transaction.open_table(LINKS).map_err(failed)?;
        let key = (scope.upstream_str(), scope.repository.as_str(), digest.as_str());
        let found = table.get(key).map_err(failed)?;
        found.map(|value| LinkRecord::read(key, value.value())).transpose()
    }

    /// What a tag is bound to, as [`Catalog::find_tag`]. Blocks.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn tag_now(&self, scope: &Scope, tag: &Tag) -> Result<Option<TagRecord>, CatalogError> {
        let transaction = self.snapshot()?;
        let table = transaction.open_table(TAGS).map_err(failed)?;
        let key = (scope.upstream_str(), scope.repository.as_str(), tag.as_str());
        let found = table.get(key).map_err(failed)?;
        found.map(|value| TagRecord::read(key, value.value())).transpose()
    }

    /// Whether this content is in the store, as [`Catalog::find_blob`]. Blocks.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn blob_now(&self, digest: &Digest) -> Result<Option<BlobRecord>, CatalogError> {
        let digest = digest.to_string();
        let transaction = self.snapshot()?;
        let table = transaction.open_table(BLOBS).map_err(failed)?;
        let found = table.get(digest.as_str()).map_err(failed)?;
        found.map(|value| BlobRecord::read(&digest, value.value())).transpose()
    }

    /// The stored SHA-512 content whose digest begins with these bytes; two of one such beginning
    /// would be half a collision. Blocks.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn find_sha512(&self, prefix: &[u8; 32]) -> Result<Option<Digest>, CatalogError> {
        let mut from = String::from("sha512:");
        for byte in prefix {
            // Writing to a String cannot fail.
            let _ = write!(from, "{byte:02x}");
        }
        let transaction = self.snapshot()?;
        let table = transaction.open_table(BLOBS).map_err(failed)?;
        let mut range = table.range::<&str>(from.as_str()..).map_err(failed)?;
        let Some((key, _)) = range.next().transpose().map_err(failed)? else { return Ok(None) };
        let is_it = key.value().starts_with(&from);
        Ok(Digest::parse(key.value()).ok().filter(|_| is_it))
    }

    pub(super) fn snapshot(&self) -> Result<ReadTransaction, CatalogError> {
        let database = self.shared.database().ok_or(CatalogError::Closed)?;
        database.begin_read().map_err(failed)
    }

    /// Records from behind `after`.
    pub(super) fn scan_plain<T, V: Value + 'static>(
        &self,
        definition: TableDefinition<'_, &'static str, V>,
        after: Option<&Mark>,
        max: usize,
        read: impl for<'a> Fn(&'a str, V::SelfType<'a>) -> Result<T, CatalogError>,
    ) -> Result<Piece<T>, CatalogError> {
        let transaction = self.snapshot()?;
        let table = transaction.open_table(definition).map_err(failed)?;
        let from = after.map_or(Bound::Unbounded, |mark| Bound::Excluded(mark.0.0.as_str()));
        let mut piece = Piece::new();
        for entry in table.range::<&str>((from, Bound::Unbounded)).map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            piece.take(read(key.value(), value.value()));
            if piece.is_full(max) {
                piece.next = Some(Mark((key.value().to_owned(), String::new(), String::new())));
                break;
            }
        }
        Ok(piece)
    }

    /// Records from behind `after`, of one repository or of all.
    pub(super) fn scan_scoped<T, V: Value + 'static>(
        &self,
        definition: TableDefinition<'_, ScopedKey, V>,
        within: Option<&Scope>,
        after: Option<&Mark>,
        max: usize,
        read: impl for<'a> Fn((&'a str, &'a str, &'a str), V::SelfType<'a>) -> Result<T, CatalogError>,
    ) -> Result<Piece<T>, CatalogError> {
        let transaction = self.snapshot()?;
        let table = transaction.open_table(definition).map_err(failed)?;
        let within = within.map(|scope| (scope.upstream_str(), scope.repository.as_str()));
        let from = match (after, within) {
            (Some(Mark((a, b, c))), _) => Bound::Excluded((a.as_str(), b.as_str(), c.as_str())),
            // Tags and digests are never empty: this is before the first.
            (None, Some((a, b))) => Bound::Excluded((a, b, "")),
            (None, None) => Bound::Unbounded,
        };
        let mut piece = Piece::new();
        for entry in table.range::<(&str, &str, &str)>((from, Bound::Unbounded)).map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            let (a, b, c) = key.value();
            if within.is_some_and(|within| within != (a, b)) {
                break;
            }
            piece.take(read((a, b, c), value.value()));
            if piece.is_full(max) {
                piece.next = Some(Mark((a.to_owned(), b.to_owned(), c.to_owned())));
                break;
            }
        }
        Ok(piece)
    }
}

impl<T> Piece<T> {
    pub(super) fn new() -> Self {
        Self { records: Vec::new(), damaged: Vec::new(), next: None }
    }

    pub(super) fn take(&mut self, record: Result<T, CatalogError>) {
        match record {
            Ok(record) => self.records.push(record),
            Err(error) => self.damaged.push(error),
        }
    }

    pub(super) fn is_full(&self, max: usize) -> bool {
        self.records.len() + self.damaged.len() >= max
    }
}
