//! The fake host's side of the contract: its table, and the checks that the real host makes of what
//! the SDK lets through. Not that each function is called in its hook, nor the lengths of texts.

use std::time::Duration;

use ringport_plugin_abi as abi;

use super::{FakeAnswer, FakeCandidate, FakeHost, FakePlacement, FakeRemote};
use crate::names::is_repository_name;
use crate::place::{Class, Purpose};
use crate::resolver::{By, Status};

/// Headers that are the host's business: where a request goes and where its body ends.
const HOST_HEADERS: [&str; 6] =
    ["host", "content-length", "transfer-encoding", "connection", "te", "upgrade"];

/// What a call of `place` is about.
#[derive(Clone, Copy, Default)]
pub(super) struct InPlace {
    pub(super) is_stored: bool,
    pub(super) is_hosted: bool,
}

/// What a `ringport_ctx*` of the fake host points at.
pub(super) struct Context<'a> {
    host: &'a FakeHost,
    pub(super) can_refresh: bool,
    pub(super) in_place: InPlace,
    pub(super) answer: FakeAnswer,
    pub(super) placement: FakePlacement,
    pub(super) headers_wanted: Vec<String>,
    pub(super) rule: String,
    pub(super) error: String,
    /// The first rule that the answer broke.
    pub(super) broken: Option<String>,
}

/// The table that this fake host hands out.
pub(super) fn table(host: &FakeHost) -> &'static abi::Host {
    static PERFORMS: abi::Host = HOST;
    static SHOWS: abi::Host = abi::Host { features: 0, ..HOST };
    if host.only_shows_remote_tier { &SHOWS } else { &PERFORMS }
}

const HOST: abi::Host = abi::Host {
    size: size_of::<abi::Host>() as u32,
    reserved: 0,
    abi_major: abi::ABI_MAJOR,
    abi_minor: abi::ABI_MINOR,
    product: abi::Str::new("ringport-plugin-sdk fake host"),
    emit_upstream: Some(emit_upstream),
    emit_hosted: Some(emit_hosted),
    emit_rule: Some(emit_rule),
    emit_error: Some(emit_error),
    emit_freshness: Some(emit_freshness),
    features: abi::HOST_REMOTE_TIER,
    emit_candidate: Some(emit_candidate),
    emit_immutable: Some(emit_immutable),
    emit_cacheable: Some(emit_cacheable),
    emit_placement: Some(emit_placement),
    emit_remote: Some(emit_remote),
    want_header: Some(want_header),
    want_refresh: Some(want_refresh),
};

