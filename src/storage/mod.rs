//! The store's files: content-addressed blobs, and the staging area where they grow.
//!
//! ```text
//! <root>/lock                           held for the life of the process
//! <root>/catalog.redb                   names (see `catalog`)
//! <root>/index/                         the index (see `index`)
//! <root>/staging/<boot>-<n>             content being received; swept at start
//! <root>/blobs/<alg>/<2 hex>/<hex>      verified content, whatever its media type
//! <root>/quarantine/<time>-<n>-<name>   what was found damaged or foreign there; gc removes it
//! ```
//!
//! May import: `oci`, `runtime`.
//!
//! **Invariant:** a path below `blobs` is only ever made of a parsed [`crate::oci::Digest`], and a file gets
//! there only by [`Staged::commit`], which has compared the digest.
//! **Invariant:** staging lies on the same file system, so the move is one rename; what is not
//! committed is removed when its [`Staged`] is dropped, and at the next start after a crash.
//!
//! Deliberately absent: knowledge of names, of upstreams, of who may read what.

mod inspect;
mod layout;
mod staged;

pub use inspect::{FileIdentity, FoundFile, Inspection};
pub use layout::{OpenBlob, Store, StoreError};
pub use staged::{DigestMismatch, StageError, Staged};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
