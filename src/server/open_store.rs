//! Opening the store at start: files, catalog, and the index that is fed by it.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::start::ServeError;
use crate::catalog::{Catalog, NO_OWNER, Unstarted};
use crate::config::{Config, Pool};
use crate::index::{Index, IndexOptions, Opened};
use crate::oci::{Digest, Namespace};
use crate::registry::{
    Due, HostedRules, IndexFeed, Pushes, RoomRequest, Space, SpaceLimits, Upkeep, Uploads,
};
use crate::runtime::clock;
use crate::storage::{Store, WantedPool};

/// A store that is ready to serve.
pub(super) struct OpenStore {
    pub(super) store: Arc<Store>,
    pub(super) index: Arc<Index>,
    pub(super) catalog: Catalog,
    pub(super) catalog_thread: JoinHandle<()>,
    /// Content that a power cut has made doubtful.
    pub(super) suspects: Vec<Digest>,
    pub(super) space: Arc<Space>,
    /// The gate, and the uploads that can go on.
    pub(super) pushes: Pushes,
    /// The upstreams' numbers as owners of content.
    pub(super) owners: HashMap<Namespace, u16>,
    /// Told when room is wanted.
    pub(super) room_wanted: crossbeam_channel::Receiver<RoomRequest>,
}

impl OpenStore {
    /// What scrub and gc stand on.
    pub(super) fn upkeep(&self) -> Upkeep {
        Upkeep::new(self.store.clone(), self.catalog.clone(), &self.pushes)
    }
}

/// What a blob weighs on average, for the first guess at how many there will be: layers are mostly
/// larger, configurations and manifests much smaller.
const BLOB_BYTES_EXPECTED: u64 = 4 << 20;

/// Opens files, catalog and index. Takes milliseconds whatever the store holds: an index that
/// cannot be believed is filled while requests are served, and what it does not know the catalog
/// answers.
///
/// # Errors
/// Store, catalog or index cannot be used.
pub(super) fn open_store(config: &Config) -> Result<OpenStore, ServeError> {
    let (root, max_size) = (&config.storage.root, config.storage.max_size);
    let started = clock::now();
    let (mut store, swept) = Store::open(root)?;
    let unstarted = Catalog::open(&store.catalog_path())?;
    let opened = unstarted.opened().clone();
    open_pools(&mut store, &unstarted, &config.storage.pools)?;
    // Small contents get memory by what the configuration says, which stays the same; the table
    // grows by itself, and a first filling should not have to wait for that.
    let blobs_expected = max_size / BLOB_BYTES_EXPECTED;
    let mut options = IndexOptions::sized(store.index_path(), opened.store_id, blobs_expected);
    options.slots_min = options.slots_min.max(opened.records.saturating_mul(2));
    let (index, writer, found) = Index::open(options)?;
    let owners = unstarted.number_owners(config.namespaces())?;
    let (space, room_wanted) = Space::new(&store, limits(config, &store, &owners));
    space.look_at_disks(&store);
    let due = Due::of(&found, opened.group);
    let feed = IndexFeed::new((index.clone(), writer), (due, opened.group), space.clone());
    let (catalog, catalog_thread) = unstarted.start(Box::new(feed))?;
    let uploads = Uploads::load(&store, &catalog, opened.is_intact)?;
    if due != Due::Nothing {
        catalog.rebuild();
    }
    let index_found = match found {
        Opened::Trusted { clean: true, .. } => "left in good order".to_owned(),
        Opened::Trusted { clean: false, .. } => "left by a process that was killed".to_owned(),
        Opened::Rebuild { why } => why,
    };
    tracing::info!(index = %index_found, index_due = ?due, records = opened.records,
        "index opened");
    tracing::info!(root = %root.display(), swept, intact = opened.is_intact,
        suspects = opened.suspects.len(), open_ms = started.elapsed().as_millis(),
        "store opened");
    Ok(OpenStore {
        store: Arc::new(store),
        pushes: Pushes {
            gate: Arc::default(),
            rules: HostedRules::new(config),
            uploads: Arc::new(uploads),
        },
        index,
        catalog,
        catalog_thread,
        suspects: opened.suspects,
        space,
        owners,
        room_wanted,
    })
}

/// How much there may be, by the numbers that the catalog gave.
fn limits(config: &Config, store: &Store, owners: &HashMap<Namespace, u16>) -> SpaceLimits {
    let pools = store.pools().filter_map(|pool| {
        let declared = config.storage.pools.iter().find(|one| one.name == pool.name())?;
        Some((pool.number(), declared.max_size?))
    });
    let owners = config
        .upstreams
        .iter()
        .filter_map(|upstream| Some((*owners.get(&upstream.namespace)?, upstream.max_size?)));
    SpaceLimits {
        total: config.storage.max_size,
        pools: pools.collect(),
        // Without a number of its own it would be limited together with all that have none.
        owners: owners.filter(|(owner, _)| *owner != NO_OWNER).collect(),
    }
}

/// Opens the pools beside the root. That a disk is gone stops nobody from being served.
fn open_pools(store: &mut Store, catalog: &Unstarted, pools: &[Pool]) -> Result<(), ServeError> {
    let names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
    for known in catalog.number_pools(&names)? {
        let Some(pool) = pools.iter().find(|pool| pool.name == known.name) else {
            if known.is_made {
                store.pool_undeclared(known.number, &known.name);
            }
            continue;
        };
        let wanted = WantedPool {
            number: known.number,
            name: &known.name,
            path: &pool.path,
            is_made: known.is_made,
        };
        let is_there = store.open_pool(&catalog.opened().store_id, wanted)?;
        if is_there && !known.is_made {
            catalog.pool_made(&known)?;
        }
    }
    Ok(())
}
