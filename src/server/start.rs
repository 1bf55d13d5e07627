//! From a configuration to a serving process, and to its end.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

use super::accept::{self, Service};
use super::lifecycle::Lifecycle;
use super::observer::UpstreamCounters;
use super::state::{ConnectionLimits, WorkerState};
use crate::api::Api;
use crate::catalog::{Catalog, CatalogError, Loaded};
use crate::config::{self, Config};
use crate::index::{Index, LinkEntry, TagEntry};
use crate::limits;
use crate::plugin::{Chain, PluginError, WorkerChain};
use crate::registry::{Registry, Shared, SharedParts};
use crate::runtime::{self, BlockingPool, Driver, StartError, TcpListener, WorkerContext, Workers};
use crate::storage::{Store, StoreError};
use crate::telemetry::{AccessLog, AccessLogError, Metrics, RequestIds};
use crate::upstream::{self, Client, UpstreamSet, UpstreamSetError};

/// Threads for calls that may wait, and how many calls may wait for them.
const BLOCKING_THREADS: usize = 16;
const BLOCKING_QUEUE: usize = 65_536;

/// Why the process does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A plugin.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// The upstreams' secrets or certificates.
    #[error(transparent)]
    Upstreams(#[from] UpstreamSetError),
    /// The workers.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The access log.
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}; is another server running there?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A thread or signal handler was refused by the system.
    #[error("the operating system refused {what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The drain took longer than `drain_timeout`.
    #[error("{connections} connections were still open after drain_timeout = {limit:?}")]
    Drain {
        /// How many.
        connections: usize,
        /// The limit.
        limit: Duration,
    },
}

/// What the workers are made from; each takes its chain.
struct Parts {
    config: Arc<Config>,
    lifecycle: Arc<Lifecycle>,
    metrics: Arc<Metrics>,
    access_log: AccessLog,
    upstreams: Arc<UpstreamSet>,
    upstream_shared: OnceLock<Arc<upstream::Shared>>,
    registry: OnceLock<Arc<Shared>>,
    store: Arc<Store>,
    catalog: Catalog,
    index: Mutex<Option<Index>>,
    chains: Mutex<Vec<Option<WorkerChain>>>,
    listen: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    worker_count: usize,
    listening: mpsc::Sender<Result<(), ServeError>>,
}

/// Serves until SIGTERM or SIGINT, then drains. Returns after an orderly end; the caller exits
/// the process without dropping the workers' threads.
///
/// # Errors
/// [`ServeError`], before serving or when the drain took too long.
pub fn serve(config: Config) -> Result<(), ServeError> {
    let started = Instant::now();
    let config = Arc::new(config);
    let worker_count = worker_count(&config);
    let driver = runtime::driver_for(match config.server.driver {
        config::Driver::Auto => None,
        config::Driver::IoUring => Some(Driver::IoUring),
        config::Driver::Epoll => Some(Driver::Epoll),
    })?;
    if driver == Driver::Epoll && config.server.driver == config::Driver::Auto {
        tracing::warn!("io_uring is refused by this kernel or sandbox; the workers run on epoll");
    }
    let signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])
        .map_err(|source| ServeError::System { what: "signal handlers", source })?;
    let upstreams = Arc::new(UpstreamSet::build(&config)?);
    let chain = Chain::load(&config)?;
    let access_log = AccessLog::start(&config.log.access)?;
    let (store, index, catalog, catalog_thread) = open_store(&config.storage.root)?;
    let metrics = Metrics::new(worker_count, config.namespaces().cloned());
    metrics.set_driver(driver.as_str());
    let lifecycle = Arc::<Lifecycle>::default();
    let (listening, listened) = mpsc::channel();
    let chains = (0..worker_count)
        .map(|worker| chain.start_worker(worker).map(Some))
        .collect::<Result<Vec<_>, _>>()?;
    let parts = Parts {
        listen: config.server.listen.iter().map(|a| reserve(*a)).collect::<Result<_, _>>()?,
        admin: config.server.admin.map(reserve).transpose()?,
        config: config.clone(),
        lifecycle: lifecycle.clone(),
        metrics,
        access_log: access_log.clone(),
        upstreams,
        upstream_shared: OnceLock::new(),
        registry: OnceLock::new(),
        store,
        catalog: catalog.clone(),
        index: Mutex::new(Some(index)),
        chains: Mutex::new(chains),
        worker_count,
        listening,
    };
    let (listen, admin) = (parts.listen.clone(), parts.admin);
    let pool = BlockingPool::start(BLOCKING_THREADS, BLOCKING_QUEUE)
        .map_err(|source| ServeError::System { what: "threads for blocking calls", source })?;
    let parts = Arc::new(parts);
    let (workers, _threads) = runtime::start(worker_count, driver, &pool, move |context| {
        let parts = parts.clone();
        async move { run_worker(&parts, context).await }
    })?;
    for _ in 0..worker_count {
        // A worker whose driver cannot be built ends without a word here; it has logged why.
        listened.recv().unwrap_or_else(|source| {
            Err(ServeError::System { what: "a worker", source: io::Error::other(source) })
        })?;
    }
    lifecycle.set_serving();
    tracing::info!(listen = ?listen, admin = ?admin, workers = worker_count,
        driver = driver.as_str(), start_ms = started.elapsed().as_millis(), "serving");
    let drained = wait_and_drain(&config, signals, &workers, &lifecycle);
    // The admin side has answered during the drain; now it ends too.
    on_all_workers(&workers, |state| state.stop_listening(Service::Admin));
    catalog.close();
    if catalog_thread.join().is_err() {
        tracing::error!("the catalog thread ended by a panic");
    }
    access_log.flush(Duration::from_secs(2));
    drained
}

