//! What the host sends, made into borrowed Rust values: null, bad UTF-8 and sizes end here.

use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringport_plugin_abi as abi;

use super::answer::Wishes;
use crate::place::{Moment, PlaceRequest};
use crate::resolver::{Kind, NsSource, Refusal, Request};
use crate::setup::{Setup, Upstream};

/// A string of the host. `what` names it in the refusal of bytes that are not UTF-8.
///
/// # Safety
/// As for [`abi::Str::as_bytes`].
#[inline]
unsafe fn text<'a>(string: abi::Str, what: &str) -> Result<&'a str, Refusal> {
    if string.len == 0 {
        return Ok("");
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { string.as_bytes() };
    bytes.and_then(abi::text).ok_or_else(|| not_text(what))
}

/// As [`text`], of a string that probably points into a text that was looked at before: what is
/// part of that is not looked at again.
///
/// # Safety
/// As for [`abi::Str::as_bytes`].
unsafe fn text_within<'a>(
    string: abi::Str,
    known: &'a str,
    what: &str,
) -> Result<&'a str, Refusal> {
    let start = string.ptr.addr().checked_sub(known.as_ptr().addr());
    let part = start.and_then(|start| known.get(start..start.checked_add(string.len)?));
    match part {
        Some(part) => Ok(part),
        // SAFETY: the caller's promise.
        None => unsafe { text(string, what) },
    }
}

#[cold]
fn not_text(what: &str) -> Refusal {
    Refusal::invalid(format!("{what} is not UTF-8 text"))
}

fn none_if_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Strings in a row.
///
/// # Safety
/// `first` is null, or an array of `count` strings; all of it is readable during `'a`.
unsafe fn texts<'a>(
    first: *const abi::Str,
    count: usize,
    what: &str,
) -> Result<Vec<&'a str>, Refusal> {
    if first.is_null() {
        return Ok(Vec::new());
    }
    // SAFETY: the caller's promise.
    (0..count).map(|index| unsafe { text(*first.add(index), what) }).collect()
}

/// # Safety
/// Everything `args` points at must be readable during `'a`.
pub(super) unsafe fn read_setup<'a>(
    args: &abi::ConfigureArgs,
    wishes: Wishes<'a>,
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
    // SAFETY: the caller's promise, for all strings.
    let (instance, config, pools, remote_tiers) = unsafe {
        (
            text(args.name, "the plugin's name")?,
            text(args.config, "[plugin.config]")?,
            texts(args.pools, args.pool_count, "a pool's name")?,
            texts(args.remote_tiers, args.remote_tier_count, "a remote tier")?,
        )
    };
    let setup = Setup {
        instance,
        worker_count: args.worker_count,
        upstreams,
        pools,
        remote_tiers,
        performs_remote_tier: wishes.features() & abi::HOST_REMOTE_TIER != 0,
        wishes,
        headers_wanted: Default::default(),
    };
    Ok((setup, config))
}

/// # Safety
/// Everything `upstream` points at must be readable during `'a`.
unsafe fn read_upstream<'a>(upstream: &abi::Upstream) -> Result<Upstream<'a>, Refusal> {
    // SAFETY: the caller's promise, for all strings.
    let (canonical_name, aliases, credentials) = unsafe {
        (
            text(upstream.canonical_name, "an upstream's name")?,
            texts(upstream.aliases, upstream.alias_count, "an alias")?,
            texts(upstream.credentials, upstream.credential_count, "a credential's name")?,
        )
    };
    Ok(Upstream {
        canonical_name,
        aliases,
        forward_ns: upstream.flags & abi::UPSTREAM_FORWARD_NS != 0,
        plain_http: upstream.flags & abi::UPSTREAM_PLAIN_HTTP != 0,
        credentials,
    })
}

fn kind_of(kind: u32) -> Kind {
    match kind {
        abi::KIND_MANIFEST => Kind::Manifest,
        abi::KIND_BLOB => Kind::Blob,
        abi::KIND_TAGS => Kind::Tags,
        abi::KIND_REFERRERS => Kind::Referrers,
        other => Kind::Other(other),
    }
}

/// Where a request is put together.
pub(super) struct Room<'a> {
    /// That of a host that knows less than we.
    request: MaybeUninit<abi::ResolveRequest>,
    headers: [Option<&'a str>; abi::HEADERS_MAX],
}

impl Room<'_> {
    pub(super) fn new() -> Self {
        Room { request: MaybeUninit::uninit(), headers: [None; abi::HEADERS_MAX] }
    }
}

