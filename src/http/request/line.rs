//! The request line's target (RFC 9112 §3.2) and version.

use crate::http::head_error::HeadError;
use crate::http::method::Method;
use crate::limits::TARGET_BYTES_MAX;

/// A target taken apart; nothing is decoded.
pub(super) struct Target<'a> {
    /// Host and port of an absolute target.
    pub(super) authority: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
}

impl<'a> Target<'a> {
    pub(super) fn parse(text: &'a str, method: Method) -> Result<Self, HeadError> {
        if text.len() > TARGET_BYTES_MAX {
            return Err(HeadError::TargetTooLong);
        }
        let is_uri_byte = |byte: u8| URI_BYTES.get(usize::from(byte)).copied().unwrap_or(false);
        // To the end in any case, without a branch for each byte.
        if !text.bytes().fold(true, |so_far, byte| so_far & is_uri_byte(byte)) {
            return Err(HeadError::Target);
        }
        if text.starts_with('/') {
            let (path, query) = split_query(text);
            return Ok(Self { authority: None, path, query });
        }
        if text == "*" && method == Method::Options {
            return Ok(Self { authority: None, path: text, query: None });
        }
        let (scheme, rest) = text.split_once("://").ok_or(HeadError::Target)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(HeadError::Target);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at_checked(end).ok_or(HeadError::Target)?;
        let (path, query) = split_query(rest);
        Ok(Self { authority: Some(authority), path, query })
    }
}

fn split_query(text: &str) -> (&str, Option<&str>) {
    let parts = memchr::memchr(b'?', text.as_bytes())
        .and_then(|at| Some((text.get(..at)?, text.get(at + 1..)?)));
    parts.map_or((text, None), |(path, query)| (path, Some(query)))
}

/// The characters of RFC 3986 §2 that may stand in a path or query (no `#`: fragments are not
/// sent), and `[` `]` for IPv6 literals.
const fn is_uri_byte(byte: u8) -> bool {
    // Unreserved, then gen-delims without `#`, sub-delims, and the percent sign.
    matches!(byte,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~'
        | b':' | b'/' | b'?' | b'[' | b']' | b'@'
        | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        | b'%')
}

/// [`is_uri_byte`] of each byte: a table, since each byte of each target is looked at.
static URI_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = is_uri_byte(byte as u8);
        byte += 1;
    }
    table
};

/// Whether the first line ends in ` HTTP/<digit>.<digit>` of a version that we don't speak; anything
/// else in that place is garbage.
pub(super) fn names_other_version(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let version = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    match version.strip_prefix(b"HTTP/") {
        Some(b"1.0" | b"1.1") => false,
        Some([major, b'.', minor]) => major.is_ascii_digit() && minor.is_ascii_digit(),
        _ => false,
    }
}
