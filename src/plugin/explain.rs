//! A decision in words, for `ringport explain` and the admin listener's `/explain`.

use std::fmt;
use std::time::Duration;

use super::{Placement, Resolution, ResolveError, ResolveStatus, Route};

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
    /// Where the content would go if it had to be stored; `None` when no plugin says anything.
    pub placement: Option<Result<Placement, ResolveError>>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "resolver: {} declined", step.declined_by)?;
        }
        match &self.outcome {
            Ok(resolution) => {
                write_resolution(f, resolution)?;
                match &self.placement {
                    None => Ok(()),
                    Some(Ok(placement)) => write_placement(f, placement),
                    Some(Err(error)) => {
                        writeln!(f, "placement: {} failed, so nothing is stored", error.plugin)?;
                        writeln!(f, "reason: {}", error.message)
                    }
                }
            }
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
    if resolution.is_immutable {
        writeln!(f, "tag: immutable (set by the resolver)")?;
    }
    write_bound(f, "tag_ttl", resolution.tag_ttl)?;
    write_bound(f, "stale_max", resolution.stale_max)
}

/// Without queries and headers' values: they may be signatures.
fn write_placement(f: &mut fmt::Formatter<'_>, placement: &Placement) -> fmt::Result {
    let rule = if placement.rule.is_empty() { "(not named)" } else { &placement.rule };
    writeln!(f, "placement: {} answered, rule: {rule}", placement.plugin)?;
    writeln!(f, "class: {}", placement.class.as_str())?;
    writeln!(f, "pool: {}", placement.pool.as_deref().unwrap_or("(the store's choice)"))?;
    if let Some(ttl) = placement.ttl {
        writeln!(f, "ttl: {ttl:?}")?;
    }
    writeln!(f, "priority: {}", placement.priority)?;
    for remote in &placement.remotes {
        writeln!(f, "remote tier: {} {}", remote.method, remote.shown_url())?;
    }
    Ok(())
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
