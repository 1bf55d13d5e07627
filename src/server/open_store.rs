//! Opening the store at start: files, catalog, and the index made from it.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::start::ServeError;
use crate::catalog::{Catalog, CatalogError, Loaded};
use crate::index::{Index, LinkEntry, TagEntry};
use crate::runtime::clock;
use crate::storage::Store;

/// A store that is ready to serve.
pub(super) struct OpenStore {
    pub(super) store: Arc<Store>,
    pub(super) index: Index,
    pub(super) catalog: Catalog,
    pub(super) catalog_thread: JoinHandle<()>,
}

/// Opens files and catalog and fills the index from the catalog.
///
/// # Errors
/// Store or catalog cannot be used. A damaged record is logged and skipped.
pub(super) fn open_store(root: &Path) -> Result<OpenStore, ServeError> {
    let started = clock::now();
    let (store, swept) = Store::open(root)?;
    let (catalog, loaded, catalog_thread) = read_catalog(&store.catalog_path())?;
    let Loaded { tags, links, damaged } = loaded;
    for error in &damaged {
        tracing::error!(%error, "skipped");
    }
    let index = Index::new();
    for link in links {
        let entry = LinkEntry {
            size: link.size,
            media_type: link.media_type.map(Arc::from),
            linked_at: link.linked_at,
        };
        index.insert_link(&link.scope, &link.digest, entry);
    }
    for tag in tags {
        let entry = TagEntry {
            digest: tag.digest,
            fetched_at: tag.fetched_at,
            checked_at: tag.checked_at,
            retry_at: 0,
        };
        index.insert_tag(&tag.scope, &tag.tag, entry);
    }
    let counts = index.counts();
    tracing::info!(root = %root.display(), blobs = counts.blobs, links = counts.links,
        tags = counts.tags, swept, damaged = damaged.len(),
        open_ms = started.elapsed().as_millis(), "store opened");
    Ok(OpenStore { store: Arc::new(store), index, catalog, catalog_thread })
}

/// Reads the catalog; somebody who watches a terminal sees how far it is.
fn read_catalog(path: &Path) -> Result<(Catalog, Loaded, JoinHandle<()>), CatalogError> {
    if !std::io::stderr().is_terminal() {
        return Catalog::open(path, |_| ());
    }
    let spinner = indicatif::ProgressBar::new_spinner().with_message("opening the store");
    let opened = Catalog::open(path, |read| {
        spinner.set_message(format!("opening the store: {read} names"));
        spinner.tick();
    });
    spinner.finish_and_clear();
    opened
}
