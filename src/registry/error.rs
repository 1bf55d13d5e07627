//! Why a pull has no content, in the words of the registry; `api` turns them into HTTP.

use std::sync::Arc;

use crate::catalog::CatalogError;
use crate::oci::Digest;
use crate::runtime::FlightError;
use crate::storage::StageError;
use crate::upstream::UpstreamError;

/// Why a pull could not be answered. Cloned to all who wait for the same thing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PullError {
    /// The upstream (or the store, for hosted repositories) says there is no such blob.
    #[error("{0}")]
    BlobUnknown(String),
    /// There is no such manifest.
    #[error("{0}")]
    ManifestUnknown(String),
    /// There is no such repository.
    #[error("{0}")]
    NameUnknown(String),
    /// The upstream has said so a moment ago.
    #[error("{error}")]
    Remembered {
        /// What it said.
        error: Arc<PullError>,
        /// Seconds since.
        age: u64,
    },
    /// The upstream denies access with the credentials of this mirror.
    #[error("{0}")]
    Denied(String),
    /// The upstream has no budget left for us.
    #[error("{message}")]
    RateLimited {
        /// What happened.
        message: String,
        /// Seconds to wait.
        retry_after: u64,
    },
    /// The upstream did not answer in time.
    #[error("{0}")]
    UpstreamTimeout(String),
    /// The upstream failed or sent what cannot be right.
    #[error("{0}")]
    UpstreamFailed(String),
    /// What was asked for came back to a mirror that it had come from.
    #[error("{0}")]
    Loop(String),
    /// This mirror is busy with as many downloads as it may make.
    #[error("{0}")]
    Busy(String),
    /// The store has no room for this; it can be passed through.
    #[error("{0}")]
    NoRoom(String),
    /// The disk or the catalog failed.
    #[error("{0}")]
    Storage(String),
    /// A bug: a task panicked or a worker is gone.
    #[error("{0}")]
    Internal(String),
}

impl PullError {
    /// Whether stale content may answer instead: the upstream failed, it did not say no.
    pub fn is_upstream_failure(&self) -> bool {
        matches!(
            self,
            Self::RateLimited { .. }
                | Self::UpstreamTimeout(_)
                | Self::UpstreamFailed(_)
                | Self::Loop(_)
        )
    }

    /// Seconds after which it makes sense to ask again, where that is known.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after, .. } => Some(*retry_after),
            Self::UpstreamTimeout(_) | Self::UpstreamFailed(_) | Self::Busy(_) => {
                Some(RETRY_AFTER_DEFAULT)
            }
            _ => None,
        }
    }

    pub(super) fn wrong_content(digest: &Digest, scope: &crate::oci::Scope, what: &str) -> Self {
        Self::UpstreamFailed(format!("{scope}@{digest}: {what}"))
    }
}

/// Seconds a client or a revalidation waits after a failure that named no time.
pub(super) const RETRY_AFTER_DEFAULT: u64 = 5;

impl From<FlightError> for PullError {
    fn from(error: FlightError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<StageError> for PullError {
    fn from(error: StageError) -> Self {
        match error {
            StageError::Digest(_) => {
                Self::UpstreamFailed(format!("the upstream sent wrong content: {error}"))
            }
            StageError::Io { .. } => Self::Storage(error.to_string()),
        }
    }
}

impl From<CatalogError> for PullError {
    fn from(error: CatalogError) -> Self {
        Self::Storage(error.to_string())
    }
}

impl From<&UpstreamError> for PullError {
    fn from(error: &UpstreamError) -> Self {
        let message = error.to_string();
        match error {
            UpstreamError::RateLimited { retry_after, .. } => Self::RateLimited {
                message,
                retry_after: retry_after.map_or(RETRY_AFTER_DEFAULT, |wait| wait.as_secs().max(1)),
            },
            UpstreamError::Failed { status: 508, .. } => Self::Loop(message),
            UpstreamError::Denied { .. } => Self::Denied(message),
            UpstreamError::Undeclared { .. } => Self::NameUnknown(message),
            UpstreamError::Request { .. } | UpstreamError::Internal { .. } => {
                Self::Internal(message)
            }
            _ if error.is_timeout() => Self::UpstreamTimeout(message),
            _ => Self::UpstreamFailed(message),
        }
    }
}
