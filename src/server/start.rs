//! From a configuration to a serving process, and to its end.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

use super::accept::{self, Service};
use super::drain::{on_all_workers, wait_and_drain};
use super::lifecycle::Lifecycle;
use super::observer::UpstreamCounters;
use super::open_store::{OpenStore, open_store};
use super::state::{ConnectionLimits, Serving, WorkerState};
use crate::api::Api;
use crate::catalog::{Catalog, CatalogError};
use crate::config::{self, Config};
use crate::index::Index;
use crate::limits;
use crate::plugin::{Chain, PluginError, WorkerChain};
use crate::registry::{Registry, Shared, SharedParts};
use crate::runtime::{self, BlockingPool, Driver, StartError, TcpListener, WorkerContext};
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

/// Serves until SIGTERM or SIGINT, then drains. `log_dropped` tells how many log lines were lost.
/// Returns after an orderly end; the caller exits
/// the process without dropping the workers' threads.
///
/// # Errors
/// [`ServeError`], before serving or when the drain took too long.
pub fn serve(
    config: Config,
    log_dropped: impl Fn() -> u64 + Send + Sync + 'static,
) -> Result<(), ServeError> {
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
    let OpenStore { store, index, catalog, catalog_thread } = open_store(&config.storage.root)?;
    let metrics = Metrics::new(worker_count, config.namespaces().cloned());
    metrics.set_driver(driver.as_str());
    metrics.attach_counter(
        "ringport_log_dropped",
        "Log lines that found their queue full",
        log_dropped,
    );
    let access = access_log.clone();
    metrics.attach_counter(
        "ringport_access_log_dropped",
        "Access log entries that found their queue full",
        move || access.dropped(),
    );
    metrics.attach_counter(
        "ringport_task_panics",
        "Tasks of any kind that a panic ended",
        runtime::panic_count,
    );
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
        api: Api::new(registry, chain, counters.clone()),
        config: parts.config.clone(),
        shared: shared.clone(),
        metrics: parts.metrics.clone(),
        listeners: RefCell::default(),
        serving: Serving {
            worker: *worker,
            limits: ConnectionLimits {
                connections_max: server.connections_max,
                head_timeout: server.head_timeout,
                idle_timeout: server.idle_timeout,
                stall_timeout: limits::BODY_RATE_WINDOW,
            },
            lifecycle: parts.lifecycle.clone(),
            counters,
            access_log: parts.access_log.clone(),
            request_ids: RequestIds::new(*worker),
            connections: Cell::new(0),
            date: RefCell::default(),
        },
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
