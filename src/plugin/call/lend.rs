//! Rust values lent to a plugin as the ABI's structs: nothing here outlives the call.

use std::net::IpAddr;
use std::sync::Arc;

use ringport_plugin_abi as abi;

use crate::plugin::declared::Declared;
use crate::plugin::view::View;
use crate::plugin::{PlaceRequest, RequestKind, ResolveRequest};

/// What `configure` is told, with the arrays that it points at.
pub(super) struct Lent {
    /// In the order of the declared upstreams.
    upstreams: Vec<abi::Upstream>,
    pools: Vec<abi::Str>,
    remote_tiers: Vec<abi::Str>,
    _arrays: Vec<Vec<abi::Str>>,
    _texts: Vec<String>,
    _declared: Arc<Declared>,
}

impl Lent {
    pub(super) fn new(declared: &Arc<Declared>) -> Lent {
        let texts: Vec<String> = declared.remote_tiers().iter().map(ToString::to_string).collect();
        let mut arrays = Vec::new();
        let mut upstreams = Vec::new();
        for upstream in declared.upstreams() {
            let aliases: Vec<_> =
                upstream.aliases.iter().map(|alias| abi::Str::new(alias.as_str())).collect();
            let credentials: Vec<_> =
                upstream.credentials.iter().map(|name| abi::Str::new(name)).collect();
            upstreams.push(abi::Upstream {
                size: size_of::<abi::Upstream>() as u32,
                flags: upstream.flags,
                canonical_name: abi::Str::new(upstream.canonical_name.as_str()),
                aliases: aliases.as_ptr(),
                alias_count: aliases.len(),
                credentials: credentials.as_ptr(),
                credential_count: credentials.len(),
            });
            arrays.extend([aliases, credentials]);
        }
        Lent {
            upstreams,
            pools: declared.pools().iter().map(|name| abi::Str::new(name)).collect(),
            // Moving the list of texts does not move the texts.
            remote_tiers: texts.iter().map(|origin| abi::Str::new(origin)).collect(),
            _arrays: arrays,
            _texts: texts,
            _declared: Arc::clone(declared),
        }
    }

    /// Runs `call` with the arguments of `configure`, which live as long as it runs.
    pub(super) fn with_args<T>(
        &self,
        name: &str,
        config: &str,
        worker_count: u32,
        call: impl FnOnce(&abi::ConfigureArgs) -> T,
    ) -> T {
        let pointers: Vec<*const abi::Upstream> =
            self.upstreams.iter().map(std::ptr::from_ref).collect();
        call(&abi::ConfigureArgs {
            size: size_of::<abi::ConfigureArgs>() as u32,
            worker_count,
            name: abi::Str::new(name),
            config: abi::Str::new(config),
            upstreams: pointers.as_ptr(),
            upstream_count: pointers.len(),
            pools: self.pools.as_ptr(),
            pool_count: self.pools.len(),
            remote_tiers: self.remote_tiers.as_ptr(),
            remote_tier_count: self.remote_tiers.len(),
        })
    }
}

/// The request as a plugin reads it; `headers` are the `header_count` values it asked for.
pub(super) fn resolve_request(
    request: &ResolveRequest<'_>,
    view: &View<'_>,
    headers: &[abi::Str],
) -> abi::ResolveRequest {
    let namespace = |namespace: Option<&crate::oci::Namespace>| {
        namespace.map_or(abi::Str::EMPTY, |namespace| abi::Str::new(namespace.as_str()))
    };
    let mut client_address = [0; 16];
    let client_address_len = match request.client {
        None => 0,
        Some(IpAddr::V4(address)) => {
            let [a, b, c, d] = address.octets();
            client_address = [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            4
        }
        Some(IpAddr::V6(address)) => {
            client_address = address.octets();
            16
        }
    };
    abi::ResolveRequest {
        size: size_of::<abi::ResolveRequest>() as u32,
        kind: match request.kind {
            RequestKind::Manifest => abi::KIND_MANIFEST,
            RequestKind::Blob => abi::KIND_BLOB,
            RequestKind::Tags => abi::KIND_TAGS,
            RequestKind::Referrers => abi::KIND_REFERRERS,
        },
        method: abi::Str::new(request.method),
        query_ns: namespace(request.ns),
        header_ns: namespace(request.header),
        name: abi::Str::new(request.name),
        reference: abi::Str::new(request.reference),
        client_address,
        client_address_len,
        reserved: 0,
        ns_source: view.ns_source,
        header_count: u32::try_from(headers.len()).unwrap_or(0),
        ns: abi::Str::new(&view.ns),
        repository: abi::Str::new(view.repository),
        principal: request.principal.map_or(abi::Str::EMPTY, abi::Str::new),
        headers: headers.as_ptr(),
    }
}

/// The request as a plugin reads it. `digest` is its digest as text, or empty.
pub(super) fn place_request(request: &PlaceRequest<'_>, digest: &str) -> abi::PlaceRequest {
    abi::PlaceRequest {
        size: size_of::<abi::PlaceRequest>() as u32,
        kind: if request.is_manifest { abi::KIND_MANIFEST } else { abi::KIND_BLOB },
        moment: if request.is_stored { abi::MOMENT_STORED } else { abi::MOMENT_STORE },
        reserved: 0,
        upstream: abi::Str::new(request.upstream.map_or("", |upstream| upstream.base())),
        repository: abi::Str::new(request.repository),
        digest: abi::Str::new(digest),
        media_type: abi::Str::new(request.media_type.unwrap_or_default()),
        content_bytes: request.size.unwrap_or(abi::BYTES_UNKNOWN),
    }
}
