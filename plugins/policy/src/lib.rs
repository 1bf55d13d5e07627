//! Policy for images: who may have what, under which name it is fetched, with which login, and how
//! tags change. The configuration is explained in this folder's `README.md`.
//!
//! Four lists are asked, one after another: `access`, `rewrite`, `credential`, `tags`. Within each
//! the first rule that matches decides and the rest of it is not read. All of them look at the
//! image that the client meant: `docker.io/library/alpine`, whichever way it was said.
//!
//! What none of the lists says anything about is declined, so that the next resolver answers.
//!
//! **Invariant:** an alias, a header, a host in the path and a name without one can't get round a
//! rule: the image's name is the same by every way.
//! **Invariant:** two registries in one request that contradict each other are INVALID, as for the
//! standard resolver.
//! **Invariant:** no allocation for an answer that is no refusal, once a worker is warm.
//!
//! Deliberately absent: a rule for pushes (they belong to a registry's own permissions), regular
//! expressions, and a way to name an upstream that nobody declared.
#![forbid(unsafe_code)]

mod config;
mod rules;
mod upstreams;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;

use ringport_plugin_sdk::names::{HostPrefix, NameBuf, is_repository_name};
use ringport_plugin_sdk::{
    Answer, Candidate, NsSource, Refusal, Request, Resolver, Setup, Verdict,
};

pub use crate::config::Config;
use crate::config::Pattern;
use crate::rules::{Asked, Rules};
use crate::upstreams::{DOCKER_HUB, Upstreams};

ringport_plugin_sdk::export!(Policy);

/// One configured instance.
#[derive(Debug)]
pub struct Policy {
    upstreams: Upstreams,
    /// Canonical.
    default_upstream: Option<String>,
    hosted: Vec<Pattern>,
    rules: Rules,
}

/// One worker's memory, kept from request to request.
#[derive(Debug, Default)]
pub struct Worker {
    image: String,
    rule: String,
}

impl Resolver for Policy {
    const NAME: &'static str = "policy";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Config = Config;
    type Worker = Worker;

    fn configure(setup: &Setup<'_>, config: Config) -> Result<Policy, Refusal> {
        let upstreams = Upstreams::new(setup);
        let default_upstream = match config.default_upstream.as_deref() {
            // A default of ours that differs from the server's would let a request that names no
            // registry pass by the rules of the upstream that it gets to.
            None => {
                return Err(Refusal::invalid(
                    "key `default_upstream` is missing: set it as in [routing], or to \"\" when \
                     it is not set there; and `hosted` too",
                ));
            }
            Some("") => None,
            Some(name) => match upstreams.find(name) {
                Some(canonical) => Some(canonical.to_owned()),
                None => {
                    return Err(Refusal::invalid(format!(
                        "key `default_upstream`: declare [[upstream]] namespace = \"{name}\" first"
                    )));
                }
            },
        };
        let hosted = config.hosted.clone();
        let rules = Rules::new(config, &upstreams)?;
        Ok(Policy { upstreams, default_upstream, hosted, rules })
    }

    fn start_worker(&self, _number: u32) -> Result<Worker, Refusal> {
        Ok(Worker::default())
    }

    fn resolve(
        &self,
        worker: &mut Worker,
        request: &Request<'_>,
        answer: &mut Answer<'_>,
    ) -> Result<Verdict, Refusal> {
        answer.cacheable(self.rules.depends_on(request.kind));
        self.check_one_registry(request)?;
        let Worker { image, rule } = worker;
        let meant = self.name_image(request, image);
        let asked = Asked::new(image, request);
        self.rules.check_access(&asked)?;
        let Some(namespace) = meant else { return Ok(Verdict::Decline) };
        rule.clear();
        let rewritten = self.rules.rewrite(&asked).map(|(rewrite, taken)| {
            join(rule, &rewrite.rule);
            let after = rewrite.to.after.as_deref().unwrap_or_default();
            (rewrite.upstream.as_str(), NameBuf::join(&[&rewrite.to.before, taken, after]))
        });
        let (upstream, repository) = match rewritten {
            Some(target) => target,
            None => match self.upstreams.find(namespace) {
                Some(upstream) => {
                    let name = image.get(namespace.len() + 1..).unwrap_or_default();
                    (upstream, NameBuf::join(&[name]))
                }
                None => return Ok(Verdict::Decline),
            },
        };
        let credential = self.rules.credential(&asked, upstream);
        let tags = self.rules.tags(&asked);
        if let Some(credential) = credential {
            join(rule, &credential.rule);
        }
        if let Some(tags) = tags {
            join(rule, &tags.rule);
            answer.freshness(tags.tag_ttl_ms, tags.stale_max_ms);
            if tags.is_immutable {
                answer.immutable();
            }
        }
        if rule.is_empty() {
            return Ok(Verdict::Decline);
        }
        if !is_repository_name(repository.as_str()) {
            return Err(Refusal::invalid(format!("{image} is fetched under no valid name")));
        }
        answer.rule(rule);
        answer.candidate(&Candidate {
            upstream,
            repository: repository.as_str(),
            credential: credential.map(|credential| credential.name.as_str()),
            forward_ns: None,
        });
        Ok(Verdict::Answered)
    }
}

impl Policy {
    /// Writes the image's name; gives back its namespace, or `None` for a hosted one.
    fn name_image<'a>(&'a self, request: &Request<'a>, image: &mut String) -> Option<&'a str> {
        let namespace = match request.ns {
            Some(ns) => Some(self.upstreams.called(ns)),
            None => {
                // A host and nothing behind it is no image of the default upstream.
                let is_hosted = HostPrefix::of(request.repository).is_some()
                    || self.hosted.iter().any(|pattern| pattern.matches(request.repository));
                self.default_upstream.as_deref().filter(|_| !is_hosted)
            }
        };
        image.clear();
        if let Some(namespace) = namespace {
            image.push_str(namespace);
            image.push('/');
            if namespace == DOCKER_HUB && !request.repository.contains('/') {
                image.push_str("library/");
            }
        }
        image.push_str(request.repository);
        namespace
    }

    /// # Errors
    /// Header, `ns` and path name upstreams that differ: nobody could say which rules count.
    fn check_one_registry(&self, request: &Request<'_>) -> Result<(), Refusal> {
        let differ = |one: &str, other: &str| {
            let (one, other) = (self.upstreams.called(one), self.upstreams.called(other));
            one != other
        };
        let refused = |one: &str, other: &str| {
            Err(Refusal::invalid(format!(
                "the request means {one} and {other}; send one of them, or the same registry in \
                 all places"
            )))
        };
        if let (Some(header), Some(ns)) = (request.header_ns, request.query_ns)
            && differ(header, ns)
        {
            return refused(header, ns);
        }
        let is_named = matches!(request.ns_source, NsSource::Header | NsSource::Query);
        if let Some(ns) = request.ns.filter(|_| is_named) {
            // What says the same as `ns` has been taken off the repository already.
            let prefix = HostPrefix::of(request.repository);
            let host = prefix.filter(|prefix| !prefix.repository.is_empty());
            if let Some(host) = host.map(|prefix| prefix.host.to_ascii_lowercase())
                && self.upstreams.find(host.strip_suffix(":443").unwrap_or(&host)).is_some()
                && differ(&host, ns)
            {
                return refused(ns, &host);
            }
        }
        Ok(())
    }
}

fn join(rule: &mut String, part: &str) {
    if !rule.is_empty() {
        rule.push_str("; ");
    }
    rule.push_str(part);
}
