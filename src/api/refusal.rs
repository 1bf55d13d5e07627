//! Errors as answers: status, OCI code, a sentence, and when to come back.

use std::sync::Arc;

use super::answer::{Answer, Facts};
use crate::http::Method;
use crate::oci::{EndpointError, ErrorBody, ErrorCode, NamespaceError, PathName};
use crate::plugin::{ResolveError, ResolveStatus};
use crate::registry::{PullError, PushError};
use crate::runtime::clock;
use crate::telemetry::CacheResult;
use crate::transfer::InletError;
use crate::upstream::Loop;

/// Why a request is answered with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The code in the OCI error document.
    pub code: ErrorCode,
    /// The sentence in it.
    pub message: String,
    /// Seconds for `Retry-After`.
    pub retry_after: Option<u64>,
    /// For `Allow`, with 405.
    pub allow: Option<&'static str>,
    /// For `WWW-Authenticate`, with 401.
    pub challenges: Vec<String>,
    /// How old the answer is, in seconds, when it is the cache's and not the upstream's.
    pub remembered: Option<u64>,
}

impl Refusal {
    /// A refusal without further headers.
    pub fn new(status: u16, code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            retry_after: None,
            allow: None,
            challenges: Vec::new(),
            remembered: None,
        }
    }

    /// Only the methods `allow` are for this.
    pub fn method(method: Method, allow: &'static str) -> Self {
        let message = format!("{} is not for this endpoint; it takes {allow}", method.as_str());
        let refusal = Self::new(405, ErrorCode::Unsupported, message);
        Self { allow: Some(allow), ..refusal }
    }

    /// Only what is ours can be changed here.
    pub fn mirrored(method: Method, name: &PathName) -> Self {
        let message = format!(
            "{}: {name} is mirrored, and mirrored content is read-only; push to its registry, or \
             to a name that `hosted` of [routing] matches",
            method.as_str()
        );
        Self::new(403, ErrorCode::Denied, message)
    }

    /// A header names a registry in a form that is none.
    pub fn bad_header(error: &NamespaceError) -> Self {
        let message = format!("the header X-Dragonfly-Registry is no registry host: {error}");
        Self::new(400, ErrorCode::NameInvalid, message)
    }

    /// The answer that says so.
    pub fn answer(self, mut facts: Facts) -> Answer {
        if self.remembered.is_some() {
            facts.cache = CacheResult::Hit;
        }
        let body = ErrorBody::json(self.code, &self.message, None);
        let mut answer = Answer::new(self.status, facts).memory("application/json", body);
        if let Some(seconds) = self.retry_after {
            answer = answer.header("Retry-After", seconds);
        }
        if let Some(methods) = self.allow {
            answer = answer.header("Allow", methods);
        }
        for challenge in self.challenges {
            answer = answer.header("WWW-Authenticate", challenge);
        }
        if let Some(age) = self.remembered {
            answer =
                answer.header("Cache-Status", "ringport; hit; detail=negative").header("Age", age);
        }
        answer
    }
}

impl From<EndpointError> for Refusal {
    fn from(error: EndpointError) -> Self {
        Self::new(error.status(), error.code(), error.to_string())
    }
}

impl From<Arc<ResolveError>> for Refusal {
    fn from(error: Arc<ResolveError>) -> Self {
        let (status, code) = match error.status {
            ResolveStatus::NotFound => (404, ErrorCode::NameUnknown),
            ResolveStatus::Denied => (403, ErrorCode::Denied),
            ResolveStatus::Unavailable => (503, ErrorCode::Unavailable),
            ResolveStatus::Invalid => (400, ErrorCode::NameInvalid),
            ResolveStatus::Internal => (500, ErrorCode::Unknown),
        };
        let retry_after = (status == 503).then_some(5);
        Self { retry_after, ..Self::new(status, code, error.message.clone()) }
    }
}

