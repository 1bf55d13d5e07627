//! What a plugin author sees: the trait, the request, the answer's outcome.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::de::DeserializeOwned;

use crate::ffi::Answer;

/// A resolver plugin. The value itself is one configured instance: shared by all workers, so
/// constant; what changes from request to request belongs into [`Resolver::Worker`].
pub trait Resolver: Send + Sync + Sized + 'static {
    /// What the plugin is: `[a-z][a-z0-9_-]*`, at most 32 bytes.
    const NAME: &'static str;
    /// The plugin's version: printable ASCII, at most 64 bytes; `env!("CARGO_PKG_VERSION")`.
    const VERSION: &'static str;
    /// `[plugin.config]`. Put `#[serde(deny_unknown_fields)]` on it. What does not fit is refused
    /// with the key's name before [`Resolver::configure`] runs.
    type Config: DeserializeOwned;
    /// One worker's state, used by one thread at a time without a lock; `()` when there is none.
    type Worker: Send + 'static;

    /// Builds an instance. May take its time; the server is not ready before it returns. An `Err`
    /// refuses the plugin and its text is what the operator reads: name the key and the way out.
    fn configure(setup: &Setup<'_>, config: Self::Config) -> Result<Self, Refusal>;

    /// Builds the state of worker `number` (from 0).
    fn start_worker(&self, number: u32) -> Result<Self::Worker, Refusal>;

    /// Routes one request: emits into `answer` and returns [`Verdict::Answered`], or declines, or
    /// refuses. Must not block, sleep, do I/O or wait for a lock; 20 µs are the budget (p99).
    /// The same request must get the same answer while the configuration is the same.
    fn resolve(
        &self,
        worker: &mut Self::Worker,
        request: &Request<'_>,
        answer: &mut Answer<'_>,
    ) -> Result<Verdict, Refusal>;
}

/// How a resolve that did not refuse ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The answer holds a hosted repository or at least one upstream candidate.
    Answered,
    /// Not mine: the next resolver is asked, what was emitted is forgotten.
    Decline,
}

/// The statuses of the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Answered.
    Ok,
    /// Passed on to the next resolver.
    Decline,
    /// 404 NAME_UNKNOWN
    NotFound,
    /// 403 DENIED
    Denied,
    /// 503 with Retry-After
    Unavailable,
    /// 400 NAME_INVALID
    Invalid,
    /// 500; the plugin is broken and, on that worker, out of use
    Internal,
}

/// A refusal: the status and one sentence for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub(crate) status: Status,
    pub(crate) message: Cow<'static, str>,
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident => $status:ident),+ $(,)?) => {
        impl Refusal {
            $(
                $(#[$doc])*
                pub fn $name(message: impl Into<Cow<'static, str>>) -> Refusal {
                    Refusal { status: Status::$status, message: message.into() }
                }
            )+
        }
    };
}
refusals! {
    /// Nothing of that name is served here: 404 NAME_UNKNOWN.
    not_found => NotFound,
    /// Policy says no: 403 DENIED. Say which rule.
    denied => Denied,
    /// It can't be decided at the moment: 503.
    unavailable => Unavailable,
    /// The request, or in `configure` the configuration, contradicts itself or the grammar: 400.
    invalid => Invalid,
    /// The plugin is broken: 500, and this worker's instance is not asked again.
    internal => Internal,
}

/// What kind of content a request is about. A route seldom depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A manifest or index, by tag or digest.
    Manifest,
    /// A blob.
    Blob,
    /// The list of tags.
    Tags,
    /// The list of referrers of a digest.
    Referrers,
    /// A kind that a newer host knows; the number is the ABI's.
    Other(u32),
}

/// One request, valid during `resolve`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Request<'a> {
    /// What is asked for.
    pub kind: Kind,
    /// `GET` or `HEAD`.
    pub method: &'a str,
    /// The `ns` query parameter, normalised (lower case, default port removed).
    pub query_ns: Option<&'a str>,
    /// The `X-Dragonfly-Registry` header, normalised.
    pub header_ns: Option<&'a str>,
    /// The repository as it stands in the path, host prefix and all.
    pub name: &'a str,
    /// Tag or digest; empty for [`Kind::Tags`].
    pub reference: &'a str,
    /// Who asks, if known.
    pub client: Option<IpAddr>,
}

impl<'a> Request<'a> {
    /// `GET` of the manifest `name:latest`, for tests; the other fields can be set afterwards.
    pub fn pull(name: &'a str) -> Request<'a> {
        Request {
            kind: Kind::Manifest,
            method: "GET",
            query_ns: None,
            header_ns: None,
            name,
            reference: "latest",
            client: None,
        }
    }
}

/// What the host tells a plugin at configure time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Setup<'a> {
    /// The name of the `[[plugin]]` entry.
    pub instance: &'a str,
    /// How many workers will start.
    pub worker_count: u32,
    /// The declared upstreams, in the order of the configuration.
    pub upstreams: Vec<Upstream<'a>>,
}

impl<'a> Setup<'a> {
    /// The declared upstream that `namespace` (lower case) means, by its canonical name or an
    /// alias.
    pub fn upstream(&self, namespace: &str) -> Option<&Upstream<'a>> {
        let means =
            |u: &&Upstream<'a>| u.canonical_name == namespace || u.aliases.contains(&namespace);
        self.upstreams.iter().find(means)
    }
}

/// One declared upstream.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Upstream<'a> {
    /// The canonical namespace; what [`Answer::upstream`] takes.
    pub canonical_name: &'a str,
    /// All other namespaces that mean it, also those that only the host knows.
    pub aliases: Vec<&'a str>,
    /// Its endpoint is a namespace-aware proxy.
    pub forward_ns: bool,
    /// All of its endpoints are `http://`.
    pub plain_http: bool,
}
