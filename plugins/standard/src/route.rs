//! The routing rules, in the order in which they are asked.

use ringport_plugin_sdk::names::{HostPrefix, glob_matches, is_repository_name};
use ringport_plugin_sdk::{Refusal, Request};

use crate::upstreams::{UpstreamId, Upstreams};

/// Docker Hub: its official images are `library/<name>` behind a one-segment name.
const DOCKER_HUB: &str = "docker.io";
/// The specification's bound of a repository name.
const REPOSITORY_BYTES_MAX: usize = 255;

/// What a request means.
pub(crate) enum Route<'a> {
    /// `library`: the repository is called `library/<repository>` there.
    Upstream {
        canonical_name: &'a str,
        library: bool,
        repository: &'a str,
        rule: &'a str,
    },
    Hosted {
        repository: &'a str,
        rule: &'a str,
    },
}

/// A pattern of repositories that are ours.
#[derive(Debug)]
pub(crate) struct HostedPattern {
    pattern: String,
    /// What `explain` says when it decides.
    rule: String,
}

impl HostedPattern {
    pub(crate) fn new(pattern: String) -> HostedPattern {
        HostedPattern { rule: format!("hosted pattern {pattern}"), pattern }
    }
}

#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) upstreams: Upstreams,
    pub(crate) default_upstream: Option<UpstreamId>,
    pub(crate) hosted: Vec<HostedPattern>,
}

impl Router {
    pub(crate) fn route<'a>(&'a self, request: &Request<'a>) -> Result<Route<'a>, Refusal> {
        let prefix = HostPrefix::of(request.name);
        match (request.header_ns, request.query_ns) {
            (Some(header), Some(ns)) if !self.same_upstream(header, ns) => {
                Err(Refusal::invalid(format!(
                    "the X-Dragonfly-Registry header means {header} and ns means {ns}; send one \
                     of them, or the same registry in both"
                )))
            }
            (Some(header), _) => self.named(header, "header", prefix, request.name),
            (None, Some(ns)) => self.named(ns, "ns", prefix, request.name),
            (None, None) => match prefix {
                Some(prefix) => self.host_in_path(&prefix, request.name),
                None => self.unnamed(request.name),
            },
        }
    }

    /// Whether two namespaces mean one upstream; undeclared ones only if they are spelt alike.
    fn same_upstream(&self, one: &str, other: &str) -> bool {
        match (self.upstreams.find(one), self.upstreams.find(other)) {
            (Some(one), Some(other)) => one == other,
            (None, None) => one == other,
            _ => false,
        }
    }

    /// The header or `ns` names the upstream. A host prefix in the path may repeat it (and is
    /// taken off), must not contradict it, and is part of the name if nobody declared it.
    fn named<'a>(
        &'a self,
        namespace: &'a str,
        rule: &'static str,
        prefix: Option<HostPrefix<'a>>,
        name: &'a str,
    ) -> Result<Route<'a>, Refusal> {
        let upstream = self.upstreams.find(namespace);
        let declared = prefix
            .filter(|prefix| !prefix.repository.is_empty())
            .and_then(|prefix| Some((self.upstreams.find(prefix.host)?, prefix)));
        let repository = match declared {
            None => name,
            Some((in_path, prefix)) if Some(in_path) == upstream => prefix.repository,
            Some((_, prefix)) => {
                return Err(Refusal::invalid(format!(
                    "{rule} means {namespace} and the path means {}; send one of them, or the \
                     same registry in both",
                    prefix.host
                )));
            }
        };
        match upstream {
            Some(upstream) => self.upstream(upstream, repository, rule),
            None => Err(Refusal::not_found(self.upstreams.undeclared(namespace))),
        }
    }

    /// Only the path names a registry. One that nobody declared is not found, unless a hosted
    /// pattern spells it out: falling through to the default would serve another's image.
    fn host_in_path<'a>(
        &'a self,
        prefix: &HostPrefix<'a>,
        name: &'a str,
    ) -> Result<Route<'a>, Refusal> {
        if prefix.repository.is_empty() {
            // `my.app` alone is as well a plain repository name; only never one of the default.
            return match self.hosted_pattern(name) {
                Some(pattern) => hosted(name, &pattern.rule),
                None => Err(Refusal::not_found(format!(
                    "{name} names a registry and no repository in it; write {name}/<repository>"
                ))),
            };
        }
        if let Some(upstream) = self.upstreams.find(prefix.host) {
            return self.upstream(upstream, prefix.repository, "path prefix");
        }
        let spelt_out = |hosted: &&HostedPattern| {
            let literal = hosted.pattern.split('*').next().unwrap_or_default();
            let rest = literal.strip_prefix(prefix.through_host);
            rest.is_some_and(|rest| rest.starts_with('/')) && glob_matches(&hosted.pattern, name)
        };
        match self.hosted.iter().find(spelt_out) {
            Some(pattern) => hosted(name, &pattern.rule),
            None => Err(Refusal::not_found(self.upstreams.undeclared(prefix.host))),
        }
    }

    /// Nothing names a registry.
    fn unnamed<'a>(&'a self, name: &'a str) -> Result<Route<'a>, Refusal> {
        if let Some(pattern) = self.hosted_pattern(name) {
            return hosted(name, &pattern.rule);
        }
        match self.default_upstream {
            Some(upstream) => self.upstream(upstream, name, "default_upstream"),
            None => hosted(name, "hosted (no default_upstream)"),
        }
    }

    fn hosted_pattern(&self, name: &str) -> Option<&HostedPattern> {
        self.hosted.iter().find(|hosted| glob_matches(&hosted.pattern, name))
    }

    fn upstream<'a>(
        &'a self,
        upstream: UpstreamId,
        repository: &'a str,
        rule: &'static str,
    ) -> Result<Route<'a>, Refusal> {
        let canonical_name = self.upstreams.canonical_name(upstream);
        let library = canonical_name == DOCKER_HUB && !repository.contains('/');
        if library && repository.len() > REPOSITORY_BYTES_MAX - "library/".len() {
            return Err(not_a_name(repository));
        }
        check_name(repository)?;
        Ok(Route::Upstream { canonical_name, library, repository, rule })
    }
}

fn hosted<'a>(repository: &'a str, rule: &'a str) -> Result<Route<'a>, Refusal> {
    check_name(repository)?;
    Ok(Route::Hosted { repository, rule })
}

fn check_name(repository: &str) -> Result<(), Refusal> {
    if is_repository_name(repository) { Ok(()) } else { Err(not_a_name(repository)) }
}

fn not_a_name(repository: &str) -> Refusal {
    Refusal::invalid(format!(
        "{repository:?} is not a repository name; expected at most 255 bytes of lower-case \
         letters, digits and single separators, such as library/alpine"
    ))
}
