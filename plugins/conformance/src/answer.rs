//! What a plugin emits during one call, judged while it arrives.

use std::sync::Arc;
use std::thread::ThreadId;

use ringport_plugin_abi as abi;
use ringport_plugin_sdk::names::is_repository_name;

use crate::report::{Finding, Problem};
use crate::world::World;

/// Which hook is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    Configure,
    /// `worker_start` and `refresh`: errors only.
    Setup,
    Resolve,
    Place,
}

/// A candidate: upstream, repository, credential, forward_ns.
pub(crate) type Candidate = [String; 4];

/// A decision, in a form that can be compared. Texts for people are not part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: abi::Status,
    pub(crate) hosted: Option<String>,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) freshness: Option<(u64, u64)>,
    pub(crate) immutable: bool,
    pub(crate) cacheable: Option<u64>,
    pub(crate) placement: Option<(u32, String, u64, i32)>,
    pub(crate) remotes: Vec<(u32, String, String)>,
}

impl Answer {
    /// One line for a message.
    pub(crate) fn describe(&self) -> String {
        let mut text = status_name(self.status);
        if let Some(repository) = &self.hosted {
            text.push_str(&format!(" hosted {repository}"));
        }
        for [upstream, repository, ..] in &self.candidates {
            text.push_str(&format!(" {upstream} {repository}"));
        }
        if let Some((class, pool, ..)) = &self.placement {
            text.push_str(&format!(" class {class} pool {pool:?}"));
        }
        text
    }

    fn forget_route(&mut self) {
        let (status, cacheable) = (self.status, self.cacheable);
        *self = Answer { status, cacheable, ..Answer::default() };
    }
}

/// The status in the header's words.
pub(crate) fn status_name(status: abi::Status) -> String {
    let names = ["OK", "DECLINE", "NOT_FOUND", "DENIED", "UNAVAILABLE", "INVALID", "INTERNAL"];
    let name = usize::try_from(status).ok().and_then(|index| names.get(index));
    name.map_or_else(|| format!("the unknown status {status}"), |name| (*name).to_owned())
}

/// How grave a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gravity {
    /// Counts only if the hook goes on to return OK, as in the header.
    WithOk,
    /// Counts whatever the hook returns.
    Always,
}

/// One call's answer under construction, and what was wrong with it.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) world: Arc<World>,
    pub(crate) phase: Phase,
    pub(crate) hook: &'static str,
    pub(crate) thread: Option<ThreadId>,
    pub(crate) answer: Answer,
    pub(crate) error: String,
    /// The first rule broken in this call, if the hook returns OK.
    pub(crate) broken: Option<Finding>,
    /// Rules broken whatever it returns.
    pub(crate) faults: Vec<Finding>,
    pub(crate) can_refresh: bool,
    pub(crate) headers_wanted: Vec<String>,
    pub(crate) refresh_ms: Option<u64>,
}

/// The contract broken by an emit.
pub(crate) struct Refused;

type Emitted = Result<(), Refused>;

impl State {
    pub(crate) fn new(world: Arc<World>, can_refresh: bool) -> State {
        State {
            world,
            phase: Phase::Idle,
            hook: "no hook",
            thread: None,
            answer: Answer::default(),
            error: String::new(),
            broken: None,
            faults: Vec::new(),
            can_refresh,
            headers_wanted: Vec::new(),
            refresh_ms: None,
        }
    }

    pub(crate) fn begin(&mut self, phase: Phase, hook: &'static str) {
        (self.phase, self.hook) = (phase, hook);
        self.thread = Some(std::thread::current().id());
        self.answer.status = abi::OK;
        self.answer.cacheable = None;
        self.answer.forget_route();
        self.error.clear();
        self.broken = None;
    }

    pub(crate) fn end(&mut self, status: abi::Status) {
        self.phase = Phase::Idle;
        self.answer.status = status;
        if status != abi::OK {
            self.broken = None;
            self.answer.forget_route();
        }
    }

