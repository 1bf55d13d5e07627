//! What is seen of logins: their metrics.

use std::sync::Arc;

use crate::auth::Authenticator;
use crate::telemetry::Metrics;

/// Figures of logins, read when somebody asks.
pub(super) fn attach_logins(metrics: &Metrics, authenticator: &Arc<Authenticator>) {
    let read = authenticator.clone();
    metrics.attach_counters(
        "ringport_logins",
        "Requests with credentials, by how they prove a name and what came of it",
        ["kind", "result"],
        move || read.counts(),
    );
    let read = authenticator.clone();
    let help = "Passwords that were computed (bcrypt)";
    metrics.attach_counter("ringport_password_checks", help, move || read.password_checks());
}
