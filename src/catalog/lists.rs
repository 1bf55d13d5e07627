//! Lists of upstreams that are kept: pages of tags, and referrers. The index knows none of them.
//!
//! Together they are at most [`LISTS_BYTES_MAX`]: those that were confirmed longest ago go first.

use bytes::Bytes;
use redb::{ReadableTable, TableDefinition};

use super::apply::Tables;
use super::record::{ScopedKey, damaged, scope};
use super::{Catalog, CatalogError, Write, failed};
use crate::oci::Scope;
use crate::runtime::blocking;

/// Most bytes of one list.
pub const LIST_BYTES_MAX: usize = 1 << 20;
/// Most bytes of all lists, their names and what is known of them included.
pub const LISTS_BYTES_MAX: u64 = 64 << 20;
/// What a list costs beyond its texts.
const RECORD_BYTES: usize = 256;
/// Lists that are forgotten in one go.
const PIECE: usize = 1024;

/// (checked at in Unix seconds, entity tag or "", query of the next page or "", body).
pub(super) type ListValue = (u64, &'static str, &'static str, &'static [u8]);

/// (upstream, repository, name) → list.
pub(super) const LISTS: TableDefinition<'_, ScopedKey, ListValue> =
    TableDefinition::new("lists.v1");

/// (checked at, upstream, repository, name) → its weight: the order in which lists go.
pub(super) type ListAge = (u64, &'static str, &'static str, &'static str);
pub(super) const LIST_AGES: TableDefinition<'_, ListAge, u64> =
    TableDefinition::new("list_ages.v1");

/// () → the weight of all lists.
pub(super) const LISTS_WEIGHT: TableDefinition<'_, (), u64> =
    TableDefinition::new("lists_weight.v1");

/// A list as its upstream gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRecord {
    /// The repository that it is about.
    pub scope: Scope,
    /// Which list, and which part of it.
    pub name: String,
    /// When the upstream last confirmed it, Unix seconds.
    pub checked_at: u64,
    /// What the upstream calls this state of it, as it stands in the header.
    pub etag: Option<String>,
    /// The query of the next page.
    pub next: Option<String>,
    /// The document; at most [`LIST_BYTES_MAX`].
    pub body: Bytes,
}

impl ListRecord {
    /// Whether the catalog can keep it.
    pub(super) fn check(&self) -> Result<(), CatalogError> {
        let found = self.weight() - RECORD_BYTES as u64;
        if found <= LIST_BYTES_MAX as u64 {
            return Ok(());
        }
        let key = format!("list {} {}", self.scope, self.name);
        let cause = format!("it has {found} bytes, at most {LIST_BYTES_MAX} are kept");
        Err(CatalogError::Refused { key, cause })
    }

    /// Whether [`Catalog::write`] would take it.
    pub fn is_small_enough(&self) -> bool {
        self.check().is_ok()
    }

    fn weight(&self) -> u64 {
        let Self { scope, name, etag, next, body, .. } = self;
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let scope = scope.upstream_str().len() + scope.repository.as_str().len();
        (RECORD_BYTES + scope + name.len() + length(etag) + length(next) + body.len()) as u64
    }

    fn read(
        key: (&str, &str, &str),
        (checked_at, etag, next, body): (u64, &str, &str, &[u8]),
    ) -> Result<Self, CatalogError> {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Ok(Self {
            scope: scope(key.0, key.1).map_err(|cause| damaged("list", key, cause))?,
            name: key.2.to_owned(),
            checked_at,
            etag: text(etag),
            next: text(next),
            body: Bytes::copy_from_slice(body),
        })
    }
}

impl Tables<'_> {
    pub(super) fn put_list(&mut self, record: &ListRecord) -> Result<(), CatalogError> {
        let ListRecord { scope, name, checked_at, etag, next, body } = record;
        let key = (scope.upstream_str(), scope.repository.as_str(), name.as_str());
        self.take_list(key)?;
        let (etag, next) = (etag.as_deref().unwrap_or(""), next.as_deref().unwrap_or(""));
        let value = (*checked_at, etag, next, body.as_ref());
        self.lists.insert(key, value).map_err(failed)?;
        let weight = record.weight();
        self.list_ages.insert((*checked_at, key.0, key.1, key.2), weight).map_err(failed)?;
        let mut total = self.lists_weight()?.saturating_add(weight);
        while total > LISTS_BYTES_MAX {
            let Some((oldest, weight)) = self.list_ages.pop_first().map_err(failed)? else { break };
            let (_, upstream, repository, name) = oldest.value();
            self.lists.remove((upstream, repository, name)).map_err(failed)?;
            total = total.saturating_sub(weight.value());
        }
        self.lists_weight.insert((), total).map_err(failed)?;
        Ok(())
    }

    /// Unless it has been confirmed since it was read.
    pub(super) fn remove_list(
        &mut self,
        scope: &Scope,
        name: &str,
        checked_at: u64,
    ) -> Result<(), CatalogError> {
        let key = (scope.upstream_str(), scope.repository.as_str(), name);
        let known = self.lists.get(key).map_err(failed)?.map(|value| value.value().0);
        if known == Some(checked_at) {
            self.lists.remove(key).map_err(failed)?;
        }
        // Whether or not the list was this: who walks by age must come to an end.
        self.remove_age(checked_at, key)
    }

    fn take_list(&mut self, key: (&str, &str, &str)) -> Result<(), CatalogError> {
        let before = self.lists.remove(key).map_err(failed)?.map(|value| value.value().0);
        before.map_or(Ok(()), |checked_at| self.remove_age(checked_at, key))
    }

    fn remove_age(
        &mut self,
        checked_at: u64,
        (upstream, repository, name): (&str, &str, &str),
    ) -> Result<(), CatalogError> {
        let key = (checked_at, upstream, repository, name);
        let weight = self.list_ages.remove(key).map_err(failed)?.map_or(0, |value| value.value());
        let total = self.lists_weight()?.saturating_sub(weight);
        self.lists_weight.insert((), total).map_err(failed)?;
        Ok(())
    }

    fn lists_weight(&self) -> Result<u64, CatalogError> {
        Ok(self.lists_weight.get(()).map_err(failed)?.map_or(0, |value| value.value()))
    }
}

