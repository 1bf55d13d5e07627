//! The OCI distribution API: from a parsed request head to an answer ready to be sent.
//!
//! ```text
//! at_once    what needs no wait
//! router     endpoint → resolver chain → the registry's use case
//! candidates which of the route's upstreams answers
//! targets    what a worker remembers of what was asked for
//! access     who is asking, and whether they may
//! push       what changes hosted repositories
//! mount      where a blob may be taken from instead of being sent
//! content    a pull becomes 200, 206, 304 or 416
//! relay      tags/list and referrers of upstreams
//! hosted_lists  the same of what is hosted, and the catalog
//! refusal    every error becomes a status, an OCI code and a sentence
//! ```
//!
//! May import: everything below `server`.
//!
//! **Invariant:** this is the only module that knows which HTTP status an error has and what the
//! OCI error document looks like.
//! **Invariant:** an [`Answer`] announces exactly as many bytes as its body holds; bodies of blobs
//! are never in it, only where they are.
//! **Invariant:** the stored media type is returned as it is, the ETag is the quoted digest, and
//! nothing is negotiated away.
//!
//! Deliberately absent: sockets, timers, writing of bytes (`server` does that).

mod access;
mod answer;
mod at_once;
mod candidates;
mod content;
mod explain;
mod hosted_lists;
mod mount;
mod peer;
mod push;
mod push_blob;
mod push_manifest;
mod refusal;
mod relay;
mod router;
mod targets;

pub use access::Rules;
pub use answer::{Answer, Body, Facts, Value};
pub use at_once::{Begun, Held};
pub use explain::{Question, explain};
pub use peer::Peer;
pub use refusal::Refusal;
pub use router::Api;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
