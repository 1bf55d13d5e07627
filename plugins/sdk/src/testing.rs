//! A fake host for a plugin's unit tests: the whole life of an instance through its real function
//! table, without a server.
//!
//! ```
//! # use ringport_plugin_sdk::{Answer, Refusal, Request, Resolver, Setup, Verdict};
//! # struct All;
//! # impl Resolver for All {
//! #     const NAME: &'static str = "all";
//! #     const VERSION: &'static str = "1.0";
//! #     type Config = toml::Table;
//! #     type Worker = ();
//! #     fn configure(_: &Setup<'_>, _: toml::Table) -> Result<All, Refusal> { Ok(All) }
//! #     fn start_worker(&self, _: u32) -> Result<(), Refusal> { Ok(()) }
//! #     fn resolve(&self, _: &mut (), request: &Request<'_>, answer: &mut Answer<'_>)
//! #         -> Result<Verdict, Refusal> {
//! #         answer.rule("all");
//! #         answer.upstream("hub", request.name);
//! #         Ok(Verdict::Answered)
//! #     }
//! # }
//! # ringport_plugin_sdk::export!(All);
//! # fn main() {
//! use ringport_plugin_sdk::testing::FakeHost;
//!
//! let host = FakeHost::new().upstream("docker.io", &["hub"]);
//! let mut worker = host.start(&PLUGIN).expect("configured");
//! let answer = worker.resolve(&Request::pull("library/alpine"));
//! assert_eq!(answer.to_string(), "docker.io library/alpine (all)");
//! # }
//! ```

mod answer;
mod host;
mod life;

use ringport_plugin_abi as abi;

use crate::place::PlaceRequest;
use crate::resolver::Request;

pub use answer::{FakeAnswer, FakeCandidate, FakePlacement, FakeRemote};

/// What the plugin is told at configure time; made by the builder functions below.
#[derive(Clone, Debug, Default)]
pub struct FakeHost {
    upstreams: Vec<FakeUpstream>,
    pools: Vec<String>,
    remote_tiers: Vec<String>,
    only_shows_remote_tier: bool,
    config: String,
}

/// One declared upstream of a [`FakeHost`].
#[derive(Clone, Debug, Default)]
struct FakeUpstream {
    canonical_name: String,
    aliases: Vec<String>,
    credentials: Vec<String>,
    flags: u32,
}

impl FakeHost {
    /// A host without upstreams and configuration.
    pub fn new() -> FakeHost {
        FakeHost::default()
    }

    /// Declares an upstream. The real host adds the aliases it knows; this one takes yours as
    /// they are.
    pub fn upstream(mut self, canonical_name: &str, aliases: &[&str]) -> FakeHost {
        self.upstreams.push(FakeUpstream {
            canonical_name: canonical_name.to_owned(),
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            ..FakeUpstream::default()
        });
        self
    }

    /// Gives the upstream declared last a named credential.
    pub fn credential(mut self, name: &str) -> FakeHost {
        if let Some(upstream) = self.upstreams.last_mut() {
            upstream.credentials.push(name.to_owned());
        }
        self
    }

    /// Makes the upstream declared last a namespace-aware proxy (`forward_ns = true`).
    pub fn forwards_ns(mut self) -> FakeHost {
        if let Some(upstream) = self.upstreams.last_mut() {
            upstream.flags |= abi::UPSTREAM_FORWARD_NS;
        }
        self
    }

    /// Declares a storage pool.
    pub fn pool(mut self, name: &str) -> FakeHost {
        self.pools.push(name.to_owned());
        self
    }

    /// Declares the origin of a remote tier, such as `https://bucket.example`.
    pub fn remote_tier(mut self, origin: &str) -> FakeHost {
        self.remote_tiers.push(origin.to_owned());
        self
    }

    /// Plays a host that checks requests to remote tiers, shows them and sends none
    /// ([`Setup::performs_remote_tier`](crate::Setup::performs_remote_tier)).
    pub fn only_shows_remote_tier(mut self) -> FakeHost {
        self.only_shows_remote_tier = true;
        self
    }

    /// Sets `[plugin.config]`, as TOML text.
    pub fn config(mut self, toml: &str) -> FakeHost {
        toml.clone_into(&mut self.config);
        self
    }

    /// Configures the plugin and starts worker 0. The error is what the operator would read.
    pub fn start(&self, plugin: &'static abi::Plugin) -> Result<FakeWorker, String> {
        life::Life::start(self, plugin).map(FakeWorker)
    }

    fn find(&self, name: &str) -> Option<&FakeUpstream> {
        let means = |u: &&FakeUpstream| {
            u.canonical_name == name || u.aliases.iter().any(|alias| alias == name)
        };
        self.upstreams.iter().find(means)
    }
}

/// One running worker of a plugin; stopped and destroyed when dropped.
#[derive(Debug)]
pub struct FakeWorker(life::Life);

impl FakeWorker {
    /// Routes one request through the plugin's table.
    pub fn resolve(&mut self, request: &Request<'_>) -> FakeAnswer {
        self.0.resolve(request)
    }

    /// Asks where one content goes, through the plugin's table; `None` when it has no such hook.
    pub fn place(&mut self, request: &PlaceRequest<'_>) -> Option<FakePlacement> {
        self.0.place(request)
    }

    /// Refreshes, as the host does at the interval that the plugin asked for: whether a successor
    /// took over, or what the operator would read.
    pub fn refresh(&mut self) -> Result<bool, String> {
        self.0.refresh()
    }

    /// The names that [`Setup::want_header`](crate::Setup::want_header) asked for.
    pub fn headers_wanted(&self) -> &[String] {
        self.0.headers_wanted()
    }
}
