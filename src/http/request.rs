//! The head of a request, read once, owned, and usable while the connection's buffer is reused.

use std::borrow::Cow;
use std::fmt;

use super::head_error::HeadError;
use super::method::Method;

mod fields;
mod line;
mod parse;

/// Whether these first bytes of a connection are a TLS handshake record: a client that tries TLS
/// first and waits up to 10 s for an answer. [`HeadError::Tls`] is the answer to give at once.
pub fn looks_like_tls(first_bytes: &[u8]) -> bool {
    first_bytes.first() == Some(&0x16)
}

/// What [`RequestHead::parse`] found in the bytes so far.
#[derive(Debug)]
pub enum Parsed {
    /// All well, but the head isn't complete.
    Partial,
    /// A whole head.
    Complete {
        /// The head.
        head: RequestHead,
        /// Its length in bytes; what follows is the body or the next request.
        len: usize,
    },
}

/// The versions spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: closes by default, has no chunks and no interim responses.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// Where the request's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is no byte to read: no length given, or length 0.
    None,
    /// So many bytes, at least one and at most `limits::CONTENT_LENGTH_MAX`.
    Length(u64),
    /// Chunks, for a [`super::ChunkedDecoder`].
    Chunked,
}

/// A request head. Two allocations, to be used again: one copy of its bytes, and the places of its
/// headers.
#[derive(Clone)]
pub struct RequestHead {
    bytes: Vec<u8>,
    /// Where the fields begin, with which a connection's next head most often ends, too; 0 when nothing
    /// holds that is said here.
    fields_at: u16,
    /// Pieces of the fields, as is the host.
    headers: Vec<Header>,
    path: Span,
    query: Option<Span>,
    host: Option<Span>,
    asked: Asked,
    /// The method.
    pub method: Method,
    /// The version.
    pub version: Version,
    /// Where the body ends.
    pub body: BodyFraming,
    /// `Content-Length` as given; `Some(0)` is told apart from none.
    pub content_length: Option<u64>,
    /// The client waits for `100 Continue` before it sends the body.
    pub expect_100: bool,
    /// The client wants the connection kept: the default of HTTP/1.1, on request in HTTP/1.0.
    pub keep_alive: bool,
}

/// A piece of the head's bytes; a head is shorter than 64 KiB.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u16,
    end: u16,
}

#[derive(Clone, Copy)]
struct Header {
    name: Span,
    value: Span,
}

/// Which of the fields that every request is asked for, and few have, are in a head: a bit each. They
/// are not looked for where they are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Asked(u8);

impl Asked {
    const VIA: Self = Self(1);
    const RANGE: Self = Self(1 << 1);
    const AUTHORIZATION: Self = Self(1 << 2);
    const IF_NONE_MATCH: Self = Self(1 << 3);
    const X_DRAGONFLY_REGISTRY: Self = Self(1 << 4);

    fn add(&mut self, field: Self) {
        self.0 |= field.0;
    }

    fn has(self, field: Self) -> bool {
        self.0 & field.0 != 0
    }
}

impl RequestHead {
    /// Reads a head from the start of `buf`, the bytes received so far. One empty line before the
    /// request line is skipped (RFC 9112 §2.2) and counted in `len`.
    ///
    /// Call again with more bytes after [`Parsed::Partial`]; it starts over, which the cap on the
    /// head keeps cheap. A fault is reported as soon as its bytes are there.
    ///
    /// # Errors
    /// See [`HeadError`]: answer with its status and close.
    pub fn parse(buf: &[u8]) -> Result<Parsed, HeadError> {
        let mut head = Self::none();
        let len = parse::read(buf, &mut head)?;
        Ok(len.map_or(Parsed::Partial, |len| Parsed::Complete { head, len }))
    }

    /// As [`RequestHead::parse`], into this head, whose memory is used again: the length in bytes,
    /// or `None` for [`Parsed::Partial`]. Unless a length comes, nothing that it says holds. Where all
    /// but the request line is what it was, byte for byte, only that is read.
    ///
    /// # Errors
    /// As for [`RequestHead::parse`].
    pub fn read(&mut self, buf: &[u8]) -> Result<Option<usize>, HeadError> {
        parse::read(buf, self)
    }

    /// No request yet: for [`RequestHead::read`]. Allocates nothing.
    pub fn none() -> Self {
        let empty = Span { start: 0, end: 0 };
        Self {
            bytes: Vec::new(),
            fields_at: 0,
            headers: Vec::new(),
            path: empty,
            query: None,
            host: None,
            asked: Asked::default(),
            method: Method::Other,
            version: Version::Http11,
            body: BodyFraming::None,
            content_length: None,
            expect_100: false,
            keep_alive: false,
        }
    }

    /// Bytes that it has allocated.
    pub fn allocated(&self) -> usize {
        self.bytes.capacity() + self.headers.capacity() * size_of::<Header>()
    }

