//! Serving: workers, listeners, connections, the admin side, start and drain.
//!
//! ```text
//! start       config → store, catalog, index, plugins, upstreams → workers
//! drain       signal → no new connections → those in flight → end
//! accept      one listener a worker and address; backs off when descriptors run out
//! connection  keep-alive loop: head → answer → body → next, with every bound on the way
//! send        an answer becomes bytes on the socket, or is cut short by FIN
//! admin       /healthz /readyz /metrics /explain /reload
//! certificates what TLS clients are shown, read anew when the files change
//! reload      another configuration, or a plugin's successor, while serving
//! change_over each worker takes something new; what was before ends on a thread of its own
//! maintenance /verify /gc: a thread that looks after the store; `stopped`: without a server
//! ```
//!
//! May import: everything.
//!
//! **Invariant:** a connection is always ended with FIN and a drained socket, never with RST:
//! containerd fails a pull on RST and resumes it on FIN.
//! **Invariant:** a request that panics is answered with 500 and ends its connection, no more.
//! **Invariant:** every wait for a client has a deadline, from accept on.
//! **Invariant:** the runtimes are never dropped: the process ends by `exit` after the drain, so
//! that no ring closes under an operation in flight.
//!
//! Deliberately absent: what a request means (`api`).

mod accept;
mod admin;
mod certificates;
mod change_over;
mod connection;
mod drain;
mod lasting;
mod lifecycle;
mod logins;
mod maintenance;
mod maintenance_admin;
mod maintenance_runs;
mod observer;
mod open_store;
mod parts;
mod plugins;
mod reload;
mod reload_admin;
mod send;
mod spare;
mod start;
mod state;
mod stopped;
mod store_metrics;

pub use certificates::{CertificateError, check_certificates};
pub use maintenance_runs::{RunState, RunStatus};
pub use reload::ReadConfig;
pub use start::{ServeError, serve};
pub use stopped::StoppedStore;
