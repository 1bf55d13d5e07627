//! One configured plugin: what the handshake found, the running instance, and its workers.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringport_plugin_abi as abi;

use super::answer::Answer;
use super::call::{RawInstance, RawWorker, StartFailure};
use super::declared::Declared;
use super::error::Fault;
use super::handshake::Table;
use super::stats::{CallStats, Figures, Hook, STATUS_NAMES};
use super::view::{View, wanted_headers};
use super::{PlaceRequest, Placement, Resolution, ResolveError, ResolveRequest, ResolveStatus};
use crate::runtime::stopwatch;

/// A plugin that accepted its configuration.
#[derive(Debug)]
pub(super) struct Instance {
    /// Its name in the configuration.
    name: Arc<str>,
    raw: RawInstance,
    budget_ns: u64,
    figures: Arc<Figures>,
    /// Numbers of the workers that run. Locked over every start, stop and refresh: the ABI
    /// promises that they never run at the same time.
    running: Mutex<Vec<usize>>,
}

impl Instance {
    /// Calls `configure`.
    pub(super) fn configure(
        table: Table,
        (name, budget): (&str, Duration),
        config: &str,
        worker_count: u32,
        declared: Arc<Declared>,
        figures: &Arc<Figures>,
    ) -> Result<Instance, Fault> {
        let raw = RawInstance::configure(table, name, config, worker_count, declared)
            .map_err(|failure| to_fault(failure, "configure"))?;
        Ok(Instance {
            name: name.into(),
            raw,
            budget_ns: u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX),
            figures: Arc::clone(figures),
            running: Mutex::default(),
        })
    }

    /// Calls `refresh`; `None` when nothing has changed. May take its time.
    pub(super) fn refresh(&self) -> Result<Option<Instance>, Fault> {
        let _alone = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let raw = self.raw.refresh().map_err(|failure| to_fault(failure, "refresh"))?;
        Ok(raw.map(|raw| Instance {
            name: Arc::clone(&self.name),
            raw,
            budget_ns: self.budget_ns,
            figures: Arc::clone(&self.figures),
            running: Mutex::default(),
        }))
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// How often the plugin wants to be refreshed.
    pub(super) fn refresh_interval(&self) -> Option<Duration> {
        self.raw.wishes().refresh
    }

    /// Names of the request headers that the plugin gets.
    pub(super) fn wanted_headers(&self) -> &[String] {
        &self.raw.wishes().headers
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
        stopwatch::prepare();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.contains(&number) {
            return Err(Fault::WorkerRuns { worker: number });
        }
        let raw = self
            .raw
            .start_worker(u32::try_from(number).unwrap_or(u32::MAX))
            .map_err(|failure| to_fault(failure, "worker_start"))?;
        running.push(number);
        Ok(WorkerInstance {
            raw: RefCell::new(Some(raw)),
            is_poisoned: Cell::new(false),
            is_counted: Cell::new(false),
            stats: self.figures.of_plugin(&self.name, number),
            instance: Arc::clone(self),
        })
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
    Answered(Arc<Resolution>),
    Declined,
    Refused(ResolveError),
}

/// An outcome, and what it depends on if it may be remembered: `abi::BY_*` bits.
pub(super) struct Asked {
    pub(super) outcome: Outcome,
    pub(super) cacheable: Option<u64>,
}

impl Asked {
    fn refused(error: ResolveError) -> Asked {
        Asked { outcome: Outcome::Refused(error), cacheable: None }
    }
}

/// One worker's side of an instance.
#[derive(Debug)]
pub(super) struct WorkerInstance {
    /// `None` only while being dropped. Borrowed for one call: a plugin can't call back into it.
    raw: RefCell<Option<RawWorker>>,
    is_poisoned: Cell<bool>,
    /// It is counted among the failed.
    is_counted: Cell<bool>,
    stats: Arc<CallStats>,
    /// After `raw`: the instance must outlive its workers.
    instance: Arc<Instance>,
}

impl WorkerInstance {
    pub(super) fn name(&self) -> &Arc<str> {
        self.instance.name()
    }

    pub(super) fn wanted_headers(&self) -> &[String] {
        self.instance.wanted_headers()
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.is_poisoned.get()
    }

    /// A successor answers: if this one failed, it no longer counts, however long its end takes.
    pub(super) fn retire(&self) {
        if self.is_counted.take() {
            self.stats.end_poisoned();
        }
    }

    pub(super) fn can_place(&self) -> bool {
        self.raw.borrow().as_ref().is_some_and(RawWorker::can_place)
    }

    /// # Errors
    /// The request has a header that the plugin gets in a way that the host refuses.
    pub(super) fn check_headers(&self, request: &ResolveRequest<'_>) -> Result<(), ResolveError> {
        let checked = wanted_headers(request, self.wanted_headers()).map(drop);
        checked.map_err(|error| ResolveError { plugin: self.name().to_string(), ..error })
    }

    /// Asks the plugin, measures, and checks what it says.
    pub(super) fn resolve(&self, request: &ResolveRequest<'_>, view: &View<'_>) -> Asked {
        let mut raw = self.raw.borrow_mut();
        let Some(raw) = raw.as_mut().filter(|_| !self.is_poisoned.get()) else {
            return Asked::refused(self.refuse_poisoned());
        };
        let wanted = self.wanted_headers();
        let values;
        let headers = match wanted.is_empty() {
            true => &[],
            false => match wanted_headers(request, wanted) {
                Err(error) => {
                    let plugin = self.name().to_string();
                    return Asked::refused(ResolveError { plugin, ..error });
                }
                Ok(found) => {
                    values = found;
                    values.get(..wanted.len()).unwrap_or_default()
                }
            },
        };
        let started = stopwatch::mark();
        let (status, answer) = raw.resolve(request, view, headers);
        self.record(Hook::Resolve, status, started.elapsed_ns());
        if status == abi::OK {
            return self.accept(request, answer);
        }
        // What was refused may have said that the answer depends on more.
        let cacheable = answer.cacheable.filter(|_| answer.broken.is_none());
        if status == abi::DECLINE {
            return Asked { outcome: Outcome::Declined, cacheable };
        }
        let error = self.refusal(status, answer);
        let is_lasting =
            !matches!(error.status, ResolveStatus::Unavailable | ResolveStatus::Internal);
        Asked { outcome: Outcome::Refused(error), cacheable: cacheable.filter(|_| is_lasting) }
    }

    /// Asks where content goes; `None` when the plugin has no such hook or declines.
    pub(super) fn place(
        &self,
        request: &PlaceRequest<'_>,
    ) -> Option<Result<Placement, ResolveError>> {
        let mut raw = self.raw.borrow_mut();
        let raw = raw.as_mut().filter(|raw| raw.can_place())?;
        if self.is_poisoned.get() {
            return Some(Err(self.refuse_poisoned()));
        }
        let started = stopwatch::mark();
        let (status, answer) = raw.place(request)?;
        self.record(Hook::Place, status, started.elapsed_ns());
        match status {
            abi::OK => {}
            abi::DECLINE => return None,
            _ => return Some(Err(self.refusal(status, answer))),
        }
        let placement = match answer.broken.take() {
            Some(problem) => Err(problem),
            None => answer.take_placement(self.name()),
        };
        Some(placement.map_err(|problem| self.reject(&problem)))
    }

    fn record(&self, hook: Hook, status: abi::Status, took_ns: u64) {
        let breaches = self.stats.record(hook, status, took_ns, self.instance.budget_ns);
        // 1, 2, 4, 8, ...: seen at once, and no flood.
        if let Some(breaches) = breaches.filter(|count| count.is_power_of_two()) {
            tracing::warn!(
                plugin = %self.name(), worker = self.stats.worker(), breaches,
                budget = ?Duration::from_nanos(self.instance.budget_ns),
                "more than 1 % of the last 1000 calls of a resolver took longer than its budget; \
                 see ringport_plugin_call_seconds"
            );
        }
    }

    /// OK: the answer counts if it broke no rule and holds a route.
    fn accept(&self, request: &ResolveRequest<'_>, answer: &mut Answer) -> Asked {
        let problem = match answer.broken.take() {
            Some(problem) => problem,
            None => match answer.take_resolution(self.name(), request.ns.is_some()) {
                Some(resolution) => {
                    let outcome = Outcome::Answered(resolution);
                    return Asked { outcome, cacheable: answer.cacheable };
                }
                None => "it returned OK without emitting a route".to_owned(),
            },
        };
        Asked::refused(self.reject(&problem))
    }

    /// Any status but OK and DECLINE.
    fn refusal(&self, status: abi::Status, answer: &mut Answer) -> ResolveError {
        let status = match status {
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
        self.error(status, message)
    }

    /// A broken answer fails its request only: what a client sends may have provoked it, and no
    /// client may be able to switch a resolver off.
    fn reject(&self, problem: &str) -> ResolveError {
        let count = self.stats.record_broken_answer();
        if count.is_power_of_two() {
            // 1, 2, 4, 8, ...: seen at once, and no flood.
            tracing::warn!(plugin = %self.name(), count, problem, "broken answer of a resolver");
        }
        let message = format!("resolver {} gave a broken answer: {problem}", self.name());
        self.error(ResolveStatus::Internal, message)
    }

    fn poison(&self, status: abi::Status, answer: &mut Answer) -> ResolveError {
        let reason = match (status, answer.error.is_empty()) {
            (abi::INTERNAL, false) => std::mem::take(&mut answer.error),
            (abi::INTERNAL, true) => "it gave no reason".to_owned(),
            _ => format!("it returned the unknown status {status}"),
        };
        self.is_poisoned.set(true);
        self.is_counted.set(true);
        self.stats.add_poisoned();
        tracing::error!(
            plugin = %self.name(), worker = self.stats.worker(), reason,
            "a resolver failed; this worker does not call it again until a reload or restart"
        );
        let message = format!("resolver {} failed: {reason}", self.name());
        self.error(ResolveStatus::Internal, message)
    }

    fn refuse_poisoned(&self) -> ResolveError {
        self.stats.record_refused_call();
        let message = format!(
            "resolver {} failed earlier on this worker and is not asked again until a reload or \
             restart; the log says why",
            self.name()
        );
        self.error(ResolveStatus::Unavailable, message)
    }

    fn error(&self, status: ResolveStatus, message: String) -> ResolveError {
        ResolveError { status, message, plugin: self.name().to_string() }
    }
}

impl Drop for WorkerInstance {
    fn drop(&mut self) {
        let mut running = self.instance.running.lock().unwrap_or_else(PoisonError::into_inner);
        // Stops the plugin's worker under the lock that serialises starts and stops.
        self.raw.get_mut().take();
        self.retire();
        let number = self.stats.worker();
        running.retain(|other| *other != number);
    }
}
