//! What a plugin author sees: the trait, the request, the answer's outcome.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::de::DeserializeOwned;

use crate::ffi::{Answer, PlaceAnswer};
use crate::place::PlaceRequest;
use crate::setup::{Header, Setup};

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
    /// Whether [`Resolver::place`] is called.
    const PLACES: bool = false;
    /// Whether [`Resolver::refresh`] is called, when [`Setup::want_refresh`] asked for it.
    const REFRESHES: bool = false;

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

    /// Says where content goes that is about to be stored, and for how long. Like `resolve` it
    /// must not block. [`Verdict::Decline`] (the default) leaves it to the next resolver and at
    /// last to the server; an `Err` means that the content is not stored.
    fn place(
        &self,
        _worker: &mut Self::Worker,
        _request: &PlaceRequest<'_>,
        _answer: &mut PlaceAnswer<'_>,
    ) -> Result<Verdict, Refusal> {
        Ok(Verdict::Decline)
    }

    /// Looks whether what the instance knows has changed, on a thread where it may block, while
    /// the workers go on to use `self`. A successor takes its place; `None` leaves it there, and
    /// so does an `Err`, whose text the operator reads. Keep what `configure` was told if it is
    /// needed here.
    fn refresh(&self) -> Result<Option<Self>, Refusal> {
        Ok(None)
    }
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

/// What names the registry in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NsSource {
    /// Nothing does.
    None,
    /// The `ns` query parameter.
    Query,
    /// `X-Dragonfly-Registry`, which goes before `ns`.
    Header,
    /// The path's first segment, which looks like a host, and nothing else.
    Path,
    /// A source that a newer host knows; the number is the ABI's.
    Other(u32),
}

/// One request, valid during `resolve`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Request<'a> {
    /// What is asked for.
    pub kind: Kind,
    /// `GET` or `HEAD`; of pushes `PUT`, `POST`, `PATCH` or `DELETE`.
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
    /// Which of the above names the registry. Two that contradict each other are for the standard
    /// resolver to refuse.
    pub ns_source: NsSource,
    /// The namespace from there, normalised: perhaps an alias, perhaps one that nobody declared.
    pub ns: Option<&'a str>,
    /// `name` without its host prefix, if `ns` comes from there or means the same upstream.
    pub repository: &'a str,
    /// Who asks, as the host has authenticated them.
    pub principal: Option<&'a str>,
    /// Values of the headers that [`Setup::want_header`] asked for, in that order.
    pub headers: &'a [Option<&'a str>],
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
            ns_source: NsSource::None,
            ns: None,
            repository: name,
            principal: None,
            headers: &[],
        }
    }

    /// `GET` of the manifest `name:latest` with `?ns=`, for tests.
    pub fn pull_from(ns: &'a str, name: &'a str) -> Request<'a> {
        let ns = Some(ns);
        Request { query_ns: ns, ns, ns_source: NsSource::Query, ..Request::pull(name) }
    }

    /// The value of a header that was asked for; `None` when it was not sent.
    pub fn header(&self, header: Header) -> Option<&'a str> {
        self.headers.get(header.index()).copied().flatten()
    }
}

/// One upstream candidate of an answer, with all that it can say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Candidate<'a> {
    /// A declared upstream, by its canonical name or an alias.
    pub upstream: &'a str,
    /// The repository to ask it for.
    pub repository: &'a str,
    /// One of the upstream's `[[upstream.credential]]`s, by name, instead of its own login.
    pub credential: Option<&'a str>,
    /// A declared namespace to send along as `ns=`; for upstreams with `forward_ns`.
    pub forward_ns: Option<&'a str>,
}

/// What an answer depends on besides namespaces and name; add them up with `|`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct By(pub(crate) u64);

impl By {
    /// Only the namespaces and the name.
    pub const NAME: By = By(0);
    /// [`Request::kind`]
    pub const KIND: By = By(ringport_plugin_abi::BY_KIND);
    /// [`Request::method`]
    pub const METHOD: By = By(ringport_plugin_abi::BY_METHOD);
    /// [`Request::reference`]
    pub const REFERENCE: By = By(ringport_plugin_abi::BY_REFERENCE);
    /// [`Request::client`]
    pub const CLIENT: By = By(ringport_plugin_abi::BY_CLIENT);
    /// [`Request::principal`]
    pub const PRINCIPAL: By = By(ringport_plugin_abi::BY_PRINCIPAL);
    /// [`Request::headers`]
    pub const HEADERS: By = By(ringport_plugin_abi::BY_HEADERS);
}

impl std::ops::BitOr for By {
    type Output = By;

    fn bitor(self, other: By) -> By {
        By(self.0 | other.0)
    }
}
