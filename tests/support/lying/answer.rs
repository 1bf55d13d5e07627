//! One answer of the lying upstream: what is sent, how fast, and how it ends.

use super::Resource;
use crate::support::gate::Gate;
use crate::support::listener::Received;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How a Range request is met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ranges {
    /// 206 with what was asked for.
    #[default]
    Honour,
    /// 200 with everything.
    Ignore,
    /// 206, Content-Range and bytes from 7 bytes further on.
    Shift,
    /// 206 that claims the right range over the wrong bytes.
    Corrupt,
    /// 416.
    Refuse,
}

/// Where and how the body ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// After the last byte.
    #[default]
    Whole,
    /// In order (FIN) after so many body bytes.
    Fin(usize),
    /// By a reset (SO_LINGER 0) after so many body bytes.
    Reset(usize),
    /// Never: after so many bytes nothing more comes, and the connection stays open.
    Stall(usize),
}

/// How the length is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Framing {
    #[default]
    Length,
    Claimed(u64),
    Chunked,
    UntilClose,
}

/// By default the right answer: the resource, ranges honoured, 404 when there is none.
#[derive(Clone, Default)]
pub struct Answer {
    status: Option<u16>,
    headers: Vec<(String, String)>,
    without: Vec<&'static str>,
    body: Option<Vec<u8>>,
    content_type: Option<String>,
    framing: Framing,
    ranges: Ranges,
    end: End,
    delay: Duration,
    hold_head: Option<Gate>,
    hold_body: Option<(usize, Gate)>,
    pace: Option<(usize, Duration)>,
    interim: usize,
    trailing: Vec<u8>,
    version: Option<&'static str>,
}

impl Answer {
    /// The right answer.
    pub fn right() -> Answer {
        Answer::default()
    }

    /// A status with an empty body, whatever the path names.
    pub fn status(status: u16) -> Answer {
        Answer { status: Some(status), body: Some(Vec::new()), ..Answer::default() }
    }

    /// 200 with other bytes and another type than the resource's.
    pub fn instead(content_type: &str, bytes: impl Into<Vec<u8>>) -> Answer {
        let content_type = Some(content_type.to_owned());
        Answer { status: Some(200), body: Some(bytes.into()), content_type, ..Answer::default() }
    }

    /// A redirect.
    pub fn redirect(status: u16, location: &str) -> Answer {
        Answer::status(status).header("Location", location)
    }

    /// The resource's status, type and length, other bytes.
    pub fn bytes(mut self, bytes: impl Into<Vec<u8>>) -> Answer {
        self.body = Some(bytes.into());
        self
    }