/// Reads a request, in place where that can be.
///
/// # Safety
/// `request` must be null or a sized struct whose strings are readable during `'a`.
#[inline]
pub(super) unsafe fn read_request<'a>(
    request: *const abi::ResolveRequest,
    room: &'a mut Room<'a>,
) -> Result<Request<'a>, Refusal> {
    // SAFETY: the caller's promise.
    let request = unsafe { abi::view_sized(request, &mut room.request) };
    let request = request.ok_or_else(|| Refusal::internal("the host sent a null request"))?;
    let [a, b, c, d, ..] = request.client_address;
    let client = match request.client_address_len {
        4 => Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d))),
        16 => Some(IpAddr::V6(Ipv6Addr::from(request.client_address))),
        _ => None,
    };
    let count = if request.headers.is_null() { 0 } else { request.header_count as usize };
    for (index, header) in room.headers.iter_mut().enumerate().take(count) {
        // SAFETY: the array has `header_count` strings, all readable.
        let value = unsafe { *request.headers.add(index) };
        if !value.ptr.is_null() {
            // SAFETY: the caller's promise.
            *header = Some(unsafe { text(value, "a header")? });
        }
    }
    let ns_source = match request.ns_source {
        abi::NS_NONE => NsSource::None,
        abi::NS_QUERY => NsSource::Query,
        abi::NS_HEADER => NsSource::Header,
        abi::NS_PATH => NsSource::Path,
        other => NsSource::Other(other),
    };
    // SAFETY: the caller's promise, for all strings.
    unsafe {
        let query_ns = text(request.query_ns, "ns")?;
        let header_ns = text(request.header_ns, "X-Dragonfly-Registry")?;
        let name = text(request.name, "the repository name")?;
        let named = match ns_source {
            NsSource::Query => query_ns,
            NsSource::Header => header_ns,
            _ => name,
        };
        Ok(Request {
            kind: kind_of(request.kind),
            method: text(request.method, "the method")?,
            query_ns: none_if_empty(query_ns),
            header_ns: none_if_empty(header_ns),
            name,
            reference: text(request.reference, "the reference")?,
            client,
            ns_source,
            ns: none_if_empty(text_within(request.ns, named, "the namespace")?),
            repository: text_within(request.repository, name, "the repository")?,
            principal: none_if_empty(text(request.principal, "the principal")?),
            headers: room.headers.get(..count.min(abi::HEADERS_MAX)).unwrap_or_default(),
        })
    }
}

/// # Safety
/// `request` must be null or a sized struct whose strings are readable during `'a`.
pub(super) unsafe fn read_place_request<'a>(
    request: *const abi::PlaceRequest,
) -> Result<PlaceRequest<'a>, Refusal> {
    // SAFETY: the caller's promise.
    let request = unsafe { abi::read_sized(request) };
    let request = request.ok_or_else(|| Refusal::internal("the host sent a null request"))?;
    // SAFETY: the caller's promise, for all strings.
    unsafe {
        Ok(PlaceRequest {
            kind: kind_of(request.kind),
            moment: match request.moment {
                abi::MOMENT_STORE => Moment::Store,
                abi::MOMENT_STORED => Moment::Stored,
                other => Moment::Other(other),
            },
            upstream: none_if_empty(text(request.upstream, "the upstream")?),
            repository: text(request.repository, "the repository")?,
            digest: none_if_empty(text(request.digest, "the digest")?),
            media_type: none_if_empty(text(request.media_type, "the media type")?),
            size: Some(request.content_bytes).filter(|size| *size != abi::BYTES_UNKNOWN),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_known_text_is_that_part_and_all_else_is_looked_at() {
        let (known, other) = ("ghcr.io/é/app", "ghcr.io");
        let of = |bytes: &[u8]| {
            let string = abi::Str { ptr: bytes.as_ptr(), len: bytes.len() };
            // SAFETY: the bytes live to the end of the test.
            unsafe { text_within(string, known, "it") }.map(str::to_owned).map_err(|e| e.message)
        };
        let bytes = known.as_bytes();
        for from in 0..=bytes.len() {
            for to in from..=bytes.len() {
                let expected = std::str::from_utf8(&bytes[from..to]).map_err(drop);
                let found = of(&bytes[from..to]).map_err(drop);
                assert_eq!(found.as_deref(), expected.as_deref(), "{from}..{to}");
            }
        }
        assert_eq!(of(other.as_bytes()).unwrap(), other);
        assert!(of(b"\xff").is_err());
        // SAFETY: none of these is read.
        let odd = |ptr, len| unsafe { text_within(abi::Str { ptr, len }, known, "it") };
        assert_eq!(odd(std::ptr::null(), 0).unwrap(), "");
        assert!(odd(std::ptr::null(), 1).is_err());
        assert!(odd(known.as_ptr(), usize::MAX).is_err());
    }
}
