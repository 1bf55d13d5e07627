//! Several mirrors, or several disks, share what they store: each content has one owner among them,
//! found by its digest. The configuration is explained in this folder's `README.md`.
//!
//! A node that does not own a content asks the owner for it, as an upstream with `ns=`, and the
//! content's own upstream when the owner fails. So the origin is asked once for each content, by
//! its owner, however many nodes want it. The owner itself declines: the next resolver routes.
//!
//! Manifests go by their repository, not by digest: the tag and the digest of an image then meet
//! on one node, and a pull by both costs the origin one request.
//!
//! **Invariant:** a request goes from node to node once at most: what comes from a node is never
//! sent on to another, so lists that disagree cost a fetch and no loop.
//! **Invariant:** the same list gives the same owner on every node, in every release.
//! **Invariant:** no allocation in `resolve` and `place`.
//!
//! Deliberately absent: looking whether a node is up (the server asks the next candidate when it
//! is not), weights of nodes, and moving what is stored when the list changes.
#![forbid(unsafe_code)]

mod ring;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;

use std::collections::HashMap;

use ipnet::IpNet;
use ringport_plugin_sdk::names::{HostPrefix, NameBuf, glob_matches, is_repository_name};
use ringport_plugin_sdk::{
    Answer, By, Candidate, Header, Kind, PlaceAnswer, PlaceRequest, Placement, Refusal, Request,
    Resolver, Setup, Verdict,
};

use crate::ring::Ring;

ringport_plugin_sdk::export!(Shard);

/// Docker Hub: its official images are `library/<name>` behind a one-segment name.
const DOCKER_HUB: &str = "docker.io";
/// How a Ringport that asks another names itself.
const USER_AGENT_OF_NODES: &str = "ringport/";

/// `[plugin.config]`
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The nodes by the namespaces of their `[[upstream]]`s; the same list everywhere.
    #[serde(default)]
    nodes: Vec<String>,
    /// Which of them this is; left out: none, so that everything is asked of the nodes.
    #[serde(rename = "self")]
    own_name: Option<String>,
    /// The upstreams whose content is shared; left out: all that are no nodes.
    namespaces: Option<Vec<String>>,
    /// As in `[routing]`; left out: requests that name no registry are not shared.
    default_upstream: Option<String>,
    /// As in `[routing]`.
    #[serde(default)]
    hosted: Vec<String>,
    /// Where nodes are; left out: wherever a Ringport asks from.
    #[serde(default)]
    peers: Vec<IpNet>,
    /// Storage pools, among which content is spread whose digest is known before it comes.
    #[serde(default)]
    pools: Vec<String>,
}

/// One configured instance.
#[derive(Debug)]
pub struct Shard {
    nodes: Ring,
    own_name: Option<String>,
    /// Every name of a shared upstream to the canonical one.
    shared: HashMap<String, String>,
    default_upstream: Option<String>,
    hosted: Vec<String>,
    peers: Vec<IpNet>,
    pools: Ring,
    user_agent: Header,
}

impl Resolver for Shard {
    const NAME: &'static str = "shard";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const PLACES: bool = true;
    type Config = Config;
    type Worker = ();

    fn configure(setup: &Setup<'_>, config: Config) -> Result<Shard, Refusal> {
        let nodes = checked_nodes(setup, &config)?;
        for (index, pool) in config.pools.iter().enumerate() {
            if !setup.pools.contains(&pool.as_str()) {
                return Err(invalid(
                    &format!("pools[{index}]"),
                    &format!("declare [[storage.pool]] name = \"{pool}\" first"),
                ));
            }
        }
        if config.nodes.is_empty() && config.pools.is_empty() {
            return Err(Refusal::invalid("there is nothing to share: set `nodes` or `pools`"));
        }
        let shared = shared_upstreams(setup, &config, &nodes)?;
        let default_upstream = match &config.default_upstream {
            None => None,
            Some(name) => match setup.upstream(name) {
                Some(upstream) => Some(upstream.canonical_name.to_owned()),
                None => return Err(undeclared("default_upstream", name)),
            },
        };
        Ok(Shard {
            nodes: Ring::new(nodes),
            own_name: config.own_name,
            shared,
            default_upstream,
            hosted: config.hosted,
            peers: config.peers,
            pools: Ring::new(config.pools),
            user_agent: setup.want_header("User-Agent")?,
        })
    }

    fn start_worker(&self, _number: u32) -> Result<(), Refusal> {
        Ok(())
    }

    fn resolve(
        &self,
        _worker: &mut (),
        request: &Request<'_>,
        answer: &mut Answer<'_>,
    ) -> Result<Verdict, Refusal> {
        let by_client = if self.peers.is_empty() { By::NAME } else { By::CLIENT };
        if request.kind != Kind::Blob {
            // Not of blobs: finding an owner costs less than remembering so many digests.
            answer.cacheable(By::KIND | By::HEADERS | by_client);
        }
        let Some(namespace) = self.namespace(request) else { return Ok(Verdict::Decline) };
        let is_short = namespace == DOCKER_HUB && !request.repository.contains('/');
        let library = if is_short { "library/" } else { "" };
        let repository = NameBuf::join(&[library, request.repository]);
        let repository = repository.as_str();
        let owner = match request.kind {
            Kind::Blob => self.nodes.owner(&[request.reference]),
            Kind::Manifest => self.nodes.owner(&[namespace, "/", repository]),
            _ => None,
        };
        // What is not a name is for another resolver to refuse.
        let Some(owner) = owner.filter(|_| is_repository_name(repository)) else {
            return Ok(Verdict::Decline);
        };
        if self.own_name.as_deref() == Some(owner) || self.is_from_a_node(request) {
            return Ok(Verdict::Decline);
        }
        answer.rule(NameBuf::join(&["owner ", owner]).as_str());
        answer.candidate(&Candidate {
            upstream: owner,
            repository,
            credential: None,
            forward_ns: Some(namespace),
        });
        answer.upstream(namespace, repository);
        Ok(Verdict::Answered)
    }

