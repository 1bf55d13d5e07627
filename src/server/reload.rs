//! Another configuration, or a plugin's successor, under a running server.
//!
//! What is new is made whole beside what runs: a configuration that is not accepted, a plugin that
//! fails its handshake or does not start, changes nothing. Then each worker changes over between
//! two requests, by message. What was before ends when the last request that holds it is done, on
//! a thread of its own: a plugin that takes its time over that, or over a refresh, keeps no reload
//! waiting.
//!
//! ```text
//! reload   read → compare → upstreams, users and keys, chain → workers of the chain → clients → chains
//! refresh  the plugin makes a successor → its workers → that link of each chain
//! ```
//!
//! Clients come before chains: a download runs on the worker that owns its digest, and that one
//! must know each upstream that any worker's chain may name. For the same reason an upstream that
//! was taken out stays known to clients, though no chain routes to it. Where content goes is asked
//! when it is fetched, of the chain that is there then; what was routed to an upstream that this one
//! does not know goes where it goes without plugins.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::certificates::{CertificateError, Certificates};
use super::change_over::{Ending, change_over};
use super::observer::UpstreamCounters;
use super::start::ServeError;
use crate::api::Rules;
use crate::auth::{AuthFilesError, Authenticator};
use crate::config::{Config, ConfigError, Server, ServerTls};
use crate::plugin::{Chain, PluginError};
use crate::registry::Shared;
use crate::runtime::{Workers, clock};
use crate::telemetry::Metrics;
use crate::upstream::{self, Client, Lasting, UpstreamSet, UpstreamSetError};

/// Reads the configuration again, from where it came at the start.
pub type ReadConfig = Box<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(
        "{tables} changed, and only a restart takes that up; [routing], [auth], [[hosted]], \
         [[upstream]], [[plugin]] and the files of tls_certificate, tls_key and client_ca_file can be reloaded"
    )]
    NeedsRestart { tables: String },
    #[error(transparent)]
    Auth(#[from] AuthFilesError),
    #[error(transparent)]
    Upstreams(#[from] UpstreamSetError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Plugin(#[from] PluginError),
    #[error(
        "what earlier reloads replaced has not ended: a plugin hangs in `refresh`, `worker_stop` \
         or `destroy`; restart the server"
    )]
    Behind,
}

/// What runs now, and how it is replaced. One for the process.
pub(super) struct Reloader {
    read: ReadConfig,
    /// Held over a change, so that there is one at a time; never by a worker.
    live: Mutex<Live>,
    parts: ReloadParts,
    ending: Ending,
    /// Tells the refreshing thread that there is another chain.
    changed: crossbeam_channel::Sender<()>,
    counts: Counts,
}

/// What a reload makes clients and counters from.
pub(super) struct ReloadParts {
    pub(super) workers: Workers,
    pub(super) registry: Arc<Shared>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) lasting: Lasting,
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) tls: Option<Arc<Certificates>>,
}

struct Live {
    config: Arc<Config>,
    upstreams: Arc<UpstreamSet>,
    chain: Arc<Chain>,
    /// How often there was a reload.
    generation: u64,
}

/// How reloads and refreshes ended.
#[derive(Default)]
struct Counts {
    reloads: AtomicU64,
    reloads_refused: AtomicU64,
    refreshes: AtomicU64,
    refreshes_failed: AtomicU64,
}

impl Reloader {
    /// Takes over what was started, and starts the thread that refreshes plugins.
    ///
    /// # Errors
    /// The operating system refused the thread.
    pub(super) fn start(
        read: ReadConfig,
        (config, upstreams, chain): (Arc<Config>, Arc<UpstreamSet>, Chain),
        parts: ReloadParts,
    ) -> Result<Arc<Self>, ServeError> {
        // A second word while one waits says nothing new.
        let (changed, on_changed) = crossbeam_channel::bounded(1);
        let chain = Arc::new(chain);
        let live = Mutex::new(Live { config, upstreams, chain, generation: 0 });
        let (ending, counts) = (Ending::start()?, Counts::default());
        let reloader = Arc::new(Self { read, live, parts, ending, changed, counts });
        reloader.count();
        let refreshing = Arc::downgrade(&reloader);
        std::thread::Builder::new()
            .name("refresh".into())
            .spawn(move || {
                let mut schedule = Schedule::default();
                while let Some(reloader) = refreshing.upgrade() {
                    let wait = reloader.refresh_due(&mut schedule);
                    drop(reloader);
                    let told = match wait {
                        Some(wait) => on_changed.recv_timeout(wait),
                        None => on_changed.recv().map_err(Into::into),
                    };
                    if told == Err(crossbeam_channel::RecvTimeoutError::Disconnected) {
                        break;
                    }
                }
            })
            .map_err(|source| ServeError::System { what: "a thread to refresh plugins", source })?;
        Ok(reloader)
    }

