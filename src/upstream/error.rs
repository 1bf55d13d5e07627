//! What can go wrong between us and an upstream, in words an operator can act on.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::health::Finding;
use crate::oci::Namespace;

/// Where something happened: the upstream, and the address asked (without its query).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Canonical namespace of the upstream.
    pub upstream: Namespace,
    /// Scheme, host, port and path.
    pub address: Arc<str>,
    /// At a remote tier, and not at an upstream.
    pub is_tier: bool,
}

/// The step whose time limit passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Looking the name up.
    Resolve,
    /// Connecting (`connect_timeout`).
    Connect,
    /// TLS handshake (`tls_timeout`).
    Tls,
    /// Waiting for a proxy's answer to CONNECT (`connect_timeout`).
    Proxy,
    /// Waiting for the response's head (`first_byte_timeout`).
    FirstByte,
}

/// Why an exchange gave no usable response. Holds neither secrets nor query strings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// Asked for an upstream that the configuration does not declare.
    #[error("no upstream is declared for {namespace}; add an [[upstream]] with this namespace")]
    Undeclared {
        /// What was asked for.
        namespace: Namespace,
    },
    /// A signed request goes to no remote tier that the configuration declares.
    #[error("no remote tier is declared for this request; add its origin to storage.remote_tiers")]
    UndeclaredTier,
    /// The name did not resolve or nobody took the connection.
    #[error("{at}: cannot connect: {reason}")]
    Unreachable {
        /// Where.
        at: Box<Site>,
        /// What the system said.
        reason: String,
    },
    /// The connection ended before an answer.
    #[error("{at}: the connection ended before an answer: {reason}")]
    Closed {
        /// Where.
        at: Box<Site>,
        /// What the system or the other side said.
        reason: String,
    },
    /// A step took longer than its limit.
    #[error("{at}: {phase} took longer than {limit:?}")]
    Timeout {
        /// Where.
        at: Box<Site>,
        /// Which step.
        phase: Phase,
        /// Its limit.
        limit: Duration,
    },
    /// The server could not prove who it is, or TLS failed otherwise.
    #[error("{at}: TLS failed: {reason}; a private authority goes into `ca_file`")]
    Tls {
        /// Where.
        at: Box<Site>,
        /// What rustls said.
        reason: String,
    },
    /// The address guard refused every address of the host.
    #[error("{at}: not connected: {reason}")]
    Blocked {
        /// Where.
        at: Box<Site>,
        /// Which address and why.
        reason: String,
    },
    /// The upstream (or its token service) refuses us this repository.
    #[error("{at}: access denied with status {status}: {reason}")]
    Denied {
        /// Where.
        at: Box<Site>,
        /// 401 or 403.
        status: u16,
        /// What was asked of us and what we had to offer.
        reason: String,
    },
    /// 429.
    #[error("{at}: too many requests (429), retry after {retry_after:?}")]
    RateLimited {
        /// Where.
        at: Box<Site>,
        /// The upstream's `Retry-After`, at most a day.
        retry_after: Option<Duration>,
    },
    /// 5xx or 408.
    #[error("{at}: answered with status {status}{}", meaning_of(status))]
    Failed {
        /// Where.
        at: Box<Site>,
        /// The status.
        status: u16,
        /// The upstream's `Retry-After`, at most a day.
        retry_after: Option<Duration>,
    },
    /// The token service could not be used.
    #[error("{at}: no token: {reason}")]
    Token {
        /// Where.
        at: Box<Site>,
        /// What went wrong.
        reason: String,
    },
    /// A redirect that is not followed, or one whose target refuses us.
    #[error("{at}: redirect not followed: {reason}")]
    Redirect {
        /// Where.
        at: Box<Site>,
        /// Why.
        reason: String,
    },
    /// The reply is not what HTTP or the registry protocol allows.
    #[error("{at}: expected {expected}, found {found}")]
    Protocol {
        /// Where.
        at: Box<Site>,
        /// What should have come.
        expected: &'static str,
        /// What came.
        found: String,
    },
    /// The body ended, stalled or broke before it was complete.
    #[error("{at}: body interrupted after {received} bytes{}: {reason}", of_expected(expected))]
    Interrupted {
        /// Where.
        at: Box<Site>,
        /// Body bytes handed out before.
        received: u64,
        /// What Content-Length had promised.
        expected: Option<u64>,
        /// How it ended.
        reason: String,
    },
    /// The secrets of this upstream cannot be read.
    #[error("upstream {upstream}: {reason}")]
    Credentials {
        /// Canonical namespace of the upstream.
        upstream: Namespace,
        /// File and cause.
        reason: String,
    },
    /// The request was put together wrongly, by us.
    #[error("upstream {upstream}: not a request for an upstream: {reason}")]
    Request {
        /// Canonical namespace of the upstream.
        upstream: Namespace,
        /// What is wrong with it.
        reason: String,
    },
    /// Our own work for the request broke off (shutdown, or a bug that was logged).
    #[error("upstream {upstream}: {reason}")]
    Internal {
        /// Canonical namespace of the upstream.
        upstream: Namespace,
        /// What broke off.
        reason: String,
    },
}