impl Catalog {
    /// A list that is kept.
    ///
    /// # Errors
    /// The database or the record cannot be read.
    pub async fn find_list(
        &self,
        scope: &Scope,
        name: &str,
    ) -> Result<Option<ListRecord>, CatalogError> {
        let (catalog, scope, name) = (self.clone(), scope.clone(), name.to_owned());
        let found = blocking(move || catalog.list_now(&scope, &name)).await;
        found.unwrap_or_else(|error| Err(failed(error)))
    }

    /// The same from a thread that may wait.
    ///
    /// # Errors
    /// The database or the record cannot be read.
    pub fn list_now(&self, scope: &Scope, name: &str) -> Result<Option<ListRecord>, CatalogError> {
        let table = self.snapshot()?.open_table(LISTS).map_err(failed)?;
        let key = (scope.upstream_str(), scope.repository.as_str(), name);
        let found = table.get(key).map_err(failed)?;
        found.map(|value| ListRecord::read(key, value.value())).transpose()
    }

    /// Removes the lists that nobody has confirmed since `before`, in Unix seconds; how many.
    /// Blocks.
    ///
    /// # Errors
    /// The database cannot be read or written.
    pub fn forget_lists(&self, before: u64) -> Result<u64, CatalogError> {
        let mut forgotten = 0;
        loop {
            let writes = self.old_lists(before)?;
            if writes.is_empty() {
                return Ok(forgotten);
            }
            forgotten += writes.len() as u64;
            self.write_blocking(writes, false)?;
        }
    }

    fn old_lists(&self, before: u64) -> Result<Vec<Write>, CatalogError> {
        let transaction = self.snapshot()?;
        let table = transaction.open_table(LIST_AGES).map_err(failed)?;
        let old = table.range(..(before, "", "", "")).map_err(failed)?;
        let mut writes = Vec::new();
        for entry in old.take(PIECE) {
            let (key, _) = entry.map_err(failed)?;
            let (checked_at, upstream, repository, name) = key.value();
            let damaged = |cause| damaged("list", (upstream, repository, name), cause);
            let scope = scope(upstream, repository).map_err(damaged)?;
            writes.push(Write::RemoveList { scope, name: name.to_owned(), checked_at });
        }
        Ok(writes)
    }
}
