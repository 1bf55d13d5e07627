//! Bodies on a client's socket: stored bytes out without taking them into user memory, and what is
//! pushed in, piece by piece.
//!
//! May import: `limits`, `http` (where a request's body ends), `runtime`.
//!
//! **Invariant:** to a client that speaks plain HTTP a body in a file goes from the page cache to the
//! socket by splice(2) or sendfile(2); user memory holds its head only. To one that speaks TLS it goes
//! in pieces by way of one buffer of the worker, and of each connection one piece is in memory.
//! [`Outlet::bytes`] is for what is in memory anyway: heads, documents, small contents, and what passes
//! by the store.
//! **Invariant:** the worker sends and reads only pages that it saw in memory within the last second;
//! cold ones are read (ahead) on the blocking pool first, because a page fault would block the worker.
//! **Invariant:** before each window the connection asks the worker's gate (`runtime::bulk_turn`), so
//! that large bodies never starve the small requests of their worker.
//!
//! **Invariant:** of a request's body no more is in memory than one piece, and what its sender likes
//! to leave out is waited for no longer than the limits say.
//!
//! Deliberately absent: heads (they come as bytes, or read), deciding what may be sent (the caller
//! says how far).

mod inlet;
mod outlet;
mod pages;
mod pipe;
mod seen;

pub use inlet::{Inlet, InletError, Whole};
pub use outlet::{Outlet, Underway};

/// Bytes handed to the kernel in one call.
const WINDOW: u64 = 2 * 1024 * 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
