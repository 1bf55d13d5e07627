//! What is asked of an upstream, and what comes back.

use std::sync::Arc;

use hyper::HeaderMap;

use super::body::Body;
use super::reply;
use crate::http::ByteRange;
use crate::oci::RepositoryName;

/// Mirrors only read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Head and body.
    Get,
    /// Head only. Docker Hub does not count it.
    Head,
}

impl Method {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
        }
    }
}

/// Which `Accept` is sent: always ours, never a client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// Every manifest type there is, so that no registry converts one for us.
    Manifests,
    /// `*/*`
    Any,
}

/// A `Content-Range` of a 206 that fits the range asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// Offset of the first byte sent.
    pub first: u64,
    /// Offset of the last byte sent.
    pub last: u64,
    /// Size of the whole, if told.
    pub total: Option<u64>,
}

/// One question to an upstream.
#[derive(Debug, Clone)]
pub struct Request {
    /// GET or HEAD.
    pub method: Method,
    /// From `/v2/` on, as it goes on the wire.
    pub path: String,
    /// Without the `?`; an `ns` in it is dropped.
    pub query: Option<String>,
    /// Which types we take.
    pub accept: Accept,
    /// Part of a blob.
    pub range: Option<ByteRange>,
    /// Answer 304 if it is still this: an entity tag with its quotes, visible ASCII.
    pub if_none_match: Option<String>,
    /// Whose token is needed.
    pub repository: RepositoryName,
}

impl Request {
    /// A request for `path` in `repository` that takes anything, whole.
    pub fn new(method: Method, path: impl Into<String>, repository: RepositoryName) -> Self {
        Self {
            method,
            path: path.into(),
            query: None,
            accept: Accept::Any,
            range: None,
            if_none_match: None,
            repository,
        }
    }

    /// Whether rate limits count it: as for Docker Hub, GET of a manifest and nothing else.
    pub(super) fn counts(&self) -> bool {
        self.method == Method::Get && self.path.contains("/manifests/")
    }
}

/// An answer: 200, 206, 304, or a 4xx other than 401, 403, 408 and 429 (those are errors).
pub struct Response {
    /// The status.
    pub status: u16,
    /// As received; for the final hop of a redirect chain.
    pub headers: HeaderMap,
    /// `Content-Length`, also of a HEAD.
    pub content_length: Option<u64>,
    /// Of a 206 only.
    pub content_range: Option<ContentRange>,
    /// The endpoint of the configuration that answered (directly or by redirect).
    pub endpoint: Arc<str>,
    /// The bytes. Dropping it unread closes the connection, or returns it if there are none.
    pub body: Body,
}

impl Response {
    /// Seconds that the answer has spent in caches on its way here, by its `Age`; at most a year.
    pub fn age(&self) -> u64 {
        reply::age(&self.headers)
    }

    /// A header's value, if it is there and printable ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}
