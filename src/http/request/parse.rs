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
    match head_end(window)? {
        Some(end) => {
            complete(window.get(..end).unwrap_or_default(), head)?;
            Ok(Some(skipped + end))
        }
        None if buf.len() >= HEAD_BYTES_MAX => Err(HeadError::TooLarge),
        None => Ok(None),
    }
}

/// The length of the head if its empty line is there. httparse takes a bare LF for a line end;
/// others don't, and two readings of one head are what smuggling is made of.
fn head_end(window: &[u8]) -> Result<Option<usize>, HeadError> {
    let mut line_start = 0;
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
            return Ok(Some(line_start));
        }
    }
}

/// `bytes` is one head with its empty line.
fn complete(bytes: &[u8], head: &mut RequestHead) -> Result<(), HeadError> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        // httparse saw another end than the first empty line: two meanings, so none.
        Ok(_) => return Err(HeadError::RequestLine),
        Err(error) => return Err(refusal(error, bytes)),
    }
    let method = request.method.and_then(Method::parse).ok_or(HeadError::Method)?;
    let version = if request.version == Some(1) { Version::Http11 } else { Version::Http10 };
    let target = line::Target::parse(request.path.unwrap_or_default(), method)?;
    let mut fields = Fields::default();
    head.headers.clear();
    for header in request.headers.iter() {
        if header.name.is_empty() {
            return Err(HeadError::HeaderName);
        }
        fields.take(header.name, header.value)?;
        let name = Span::of(bytes, header.name.as_bytes());
        let value = Span::of(bytes, header.value);
        head.headers.push(Header { name, value });
    }
    let framing = fields.check(version, &target)?;
    head.path = Span::of(bytes, target.path.as_bytes());
    head.query = target.query.map(|query| Span::of(bytes, query.as_bytes()));
    head.host = fields.host.map(|host| Span::of(bytes, host));
    head.asked = fields.asked;
    head.bytes.clear();
    head.bytes.extend_from_slice(bytes);
    head.method = method;
    head.version = version;
    head.body = framing;
    head.content_length = fields.content_length;
    head.expect_100 = fields.expect_100 && version == Version::Http11;
    head.keep_alive = fields.keep_alive(version);
    Ok(())
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
    fn of(whole: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
        match (u16::try_from(start), u16::try_from(start.wrapping_add(part.len()))) {
            (Ok(start), Ok(end)) if !part.is_empty() => Self { start, end },
            _ => Self::default(),
        }
    }
}
