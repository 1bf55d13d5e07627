//! Structs as they cross, in memory that the kit can spoil: larger than a plugin knows, followed
//! by bytes that are nobody's, overwritten after the call.

use std::net::IpAddr;

use ringport_plugin_abi as abi;

use crate::request::Request;

/// What spoilt and foreign memory holds: no text, no small number and no address.
pub(crate) const SPOILT: u8 = 0xa5;
const SPOILT_LEN: usize = usize::from_ne_bytes([SPOILT; 8]);
/// Bytes behind every string that are not part of it, before a NUL ends what ran on.
const BEHIND: usize = 16;
/// How much larger the structs of later hosts are.
const LATER_BYTES: usize = 64;

/// A struct with room behind it.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Grown<T> {
    pub(crate) known: T,
    later: [u8; LATER_BYTES],
}

impl<T> Grown<T> {
    pub(crate) const fn new(known: T) -> Grown<T> {
        Grown { known, later: [SPOILT; LATER_BYTES] }
    }

    /// What a host says of the struct's size.
    pub(crate) fn size(shape: Shape, size_of_1_0: u32) -> u32 {
        match shape {
            Shape::Exact => size_of::<T>() as u32,
            Shape::Later => size_of::<Grown<T>>() as u32,
            Shape::Old => size_of_1_0,
        }
    }
}

/// Whose structs are handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Ours.
    Exact,
    /// They go on behind ours, as those of a later minor may.
    Later,
    /// Those of 1.0; what 1.1 added is spoilt.
    Old,
}

/// What an empty string points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EmptyAt {
    Null,
    /// Not null, and not readable.
    Somewhere,
}

/// A string that owns its bytes and can spoil them.
#[derive(Debug)]
pub(crate) struct Text {
    bytes: Vec<u8>,
    len: usize,
}

impl Text {
    pub(crate) fn new(text: &[u8]) -> Text {
        let mut bytes = text.to_vec();
        bytes.resize(text.len() + BEHIND, SPOILT);
        bytes.push(0);
        Text { bytes, len: text.len() }
    }

    pub(crate) fn as_abi(&self, empty: EmptyAt) -> abi::Str {
        match (self.len, empty) {
            (0, EmptyAt::Null) => abi::Str::EMPTY,
            (0, EmptyAt::Somewhere) => abi::Str { ptr: std::ptr::without_provenance(1), len: 0 },
            (len, _) => abi::Str { ptr: self.bytes.as_ptr(), len },
        }
    }

    pub(crate) fn spoil(&mut self) {
        self.bytes.fill(SPOILT);
    }

    fn is_spoilt(&self) -> bool {
        self.bytes.iter().all(|byte| *byte == SPOILT)
    }
}

/// A string as a spoilt struct holds it.
pub(crate) const fn spoilt_str() -> abi::Str {
    abi::Str { ptr: std::ptr::without_provenance(SPOILT_LEN), len: SPOILT_LEN }
}

/// One request, laid out for a call. The heap keeps it in place while the frame moves.
#[derive(Debug)]
pub(crate) struct Frame {
    texts: Vec<Text>,
    _headers: Vec<abi::Str>,
    request: Box<Grown<abi::ResolveRequest>>,
}

/// Size of `ringport_resolve_request` in 1.0.
const REQUEST_1_0: u32 = 112;

// SAFETY: the pointers lead into the frame's own heap memory, which moves with it.
unsafe impl Send for Frame {}

impl Frame {
    /// Lays out a request with the values of `header_count` headers.
    pub(crate) fn new(
        request: &Request,
        header_count: usize,
        shape: Shape,
        empty: EmptyAt,
    ) -> Frame {
        let fields = [
            &request.method,
            &request.query_ns,
            &request.header_ns,
            &request.name,
            &request.reference,
            &request.ns,
            &request.repository,
            &request.principal,
        ];
        let mut texts: Vec<Text> = fields.iter().map(|bytes| Text::new(bytes)).collect();
        let header = Text::new(request.header.as_deref().unwrap_or_default());
        let value = match &request.header {
            None => abi::Str::EMPTY,
            // An empty value that was sent has a pointer.
            Some(_) => header.as_abi(EmptyAt::Somewhere),
        };
        texts.push(header);
        let headers = vec![value; header_count];
        let mut strings = texts.iter().map(|text| text.as_abi(empty));
        let mut next = || strings.next().unwrap_or(abi::Str::EMPTY);
        let (client_address, client_address_len) = address(request.client);
        let mut known = abi::ResolveRequest {
            size: Grown::<abi::ResolveRequest>::size(shape, REQUEST_1_0),
            kind: request.kind,
            method: next(),
            query_ns: next(),
            header_ns: next(),
            name: next(),
            reference: next(),
            client_address,
            client_address_len,
            reserved: 0,
            ns_source: request.ns_source,
            header_count: u32::try_from(header_count).unwrap_or(u32::MAX),
            ns: next(),
            repository: next(),
            principal: next(),
            headers: headers.as_ptr(),
        };
        if shape == Shape::Old {
            spoil_1_1(&mut known);
        }
        Frame { texts, _headers: headers, request: Box::new(Grown::new(known)) }
    }

    pub(crate) fn as_ptr(&self) -> *const abi::ResolveRequest {
        (&raw const *self.request).cast()
    }

    /// Overwrites all of it, as a host may after the call.
    pub(crate) fn spoil(&mut self) {
        self.texts.iter_mut().for_each(Text::spoil);
        let request = &mut self.request.known;
        (request.size, request.kind) = (u32::MAX, u32::MAX);
        for string in [
            &mut request.method,
            &mut request.query_ns,
            &mut request.header_ns,
            &mut request.name,
            &mut request.reference,
        ] {
            *string = spoilt_str();
        }
        request.client_address = [SPOILT; 16];
        spoil_1_1(request);
    }

    /// Nobody wrote into it since it was spoilt.
    pub(crate) fn is_spoilt(&self) -> bool {
        let request = &self.request.known;
        let strings = [
            request.method,
            request.query_ns,
            request.header_ns,
            request.name,
            request.reference,
            request.ns,
            request.repository,
            request.principal,
        ];
        let is_spoilt = |s: &abi::Str| s.len == SPOILT_LEN && s.ptr.addr() == SPOILT_LEN;
        self.texts.iter().all(Text::is_spoilt)
            && strings.iter().all(is_spoilt)
            && (request.size, request.kind) == (u32::MAX, u32::MAX)
            && request.client_address == [SPOILT; 16]
    }
}

fn spoil_1_1(request: &mut abi::ResolveRequest) {
    (request.ns_source, request.header_count) = (u32::MAX, u32::MAX);
    (request.ns, request.repository) = (spoilt_str(), spoilt_str());
    (request.principal, request.headers) = (spoilt_str(), std::ptr::without_provenance(8));
}

fn address(client: Option<IpAddr>) -> ([u8; 16], u32) {
    match client {
        None => ([0; 16], 0),
        Some(IpAddr::V6(address)) => (address.octets(), 16),
        Some(IpAddr::V4(address)) => {
            let [a, b, c, d] = address.octets();
            ([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 4)
        }
    }
}
