//! Accepting connections, sharing them out, and not spinning when there are no descriptors for them.

use std::fmt::Display;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::connection::Handler;
use super::lifecycle::Seat;
use super::state::{Listener, Serving, WorkerState};
use super::{admin, connection};
use crate::api::{Answer, Begun, Peer};
use crate::http::RequestHead;
use crate::index::SmallAt;
use crate::runtime::{ClientStream, TcpStream, sleep, spawn};
use crate::telemetry::WorkerMetrics;
use crate::transfer::Inlet;

/// First pause after a failed accept; doubles up to [`PAUSE_MAX`]. On io_uring a failing accept
/// completes at once even when nobody connects, so without a pause it would spin.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Most connections that are taken at once, before those that are there have their turn.
const HERD: usize = 64;
/// Connections to the admin address.
const ADMIN_CONNECTIONS_MAX: usize = 64;

/// Whose requests come in on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// Clients of the registry.
    Registry,
    /// The operator.
    Admin,
}

/// Accepts until the listener is stopped.
pub(super) async fn run(worker: Rc<WorkerState>, listener: Listener) {
    let mut pause = PAUSE;
    loop {
        match listener.socket.accept().await {
            Ok((stream, peer)) => {
                pause = PAUSE;
                place(&worker, stream, peer, &listener);
                // Clients come in herds. What fails here fails again when it is waited for.
                let _ = listener.socket.accept_others(HERD, |stream, peer| {
                    place(&worker, stream, peer, &listener);
                });
            }
            Err(_) if worker.serving.lifecycle.is_draining() => {
                return;
            }
            Err(error) => {
                worker.serving.counters.accept_error();
                tracing::warn!(worker = worker.serving.worker, %error, pause_ms = pause.as_millis(),
                    "accept failed; raise LimitNOFILE if descriptors ran out");
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// Takes the connections that were waiting when the drain began.
pub(super) fn take_waiting(worker: &Rc<WorkerState>) {
    for listener in worker.listeners.borrow().iter() {
        if listener.service == Service::Admin {
            continue;
        }
        while let Ok(Some((stream, peer))) = listener.socket.accept_waiting() {
            let open = Open::here(worker, listener.service);
            admit(open, stream, peer, listener.is_tls);
        }
    }
}

/// Serves a connection here, or hands it to a worker that has fewer.
fn place(worker: &Rc<WorkerState>, socket: TcpStream, peer: SocketAddr, listener: &Listener) {
    let (here, is_tls) = (worker.serving.worker, listener.is_tls);
    let best = match listener.service {
        Service::Registry => worker.serving.lifecycle.best_for(here),
        Service::Admin => here,
    };
    if best == here {
        return admit(Open::here(worker, listener.service), socket, peer, is_tls);
    }
    // From now on it counts there, so that the next one sees it and a drain waits for it.
    let seat = worker.serving.lifecycle.seat(best);
    let handed_over = socket.detach().map(|socket| {
        worker.shared.workers.post(best, move || {
            let Some(worker) = WorkerState::current() else { return };
            let counters = worker.serving.counters.clone();
            match socket.attach() {
                Ok(socket) => admit(Open::Registry { worker, _seat: seat }, socket, peer, is_tls),
                Err(error) => failed(&counters, &error),
            }
        })
    });
    match handed_over {
        Ok(Ok(())) => {}
        Ok(Err(error)) => failed(&worker.serving.counters, &error),
        Err(error) => failed(&worker.serving.counters, &error),
    }
}

fn failed(counters: &WorkerMetrics, error: &dyn Display) {
    counters.accept_error();
    tracing::warn!(%error, "a connection could not be handed to another worker, and is closed");
}

fn admit(open: Open, socket: TcpStream, peer: SocketAddr, is_tls: bool) {
    let worker = open.worker();
    let (count, max) = open.count_and_max();
    if count > max.saturating_mul(2) {
        // Not even a refusal can be afforded.
        worker.serving.counters.accept_error();
        return;
    }
    let over = (count > max).then_some(max);
    let stream = match worker.serving.tls.as_ref().filter(|_| is_tls) {
        None => ClientStream::plain(socket),
        Some(tls) => match ClientStream::tls(socket, &tls.current()) {
            Ok(stream) => stream,
            Err(error) => {
                worker.serving.counters.accept_error();
                tracing::warn!(worker = worker.serving.worker, %error, "no TLS session");
                return;
            }
        },
    };
    spawn(async move {
        let worker = open.worker();
        match &open {
            Open::Registry { .. } => {
                connection::serve(&worker.serving, &Registry(worker), stream, peer, over).await;
            }
            Open::Admin(_) => {
                connection::serve(&worker.serving, &Admin(worker), stream, peer, over).await;
            }
        }
        drop(open);
    });
}

struct Registry<'a>(&'a WorkerState);

impl Handler for Registry<'_> {
    const IS_RECORDED: bool = true;

    fn begin(&self, head: &RequestHead, peer: &Peer, now: Instant) -> Begun {
        self.0.api.begin(head, peer, now)
    }

    fn copy(&self, content: &SmallAt, out: &mut Vec<u8>) -> bool {
        self.0.api.copy(content, out)
    }

    async fn answer(
        &self,
        head: &RequestHead,
        body: &mut Inlet<'_>,
        peer: &Peer,
        begun: Begun,
    ) -> Answer {
        self.0.api.answer(head, body, peer, begun).await
    }
}

struct Admin<'a>(&'a WorkerState);

impl Handler for Admin<'_> {
    // Scrapes and probes would drown what clients do.
    const IS_RECORDED: bool = false;

    async fn answer(
        &self,
        head: &RequestHead,
        _body: &mut Inlet<'_>,
        _peer: &Peer,
        _begun: Begun,
    ) -> Answer {
        admin::answer(self.0, head).await
    }
}

/// Counts a connection for as long as it lives, however its task ends. The operator's are counted
/// apart: a full registry must still tell that it is full.
enum Open {
    Registry { worker: Rc<WorkerState>, _seat: Seat },
    Admin(Rc<WorkerState>),
}

impl Open {
    fn here(worker: &Rc<WorkerState>, service: Service) -> Self {
        let worker = worker.clone();
        match service {
            Service::Registry => {
                let seat = worker.serving.lifecycle.seat(worker.serving.worker);
                Self::Registry { worker, _seat: seat }
            }
            Service::Admin => {
                worker.admin_connections.set(worker.admin_connections.get() + 1);
                Self::Admin(worker)
            }
        }
    }

    fn worker(&self) -> &WorkerState {
        match self {
            Self::Registry { worker, .. } | Self::Admin(worker) => worker,
        }
    }

    fn count_and_max(&self) -> (usize, usize) {
        match self {
            Self::Registry { worker, .. } => {
                let Serving { worker, lifecycle, limits, .. } = &worker.serving;
                (lifecycle.connections_of(*worker), limits.connections_max)
            }
            Self::Admin(worker) => (worker.admin_connections.get(), ADMIN_CONNECTIONS_MAX),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Self::Admin(worker) = self {
            worker.admin_connections.set(worker.admin_connections.get().saturating_sub(1));
        }
    }
}
