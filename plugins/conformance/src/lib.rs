//! Does a resolver plugin keep the contract? The kit plays hosts and gives a verdict for each rule
//! of the plugin guide: pass, fail (expected, found, remedy), by review, or not applicable.
//!
//! `ringport plugin check FILE.so` runs it on a file, in processes that may crash. A plugin's own
//! tests run it on its linked-in table:
//!
//! ```
//! use ringport_plugin_conformance::{Options, Subject, World, check};
//! # use ringport_plugin_sdk::{Answer, Refusal, Request, Resolver, Setup, Verdict, table};
//! # struct Hub;
//! # impl Resolver for Hub {
//! #     const NAME: &'static str = "hub";
//! #     const VERSION: &'static str = "1.0";
//! #     type Config = std::collections::HashMap<String, String>;
//! #     type Worker = ();
//! #     fn configure(_: &Setup<'_>, _: Self::Config) -> Result<Hub, Refusal> { Ok(Hub) }
//! #     fn start_worker(&self, _: u32) -> Result<(), Refusal> { Ok(()) }
//! #     fn resolve(&self, _: &mut (), _: &Request<'_>, answer: &mut Answer<'_>)
//! #         -> Result<Verdict, Refusal> {
//! #         answer.upstream("docker.io", "library/alpine");
//! #         Ok(Verdict::Answered)
//! #     }
//! # }
//! # static PLUGIN: ringport_plugin_sdk::abi::Plugin = table::<Hub>();
//!
//! let world = World::with_config("");
//! let options = Options { calls: 1_000, ..Options::default() };
//! let report = check(Subject::linked(&PLUGIN), &world, &options);
//! assert!(report.is_passed(), "{report}");
//! ```
//!
//! `rules` (what the guide asks) → `probes` (what is done to see it) → `life` (the C calls) and
//! `host` (the emit functions) → `answer` (what was emitted, judged) → `report` (the verdicts).
//! `frame` and `setup` lay out what crosses, in memory that the kit can spoil.
//!
//! **Invariant:** every rule is checked by a probe or says what a reader has to look at.
//! **Invariant:** what depends on the machine's load is told as a figure; it fails a plugin only
//! where no load explains it.
//!
//! Deliberately absent: opening files (the server's loader does that, by the server's rules) and
//! processes (the command line's). In a test that links its plugin a crash fails the test.
//! Tests: `tests/plugin_check.rs` of the server, with a specimen for every way to fail.

mod answer;
mod frame;
mod handshake;
mod host;
mod life;
mod memory;
mod probes;
mod report;
mod request;
mod rules;
mod run;
mod setup;
mod world;

use std::path::PathBuf;

pub use handshake::Subject;
pub use probes::{PROBES, Probe, Stage};
pub use report::{Event, Finding, FindingKind, Handshake, Problem, Report, Verdict};
pub use rules::{RULES, Rule};
pub use run::{check, run_stage};
pub use world::{World, WorldUpstream};

/// How thorough a check is, and what it can look at besides the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Calls of `resolve` for the leak check: the guide asks for a million.
    pub calls: usize,
    /// The plugin's file, for its symbols; `None` for one that is linked in.
    pub file: Option<PathBuf>,
}

impl Default for Options {
    /// The guide's million calls, linked in.
    fn default() -> Options {
        Options { calls: 1_000_000, file: None }
    }
}
