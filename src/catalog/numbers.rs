//! The numbers that records use for pools and owners instead of names. They are given out once:
//! what a record names must not come to mean another disk or upstream.

use std::collections::HashMap;

use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::database::Shared;
use super::record::NO_OWNER;
use super::{CatalogError, Unstarted, failed};
use crate::oci::Namespace;

/// name → (number, whether its folder was made).
const POOLS: TableDefinition<'_, &str, (u8, bool)> = TableDefinition::new("pools.v1");

/// canonical namespace → number.
const OWNERS: TableDefinition<'_, &str, u16> = TableDefinition::new("owners.v1");

/// A pool that has or had content of this store; the store's root is none of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolRecord {
    /// What records call it; never 0.
    pub number: u8,
    /// What the configuration calls it.
    pub name: String,
    /// Whether its folder was made once: if it is gone now, it was lost.
    pub is_made: bool,
}

impl Shared {
    /// Reads and changes numbers. On disk when it returns.
    fn change<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError> {
        let database = self.database().ok_or(CatalogError::Closed)?;
        let mut transaction = database.begin_write().map_err(failed)?;
        transaction.set_quick_repair(true);
        let found = change(&transaction)?;
        transaction.commit().map_err(failed)?;
        Ok(found)
    }
}

impl Unstarted {
    /// Gives numbers to the pools of these names that have none, and tells those of all pools
    /// there ever were. Blocks.
    ///
    /// # Errors
    /// 255 pools there were already, or the file cannot be read or written.
    pub fn number_pools(&self, names: &[&str]) -> Result<Vec<PoolRecord>, CatalogError> {
        self.shared.change(|transaction| {
            let mut table = transaction.open_table(POOLS).map_err(failed)?;
            let mut known = Vec::new();
            for entry in table.iter().map_err(failed)? {
                let (name, value) = entry.map_err(failed)?;
                let (number, is_made) = value.value();
                known.push(PoolRecord { number, name: name.value().to_owned(), is_made });
            }
            for &name in names {
                if known.iter().any(|pool| pool.name == name) {
                    continue;
                }
                let last = known.iter().map(|pool| pool.number).max().unwrap_or(0);
                let number = last
                    .checked_add(1)
                    .ok_or(CatalogError::NoNumber { what: "pools", given: known.len() })?;
                table.insert(name, (number, false)).map_err(failed)?;
                known.push(PoolRecord { number, name: name.to_owned(), is_made: false });
            }
            Ok(known)
        })
    }

    /// Notes that the folder of this pool is there. Blocks.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn pool_made(&self, pool: &PoolRecord) -> Result<(), CatalogError> {
        self.shared.change(|transaction| {
            let mut table = transaction.open_table(POOLS).map_err(failed)?;
            table.insert(pool.name.as_str(), (pool.number, true)).map_err(failed)?;
            Ok(())
        })
    }

    /// The numbers of these upstreams as owners of content, given out where there was none. What
    /// finds none left has [`NO_OWNER`]: its content is kept, and counts for nobody. Blocks.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn number_owners<'a>(
        &self,
        namespaces: impl IntoIterator<Item = &'a Namespace>,
    ) -> Result<HashMap<Namespace, u16>, CatalogError> {
        self.shared.change(|transaction| {
            let mut table = transaction.open_table(OWNERS).map_err(failed)?;
            let mut last = NO_OWNER;
            for entry in table.iter().map_err(failed)? {
                last = last.max(entry.map_err(failed)?.1.value());
            }
            let mut numbers = HashMap::new();
            for namespace in namespaces {
                let known = table.get(namespace.as_str()).map_err(failed)?.map(|n| n.value());
                let number = match known {
                    Some(number) => number,
                    None if last == u16::MAX => NO_OWNER,
                    None => {
                        last += 1;
                        table.insert(namespace.as_str(), last).map_err(failed)?;
                        last
                    }
                };
                numbers.insert(namespace.clone(), number);
            }
            Ok(numbers)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Catalog;
    use super::*;

    #[test]
    fn numbers_stay_and_are_never_used_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.redb");
        let record = |number: u8, name: &str, is_made: bool| PoolRecord {
            number,
            name: name.to_owned(),
            is_made,
        };
        let ghcr = Namespace::parse("ghcr.io").unwrap();
        let quay = Namespace::parse("quay.io").unwrap();
        {
            let catalog = Catalog::open(&path).unwrap();
            let pools = catalog.number_pools(&["b", "a"]).unwrap();
            assert_eq!(pools, [record(1, "b", false), record(2, "a", false)]);
            catalog.pool_made(&pools[1]).unwrap();
            let owners = catalog.number_owners([&ghcr]).unwrap();
            assert_eq!(owners, HashMap::from([(ghcr.clone(), 1)]));
        }
        let catalog = Catalog::open(&path).unwrap();
        let pools = catalog.number_pools(&["c"]).unwrap();
        assert_eq!(pools, [record(2, "a", true), record(1, "b", false), record(3, "c", false)]);
        let owners = catalog.number_owners([&quay, &ghcr]).unwrap();
        assert_eq!(owners, HashMap::from([(ghcr, 1), (quay, 2)]));
        let names: Vec<String> = (0..252).map(|n| format!("n{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(catalog.number_pools(&names).unwrap().len(), 255);
        let refused = catalog.number_pools(&["one", "more"]).unwrap_err().to_string();
        assert!(refused.contains("all 255 numbers"), "{refused}");
    }
}
