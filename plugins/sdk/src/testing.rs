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

mod host;

use std::fmt;

use ringport_plugin_abi as abi;

use crate::resolver::{Request, Status};

/// What the plugin is told at configure time; made by the builder functions below.
#[derive(Clone, Debug, Default)]
pub struct FakeHost {
    pub(crate) upstreams: Vec<FakeUpstream>,
    pub(crate) config: String,
}

/// One declared upstream of a [`FakeHost`].
#[derive(Clone, Debug)]
pub(crate) struct FakeUpstream {
    pub(crate) canonical_name: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) flags: u32,
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
            flags: 0,
        });
        self
    }

    /// Sets `[plugin.config]`, as TOML text.
    pub fn config(mut self, toml: &str) -> FakeHost {
        toml.clone_into(&mut self.config);
        self
    }

    /// Configures the plugin and starts worker 0. The error is what the operator would read.
    pub fn start(&self, plugin: &'static abi::Plugin) -> Result<FakeWorker, String> {
        host::Life::start(self, plugin).map(FakeWorker)
    }
}

/// One running worker of a plugin; stopped and destroyed when dropped.
#[derive(Debug)]
pub struct FakeWorker(host::Life);

impl FakeWorker {
    /// Routes one request through the plugin's table.
    pub fn resolve(&mut self, request: &Request<'_>) -> FakeAnswer {
        self.0.resolve(request)
    }
}

/// What a plugin answered, after the checks a host makes. `Display` writes it in one line:
/// `docker.io library/alpine, mirror.example library/alpine (rule)`, `hosted team/app (rule)`,
/// `DECLINE`, `DENIED: reason`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FakeAnswer {
    /// The status as the host sees it: [`Status::Internal`] also when the answer broke a rule.
    pub status: Option<Status>,
    /// Canonical upstream and repository, in order.
    pub candidates: Vec<(String, String)>,
    /// The hosted repository.
    pub hosted: Option<String>,
    /// The last rule text.
    pub rule: String,
    /// The last error text, or the host's own about a broken answer.
    pub error: String,
    /// Bounds of freshness in milliseconds, where set.
    pub tag_ttl_ms: Option<u64>,
    /// See `tag_ttl_ms`.
    pub stale_max_ms: Option<u64>,
}

impl fmt::Display for FakeAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused = |f: &mut fmt::Formatter<'_>, name| write!(f, "{name}: {}", self.error);
        match self.status {
            None | Some(Status::Internal) => return refused(f, "INTERNAL"),
            Some(Status::NotFound) => return refused(f, "NOT_FOUND"),
            Some(Status::Denied) => return refused(f, "DENIED"),
            Some(Status::Unavailable) => return refused(f, "UNAVAILABLE"),
            Some(Status::Invalid) => return refused(f, "INVALID"),
            Some(Status::Decline) => return f.write_str("DECLINE"),
            Some(Status::Ok) => {}
        }
        if let Some(repository) = &self.hosted {
            write!(f, "hosted {repository}")?;
        }
        for (index, (upstream, repository)) in self.candidates.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{upstream} {repository}")?;
        }
        write!(f, " ({})", self.rule)
    }
}
