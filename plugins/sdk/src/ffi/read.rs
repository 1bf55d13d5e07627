//! What the host sends, made into borrowed Rust values: null, bad UTF-8 and sizes end here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringport_plugin_abi as abi;

use crate::resolver::{Kind, Refusal, Request, Setup, Upstream};

/// A string of the host. `what` names it in the refusal of bytes that are not UTF-8.
///
/// # Safety
/// As for [`abi::Str::as_bytes`].
unsafe fn text<'a>(string: abi::Str, what: &str) -> Result<&'a str, Refusal> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { string.as_bytes() };
    bytes
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .ok_or_else(|| Refusal::invalid(format!("{what} is not UTF-8 text")))
}

fn none_if_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// # Safety
/// Everything `args` points at must be readable during `'a`.
pub(super) unsafe fn read_setup<'a>(
    args: &abi::ConfigureArgs,
) -> Result<(Setup<'a>, &'a str), Refusal> {
    let mut upstreams = Vec::new();
    for index in 0..args.upstream_count {
        if args.upstreams.is_null() {
            return Err(Refusal::internal("the host sent a null array of upstreams"));
        }
        // SAFETY: the array has `upstream_count` readable pointers, each to a sized struct.
        let upstream = unsafe { abi::read_sized(*args.upstreams.add(index)) };
        let upstream =
            upstream.ok_or_else(|| Refusal::internal("the host sent a null upstream"))?;
        // SAFETY: what the struct points at is readable, as the caller promises.
        upstreams.push(unsafe { read_upstream(&upstream)? });
    }
    // SAFETY: the caller's promise.
    let (instance, config) =
        unsafe { (text(args.name, "the plugin's name")?, text(args.config, "[plugin.config]")?) };
    Ok((Setup { instance, worker_count: args.worker_count, upstreams }, config))
}

/// # Safety
/// Everything `upstream` points at must be readable during `'a`.
unsafe fn read_upstream<'a>(upstream: &abi::Upstream) -> Result<Upstream<'a>, Refusal> {
    let mut aliases = Vec::new();
    if !upstream.aliases.is_null() {
        for index in 0..upstream.alias_count {
            // SAFETY: the array has `alias_count` readable strings.
            aliases.push(unsafe { text(*upstream.aliases.add(index), "an alias")? });
        }
    }
    Ok(Upstream {
        // SAFETY: the caller's promise.
        canonical_name: unsafe { text(upstream.canonical_name, "an upstream's name")? },
        aliases,
        forward_ns: upstream.flags & abi::UPSTREAM_FORWARD_NS != 0,
        plain_http: upstream.flags & abi::UPSTREAM_PLAIN_HTTP != 0,
    })
}

/// # Safety
/// `request` must be null or a sized struct whose strings are readable during `'a`.
pub(super) unsafe fn read_request<'a>(
    request: *const abi::ResolveRequest,
) -> Result<Request<'a>, Refusal> {
    // SAFETY: the caller's promise.
    let request = unsafe { abi::read_sized(request) };
    let request = request.ok_or_else(|| Refusal::internal("the host sent a null request"))?;
    let kind = match request.kind {
        abi::KIND_MANIFEST => Kind::Manifest,
        abi::KIND_BLOB => Kind::Blob,
        abi::KIND_TAGS => Kind::Tags,
        abi::KIND_REFERRERS => Kind::Referrers,
        other => Kind::Other(other),
    };
    let [a, b, c, d, ..] = request.client_address;
    let client = match request.client_address_len {
        4 => Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d))),
        16 => Some(IpAddr::V6(Ipv6Addr::from(request.client_address))),
        _ => None,
    };
    // SAFETY: the caller's promise, for all five strings.
    unsafe {
        Ok(Request {
            kind,
            method: text(request.method, "the method")?,
            query_ns: none_if_empty(text(request.query_ns, "ns")?),
            header_ns: none_if_empty(text(request.header_ns, "X-Dragonfly-Registry")?),
            name: text(request.name, "the repository name")?,
            reference: text(request.reference, "the reference")?,
            client,
        })
    }
}
