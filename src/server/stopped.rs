//! The store of a server that is not running, for `ringport verify` and `ringport gc`.

use std::sync::Arc;
use std::thread::JoinHandle;

use super::open_store::{OpenStore, open_store};
use super::start::ServeError;
use crate::catalog::{Catalog, CatalogError};
use crate::config::Config;
use crate::oci::Digest;
use crate::registry::Upkeep;
use crate::storage::Store;

/// A store that this process holds without serving it.
pub struct StoppedStore {
    upkeep: Upkeep,
    store: Arc<Store>,
    catalog: Catalog,
    catalog_thread: JoinHandle<()>,
    suspects: Vec<Digest>,
}

impl StoppedStore {
    /// Takes the lock and opens everything as a server would. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Locked`](crate::storage::StoreError::Locked) as [`ServeError::Store`] when a
    /// server runs on it; or it cannot be used.
    pub fn open(config: &Config) -> Result<Self, ServeError> {
        let opened = open_store(config)?;
        let upkeep = opened.upkeep();
        let OpenStore { store, catalog, catalog_thread, suspects, .. } = opened;
        Ok(Self { upkeep, store, catalog, catalog_thread, suspects })
    }

    /// To verify, or to collect.
    pub fn upkeep(&self) -> &Upkeep {
        &self.upkeep
    }

    /// Checks what a power cut has made doubtful, before anybody reads it. What is right stays
    /// doubtful in the catalog, and is looked at once more after the next start.
    ///
    /// # Errors
    /// The catalog cannot be read or written.
    pub fn check_suspects(&self) -> Result<(), CatalogError> {
        self.upkeep.verify_these(&self.suspects).map(drop)
    }

    /// Leaves the store in good order.
    ///
    /// # Errors
    /// Not everything reached the disk; the next start checks it.
    pub fn close(self) -> std::io::Result<()> {
        let synced = self.store.sync();
        self.catalog.close(synced.is_ok());
        let ended = self.catalog_thread.join();
        synced?;
        ended.map_err(|_| std::io::Error::other("the catalog thread ended by a panic"))
    }
}
