//! The pointers of the fake host: its table, its context and the calls into a plugin.

use std::ptr::null_mut;

use ringport_plugin_abi as abi;

use super::{FakeAnswer, FakeHost};
use crate::names::is_repository_name;
use crate::resolver::{Kind, Request, Status};

/// What a `ringport_ctx*` of the fake host points at.
struct Context<'a> {
    upstreams: &'a [super::FakeUpstream],
    answer: FakeAnswer,
    /// The first rule that the answer broke.
    broken: Option<String>,
}

static HOST: abi::Host = abi::Host {
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
    features: 0,
    emit_candidate: None,
    emit_immutable: None,
    emit_cacheable: None,
    emit_placement: None,
    emit_remote: None,
    want_header: None,
    want_refresh: None,
};

impl Context<'_> {
    fn new(host: &FakeHost) -> Context<'_> {
        Context { upstreams: &host.upstreams, answer: FakeAnswer::default(), broken: None }
    }

    /// Runs a hook with this context and gives back the status as a host sees it.
    fn run(&mut self, hook: impl FnOnce(*mut abi::Ctx) -> abi::Status) -> Status {
        let ctx: *mut Context<'_> = self;
        Status::from_abi(hook(ctx.cast()))
    }

    fn refuse(&mut self, problem: String) -> abi::Status {
        self.broken.get_or_insert(problem);
        abi::INVALID
    }

    fn add_upstream(&mut self, upstream: &str, repository: &str) -> abi::Status {
        let means = |u: &&super::FakeUpstream| {
            u.canonical_name == upstream || u.aliases.iter().any(|alias| alias == upstream)
        };
        let Some(declared) = self.upstreams.iter().find(means) else {
            return self.refuse(format!("upstream {upstream:?} is not declared"));
        };
        if !is_repository_name(repository) {
            return self.refuse(format!("{repository:?} is not a repository name"));
        }
        if self.answer.hosted.is_some() {
            return self.refuse("both hosted and upstream".to_owned());
        }
        let candidate = (declared.canonical_name.clone(), repository.to_owned());
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
            return self.refuse("hosted besides another route".to_owned());
        }
        self.answer.hosted = Some(repository.to_owned());
        abi::OK
    }
}

/// Hands the context and the strings of an emit call to `run`.
///
/// # Safety
/// `ctx` must be null or the pointer [`Context::run`] made for the running call; the strings must
/// be readable.
unsafe fn emit<const N: usize>(
    ctx: *mut abi::Ctx,
    strings: [abi::Str; N],
    run: impl FnOnce(&mut Context<'_>, [&str; N]) -> abi::Status,
) -> abi::Status {
    // SAFETY: the caller's promise; `run` of the context does not touch it while the hook runs.
    let Some(context) = (unsafe { ctx.cast::<Context<'_>>().as_mut() }) else {
        return abi::INVALID;
    };
    // SAFETY: the caller's promise.
    let texts = strings.map(|s| unsafe { s.as_bytes() }.map(std::str::from_utf8));
    if texts.iter().any(|text| !matches!(text, Some(Ok(_)))) {
        return context.refuse("a text is not UTF-8".to_owned());
    }
    run(context, texts.map(|text| text.and_then(Result::ok).unwrap_or_default()))
}

unsafe extern "C" fn emit_upstream(
    ctx: *mut abi::Ctx,
    upstream: abi::Str,
    repository: abi::Str,
) -> abi::Status {
    let add = |context: &mut Context<'_>, [u, r]: [&str; 2]| context.add_upstream(u, r);
    // SAFETY: the contract of the emit functions.
    unsafe { emit(ctx, [upstream, repository], add) }
}

unsafe extern "C" fn emit_hosted(ctx: *mut abi::Ctx, repository: abi::Str) -> abi::Status {
    // SAFETY: the contract of the emit functions.
    unsafe { emit(ctx, [repository], |context, [name]| context.set_hosted(name)) }
}

unsafe extern "C" fn emit_rule(ctx: *mut abi::Ctx, text: abi::Str) -> abi::Status {
    let set = |context: &mut Context<'_>, [text]: [&str; 1]| {
        text.clone_into(&mut context.answer.rule);
        abi::OK
    };
    // SAFETY: the contract of the emit functions.
    unsafe { emit(ctx, [text], set) }
}

unsafe extern "C" fn emit_error(ctx: *mut abi::Ctx, text: abi::Str) -> abi::Status {
    let set = |context: &mut Context<'_>, [text]: [&str; 1]| {
        text.clone_into(&mut context.answer.error);
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
            true => context.refuse("freshness above 366 days".to_owned()),
            false => abi::OK,
        }
    };
    // SAFETY: the contract of the emit functions.
    unsafe { emit(ctx, [], set) }
}

/// One instance and its worker 0.
#[derive(Debug)]
pub(super) struct Life {
    host: FakeHost,
    plugin: &'static abi::Plugin,
    instance: *mut abi::Instance,
    worker: *mut abi::Worker,
}

impl Life {
    /// `configure` and `worker_start`.
    pub(super) fn start(host: &FakeHost, plugin: &'static abi::Plugin) -> Result<Life, String> {
        let mut life =
            Life { host: host.clone(), plugin, instance: null_mut(), worker: null_mut() };
        life.configure()?;
        life.start_worker()?;
        Ok(life)
    }

