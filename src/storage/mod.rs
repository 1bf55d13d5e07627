//! The store's files: content-addressed blobs, and the staging area where they grow, in one or more
//! pools, each on a disk of its own.
//!
//! ```text
//! <root>/lock                           held for the life of the process
//! <root>/catalog.redb                   names (see `catalog`)
//! <root>/index/                         the index (see `index`)
//! <root>/rate-limits.json               notes that may be lost (see `note`)
//! <pool>/pool.json                      which pool of which store this is; in all but the root
//! <pool>/staging/<boot>-<n>             content being received; swept at start
//! <pool>/uploads/<id>                   content that comes in several requests; outlives the process
//! <pool>/blobs/<alg>/<2 hex>/<hex>      verified content, whatever its media type
//! <pool>/quarantine/<time>-<n>-<name>   what was found damaged or foreign there; gc removes it
//! ```
//!
//! The root is the pool of number 0. A record of content tells the number of its pool.
//!
//! May import: `limits`, `oci`, `runtime`.
//!
//! **Invariant:** a path below `blobs` is only ever made of a parsed [`crate::oci::Digest`], and a file gets
//! there only by [`Staged::commit`], which has compared the digest and replaces nothing.
//! **Invariant:** who puts content in place and names it, or takes away its name and then its file,
//! has the turn of that content for as long ([`Store::turn`]).
//! **Invariant:** a pool is opened only where its mark was found (`mark`): an empty mount point or
//! another's disk gets nothing. A pool that fails takes nothing with it but itself.
//! **Invariant:** staging lies on the same file system, so the move is one rename; what is not
//! committed is removed when its [`Staged`] is dropped, and at the next start after a crash.
//! **Invariant:** what is written grows in whole `pieces`, for the page cache's sake; what the disk
//! refused of a [`Staged`] makes all of it refused.
//!
//! Deliberately absent: knowledge of names, of upstreams, of who may read what, and the choice of a
//! pool.

mod growing;
mod inspect;
mod layout;
mod mark;
mod note;
mod open_files;
mod open_pool;
mod pieces;
mod pool;
mod staged;
mod turns;

pub use growing::{FoundUpload, Growing};
pub use inspect::{FileIdentity, FoundFile, Inspection};
pub use layout::{OpenBlob, ROOT_POOL, Store, StoreError};
pub use note::Note;
pub use open_pool::{MissingPool, WantedPool};
pub use pieces::{Piece, Pieces};
pub use pool::Pool;
pub use staged::{DigestMismatch, StageError, Staged, StagedWriter};
pub use turns::{HeldTurns, Turn};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
