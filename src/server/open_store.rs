//! Opening the store at start: files, catalog, and the index that is fed by it.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::start::ServeError;
use crate::catalog::Catalog;
use crate::index::Index;
use crate::oci::Digest;
use crate::registry::{IndexFeed, Space};
use crate::runtime::clock;
use crate::storage::Store;

/// A store that is ready to serve.
pub(super) struct OpenStore {
    pub(super) store: Arc<Store>,
    pub(super) index: Arc<Index>,
    pub(super) catalog: Catalog,
    pub(super) catalog_thread: JoinHandle<()>,
    /// Content that a power cut has made doubtful.
    pub(super) suspects: Vec<Digest>,
    pub(super) space: Arc<Space>,
    /// Told when room is wanted.
    pub(super) room_wanted: crossbeam_channel::Receiver<()>,
}

/// Opens files, catalog and index. Takes milliseconds whatever the store holds: the index is
/// filled while requests are served, and what it does not know yet the catalog answers.
///
/// # Errors
/// Store or catalog cannot be used.
pub(super) fn open_store(root: &Path, max_size: u64) -> Result<OpenStore, ServeError> {
    let started = clock::now();
    let (store, swept) = Store::open(root)?;
    let unstarted = Catalog::open(&store.catalog_path())?;
    let opened = unstarted.opened().clone();
    let (index, writer) = Index::open();
    let (space, room_wanted) = Space::new(max_size);
    match store.free_bytes() {
        Ok(free) => space.set_disk_free(free),
        Err(error) => tracing::warn!(%error, "cannot tell how much room the disk has"),
    }
    let feed = IndexFeed::new(index.clone(), writer, space.clone());
    let (catalog, catalog_thread) = unstarted.start(Box::new(feed))?;
    catalog.rebuild();
    tracing::info!(root = %root.display(), swept, intact = opened.is_intact,
        suspects = opened.suspects.len(), open_ms = started.elapsed().as_millis(),
        "store opened");
    Ok(OpenStore {
        store: Arc::new(store),
        index,
        catalog,
        catalog_thread,
        suspects: opened.suspects,
        space,
        room_wanted,
    })
}