    /// Reads the configuration and goes on with it. Blocks; not for workers. The text tells an
    /// operator what came of it.
    ///
    /// # Errors
    /// Nothing has changed; the error says why.
    pub(super) fn reload(&self) -> Result<String, ReloadError> {
        let started = clock::now();
        let outcome = self.try_reload();
        match &outcome {
            Ok(summary) => {
                self.counts.reloads.fetch_add(1, Ordering::Relaxed);
                tracing::info!(ms = started.elapsed().as_millis(), "reloaded: {summary}");
            }
            Err(error) => {
                self.counts.reloads_refused.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "not reloaded; everything goes on as before");
            }
        }
        outcome
    }

    /// [`Reloader::reload`] on a thread of its own, for a signal.
    pub(super) fn reload_soon(self: &Arc<Self>) {
        let reloader = self.clone();
        let spawned = std::thread::Builder::new()
            .name("reload".into())
            // The outcome is in the log.
            .spawn(move || reloader.reload().map(drop).ok());
        if let Err(error) = spawned {
            tracing::error!(%error, "not reloaded: the operating system refused a thread");
        }
    }

    fn try_reload(&self) -> Result<String, ReloadError> {
        let mut live = self.lock();
        if self.ending.is_behind() {
            return Err(ReloadError::Behind);
        }
        let config = Arc::new((self.read)()?);
        expect_reloadable(&live.config, &config)?;
        let upstreams = UpstreamSet::build(&config)?;
        let endpoints: Vec<Arc<str>> = upstreams.endpoint_names().cloned().collect();
        let upstreams = Arc::new(upstreams.keeping(&live.upstreams));
        let chain = Arc::new(live.chain.successor(&config)?);
        let ReloadParts { workers, registry, metrics, lasting, authenticator, tls } = &self.parts;
        let logins = authenticator.prepare(&config.auth)?;
        let certificate = config.server.tls.as_ref().map(Certificates::prepare).transpose()?;
        let chains = (0..workers.count())
            .map(|worker| chain.start_worker(worker))
            .collect::<Result<Vec<_>, _>>()?;
        // From here on nothing can fail.
        if let (Some(tls), Some(certificate)) = (tls, certificate) {
            tls.take_up(certificate);
        }
        let left_out = metrics.add_namespaces(config.namespaces().cloned());
        if !left_out.is_empty() {
            tracing::warn!(?left_out, "these upstreams are counted after a restart only");
        }
        authenticator.replace(logins);
        registry.set_upstreams(&config);
        let observer = Arc::new(UpstreamCounters::new(metrics.clone(), workers.count()));
        let shared = Arc::new(upstream::Shared::new(workers, observer, lasting.clone()));
        let clients = (0..workers.count()).map(|_| (upstreams.clone(), shared.clone())).collect();
        change_over(workers, clients, &self.ending, |state, (upstreams, shared)| {
            state.api.registry().set_client(Client::new(upstreams, shared));
        });
        lasting.health.retain(endpoints.iter());
        registry.forget_absences();
        let rules = Rules::new(config.clone());
        let chains =
            chains.into_iter().map(|chain| (chain, config.clone(), rules.clone())).collect();
        change_over(workers, chains, &self.ending, |state, (chain, config, rules)| {
            *state.config.borrow_mut() = config;
            state.api.replace_rules(rules);
            state.api.replace_chain(chain)
        });
        let names: Vec<&str> = chain.names().collect();
        let summary =
            format!("{} upstreams, resolvers {}", config.upstreams.len(), names.join(", "));
        let generation = live.generation + 1;
        self.ending
            .end(std::mem::replace(&mut *live, Live { config, upstreams, chain, generation }));
        // Full: it has been told already.
        let _ = self.changed.try_send(());
        Ok(summary)
    }

    /// Refreshes each plugin whose time has come. How long to wait for the next; `None` when no
    /// plugin wants to be refreshed.
    fn refresh_due(&self, schedule: &mut Schedule) -> Option<Duration> {
        let (chain, generation) = {
            let live = self.lock();
            (live.chain.clone(), live.generation)
        };
        schedule.follow(&chain, generation);
        for due in schedule.due.iter_mut().filter(|due| due.at <= clock::now()) {
            if let Err(error) = self.refresh(&chain, due.index) {
                self.counts.refreshes_failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, "not refreshed; the plugin goes on with what it knows");
            }
            due.at = clock::now() + due.interval;
        }
        schedule.due.iter().map(|due| due.at.saturating_duration_since(clock::now())).min()
    }

    fn refresh(&self, chain: &Arc<Chain>, index: usize) -> Result<(), PluginError> {
        if self.ending.is_behind() {
            tracing::warn!("not refreshed: what earlier refreshes replaced has not ended");
            return Ok(());
        }
        // Without the lock: a plugin may take its time, and a reload must not wait for it.
        let refreshed = chain.refresh(index)?;
        self.counts.refreshes.fetch_add(1, Ordering::Relaxed);
        let Some(refreshed) = refreshed else { return Ok(()) };
        let mut live = self.lock();
        if !live.chain.has_link_of(chain, index) {
            tracing::info!(plugin = refreshed.name(), "a reload came before the refresh");
            return Ok(());
        }
        let workers = &self.parts.workers;
        let links = (0..workers.count())
            .map(|worker| refreshed.start_worker(worker))
            .collect::<Result<Vec<_>, _>>()?;
        change_over(workers, links, &self.ending, |state, link| state.api.replace_link(link));
        let next = Arc::new(live.chain.with(&refreshed));
        self.ending.end(std::mem::replace(&mut live.chain, next));
        tracing::info!(plugin = refreshed.name(), "refreshed");
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(self: &Arc<Self>) {
        let attach = |name, help, counter: fn(&Counts) -> &AtomicU64| {
            let reloader = Arc::downgrade(self);
            self.parts.metrics.attach_counter(name, help, move || {
                let reloader = reloader.upgrade();
                reloader.map_or(0, |reloader| counter(&reloader.counts).load(Ordering::Relaxed))
            });
        };
        attach("ringport_reloads", "Configurations taken up while serving", |c| &c.reloads);
        let help = "Configurations that were not taken up";
        attach("ringport_reloads_refused", help, |c| &c.reloads_refused);
        attach("ringport_plugin_refreshes", "Refreshes of plugins", |c| &c.refreshes);
        let help = "Refreshes of plugins that failed";
        attach("ringport_plugin_refreshes_failed", help, |c| &c.refreshes_failed);
    }
}

