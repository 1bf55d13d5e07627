//! Pushes: what clients put into hosted repositories, and take away.
//!
//! May import: what `registry` may.
//!
//! **Invariant:** nothing is acknowledged before it is durable: bytes synced and in place, then the
//! name in the catalog, then the answer.
//! **Invariant:** from looking up what a push refers to until the catalog has its names, it holds
//! [`PushGate::pushing`](super::PushGate::pushing); from putting a file in place until it has its
//! name, the turn of that content.
//!
//! Deliberately absent: who may push (`api` asks before any of this), HTTP statuses.

mod blob;
mod delete;
mod error;
mod left;
mod limits;
mod manifest;
mod place;
mod receive;
mod sessions;
mod upload;

use std::sync::Arc;

use super::{HostedRules, PushGate};
pub use error::PushError;
pub use manifest::{ManifestPut, ManifestStored};
pub use sessions::{Uploader, Uploads};
pub use upload::{SentRange, UploadStatus};

/// What pushes share with gc, and with the process before.
#[derive(Clone)]
pub struct Pushes {
    /// Keeps them apart from gc.
    pub gate: Arc<PushGate>,
    /// What holds of each repository.
    pub rules: HostedRules,
    /// Uploads under way.
    pub uploads: Arc<Uploads>,
}
