//! What the played hosts declare: the closed world that a plugin's answers have to stay in.

use std::time::Duration;

use ringport_plugin_abi as abi;
use ringport_plugin_sdk::names::looks_like_host;

/// What 99 of 100 calls should take at most, unless a configuration says otherwise.
const BUDGET: Duration = Duration::from_micros(20);

/// A host's configuration, as far as plugins are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// `[plugin.config]` as TOML text.
    pub config: String,
    /// The declared upstreams; at least one makes sense.
    pub upstreams: Vec<WorldUpstream>,
    /// Names of storage pools.
    pub pools: Vec<String>,
    /// Origins of remote tiers.
    pub remote_tiers: Vec<String>,
    /// What 99 of 100 calls should take at most.
    pub budget: Duration,
}

/// One declared upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorldUpstream {
    /// Its canonical namespace.
    pub canonical_name: String,
    /// Other namespaces that mean it.
    pub aliases: Vec<String>,
    /// Names of its credentials.
    pub credentials: Vec<String>,
    /// It is a namespace-aware proxy.
    pub forwards_ns: bool,
    /// All of its endpoints are `http://`.
    pub plain_http: bool,
}

impl WorldUpstream {
    fn new(canonical_name: &str, aliases: &[&str]) -> WorldUpstream {
        WorldUpstream {
            canonical_name: canonical_name.to_owned(),
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            ..WorldUpstream::default()
        }
    }

    pub(crate) fn flags(&self) -> u32 {
        let flag = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
        flag(self.forwards_ns, abi::UPSTREAM_FORWARD_NS)
            | flag(self.plain_http, abi::UPSTREAM_PLAIN_HTTP)
    }
}

impl Default for World {
    /// The large public registries, a company's own with two credentials, a namespace-aware
    /// proxy, two pools and a remote tier; no configuration.
    fn default() -> World {
        let hub = ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];
        let mut corp = WorldUpstream::new("registry.corp", &["registry.corp:8443"]);
        corp.credentials = vec!["ci".to_owned(), "release".to_owned()];
        let mut proxy = WorldUpstream::new("proxy.corp:5000", &[]);
        (proxy.forwards_ns, proxy.plain_http) = (true, true);
        World {
            config: String::new(),
            upstreams: vec![
                WorldUpstream::new("docker.io", &hub),
                WorldUpstream::new("ghcr.io", &["github.example"]),
                WorldUpstream::new("quay.io", &[]),
                corp,
                proxy,
            ],
            pools: vec!["fast".to_owned(), "large".to_owned()],
            remote_tiers: vec!["https://bucket.example".to_owned()],
            budget: BUDGET,
        }
    }
}

impl World {
    /// The default world with a `[plugin.config]`.
    pub fn with_config(config: &str) -> World {
        World { config: config.to_owned(), ..World::default() }
    }

    /// The upstream that a name or alias means.
    pub(crate) fn upstream(&self, name: &str) -> Option<&WorldUpstream> {
        let means =
            |u: &&WorldUpstream| u.canonical_name == name || u.aliases.contains(&name.into());
        self.upstreams.iter().find(means)
    }

    /// Whether both names mean one upstream.
    fn is_same(&self, one: &str, other: &str) -> bool {
        one == other
            || matches!((self.upstream(one), self.upstream(other)), (Some(a), Some(b)) if a == b)
    }

    /// What the host says of a request's registry, by the rules in the header: its source, its
    /// namespace, and the repository.
    pub(crate) fn read_ns(&self, query: &str, header: &str, name: &str) -> (u32, String, String) {
        let rest = name.strip_prefix("proxy/").unwrap_or(name);
        let prefix = rest.split_once('/').filter(|(host, _)| looks_like_host(host));
        let (source, ns) = match prefix {
            _ if !header.is_empty() => (abi::NS_HEADER, header),
            _ if !query.is_empty() => (abi::NS_QUERY, query),
            Some((host, _)) => (abi::NS_PATH, host),
            None => (abi::NS_NONE, ""),
        };
        let repository = match prefix {
            Some((host, repository)) if self.is_same(host, ns) => repository,
            _ => name,
        };
        (source, ns.to_owned(), repository.to_owned())
    }
}
