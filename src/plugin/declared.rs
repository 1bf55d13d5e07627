//! The closed world: every namespace, credential, pool and remote tier that may be named.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use ringport_plugin_abi as abi;

use super::error::Fault;
use crate::config::{Config, EndpointUrl, UpstreamConfig};
use crate::oci::Namespace;

/// Docker Hub's canonical name and the others that clients use for it.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_ALIASES: [&str; 3] =
    ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

/// What plugins may name. Immutable.
#[derive(Debug)]
pub(super) struct Declared {
    upstreams: Vec<DeclaredUpstream>,
    /// Every name, canonical ones too, to its place in `upstreams`.
    by_name: HashMap<Namespace, usize, RandomState>,
    pools: Vec<Arc<str>>,
    remote_tiers: Vec<EndpointUrl>,
}

/// One upstream as plugins are told of it.
#[derive(Debug)]
pub(super) struct DeclaredUpstream {
    pub(super) canonical_name: Namespace,
    /// As configured, then those that follow from what the upstream is.
    pub(super) aliases: Vec<Namespace>,
    /// `abi::UPSTREAM_*`
    pub(super) flags: u32,
    /// Names of its credentials, in the order of the configuration.
    pub(super) credentials: Vec<String>,
    /// What it is called with each credential (or none, first) and, behind that, each namespace
    /// to forward (or none, first): see [`Namespace::scoped`]. Made once, since a resolve should
    /// not allocate.
    scopes: Vec<Vec<Namespace>>,
}

/// What was named and is not declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undeclared {
    Upstream,
    Credential,
    /// The upstream is no namespace-aware proxy.
    NotForwarding,
    ForwardNs,
}

impl Declared {
    /// Collects the names. One that stands for two upstreams is a fault; an implied one (a Docker
    /// Hub alias, port 80) yields to any that is written out.
    pub(super) fn new(config: &Config) -> Result<Declared, Fault> {
        let configured = &config.upstreams;
        let mut by_name: HashMap<Namespace, usize, RandomState> = HashMap::default();
        for (index, upstream) in configured.iter().enumerate() {
            for name in upstream.aliases.iter().chain([&upstream.namespace]) {
                let before = by_name.insert(name.clone(), index).filter(|first| *first != index);
                if let Some(first) = before.and_then(|first| configured.get(first)) {
                    return Err(Fault::AmbiguousNamespace {
                        namespace: name.to_string(),
                        first: first.namespace.to_string(),
                        second: upstream.namespace.to_string(),
                    });
                }
            }
        }
        let mut upstreams = Vec::new();
        for (index, upstream) in configured.iter().enumerate() {
            let mut aliases = upstream.aliases.clone();
            for implied in implied_names(upstream) {
                if !by_name.contains_key(&implied) {
                    by_name.insert(implied.clone(), index);
                    aliases.push(implied);
                }
            }
            upstreams.push(DeclaredUpstream {
                canonical_name: upstream.namespace.clone(),
                aliases,
                flags: flags(upstream),
                credentials: upstream.credentials.iter().map(|c| c.name.clone()).collect(),
                scopes: scopes(upstream, configured),
            });
        }
        Ok(Declared {
            upstreams,
            by_name,
            pools: config.storage.pools.iter().map(|pool| pool.name.as_str().into()).collect(),
            remote_tiers: config.storage.remote_tiers.clone(),
        })
    }

    /// What an upstream is called that is reached with a credential and a namespace to forward,
    /// either of them perhaps empty. Names must be in normal form.
    pub(super) fn scope(
        &self,
        upstream: &str,
        credential: &str,
        forward_ns: &str,
    ) -> Result<&Namespace, Undeclared> {
        let upstream = self.find(upstream).ok_or(Undeclared::Upstream)?;
        if credential.is_empty() && forward_ns.is_empty() {
            return Ok(&upstream.canonical_name);
        }
        let position = |name: &str| upstream.credentials.iter().position(|own| own == name);
        let credential = match credential {
            "" => 0,
            name => position(name).ok_or(Undeclared::Credential)? + 1,
        };
        let forwards = upstream.flags & abi::UPSTREAM_FORWARD_NS != 0;
        let forward_ns = match forward_ns {
            "" => 0,
            _ if !forwards => return Err(Undeclared::NotForwarding),
            name => self.by_name.get(name).ok_or(Undeclared::ForwardNs)? + 1,
        };
        let of_credential = upstream.scopes.get(credential).ok_or(Undeclared::Credential)?;
        of_credential.get(forward_ns).ok_or(Undeclared::ForwardNs)
    }

    /// The upstream of this canonical name, if it is among the first: comparing a few names costs
    /// less than the hash of one.
    pub(super) fn quickly(&self, name: &[u8]) -> Option<&Namespace> {
        const FEW: usize = 8;
        let names = self.upstreams.iter().map(|upstream| &upstream.canonical_name);
        names.take(FEW).find(|canonical| canonical.as_str().as_bytes() == name)
    }

    /// The upstream that a name or alias, in normal form, stands for.
    pub(super) fn find(&self, name: &str) -> Option<&DeclaredUpstream> {
        self.upstreams.get(*self.by_name.get(name)?)
    }

    /// Whether both names stand for one upstream.
    pub(super) fn is_same(&self, one: &str, other: &str) -> bool {
        self.by_name.get(one).is_some_and(|one| self.by_name.get(other) == Some(one))
    }

    /// In the order of the configuration.
    pub(super) fn upstreams(&self) -> &[DeclaredUpstream] {
        &self.upstreams
    }

    pub(super) fn pools(&self) -> &[Arc<str>] {
        &self.pools
    }

    pub(super) fn remote_tiers(&self) -> &[EndpointUrl] {
        &self.remote_tiers
    }
}

fn scopes(upstream: &UpstreamConfig, all: &[UpstreamConfig]) -> Vec<Vec<Namespace>> {
    let credentials = upstream.credentials.iter().map(|c| Some(c.name.as_str()));
    let forwarded = || all.iter().filter(|_| upstream.forward_ns).map(|u| Some(&u.namespace));
    std::iter::once(None)
        .chain(credentials)
        .map(|credential| {
            let scope = |ns: Option<&Namespace>| upstream.namespace.scoped(credential, ns);
            std::iter::once(None).chain(forwarded()).map(scope).collect()
        })
        .collect()
}

fn is_plain_http(upstream: &UpstreamConfig) -> bool {
    !upstream.endpoints.is_empty() && upstream.endpoints.iter().all(|endpoint| !endpoint.https)
}

fn flags(upstream: &UpstreamConfig) -> u32 {
    let flag = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
    flag(upstream.forward_ns, abi::UPSTREAM_FORWARD_NS)
        | flag(is_plain_http(upstream), abi::UPSTREAM_PLAIN_HTTP)
}

/// Names that mean the upstream although nobody wrote them down.
fn implied_names(upstream: &UpstreamConfig) -> Vec<Namespace> {
    let mut names = Vec::new();
    if upstream.namespace.as_str() == DOCKER_HUB {
        names.extend(DOCKER_HUB_ALIASES.iter().filter_map(|name| Namespace::parse(name).ok()));
    }
    if is_plain_http(upstream) {
        // Where http is the scheme, port 80 is the default one: `host` and `host:80` are one.
        for name in upstream.aliases.iter().chain([&upstream.namespace]) {
            let other = match name.port() {
                None => format!("{name}:80"),
                Some(80) => name.host().to_owned(),
                Some(_) => continue,
            };
            names.extend(Namespace::parse(&other).ok());
        }
    }
    names
}
