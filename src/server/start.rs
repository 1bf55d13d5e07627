//! From a configuration to a serving process, and to its end.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::accept::Service;
use super::certificates::{CertificateError, Certificates};
use super::drain::{on_all_workers, wait_and_drain};
use super::lasting;
use super::lifecycle::Lifecycle;
use super::logins::attach_logins;
use super::maintenance::Maintenance;
use super::open_store::open_store;
use super::parts::{Addresses, Parts};
use super::plugins::attach_plugins;
use super::reload::{ReadConfig, ReloadParts, Reloader};
use super::store_metrics;
use crate::api::Rules;
use crate::auth::{self, Authenticator};
use crate::catalog::{Catalog, CatalogError};
use crate::config::{self, Config};
use crate::index::IndexError;
use crate::limits::OPEN_FILES_MAX;
use crate::plugin::{Chain, PluginError};
use crate::registry::Shared;
use crate::runtime::{self, BlockingPool, Driver, StartError, Workers, clock};
use crate::storage::{Store, StoreError};
use crate::telemetry::{AccessLog, AccessLogError, Metrics};
use crate::upstream::{UpstreamSet, UpstreamSetError};

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
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A plugin.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// Users and keys.
    #[error(transparent)]
    Auth(#[from] auth::StartError),
    /// The upstreams' secrets or certificates.
    #[error(transparent)]
    Upstreams(#[from] UpstreamSetError),
    /// The certificate that clients are shown.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
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

/// Serves until SIGTERM or SIGINT, then drains. On SIGHUP, and when the admin address is told to,
/// `read` gives another configuration. `log_dropped` tells how many log lines were lost.
/// Returns after an orderly end; the caller exits the process without dropping the workers'
/// threads.
///
/// # Errors
/// [`ServeError`], before serving or when the drain took too long.
pub fn serve(
    config: Config,
    read: ReadConfig,
    log_dropped: impl Fn() -> u64 + Send + Sync + 'static,
) -> Result<(), ServeError> {
    let started = clock::now();
    let config = Arc::new(config);
    let (worker_count, driver) = prepare_machine(&config)?;
    let signals = signals()?;
    let upstreams = Arc::new(UpstreamSet::build(&config)?);
    let chain = Chain::load(&config)?;
    let authenticator = Authenticator::start(&config.auth)?;
    let access_log = AccessLog::start(&config.log.access)?;
    let metrics = make_metrics(&config, worker_count, driver, &access_log, log_dropped);
    let tls = Certificates::start(&config.server, &metrics)?;
    let opened = open_store(&config)?;
    store_metrics::attach(&metrics, &opened);
    let (store, catalog) = (opened.store.clone(), opened.catalog.clone());
    let (maintenance, maintenance_thread) = Maintenance::start(opened.upkeep(), &config.storage)?;
    store_metrics::count_maintenance(&metrics, &maintenance);
    let (keeper, lasting) = lasting::Keeper::start(&store, &metrics)?;
    let chains = (0..worker_count).map(|worker| chain.start_worker(worker).map(Some));
    let chains = chains.collect::<Result<Vec<_>, _>>()?;
    let (lifecycle, reloader) = (Lifecycle::new(worker_count), Arc::<OnceLock<_>>::default());
    attach_plugins(&metrics, chain.observer());
    attach_logins(&metrics, &authenticator);
    let addresses = Addresses::reserve(&config.server)?;
    let parts = Parts {
        reloader: reloader.clone(),
        plugins: chain.observer(),
        addresses: addresses.clone(),
        tls: tls.clone(),
        config: config.clone(),
        authenticator: authenticator.clone(),
        rules: Rules::new(config.clone()),
        lifecycle: lifecycle.clone(),
        metrics: metrics.clone(),
        maintenance: maintenance.clone(),
        access_log: access_log.clone(),
        upstreams: upstreams.clone(),
        lasting: lasting.clone(),
        upstream_shared: OnceLock::new(),
        registry: Mutex::default(),
        suspects: opened.suspects,
        space: opened.space,
        owners: opened.owners,
        pushes: opened.pushes,
        room_wanted: opened.room_wanted,
        store: opened.store.clone(),
        catalog: opened.catalog.clone(),
        index: opened.index,
        chains: Mutex::new(chains),
        worker_count,
    };
    let (workers, registry) = start_workers(parts, driver)?;
    let told = workers.clone();
    let parts = ReloadParts { workers: told, registry, metrics, lasting, authenticator, tls };
    let running = Reloader::start(read, (config.clone(), upstreams, chain), parts)?;
    let reloader = reloader.get_or_init(|| running);
    lifecycle.set_serving();
    log_serving(&addresses, worker_count, driver, started);
    let drained = wait_and_drain(&config, signals, &workers, &lifecycle, reloader);
    // The admin side has answered during the drain; now it ends too.
    on_all_workers(&workers, |state| state.stop_listening(Service::Admin));
    end_maintenance(&maintenance, maintenance_thread);
    keeper.end();
    leave_store(store, &catalog, opened.catalog_thread);
    access_log.flush(Duration::from_secs(2));
    drained
}

/// How many workers there are to be, and how they talk to the kernel.
fn prepare_machine(config: &Config) -> Result<(usize, Driver), ServeError> {
    let workers = worker_count(config);
    let driver = choose_driver(config)?;
    raise_descriptor_limit(config, workers);
    Ok((workers, driver))
}

fn log_serving(addresses: &Addresses, workers: usize, driver: Driver, started: Instant) {
    let start_ms = started.elapsed().as_millis();
    tracing::info!(?addresses, workers, driver = driver.as_str(), start_ms, "serving");
}

fn signals() -> Result<Signals, ServeError> {
    Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|source| ServeError::System { what: "signal handlers", source })
}

fn end_maintenance(maintenance: &Maintenance, thread: JoinHandle<()>) {
    maintenance.stop();
    if thread.join().is_err() {
        tracing::error!("the maintenance thread ended by a panic");
    }
}

/// Makes everything durable and leaves the store in good order. Fills may still run: what they
/// commit from now on has no name.
fn leave_store(store: Arc<Store>, catalog: &Catalog, catalog_thread: JoinHandle<()>) {
    catalog.close_after(move || {
        let synced = store.sync();
        if let Err(error) = &synced {
            tracing::error!(%error,
                "not all content reached the disk; it is checked at the next start");
        }
        synced.is_ok()
    });
    if catalog_thread.join().is_err() {
        tracing::error!("the catalog thread ended by a panic");
    }
}

fn choose_driver(config: &Config) -> Result<Driver, ServeError> {
    let wanted = match config.server.driver {
        config::Driver::Auto => None,
        config::Driver::IoUring => Some(Driver::IoUring),
        config::Driver::Epoll => Some(Driver::Epoll),
    };
    let driver = runtime::driver_for(wanted)?;
    if driver == Driver::Epoll && wanted.is_none() {
        tracing::warn!("io_uring is refused by this kernel or sandbox; the workers run on epoll");
    }
    Ok(driver)
}

fn make_metrics(
    config: &Config,
    worker_count: usize,
    driver: Driver,
    access_log: &AccessLog,
    log_dropped: impl Fn() -> u64 + Send + Sync + 'static,
) -> Arc<Metrics> {
    let metrics = Metrics::new(worker_count, config.namespaces().cloned());
    metrics.set_driver(driver.as_str());
    let access_log = access_log.clone();
    metrics.attach_counter(
        "ringport_log_dropped",
        "Log lines that found their queue full",
        log_dropped,
    );
    metrics.attach_counter(
        "ringport_access_log_dropped",
        "Access log entries that found their queue full",
        move || access_log.dropped(),
    );
    metrics.attach_counter(
        "ringport_task_panics",
        "Tasks of any kind that a panic ended",
        runtime::panic_count,
    );
    metrics
}

/// Starts the workers and returns when all of them listen.
fn start_workers(parts: Parts, driver: Driver) -> Result<(Workers, Arc<Shared>), ServeError> {
    let worker_count = parts.worker_count;
    let pool = BlockingPool::start(BLOCKING_THREADS, BLOCKING_QUEUE)
        .map_err(|source| ServeError::System { what: "threads for blocking calls", source })?;
    let (listening, listened) = mpsc::channel();
    let failed = listening.clone();
    let parts = Arc::new(parts);
    let of_workers = parts.clone();
    let main = move |context| {
        let (parts, listening) = (of_workers.clone(), listening.clone());
        async move {
            // The receiver is gone when another worker failed; then the process is ending.
            let _ = listening.send(make_guarded(async { parts.make_worker(&context) }).await);
            std::future::pending::<()>().await;
        }
    };
    let on_failed = move |_, source| {
        let _ = failed.send(Err(ServeError::System { what: "a worker's driver", source }));
    };
    let (workers, _threads) = runtime::start(worker_count, driver, &pool, main, on_failed)?;
    for _ in 0..worker_count {
        listened.recv().unwrap_or_else(|source| {
            Err(ServeError::System { what: "a worker", source: io::Error::other(source) })
        })?;
    }
    let registry = parts.shared(&workers)?;
    store_metrics::remote_tiers(&parts.metrics, &registry);
    Ok((workers, registry))
}

/// A panic while a worker is made is a failure to start, not a start that never ends.
async fn make_guarded(
    make: impl Future<Output = Result<(), ServeError>>,
) -> Result<(), ServeError> {
    runtime::catch_panic(make).await.unwrap_or_else(|message| {
        Err(ServeError::System { what: "a worker", source: io::Error::other(message) })
    })
}

/// Raises the soft limit on descriptors to the hard one and tells when even that is too little.
fn raise_descriptor_limit(config: &Config, worker_count: usize) {
    let limit = runtime::raise_descriptor_limit();
    // A connection holds its socket and, while it is answered, a file and sometimes a duplicate;
    // a worker keeps some files open.
    let per_worker = config.server.connections_max.saturating_mul(2).saturating_add(OPEN_FILES_MAX);
    let wanted = per_worker.saturating_mul(worker_count);
    if limit.is_some_and(|limit| limit < wanted as u64) {
        tracing::warn!(
            limit,
            wanted,
            connections_max = config.server.connections_max,
            "fewer descriptors than connections_max may need; raise LimitNOFILE or lower it"
        );
    }
}

fn worker_count(config: &Config) -> usize {
    match config.server.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_while_a_worker_is_made_is_told() {
        assert!(pollster::block_on(make_guarded(async { Ok(()) })).is_ok());
        let error = pollster::block_on(make_guarded(async { panic!("a bug") })).unwrap_err();
        assert!(error.to_string().contains("a bug"), "{error}");
    }
}
