//! What a plugin says back: each function of the host's table behind a safe one.
//!
//! A function that an older host does not have is passed over in silence: what it would have said
//! has the older behaviour.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use ringport_plugin_abi as abi;

use crate::place::{Class, Placement, Purpose, Remote};
use crate::resolver::{By, Candidate, Refusal};

/// The host's functions for one call.
#[derive(Clone, Copy)]
pub(super) struct Emit<'a> {
    host: &'a abi::Host,
    ctx: *mut abi::Ctx,
    /// A context belongs to one call on one thread.
    _call: PhantomData<*mut ()>,
}

impl<'a> Emit<'a> {
    /// `ctx` is what the running hook was handed; the result does not outlive the hook.
    pub(super) fn new(host: &'a abi::Host, ctx: *mut abi::Ctx) -> Emit<'a> {
        Emit { host, ctx, _call: PhantomData }
    }

    /// The one place where outcomes become statuses. A refusal's text is emitted.
    pub(super) fn finish<T>(
        self,
        outcome: Result<T, Refusal>,
        ok: impl FnOnce(T) -> abi::Status,
    ) -> abi::Status {
        match outcome {
            Ok(value) => ok(value),
            Err(refusal) => {
                if let Some(emit) = self.host.emit_error {
                    // SAFETY: `ctx` is the running call's, and the text is live.
                    unsafe { emit(self.ctx, abi::Str::new(&refusal.message)) };
                }
                refusal.status.to_abi()
            }
        }
    }

    fn rule(self, text: &str) {
        if let Some(emit) = self.host.emit_rule {
            // SAFETY: `ctx` is the running call's, and the text is live.
            unsafe { emit(self.ctx, abi::Str::new(text)) };
        }
    }
}

fn or_empty(text: Option<&str>) -> abi::Str {
    text.map_or(abi::Str::EMPTY, abi::Str::new)
}

/// Takes the answer of one `resolve`. What breaks a rule of the host (an upstream that is not
/// declared, a repository outside the grammar) turns the answer into a 500 that says so.
pub struct Answer<'a>(pub(super) Emit<'a>);

impl Answer<'_> {
    /// Appends a candidate in order of preference: a declared upstream, by its canonical name or
    /// an alias, and the repository to ask it for.
    pub fn upstream(&mut self, upstream: &str, repository: &str) {
        if let Some(emit) = self.0.host.emit_upstream {
            // SAFETY: `ctx` is this call's and the call is running; the strings are live.
            unsafe { emit(self.0.ctx, abi::Str::new(upstream), abi::Str::new(repository)) };
        }
    }

    /// [`Answer::upstream`] with all that a candidate can say.
    pub fn candidate(&mut self, candidate: &Candidate<'_>) {
        let candidate = abi::Candidate {
            size: size_of::<abi::Candidate>() as u32,
            reserved: 0,
            upstream: abi::Str::new(candidate.upstream),
            repository: abi::Str::new(candidate.repository),
            credential: or_empty(candidate.credential),
            forward_ns: or_empty(candidate.forward_ns),
        };
        if let Some(emit) = self.0.host.emit_candidate {
            // SAFETY: as in `upstream`.
            unsafe { emit(self.0.ctx, &raw const candidate) };
        }
    }

    /// Answers with a repository of our own; once, and without upstream candidates.
    pub fn hosted(&mut self, repository: &str) {
        if let Some(emit) = self.0.host.emit_hosted {
            // SAFETY: as in `upstream`.
            unsafe { emit(self.0.ctx, abi::Str::new(repository)) };
        }
    }

    /// Names the rule that decided, in a few words, for `ringport explain`.
    pub fn rule(&mut self, text: &str) {
        self.0.rule(text);
    }

    /// Bounds a tag's freshness in milliseconds; `None` leaves the upstream's configured bound.
    pub fn freshness(&mut self, tag_ttl_ms: Option<u64>, stale_max_ms: Option<u64>) {
        if let Some(emit) = self.0.host.emit_freshness {
            let or_unset = |bound: Option<u64>| bound.unwrap_or(abi::MS_UNSET);
            // SAFETY: as in `upstream`.
            unsafe { emit(self.0.ctx, or_unset(tag_ttl_ms), or_unset(stale_max_ms)) };
        }
    }

    /// The tag never changes: once stored, the upstream is not asked about it again.
    pub fn immutable(&mut self) {
        if let Some(emit) = self.0.host.emit_immutable {
            // SAFETY: as in `upstream`.
            unsafe { emit(self.0.ctx) };
        }
    }

    /// Lets the host remember this answer (also a decline or a refusal, but not UNAVAILABLE or
    /// INTERNAL) for requests of the same `query_ns`, `header_ns` and `name`, and the same in what
    /// `depends_on` names, until a successor takes over. A field that is forgotten there gives one
    /// client another's answer.
    pub fn cacheable(&mut self, depends_on: By) {
        if let Some(emit) = self.0.host.emit_cacheable {
            // SAFETY: as in `upstream`.
            unsafe { emit(self.0.ctx, depends_on.0) };
        }
    }
}

