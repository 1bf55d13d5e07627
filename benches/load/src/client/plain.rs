//! One request after another, waiting for each: to prepare servers and to prove what they hold.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::head::HEAD_BYTES_MAX;
use crate::content::named;

/// A server that says nothing for so long will not.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// What is read at a time of small answers, and of what is large. Thousands of small ones would take
/// their time to clear memory that they do not need.
const SMALL_BYTES: usize = 16 << 10;
const LARGE_BYTES: usize = 256 << 10;

/// An answer; its body is only known by its digest if that is all that was wanted.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Of its first line.
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// How long the body was.
    pub(crate) body_bytes: u64,
    /// `sha256:…` of the body.
    pub(crate) digest: String,
    /// Its first bytes, for messages.
    pub(crate) beginning: Vec<u8>,
}

impl Answer {
    /// The first header of that name, in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// A connection to a server.
pub(crate) struct Plain {
    addr: SocketAddr,
    socket: TcpStream,
    /// How often the server had closed it and it was opened again.
    pub(crate) reopened: u32,
}

impl Plain {
    /// Opens it.
    ///
    /// # Errors
    /// The network's.
    pub(crate) fn open(addr: SocketAddr) -> io::Result<Plain> {
        let socket = TcpStream::connect(addr)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(SILENCE_MAX))?;
        socket.set_write_timeout(Some(SILENCE_MAX))?;
        Ok(Plain { addr, socket, reopened: 0 })
    }

    /// Sends what `Ask::bytes` holds and reads the answer; anew when the server had closed.
    ///
    /// # Errors
    /// The network's; what was not HTTP.
    pub(crate) fn ask(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.fetch(request, true)
    }

    /// The same; the body's digest is only made if it is wanted.
    ///
    /// # Errors
    /// As `ask`.
    pub(crate) fn fetch(&mut self, request: &[u8], hashes: bool) -> io::Result<Answer> {
        let is_head = request.starts_with(b"HEAD ");
        let first = self.socket.write_all(request).and_then(|()| self.answer(is_head, hashes));
        match first {
            Err(error) if error.kind() != io::ErrorKind::InvalidData => {
                *self = Plain { reopened: self.reopened + 1, ..Plain::open(self.addr)? };
                self.socket.write_all(request)?;
                self.answer(is_head, hashes)
            }
            answer => answer,
        }
    }

    /// A request with a body of that length.
    ///
    /// # Errors
    /// The network's; what was not HTTP.
    pub(crate) fn send(
        &mut self,
        method: &str,
        target: &str,
        media_type: &str,
        body: &mut dyn Read,
        bytes: u64,
    ) -> io::Result<Answer> {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nContent-Type: {media_type}\r\n\
             Content-Length: {bytes}\r\n\r\n",
            self.addr
        );
        self.socket.write_all(head.as_bytes())?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let got = body.read(&mut buffer)?;
            if got == 0 {
                break;
            }
            self.socket.write_all(buffer.get(..got).unwrap_or_default())?;
        }
        self.answer(false, false)
    }

    fn answer(&mut self, is_head: bool, hashes: bool) -> io::Result<Answer> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let mut buffer = vec![0; SMALL_BYTES];
        let (mut kept, mut answer, head_bytes);
        kept = Vec::new();
        loop {
            let got = self.socket.read(&mut buffer)?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            kept.extend_from_slice(buffer.get(..got).unwrap_or_default());
            if let Some((read, bytes)) = read_head(&kept).map_err(invalid)? {
                (answer, head_bytes) = (read, bytes);
                break;
            }
            if kept.len() > HEAD_BYTES_MAX {
                return Err(invalid(format!("a head of more than {HEAD_BYTES_MAX} bytes")));
            }
        }
        let has_none = is_head || answer.status == 304 || answer.status == 204;
        let length = answer.header("content-length").and_then(|v| v.parse::<u64>().ok());
        let closes = answer.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
        let length = match length {
            _ if has_none => 0,
            Some(length) => length,
            None if closes => u64::MAX,
            None => return Err(invalid("no Content-Length".to_owned())),
        };
        let mut hash = Sha256::new();
        let rest = kept.get(head_bytes..).unwrap_or_default();
        if hashes {
            hash.update(rest);
        }
        answer.beginning = rest.iter().copied().take(512).collect();
        answer.body_bytes = rest.len() as u64;
        if length > SMALL_BYTES as u64 {
            buffer.resize(LARGE_BYTES, 0);
        }
        while answer.body_bytes < length {
            let got = self.socket.read(&mut buffer)?;
            if got == 0 && length == u64::MAX {
                break;
            }
            if got == 0 {
                let had = answer.body_bytes;
                return Err(invalid(format!("closed after {had} of {length} bytes")));
            }
            if hashes {
                hash.update(buffer.get(..got).unwrap_or_default());
            }
            answer.body_bytes += got as u64;
        }
        if answer.body_bytes > length {
            let more = answer.body_bytes - length;
            return Err(invalid(format!("{more} bytes more than the {length} that were to come")));
        }
        answer.digest = named(&hash.finalize());
        if closes {
            *self = Plain { reopened: self.reopened + 1, ..Plain::open(self.addr)? };
        }
        Ok(answer)
    }
}

/// The head and its length, when all of it is there.
fn read_head(bytes: &[u8]) -> Result<Option<(Answer, usize)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes).map_err(|e| format!("not HTTP: {e}"))? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let each = response.headers.iter();
    let headers = each
        .map(|h| (h.name.to_ascii_lowercase(), String::from_utf8_lossy(h.value).into_owned()))
        .collect();
    let status = response.code.unwrap_or(0);
    let (body_bytes, digest, beginning) = (0, String::new(), Vec::new());
    Ok(Some((Answer { status, headers, body_bytes, digest, beginning }, length)))
}
