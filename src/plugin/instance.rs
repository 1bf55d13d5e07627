//! One configured plugin: what the handshake found, the running instance, and its workers.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ringport_plugin_abi as abi;

use super::answer::Answer;
use super::call::{RawInstance, RawWorker, StartFailure};
use super::declared::Declared;
use super::error::Fault;
use super::handshake::Table;
use super::stats::{CallStats, PluginStats, STATUS_NAMES};
use super::{Resolution, ResolveError, ResolveRequest, ResolveStatus, Route};
use crate::runtime::clock;

/// A plugin that accepted its configuration.
#[derive(Debug)]
pub(super) struct Instance {
    /// Its name in the configuration.
    name: Arc<str>,
    raw: RawInstance,
    /// Serialises start and stop, as the ABI promises; holds the counters of every worker that
    /// ever started, so that a scrape never goes back.
    workers: Mutex<Vec<WorkerSlot>>,
}

#[derive(Debug)]
struct WorkerSlot {
    stats: Arc<CallStats>,
    is_running: bool,
}

impl Instance {
    /// Calls `configure`.
    pub(super) fn configure(
        table: Table,
        name: &str,
        config: &str,
        worker_count: u32,
        declared: Arc<Declared>,
    ) -> Result<Instance, Fault> {
        let raw = RawInstance::configure(table, name, config, worker_count, declared)
            .map_err(|failure| to_fault(failure, "configure"))?;
        Ok(Instance { name: name.into(), raw, workers: Mutex::new(Vec::new()) })
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Writes the line about this plugin into the log.
    pub(super) fn log(&self, path: Option<&Path>, sha256: Option<&str>) {
        let table = self.raw.table();
        tracing::info!(
            plugin = %self.name,
            resolver = %table.name,
            version = %table.version,
            abi = %format_args!("{}.{}", abi::ABI_MAJOR, table.abi_minor),
            capabilities = table.capabilities,
            path = %path.map_or("(linked in)".into(), Path::to_string_lossy),
            sha256 = sha256.unwrap_or("-"),
            "plugin ready"
        );
    }

    /// Calls `worker_start`.
    pub(super) fn start_worker(self: &Arc<Self>, number: usize) -> Result<WorkerInstance, Fault> {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = workers.iter_mut().find(|slot| slot.stats.worker() == number);
        if slot.as_ref().is_some_and(|slot| slot.is_running) {
            return Err(Fault::WorkerRuns { worker: number });
        }
        let raw = self
            .raw
            .start_worker(u32::try_from(number).unwrap_or(u32::MAX))
            .map_err(|failure| to_fault(failure, "worker_start"))?;
        let stats = match slot {
            Some(slot) => {
                slot.is_running = true;
                Arc::clone(&slot.stats)
            }
            None => {
                let stats = Arc::new(CallStats::new(number));
                workers.push(WorkerSlot { stats: Arc::clone(&stats), is_running: true });
                stats
            }
        };
        stats.set_poisoned(false);
        Ok(WorkerInstance {
            raw: RefCell::new(Some(raw)),
            is_poisoned: Cell::new(false),
            stats,
            instance: Arc::clone(self),
        })
    }

    /// The figures of all workers.
    pub(super) fn stats(&self) -> Vec<PluginStats> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.iter().map(|slot| slot.stats.snapshot(&self.name)).collect()
    }
}

fn to_fault(failure: StartFailure, hook: &'static str) -> Fault {
    match failure {
        StartFailure::NoHandle => Fault::NoHandle { hook },
        StartFailure::Refused { status, message } => {
            let name = usize::try_from(status).ok().and_then(|index| STATUS_NAMES.get(index));
            let status = name.map_or(format!("the unknown status {status}"), |n| n.to_uppercase());
            Fault::Refused { hook, status, message }
        }
    }
}

/// What one resolver made of a request.
pub(super) enum Outcome {
    Answered(Resolution),
    Declined,
    Refused(ResolveError),
}

/// One worker's side of an instance.
#[derive(Debug)]
pub(super) struct WorkerInstance {
    /// `None` only while being dropped. Borrowed for one call: a plugin can't call back into it.
    raw: RefCell<Option<RawWorker>>,
    is_poisoned: Cell<bool>,
    stats: Arc<CallStats>,
    /// After `raw`: the instance must outlive its workers.
    instance: Arc<Instance>,
}