    /// Whether `function` may be called now, and here.
    fn expect_phase(&mut self, function: &str, phases: &[Phase]) -> Emitted {
        if self.phase == Phase::Idle {
            let found = format!("{function} with the ctx of {} after it had returned", self.hook);
            let remedy = "emit before the hook returns; ctx is borrowed for the call";
            return self.refuse(
                Gravity::Always,
                10,
                ["a ctx used during its call only", &found, remedy],
            );
        }
        if self.thread != Some(std::thread::current().id()) {
            let found = format!("{function} on another thread than {}", self.hook);
            let remedy = "emit on the thread that the hook was called on";
            return self.refuse(Gravity::Always, 12, ["a ctx used by one thread", &found, remedy]);
        }
        if !phases.contains(&self.phase) {
            let found = format!("{function} in {}", self.hook);
            let remedy = "call it in the hook that the header names for it";
            return self.refuse(Gravity::WithOk, 11, ["each emit in its hook", &found, remedy]);
        }
        Ok(())
    }

    fn refuse<T>(
        &mut self,
        gravity: Gravity,
        rule: u8,
        sentences: [&str; 3],
    ) -> Result<T, Refused> {
        let [expected, found, remedy] = sentences;
        let finding = Problem::new(expected, found, remedy).breaks(rule);
        match gravity {
            Gravity::WithOk => drop(self.broken.get_or_insert(finding)),
            Gravity::Always => {
                self.broken.get_or_insert_with(|| finding.clone());
                // One of a kind tells it all, and a plugin may repeat itself for ever.
                if self.faults.len() < 16 {
                    self.faults.push(finding);
                }
            }
        }
        Err(Refused)
    }

    /// A string that can't be one: null, or longer than memory could be.
    pub(crate) fn refuse_string(&mut self, function: &str, string: abi::Str) -> Emitted {
        let what = if string.ptr.is_null() { "a null pointer" } else { "a pointer" };
        let found = format!("{function} with {what} and length {}", string.len);
        let remedy = "send {ptr, len} of readable bytes, or {NULL, 0}";
        self.refuse(Gravity::Always, 8, ["strings of readable bytes", &found, remedy])
    }

    pub(crate) fn refuse_struct(&mut self, function: &str, found: &str) -> Emitted {
        let found = format!("{function} with {found}");
        let remedy = "set `size` to sizeof() of the struct and everything else to zero first";
        self.refuse(Gravity::WithOk, 7, ["a struct that begins with its size", &found, remedy])
    }

    fn outside<T>(&mut self, expected: &str, found: &str, remedy: &str) -> Result<T, Refused> {
        self.refuse(Gravity::WithOk, 14, [expected, found, remedy])
    }

