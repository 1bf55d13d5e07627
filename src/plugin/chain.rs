//! The resolvers in the order of `routing.resolvers`.

use std::path::Path;
use std::sync::Arc;

use super::declared::Declared;
use super::error::{Fault, PluginError};
use super::explain::{Explanation, Step};
use super::instance::{Instance, Outcome, WorkerInstance};
use super::stats::PluginStats;
use super::{Resolution, ResolveError, ResolveRequest, ResolveStatus, handshake, loader};
use crate::config::{Config, PluginConfig, STANDARD_RESOLVER};

/// All resolvers, loaded and configured. Its instances end when it and every [`WorkerChain`] of
/// it are dropped.
#[derive(Debug)]
pub struct Chain {
    links: Vec<Arc<Instance>>,
}

impl Chain {
    /// Loads, checks and configures every resolver that `routing.resolvers` names, and logs a line
    /// for each. Blocks; at start-up only.
    ///
    /// # Errors
    /// The first plugin that is refused; those before it are ended again.
    pub fn load(config: &Config) -> Result<Chain, PluginError> {
        let declared = Declared::new(&config.upstreams)
            .map_err(|fault| refused(STANDARD_RESOLVER, None, fault))?;
        let declared = Arc::new(declared);
        let worker_count = worker_count(config);
        if let Some(clash) = config.plugins.iter().find(|p| p.name == STANDARD_RESOLVER) {
            return Err(refused(STANDARD_RESOLVER, Some(&clash.path), Fault::NameTaken));
        }
        let mut links = Vec::new();
        for name in &config.routing.resolvers {
            let plugin = config.plugins.iter().find(|plugin| plugin.name == *name);
            let link = match plugin {
                Some(plugin) => load_plugin(plugin, worker_count, &declared)
                    .map_err(|fault| refused(name, Some(&plugin.path), fault))?,
                None if name == STANDARD_RESOLVER => link_standard(config, worker_count, &declared)
                    .map_err(|fault| refused(name, None, fault))?,
                None => return Err(refused(name, None, Fault::Undeclared)),
            };
            links.push(Arc::new(link));
        }
        for plugin in &config.plugins {
            if !config.routing.resolvers.contains(&plugin.name) {
                tracing::info!(plugin = %plugin.name, "not in routing.resolvers, so not loaded");
            }
        }
        Ok(Chain { links })
    }

    /// Starts every resolver's state of worker `number`. Blocks; at start-up, on any thread. The
    /// result may move to the worker's thread.
    pub fn start_worker(&self, number: usize) -> Result<WorkerChain, PluginError> {
        let start = |link: &Arc<Instance>| {
            link.start_worker(number).map_err(|fault| refused(link.name(), None, fault))
        };
        Ok(WorkerChain { links: self.links.iter().map(start).collect::<Result<_, _>>()? })
    }

    /// The figures of every resolver on every worker that ever started, in chain order.
    pub fn stats(&self) -> Vec<PluginStats> {
        self.links.iter().flat_map(|link| link.stats()).collect()
    }

    /// The resolvers' names in the order in which they are asked.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.links.iter().map(|link| &**link.name())
    }
}

/// One worker's resolvers: `Send`, but used by one thread at a time and never shared.
#[derive(Debug)]
pub struct WorkerChain {
    links: Vec<WorkerInstance>,
}

impl WorkerChain {
    /// Decides where a request goes. Doesn't block (as far as the plugins keep their word); takes
    /// microseconds.
    ///
    /// # Errors
    /// The refusal of the first resolver that did not decline; `NotFound` if all declined.
    pub fn resolve(&self, request: &ResolveRequest<'_>) -> Result<Resolution, ResolveError> {
        self.ask(request, |_| {})
    }

    /// The same decision, with each resolver's part in it.
    pub fn explain(&self, request: &ResolveRequest<'_>) -> Explanation {
        let mut steps = Vec::new();
        let outcome = self.ask(request, |step| steps.push(step));
        Explanation { steps, outcome }
    }

    fn ask(
        &self,
        request: &ResolveRequest<'_>,
        mut declined: impl FnMut(Step),
    ) -> Result<Resolution, ResolveError> {
        for link in &self.links {
            match link.resolve(request) {
                Outcome::Answered(resolution) => return Ok(resolution),
                Outcome::Refused(error) => return Err(error),
                Outcome::Declined => declined(Step { declined_by: link.name().to_string() }),
            }
        }
        let names: Vec<&str> = self.links.iter().map(|link| &**link.name()).collect();
        Err(ResolveError {
            status: ResolveStatus::NotFound,
            message: format!(
                "no resolver knows {} (asked: {}); \"standard\" as the last of \
                 routing.resolvers answers what others decline",
                request.name,
                names.join(", ")
            ),
            plugin: names.last().copied().unwrap_or_default().to_owned(),
        })
    }
}

fn refused(plugin: &str, path: Option<&Path>, fault: Fault) -> PluginError {
    PluginError { plugin: plugin.to_owned(), path: path.map(Path::to_owned), fault }
}

/// How many workers will run, by the rule of the runtime: one per core unless configured.
fn worker_count(config: &Config) -> u32 {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let count = if config.server.workers == 0 { cores() } else { config.server.workers };
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn load_plugin(
    plugin: &PluginConfig,
    worker_count: u32,
    declared: &Arc<Declared>,
) -> Result<Instance, Fault> {
    let loaded = loader::load(&plugin.path, plugin.sha256.as_deref())?;
    let table = handshake::shake_hands(loaded.entry)?;
    let config = plugin.config.to_string();
    let instance =
        Instance::configure(table, &plugin.name, &config, worker_count, Arc::clone(declared))?;
    instance.log(Some(&plugin.path), Some(&loaded.sha256));
    Ok(instance)
}

/// The built-in resolver: the same table as in its `.so`, configured from `[routing]`.
fn link_standard(
    config: &Config,
    worker_count: u32,
    declared: &Arc<Declared>,
) -> Result<Instance, Fault> {
    let table = handshake::check_linked(&ringport_plugin_standard::PLUGIN)?;
    let mut routing = toml::Table::new();
    if let Some(default) = &config.routing.default_upstream {
        routing.insert("default_upstream".to_owned(), default.as_str().into());
    }
    routing.insert("hosted".to_owned(), config.routing.hosted.clone().into());
    let text = routing.to_string();
    let instance =
        Instance::configure(table, STANDARD_RESOLVER, &text, worker_count, Arc::clone(declared))?;
    instance.log(None, None);
    Ok(instance)
}
