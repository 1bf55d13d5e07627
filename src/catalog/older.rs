//! What older versions wrote.

use redb::{ReadableTable, TableDefinition, TableHandle, WriteTransaction};

use super::record::{BLOBS, NO_OWNER};
use super::{CatalogError, failed};

/// Content before it had an owner: (size in bytes, pool, flags).
const V1: TableDefinition<'_, &str, (u64, u8, u8)> = TableDefinition::new("blobs.v1");

/// Brings the records of an older version into the present form.
pub(super) fn take_over(transaction: &WriteTransaction) -> Result<(), CatalogError> {
    let mut tables = transaction.list_tables().map_err(failed)?;
    if !tables.any(|table| table.name() == V1.name()) {
        return Ok(());
    }
    {
        let old = transaction.open_table(V1).map_err(failed)?;
        let mut blobs = transaction.open_table(BLOBS).map_err(failed)?;
        for entry in old.iter().map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            let (size, pool, flags) = value.value();
            blobs.insert(key.value(), (size, pool, flags, NO_OWNER)).map_err(failed)?;
        }
    }
    transaction.delete_table(V1).map_err(failed)?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use std::path::Path;

    use redb::Database;

    use super::V1;

    /// Makes a file as the version before owners did.
    pub(in super::super) fn pretend_version_1(path: &Path, blobs: Vec<(String, (u64, u8, u8))>) {
        let transaction = Database::create(path).unwrap().begin_write().unwrap();
        {
            let mut table = transaction.open_table(V1).unwrap();
            for (key, value) in blobs {
                table.insert(key.as_str(), value).unwrap();
            }
        }
        transaction.commit().unwrap();
    }
}
