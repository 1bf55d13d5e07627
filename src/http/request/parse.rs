//! From bytes to a [`RequestHead`]: line ends first, then httparse's tokens, then their meaning.

use std::mem::MaybeUninit;

use super::fields::Fields;
use super::{Header, RequestHead, Span, Version, line, looks_like_tls};
use crate::http::head_error::HeadError;
use crate::http::method::Method;
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX};

/// A first line over this can't hold a legal target, whatever method and version are around it.
const FIRST_LINE_BYTES_MAX: usize = TARGET_BYTES_MAX + 64;
const CRLF: &[u8] = b"\r\n";

/// Reads a head into `head`; its length, if it is whole.
pub(super) fn read(buf: &[u8], head: &mut RequestHead) -> Result<Option<usize>, HeadError> {
    if looks_like_tls(buf) {
        return Err(HeadError::Tls);
    }
    // One empty line in front is what some clients leave behind a body (RFC 9112 §2.2).
    let skipped = if buf.starts_with(CRLF) { CRLF.len() } else { 0 };
    let window = buf.get(skipped..buf.len().min(HEAD_BYTES_MAX)).unwrap_or_default();
    match window.first() {
        None | Some(b'\r') if window.len() < 2 && skipped == 0 => {
            return Ok(None);
        }
        None => return Ok(None),
        Some(first) if first.is_ascii_uppercase() => {}
        Some(first) if first.is_ascii_lowercase() => return Err(HeadError::Method),
        Some(_) => return Err(HeadError::RequestLine),
    }
    if let Some(end) = repeated(window, head) {
        return Ok(Some(skipped + end));
    }
    match head_end(window)? {
        Some((fields_at, end)) => {
            complete(window.get(..end).unwrap_or_default(), fields_at, head)?;
            Ok(Some(skipped + end))
        }
        None if buf.len() >= HEAD_BYTES_MAX => Err(HeadError::TooLarge),
        None => Ok(None),
    }
}

/// Reads a head whose fields are those of `head`, as it is: clients say the same of themselves with each
/// request, and between two of a connection there is most often none of another. What fields mean depends on
/// nothing else but the version, and on a host in the target. `None`, and nothing is changed, when it is to be
/// read as a whole; so are those that are wrong.
pub(super) fn repeated(window: &[u8], head: &mut RequestHead) -> Option<usize> {
    let fields = head.fields();
    let line = memchr::memchr2(b'\r', b'\n', window)?;
    let rest = window.get(line..)?.strip_prefix(CRLF)?;
    if fields.is_empty() || line > FIRST_LINE_BYTES_MAX || !rest.starts_with(fields) {
        return None;
    }
    let fields_at = line + CRLF.len();
    let bytes = window.get(..fields_at + fields.len())?;
    let mut request = httparse::Request::new(&mut []);
    // Without room for fields it goes as far as the first of them.
    let outcome = request.parse_with_uninit_headers(bytes, &mut []);
    let method = request.method.and_then(Method::parse)?;
    let target = line::Target::parse(request.path?, method).ok()?;
    let is_same = version_of(&request) == head.version && target.authority.is_none();
    if outcome != Err(httparse::Error::TooManyHeaders) || !is_same {
        return None;
    }
    head.fields_at = u16::try_from(fields_at).ok()?;
    head.take_line(bytes, method, &target);
    Some(bytes.len())
}

fn version_of(request: &httparse::Request<'_, '_>) -> Version {
    if request.version == Some(1) { Version::Http11 } else { Version::Http10 }
}

/// Where the fields begin, and the length of the head, if its empty line is there. httparse takes a bare
/// LF for a line end; others don't, and two readings of one head are what smuggling is made of.
fn head_end(window: &[u8]) -> Result<Option<(usize, usize)>, HeadError> {
    let (mut line_start, mut fields_at) = (0, 0);
    loop {
        let line = window.get(line_start..).unwrap_or_default();
        let length = memchr::memchr2(b'\r', b'\n', line);
        if line_start == 0 && length.unwrap_or(line.len()) > FIRST_LINE_BYTES_MAX {
            return Err(HeadError::TargetTooLong);
        }
        let Some(length) = length else { return Ok(None) };
        match line.get(length..).unwrap_or_default() {
            [b'\r', b'\n', ..] => line_start += length + CRLF.len(),
            [b'\r'] => return Ok(None),
            _ => return Err(HeadError::LineEnd),
        }
        if length == 0 {
            return Ok(Some((fields_at, line_start)));
        }
        if fields_at == 0 {
            fields_at = line_start;
        }
    }
}

/// `bytes` is one head with its empty line, of which the fields begin at `fields_at`.
fn complete(bytes: &[u8], fields_at: usize, head: &mut RequestHead) -> Result<(), HeadError> {
    // Until all is well.
    head.fields_at = 0;
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        // httparse saw another end than the first empty line: two meanings, so none.
        Ok(_) => return Err(HeadError::RequestLine),
        Err(error) => return Err(refusal(error, bytes)),
    }
    let method = request.method.and_then(Method::parse).ok_or(HeadError::Method)?;
    let version = version_of(&request);
    let target = line::Target::parse(request.path.unwrap_or_default(), method)?;
    let mut fields = Fields::default();
    head.headers.clear();
    let all = bytes.get(fields_at..).unwrap_or_default();
    for header in request.headers.iter() {
        if header.name.is_empty() {
            return Err(HeadError::HeaderName);
        }
        fields.take(header.name, header.value)?;
        let name = Span::within(all, header.name.as_bytes());
        let value = Span::within(all, header.value);
        head.headers.push(Header { name, value });
    }
    let framing = fields.check(version, &target)?;
    head.host = fields.host.map(|host| Span::within(all, host));
    head.asked = fields.asked;
    head.take_line(bytes, method, &target);
    head.version = version;
    head.body = framing;
    head.content_length = fields.content_length;
    head.expect_100 = fields.expect_100 && version == Version::Http11;
    head.keep_alive = fields.keep_alive(version);
    // A head is shorter than 64 KiB.
    head.fields_at = u16::try_from(fields_at).unwrap_or(0);
    Ok(())
}

impl RequestHead {
    /// Takes the bytes of the head, and what its first line says.
    fn take_line(&mut self, bytes: &[u8], method: Method, target: &line::Target<'_>) {
        self.path = Span::within(bytes, target.path.as_bytes());
        self.query = target.query.map(|query| Span::within(bytes, query.as_bytes()));
        self.method = method;
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
    }
}

fn refusal(error: httparse::Error, bytes: &[u8]) -> HeadError {
    match error {
        httparse::Error::HeaderName => HeadError::HeaderName,
        httparse::Error::HeaderValue => HeadError::HeaderValue,
        httparse::Error::TooManyHeaders => HeadError::TooManyHeaders,
        httparse::Error::Version if line::names_other_version(bytes) => HeadError::Version,
        _ => HeadError::RequestLine,
    }
}

impl Span {
    /// Where `part` lies in `whole`. An empty part may lie anywhere, which doesn't matter.
    fn within(whole: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
        match (u16::try_from(start), u16::try_from(start.wrapping_add(part.len()))) {
            (Ok(start), Ok(end)) if !part.is_empty() => Self { start, end },
            _ => Self::default(),
        }
    }
}
