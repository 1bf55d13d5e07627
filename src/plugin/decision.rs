//! A decision in a few words, for the access log and `ringport replay`:
//! `docker.io library/alpine, node2.corp?ns=docker.io library/alpine; tag_ttl 1m`,
//! `hosted team/app`, `denied`.

use std::fmt::Write as _;

use super::{Resolution, ResolveError, ResolveStatus, Route};
use crate::config::format_duration;
use crate::telemetry::Decision;

impl Decision for Resolution {
    fn resolver(&self) -> &str {
        &self.plugin
    }

    fn rule(&self) -> &str {
        &self.rule
    }

    fn in_words(&self) -> String {
        let mut words = match &self.route {
            Route::Hosted { repository } => format!("hosted {repository}"),
            Route::Upstream { candidates } => {
                let candidate = |c: &super::Candidate| format!("{} {}", c.upstream, c.repository);
                candidates.iter().map(candidate).collect::<Vec<_>>().join(", ")
            }
        };
        for (what, bound) in [("tag_ttl", self.tag_ttl), ("stale_max", self.stale_max)] {
            if let Some(bound) = bound {
                // Writing to a String cannot fail.
                let _ = write!(words, "; {what} {}", format_duration(bound));
            }
        }
        if self.is_immutable {
            words.push_str("; immutable");
        }
        words
    }
}

impl Decision for ResolveError {
    fn resolver(&self) -> &str {
        &self.plugin
    }

    fn rule(&self) -> &str {
        ""
    }

    fn in_words(&self) -> String {
        let word = match self.status {
            ResolveStatus::NotFound => "not-found",
            ResolveStatus::Denied => "denied",
            ResolveStatus::Unavailable => "unavailable",
            ResolveStatus::Invalid => "invalid",
            ResolveStatus::Internal => "internal-error",
        };
        word.to_owned()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::oci::{Namespace, RepositoryName};
    use crate::plugin::Candidate;

    #[test]
    fn a_decision_reads_as_what_it_is() {
        let repository = || RepositoryName::parse("library/alpine").unwrap();
        let hub = Namespace::parse("docker.io").unwrap();
        let node = Namespace::parse("node2.corp").unwrap().scoped(None, Some(&hub));
        let candidate = |upstream| Candidate { upstream, repository: repository() };
        let mut resolution = Resolution {
            route: Route::Upstream { candidates: vec![candidate(node), candidate(hub)] },
            rule: "owner".to_owned(),
            scoped_by_ns: true,
            tag_ttl: Some(Duration::from_secs(60)),
            stale_max: None,
            is_immutable: true,
            plugin: "shard".to_owned(),
        };
        assert_eq!(
            resolution.in_words(),
            "node2.corp?ns=docker.io library/alpine, docker.io library/alpine; tag_ttl 1m; \
             immutable"
        );
        assert_eq!((resolution.resolver(), resolution.rule()), ("shard", "owner"));
        resolution.route = Route::Hosted { repository: repository() };
        (resolution.tag_ttl, resolution.is_immutable) = (None, false);
        assert_eq!(resolution.in_words(), "hosted library/alpine");
        let refused = ResolveError {
            status: ResolveStatus::Denied,
            message: "no".to_owned(),
            plugin: "policy".to_owned(),
        };
        assert_eq!((refused.in_words(), refused.resolver()), ("denied".to_owned(), "policy"));
    }
}
