//! The fake host's calls into a plugin, as the real one makes them.

use std::ptr::null_mut;

use ringport_plugin_abi as abi;

use super::host::{Context, InPlace, table};
use super::{FakeAnswer, FakeHost, FakePlacement};
use crate::place::{Moment, PlaceRequest};
use crate::resolver::{Kind, NsSource, Request, Status};

/// One instance and its worker 0.
#[derive(Debug)]
pub(super) struct Life {
    host: FakeHost,
    plugin: &'static abi::Plugin,
    instance: *mut abi::Instance,
    worker: *mut abi::Worker,
    headers_wanted: Vec<String>,
}

impl Life {
    /// `configure` and `worker_start`.
    pub(super) fn start(host: &FakeHost, plugin: &'static abi::Plugin) -> Result<Life, String> {
        let mut life = Life {
            host: host.clone(),
            plugin,
            instance: null_mut(),
            worker: null_mut(),
            headers_wanted: Vec::new(),
        };
        life.configure()?;
        life.worker = life.start_worker(life.instance)?;
        Ok(life)
    }

    fn configure(&mut self) -> Result<(), String> {
        let Some(configure) = self.plugin.configure else { return Err("no configure".into()) };
        let host = &self.host;
        let strs = |texts: &[String]| -> Vec<abi::Str> {
            texts.iter().map(|text| abi::Str::new(text)).collect()
        };
        let aliases: Vec<_> = host.upstreams.iter().map(|u| strs(&u.aliases)).collect();
        let credentials: Vec<_> = host.upstreams.iter().map(|u| strs(&u.credentials)).collect();
        let (pools, remote_tiers) = (strs(&host.pools), strs(&host.remote_tiers));
        let upstreams: Vec<abi::Upstream> = host
            .upstreams
            .iter()
            .zip(aliases.iter().zip(&credentials))
            .map(|(upstream, (aliases, credentials))| abi::Upstream {
                size: size_of::<abi::Upstream>() as u32,
                flags: upstream.flags,
                canonical_name: abi::Str::new(&upstream.canonical_name),
                aliases: aliases.as_ptr(),
                alias_count: aliases.len(),
                credentials: credentials.as_ptr(),
                credential_count: credentials.len(),
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
            pools: pools.as_ptr(),
            pool_count: pools.len(),
            remote_tiers: remote_tiers.as_ptr(),
            remote_tier_count: remote_tiers.len(),
        };
        let mut context = Context::new(&self.host);
        context.can_refresh = self.plugin.capabilities & abi::CAN_REFRESH != 0;
        let mut instance = null_mut();
        // SAFETY: all that `args` points at lives to the end of this function, the table for ever.
        let status =
            context.run(|ctx| unsafe { configure(table(&self.host), &args, ctx, &mut instance) });
        let outcome = started(status, &context, instance.is_null());
        self.headers_wanted = context.headers_wanted;
        self.instance = instance;
        outcome
    }

    fn start_worker(&self, instance: *const abi::Instance) -> Result<*mut abi::Worker, String> {
        let Some(start) = self.plugin.worker_start else { return Err("no worker_start".into()) };
        let mut context = Context::new(&self.host);
        let mut worker = null_mut();
        // SAFETY: the instance was made by this plugin and is not destroyed before its worker.
        let status = context.run(|ctx| unsafe { start(instance, 0, ctx, &mut worker) });
        started(status, &context, worker.is_null())?;
        Ok(worker)
    }

    /// One `resolve`.
    pub(super) fn resolve(&mut self, request: &Request<'_>) -> FakeAnswer {
        let Some(resolve) = self.plugin.resolve else { return FakeAnswer::default() };
        let missing = abi::Str::EMPTY;
        // An empty value that was sent has a pointer.
        let value =
            |v: &Option<&str>| v.map_or(missing, |v| abi::Str { len: v.len(), ptr: v.as_ptr() });
        let headers: Vec<abi::Str> = request.headers.iter().map(value).collect();
        let request = to_abi(request, &headers);
        let mut context = Context::new(&self.host);
        let worker = self.worker;
        // SAFETY: the worker was started and `&mut self` makes this its only user.
        let status = context.run(|ctx| unsafe { resolve(worker, &request, ctx) });
        let Context { mut answer, broken, rule, error, .. } = context;
        let empty = answer.hosted.is_none() && answer.candidates.is_empty();
        answer.cacheable = answer.cacheable.filter(|_| broken.is_none());
        let broken = broken.or_else(|| empty.then(|| "OK without a route".to_owned()));
        (answer.status, answer.error) = checked(status, broken, error);
        answer.rule = rule;
        answer
    }

    /// One `place`.
    pub(super) fn place(&mut self, request: &PlaceRequest<'_>) -> Option<FakePlacement> {
        let can = self.plugin.capabilities & abi::CAN_PLACE != 0;
        let place = self.plugin.place.filter(|_| can)?;
        let mut context = Context::new(&self.host);
        context.in_place = InPlace {
            is_stored: request.moment == Moment::Stored,
            is_hosted: request.upstream.is_none(),
        };
        let request = place_to_abi(request);
        let worker = self.worker;
        // SAFETY: as in `resolve`.
        let status = context.run(|ctx| unsafe { place(worker, &request, ctx) });
        context.end_of_place();
        let Context { mut placement, broken, rule, error, .. } = context;
        (placement.status, placement.error) = checked(status, broken, error);
        placement.rule = rule;
        Some(placement)
    }

    /// One `refresh`; a successor takes over.
    pub(super) fn refresh(&mut self) -> Result<bool, String> {
        let can = self.plugin.capabilities & abi::CAN_REFRESH != 0;
        let Some(refresh) = self.plugin.refresh.filter(|_| can) else {
            return Err("the plugin has no refresh".to_owned());
        };
        let mut context = Context::new(&self.host);
        let mut successor = null_mut();
        let instance = self.instance;
        // SAFETY: the instance was configured and is not destroyed before `self` is dropped.
        let status =
            context.run(|ctx| unsafe { refresh(instance, table(&self.host), ctx, &mut successor) });
        started(status, &context, false)?;
        if successor.is_null() {
            return Ok(false);
        }
        let worker = match self.start_worker(successor) {
            Ok(worker) => worker,
            Err(error) => {
                end(self.plugin, null_mut(), successor);
                return Err(error);
            }
        };
        let old = (self.worker, self.instance);
        (self.worker, self.instance) = (worker, successor);
        end(self.plugin, old.0, old.1);
        Ok(true)
    }

    pub(super) fn headers_wanted(&self) -> &[String] {
        &self.headers_wanted
    }
}

/// `worker_stop` and `destroy`; both take null.
fn end(plugin: &abi::Plugin, worker: *mut abi::Worker, instance: *mut abi::Instance) {
    // SAFETY: each handle is null or as the plugin made it; the callers end each once, in order.
    unsafe {
        if let Some(worker_stop) = plugin.worker_stop {
            worker_stop(worker);
        }
        if let Some(destroy) = plugin.destroy {
            destroy(instance);
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        end(self.plugin, self.worker, self.instance);
    }
}

/// OK with an answer that broke a rule is INTERNAL with the rule as its text.
fn checked(status: Status, broken: Option<String>, error: String) -> (Option<Status>, String) {
    match (status, broken) {
        (Status::Ok, Some(problem)) => (Some(Status::Internal), problem),
        _ => (Some(status), error),
    }
}

fn started(status: Status, context: &Context<'_>, is_null: bool) -> Result<(), String> {
    match (status, &context.broken) {
        (Status::Ok, Some(problem)) => Err(problem.clone()),
        (Status::Ok, None) if is_null => Err("OK without a handle".to_owned()),
        (Status::Ok, None) => Ok(()),
        _ => Err(context.error.clone()),
    }
}

fn kind_to_abi(kind: Kind) -> u32 {
    match kind {
        Kind::Manifest => abi::KIND_MANIFEST,
        Kind::Blob => abi::KIND_BLOB,
        Kind::Tags => abi::KIND_TAGS,
        Kind::Referrers => abi::KIND_REFERRERS,
        Kind::Other(number) => number,
    }
}

fn place_to_abi(request: &PlaceRequest<'_>) -> abi::PlaceRequest {
    abi::PlaceRequest {
        size: size_of::<abi::PlaceRequest>() as u32,
        kind: kind_to_abi(request.kind),
        moment: match request.moment {
            Moment::Store => abi::MOMENT_STORE,
            Moment::Stored => abi::MOMENT_STORED,
            Moment::Other(number) => number,
        },
        reserved: 0,
        upstream: abi::Str::new(request.upstream.unwrap_or_default()),
        repository: abi::Str::new(request.repository),
        digest: abi::Str::new(request.digest.unwrap_or_default()),
        media_type: abi::Str::new(request.media_type.unwrap_or_default()),
        content_bytes: request.size.unwrap_or(abi::BYTES_UNKNOWN),
    }
}

fn to_abi(request: &Request<'_>, headers: &[abi::Str]) -> abi::ResolveRequest {
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
        kind: kind_to_abi(request.kind),
        method: abi::Str::new(request.method),
        query_ns: abi::Str::new(request.query_ns.unwrap_or_default()),
        header_ns: abi::Str::new(request.header_ns.unwrap_or_default()),
        name: abi::Str::new(request.name),
        reference: abi::Str::new(request.reference),
        client_address,
        client_address_len,
        reserved: 0,
        ns_source: match request.ns_source {
            NsSource::None => abi::NS_NONE,
            NsSource::Query => abi::NS_QUERY,
            NsSource::Header => abi::NS_HEADER,
            NsSource::Path => abi::NS_PATH,
            NsSource::Other(number) => number,
        },
        header_count: u32::try_from(headers.len()).unwrap_or(u32::MAX),
        ns: abi::Str::new(request.ns.unwrap_or_default()),
        repository: abi::Str::new(request.repository),
        principal: abi::Str::new(request.principal.unwrap_or_default()),
        headers: headers.as_ptr(),
    }
}
