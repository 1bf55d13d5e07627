//! The resolvers in the order of `routing.resolvers`, loaded and configured.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::declared::Declared;
use super::error::{Fault, PluginError};
use super::instance::Instance;
use super::stats::{Figures, PluginStats};
use super::worker::{WorkerChain, WorkerLink};
use super::{handshake, loader};
use crate::config::{Config, PluginConfig, STANDARD_RESOLVER};

/// The budget of the built-in resolver, which has no `[[plugin]]` entry to say another.
const BUDGET: Duration = Duration::from_micros(20);

/// All resolvers, loaded and configured. Its instances end when it, its successors that share
/// them and every [`WorkerChain`] of it are dropped.
#[derive(Debug)]
pub struct Chain {
    links: Vec<Arc<Instance>>,
    declared: Arc<Declared>,
    figures: Arc<Figures>,
}

/// The figures of a chain and of all that came after it.
#[derive(Clone, Debug)]
pub struct ChainObserver(Arc<Figures>);

impl ChainObserver {
    /// See [`Chain::stats`].
    pub fn stats(&self) -> Vec<PluginStats> {
        self.0.snapshot()
    }

    /// See [`Chain::remembered`].
    pub fn remembered(&self) -> u64 {
        self.0.remembered_sum()
    }
}

/// The successor of one link, made by [`Chain::refresh`].
#[derive(Debug)]
pub struct Refreshed {
    index: usize,
    instance: Arc<Instance>,
}

impl Chain {
    /// Loads, checks and configures every resolver that `routing.resolvers` names, and logs a line
    /// for each. Blocks; at start-up only.
    ///
    /// # Errors
    /// The first plugin that is refused; those before it are ended again.
    pub fn load(config: &Config) -> Result<Chain, PluginError> {
        Chain::load_with(config, Arc::default())
    }

    /// The chain of another configuration, beside this one, whose figures it continues. Blocks.
    ///
    /// # Errors
    /// As for [`Chain::load`]; this chain is not touched.
    pub fn successor(&self, config: &Config) -> Result<Chain, PluginError> {
        Chain::load_with(config, Arc::clone(&self.figures))
    }

    fn load_with(config: &Config, figures: Arc<Figures>) -> Result<Chain, PluginError> {
        let declared =
            Declared::new(config).map_err(|fault| refused(STANDARD_RESOLVER, None, fault))?;
        let declared = Arc::new(declared);
        let worker_count = worker_count(config);
        if let Some(clash) = config.plugins.iter().find(|p| p.name == STANDARD_RESOLVER) {
            return Err(refused(STANDARD_RESOLVER, Some(&clash.path), Fault::NameTaken));
        }
        let loading = Loading { worker_count, declared: &declared, figures: &figures };
        let mut links = Vec::new();
        for name in &config.routing.resolvers {
            let plugin = config.plugins.iter().find(|plugin| plugin.name == *name);
            let link = match plugin {
                Some(plugin) => loading
                    .plugin(plugin)
                    .map_err(|fault| refused(name, Some(&plugin.path), fault))?,
                None if name == STANDARD_RESOLVER => {
                    loading.standard(config).map_err(|fault| refused(name, None, fault))?
                }
                None => return Err(refused(name, None, Fault::Undeclared)),
            };
            links.push(Arc::new(link));
        }
        for plugin in &config.plugins {
            if !config.routing.resolvers.contains(&plugin.name) {
                tracing::info!(plugin = %plugin.name, "not in routing.resolvers, so not loaded");
            }
        }
        Ok(Chain { links, declared, figures })
    }

    /// Starts every resolver's state of worker `number`. Blocks; on any thread. The result may
    /// move to the worker's thread.
    ///
    /// # Errors
    /// The first resolver that does not start, or whose worker of that number runs already.
    pub fn start_worker(&self, number: usize) -> Result<WorkerChain, PluginError> {
        let start = |link: &Arc<Instance>| {
            link.start_worker(number).map_err(|fault| refused(link.name(), None, fault))
        };
        let links = self.links.iter().map(start).collect::<Result<_, _>>()?;
        Ok(WorkerChain::new(links, &self.declared, self.figures.remembered(number)))
    }