    /// The path of the target as sent, beginning with `/`; `*` for `OPTIONS *`.
    pub fn path(&self) -> &str {
        // An absolute target may leave the path out (RFC 9112 §3.2.1).
        match self.text(self.path) {
            "" => "/",
            path => path,
        }
    }

    /// The query of the target as sent, without the `?`.
    pub fn query(&self) -> Option<&str> {
        self.query.map(|span| self.text(span))
    }

    /// Path and query as bytes, as [`RequestHead::path`] and [`RequestHead::query`] have them: to compare
    /// them with others.
    pub fn target(&self) -> (&[u8], Option<&[u8]>) {
        let path = self.path.of(&self.bytes);
        let path = if path.is_empty() { b"/" } else { path };
        (path, self.query.map(|query| query.of(&self.bytes)))
    }

    /// The Host header, `host` or `host:port`; HTTP/1.0 may leave it out.
    pub fn host(&self) -> Option<&str> {
        self.host.map(|span| as_text(self.field(span)))
    }

    /// All headers in order, values without outer white space.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers
            .iter()
            .map(|header| (as_text(self.field(header.name)), self.field(header.value)))
    }

    /// All values of the header `name`, whose case doesn't matter.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let same =
            move |header: &&Header| self.field(header.name).eq_ignore_ascii_case(name.as_bytes());
        self.headers.iter().filter(same).map(|header| self.field(header.value))
    }

    /// The first value of the header `name`, whose case doesn't matter.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut same = self
            .headers
            .iter()
            .filter(|header| self.field(header.name).eq_ignore_ascii_case(name.as_bytes()));
        same.next().map(|header| self.field(header.value))
    }

    /// The first value of `name` as text; `None` also for one that is not UTF-8.
    pub fn header_str(&self, name: &str) -> Option<&str> {
        self.header(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All values of a list header as one list (RFC 9110 §5.3); values that are not UTF-8 are
    /// left out. Allocates only when there are several lines.
    pub fn header_list<'a>(&'a self, name: &'a str) -> Option<Cow<'a, str>> {
        let mut texts = self.values(name).filter_map(|value| std::str::from_utf8(value).ok());
        let first = texts.next()?;
        let Some(second) = texts.next() else { return Some(Cow::Borrowed(first)) };
        let mut list = format!("{first}, {second}");
        for text in texts {
            list.push_str(", ");
            list.push_str(text);
        }
        Some(Cow::Owned(list))
    }

    /// `Accept`, all lines joined.
    pub fn accept(&self) -> Option<Cow<'_, str>> {
        self.header_list("accept")
    }

    /// `Range`; there is at most one.
    pub fn range(&self) -> Option<&str> {
        self.asked.has(Asked::RANGE).then(|| self.header_str("range"))?
    }

    /// `If-Range`; there is at most one. One that is not UTF-8 reads as empty, so that it matches
    /// nothing instead of being absent.
    pub fn if_range(&self) -> Option<&str> {
        self.header("if-range").map(|value| std::str::from_utf8(value).unwrap_or_default())
    }

    /// `If-None-Match`, all lines joined.
    pub fn if_none_match(&self) -> Option<Cow<'_, str>> {
        self.asked.has(Asked::IF_NONE_MATCH).then(|| self.header_list("if-none-match"))?
    }

    /// `User-Agent`.
    pub fn user_agent(&self) -> Option<&str> {
        self.header_str("user-agent")
    }

    /// Every `X-Dragonfly-Registry`, as bytes: more than one is for the caller to refuse.
    pub fn x_dragonfly_registry(&self) -> impl Iterator<Item = &[u8]> {
        let is_there = self.asked.has(Asked::X_DRAGONFLY_REGISTRY);
        is_there.then(|| self.values("x-dragonfly-registry")).into_iter().flatten()
    }

    /// Whether the client sent credentials.
    pub fn has_authorization(&self) -> bool {
        self.asked.has(Asked::AUTHORIZATION)
    }

    /// `Via`, all lines joined: how a loop of mirrors is noticed.
    pub fn via(&self) -> Option<Cow<'_, str>> {
        self.asked.has(Asked::VIA).then(|| self.header_list("via"))?
    }

    /// A piece of the request line.
    fn text(&self, span: Span) -> &str {
        as_text(span.of(&self.bytes))
    }

    /// A piece of the fields.
    fn field(&self, span: Span) -> &[u8] {
        span.of(self.fields())
    }

    /// All fields with the empty line behind them; empty when none hold.
    fn fields(&self) -> &[u8] {
        let at = usize::from(self.fields_at);
        self.bytes.get(at..).filter(|_| at > 0).unwrap_or_default()
    }
}

impl Span {
    fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(usize::from(self.start)..usize::from(self.end)).unwrap_or_default()
    }
}

/// Targets, hosts and names were checked to be ASCII, so nothing is lost here.
fn as_text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

impl fmt::Debug for RequestHead {
    /// Without query and headers, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method)
            .field("path", &self.path())
            .field("version", &self.version)
            .field("body", &self.body)
            .field("headers", &self.headers.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