impl Context<'_> {
    pub(super) fn new(host: &FakeHost) -> Context<'_> {
        Context {
            host,
            can_refresh: false,
            in_place: InPlace::default(),
            answer: FakeAnswer::default(),
            placement: FakePlacement::default(),
            headers_wanted: Vec::new(),
            rule: String::new(),
            error: String::new(),
            broken: None,
        }
    }

    /// Runs a hook with this context and gives back the status as a host sees it.
    pub(super) fn run(&mut self, hook: impl FnOnce(*mut abi::Ctx) -> abi::Status) -> Status {
        let ctx: *mut Context<'_> = self;
        Status::from_abi(hook(ctx.cast()))
    }

    fn refuse(&mut self, problem: impl Into<String>) -> abi::Status {
        self.broken.get_or_insert(problem.into());
        abi::INVALID
    }

    fn add_candidate(&mut self, [upstream, repository, credential, ns]: [&str; 4]) -> abi::Status {
        let host = self.host;
        let Some(declared) = host.find(upstream) else {
            return self.refuse(format!("upstream {upstream:?} is not declared"));
        };
        if !is_repository_name(repository) {
            return self.refuse(format!("{repository:?} is not a repository name"));
        }
        if !credential.is_empty() && !declared.credentials.iter().any(|own| own == credential) {
            let name = &declared.canonical_name;
            return self.refuse(format!("upstream {name} has no credential {credential:?}"));
        }
        if !ns.is_empty() && declared.flags & abi::UPSTREAM_FORWARD_NS == 0 {
            return self.refuse(format!("upstream {} takes no ns", declared.canonical_name));
        }
        let forward_ns = host.find(ns).map(|upstream| upstream.canonical_name.clone());
        if !ns.is_empty() && forward_ns.is_none() {
            return self.refuse(format!("forward_ns {ns:?} is not declared"));
        }
        if self.answer.hosted.is_some() {
            return self.refuse("both hosted and upstream");
        }
        let candidate = FakeCandidate {
            upstream: declared.canonical_name.clone(),
            repository: repository.to_owned(),
            credential: (!credential.is_empty()).then(|| credential.to_owned()),
            forward_ns,
        };
        if !self.answer.candidates.contains(&candidate) {
            self.answer.candidates.push(candidate);
        }
        match self.answer.candidates.len() > abi::CANDIDATES_MAX {
            true => self.refuse(format!("more than {} candidates", abi::CANDIDATES_MAX)),
            false => abi::OK,
        }
    }

    fn set_hosted(&mut self, repository: &str) -> abi::Status {
        if !is_repository_name(repository) {
            return self.refuse(format!("{repository:?} is not a repository name"));
        }
        if !self.answer.candidates.is_empty() || self.answer.hosted.is_some() {
            return self.refuse("hosted besides another route");
        }
        self.answer.hosted = Some(repository.to_owned());
        abi::OK
    }

    fn set_placement(&mut self, placement: &abi::Placement, pool: &str) -> abi::Status {
        let class = match placement.storage_class {
            abi::CLASS_CACHE => Class::Cache,
            abi::CLASS_PINNED => Class::Pinned,
            abi::CLASS_PASS_THROUGH if self.in_place.is_hosted => {
                return self.refuse("hosted content passed through, which nobody else has");
            }
            abi::CLASS_PASS_THROUGH => Class::PassThrough,
            other => return self.refuse(format!("there is no class {other}")),
        };
        if !pool.is_empty() && !self.host.pools.iter().any(|own| own == pool) {
            return self.refuse(format!("pool {pool:?} is not declared"));
        }
        if placement.priority.unsigned_abs() > abi::PRIORITY_MAX.unsigned_abs() {
            return self.refuse(format!("priority {} is out of bounds", placement.priority));
        }
        self.placement.class = class;
        self.placement.pool = (!pool.is_empty()).then(|| pool.to_owned());
        let ttl = Some(placement.ttl_ms).filter(|ms| *ms != 0);
        self.placement.ttl = ttl.map(Duration::from_millis);
        self.placement.priority = placement.priority;
        abi::OK
    }

    fn add_remote(&mut self, remote: FakeRemote) -> abi::Status {
        match (remote.purpose, remote.method.as_str(), self.in_place.is_stored) {
            (Purpose::Read, "GET", false) | (Purpose::Write, "PUT" | "POST", true) => {}
            (Purpose::Read, "GET", true) => return self.refuse("a read of what is stored already"),
            (Purpose::Write, "PUT" | "POST", false) => {
                return self.refuse("a write of what is not stored yet");
            }
            (_, method, _) => {
                return self.refuse(format!("GET to read, PUT or POST to write, not {method:?}"));
            }
        }
        let is_printable = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        if !is_printable(&remote.url) || remote.url.contains('#') {
            return self.refuse("the URL for a remote tier is not printable");
        }
        let bad = remote.headers.iter().find(|(name, value)| {
            let name = name.to_ascii_lowercase();
            let is_own = !HOST_HEADERS.contains(&&*name);
            !is_token(&name) || !is_own || !value.split(' ').all(is_printable)
        });
        if let Some((name, _)) = bad {
            let name = name.to_ascii_lowercase();
            return self.refuse(format!("the header {name:?} is not its own, or not printable"));
        }
        let below = |tier: &String| {
            remote.url.strip_prefix(tier.as_str()).is_some_and(|path| path.starts_with('/'))
        };
        let bytes = remote.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if !self.host.remote_tiers.iter().any(below) {
            return self.refuse(format!("{:?} is below no declared remote tier", remote.url));
        }
        if remote.headers.len() > abi::REMOTE_HEADERS_MAX
            || remote.url.len().max(bytes) > abi::REMOTE_BYTES_MAX
            || self.placement.remotes.len() == abi::REMOTES_MAX
        {
            return self.refuse("too many requests to remote tiers, or too large ones");
        }
        self.placement.remotes.push(remote);
        abi::OK
    }

    /// What only the whole answer shows.
    pub(super) fn end_of_place(&mut self) {
        if self.placement.class == Class::PassThrough && !self.placement.remotes.is_empty() {
            self.refuse("content passed through and a remote tier used for it");
        }
    }
}