fn worker_count(config: &Config) -> usize {
    match config.server.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    }
}

/// Opens files and catalog and fills the index from the catalog.
fn open_store(root: &PathBuf) -> Result<(Arc<Store>, Index, Catalog, JoinHandle<()>), ServeError> {
    let started = Instant::now();
    let (store, swept) = Store::open(root)?;
    let (catalog, loaded, thread) = Catalog::open(&store.catalog_path())?;
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
    Ok((Arc::new(store), index, catalog, thread))
}

/// Finds out that nobody else listens there (workers share the address among themselves, so they
/// would share it with a stranger too), and which port 0 became. Binds without listening: a client
/// that connected to a listener of ours that goes away again would be reset.
fn reserve(address: SocketAddr) -> Result<SocketAddr, ServeError> {
    runtime::probe_address(address).map_err(|source| ServeError::Listen { address, source })
}

/// One worker's main: makes its part of everything, listens, and waits for the end.
async fn run_worker(parts: &Parts, context: WorkerContext) {
    match make_worker(parts, &context) {
        Ok(()) => {
            // The receiver is gone when another worker failed; then the process is ending.
            let _ = parts.listening.send(Ok(()));
            std::future::pending::<()>().await;
        }
        Err(error) => {
            let _ = parts.listening.send(Err(error));
        }
    }
}

fn make_worker(parts: &Parts, context: &WorkerContext) -> Result<(), ServeError> {
    let WorkerContext { worker, workers } = context;
    let counters = parts.metrics.worker(*worker);
    let upstream_shared = parts.upstream_shared.get_or_init(|| {
        let observer = UpstreamCounters::new(parts.metrics.clone(), parts.worker_count);
        Arc::new(upstream::Shared::new(workers, Arc::new(observer)))
    });
    let shared = parts.registry.get_or_init(|| {
        let index = parts.index.lock().unwrap_or_else(PoisonError::into_inner).take();
        Arc::new(Shared::new(SharedParts {
            config: &parts.config,
            workers: workers.clone(),
            store: parts.store.clone(),
            index: index.unwrap_or_default(),
            catalog: parts.catalog.clone(),
        }))
    });
    let client = Client::new(parts.upstreams.clone(), upstream_shared.clone());
    let registry = Registry::install(shared.clone(), client, counters.clone());
    let chain = {
        let mut chains = parts.chains.lock().unwrap_or_else(PoisonError::into_inner);
        chains.get_mut(*worker).and_then(Option::take)
    };
    let Some(chain) = chain else {
        let source = io::Error::other(format!("worker {worker} has no resolver chain"));
        return Err(ServeError::System { what: "a worker", source });
    };
    let server = &parts.config.server;
    let state = WorkerState {
        worker: *worker,
        api: Api::new(registry, Rc::new(chain)),
        config: parts.config.clone(),
        shared: shared.clone(),
        limits: ConnectionLimits {
            connections_max: server.connections_max,
            head_timeout: server.head_timeout,
            idle_timeout: server.idle_timeout,
            stall_timeout: limits::BODY_RATE_WINDOW,
        },
        lifecycle: parts.lifecycle.clone(),
        metrics: parts.metrics.clone(),
        counters,
        access_log: parts.access_log.clone(),
        request_ids: RequestIds::new(*worker),
        connections: std::cell::Cell::new(0),
        date: std::cell::RefCell::default(),
        listeners: std::cell::RefCell::default(),
    }
    .install();
    for &address in &parts.listen {
        listen(&state, address, Service::Registry)?;
    }
    if let Some(address) = parts.admin.filter(|_| *worker == 0) {
        listen(&state, address, Service::Admin)?;
    }
    Ok(())
}

fn listen(
    state: &Rc<WorkerState>,
    address: SocketAddr,
    service: Service,
) -> Result<(), ServeError> {
    let listener = TcpListener::bind(address)
        .map(Rc::new)
        .map_err(|source| ServeError::Listen { address, source })?;
    state.listeners.borrow_mut().push((service, listener.clone()));
    runtime::spawn(accept::run(state.clone(), listener, service));
    Ok(())
}

/// Waits for a signal, then lets requests in flight finish. A second signal ends at once.
fn wait_and_drain(
    config: &Config,
    mut signals: signal_hook::iterator::Signals,
    workers: &Workers,
    lifecycle: &Arc<Lifecycle>,
) -> Result<(), ServeError> {
    let signal = signals.forever().next();
    let limit = config.server.drain_timeout;
    tracing::info!(signal, connections = lifecycle.connections(), drain_timeout = ?limit,
        "told to stop; draining");
    lifecycle.set_draining();
    on_all_workers(workers, |state| {
        accept::take_waiting(state);
        state.drain();
    });
    let deadline = Instant::now() + limit;
    while lifecycle.connections() > 0 {
        if Instant::now() >= deadline {
            return Err(ServeError::Drain { connections: lifecycle.connections(), limit });
        }
        if signals.pending().next().is_some() {
            tracing::warn!(connections = lifecycle.connections(), "told to stop again; stopping");
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    tracing::info!("drained");
    Ok(())
}

/// Runs `work` on every worker and waits until it is done there, for at most a second.
fn on_all_workers(workers: &Workers, work: fn(&Rc<WorkerState>)) {
    let (done, all_done) = mpsc::channel();
    for worker in 0..workers.count() {
        let done = done.clone();
        let posted = workers.post(worker, move || {
            if let Some(state) = WorkerState::current() {
                work(&state);
            }
            // Nobody waits any longer if that took too long.
            let _ = done.send(());
        });
        if let Err(error) = posted {
            tracing::warn!(%error, "a worker was gone before the others");
        }
    }
    drop(done);
    let deadline = Instant::now() + Duration::from_secs(1);
    while all_done.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
}
