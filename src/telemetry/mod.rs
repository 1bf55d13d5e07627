//! What is seen from outside: metrics, the access log, the log, and the names of requests in them.
//!
//! `metrics` are per-worker counters that are added up when someone asks; `access_log` writes one
//! JSON object for each request from its own thread; `log` sets `tracing` up; `request_id` names
//! requests; `decision` is what the log says of a route; `secret` is how a secret is held without ever being shown.
//!
//! May import: `oci`, `config`, `limits`; prometheus-client, crossbeam, tracing, serde, zeroize.
//!
//! **Invariant:** nothing here makes a worker wait: counting is one atomic addition on the worker's
//! own cache lines, an access entry or log line that finds its queue full is dropped and counted.
//! **Invariant:** memory is bounded: label values come from closed sets (enumerations, the status
//! table, declared namespaces, workers), never from a request.
//! **Invariant:** no secret is written: [`Secret`] prints as `[redacted]`, [`redact_url`] and the
//! access log drop query values that are not known to be harmless.
//!
//! Absent on purpose: tracing of single requests over services, and sampling.

pub mod access_log;
pub mod decision;
pub mod log;
pub mod metrics;
pub mod request_id;
pub mod secret;

pub use access_log::{AccessEntry, AccessLog, AccessLogError};
pub use decision::Decision;
pub use log::{LogError, LogGuard};
pub use metrics::{
    ActiveFill, CacheResult, FillOutcome, HookFigures, METRICS_CONTENT_TYPE, Metrics,
    PLUGIN_COUNTERS, PluginFigures, Revalidation, RouteKind, WorkerMetrics,
};
pub use request_id::{RequestId, RequestIds};
pub use secret::{Secret, redact_url};
