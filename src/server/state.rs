//! What one worker needs to serve connections.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::accept::Service;
use super::certificates::Certificates;
use super::lifecycle::Lifecycle;
use super::maintenance::Maintenance;
use super::reload::Reloader;
use super::spare::Spare;
use crate::api::Api;
use crate::config::Config;
use crate::http::DateCache;
use crate::plugin::ChainObserver;
use crate::registry::Shared;
use crate::runtime::{TcpListener, deadline};
use crate::telemetry::{AccessLog, Metrics, RequestIds, WorkerMetrics};

/// Limits on connections, from the configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionLimits {
    /// Open connections of one worker.
    pub(super) connections_max: usize,
    /// From accept, or from the first byte of a next request, to the end of the head.
    pub(super) head_timeout: Duration,
    /// Between two requests.
    pub(super) idle_timeout: Duration,
    /// How long a client may take to accept one byte of an answer.
    pub(super) stall_timeout: Duration,
    /// How soon after each other answers follow that are sent together.
    pub(super) together_pace: Duration,
}

/// What connections need, whatever they are for.
pub(super) struct Serving {
    pub(super) worker: usize,
    pub(super) limits: ConnectionLimits,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) counters: WorkerMetrics,
    pub(super) access_log: AccessLog,
    pub(super) request_ids: RequestIds,
    pub(super) date: RefCell<DateCache>,
    /// For the next answers that are made here.
    pub(super) spare: Spare,
    /// Answers from memory, of all connections: by which each knows how busy the others are.
    pub(super) answered: Cell<u64>,
    /// If there are addresses that speak TLS.
    pub(super) tls: Option<Arc<Certificates>>,
}

/// One worker's part of the server.
pub(super) struct WorkerState {
    pub(super) serving: Serving,
    pub(super) api: Api,
    pub(super) config: RefCell<Arc<Config>>,
    pub(super) reloader: Arc<OnceLock<Arc<Reloader>>>,
    pub(super) plugins: ChainObserver,
    pub(super) shared: Arc<Shared>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) maintenance: Arc<Maintenance>,
    pub(super) admin_connections: Cell<usize>,
    pub(super) listeners: RefCell<Vec<Listener>>,
}

/// What the worker listens on.
#[derive(Clone)]
pub(super) struct Listener {
    pub(super) service: Service,
    pub(super) is_tls: bool,
    pub(super) socket: Rc<TcpListener>,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<WorkerState>>> = const { RefCell::new(None) };
}

impl WorkerState {
    /// Remembers the state for work that is sent to this worker.
    pub(super) fn install(self) -> Rc<Self> {
        let state = Rc::new(self);
        CURRENT.with(|current| *current.borrow_mut() = Some(state.clone()));
        state
    }

    pub(super) fn current() -> Option<Rc<Self>> {
        CURRENT.with(|current| current.borrow().clone())
    }

    /// Stops listening and ends the connections that wait for a request.
    pub(super) fn drain(&self) {
        self.stop_listening(Service::Registry);
        deadline::end_idle();
    }

    /// Without this, a listener outlives the process for a moment: an accept in flight on the ring
    /// holds it until the kernel has taken the ring down, and a successor on the same port would
    /// share its connections with a dead socket.
    pub(super) fn stop_listening(&self, service: Service) {
        for listener in self.listeners.borrow().iter().filter(|one| one.service == service) {
            listener.socket.stop();
        }
    }
}
