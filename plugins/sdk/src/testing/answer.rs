//! What a plugin answered, in a form that a test can compare.

use std::fmt;
use std::time::Duration;

use crate::place::{Class, Purpose};
use crate::resolver::{By, Status};

/// What a plugin answered, after the checks a host makes. `Display` writes it in one line:
/// `docker.io library/alpine, mirror.example library/alpine (rule)`, `hosted team/app (rule)`,
/// `DECLINE`, `DENIED: reason`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FakeAnswer {
    /// The status as the host sees it: [`Status::Internal`] also when the answer broke a rule.
    pub status: Option<Status>,
    /// The upstream candidates, in order.
    pub candidates: Vec<FakeCandidate>,
    /// The hosted repository.
    pub hosted: Option<String>,
    /// The last rule text.
    pub rule: String,
    /// The last error text, or the host's own about a broken answer.
    pub error: String,
    /// Bounds of freshness in milliseconds, where set.
    pub tag_ttl_ms: Option<u64>,
    /// See `tag_ttl_ms`.
    pub stale_max_ms: Option<u64>,
    /// The tag never changes.
    pub immutable: bool,
    /// The answer may be remembered, for requests that are the same in this too.
    pub cacheable: Option<By>,
}

/// A candidate; `Display` writes `docker.io library/alpine`, with ` as CREDENTIAL` and
/// ` with ns=NAMESPACE` behind it where they were named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FakeCandidate {
    /// By its canonical name.
    pub upstream: String,
    /// What it is asked for.
    pub repository: String,
    /// Instead of the upstream's own login.
    pub credential: Option<String>,
    /// Sent along as `ns=`.
    pub forward_ns: Option<String>,
}

/// Where a plugin wants content to go, after the checks a host makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FakePlacement {
    /// The status as the host sees it: [`Status::Internal`] also when the answer broke a rule.
    pub status: Option<Status>,
    /// The class.
    pub class: Class,
    /// The pool, where named.
    pub pool: Option<String>,
    /// How long it may stay, where said.
    pub ttl: Option<Duration>,
    /// The priority.
    pub priority: i32,
    /// Requests to remote tiers, in order.
    pub remotes: Vec<FakeRemote>,
    /// The last rule text.
    pub rule: String,
    /// The last error text, or the host's own about a broken answer.
    pub error: String,
}

/// A request to a remote tier.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FakeRemote {
    /// What it is for.
    pub purpose: Purpose,
    /// The HTTP method.
    pub method: String,
    /// The whole URL.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// In milliseconds since 1970, where said.
    pub expires_unix_ms: Option<u64>,
}

impl fmt::Display for FakeCandidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.upstream, self.repository)?;
        if let Some(credential) = &self.credential {
            write!(f, " as {credential}")?;
        }
        match &self.forward_ns {
            Some(namespace) => write!(f, " with ns={namespace}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for FakeAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused = |f: &mut fmt::Formatter<'_>, name| write!(f, "{name}: {}", self.error);
        match self.status {
            None | Some(Status::Internal) => return refused(f, "INTERNAL"),
            Some(Status::NotFound) => return refused(f, "NOT_FOUND"),
            Some(Status::Denied) => return refused(f, "DENIED"),
            Some(Status::Unavailable) => return refused(f, "UNAVAILABLE"),
            Some(Status::Invalid) => return refused(f, "INVALID"),
            Some(Status::Decline) => return f.write_str("DECLINE"),
            Some(Status::Ok) => {}
        }
        if let Some(repository) = &self.hosted {
            write!(f, "hosted {repository}")?;
        }
        for (index, candidate) in self.candidates.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{candidate}")?;
        }
        write!(f, " ({})", self.rule)
    }
}
