//! The standard resolver: which declared upstream, or which hosted repository, a request means.
//!
//! Asked in this order; the first that applies decides, and its name is the rule's text:
//!
//! | rule | the request says |
//! |---|---|
//! | `header` | `X-Dragonfly-Registry: ghcr.io` |
//! | `ns` | `?ns=ghcr.io` |
//! | `path prefix` | `/v2/ghcr.io/org/app/...` or `/v2/proxy/ghcr.io/org/app/...` |
//! | `hosted pattern P` | a name that a pattern of `hosted` matches |
//! | `default_upstream` | anything else, when one is configured |
//! | `hosted (no default_upstream)` | anything else, when none is |
//!
//! It reads `default_upstream` and `hosted` (of `[routing]` when linked in, of `[plugin.config]`
//! when loaded) and never declines, so it stands last in `routing.resolvers`.
//!
//! **Invariant:** what a client writes only ever looks up a declared upstream. An unknown registry
//! is NOT_FOUND, also in the path: it never falls through to the default.
//! **Invariant:** two routes in one request that mean different upstreams are INVALID.
//! **Invariant:** every emitted repository name is within the grammar of the specification.
//! **Invariant:** an answer depends on `ns`, the header and the name alone, so it may be remembered;
//! and making it allocates nothing.
//!
//! Deliberately absent: normalising `ns` and the header (the host's work), and the aliases of
//! Docker Hub or of port 80 (the host's knowledge, told at configure time).
#![forbid(unsafe_code)]

mod route;
mod upstreams;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;

use ringport_plugin_sdk::names::NameBuf;
use ringport_plugin_sdk::{Answer, By, Refusal, Request, Resolver, Setup, Verdict};

use crate::route::{HostedPattern, Route, Router};
use crate::upstreams::Upstreams;

ringport_plugin_sdk::export!(Standard);

/// `[routing]` or `[plugin.config]`.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The namespace for requests that name none.
    #[serde(default)]
    default_upstream: Option<String>,
    /// Patterns of repositories that are ours.
    #[serde(default)]
    hosted: Vec<String>,
}

/// One configured instance.
#[derive(Debug)]
pub struct Standard {
    router: Router,
}

impl Resolver for Standard {
    const NAME: &'static str = "standard";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Config = Config;
    type Worker = ();

    fn configure(setup: &Setup<'_>, config: Config) -> Result<Standard, Refusal> {
        let upstreams = Upstreams::new(setup);
        let default_upstream = match config.default_upstream {
            None => None,
            Some(name) => Some(upstreams.find(&name).ok_or_else(|| {
                let message = upstreams.undeclared(&name);
                Refusal::invalid(format!("key `default_upstream`: {message}"))
            })?),
        };
        for (index, pattern) in config.hosted.iter().enumerate() {
            if pattern.is_empty() || pattern.contains([':', ' ']) {
                return Err(Refusal::invalid(format!(
                    "key `hosted[{index}]`: {pattern:?} can match no repository name; expected a \
                     pattern such as \"team/*\""
                )));
            }
        }
        let hosted = config.hosted.into_iter().map(HostedPattern::new).collect();
        Ok(Standard { router: Router { upstreams, default_upstream, hosted } })
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
        // Refusals too: all that is looked at is the header, `ns` and the name.
        answer.cacheable(By::NAME);
        match self.router.route(request)? {
            Route::Upstream { canonical_name, library: false, repository, rule } => {
                answer.rule(rule);
                answer.upstream(canonical_name, repository);
            }
            Route::Upstream { canonical_name, library: true, repository, rule } => {
                answer.rule(rule);
                let repository = NameBuf::join(&["library/", repository]);
                answer.upstream(canonical_name, repository.as_str());
            }
            Route::Hosted { repository, rule } => {
                answer.rule(rule);
                answer.hosted(repository);
            }
        }
        Ok(Verdict::Answered)
    }
}