impl From<Loop> for Refusal {
    /// Loop Detected (RFC 5842 §7.2): asking again is of no use, so there is no `Retry-After`.
    fn from(error: Loop) -> Self {
        Self::new(508, ErrorCode::Unavailable, error.to_string())
    }
}

impl From<PullError> for Refusal {
    fn from(error: PullError) -> Self {
        let (status, code) = match &error {
            PullError::Remembered { error, age } => {
                return Self { remembered: Some(*age), ..Self::from(PullError::clone(error)) };
            }
            PullError::BlobUnknown(_) => (404, ErrorCode::BlobUnknown),
            PullError::ManifestUnknown(_) => (404, ErrorCode::ManifestUnknown),
            PullError::NameUnknown(_) => (404, ErrorCode::NameUnknown),
            PullError::Denied(_) => (403, ErrorCode::Denied),
            PullError::RateLimited { .. } => (429, ErrorCode::TooManyRequests),
            PullError::UpstreamTimeout(_) => (504, ErrorCode::Unavailable),
            PullError::UpstreamFailed(_) => (502, ErrorCode::Unavailable),
            PullError::Loop(_) => (508, ErrorCode::Unavailable),
            PullError::Busy(_) | PullError::NoRoom(_) => (503, ErrorCode::Unavailable),
            PullError::Storage(_) | PullError::Internal(_) => (500, ErrorCode::Unknown),
        };
        let retry_after = error.retry_after();
        Self { retry_after, ..Self::new(status, code, error.to_string()) }
    }
}

impl From<PushError> for Refusal {
    fn from(error: PushError) -> Self {
        let (status, code) = match &error {
            PushError::UploadUnknown(_) => (404, ErrorCode::BlobUploadUnknown),
            PushError::OutOfOrder { .. } => (416, ErrorCode::BlobUploadInvalid),
            PushError::UploadBusy { .. } => (409, ErrorCode::BlobUploadInvalid),
            PushError::UploadInvalid(_) => (400, ErrorCode::BlobUploadInvalid),
            PushError::Digest(_) => (400, ErrorCode::DigestInvalid),
            PushError::Size(_) => (400, ErrorCode::SizeInvalid),
            PushError::TooLarge(_) => (413, ErrorCode::SizeInvalid),
            PushError::Body(InletError::Stalled { .. }) => (408, ErrorCode::SizeInvalid),
            PushError::Body(_) => (400, ErrorCode::SizeInvalid),
            PushError::BlobUnknown(_) => (404, ErrorCode::BlobUnknown),
            PushError::ManifestUnknown(_) => (404, ErrorCode::ManifestUnknown),
            PushError::NameUnknown(_) => (404, ErrorCode::NameUnknown),
            PushError::ManifestInvalid(_) => (400, ErrorCode::ManifestInvalid),
            // As distribution: a client that pushes it in another order is wrong, not too early.
            PushError::ManifestBlobUnknown(_) => (400, ErrorCode::ManifestBlobUnknown),
            PushError::Denied(_) => (403, ErrorCode::Denied),
            PushError::Deleted(_) => (409, ErrorCode::Unavailable),
            PushError::TooMany(_) => (429, ErrorCode::TooManyRequests),
            PushError::Busy(_) => (503, ErrorCode::Unavailable),
            PushError::NoRoom(_) => (507, ErrorCode::Unavailable),
            PushError::Storage(_) | PushError::Internal(_) => (500, ErrorCode::Unknown),
        };
        let retry_after = error.retry_after();
        Self { retry_after, ..Self::new(status, code, error.to_string()) }
    }
}

/// The text of a `Warning` header with code 299 (RFC 7234 §5.5; distribution-spec "Warnings").
pub(super) fn warning(text: &str) -> String {
    let plain: String = text
        .chars()
        .map(|c| if c == '"' || c == '\\' || !(' '..='~').contains(&c) { '\'' } else { c })
        .take(512)
        .collect();
    let date = crate::http::date::format(clock::unix_seconds());
    format!("299 - \"{plain}\" \"{date}\"")
}
