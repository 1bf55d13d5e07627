//! What is said about one request, and how it is written.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use crate::oci::{Namespace, Reference, RepositoryName};
use crate::telemetry::decision::Decision;
use crate::telemetry::metrics::{CacheResult, RouteKind};
use crate::telemetry::request_id::RequestId;

/// Query keys whose values are harmless and tell what was asked; other values are not shown.
const SHOWN_KEYS: [&str; 4] = ["ns", "n", "last", "artifactType"];

/// Longest user agent that is shown, in bytes.
const USER_AGENT_BYTES_MAX: usize = 256;

/// One request, after its end.
#[derive(Clone, Debug)]
pub struct AccessEntry {
    /// When the request's head had been read, since 1970-01-01 UTC.
    pub unix_time: Duration,
    /// The name under which the log speaks of it.
    pub request_id: RequestId,
    /// The connection's other end.
    pub client: Option<IpAddr>,
    /// Who asked, as proved; `None` for somebody unknown.
    pub user: Option<Arc<str>>,
    /// The request's method.
    pub method: Cow<'static, str>,
    /// As it was sent, without the query.
    pub path: String,
    /// As it was sent; what of it is shown is decided when it is written.
    pub query: Option<String>,
    /// What kind of request it was.
    pub kind: RouteKind,
    /// Canonical; `None` when no upstream was involved.
    pub upstream: Option<Namespace>,
    /// As resolved, without a registry's name.
    pub repository: Option<RepositoryName>,
    /// The tag or digest that was asked for.
    pub reference: Option<Reference>,
    /// The response's status.
    pub status: u16,
    /// Body bytes that were sent.
    pub bytes_sent: u64,
    /// From the head's end to the last byte sent.
    pub duration: Duration,
    /// From the head's end to the first byte sent; `None` when nothing was.
    pub first_byte: Option<Duration>,
    /// Where the answer came from.
    pub cache: CacheResult,
    /// As sent; cut to 256 bytes when written.
    pub user_agent: Option<String>,
    /// The worker that answered.
    pub worker: usize,
    /// The registry that the header `X-Dragonfly-Registry` named.
    pub header_ns: Option<Namespace>,
    /// How it was routed; `None` when it was not.
    pub decision: Option<Arc<dyn Decision>>,
}

/// The line's form; the fields' order is the line's.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    request_id: RequestId,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    method: &'a str,
    path: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    status: u16,
    bytes_sent: u64,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttfb_ms: Option<f64>,
    cache: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    worker: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    header_ns: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolver: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<String>,
}

impl AccessEntry {
    /// Appends the entry as one line of JSON. Text from the client is escaped by the encoder, so a
    /// line is a line whatever the client sent.
    pub(super) fn write_line(&self, into: &mut Vec<u8>) {
        let start = into.len();
        let decision = self.decision.as_deref();
        let line = Line {
            time: humantime::format_rfc3339_millis(UNIX_EPOCH + self.unix_time).to_string(),
            request_id: self.request_id,
            client: self.client,
            user: self.user.as_deref(),
            method: &self.method,
            path: shown_target(&self.path, self.query.as_deref()),
            kind: self.kind.as_str(),
            upstream: self.upstream.as_ref().map(Namespace::as_str),
            repository: self.repository.as_ref().map(RepositoryName::as_str),
            reference: self.reference.as_ref().map(ToString::to_string),
            status: self.status,
            bytes_sent: self.bytes_sent,
            duration_ms: milliseconds(self.duration),
            ttfb_ms: self.first_byte.map(milliseconds),
            cache: self.cache.as_str(),
            user_agent: self.user_agent.as_deref().map(|agent| cut(agent, USER_AGENT_BYTES_MAX)),
            worker: self.worker,
            header_ns: self.header_ns.as_ref().map(Namespace::as_str),
            resolver: decision.map(Decision::resolver).filter(|name| !name.is_empty()),
            rule: decision.map(Decision::rule).filter(|rule| !rule.is_empty()),
            decision: decision.map(Decision::in_words),
        };
        match serde_json::to_writer(&mut *into, &line) {
            Ok(()) => into.push(b'\n'),
            // Neither a `Vec` nor this type can fail; half a line must not stay all the same.
            Err(_) => into.truncate(start),
        }
    }
}

/// The path with its query, of which only the values of [`SHOWN_KEYS`] are shown: a client may send
/// anything, a presigned URL for instance.
fn shown_target(path: &str, query: Option<&str>) -> String {
    let Some(query) = query else { return path.to_owned() };
    let mut shown = format!("{path}?");
    for (position, pair) in query.split('&').enumerate() {
        if position > 0 {
            shown.push('&');
        }
        match pair.split_once('=') {
            Some((key, _)) if SHOWN_KEYS.contains(&key) => shown.push_str(pair),
            Some((key, _)) => {
                shown.push_str(key);
                shown.push_str("=[redacted]");
            }
            None => shown.push_str(pair),
        }
    }
    shown
}

/// Milliseconds with three decimals.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// At most `bytes_max` bytes of `text`, cut between characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    let end = text.floor_char_boundary(bytes_max);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_query_values_are_shown() {
        let cases = [
            (None, "/v2/"),
            (Some("ns=docker.io"), "/v2/?ns=docker.io"),
            (Some("ns=localhost%3A5711&n=5&last=a"), "/v2/?ns=localhost%3A5711&n=5&last=a"),
            (Some("ns=a.io&X-Amz-Signature=s=t"), "/v2/?ns=a.io&X-Amz-Signature=[redacted]"),
            (Some("token=t"), "/v2/?token=[redacted]"),
            (Some("NS=x"), "/v2/?NS=[redacted]"),
            (Some("flag"), "/v2/?flag"),
            (Some(""), "/v2/?"),
        ];
        for (query, expected) in cases {
            assert_eq!(shown_target("/v2/", query), expected);
        }
    }

    #[test]
    fn times_have_three_decimals() {
        assert_eq!(milliseconds(Duration::from_nanos(1_234_567)), 1.235);
        assert_eq!(milliseconds(Duration::from_secs(2)), 2000.0);
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("", 3), "");
    }
}