    /// The plugins that want to be refreshed, by their place in the chain, and how often.
    pub fn refresh_intervals(&self) -> impl Iterator<Item = (usize, Duration)> {
        let interval =
            |(index, link): (usize, &Arc<Instance>)| Some((index, link.refresh_interval()?));
        self.links.iter().enumerate().filter_map(interval)
    }

    /// Refreshes the plugin at this place; `None` when nothing has changed. Blocks, perhaps for
    /// long; the workers go on with the running instance meanwhile.
    ///
    /// # Errors
    /// The plugin says what failed; the running instance goes on.
    pub fn refresh(&self, index: usize) -> Result<Option<Refreshed>, PluginError> {
        let Some(link) = self.links.get(index) else { return Ok(None) };
        let successor = link.refresh().map_err(|fault| refused(link.name(), None, fault))?;
        Ok(successor.map(|instance| Refreshed { index, instance: Arc::new(instance) }))
    }

    /// This chain with that link in place of the one before.
    pub fn with(&self, refreshed: &Refreshed) -> Chain {
        let mut links = self.links.clone();
        if let Some(link) = links.get_mut(refreshed.index) {
            *link = Arc::clone(&refreshed.instance);
        }
        let (declared, figures) = (Arc::clone(&self.declared), Arc::clone(&self.figures));
        Chain { links, declared, figures }
    }

    /// Whether both chains have the same instance at this place.
    pub fn has_link_of(&self, other: &Chain, index: usize) -> bool {
        let links = self.links.get(index).zip(other.links.get(index));
        links.is_some_and(|(own, other)| Arc::ptr_eq(own, other))
    }

    /// The figures of every resolver on every worker that ever started, also of those that a
    /// reload has taken out, in the order in which they came.
    pub fn stats(&self) -> Vec<PluginStats> {
        self.figures.snapshot()
    }

    /// Answers given without a call, over all workers.
    pub fn remembered(&self) -> u64 {
        self.figures.remembered_sum()
    }

    /// Reads the figures of this chain and all of its successors, for as long as it is wanted.
    pub fn observer(&self) -> ChainObserver {
        ChainObserver(Arc::clone(&self.figures))
    }

    /// The resolvers' names in the order in which they are asked.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.links.iter().map(|link| &**link.name())
    }
}

impl Refreshed {
    /// Starts the successor's state of worker `number`, to be handed to
    /// [`WorkerChain::replace_link`]. Blocks.
    ///
    /// # Errors
    /// The plugin says what failed.
    pub fn start_worker(&self, number: usize) -> Result<WorkerLink, PluginError> {
        let started = self.instance.start_worker(number);
        let link = started.map_err(|fault| refused(self.instance.name(), None, fault))?;
        Ok(WorkerLink { index: self.index, link })
    }

    /// The plugin's name in the configuration.
    pub fn name(&self) -> &str {
        self.instance.name()
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

/// What all instances of a chain are made from.
struct Loading<'a> {
    worker_count: u32,
    declared: &'a Arc<Declared>,
    figures: &'a Arc<Figures>,
}

impl Loading<'_> {
    fn plugin(&self, plugin: &PluginConfig) -> Result<Instance, Fault> {
        let loaded = loader::load(&plugin.path, plugin.sha256.as_deref())?;
        let table = handshake::shake_hands(loaded.entry)?;
        let config = plugin.config.to_string();
        let instance = self.configure(table, (&plugin.name, plugin.budget), &config)?;
        instance.log(Some(&plugin.path), Some(&loaded.sha256));
        Ok(instance)
    }

    /// The built-in resolver: the same table as in its `.so`, configured from `[routing]`.
    fn standard(&self, config: &Config) -> Result<Instance, Fault> {
        let table = handshake::check_linked(&ringport_plugin_standard::PLUGIN)?;
        let mut routing = toml::Table::new();
        if let Some(default) = &config.routing.default_upstream {
            routing.insert("default_upstream".to_owned(), default.as_str().into());
        }
        routing.insert("hosted".to_owned(), config.routing.hosted.clone().into());
        let instance = self.configure(table, (STANDARD_RESOLVER, BUDGET), &routing.to_string())?;
        instance.log(None, None);
        Ok(instance)
    }

    fn configure(
        &self,
        table: handshake::Table,
        entry: (&str, Duration),
        config: &str,
    ) -> Result<Instance, Fault> {
        let declared = Arc::clone(self.declared);
        Instance::configure(table, entry, config, self.worker_count, declared, self.figures)
    }
}
