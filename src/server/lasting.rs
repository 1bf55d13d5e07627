//! What is known of upstreams over reloads: what is left of their rate limits, which is also kept
//! over restarts, and the health of their endpoints. Both in the metrics.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::start::ServeError;
use crate::runtime::start_service;
use crate::storage::{Note, Store};
use crate::telemetry::Metrics;
use crate::upstream::{Governor, Health, Lasting, LoginBudget};

/// How often it is written down; what a crash loses is asked of the upstream again.
const KEEP_INTERVAL: Duration = Duration::from_secs(30);

/// The thread that writes it down.
pub(super) struct Keeper {
    stop: crossbeam_channel::Sender<()>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Goes on with what was written down the last time, starts the thread, and puts the budgets
    /// into the metrics.
    ///
    /// # Errors
    /// The operating system refused the thread.
    pub(super) fn start(
        store: &Arc<Store>,
        metrics: &Metrics,
    ) -> Result<(Self, Lasting), ServeError> {
        let lasting = Lasting::default();
        restore(store, &lasting.governor);
        attach(metrics, &lasting.governor);
        attach_health(metrics, &lasting.health);
        let (stop, stopped) = crossbeam_channel::bounded(1);
        let (store, governor) = (store.clone(), lasting.governor.clone());
        let work = move || {
            let mut last = None;
            loop {
                let is_stopped = stopped.recv_timeout(KEEP_INTERVAL)
                    != Err(crossbeam_channel::RecvTimeoutError::Timeout);
                keep(&store, &governor, &mut last);
                if is_stopped {
                    return;
                }
            }
        };
        let thread = start_service("rate-limits", work)
            .map_err(|source| ServeError::System { what: "a thread for rate limits", source })?;
        Ok((Self { stop, thread }, lasting))
    }

    /// Writes down what is left and ends.
    pub(super) fn end(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the thread for rate limits ended by a panic");
        }
    }
}

fn restore(store: &Store, governor: &Governor) {
    let note = store.note(Note::RateLimits).map_err(|error| error.to_string());
    let restored = note.and_then(|note| match note {
        Some(saved) => governor.restore(&saved).map_err(|error| error.to_string()),
        None => Ok(()),
    });
    if let Err(error) = restored {
        let path = store.note_path(Note::RateLimits);
        tracing::warn!(path = %path.display(), error,
            "what was left of the upstreams' rate limits is not known any more; they will tell");
    }
}

fn keep(store: &Store, governor: &Governor, last: &mut Option<String>) {
    let saved = governor.save();
    if last.as_ref() == Some(&saved) {
        return;
    }
    match store.keep_note(Note::RateLimits, &saved) {
        Ok(()) => *last = Some(saved),
        Err(error) => {
            let path = store.note_path(Note::RateLimits);
            tracing::warn!(path = %path.display(), %error, "rate limits are not written down");
        }
    }
}

fn attach(metrics: &Metrics, governor: &Arc<Governor>) {
    type Figure = fn(&LoginBudget) -> Option<u64>;
    let figures: [(&str, &str, Figure); 3] = [
        (
            "ringport_ratelimit_limit",
            "Requests that a window of the upstream's rate limit allows this login",
            |budget| Some(budget.limit),
        ),
        ("ringport_ratelimit_remaining", "How many of them are left", |budget| {
            Some(budget.remaining)
        }),
        (
            "ringport_ratelimit_used_up_in_seconds",
            "When none will be left if requests go on as in the last minutes; absent: never",
            |budget| Some(budget.used_up_in?.as_secs()),
        ),
    ];
    for (name, help, figure) in figures {
        let governor = governor.clone();
        metrics.attach_gauges(name, help, "login", move || {
            let of = |budget: LoginBudget| Some((budget.login.to_string(), figure(&budget)?));
            governor.budgets().into_iter().filter_map(of).collect()
        });
    }
    let held_back = governor.clone();
    metrics.attach_counter(
        "ringport_ratelimit_held_back",
        "Requests to upstreams that were not sent because their rate limit was used up",
        move || held_back.held_back(),
    );
    let spared = governor.clone();
    metrics.attach_counter(
        "ringport_ratelimit_spared",
        "Revalidations that were not made, to save what is left of a rate limit",
        move || spared.spared(),
    );
}

/// Puts the endpoints' health into the metrics.
fn attach_health(metrics: &Metrics, health: &Arc<Health>) {
    let known = health.clone();
    let help = "1 while an endpoint can't be connected to and is only probed; absent: it can";
    metrics.attach_gauges("ringport_endpoint_down", help, "endpoint", move || {
        known.down().into_iter().map(|name| (name.to_string(), 1)).collect()
    });
    let counted = health.clone();
    metrics.attach_counter(
        "ringport_upstream_hedges",
        "Requests that a second endpoint was asked too, because the first was late",
        move || counted.hedges(),
    );
}
