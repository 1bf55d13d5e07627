//! The only door to monoio: pinned workers, their rings, sockets, files, timers, mailboxes.
//!
//! A worker is one thread pinned to one core with its own io_uring (or, where the kernel or a
//! sandbox refuses io_uring, epoll). Everything above this module is written once for both.
//!
//! May import: `limits`, and nothing else of this crate.
//!
//! **Invariant:** a worker never blocks. File work goes to the ring, or to the blocking pool on the
//! epoll driver; names are resolved and other slow calls are made on the blocking pool.
//! **Invariant:** only owned buffers cross the ring. A dropped future is not a cancelled operation:
//! monoio keeps buffer and descriptor alive until the kernel has answered.
//! **Invariant:** workers share nothing mutable with each other except through [`Workers::call`]
//! (a mailbox each) and atomics. Locks named in here are touched by one worker only.
//! **Invariant:** a panic ends the task it happened in and is counted; the worker goes on.
//!
//! Deliberately absent: cancelling of ring operations. A deadline shuts the socket down (see
//! [`deadline`]), which completes whatever is in flight, so no read is ever abandoned half-way.

mod blocking;
mod buffers;
mod client;
pub mod clock;
pub mod deadline;
mod file;
mod gate;
mod mailbox;
mod net;
mod service;
mod single_flight;
pub mod stopwatch;
mod task;
mod tls;
mod worker;

pub use blocking::{
    BlockingError, BlockingPool, blocking, blocking_ahead, blocking_alone, blocking_long,
    blocking_names, blocking_passwords,
};
pub use buffers::{Pooled, give_buffer, take_buffer};
pub use client::ClientStream;
pub use file::File;
pub use gate::{bulk_turn, bulk_turn_now, bulk_unused, bulk_waits};
pub use mailbox::{WorkerGone, Workers};
pub use net::{DetachedStream, PollStream, TcpListener, TcpStream, connect, probe_address};
pub use service::{ended_services, start_service};
pub use single_flight::{FlightError, SingleFlight};
pub use task::{
    Elapsed, catch_panic, catch_panic_now, let_others_go, panic_count, sleep, spawn, timeout,
};
pub use tls::{
    ClientCertificates, HandshakeError, HandshakeFailure, Handshaken, TLS_PIECE_BYTES_MAX,
    TlsFileError, TlsFiles, TlsServing,
};
pub use worker::{
    Driver, StartError, WorkerContext, driver_for, has_ring, raise_descriptor_limit, start,
    worker_id,
};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
pub(crate) mod tests;
