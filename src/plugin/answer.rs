//! What a plugin emits during one call, checked while it arrives.
//!
//! The bytes are a plugin's: any length, any content. The first broken rule is kept and turns an
//! OK answer into an error; nothing is stored beyond the ABI's limits. All of it is reused from
//! call to call, so that a resolve allocates nothing.

mod candidates;
mod place;
mod recycled;
mod text;
mod wishes;

use std::sync::Arc;
use std::time::Duration;

use ringport_plugin_abi as abi;

use self::candidates::Drafted;
use self::recycled::{Recycled, SeenNames};
use self::text::{set_text, shorter_than, shown};
use super::declared::{Declared, Undeclared};
use super::{Placement, Resolution};
use crate::limits::NAMESPACE_BYTES_MAX;
use crate::oci::{Namespace, RepositoryName};

pub(super) use self::place::RemoteDraft;
pub(super) use self::wishes::Wishes;

/// Why an emit was refused; the text is kept in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// Whether a call is running, and what it may emit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No call: nothing may be emitted.
    Idle,
    /// `configure`, and whether the plugin's table has `refresh`: wishes and errors.
    Configure { can_refresh: bool },
    /// `worker_start` or `refresh`: errors only.
    Setup,
    /// `resolve`
    Resolve,
    /// `place`, and whether the content is stored already.
    Place { is_stored: bool, is_hosted: bool },
}

/// One call's answer under construction; reused from call to call.
#[derive(Debug)]
pub(super) struct Answer {
    declared: Arc<Declared>,
    phase: Phase,
    draft: Draft,
    placement: Placement,
    wishes: Wishes,
    pub(super) error: String,
    /// The answer may be remembered: `abi::BY_*` bits.
    pub(super) cacheable: Option<u64>,
    /// The first rule that was broken, as a sentence.
    pub(super) broken: Option<String>,
    names: SeenNames,
    recycled: Recycled,
}

/// The route under construction.
#[derive(Debug, Default)]
struct Draft {
    candidates: Drafted,
    hosted: Option<RepositoryName>,
    /// Without `has_rule` it is that of an earlier call.
    rule: String,
    has_rule: bool,
    tag_ttl: Option<Duration>,
    stale_max: Option<Duration>,
    is_immutable: bool,
}

impl Answer {
    pub(super) fn new(declared: Arc<Declared>) -> Answer {
        Answer {
            declared,
            phase: Phase::Idle,
            draft: Draft::default(),
            placement: Placement::default(),
            wishes: Wishes::default(),
            error: String::new(),
            cacheable: None,
            broken: None,
            names: SeenNames::default(),
            recycled: Recycled::default(),
        }
    }

    /// Forgets the last call and opens the answer for the next.
    pub(super) fn begin(&mut self, phase: Phase) {
        self.phase = phase;
        self.error.clear();
        (self.cacheable, self.broken) = (None, None);
        let draft = &mut self.draft;
        draft.candidates.clear();
        (draft.hosted, draft.tag_ttl, draft.stale_max) = (None, None, None);
        (draft.has_rule, draft.is_immutable) = (false, false);
        if matches!(phase, Phase::Place { .. }) {
            self.placement = Placement::default();
        }
    }

    /// Closes the answer: emits after the call's end are refused.
    pub(super) fn end(&mut self) {
        self.phase = Phase::Idle;
    }

    pub(super) fn add_candidate(
        &mut self,
        function: &str,
        upstream: &[u8],
        repository: &[u8],
        [credential, forward_ns]: [&[u8]; 2],
    ) -> Result<(), Refused> {
        self.expect_resolve(function)?;
        let is_plain = credential.is_empty() && forward_ns.is_empty();
        let quickly = self.declared.quickly(upstream).filter(|_| is_plain);
        let scope = match quickly {
            Some(canonical_name) => canonical_name,
            None => match scope(&self.declared, upstream, credential, forward_ns) {
                Ok(scope) => scope,
                Err(reason) => {
                    let problem = self.undeclared(reason, upstream, credential, forward_ns);
                    return self.refuse(problem);
                }
            },
        };
        let candidates = &mut self.draft.candidates;
        let Some(named) = candidates.name(repository, &mut self.names) else {
            return self.refuse(not_a_name(repository));
        };
        if self.draft.hosted.is_some() {
            return self.refuse("it emitted both a hosted repository and an upstream".into());
        }
        if candidates.add(scope, named) {
            return Ok(());
        }
        self.refuse(format!("it named more than {} candidates", abi::CANDIDATES_MAX))
    }

