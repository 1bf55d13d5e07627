//! What older versions wrote.

use redb::{ReadableTable, TableDefinition, TableHandle, Value, WriteTransaction};

use super::record::{BLOBS, NO_OWNER, UNSYNCED};
use super::{CatalogError, failed};

type V1 = (u64, u8, u8);
type V2 = (u64, u8, u8, u16);

/// Content before it had an owner: (size in bytes, pool, flags).
const BLOBS_V1: TableDefinition<'_, &str, V1> = TableDefinition::new("blobs.v1");
/// Content before it was kept on terms: the same, and its owner.
const BLOBS_V2: TableDefinition<'_, &str, V2> = TableDefinition::new("blobs.v2");

/// Unsynced content before its commit was noted.
const UNSYNCED_V1: TableDefinition<'_, &str, ()> = TableDefinition::new("unsynced.v1");

/// Uploads before they had an owner. No version that took any wrote it.
const UPLOADS_V1: &str = "uploads.v1";

/// Brings the records of an older version into the present form.
pub(super) fn take_over_all(transaction: &WriteTransaction) -> Result<(), CatalogError> {
    let with_owner = |(size, pool, flags): V1| (size, pool, flags, NO_OWNER, 0, 0);
    take_over(transaction, BLOBS_V1, BLOBS, with_owner)?;
    let with_terms = |(size, pool, flags, owner): V2| (size, pool, flags, owner, 0, 0);
    take_over(transaction, BLOBS_V2, BLOBS, with_terms)?;
    take_over(transaction, UNSYNCED_V1, UNSYNCED, |()| 0)?;
    let mut tables = transaction.list_tables().map_err(failed)?;
    if let Some(table) = tables.find(|table| table.name() == UPLOADS_V1) {
        transaction.delete_table(table).map_err(failed)?;
    }
    Ok(())
}

fn take_over<V, N>(
    transaction: &WriteTransaction,
    from: TableDefinition<'static, &'static str, V>,
    to: TableDefinition<'static, &'static str, N>,
    to_present: impl Fn(V) -> N,
) -> Result<(), CatalogError>
where
    V: for<'a> Value<SelfType<'a> = V> + 'static,
    N: for<'a> Value<SelfType<'a> = N> + 'static,
{
    let mut tables = transaction.list_tables().map_err(failed)?;
    if !tables.any(|table| table.name() == from.name()) {
        return Ok(());
    }
    {
        let old = transaction.open_table(from).map_err(failed)?;
        let mut present = transaction.open_table(to).map_err(failed)?;
        for entry in old.iter().map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            present.insert(key.value(), to_present(value.value())).map_err(failed)?;
        }
    }
    transaction.delete_table(from).map_err(failed)?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use std::path::Path;

    use redb::Database;

    use super::{BLOBS_V1, BLOBS_V2, V1, V2};

    /// Makes a file as the versions before owners and before terms did, with this content in each.
    pub(in super::super) fn pretend_older(path: &Path, v1: &[(String, V1)], v2: &[(String, V2)]) {
        let transaction = Database::create(path).unwrap().begin_write().unwrap();
        {
            let mut first = transaction.open_table(BLOBS_V1).unwrap();
            for (key, value) in v1 {
                first.insert(key.as_str(), value).unwrap();
            }
            let mut second = transaction.open_table(BLOBS_V2).unwrap();
            for (key, value) in v2 {
                second.insert(key.as_str(), value).unwrap();
            }
        }
        transaction.commit().unwrap();
    }
}
