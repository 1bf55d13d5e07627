//! A made-up CI trace, and caches of several policies to play it through. The policy that ships is
//! the server's own file, so that what is measured is what runs.
//!
//! A library as well as a program, so that the soak test pulls the same kind of trace through a
//! server and compares what that kept with what the policies would have.

pub mod policies;
mod random;
pub mod replay;
pub mod trace;
mod world;

#[path = "../../../src/registry/eviction.rs"]
#[allow(unreachable_pub, reason = "public in the server")]
mod eviction;
