//! What the workers are made from, and how one is made.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::accept::{self, Service};
use super::certificates::Certificates;
use super::connection::at_once::TOGETHER_PACE;
use super::lifecycle::Lifecycle;
use super::maintenance::Maintenance;
use super::observer::UpstreamCounters;
use super::reload::Reloader;
use super::spare::Spare;
use super::start::ServeError;
use super::state::{ConnectionLimits, Listener, Serving, WorkerState};
use crate::api::{Api, Rules};
use crate::auth::Authenticator;
use crate::catalog::Catalog;
use crate::config::{Config, Server};
use crate::index::Index;
use crate::limits;
use crate::oci::{Digest, Namespace};
use crate::plugin::{ChainObserver, WorkerChain};
use crate::registry::{Pushes, Registry, RoomRequest, Shared, SharedParts, Space};
use crate::runtime::{self, TcpListener, WorkerContext, Workers};
use crate::storage::Store;
use crate::telemetry::{AccessLog, Metrics, RequestIds};
use crate::upstream::{self, Client, Lasting, UpstreamSet};

/// What the workers are made from; each takes its chain.
pub(super) struct Parts {
    pub(super) config: Arc<Config>,
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) rules: Arc<Rules>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) maintenance: Arc<Maintenance>,
    pub(super) access_log: AccessLog,
    pub(super) upstreams: Arc<UpstreamSet>,
    pub(super) lasting: Lasting,
    pub(super) upstream_shared: OnceLock<Arc<upstream::Shared>>,
    pub(super) registry: Mutex<Option<Arc<Shared>>>,
    pub(super) suspects: Vec<Digest>,
    pub(super) space: Arc<Space>,
    pub(super) owners: HashMap<Namespace, u16>,
    pub(super) pushes: Pushes,
    pub(super) room_wanted: crossbeam_channel::Receiver<RoomRequest>,
    pub(super) store: Arc<Store>,
    pub(super) catalog: Catalog,
    pub(super) index: Arc<Index>,
    /// Set when all workers serve.
    pub(super) reloader: Arc<OnceLock<Arc<Reloader>>>,
    pub(super) plugins: ChainObserver,
    pub(super) chains: Mutex<Vec<Option<WorkerChain>>>,
    pub(super) addresses: Addresses,
    pub(super) tls: Option<Arc<Certificates>>,
    pub(super) worker_count: usize,
}

/// Where the workers listen, with the ports that 0 became.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    listen: Vec<SocketAddr>,
    tls: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
}

impl Addresses {
    /// Finds out that nobody else listens there (workers share an address among themselves, so they
    /// would share it with a stranger too), and which ports 0 became. Binds without listening: a
    /// client that connected to a listener of ours that goes away again would be reset.
    ///
    /// # Errors
    /// Somebody does, or an address is not ours.
    pub(super) fn reserve(server: &Server) -> Result<Self, ServeError> {
        let reserve = |&address: &SocketAddr| {
            runtime::probe_address(address).map_err(|source| ServeError::Listen { address, source })
        };
        let tls = server.tls.iter().flat_map(|tls| &tls.listen);
        Ok(Self {
            listen: server.listen.iter().map(reserve).collect::<Result<_, _>>()?,
            tls: tls.map(reserve).collect::<Result<_, _>>()?,
            admin: server.admin.as_ref().map(reserve).transpose()?,
        })
    }
}

impl Parts {
    /// The registry's shared state, made by the first worker that asks.
    pub(super) fn shared(&self, workers: &Workers) -> Result<Arc<Shared>, ServeError> {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = &*registry {
            return Ok(shared.clone());
        }
        let parts = SharedParts {
            config: &self.config,
            workers: workers.clone(),
            store: self.store.clone(),
            index: self.index.clone(),
            catalog: self.catalog.clone(),
            suspects: self.suspects.clone(),
            space: self.space.clone(),
            owners: self.owners.clone(),
            pushes: self.pushes.clone(),
        };
        let refused = |source| ServeError::System { what: "a thread of the store", source };
        let shared = Shared::new(parts).map(Arc::new).map_err(refused)?;
        shared.start_making_room(self.room_wanted.clone()).map_err(refused)?;
        Ok(registry.insert(shared).clone())
    }

    /// Makes the current worker's part of everything and starts to listen.
    ///
    /// # Errors
    /// An address cannot be listened on.
    pub(super) fn make_worker(&self, context: &WorkerContext) -> Result<(), ServeError> {
        let WorkerContext { worker, workers } = context;
        let counters = self.metrics.worker(*worker);
        let upstream_shared = self.upstream_shared.get_or_init(|| {
            let observer = UpstreamCounters::new(self.metrics.clone(), self.worker_count);
            Arc::new(upstream::Shared::new(workers, Arc::new(observer), self.lasting.clone()))
        });
        let shared = self.shared(workers)?;
        self.maintenance.attach(&shared);
        let client = Client::new(self.upstreams.clone(), upstream_shared.clone());
        let registry = Registry::install(shared.clone(), client, counters.clone());
        let chain = {
            let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
            chains.get_mut(*worker).and_then(Option::take)
        };
        let Some(chain) = chain else {
            let source = io::Error::other(format!("worker {worker} has no resolver chain"));
            return Err(ServeError::System { what: "a worker", source });
        };
        let access = (self.authenticator.clone(), self.rules.clone());
        let server = &self.config.server;
        let state = WorkerState {
            api: Api::new(registry, chain, access, counters.clone(), self.access_log.is_on()),
            config: RefCell::new(self.config.clone()),
            reloader: self.reloader.clone(),
            plugins: self.plugins.clone(),
            shared: shared.clone(),
            metrics: self.metrics.clone(),
            maintenance: self.maintenance.clone(),
            admin_connections: Cell::new(0),
            listeners: RefCell::default(),
            serving: Serving {
                worker: *worker,
                limits: ConnectionLimits {
                    connections_max: server.connections_max,
                    head_timeout: server.head_timeout,
                    idle_timeout: server.idle_timeout,
                    stall_timeout: limits::BODY_RATE_WINDOW,
                    together_pace: TOGETHER_PACE,
                },
                lifecycle: self.lifecycle.clone(),
                counters,
                access_log: self.access_log.clone(),
                request_ids: RequestIds::new(*worker),
                date: RefCell::default(),
                spare: Spare::default(),
                answered: Cell::default(),
                tls: self.tls.clone(),
            },
        }
        .install();
        let placer = Rc::downgrade(&state);
        state.api.registry().set_placer(Box::new(move |request| {
            placer.upgrade().map(|state| state.api.place_stored(request)).unwrap_or_default()
        }));
        for &address in &self.addresses.listen {
            listen(&state, address, Service::Registry, false)?;
        }
        for &address in &self.addresses.tls {
            listen(&state, address, Service::Registry, true)?;
        }
        if let Some(address) = self.addresses.admin.filter(|_| *worker == 0) {
            listen(&state, address, Service::Admin, false)?;
        }
        Ok(())
    }
}

fn listen(
    state: &Rc<WorkerState>,
    address: SocketAddr,
    service: Service,
    is_tls: bool,
) -> Result<(), ServeError> {
    let socket = TcpListener::bind(address)
        .map(Rc::new)
        .map_err(|source| ServeError::Listen { address, source })?;
    let listener = Listener { service, is_tls, socket };
    state.listeners.borrow_mut().push(listener.clone());
    runtime::spawn(accept::run(state.clone(), listener));
    Ok(())
}