    /// One more header line.
    pub fn header(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Leaves out a header that the right answer has; the name as the server writes it.
    pub fn without(mut self, name: &'static str) -> Answer {
        self.without.push(name);
        self
    }

    /// Sends nothing for so long.
    pub fn after(mut self, delay: Duration) -> Answer {
        self.delay = delay;
        self
    }

    /// Sends nothing until the gate opens.
    pub fn held(mut self, gate: &Gate) -> Answer {
        self.hold_head = Some(gate.clone());
        self
    }

    /// Sends the head and so many body bytes, then waits for the gate.
    pub fn held_at(mut self, offset: usize, gate: &Gate) -> Answer {
        self.hold_body = Some((offset, gate.clone()));
        self
    }

    /// Sends `bytes` body bytes each `interval`.
    pub fn paced(mut self, bytes: usize, interval: Duration) -> Answer {
        self.pace = Some((bytes, interval));
        self
    }

    /// Ends early or not at all.
    pub fn ending(mut self, end: End) -> Answer {
        self.end = end;
        self
    }

    /// Says this Content-Length, whatever is sent.
    pub fn claiming(mut self, length: u64) -> Answer {
        self.framing = Framing::Claimed(length);
        self
    }

    /// Chunked, no Content-Length.
    pub fn chunked(mut self) -> Answer {
        self.framing = Framing::Chunked;
        self
    }

    /// HTTP/1.0: no length, the close is the end.
    pub fn until_close(mut self) -> Answer {
        self.framing = Framing::UntilClose;
        self.version = Some("HTTP/1.0");
        self
    }

    /// Meets Range requests this way.
    pub fn ranges(mut self, ranges: Ranges) -> Answer {
        self.ranges = ranges;
        self
    }

    /// So many 103 heads before the final one.
    pub fn interim(mut self, count: usize) -> Answer {
        self.interim = count;
        self
    }

    /// Bytes behind the body, as if they were the next answer on the connection.
    pub fn followed_by(mut self, bytes: &[u8]) -> Answer {
        self.trailing = bytes.to_vec();
        self
    }

    /// Sends it; whether the connection may be used again.
    pub(super) fn write(
        &self,
        stream: &TcpStream,
        request: &Received,
        resource: Option<&Resource>,
        sent: &AtomicU64,
    ) -> io::Result<bool> {
        let mut out = stream;
        std::thread::sleep(self.delay);
        if let Some(gate) = &self.hold_head {
            gate.pass();
        }
        for _ in 0..self.interim {
            out.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n")?;
        }
        let reply = self.reply(request, resource);
        out.write_all(reply.head.as_bytes())?;
        if request.method != "HEAD" && reply.status != 304 {
            self.write_body(stream, &reply.body, sent)?;
        }
        out.write_all(&self.trailing)?;
        let reusable = self.end == End::Whole && !matches!(self.framing, Framing::UntilClose);
        Ok(reusable && request.header("connection") != Some("close"))
    }

    fn write_body(&self, stream: &TcpStream, body: &[u8], sent: &AtomicU64) -> io::Result<()> {
        let chunked = self.framing == Framing::Chunked;
        let limit = match self.end {
            End::Whole => body.len(),
            End::Fin(at) | End::Reset(at) | End::Stall(at) => at.min(body.len()),
        };
        let step = self.pace.map_or(256 << 10, |(bytes, _)| bytes.max(1));
        let mut out = stream;
        let mut at = 0;
        while at < limit {
            let mut next = limit.min(at + step);
            if let Some((offset, gate)) = &self.hold_body {
                if at == *offset {
                    gate.pass();
                } else if at < *offset {
                    next = next.min(*offset);
                }
            }
            if chunked {
                out.write_all(format!("{:x}\r\n", next - at).as_bytes())?;
            }
            out.write_all(&body[at..next])?;
            if chunked {
                out.write_all(b"\r\n")?;
            }
            sent.fetch_add((next - at) as u64, Ordering::SeqCst);
            at = next;
            if let Some((_, interval)) = self.pace {
                std::thread::sleep(interval);
            }
        }
        self.end_body(stream, chunked)
    }

    fn end_body(&self, stream: &TcpStream, chunked: bool) -> io::Result<()> {
        let mut out = stream;
        match self.end {
            End::Whole if chunked => out.write_all(b"0\r\n\r\n"),
            End::Reset(_) => {
                // What was sent should arrive before the reset throws it away.
                wait_for_acknowledgement(stream);
                socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))
            }
            End::Stall(_) => {
                // Until the peer gives up.
                let mut sink = [0; 64];
                let mut reader = stream;
                while io::Read::read(&mut reader, &mut sink)? > 0 {}
                Ok(())
            }
            End::Whole | End::Fin(_) => Ok(()),
        }
    }

    fn reply(&self, request: &Received, resource: Option<&Resource>) -> Reply {
        let Some(resource) = resource.filter(|_| self.status.is_none()).cloned() else {
            return self.scripted_reply();
        };
        let bytes = self.body.clone().unwrap_or_else(|| resource.bytes.to_vec());
        let mut headers = vec![("Content-Type".to_owned(), resource.content_type.clone())];
        if let Some(digest) = &resource.digest {
            headers.push(("Docker-Content-Digest".to_owned(), digest.clone()));
            headers.push(("ETag".to_owned(), format!("\"{digest}\"")));
            if request.header("if-none-match").is_some_and(|v| v.contains(digest.as_str())) {
                return Reply { status: 304, head: self.head(304, &[], None), body: Vec::new() };
            }
        }
        headers.push(("Accept-Ranges".to_owned(), "bytes".to_owned()));
        let (status, body, range) = self.cut(request, bytes);
        headers.extend(range);
        let length = body.len() as u64;
        Reply { status, head: self.head(status, &headers, Some(length)), body }
    }

    fn scripted_reply(&self) -> Reply {
        let (status, body, content_type) = match (self.status, &self.body) {
            (Some(status), body) => {
                (status, body.clone().unwrap_or_default(), self.content_type.clone())
            }
            (None, _) => {
                let body = br#"{"errors":[{"code":"NAME_UNKNOWN","message":"not here"}]}"#;
                (404, body.to_vec(), Some("application/json".to_owned()))
            }
        };
        let headers: Vec<_> =
            content_type.map(|t| ("Content-Type".to_owned(), t)).into_iter().collect();
        let length = body.len() as u64;
        Reply { status, head: self.head(status, &headers, Some(length)), body }
    }

    /// The status, the bytes and the Content-Range for the request's Range.
    fn cut(&self, request: &Received, bytes: Vec<u8>) -> Cut {
        let whole = bytes.len();
        let wanted = request.header("range").and_then(|v| parse_range(v, whole));
        let Some((first, last)) = wanted.filter(|_| self.ranges != Ranges::Ignore) else {
            return (200, bytes, None);
        };
        let range = |first: usize, last: usize| {
            Some(("Content-Range".to_owned(), format!("bytes {first}-{last}/{whole}")))
        };
        match self.ranges {
            Ranges::Refuse => {
                let value = format!("bytes */{whole}");
                (416, Vec::new(), Some(("Content-Range".to_owned(), value)))
            }
            Ranges::Shift => {
                let first = (first + 7).min(last);
                (206, bytes[first..=last].to_vec(), range(first, last))
            }
            Ranges::Corrupt => {
                let wrong = bytes[first..=last].iter().map(|b| !b).collect();
                (206, wrong, range(first, last))
            }
            Ranges::Honour | Ranges::Ignore => {
                (206, bytes[first..=last].to_vec(), range(first, last))
            }
        }
    }

    fn head(&self, status: u16, headers: &[(String, String)], length: Option<u64>) -> String {
        let version = self.version.unwrap_or("HTTP/1.1");
        let mut head = format!("{version} {status} Scripted\r\n");
        for (name, value) in headers.iter().filter(|(n, _)| !self.without.contains(&n.as_str())) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match (self.framing, length) {
            (_, None) | (Framing::UntilClose, _) => {}
            (Framing::Length, Some(n)) => head.push_str(&format!("Content-Length: {n}\r\n")),
            (Framing::Claimed(n), _) => head.push_str(&format!("Content-Length: {n}\r\n")),
            (Framing::Chunked, _) => head.push_str("Transfer-Encoding: chunked\r\n"),
        }
        head.push_str("\r\n");
        head
    }
}

type Cut = (u16, Vec<u8>, Option<(String, String)>);

struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

/// First and last byte of a single range that lies within `size`.
fn parse_range(value: &str, size: usize) -> Option<(usize, usize)> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let end = size.checked_sub(1)?;
    if first.is_empty() {
        let suffix: usize = last.parse().ok()?;
        return Some((size.saturating_sub(suffix), end));
    }
    let first: usize = first.parse().ok()?;
    let last = if last.is_empty() { end } else { last.parse::<usize>().ok()?.min(end) };
    (first <= last).then_some((first, last))
}

/// Waits, at most a second, until the peer's kernel has taken all that was sent.
fn wait_for_acknowledgement(stream: &TcpStream) {
    let Ok(local) = stream.local_addr() else { return };
    let Ok(peer) = stream.peer_addr() else { return };
    for _ in 0..200 {
        if crate::support::sockets::unacknowledged(local, peer) == Some(0) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