    fn configure(&mut self) -> Result<(), String> {
        let Some(configure) = self.plugin.configure else { return Err("no configure".into()) };
        let aliases: Vec<Vec<abi::Str>> = self
            .host
            .upstreams
            .iter()
            .map(|u| u.aliases.iter().map(|alias| abi::Str::new(alias)).collect())
            .collect();
        let upstreams: Vec<abi::Upstream> = self
            .host
            .upstreams
            .iter()
            .zip(&aliases)
            .map(|(upstream, aliases)| abi::Upstream {
                size: size_of::<abi::Upstream>() as u32,
                flags: upstream.flags,
                canonical_name: abi::Str::new(&upstream.canonical_name),
                aliases: aliases.as_ptr(),
                alias_count: aliases.len(),
                credentials: std::ptr::null(),
                credential_count: 0,
            })
            .collect();
        let pointers: Vec<*const abi::Upstream> =
            upstreams.iter().map(std::ptr::from_ref).collect();
        let args = abi::ConfigureArgs {
            size: size_of::<abi::ConfigureArgs>() as u32,
            worker_count: 1,
            name: abi::Str::new("test"),
            config: abi::Str::new(&self.host.config),
            upstreams: pointers.as_ptr(),
            upstream_count: pointers.len(),
            pools: std::ptr::null(),
            pool_count: 0,
            remote_tiers: std::ptr::null(),
            remote_tier_count: 0,
        };
        let mut context = Context::new(&self.host);
        let instance = &mut self.instance;
        // SAFETY: all that `args` points at lives to the end of this function, `HOST` for ever.
        let status = context.run(|ctx| unsafe { configure(&HOST, &args, ctx, instance) });
        started(status, &context, self.instance.is_null())
    }

    fn start_worker(&mut self) -> Result<(), String> {
        let Some(start) = self.plugin.worker_start else { return Err("no worker_start".into()) };
        let mut context = Context::new(&self.host);
        let (instance, worker) = (self.instance, &mut self.worker);
        // SAFETY: the instance was configured and is not destroyed before `self` is dropped.
        let status = context.run(|ctx| unsafe { start(instance, 0, ctx, worker) });
        started(status, &context, self.worker.is_null())
    }

    /// One `resolve`.
    pub(super) fn resolve(&mut self, request: &Request<'_>) -> FakeAnswer {
        let Some(resolve) = self.plugin.resolve else { return FakeAnswer::default() };
        let request = to_abi(request);
        let mut context = Context::new(&self.host);
        let worker = self.worker;
        // SAFETY: the worker was started and `&mut self` makes this its only user.
        let status = context.run(|ctx| unsafe { resolve(worker, &request, ctx) });
        let Context { mut answer, broken, .. } = context;
        answer.status = Some(status);
        let empty = answer.hosted.is_none() && answer.candidates.is_empty();
        let broken = broken.or_else(|| empty.then(|| "OK without a route".to_owned()));
        if let (Status::Ok, Some(problem)) = (status, broken) {
            answer.status = Some(Status::Internal);
            answer.error = problem;
        }
        answer
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // SAFETY: each handle is null or as the plugin made it, and is ended once, in order.
        unsafe {
            if let Some(worker_stop) = self.plugin.worker_stop {
                worker_stop(self.worker);
            }
            if let Some(destroy) = self.plugin.destroy {
                destroy(self.instance);
            }
        }
    }
}

fn started(status: Status, context: &Context<'_>, is_null: bool) -> Result<(), String> {
    match status {
        Status::Ok if is_null => Err("OK without a handle".to_owned()),
        Status::Ok => Ok(()),
        _ => Err(context.answer.error.clone()),
    }
}

fn to_abi(request: &Request<'_>) -> abi::ResolveRequest {
    let kind = match request.kind {
        Kind::Manifest => abi::KIND_MANIFEST,
        Kind::Blob => abi::KIND_BLOB,
        Kind::Tags => abi::KIND_TAGS,
        Kind::Referrers => abi::KIND_REFERRERS,
        Kind::Other(number) => number,
    };
    let mut client_address = [0; 16];
    let client_address_len = match request.client {
        None => 0,
        Some(std::net::IpAddr::V4(address)) => {
            for (to, from) in client_address.iter_mut().zip(address.octets()) {
                *to = from;
            }
            4
        }
        Some(std::net::IpAddr::V6(address)) => {
            client_address = address.octets();
            16
        }
    };
    abi::ResolveRequest {
        size: size_of::<abi::ResolveRequest>() as u32,
        kind,
        method: abi::Str::new(request.method),
        query_ns: abi::Str::new(request.query_ns.unwrap_or_default()),
        header_ns: abi::Str::new(request.header_ns.unwrap_or_default()),
        name: abi::Str::new(request.name),
        reference: abi::Str::new(request.reference),
        client_address,
        client_address_len,
        reserved: 0,
        ns_source: abi::NS_NONE,
        header_count: 0,
        ns: abi::Str::EMPTY,
        repository: abi::Str::new(request.name),
        principal: abi::Str::EMPTY,
        headers: std::ptr::null(),
    }
}