impl fmt::Debug for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}

/// Takes the answer of one `place`. What breaks a rule of the host keeps the content from being
/// stored, and is counted.
pub struct PlaceAnswer<'a>(pub(super) Emit<'a>);

impl PlaceAnswer<'_> {
    /// Says where the content goes; the last one counts.
    pub fn placement(&mut self, placement: &Placement<'_>) {
        let placement = abi::Placement {
            size: size_of::<abi::Placement>() as u32,
            storage_class: match placement.class {
                Class::Cache => abi::CLASS_CACHE,
                Class::Pinned => abi::CLASS_PINNED,
                Class::PassThrough => abi::CLASS_PASS_THROUGH,
            },
            pool: or_empty(placement.pool),
            // Less than a millisecond must not become the 0 that means for ever.
            ttl_ms: placement.ttl.map_or(0, |ttl| millis(ttl).max(1)),
            priority: placement.priority,
            reserved: 0,
        };
        if let Some(emit) = self.0.host.emit_placement {
            // SAFETY: `ctx` is this call's and the call is running; the strings are live.
            unsafe { emit(self.0.ctx, &raw const placement) };
        }
    }

    /// Adds a request to a remote tier, in order of preference. See
    /// [`Setup::performs_remote_tier`](crate::Setup::performs_remote_tier).
    pub fn remote(&mut self, remote: &Remote<'_>) {
        let empty = abi::Header { name: abi::Str::EMPTY, value: abi::Str::EMPTY };
        // One more than allowed, so that the host sees and refuses what is too much.
        let mut headers = [empty; abi::REMOTE_HEADERS_MAX + 1];
        let header_count = remote.headers.len().min(headers.len());
        for (to, (name, value)) in headers.iter_mut().zip(remote.headers) {
            *to = abi::Header { name: abi::Str::new(name), value: abi::Str::new(value) };
        }
        let remote = abi::Remote {
            size: size_of::<abi::Remote>() as u32,
            purpose: match remote.purpose {
                Purpose::Read => abi::REMOTE_READ,
                Purpose::Write => abi::REMOTE_WRITE,
            },
            method: abi::Str::new(remote.method),
            url: abi::Str::new(remote.url),
            headers: headers.as_ptr(),
            header_count,
            expires_unix_ms: remote.expires_unix_ms.unwrap_or(0),
        };
        if let Some(emit) = self.0.host.emit_remote {
            // SAFETY: as in `placement`; `headers` lives to the end of this function.
            unsafe { emit(self.0.ctx, &raw const remote) };
        }
    }

    /// Names the rule that decided, in a few words.
    pub fn rule(&mut self, text: &str) {
        self.0.rule(text);
    }
}

impl fmt::Debug for PlaceAnswer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlaceAnswer")
    }
}

/// What may be asked of the host in `configure`.
pub(crate) struct Wishes<'a>(pub(super) Emit<'a>);

impl Wishes<'_> {
    /// Whether the host takes the wish.
    pub(crate) fn header(&self, name: &str) -> bool {
        self.0.host.want_header.is_some_and(|want| {
            // SAFETY: `ctx` is this call's and the call is running; the name is live.
            unsafe { want(self.0.ctx, abi::Str::new(name)) == abi::OK }
        })
    }

    /// Whether the host takes the wish.
    pub(crate) fn refresh(&self, interval: Duration) -> bool {
        self.0.host.want_refresh.is_some_and(|want| {
            // SAFETY: as in `header`.
            unsafe { want(self.0.ctx, millis(interval)) == abi::OK }
        })
    }

    pub(super) fn features(&self) -> u64 {
        self.0.host.features
    }
}

impl fmt::Debug for Wishes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wishes")
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
