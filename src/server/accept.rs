//! Accepting connections, and not spinning when there are no descriptors for them.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::connection::Handler;
use super::state::{Listener, WorkerState};
use super::{admin, connection};
use crate::api::{Answer, Peer};
use crate::http::RequestHead;
use crate::runtime::{ClientStream, TcpStream, sleep, spawn};
use crate::transfer::Inlet;

/// First pause after a failed accept; doubles up to [`PAUSE_MAX`]. On io_uring a failing accept
/// completes at once even when nobody connects, so without a pause it would spin.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
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
                admit(&worker, stream, peer, &listener);
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
            admit(worker, stream, peer, listener);
        }
    }
}

fn admit(worker: &Rc<WorkerState>, socket: TcpStream, peer: SocketAddr, listener: &Listener) {
    let service = listener.service;
    let open = Open::new(worker.clone(), service);
    let (count, max) = open.count_and_max();
    if count > max.saturating_mul(2) {
        // Not even a refusal can be afforded.
        worker.serving.counters.accept_error();
        return;
    }
    let over = (count > max).then_some(max);
    let stream = match worker.serving.tls.as_ref().filter(|_| listener.is_tls) {
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
        let worker = &*open.worker;
        match service {
            Service::Registry => {
                connection::serve(&worker.serving, &Registry(worker), stream, peer, over).await;
            }
            Service::Admin => {
                connection::serve(&worker.serving, &Admin(worker), stream, peer, over).await;
            }
        }
        drop(open);
    });
}

struct Registry<'a>(&'a WorkerState);

impl Handler for Registry<'_> {
    const IS_RECORDED: bool = true;

    async fn answer(&self, head: &RequestHead, body: &mut Inlet<'_>, peer: &Peer) -> Answer {
        self.0.api.answer(head, body, peer).await
    }
}

struct Admin<'a>(&'a WorkerState);

impl Handler for Admin<'_> {
    // Scrapes and probes would drown what clients do.
    const IS_RECORDED: bool = false;

    async fn answer(&self, head: &RequestHead, _body: &mut Inlet<'_>, _peer: &Peer) -> Answer {
        admin::answer(self.0, head).await
    }
}

/// Counts a connection for as long as it lives, however its task ends. The operator's are counted
/// apart: a full registry must still tell that it is full.
struct Open {
    worker: Rc<WorkerState>,
    service: Service,
}

impl Open {
    fn new(worker: Rc<WorkerState>, service: Service) -> Self {
        if service == Service::Registry {
            worker.serving.lifecycle.connected();
        }
        let open = Self { worker, service };
        open.cell().set(open.cell().get() + 1);
        open
    }

    fn cell(&self) -> &Cell<usize> {
        match self.service {
            Service::Registry => &self.worker.connections,
            Service::Admin => &self.worker.admin_connections,
        }
    }

    fn count_and_max(&self) -> (usize, usize) {
        let max = match self.service {
            Service::Registry => self.worker.serving.limits.connections_max,
            Service::Admin => ADMIN_CONNECTIONS_MAX,
        };
        (self.cell().get(), max)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.cell().set(self.cell().get().saturating_sub(1));
        if self.service == Service::Registry {
            self.worker.serving.lifecycle.disconnected();
        }
    }
}
