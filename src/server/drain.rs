//! The end of serving: a signal, then what is in flight, then nothing.

use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use signal_hook::consts::SIGHUP;

use super::accept;
use super::lifecycle::Lifecycle;
use super::reload::Reloader;
use super::start::ServeError;
use super::state::WorkerState;
use crate::config::Config;
use crate::runtime::{Workers, clock};

/// Waits for a signal to stop (one to reload is obeyed meanwhile), then lets requests in flight finish. A second signal ends at once.
pub(super) fn wait_and_drain(
    config: &Config,
    mut signals: signal_hook::iterator::Signals,
    workers: &Workers,
    lifecycle: &Arc<Lifecycle>,
    reloader: &Arc<Reloader>,
) -> Result<(), ServeError> {
    let signal = signals.forever().find(|signal| match *signal {
        SIGHUP => {
            reloader.reload_soon();
            false
        }
        _ => true,
    });
    let limit = config.server.drain_timeout;
    tracing::info!(signal, connections = lifecycle.connections(), drain_timeout = ?limit,
        "told to stop; draining");
    lifecycle.set_draining();
    on_all_workers(workers, |state| {
        accept::take_waiting(state);
        state.drain();
    });
    let deadline = clock::now() + limit;
    while lifecycle.connections() > 0 {
        if clock::now() >= deadline {
            return Err(ServeError::Drain { connections: lifecycle.connections(), limit });
        }
        if signals.pending().any(|signal| signal != SIGHUP) {
            tracing::warn!(connections = lifecycle.connections(), "told to stop again; stopping");
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    tracing::info!("drained");
    Ok(())
}

/// Runs `work` on every worker and waits until it is done there, for at most a second.
pub(super) fn on_all_workers(workers: &Workers, work: fn(&Rc<WorkerState>)) {
    let (done, all_done) = mpsc::channel();
    for worker in 0..workers.count() {
        let done = done.clone();
        let posted = workers.post(worker, move || {
            if let Some(state) = WorkerState::current() {
                work(&state);
            }
            // Nobody waits any longer if that took too long.
            let _ = done.send(());
        });
        if let Err(error) = posted {
            tracing::warn!(%error, "a worker was gone before the others");
        }
    }
    drop(done);
    let deadline = clock::now() + Duration::from_secs(1);
    while all_done.recv_timeout(deadline.saturating_duration_since(clock::now())).is_ok() {}
}