impl WorkerInstance {
    pub(super) fn name(&self) -> &Arc<str> {
        self.instance.name()
    }

    /// Asks the plugin, measures, and checks what it says.
    pub(super) fn resolve(&self, request: &ResolveRequest<'_>) -> Outcome {
        let mut raw = self.raw.borrow_mut();
        let Some(raw) = raw.as_mut().filter(|_| !self.is_poisoned.get()) else {
            self.stats.record_refused_call();
            return self.refuse(
                ResolveStatus::Unavailable,
                format!(
                    "resolver {} failed earlier on this worker and is not asked again until a \
                     restart; the log says why",
                    self.name()
                ),
            );
        };
        let started = clock::now();
        let (status, answer) = raw.resolve(request);
        self.stats.record(status, started.elapsed());
        let refusal = match status {
            abi::OK => return self.accept(request, answer),
            abi::DECLINE => return Outcome::Declined,
            abi::NOT_FOUND => ResolveStatus::NotFound,
            abi::DENIED => ResolveStatus::Denied,
            abi::UNAVAILABLE => ResolveStatus::Unavailable,
            abi::INVALID => ResolveStatus::Invalid,
            _ => return self.poison(status, answer),
        };
        let message = match answer.error.is_empty() {
            true => format!("resolver {} gave no reason", self.name()),
            false => std::mem::take(&mut answer.error),
        };
        self.refuse(refusal, message)
    }

    /// OK: the answer counts if it broke no rule and holds a route.
    fn accept(&self, request: &ResolveRequest<'_>, answer: &mut Answer) -> Outcome {
        let broken = answer.broken.take();
        let route = match (broken, answer.route.take()) {
            (None, Some(route)) => route,
            (Some(problem), _) => return self.reject(&problem),
            (None, None) => return self.reject("it returned OK without emitting a route"),
        };
        Outcome::Answered(Resolution {
            // Whether a plugin looked at `ns` is its secret; an upstream answer to a request that
            // had one is taken to be within it.
            scoped_by_ns: request.ns.is_some() && matches!(route, Route::Upstream { .. }),
            route,
            rule: std::mem::take(&mut answer.rule),
            tag_ttl: answer.tag_ttl,
            stale_max: answer.stale_max,
            plugin: self.name().to_string(),
        })
    }

    /// A broken answer fails its request only: what a client sends may have provoked it, and no
    /// client may be able to switch a resolver off.
    fn reject(&self, problem: &str) -> Outcome {
        let count = self.stats.record_broken_answer();
        if count.is_power_of_two() {
            // 1, 2, 4, 8, ...: seen at once, and no flood.
            tracing::warn!(plugin = %self.name(), count, problem, "broken answer of a resolver");
        }
        let message = format!("resolver {} gave a broken answer: {problem}", self.name());
        self.refuse(ResolveStatus::Internal, message)
    }

    fn poison(&self, status: abi::Status, answer: &mut Answer) -> Outcome {
        let reason = match (status, answer.error.is_empty()) {
            (abi::INTERNAL, false) => std::mem::take(&mut answer.error),
            (abi::INTERNAL, true) => "it gave no reason".to_owned(),
            _ => format!("it returned the unknown status {status}"),
        };
        self.is_poisoned.set(true);
        self.stats.set_poisoned(true);
        tracing::error!(
            plugin = %self.name(), worker = self.stats.worker(), reason,
            "a resolver failed; this worker does not call it again until a restart"
        );
        self.refuse(ResolveStatus::Internal, format!("resolver {} failed: {reason}", self.name()))
    }

    fn refuse(&self, status: ResolveStatus, message: String) -> Outcome {
        Outcome::Refused(ResolveError { status, message, plugin: self.name().to_string() })
    }
}

impl Drop for WorkerInstance {
    fn drop(&mut self) {
        let mut workers = self.instance.workers.lock().unwrap_or_else(PoisonError::into_inner);
        // Stops the plugin's worker under the lock that serialises starts and stops.
        self.raw.get_mut().take();
        let number = self.stats.worker();
        for slot in workers.iter_mut().filter(|slot| slot.stats.worker() == number) {
            slot.is_running = false;
        }
    }
}
