//! How much a hosted repository holds: its tags, and the bytes of all that it links. Kept beside the
//! names, in the transactions that change them.

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use super::record::BlobValue;
use super::{Catalog, CatalogError, failed};
use crate::oci::Scope;
use crate::runtime::blocking;

/// repository → (tags, bytes).
pub(super) const USAGE: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("usage.v1");

/// (repository, digest) → the bytes that were added for this link, so that just these are taken
/// away with it.
pub(super) const LINKED_BYTES: TableDefinition<'_, (&str, &str), u64> =
    TableDefinition::new("linked_bytes.v1");

/// How much a hosted repository holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Its tags.
    pub tags: u64,
    /// The bytes of its contents, each once: blobs and manifests, whoever else has them too.
    pub bytes: u64,
}

/// The tables, in one transaction.
pub(super) struct Accounts<'t> {
    usage: Table<'t, &'static str, (u64, u64)>,
    linked: Table<'t, (&'static str, &'static str), u64>,
}

impl<'t> Accounts<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, CatalogError> {
        Ok(Self {
            usage: transaction.open_table(USAGE).map_err(failed)?,
            linked: transaction.open_table(LINKED_BYTES).map_err(failed)?,
        })
    }

    pub(super) fn of(&self, repository: &str) -> Result<Usage, CatalogError> {
        usage_in(&self.usage, repository)
    }

    /// Whether a link is counted already.
    pub(super) fn counts(&self, repository: &str, digest: &str) -> Result<bool, CatalogError> {
        Ok(self.linked.get((repository, digest)).map_err(failed)?.is_some())
    }

    /// A link was put, to content of this size as far as it is in the store.
    pub(super) fn linked(
        &mut self,
        (upstream, repository, digest): (&str, &str, &str),
        blobs: &Table<'_, &'static str, BlobValue>,
    ) -> Result<(), CatalogError> {
        if !upstream.is_empty() {
            return Ok(());
        }
        let before = self.linked.get((repository, digest)).map_err(failed)?;
        let before = before.map(|value| value.value());
        let size = blobs.get(digest).map_err(failed)?.map(|value| value.value().0);
        // What has been lost is as large as it was.
        let size = size.or(before).unwrap_or(0);
        if before == Some(size) {
            return Ok(());
        }
        self.linked.insert((repository, digest), size).map_err(failed)?;
        let before = before.unwrap_or(0);
        self.change(repository, |usage| {
            usage.bytes = usage.bytes.saturating_sub(before).saturating_add(size);
        })
    }

    /// A link was removed.
    pub(super) fn unlinked(
        &mut self,
        (upstream, repository, digest): (&str, &str, &str),
    ) -> Result<(), CatalogError> {
        if !upstream.is_empty() {
            return Ok(());
        }
        let before = self.linked.remove((repository, digest)).map_err(failed)?;
        let Some(bytes) = before.map(|value| value.value()) else { return Ok(()) };
        self.change(repository, |usage| usage.bytes = usage.bytes.saturating_sub(bytes))
    }

    /// A tag was bound that was not there.
    pub(super) fn tagged(
        &mut self,
        (upstream, repository, _): (&str, &str, &str),
    ) -> Result<(), CatalogError> {
        if upstream.is_empty() { self.change(repository, |usage| usage.tags += 1) } else { Ok(()) }
    }

    /// A tag was removed.
    pub(super) fn untagged(
        &mut self,
        (upstream, repository, _): (&str, &str, &str),
    ) -> Result<(), CatalogError> {
        if !upstream.is_empty() {
            return Ok(());
        }
        self.change(repository, |usage| usage.tags = usage.tags.saturating_sub(1))
    }

    fn change(
        &mut self,
        repository: &str,
        change: impl FnOnce(&mut Usage),
    ) -> Result<(), CatalogError> {
        let mut usage = usage_in(&self.usage, repository)?;
        change(&mut usage);
        if usage == Usage::default() {
            self.usage.remove(repository).map_err(failed)?;
        } else {
            self.usage.insert(repository, (usage.tags, usage.bytes)).map_err(failed)?;
        }
        Ok(())
    }
}

fn usage_in(
    table: &impl ReadableTable<&'static str, (u64, u64)>,
    repository: &str,
) -> Result<Usage, CatalogError> {
    let found = table.get(repository).map_err(failed)?;
    let (tags, bytes) = found.map(|value| value.value()).unwrap_or_default();
    Ok(Usage { tags, bytes })
}

impl Catalog {
    /// How much a hosted repository holds; nothing when it does not exist.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn find_usage(&self, scope: &Scope) -> Result<Usage, CatalogError> {
        let (catalog, scope) = (self.clone(), scope.clone());
        let found = blocking(move || catalog.usage_now(&scope)).await;
        found.unwrap_or_else(|error| Err(failed(error)))
    }

    /// The same from a thread that may wait.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn usage_now(&self, scope: &Scope) -> Result<Usage, CatalogError> {
        let table = self.snapshot()?.open_table(USAGE).map_err(failed)?;
        match scope.upstream {
            None => usage_in(&table, scope.repository.as_str()),
            Some(_) => Ok(Usage::default()),
        }
    }
}
