//! The head of an answer, as far as the load has to know it.

use super::Ask;

const HEADERS_MAX: usize = 64;
/// A longer one will not end.
pub(crate) const HEAD_BYTES_MAX: usize = 64 << 10;

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Its own length.
    pub(crate) bytes: usize,
    /// That of the body behind it.
    pub(crate) body_bytes: u64,
    /// Whether the server closes when the body has come.
    pub(crate) closes: bool,
}

impl Head {
    /// The head that `kept` begins with, when all of it is there.
    ///
    /// # Errors
    /// What was expected of status and length, and what was found.
    pub(crate) fn of(kept: &[u8], ask: &Ask) -> Result<Option<Head>, String> {
        let name = &ask.name;
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(kept).map_err(|e| format!("{name}: not HTTP: {e}"))?;
        let httparse::Status::Complete(bytes) = parsed else {
            if kept.len() > HEAD_BYTES_MAX {
                return Err(format!("{name}: a head of more than {HEAD_BYTES_MAX} bytes"));
            }
            return Ok(None);
        };
        let mut length = None;
        let mut closes = response.version == Some(0);
        for header in response.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                length = std::str::from_utf8(header.value).ok().and_then(|v| v.parse().ok());
            } else if header.name.eq_ignore_ascii_case("connection") {
                closes |= header.value.eq_ignore_ascii_case(b"close");
            }
        }
        let status = response.code.unwrap_or(0);
        if status != ask.status {
            return Err(format!("{name}: expected status {}, found {status}", ask.status));
        }
        let expected = ask.body.length();
        if expected.is_some() && length != expected {
            return Err(format!("{name}: expected length {expected:?}, found {length:?}"));
        }
        let body_bytes = match ask.body {
            super::Body::None(_) => 0,
            _ => length.ok_or_else(|| format!("{name}: no Content-Length"))?,
        };
        Ok(Some(Head { bytes, body_bytes, closes }))
    }
}
