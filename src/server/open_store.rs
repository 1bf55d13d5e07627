//! Opening the store at start: files, catalog, and the index that is fed by it.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::start::ServeError;
use crate::catalog::Catalog;
use crate::index::Index;
use crate::registry::IndexFeed;
use crate::runtime::clock;
use crate::storage::Store;

/// A store that is ready to serve.
pub(super) struct OpenStore {
    pub(super) store: Arc<Store>,
    pub(super) index: Arc<Index>,
    pub(super) catalog: Catalog,
    pub(super) catalog_thread: JoinHandle<()>,
}

/// Opens files, catalog and index. Takes milliseconds whatever the store holds: the index is
/// filled while requests are served, and what it does not know yet the catalog answers.
///
/// # Errors
/// Store or catalog cannot be used.
pub(super) fn open_store(root: &Path) -> Result<OpenStore, ServeError> {
    let started = clock::now();
    let (store, swept) = Store::open(root)?;
    let unstarted = Catalog::open(&store.catalog_path())?;
    let opened = unstarted.opened().clone();
    let (index, writer) = Index::open();
    let (catalog, catalog_thread) = unstarted.start(Box::new(IndexFeed::new(writer)))?;
    catalog.rebuild();
    tracing::info!(root = %root.display(), swept, intact = opened.is_intact,
        suspects = opened.suspects.len(), open_ms = started.elapsed().as_millis(),
        "store opened");
    Ok(OpenStore { store: Arc::new(store), index, catalog, catalog_thread })
}
