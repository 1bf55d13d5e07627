//! Why a push was not taken, in the words of the registry; `api` turns them into HTTP.

use super::limits;
use crate::catalog::{CatalogError, UploadId};
use crate::registry::PullError;
use crate::registry::error::RETRY_AFTER_DEFAULT;
use crate::runtime::BlockingError;
use crate::storage::StageError;
use crate::transfer::InletError;

/// Why a request that changes a hosted repository did not.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PushError {
    /// There is no such upload session for this client in this repository.
    #[error("there is no upload {0} of yours in this repository; it may have ended or expired")]
    UploadUnknown(String),
    /// A piece of an upload does not begin where the last one ended. Nothing has changed.
    #[error("the piece begins at byte {found}, expected {received}; go on from there")]
    OutOfOrder {
        /// Which.
        id: UploadId,
        /// Bytes that were received so far.
        received: u64,
        /// Where the piece begins.
        found: u64,
    },
    /// Another request for the same upload is being served. Nothing has changed.
    #[error("another request for upload {id} is being served; wait for it, or ask how far it is")]
    UploadBusy {
        /// Which.
        id: UploadId,
    },
    /// The upload cannot go on as it was asked to.
    #[error("{0}")]
    UploadInvalid(String),
    /// The content is not what its digest promises, or the digest cannot be used.
    #[error("{0}")]
    Digest(String),
    /// More or fewer bytes than announced.
    #[error("{0}")]
    Size(String),
    /// More bytes than are taken.
    #[error("{0}")]
    TooLarge(String),
    /// The body did not come whole; what came of an upload is kept.
    #[error("{0}")]
    Body(#[from] InletError),
    /// The repository has no such blob.
    #[error("{0}")]
    BlobUnknown(String),
    /// The repository has no such manifest or tag.
    #[error("{0}")]
    ManifestUnknown(String),
    /// There is no such repository.
    #[error("{0}")]
    NameUnknown(String),
    /// The manifest is none, or not one that can be stored under that name.
    #[error("{0}")]
    ManifestInvalid(String),
    /// The manifest names content that the repository does not have.
    #[error("{0}")]
    ManifestBlobUnknown(String),
    /// The rule of this repository forbids it: its tags, its size.
    #[error("{0}")]
    Denied(String),
    /// What this would name was deleted while it was under way.
    #[error("{0}")]
    Deleted(String),
    /// As many at a time as there may be.
    #[error("{0}")]
    TooMany(String),
    /// It cannot be done just now.
    #[error("{0}")]
    Busy(String),
    /// No disk has room for it. Nothing that was acknowledged is lost.
    #[error("{0}")]
    NoRoom(String),
    /// The disk or the catalog failed.
    #[error("{0}")]
    Storage(String),
    /// A bug: a task panicked or a worker is gone.
    #[error("{0}")]
    Internal(String),
}

impl PushError {
    /// Seconds after which it makes sense to try again, where that is known.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::UploadBusy { .. } => Some(1),
            Self::TooMany(_) | Self::Busy(_) => Some(RETRY_AFTER_DEFAULT),
            _ => None,
        }
    }
}

impl From<StageError> for PushError {
    fn from(error: StageError) -> Self {
        match &error {
            StageError::Digest(_) => Self::Digest(error.to_string()),
            StageError::Io { full: true, .. } => Self::NoRoom(error.to_string()),
            StageError::Io { .. } => Self::Storage(error.to_string()),
        }
    }
}

impl From<CatalogError> for PushError {
    fn from(error: CatalogError) -> Self {
        match &error {
            CatalogError::Deleted { .. } => Self::Deleted(error.to_string()),
            CatalogError::Refused { .. } => Self::ManifestInvalid(error.to_string()),
            CatalogError::Unmet(unmet) => limits::denied(unmet),
            _ => Self::Storage(error.to_string()),
        }
    }
}

impl From<BlockingError> for PushError {
    fn from(error: BlockingError) -> Self {
        match error {
            BlockingError::Full(_) => Self::Busy(error.to_string()),
            _ => Self::Internal(error.to_string()),
        }
    }
}

impl From<PullError> for PushError {
    /// Of looking for what is ours: no upstream is asked by a push.
    fn from(error: PullError) -> Self {
        let message = error.to_string();
        match error {
            PullError::BlobUnknown(_) => Self::BlobUnknown(message),
            PullError::ManifestUnknown(_) => Self::ManifestUnknown(message),
            PullError::NameUnknown(_) => Self::NameUnknown(message),
            PullError::Denied(_) => Self::Denied(message),
            PullError::Busy(_) | PullError::RateLimited { .. } => Self::Busy(message),
            PullError::NoRoom(_) => Self::NoRoom(message),
            PullError::Storage(_) => Self::Storage(message),
            _ => Self::Internal(message),
        }
    }
}