    #[cold]
    fn undeclared(
        &self,
        what: Undeclared,
        upstream: &[u8],
        credential: &[u8],
        ns: &[u8],
    ) -> String {
        let listed = |names: &mut dyn Iterator<Item = &str>| {
            let names: Vec<&str> = names.take(12).collect();
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        let upstreams = self.declared.upstreams();
        let declared = || listed(&mut upstreams.iter().map(|u| u.canonical_name.as_str()));
        match what {
            Undeclared::Upstream => format!(
                "it named the upstream {}, which no [[upstream]] declares (declared: {})",
                shown(upstream),
                declared()
            ),
            Undeclared::Credential => {
                let upstream = shorter_than(upstream, NAMESPACE_BYTES_MAX);
                let found = upstream.and_then(|name| self.declared.find(name));
                let own = found.map(|u| u.credentials.as_slice()).unwrap_or_default();
                format!(
                    "it named the credential {}, which is no [[upstream.credential]] of {} \
                     (declared: {})",
                    shown(credential),
                    upstream.unwrap_or_default(),
                    listed(&mut own.iter().map(String::as_str))
                )
            }
            Undeclared::NotForwarding => format!(
                "it gave a namespace to forward to {}, which is no namespace-aware proxy (set \
                 `forward_ns = true` in its [[upstream]])",
                shown(upstream)
            ),
            Undeclared::ForwardNs => format!(
                "it forwards the namespace {}, which no [[upstream]] declares (declared: {})",
                shown(ns),
                declared()
            ),
        }
    }

    pub(super) fn set_hosted(&mut self, repository: &[u8]) -> Result<(), Refused> {
        self.expect_resolve("emit_hosted")?;
        if self.draft.hosted.is_some() || !self.draft.candidates.is_empty() {
            return self.refuse("it emitted a hosted repository beside another route".into());
        }
        self.draft.hosted = Some(self.repository(repository)?);
        Ok(())
    }

    pub(super) fn set_rule(&mut self, text: &[u8]) -> Result<(), Refused> {
        match self.phase {
            Phase::Place { .. } => set_text(&mut self.placement.rule, text, abi::RULE_BYTES_MAX),
            _ => {
                self.expect_resolve("emit_rule")?;
                self.draft.has_rule = true;
                // What an earlier call left there was looked at then.
                if self.draft.rule.as_bytes() != text {
                    set_text(&mut self.draft.rule, text, abi::RULE_BYTES_MAX);
                }
            }
        }
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
        (self.draft.tag_ttl, self.draft.stale_max) = (bound(ttl_ms), bound(stale_ms));
        Ok(())
    }

    pub(super) fn set_immutable(&mut self) -> Result<(), Refused> {
        self.expect_resolve("emit_immutable")?;
        self.draft.is_immutable = true;
        Ok(())
    }

    pub(super) fn set_cacheable(&mut self, depends_on: u64) -> Result<(), Refused> {
        const KNOWN: u64 = abi::BY_KIND
            | abi::BY_METHOD
            | abi::BY_REFERENCE
            | abi::BY_CLIENT
            | abi::BY_PRINCIPAL
            | abi::BY_HEADERS;
        self.expect_resolve("emit_cacheable")?;
        if depends_on & !KNOWN != 0 {
            return self.refuse(format!(
                "it called emit_cacheable with the unknown bits {:#x}",
                depends_on & !KNOWN
            ));
        }
        self.cacheable = Some(self.cacheable.unwrap_or(0) | depends_on);
        Ok(())
    }

    /// A struct whose pointer is null or misaligned, or a string whose pointer is null while its
    /// length is not, and the like.
    pub(super) fn refuse_pointer(&mut self) -> Result<(), Refused> {
        match self.phase {
            Phase::Idle => Err(Refused),
            _ => self.refuse("it sent a null pointer, or one with an impossible length".into()),
        }
    }

    /// The resolution that was emitted; `None` without a route.
    pub(super) fn take_resolution(
        &mut self,
        plugin: &str,
        ns_was_sent: bool,
    ) -> Option<Arc<Resolution>> {
        if self.draft.hosted.is_none() && self.draft.candidates.is_empty() {
            return None;
        }
        if !self.draft.has_rule {
            self.draft.rule.clear();
        }
        Some(self.recycled.resolution(&mut self.draft, plugin, ns_was_sent))
    }

    /// The wishes of a `configure` that went well.
    pub(super) fn take_wishes(&mut self) -> Wishes {
        std::mem::take(&mut self.wishes)
    }

    fn expect_resolve(&mut self, function: &str) -> Result<(), Refused> {
        self.expect_phase(self.phase == Phase::Resolve, function, "resolve")
    }

    fn expect_phase(
        &mut self,
        is_allowed: bool,
        function: &str,
        hook: &str,
    ) -> Result<(), Refused> {
        match self.phase {
            Phase::Idle => Err(Refused),
            _ if is_allowed => Ok(()),
            _ => self.refuse(format!("it called {function} outside {hook}")),
        }
    }

    fn repository(&mut self, name: &[u8]) -> Result<RepositoryName, Refused> {
        let text = shorter_than(name, abi::REPOSITORY_BYTES_MAX);
        match text.and_then(|text| self.names.get(text)) {
            Some(repository) => Ok(repository),
            None => self.refuse(not_a_name(name)),
        }
    }

    #[cold]
    fn refuse<T>(&mut self, problem: String) -> Result<T, Refused> {
        self.broken.get_or_insert(problem);
        Err(Refused)
    }
}

/// What an upstream is called that is named with a credential and a namespace to forward.
fn scope<'a>(
    declared: &'a Declared,
    upstream: &[u8],
    credential: &[u8],
    forward_ns: &[u8],
) -> Result<&'a Namespace, Undeclared> {
    let text = |bytes| shorter_than(bytes, NAMESPACE_BYTES_MAX);
    let upstream = text(upstream).ok_or(Undeclared::Upstream)?;
    let credential = text(credential).ok_or(Undeclared::Credential)?;
    let forward_ns = text(forward_ns).ok_or(Undeclared::ForwardNs)?;
    declared.scope(upstream, credential, forward_ns)
}

#[cold]
fn not_a_name(name: &[u8]) -> String {
    format!("{} is not a repository name", shown(name))
}