fn is_token(text: &str) -> bool {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(is_token)
}

/// # Safety
/// As for [`context`].
unsafe fn refuse_struct(ctx: *mut abi::Ctx) -> abi::Status {
    // SAFETY: the caller's promise.
    unsafe { emit(ctx, [], |context, []| context.refuse("a null struct")) }
}

/// The context behind `ctx`.
///
/// # Safety
/// `ctx` must be null or the pointer [`Context::run`] made for the running call.
unsafe fn context<'a>(ctx: *mut abi::Ctx) -> Option<&'a mut Context<'a>> {
    // SAFETY: the caller's promise; `run` of the context does not touch it while the hook runs.
    unsafe { ctx.cast::<Context<'a>>().as_mut() }
}

/// Hands the context and the strings of an emit call to `run`.
///
/// # Safety
/// As for [`context`]; the strings must be readable.
unsafe fn emit<const N: usize>(
    ctx: *mut abi::Ctx,
    strings: [abi::Str; N],
    run: impl FnOnce(&mut Context<'_>, [&str; N]) -> abi::Status,
) -> abi::Status {
    // SAFETY: the caller's promise.
    let Some(context) = (unsafe { context(ctx) }) else { return abi::INVALID };
    // SAFETY: the caller's promise.
    let texts = strings.map(|s| unsafe { s.as_bytes() }.map(std::str::from_utf8));
    if texts.iter().any(|text| !matches!(text, Some(Ok(_)))) {
        return context.refuse("a text is not UTF-8");
    }
    run(context, texts.map(|text| text.and_then(Result::ok).unwrap_or_default()))
}

unsafe extern "C" fn emit_upstream(
    ctx: *mut abi::Ctx,
    upstream: abi::Str,
    repository: abi::Str,
) -> abi::Status {
    let add = |context: &mut Context<'_>, [u, r]: [&str; 2]| context.add_candidate([u, r, "", ""]);
    // SAFETY: the contract of the emit functions.
    unsafe { emit(ctx, [upstream, repository], add) }
}

unsafe extern "C" fn emit_candidate(
    ctx: *mut abi::Ctx,
    candidate: *const abi::Candidate,
) -> abi::Status {
    // SAFETY: the contract of the emit functions: null or a sized struct, its strings readable.
    unsafe {
        let Some(c) = abi::read_sized(candidate) else { return refuse_struct(ctx) };
        let strings = [c.upstream, c.repository, c.credential, c.forward_ns];
        emit(ctx, strings, |context, strings| context.add_candidate(strings))
    }
}

unsafe extern "C" fn emit_hosted(ctx: *mut abi::Ctx, repository: abi::Str) -> abi::Status {
    // SAFETY: the contract of the emit functions.
    unsafe { emit(ctx, [repository], |context, [name]| context.set_hosted(name)) }
}

unsafe extern "C" fn emit_rule(ctx: *mut abi::Ctx, text: abi::Str) -> abi::Status {
    let set = |context: &mut Context<'_>, [text]: [&str; 1]| {
        text.clone_into(&mut context.rule);
        abi::OK
    };
    // SAFETY: the contract of the emit functions.
    unsafe { emit(ctx, [text], set) }
}

unsafe extern "C" fn emit_error(ctx: *mut abi::Ctx, text: abi::Str) -> abi::Status {
    let set = |context: &mut Context<'_>, [text]: [&str; 1]| {
        text.clone_into(&mut context.error);
        abi::OK
    };
    // SAFETY: the contract of the emit functions.
    unsafe { emit(ctx, [text], set) }
}

unsafe extern "C" fn emit_freshness(ctx: *mut abi::Ctx, ttl: u64, stale: u64) -> abi::Status {
    let set = |context: &mut Context<'_>, []: [&str; 0]| {
        let bound = |ms: u64| (ms != abi::MS_UNSET).then_some(ms);
        (context.answer.tag_ttl_ms, context.answer.stale_max_ms) = (bound(ttl), bound(stale));
        let too_long = |ms: &Option<u64>| ms.is_some_and(|ms| ms > abi::FRESHNESS_MS_MAX);
        match too_long(&context.answer.tag_ttl_ms) || too_long(&context.answer.stale_max_ms) {
            true => context.refuse("freshness above 366 days"),
            false => abi::OK,
        }
    };
    // SAFETY: the contract of the emit functions.
    unsafe { emit(ctx, [], set) }
}

