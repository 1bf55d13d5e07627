//! A decision in words, for `ringport explain` and the admin listener's `/explain`.

use std::fmt;
use std::time::Duration;

use super::{Resolution, ResolveError, ResolveStatus, Route};

/// A resolver that was asked and passed the request on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name in the configuration.
    pub declined_by: String,
}

/// Who was asked, and what came of it. `Display` writes it in lines, each `what: words`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The resolvers that declined, in order.
    pub steps: Vec<Step>,
    /// The decision.
    pub outcome: Result<Resolution, ResolveError>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "resolver: {} declined", step.declined_by)?;
        }
        match &self.outcome {
            Ok(resolution) => write_resolution(f, resolution),
            Err(error) => {
                writeln!(f, "resolver: {} refused", error.plugin)?;
                writeln!(f, "refusal: {}", refusal_name(error.status))?;
                writeln!(f, "reason: {}", error.message)
            }
        }
    }
}

fn write_resolution(f: &mut fmt::Formatter<'_>, resolution: &Resolution) -> fmt::Result {
    writeln!(f, "resolver: {} answered", resolution.plugin)?;
    let rule = if resolution.rule.is_empty() { "(not named)" } else { &resolution.rule };
    writeln!(f, "rule: {rule}")?;
    match &resolution.route {
        Route::Hosted { repository } => {
            writeln!(f, "route: hosted")?;
            writeln!(f, "repository: {repository}")?;
        }
        Route::Upstream { candidates } => {
            writeln!(f, "route: upstream")?;
            for candidate in candidates {
                writeln!(f, "upstream: {}", candidate.upstream)?;
                writeln!(f, "repository: {}", candidate.repository)?;
            }
        }
    }
    if resolution.scoped_by_ns {
        writeln!(f, "scope: ns (the answer carries OCI-Namespace)")?;
    }
    write_bound(f, "tag_ttl", resolution.tag_ttl)?;
    write_bound(f, "stale_max", resolution.stale_max)
}

fn write_bound(f: &mut fmt::Formatter<'_>, name: &str, bound: Option<Duration>) -> fmt::Result {
    match bound {
        Some(bound) => writeln!(f, "{name}: {bound:?} (set by the resolver)"),
        None => Ok(()),
    }
}

fn refusal_name(status: ResolveStatus) -> &'static str {
    match status {
        ResolveStatus::NotFound => "not found",
        ResolveStatus::Denied => "denied",
        ResolveStatus::Unavailable => "unavailable",
        ResolveStatus::Invalid => "invalid",
        ResolveStatus::Internal => "internal error",
    }
}