/// When the plugins of a chain are to be refreshed: a refresh changes neither their places nor
/// their intervals, a reload may.
#[derive(Default)]
struct Schedule {
    generation: Option<u64>,
    due: Vec<Due>,
}

struct Due {
    index: usize,
    interval: Duration,
    at: Instant,
}

impl Schedule {
    fn follow(&mut self, chain: &Chain, generation: u64) {
        if self.generation != Some(generation) {
            self.generation = Some(generation);
            let due = |(index, interval)| Due { index, interval, at: clock::now() + interval };
            self.due = chain.refresh_intervals().map(due).collect();
        }
    }
}

/// `after`, with the certificate's files of `before`: others are taken up.
fn without_certificate(before: &Server, after: &Server) -> Server {
    let mut server = after.clone();
    if let (Some(before), Some(after)) = (&before.tls, &mut server.tls) {
        *after = ServerTls { listen: std::mem::take(&mut after.listen), ..before.clone() };
    }
    server
}

/// The tables that only a restart takes up must be as they were.
fn expect_reloadable(before: &Config, after: &Config) -> Result<(), ReloadError> {
    let changed = [
        ("[server]", before.server != without_certificate(&before.server, &after.server)),
        ("[storage]", before.storage != after.storage),
        ("[log]", before.log != after.log),
    ];
    let tables: Vec<&str> =
        changed.iter().filter(|(_, is_changed)| *is_changed).map(|(table, _)| *table).collect();
    match tables.is_empty() {
        true => Ok(()),
        false => Err(ReloadError::NeedsRestart { tables: tables.join(" and ") }),
    }
}
