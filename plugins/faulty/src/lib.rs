//! A resolver that fails on request: the repository `faulty/<fault>` names how. The server's
//! tests load it to see that each failure is contained. It declines all other requests.
//!
//! What Rust can't do wrong (bad tables, null hooks, statuses that don't exist) is in `faulty.c`.
#![forbid(unsafe_code)]
#![allow(clippy::panic, reason = "it is what this plugin is for")]

use ringport_plugin_sdk::{Answer, Refusal, Request, Resolver, Setup, Verdict};

ringport_plugin_sdk::export!(Faulty);

/// `[plugin.config]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Hook that fails: `configure`, `worker_start`; behind `panic:` it panics instead.
    #[serde(default)]
    fail: String,
}

/// One configured instance.
#[derive(Debug)]
pub struct Faulty {
    fail: String,
}

impl Resolver for Faulty {
    const NAME: &'static str = "faulty";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Config = Config;
    type Worker = ();

    fn configure(_setup: &Setup<'_>, config: Config) -> Result<Faulty, Refusal> {
        match config.fail.as_str() {
            "configure" => Err(Refusal::invalid("key `fail`: as you wish")),
            "panic:configure" => panic!("in configure"),
            _ => Ok(Faulty { fail: config.fail }),
        }
    }

    fn start_worker(&self, number: u32) -> Result<(), Refusal> {
        match self.fail.as_str() {
            "worker_start" => Err(Refusal::unavailable(format!("worker {number} can't start"))),
            "panic:worker_start" => panic!("in worker_start"),
            _ => Ok(()),
        }
    }

    fn resolve(
        &self,
        _worker: &mut (),
        request: &Request<'_>,
        answer: &mut Answer<'_>,
    ) -> Result<Verdict, Refusal> {
        let Some(fault) = request.name.strip_prefix("faulty/") else {
            return Ok(Verdict::Decline);
        };
        match fault {
            "panic" => panic!("at the {} of its life", "height"),
            "internal" => return Err(Refusal::internal("lost its table")),
            "unavailable" => return Err(Refusal::unavailable("")),
            "undeclared" => answer.upstream("169.254.169.254", "latest/meta-data"),
            "bad-name" => answer.hosted("Not A Name"),
            "traversal" => answer.hosted("a/../../etc"),
            "both" => {
                answer.hosted("a");
                answer.upstream("docker.io", "a");
            }
            "many" => (0..17).for_each(|n| answer.upstream("docker.io", &format!("a{n}"))),
            "for-ever" => {
                answer.freshness(Some(u64::MAX - 1), None);
                answer.hosted("a");
            }
            "long-text" => {
                answer.rule(&"é\n".repeat(100_000));
                answer.hosted("a");
            }
            "fresh" => {
                answer.freshness(Some(0), Some(1500));
                answer.upstream("index.docker.io", "a");
                answer.upstream("docker.io", "a");
                answer.upstream("ghcr.io", "a");
            }
            _ => {}
        }
        Ok(Verdict::Answered)
    }
}
