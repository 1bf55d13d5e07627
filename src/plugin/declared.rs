//! The closed world: every namespace that may be named, and the upstream that each one means.

use std::collections::HashMap;

use ringport_plugin_abi as abi;

use super::error::Fault;
use crate::config::UpstreamConfig;
use crate::oci::Namespace;

/// Docker Hub's canonical name and the others that clients use for it.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_ALIASES: [&str; 3] =
    ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

/// The declared upstreams by all of their names. Immutable.
#[derive(Debug)]
pub(super) struct Declared {
    upstreams: Vec<DeclaredUpstream>,
    /// Every name, canonical ones too, to the canonical one.
    canonical: HashMap<Namespace, Namespace>,
}

/// One upstream as plugins are told of it.
#[derive(Debug)]
pub(super) struct DeclaredUpstream {
    pub(super) canonical_name: Namespace,
    /// As configured, then those that follow from what the upstream is.
    pub(super) aliases: Vec<Namespace>,
    /// `abi::UPSTREAM_*`
    pub(super) flags: u32,
}

impl Declared {
    /// Collects the names. One that stands for two upstreams is a fault; an implied one (a Docker
    /// Hub alias, port 80) yields to any that is written out.
    pub(super) fn new(configured: &[UpstreamConfig]) -> Result<Declared, Fault> {
        let mut canonical = HashMap::new();
        for upstream in configured {
            for name in upstream.aliases.iter().chain([&upstream.namespace]) {
                let before = canonical.insert(name.clone(), upstream.namespace.clone());
                if let Some(first) = before.filter(|first| *first != upstream.namespace) {
                    return Err(Fault::AmbiguousNamespace {
                        namespace: name.to_string(),
                        first: first.to_string(),
                        second: upstream.namespace.to_string(),
                    });
                }
            }
        }
        let mut upstreams = Vec::new();
        for upstream in configured {
            let mut aliases = upstream.aliases.clone();
            for implied in implied_names(upstream) {
                if !canonical.contains_key(&implied) {
                    canonical.insert(implied.clone(), upstream.namespace.clone());
                    aliases.push(implied);
                }
            }
            upstreams.push(DeclaredUpstream {
                canonical_name: upstream.namespace.clone(),
                aliases,
                flags: flags(upstream),
            });
        }
        Ok(Declared { upstreams, canonical })
    }

    /// The canonical namespace of a name or alias, which must be in normal form.
    pub(super) fn canonical(&self, name: &str) -> Option<&Namespace> {
        self.canonical.get(name)
    }

    /// In the order of the configuration.
    pub(super) fn upstreams(&self) -> &[DeclaredUpstream] {
        &self.upstreams
    }
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
