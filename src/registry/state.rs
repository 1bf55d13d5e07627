//! What the use cases stand on: shared over all workers, and the part each worker has to itself.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;

use super::absent::Absences;
use super::durability::{Suspects, Syncer};
use super::fetch_manifest::{FetchKey, FetchOutcome};
use super::fill_table::FillTable;
use super::fill_turns::{FillPlace, FillTurns};
use super::leases::Leases;
use super::lists::{ListKey, ListOutcome};
use super::needs::Needs;
use super::pull_blob::ProofKey;
use super::resting::Resting;
use super::revalidation::Background;
use super::space::Space;
use super::tier_write::TierWrites;
use super::tiers::{TierCount, Tiers};
use super::{HostedRules, PullError, PushGate, Pushes, RoomRequest, Uploads, make_room};
use crate::catalog::{Catalog, NO_OWNER};
use crate::config::{ColdRanges, Config, UpstreamConfig};
use crate::index::Index;
use crate::oci::{Digest, Namespace, Scope};
use crate::plugin::{PlaceRequest, RemoteRequest};
use crate::runtime::{SingleFlight, Workers};
use crate::storage::Store;
use crate::telemetry::WorkerMetrics;
use crate::upstream::Client;

/// Largest blob that is accepted from an upstream: 1 TiB. One that is larger than the store is
/// passed through.
const BLOB_BYTES_MAX: u64 = 1 << 40;

/// What [`Shared::new`] is made of.
pub struct SharedParts<'a> {
    /// The checked configuration.
    pub config: &'a Config,
    /// All workers.
    pub workers: Workers,
    /// The files.
    pub store: Arc<Store>,
    /// The look-up tables, loaded.
    pub index: Arc<Index>,
    /// The names.
    pub catalog: Catalog,
    /// Content to be checked before its first use.
    pub suspects: Vec<Digest>,
    /// How much there may be of it.
    pub space: Arc<Space>,
    /// The upstreams' numbers as owners of content.
    pub owners: HashMap<Namespace, u16>,
    /// The gate, and the uploads that an earlier process left.
    pub pushes: Pushes,
}

/// How one upstream's content is treated.
pub(super) struct UpstreamPolicy {
    pub(super) tag_ttl: Duration,
    pub(super) stale_max: Duration,
    pub(super) stale_while_revalidate: Duration,
    pub(super) negative_ttl: Duration,
    pub(super) immutable_tags: Vec<String>,
    pub(super) cold_ranges: ColdRanges,
    pub(super) background_fill: bool,
    pub(super) extents_keep: Duration,
    owner: u16,
    fills_max: usize,
    turns: Arc<FillTurns>,
}

impl UpstreamPolicy {
    /// `same`: the one before, whose turns go on.
    fn new(upstream: &UpstreamConfig, owner: u16, same: Option<&Arc<UpstreamPolicy>>) -> Self {
        let turns = || Arc::new(FillTurns::new(upstream.fills_max));
        Self {
            tag_ttl: upstream.tag_ttl,
            stale_max: upstream.stale_max,
            stale_while_revalidate: upstream.stale_while_revalidate,
            negative_ttl: upstream.negative_ttl,
            immutable_tags: upstream.immutable_tags.clone(),
            cold_ranges: upstream.cold_ranges,
            background_fill: upstream.background_fill,
            extents_keep: upstream.extents_keep,
            owner,
            fills_max: upstream.fills_max,
            turns: same.map_or_else(turns, |same| same.turns.clone()),
        }
    }
}

/// State of the registry that all workers share.
pub struct Shared {
    /// All workers.
    pub workers: Workers,
    /// The files.
    pub store: Arc<Store>,
    /// The look-up tables.
    pub index: Arc<Index>,
    /// The names.
    pub catalog: Catalog,
    /// How much the store holds and may hold.
    pub space: Arc<Space>,
    /// Which of it is being read.
    pub leases: Arc<Leases>,
    /// Largest blob that is accepted from an upstream, in bytes.
    pub blob_bytes_max: u64,
    /// What holds of hosted repositories.
    pub rules: HostedRules,
    pub(super) gate: Arc<PushGate>,
    /// Uploads under way.
    pub uploads: Arc<Uploads>,
    pub(super) resting: Resting,
    pub(super) absent: Absences,
    pub(super) background: Arc<Background>,
    pub(super) suspects: Suspects,
    pub(super) needs: Arc<Needs>,
    pub(super) syncer: Syncer,
    pub(super) checks: SingleFlight<Digest, Result<bool, PullError>>,
    pub(super) fills: FillTable,
    pub(super) fetches: SingleFlight<FetchKey, FetchOutcome>,
    pub(super) lists: SingleFlight<ListKey, ListOutcome>,
    pub(super) proofs: SingleFlight<ProofKey, Result<u64, PullError>>,
    pub(super) tiers: Tiers,
    pub(super) tier_writes: TierWrites,
    /// By canonical namespace.
    policies: ArcSwap<HashMap<Namespace, Arc<UpstreamPolicy>, RandomState>>,
    /// As of the start: what an upstream brings that came with a reload counts for the store alone.
    owners: HashMap<Namespace, u16>,
}