impl UpstreamError {
    /// Whether the upstream failed, rather than answered or was asked wrongly: what is cached may
    /// then be served stale, and a client gets 429, 502 or 504, never 404.
    pub fn is_failure_of_upstream(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Closed { .. }
            | Self::Timeout { .. }
            | Self::Tls { .. }
            | Self::Blocked { .. }
            | Self::RateLimited { .. }
            | Self::Failed { .. }
            | Self::Token { .. }
            | Self::Redirect { .. }
            | Self::Protocol { .. }
            | Self::Interrupted { .. } => true,
            Self::Undeclared { .. }
            | Self::UndeclaredTier
            | Self::Denied { .. }
            | Self::Credentials { .. }
            | Self::Request { .. }
            | Self::Internal { .. } => false,
        }
    }

    /// Whether it was a time limit (504 rather than 502).
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }

    /// How long the upstream asked us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Failed { retry_after, .. } => {
                *retry_after
            }
            _ => None,
        }
    }

    /// Whether the next endpoint of the same upstream may do better. A 429 is an answer: going
    /// round it would spend another budget; a denial is one too.
    pub(super) fn is_worth_next_endpoint(&self) -> bool {
        self.is_failure_of_upstream() && !matches!(self, Self::RateLimited { .. })
    }

    /// What this says about `endpoint`, which led to it: that nobody takes the connections of a
    /// token service, or of a host it redirects to, is not for want of a connection to itself.
    /// `None`: nothing, because it was not asked.
    pub(super) fn finding(&self, endpoint: &str) -> Option<Finding> {
        Some(match self {
            Self::Timeout { phase: Phase::FirstByte, .. } => Finding::Trouble,
            Self::Unreachable { at, .. } | Self::Tls { at, .. } | Self::Timeout { at, .. } => {
                match at.is_below(endpoint) {
                    true => Finding::Unconnected,
                    false => Finding::Trouble,
                }
            }
            Self::Credentials { .. } | Self::Request { .. } | Self::Internal { .. } => return None,
            _ if self.is_worth_next_endpoint() => Finding::Trouble,
            _ => Finding::Well,
        })
    }
}

impl Site {
    fn is_below(&self, endpoint: &str) -> bool {
        let below = self.address.strip_prefix(endpoint.trim_end_matches('/'));
        below.is_some_and(|path| path.is_empty() || path.starts_with('/'))
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_tier {
            true => write!(f, "remote tier at {}", self.address),
            false => write!(f, "upstream {} at {}", self.upstream, self.address),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "resolving the name",
            Self::Connect => "connecting",
            Self::Tls => "the TLS handshake",
            Self::Proxy => "waiting for the proxy's connection",
            Self::FirstByte => "waiting for the response",
        })
    }
}

/// What an operator may not know about a status.
fn meaning_of(status: &u16) -> &'static str {
    match status {
        407 => ", the proxy wants a login; set `proxy_username` and `proxy_password_file`",
        508 => ", a loop: what it asks for comes back to this mirror; look at its `endpoints`",
        _ => "",
    }
}

fn of_expected(expected: &Option<u64>) -> String {
    expected.map(|bytes| format!(" of {bytes}")).unwrap_or_default()
}
