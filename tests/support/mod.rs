//! What the integration tests stand on: scratch folders, guarded child processes, images built
//! from nothing, real origins, a lying upstream, real clients and a raw HTTP client.
//!
//! Plain threads and blocking sockets, so that a fault of the server's runtime can not hide in
//! the tests' own. May import no part of the library: the tests meet Ringport where its users
//! do, at the sockets and the command line.
//!
//! **Invariant:** every wait is bounded and every process and thread ends with its guard.
//! **Invariant:** nothing listens or dials outside 127.0.0.0/8.
//! **Invariant:** what is missing on the machine fails the test with the package to install,
//! unless `RINGPORT_TEST_SKIP_CLIENTS=1` says that it may be skipped.
//!
//! Environment: `RINGPORT_TEST_DRIVER=epoll|io_uring` forces the driver of every server,
//! `RINGPORT_TEST_KEEP=1` keeps the scratch folders. The support is itself tested, in
//! `tests/support_proof.rs`.

// Each test binary uses a part of this; a shared module can not know which.
#![allow(dead_code, unused_imports, unreachable_pub)]
// A test that can not get what it needs should stop there, with the reason.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
// The bans on blocking calls are for workers; nothing here runs on one.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod blobs;
pub mod chance;
pub mod clients;
pub mod durable;
pub mod folder;
pub mod forwarder;
pub mod gate;
pub mod http;
pub mod images;
pub mod listener;
pub mod load;
pub mod lying;
pub mod mounts;
pub mod origin;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod pushers;
pub mod registry;
pub mod rig;
pub mod scratch;
pub mod server;
pub mod sockets;
pub mod tls;
pub mod token_server;
pub mod upload;

use std::time::{Duration, Instant};

/// Polls `ready` every 5 ms until it holds; panics with `what` after `bound`.
#[track_caller]
pub fn wait_until(what: &str, bound: Duration, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < bound, "waited {bound:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Writes a line to standard error past the harness, which keeps what a passing test prints to
/// itself: figures of a run, and what was skipped.
pub fn tell(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A number from the environment, for tests that can be made longer.
#[track_caller]
pub fn number_from(variable: &str, default: u64) -> u64 {
    let Ok(text) = std::env::var(variable) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{variable}={text:?}: expected a whole number"))
}

/// Seconds, as the tests write durations.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Milliseconds, as the tests write durations.
pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