    fn place(
        &self,
        _worker: &mut (),
        request: &PlaceRequest<'_>,
        answer: &mut PlaceAnswer<'_>,
    ) -> Result<Verdict, Refusal> {
        let Some(pool) = request.digest.and_then(|digest| self.pools.owner(&[digest])) else {
            return Ok(Verdict::Decline);
        };
        answer.rule("pool by digest");
        answer.placement(&Placement { pool: Some(pool), ..Placement::default() });
        Ok(Verdict::Answered)
    }
}

impl Shard {
    /// The canonical namespace of the request, if its content is shared.
    fn namespace<'a>(&'a self, request: &Request<'_>) -> Option<&'a str> {
        let Some(named) = request.ns else {
            let is_hosted = HostPrefix::of(request.repository).is_some()
                || self.hosted.iter().any(|pattern| glob_matches(pattern, request.repository));
            let default = self.default_upstream.as_deref().filter(|_| !is_hosted)?;
            return self.shared.get(default).map(String::as_str);
        };
        // Two registries that contradict each other are for the standard resolver to refuse.
        let is_other = |ns: Option<&str>| {
            ns.is_some_and(|ns| ns != named && self.shared.get(ns) != self.shared.get(named))
        };
        if is_other(request.query_ns) || is_other(request.header_ns) {
            return None;
        }
        let has_host = HostPrefix::of(request.repository).is_some();
        self.shared.get(named).map(String::as_str).filter(|_| !has_host)
    }

    fn is_from_a_node(&self, request: &Request<'_>) -> bool {
        let agent = request.header(self.user_agent).unwrap_or_default();
        let is_peer = |client: std::net::IpAddr| {
            self.peers.iter().any(|range| range.contains(&client.to_canonical()))
        };
        agent.starts_with(USER_AGENT_OF_NODES)
            && (self.peers.is_empty() || request.client.is_some_and(is_peer))
    }
}

/// The nodes by the names that everybody gives them.
fn checked_nodes(setup: &Setup<'_>, config: &Config) -> Result<Vec<String>, Refusal> {
    let own_name = config.own_name.as_deref();
    if let Some(name) = own_name.filter(|name| !config.nodes.iter().any(|node| node == name)) {
        return Err(invalid("self", &format!("{name} is none of `nodes`")));
    }
    for (index, node) in config.nodes.iter().enumerate() {
        let key = format!("nodes[{index}]");
        if config.nodes.iter().take(index).any(|other| other == node) {
            return Err(invalid(&key, &format!("{node} stands there twice")));
        }
        if own_name == Some(node) {
            continue;
        }
        match setup.upstream(node) {
            None => return Err(undeclared(&key, node)),
            // All nodes hash the same names, so each has one.
            Some(upstream) if upstream.canonical_name != node => {
                let name = upstream.canonical_name;
                return Err(invalid(&key, &format!("write {name}, whose alias this is")));
            }
            Some(upstream) if !upstream.forward_ns => {
                let what = format!("set `forward_ns = true` in the [[upstream]] of {node}");
                return Err(invalid(&key, &what));
            }
            Some(_) => {}
        }
    }
    Ok(config.nodes.clone())
}

fn shared_upstreams(
    setup: &Setup<'_>,
    config: &Config,
    nodes: &[String],
) -> Result<HashMap<String, String>, Refusal> {
    let mut canonical_names = Vec::new();
    match &config.namespaces {
        Some(listed) => {
            for (index, name) in listed.iter().enumerate() {
                let key = format!("namespaces[{index}]");
                let upstream = setup.upstream(name).ok_or_else(|| undeclared(&key, name))?;
                if nodes.iter().any(|node| node == upstream.canonical_name) {
                    return Err(invalid(&key, &format!("{name} is a node")));
                }
                canonical_names.push(upstream.canonical_name);
            }
        }
        None => {
            let all = setup.upstreams.iter().map(|upstream| upstream.canonical_name);
            canonical_names.extend(all.filter(|name| !nodes.iter().any(|node| node == name)));
        }
    }
    let mut shared = HashMap::new();
    for upstream in &setup.upstreams {
        let canonical = upstream.canonical_name;
        if canonical_names.contains(&canonical) {
            for name in upstream.aliases.iter().chain([&canonical]) {
                shared.insert((*name).to_owned(), canonical.to_owned());
            }
        }
    }
    Ok(shared)
}

fn invalid(key: &str, what: &str) -> Refusal {
    Refusal::invalid(format!("key `{key}`: {what}"))
}

fn undeclared(key: &str, name: &str) -> Refusal {
    invalid(key, &format!("declare [[upstream]] namespace = \"{name}\" first"))
}
