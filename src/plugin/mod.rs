//! The host half of the plugin ABI: loads resolvers, asks them in order, checks what they answer.
//!
//! `loader` (file → library) → `handshake` (library → checked function table) → `instance`
//! (configured, with its workers' counters) → `call` (the C calls and the emit functions) →
//! `answer` (what was emitted, checked against `declared`) → `chain` (resolvers in order) →
//! `worker` (one worker's resolvers, and in `memo` what it remembers of them).
//! The linked-in standard resolver enters at `handshake` and takes the same way from there on.
//!
//! `specimen` hands a loaded file to the conformance kit instead.
//!
//! May import: `oci`, `http`, `config`, `limits`, `telemetry` (what its log says of a decision),
//! `runtime::stopwatch`, and the crates `ringport-plugin-abi`, `ringport-plugin-standard` (its table
//! only), `ringport-plugin-sdk` (its names and patterns
//! only) and `ringport-plugin-conformance`.
//!
//! **Invariant:** a [`Resolution`] names declared upstreams by their canonical namespace (with a
//! declared credential or forwarded namespace behind it, see [`Namespace::scoped`]) and
//! repositories within the grammar, a [`Placement`] declared pools and remote tiers, whatever a
//! plugin emitted (the closed world).
//! **Invariant:** a plugin that fails, fails closed: the request gets an error, never the next
//! resolver's answer; after INTERNAL that worker's instance is not called again until a successor
//! takes over, and what it said before is forgotten.
//! **Invariant:** a request takes no lock here and does no I/O; starting and stopping do both.
//! **Invariant:** a loaded library stays loaded, and so does every instance until its last worker
//! has stopped.
//! **Invariant:** `unsafe` only in `loader`, `handshake` and `call`; libloading only in `loader`.
//!
//! Deliberately absent: HTTP statuses (`api`), dialling (`upstream`), acting on a placement
//! (`registry`), and when to reload or refresh (`server`). Tests: `tests.rs`,
//! `tests/plugin_load.rs`, `tests/plugin_resolve.rs`, `tests/plugin_contract.rs`,
//! `tests/plugin_reload.rs`, `tests/plugin_allocations.rs`.

mod answer;
mod call;
mod chain;
mod decision;
mod declared;
mod error;
mod explain;
mod handshake;
mod instance;
mod loader;
mod memo;
mod placement;
mod specimen;
mod stats;
mod view;
mod worker;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;

use std::net::IpAddr;
use std::time::Duration;

use crate::http::RequestHead;
use crate::oci::{Namespace, RepositoryName};

pub use chain::{Chain, ChainObserver, Refreshed};
pub use error::{Fault, PluginError};
pub use explain::{Explanation, Step};
/// The patterns of `routing.hosted`, for others that speak of names in the same language.
pub use ringport_plugin_sdk::names::glob_matches;

pub use placement::{PlaceRequest, Placement, RemotePurpose, RemoteRequest, StorageClass};
pub use specimen::{open_specimen, specimen_world};
pub use stats::{CALL_SECONDS_BOUNDS, HookStats, PluginStats, STATUS_NAMES};
pub use worker::{WorkerChain, WorkerLink};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// A manifest or index, by tag or digest.
    Manifest,
    /// A blob.
    Blob,
    /// The list of tags.
    Tags,
    /// The referrers of a digest.
    Referrers,
}

/// One request as resolvers see it.
#[derive(Clone, Copy, Debug)]
pub struct ResolveRequest<'a> {
    /// `GET` or `HEAD`.
    pub method: &'a str,
    /// What is asked for.
    pub kind: RequestKind,
    /// The `ns` query parameter.
    pub ns: Option<&'a Namespace>,
    /// `X-Dragonfly-Registry`.
    pub header: Option<&'a Namespace>,
    /// The name as it stands in the path, perhaps with a host prefix.
    pub name: &'a str,
    /// Tag or digest; empty for [`RequestKind::Tags`].
    pub reference: &'a str,
    /// Who asks, if known.
    pub client: Option<IpAddr>,
    /// Who asks, as proved; `None` for somebody unknown.
    pub principal: Option<&'a str>,
    /// The request's head, of which plugins get the headers that they asked for.
    pub head: Option<&'a RequestHead>,
}

/// What a request means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Where it goes.
    pub route: Route,
    /// Which of the resolver's rules decided; for logs and `explain`, at most 256 bytes.
    pub rule: String,
    /// `ns` was sent and had an effect: the answer carries `OCI-Namespace`.
    pub scoped_by_ns: bool,
    /// Overrides the upstream's `tag_ttl`.
    pub tag_ttl: Option<Duration>,
    /// Overrides the upstream's `stale_max`.
    pub stale_max: Option<Duration>,
    /// The tag never changes: once stored, the upstream is not asked about it again.
    pub is_immutable: bool,
    /// The resolver that answered, by its name in the configuration.
    pub plugin: String,
}

impl Resolution {
    /// The upstream (`None`: hosted) and repository that come first.
    pub fn first(&self) -> Option<(Option<&Namespace>, &RepositoryName)> {
        match &self.route {
            Route::Hosted { repository } => Some((None, repository)),
            Route::Upstream { candidates } => {
                candidates.first().map(|first| (Some(&first.upstream), &first.repository))
            }
        }
    }
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// A repository of our own.
    Hosted {
        /// Its name here.
        repository: RepositoryName,
    },
    /// Upstreams in order of preference: 1 to 16.
    Upstream {
        /// The first that can, answers.
        candidates: Vec<Candidate>,
    },
}

/// One upstream to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Declared and canonical; with a credential or a namespace to forward behind it, if one was
    /// chosen. It is whose content it is, so nothing is shared between two that differ.
    pub upstream: Namespace,
    /// What the repository is called there.
    pub repository: RepositoryName,
}

/// Why there is no [`Resolution`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ResolveError {
    /// Its kind.
    pub status: ResolveStatus,
    /// One sentence, at most about 1 KiB, without control characters. For `Internal` it holds
    /// the plugin's own words (a panic's text), which are the operator's business.
    pub message: String,
    /// The resolver that refused, by its name in the configuration.
    pub plugin: String,
}

/// The kind of a refusal; `api` maps each to one OCI error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResolveStatus {
    /// Nothing of that name is served here.
    NotFound,
    /// Policy says no.
    Denied,
    /// Can't be decided at the moment, or the resolver failed before on this worker.
    Unavailable,
    /// The request contradicts itself or the grammar.
    Invalid,
    /// The resolver failed or broke a rule of the ABI.
    Internal,
}
