//! What a plugin emits during one call, checked while it arrives.
//!
//! The bytes are a plugin's: any length, any content. The first broken rule is kept and turns an
//! OK answer into an error; nothing is stored beyond the ABI's limits.

use std::sync::Arc;
use std::time::Duration;

use ringport_plugin_abi as abi;

use super::declared::Declared;
use super::{Candidate, Route};
use crate::limits::NAMESPACE_BYTES_MAX;
use crate::oci::RepositoryName;

/// Why an emit was refused; the text is kept in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// Whether a call is running, and what it may emit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No call: nothing may be emitted.
    Idle,
    /// `configure` or `worker_start`: errors only.
    Setup,
    /// `resolve`
    Resolve,
}

/// One call's answer under construction; reused from call to call.
#[derive(Debug)]
pub(super) struct Answer {
    declared: Arc<Declared>,
    phase: Phase,
    pub(super) route: Option<Route>,
    pub(super) rule: String,
    pub(super) error: String,
    pub(super) tag_ttl: Option<Duration>,
    pub(super) stale_max: Option<Duration>,
    /// The first rule that was broken, as a sentence.
    pub(super) broken: Option<String>,
}

impl Answer {
    pub(super) fn new(declared: Arc<Declared>) -> Answer {
        Answer {
            declared,
            phase: Phase::Idle,
            route: None,
            rule: String::new(),
            error: String::new(),
            tag_ttl: None,
            stale_max: None,
            broken: None,
        }
    }

    /// Forgets the last call and opens the answer for the next.
    pub(super) fn begin(&mut self, phase: Phase) {
        self.phase = phase;
        self.route = None;
        self.rule.clear();
        self.error.clear();
        (self.tag_ttl, self.stale_max, self.broken) = (None, None, None);
    }

    /// Closes the answer: emits after the call's end are refused.
    pub(super) fn end(&mut self) {
        self.phase = Phase::Idle;
    }

    pub(super) fn add_upstream(&mut self, name: &[u8], repository: &[u8]) -> Result<(), Refused> {
        self.expect_resolve("emit_upstream")?;
        let declared =
            shorter_than(name, NAMESPACE_BYTES_MAX).and_then(|name| self.declared.canonical(name));
        let Some(upstream) = declared.cloned() else {
            let known = self.declared.upstreams().iter().take(12);
            let known: Vec<&str> = known.map(|u| u.canonical_name.as_str()).collect();
            return self.refuse(format!(
                "it named the upstream {}, which no [[upstream]] declares (declared: {})",
                shown(name),
                known.join(", ")
            ));
        };
        let candidate = Candidate { upstream, repository: self.repository(repository)? };
        match &mut self.route {
            None => self.route = Some(Route::Upstream { candidates: vec![candidate] }),
            Some(Route::Upstream { candidates }) if candidates.contains(&candidate) => {}
            Some(Route::Upstream { candidates }) if candidates.len() < abi::CANDIDATES_MAX => {
                candidates.push(candidate);
            }
            Some(Route::Upstream { .. }) => {
                return self
                    .refuse(format!("it named more than {} candidates", abi::CANDIDATES_MAX));
            }
            Some(Route::Hosted { .. }) => {
                return self.refuse("it emitted both a hosted repository and an upstream".into());
            }
        }
        Ok(())
    }

    pub(super) fn set_hosted(&mut self, repository: &[u8]) -> Result<(), Refused> {
        self.expect_resolve("emit_hosted")?;
        if self.route.is_some() {
            return self.refuse("it emitted a hosted repository beside another route".into());
        }
        self.route = Some(Route::Hosted { repository: self.repository(repository)? });
        Ok(())
    }

    pub(super) fn set_rule(&mut self, text: &[u8]) -> Result<(), Refused> {
        self.expect_resolve("emit_rule")?;
        set_text(&mut self.rule, text, abi::RULE_BYTES_MAX);
        Ok(())
    }

    pub(super) fn set_error(&mut self, text: &[u8]) -> Result<(), Refused> {
        if self.phase == Phase::Idle {
            return Err(Refused);
        }
        set_text(&mut self.error, text, abi::ERROR_BYTES_MAX);
        Ok(())
    }

    pub(super) fn set_freshness(&mut self, ttl_ms: u64, stale_ms: u64) -> Result<(), Refused> {
        self.expect_resolve("emit_freshness")?;
        for (what, ms) in [("tag_ttl", ttl_ms), ("stale_max", stale_ms)] {
            if ms > abi::FRESHNESS_MS_MAX && ms != abi::MS_UNSET {
                return self.refuse(format!("it set {what} to {ms} ms, above 366 days"));
            }
        }
        let bound = |ms: u64| (ms != abi::MS_UNSET).then(|| Duration::from_millis(ms));
        (self.tag_ttl, self.stale_max) = (bound(ttl_ms), bound(stale_ms));
        Ok(())
    }

    /// A string whose pointer is null while its length is not, and the like.
    pub(super) fn refuse_string(&mut self) -> Result<(), Refused> {
        match self.phase {
            Phase::Idle => Err(Refused),
            _ => self.refuse("it sent a null pointer, or one with an impossible length".into()),
        }
    }

    fn expect_resolve(&mut self, function: &str) -> Result<(), Refused> {
        match self.phase {
            Phase::Resolve => Ok(()),
            Phase::Idle => Err(Refused),
            Phase::Setup => self.refuse(format!("it called {function} outside resolve")),
        }
    }

    fn repository(&mut self, name: &[u8]) -> Result<RepositoryName, Refused> {
        let parsed = shorter_than(name, abi::REPOSITORY_BYTES_MAX).map(RepositoryName::parse);
        match parsed {
            Some(Ok(repository)) => Ok(repository),
            _ => self.refuse(format!("{} is not a repository name", shown(name))),
        }
    }

    fn refuse<T>(&mut self, problem: String) -> Result<T, Refused> {
        self.broken.get_or_insert(problem);
        Err(Refused)
    }
}

/// The text, if it is UTF-8 within the bound.
fn shorter_than(bytes: &[u8], max: usize) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| text.len() <= max)
}

/// A foreign string for a message: quoted, escaped and short.
fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    set_text(&mut text, bytes, 64);
    format!("{text:?}")
}

/// Copies a text, cut at a character's end, with bad UTF-8 and control characters replaced: it
/// goes into logs, headers and JSON.
fn set_text(to: &mut String, bytes: &[u8], max: usize) {
    let is_inside_character = |at: usize| bytes.get(at).is_some_and(|b| b & 0xc0 == 0x80);
    let mut end = bytes.len().min(max);
    while end > 0 && is_inside_character(end) {
        end -= 1;
    }
    to.clear();
    let text = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default());
    to.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_and_cleaned() {
        let cases: [(&[u8], usize, &str); 6] = [
            (b"", 4, ""),
            (b"abcdef", 4, "abcd"),
            ("abé".as_bytes(), 3, "ab"),
            ("abé".as_bytes(), 4, "abé"),
            (b"a\nb\x7f", 9, "a b "),
            (b"a\xff", 9, "a\u{fffd}"),
        ];
        for (bytes, max, expected) in cases {
            let mut text = String::from("old");
            set_text(&mut text, bytes, max);
            assert_eq!(text, expected, "{bytes:?}");
        }
    }
}
