//! Moving stored bytes to a client's socket without taking them into user memory.
//!
//! May import: `limits`, `runtime`.
//!
//! **Invariant:** a body in a file goes from the page cache to the socket by sendfile(2); user memory
//! holds its head only. [`Outlet::bytes`] is for what is in memory anyway: heads, documents, small
//! contents, and what passes by the store.
//! **Invariant:** sendfile is only called on pages that are in memory; cold ones are read ahead
//! on the blocking pool first, because a page fault would block the worker.
//! **Invariant:** after each window the connection queues behind the ring again, so that one
//! large body never starves the small requests of its worker.
//!
//! Deliberately absent: HTTP (the head comes as bytes), deciding what may be sent (the caller
//! says how far).

mod file_to_socket;

pub use file_to_socket::Outlet;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