unsafe extern "C" fn emit_immutable(ctx: *mut abi::Ctx) -> abi::Status {
    let set = |context: &mut Context<'_>, []: [&str; 0]| {
        context.answer.immutable = true;
        abi::OK
    };
    // SAFETY: the contract of the emit functions.
    unsafe { emit(ctx, [], set) }
}

unsafe extern "C" fn emit_cacheable(ctx: *mut abi::Ctx, depends_on: u64) -> abi::Status {
    let set = |context: &mut Context<'_>, []: [&str; 0]| {
        let known = By::KIND | By::METHOD | By::REFERENCE | By::CLIENT | By::PRINCIPAL;
        if depends_on & !(known | By::HEADERS).0 != 0 {
            return context.refuse(format!("unknown bits in {depends_on:#x}"));
        }
        let before = context.answer.cacheable.unwrap_or_default();
        context.answer.cacheable = Some(before | By(depends_on));
        abi::OK
    };
    // SAFETY: the contract of the emit functions.
    unsafe { emit(ctx, [], set) }
}

unsafe extern "C" fn emit_placement(
    ctx: *mut abi::Ctx,
    placement: *const abi::Placement,
) -> abi::Status {
    // SAFETY: the contract of the emit functions: null or a sized struct, its strings readable.
    unsafe {
        let Some(placement) = abi::read_sized(placement) else { return refuse_struct(ctx) };
        emit(ctx, [placement.pool], |context, [pool]| context.set_placement(&placement, pool))
    }
}

unsafe extern "C" fn emit_remote(ctx: *mut abi::Ctx, remote: *const abi::Remote) -> abi::Status {
    // SAFETY: the contract of the emit functions: null or a sized struct; its strings, and the
    // array of its headers and their strings, are readable.
    unsafe {
        let Some(remote) = abi::read_sized(remote) else { return refuse_struct(ctx) };
        let mut headers = Vec::new();
        for index in 0..remote.header_count {
            let abi::Header { name, value } = *remote.headers.add(index);
            let text = |s: abi::Str| {
                String::from_utf8_lossy(s.as_bytes().unwrap_or_default()).into_owned()
            };
            headers.push((text(name), text(value)));
        }
        let purpose = match remote.purpose {
            abi::REMOTE_READ => Purpose::Read,
            abi::REMOTE_WRITE => Purpose::Write,
            _ => return emit(ctx, [], |context, []| context.refuse("an unknown purpose")),
        };
        emit(ctx, [remote.method, remote.url], |context, [method, url]| {
            context.add_remote(FakeRemote {
                purpose,
                method: method.to_owned(),
                url: url.to_owned(),
                headers,
                expires_unix_ms: Some(remote.expires_unix_ms).filter(|ms| *ms != 0),
            })
        })
    }
}

unsafe extern "C" fn want_header(ctx: *mut abi::Ctx, name: abi::Str) -> abi::Status {
    let want = |context: &mut Context<'_>, [name]: [&str; 1]| {
        let name = name.to_ascii_lowercase();
        let is_secret = ["authorization", "cookie", "proxy-authorization"].contains(&&*name);
        if name.len() > abi::HEADER_NAME_BYTES_MAX
            || !is_token(&name)
            || is_secret
            || context.headers_wanted.contains(&name)
            || context.headers_wanted.len() == abi::HEADERS_MAX
        {
            return context.refuse(format!("the header {name:?} is not handed out"));
        }
        context.headers_wanted.push(name);
        abi::OK
    };
    // SAFETY: the contract of the host's functions.
    unsafe { emit(ctx, [name], want) }
}

unsafe extern "C" fn want_refresh(ctx: *mut abi::Ctx, interval_ms: u64) -> abi::Status {
    let want = |context: &mut Context<'_>, []: [&str; 0]| match interval_ms {
        _ if !context.can_refresh => context.refuse("a refresh without RINGPORT_CAN_REFRESH"),
        abi::REFRESH_MS_MIN..=abi::REFRESH_MS_MAX => abi::OK,
        _ => context.refuse(format!("a refresh every {interval_ms} ms")),
    };
    // SAFETY: the contract of the host's functions.
    unsafe { emit(ctx, [], want) }
}
