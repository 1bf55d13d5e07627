//! Accepting connections, and not spinning when there are no descriptors for them.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::connection;
use super::state::WorkerState;
use crate::runtime::{TcpListener, TcpStream, sleep, spawn};

/// First pause after a failed accept; doubles up to [`PAUSE_MAX`]. On io_uring a failing accept
/// completes at once even when nobody connects, so without a pause it would spin.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Whose requests come in on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// Clients of the registry.
    Registry,
    /// The operator.
    Admin,
}

/// Accepts until the listener is stopped.
pub(super) async fn run(worker: Rc<WorkerState>, listener: Rc<TcpListener>, service: Service) {
    let mut pause = PAUSE;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                pause = PAUSE;
                admit(&worker, stream, peer, service);
            }
            Err(_) if worker.lifecycle.is_draining() => {
                return;
            }
            Err(error) => {
                worker.counters.accept_error();
                tracing::warn!(worker = worker.worker, %error, pause_ms = pause.as_millis(),
                    "accept failed; raise LimitNOFILE if descriptors ran out");
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// Takes the connections that were waiting when the drain began.
pub(super) fn take_waiting(worker: &Rc<WorkerState>) {
    for (service, listener) in worker.listeners.borrow().iter() {
        if *service == Service::Admin {
            continue;
        }
        while let Ok(Some((stream, peer))) = listener.accept_waiting() {
            admit(worker, stream, peer, Service::Registry);
        }
    }
}

fn admit(worker: &Rc<WorkerState>, stream: TcpStream, peer: SocketAddr, service: Service) {
    let open = Open::new(worker.clone());
    let is_over = worker.connections.get() > worker.limits.connections_max;
    spawn(async move {
        connection::serve(&open.0, stream, peer, service, is_over).await;
        drop(open);
    });
}

/// Counts a connection for as long as it lives, however its task ends.
struct Open(Rc<WorkerState>);

impl Open {
    fn new(worker: Rc<WorkerState>) -> Self {
        worker.connections.set(worker.connections.get() + 1);
        worker.lifecycle.connected();
        Self(worker)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get().saturating_sub(1));
        self.0.lifecycle.disconnected();
    }
}