    fn text(&mut self, function: &str, bytes: &[u8]) -> Result<String, Refused> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => {
                let text = String::from_utf8_lossy(bytes.get(..64).unwrap_or(bytes)).into_owned();
                let found = format!("{function} with {text:?}, which is not UTF-8");
                let remedy = "strings end at their length, not at a NUL; emit names as UTF-8";
                self.refuse(Gravity::WithOk, 8, ["names in UTF-8", &found, remedy])
            }
        }
    }

    pub(crate) fn add_candidate(&mut self, function: &str, strings: [&[u8]; 4]) -> Emitted {
        self.expect_phase(function, &[Phase::Resolve])?;
        let [upstream, repository, credential, forward_ns] = strings;
        let upstream = self.text(function, upstream)?;
        let repository = self.repository(function, repository)?;
        let credential = self.text(function, credential)?;
        let forward_ns = self.text(function, forward_ns)?;
        let world = Arc::clone(&self.world);
        let declared = "an upstream that the configuration declares";
        let names: Vec<&str> = world.upstreams.iter().map(|u| u.canonical_name.as_str()).collect();
        let remedy = format!("name one that configure was told of: {}", names.join(", "));
        let Some(known) = world.upstream(&upstream) else {
            return self.outside(declared, &format!("{function} of {upstream:?}"), &remedy);
        };
        if !credential.is_empty() && !known.credentials.contains(&credential) {
            let found = format!("{function} of {upstream:?} with credential {credential:?}");
            return self.outside("a credential of that upstream", &found, "name a declared one");
        }
        if !forward_ns.is_empty() && (!known.forwards_ns || world.upstream(&forward_ns).is_none()) {
            let found = format!("{function} of {upstream:?} with forward_ns {forward_ns:?}");
            let expected = "a declared namespace, for an upstream with UPSTREAM_FORWARD_NS";
            return self.outside(expected, &found, "look at the upstream's flags first");
        }
        if self.answer.hosted.is_some() {
            let found = "a hosted repository and an upstream";
            return self.outside("one kind of route", found, "emit one of them");
        }
        let candidate = [known.canonical_name.clone(), repository, credential, forward_ns];
        if !self.answer.candidates.contains(&candidate) {
            self.answer.candidates.push(candidate);
        }
        if self.answer.candidates.len() > abi::CANDIDATES_MAX {
            let expected = format!("at most {} candidates", abi::CANDIDATES_MAX);
            return self.outside(&expected, "more", "emit the first few");
        }
        Ok(())
    }

    fn repository(&mut self, function: &str, bytes: &[u8]) -> Result<String, Refused> {
        let name = self.text(function, bytes)?;
        if is_repository_name(&name) {
            return Ok(name);
        }
        let name: String = name.chars().take(64).collect();
        let remedy = "check what you build against the grammar of the OCI distribution \
                      specification (SDK: names::is_repository_name)";
        self.outside("a repository name", &format!("{function} of {name:?}"), remedy)
    }

    pub(crate) fn set_hosted(&mut self, bytes: &[u8]) -> Emitted {
        self.expect_phase("emit_hosted", &[Phase::Resolve])?;
        let repository = self.repository("emit_hosted", bytes)?;
        if self.answer.hosted.is_some() || !self.answer.candidates.is_empty() {
            let found = "a hosted repository beside another route";
            return self.outside("one kind of route, once", found, "emit one of them");
        }
        self.answer.hosted = Some(repository);
        Ok(())
    }

    pub(crate) fn set_rule(&mut self) -> Emitted {
        self.expect_phase("emit_rule", &[Phase::Resolve, Phase::Place])
    }

    pub(crate) fn set_error(&mut self, bytes: &[u8]) -> Emitted {
        use Phase::{Configure, Place, Resolve, Setup};
        self.expect_phase("emit_error", &[Configure, Setup, Resolve, Place])?;
        let bytes = bytes.get(..abi::ERROR_BYTES_MAX).unwrap_or(bytes);
        self.error = String::from_utf8_lossy(bytes).into_owned();
        Ok(())
    }

    pub(crate) fn set_freshness(&mut self, ttl_ms: u64, stale_ms: u64) -> Emitted {
        self.expect_phase("emit_freshness", &[Phase::Resolve])?;
        let is_good = |ms: u64| ms <= abi::FRESHNESS_MS_MAX || ms == abi::MS_UNSET;
        if !is_good(ttl_ms) || !is_good(stale_ms) {
            let found = format!("emit_freshness of {ttl_ms} and {stale_ms} ms");
            return self.outside("bounds of at most 366 days", &found, "or RINGPORT_MS_UNSET");
        }
        self.answer.freshness = Some((ttl_ms, stale_ms));
        Ok(())
    }

    pub(crate) fn set_immutable(&mut self) -> Emitted {
        self.expect_phase("emit_immutable", &[Phase::Resolve])?;
        self.answer.immutable = true;
        Ok(())
    }

    pub(crate) fn set_cacheable(&mut self, depends_on: u64) -> Emitted {
        self.expect_phase("emit_cacheable", &[Phase::Resolve])?;
        if depends_on & !ALL_BY != 0 {
            let found = format!("emit_cacheable with {depends_on:#x}");
            let sentences = ["known bits only", &found, "use RINGPORT_BY_* of this header"];
            return self.refuse(Gravity::WithOk, 7, sentences);
        }
        *self.answer.cacheable.get_or_insert_default() |= depends_on;
        Ok(())
    }

    pub(crate) fn set_placement(&mut self, placement: &abi::Placement, pool: &[u8]) -> Emitted {
        self.expect_phase("emit_placement", &[Phase::Place])?;
        let pool = self.text("emit_placement", pool)?;
        if placement.storage_class > abi::CLASS_PASS_THROUGH {
            let found = format!("storage_class {}", placement.storage_class);
            return self.outside("one of RINGPORT_CLASS_*", &found, "use one of the header's");
        }
        if !pool.is_empty() && !self.world.pools.contains(&pool) {
            let found = format!("the pool {pool:?}");
            return self.outside("a declared pool", &found, "name one that configure was told of");
        }
        if placement.priority.unsigned_abs() > abi::PRIORITY_MAX.unsigned_abs() {
            let found = format!("priority {}", placement.priority);
            return self.outside("a priority from -10 to 10", &found, "stay within");
        }
        let abi::Placement { storage_class, ttl_ms, priority, .. } = *placement;
        self.answer.placement = Some((storage_class, pool, ttl_ms, priority));
        Ok(())
    }

    pub(crate) fn add_remote(&mut self, remote: &abi::Remote, strings: [&[u8]; 2]) -> Emitted {
        self.expect_phase("emit_remote", &[Phase::Place])?;
        let [method, url] = strings;
        let method = self.text("emit_remote", method)?;
        let url = self.text("emit_remote", url)?;
        let below =
            |tier: &String| url.strip_prefix(tier.as_str()).is_some_and(|p| p.starts_with('/'));
        if !self.world.remote_tiers.iter().any(below) {
            let host = url.split('?').next().unwrap_or_default();
            let found = format!("emit_remote to {host:?}");
            let remedy = "begin with one that configure was told of, and \"/\"";
            return self.outside("a URL below a declared remote tier", &found, remedy);
        }
        let is_good = match remote.purpose {
            abi::REMOTE_READ => method == "GET",
            abi::REMOTE_WRITE => method == "PUT" || method == "POST",
            _ => false,
        };
        if !is_good || remote.header_count > abi::REMOTE_HEADERS_MAX {
            let found =
                format!("purpose {}, {method}, {} headers", remote.purpose, remote.header_count);
            let expected = "READ by GET or WRITE by PUT or POST, with at most 16 headers";
            return self.outside(expected, &found, "keep to the header's bounds");
        }
        if self.answer.remotes.len() == abi::REMOTES_MAX {
            return self.outside("at most 4 requests to remote tiers", "more", "emit the best");
        }
        self.answer.remotes.push((remote.purpose, method, url));
        Ok(())
    }

    pub(crate) fn want_header(&mut self, name: &[u8]) -> Emitted {
        self.expect_phase("want_header", &[Phase::Configure])?;
        let name = self.text("want_header", name)?.to_ascii_lowercase();
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let is_secret = ["authorization", "cookie", "proxy-authorization"].contains(&&*name);
        let is_good = (1..=abi::HEADER_NAME_BYTES_MAX).contains(&name.len())
            && name.bytes().all(is_token)
            && !is_secret
            && !self.headers_wanted.contains(&name)
            && self.headers_wanted.len() < abi::HEADERS_MAX;
        if !is_good {
            let found = format!("want_header of {:?}", name.chars().take(64).collect::<String>());
            let expected = "at most 8 different header names, none of them a secret's";
            return self.outside(expected, &found, "ask for tokens of RFC 9110, each once");
        }
        self.headers_wanted.push(name);
        Ok(())
    }

    pub(crate) fn want_refresh(&mut self, interval_ms: u64) -> Emitted {
        self.expect_phase("want_refresh", &[Phase::Configure])?;
        let is_within = (abi::REFRESH_MS_MIN..=abi::REFRESH_MS_MAX).contains(&interval_ms);
        if !self.can_refresh || !is_within {
            let found = format!("want_refresh of {interval_ms} ms");
            let expected = "RINGPORT_CAN_REFRESH, and an interval from 1 second to 1 day";
            return self.outside(expected, &found, "set the capability and stay within");
        }
        self.refresh_ms = Some(interval_ms);
        Ok(())
    }
}

/// Every known bit of `RINGPORT_BY_*`.
pub(crate) const ALL_BY: u64 = abi::BY_KIND
    | abi::BY_METHOD
    | abi::BY_REFERENCE
    | abi::BY_CLIENT
    | abi::BY_PRINCIPAL
    | abi::BY_HEADERS;