impl Shared {
    /// Nothing is running yet, except the thread that makes content durable.
    ///
    /// # Errors
    /// The operating system refused that thread.
    pub fn new(parts: SharedParts<'_>) -> io::Result<Self> {
        let SharedParts { config, workers, store, index, catalog, .. } = parts;
        let SharedParts { suspects, space, owners, pushes, .. } = parts;
        let Pushes { gate, rules, uploads } = pushes;
        let syncer = Syncer::start(store.clone(), catalog.clone())?;
        let shared = Self {
            store,
            index,
            catalog,
            gate,
            rules,
            uploads,
            suspects: Suspects::new(suspects),
            space,
            leases: Arc::default(),
            needs: Arc::default(),
            syncer,
            checks: SingleFlight::new(workers.clone()),
            blob_bytes_max: BLOB_BYTES_MAX,
            resting: Resting::default(),
            absent: Absences::default(),
            background: Arc::default(),
            fills: FillTable::new(workers.count()),
            fetches: SingleFlight::new(workers.clone()),
            lists: SingleFlight::new(workers.clone()),
            proofs: SingleFlight::new(workers.clone()),
            tiers: Tiers::new(&config.storage.remote_tiers),
            tier_writes: TierWrites::default(),
            policies: ArcSwap::default(),
            owners,
            workers,
        };
        shared.set_upstreams(config);
        Ok(shared)
    }

    /// Starts the thread that makes room, which is told through `requests` when some lacks.
    ///
    /// # Errors
    /// The operating system refused it.
    pub fn start_making_room(
        &self,
        requests: crossbeam_channel::Receiver<RoomRequest>,
    ) -> io::Result<()> {
        make_room::start(self, requests)
    }

    /// Requests to remote tiers by what came of them, for each tier that is declared.
    pub fn tier_counts(&self) -> Vec<TierCount> {
        self.tiers.counts()
    }

    /// Contents that wait to be written to remote tiers, and those that found the queue full.
    pub fn tier_writes(&self) -> (usize, u64) {
        (self.tier_writes.waiting(), self.tier_writes.dropped())
    }

    /// Fills running now.
    pub fn fills_active(&self) -> usize {
        self.fills.active()
    }

    pub(super) fn policy(&self, scope: &Scope) -> Option<Arc<UpstreamPolicy>> {
        self.policies.load().get(scope.upstream.as_ref()?.base()).cloned()
    }

    /// Goes on with the upstreams, and the rules of what is hosted, of another configuration. Fills
    /// that wait for their turn at an upstream whose `fills_max` is the same go on waiting in the
    /// same queue; those from one that is no more go on as they began.
    pub fn set_upstreams(&self, config: &Config) {
        self.rules.replace(config);
        let mut policies = HashMap::clone(&self.policies.load());
        for upstream in &config.upstreams {
            let same = policies.get(&upstream.namespace);
            let same = same.filter(|before| before.fills_max == upstream.fills_max);
            let owner = self.owners.get(&upstream.namespace).copied().unwrap_or(NO_OWNER);
            let policy = Arc::new(UpstreamPolicy::new(upstream, owner, same));
            policies.insert(upstream.namespace.clone(), policy);
        }
        self.policies.store(Arc::new(policies));
    }

    /// Who brings the content of this repository, as the catalog numbers them.
    pub(super) fn owner(&self, scope: &Scope) -> u16 {
        self.policy(scope).map_or(NO_OWNER, |policy| policy.owner)
    }

    /// A place in the queue for the fills that may run at a time from one upstream.
    pub(super) fn fill_place(&self, scope: &Scope) -> Result<FillPlace, PullError> {
        let Some(policy) = self.policy(scope) else {
            return Err(PullError::Internal(format!("{scope} has no upstream to fill from")));
        };
        policy.turns.enter(scope)
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Registry>>> = const { RefCell::new(None) };
}

/// The registry as one worker has it.
pub struct Registry {
    shared: Arc<Shared>,
    client: RefCell<Client>,
    metrics: WorkerMetrics,
    placer: OnceCell<Placer>,
}

/// Asks the plugins of this worker where stored content is to be written, too.
pub type Placer = Box<dyn Fn(&PlaceRequest<'_>) -> Vec<RemoteRequest>>;

impl Registry {
    /// Makes the worker's registry and remembers it for the work other workers send here.
    pub fn install(shared: Arc<Shared>, client: Client, metrics: WorkerMetrics) -> Rc<Self> {
        let client = RefCell::new(client);
        let registry = Rc::new(Self { shared, client, metrics, placer: OnceCell::new() });
        CURRENT.with(|current| *current.borrow_mut() = Some(registry.clone()));
        registry
    }

    /// The registry of the current worker.
    pub(super) fn current() -> Result<Rc<Self>, PullError> {
        CURRENT
            .with(|current| current.borrow().clone())
            .ok_or_else(|| PullError::Internal("this thread serves no registry".into()))
    }

    /// What all workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Asks upstreams through `client` from now on; what is under way goes on with the one before.
    pub fn set_client(&self, client: Client) {
        *self.client.borrow_mut() = client;
    }

    /// Writes what is stored from now on to the remote tiers that `placer` names. The first counts.
    pub fn set_placer(&self, placer: Placer) {
        let _ = self.placer.set(placer);
    }

    pub(super) fn place_stored(&self, request: &PlaceRequest<'_>) -> Vec<RemoteRequest> {
        self.placer.get().map(|placer| placer(request)).unwrap_or_default()
    }

    pub(super) fn client(&self) -> Client {
        self.client.borrow().clone()
    }

    pub(super) fn metrics(&self) -> &WorkerMetrics {
        &self.metrics
    }
}
