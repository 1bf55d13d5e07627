//! What the host tells a plugin at configure time, and what the plugin may ask of it then.

use std::cell::Cell;
use std::time::Duration;

use crate::ffi::Wishes;
use crate::resolver::Refusal;

/// What the host tells a plugin at configure time.
#[derive(Debug)]
#[non_exhaustive]
pub struct Setup<'a> {
    /// The name of the `[[plugin]]` entry.
    pub instance: &'a str,
    /// How many workers will start.
    pub worker_count: u32,
    /// The declared upstreams, in the order of the configuration.
    pub upstreams: Vec<Upstream<'a>>,
    /// The names of the storage pools, for placements.
    pub pools: Vec<&'a str>,
    /// The origins (`https://bucket.example`) of remote tiers, for placements.
    pub remote_tiers: Vec<&'a str>,
    /// Whether the host performs requests to remote tiers; otherwise it only shows them.
    pub performs_remote_tier: bool,
    pub(crate) wishes: Wishes<'a>,
    pub(crate) headers_wanted: Cell<usize>,
}

/// A request header that was asked for; [`Request::header`](crate::Request::header) reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header(usize);

impl Header {
    pub(crate) fn index(self) -> usize {
        self.0
    }
}

impl<'a> Setup<'a> {
    /// The declared upstream that `namespace` (lower case) means, by its canonical name or an
    /// alias.
    pub fn upstream(&self, namespace: &str) -> Option<&Upstream<'a>> {
        let means =
            |u: &&Upstream<'a>| u.canonical_name == namespace || u.aliases.contains(&namespace);
        self.upstreams.iter().find(means)
    }

    /// Asks for the value of a request header in each `resolve`; at most 8, each once. Refused:
    /// Authorization, Cookie, Proxy-Authorization, and what is not a header's name.
    pub fn want_header(&self, name: &str) -> Result<Header, Refusal> {
        if !self.wishes.header(name) {
            let message = format!(
                "the host does not hand out the request header {name:?}; expected at most 8 \
                 header names, each once, and none that carries a secret"
            );
            return Err(Refusal::invalid(message));
        }
        let index = self.headers_wanted.get();
        self.headers_wanted.set(index + 1);
        Ok(Header(index))
    }

    /// Asks for a call of [`Resolver::refresh`](crate::Resolver::refresh) at this interval: 1 s to
    /// 1 day. Set [`Resolver::REFRESHES`](crate::Resolver::REFRESHES) too.
    pub fn want_refresh(&self, interval: Duration) -> Result<(), Refusal> {
        match self.wishes.refresh(interval) {
            true => Ok(()),
            false => Err(Refusal::invalid(format!(
                "the host does not refresh every {interval:?}; expected 1 s to 1 day, of a plugin \
                 that sets REFRESHES"
            ))),
        }
    }
}

/// One declared upstream.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Upstream<'a> {
    /// The canonical namespace; what [`Answer::upstream`](crate::Answer::upstream) takes.
    pub canonical_name: &'a str,
    /// All other namespaces that mean it, also those that only the host knows.
    pub aliases: Vec<&'a str>,
    /// Its endpoint is a namespace-aware proxy.
    pub forward_ns: bool,
    /// All of its endpoints are `http://`.
    pub plain_http: bool,
    /// The names of its `[[upstream.credential]]`s, for [`Candidate`](crate::Candidate)s.
    pub credentials: Vec<&'a str>,
}
