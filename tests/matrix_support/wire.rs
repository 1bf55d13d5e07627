//! One answer on its way: the right one in parts, and the means to send them wrongly.

use super::Thing;
use crate::support::chance::Chance;
use crate::support::listener::Received;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// No lie keeps a thread longer than this, whatever the peer does.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Wire<'a> {
    stream: &'a TcpStream,
    pub is_head: bool,
    /// First and last byte asked for.
    pub range: Option<(usize, usize)>,
    /// The whole of the content.
    pub whole: Vec<u8>,
    content_type: &'static str,
    digest: Option<String>,
    pub path: String,
    pub chance: Chance,
}

/// Header lines.
pub type Lines = Vec<(&'static str, String)>;

impl<'a> Wire<'a> {
    pub fn new(
        stream: &'a TcpStream,
        request: &Received,
        thing: Option<&Thing>,
        chance: Chance,
    ) -> Wire<'a> {
        let whole = thing.map(|thing| thing.bytes.to_vec()).unwrap_or_default();
        let range = request.header("range").and_then(|value| {
            let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
            let end = whole.len().checked_sub(1)?;
            let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().unwrap_or(end));
            (first <= end).then_some((first, last.min(end)))
        });
        Wire {
            stream,
            is_head: request.method == "HEAD",
            range,
            whole,
            content_type: thing.map_or("text/plain", |thing| thing.content_type),
            digest: thing.and_then(|thing| thing.digest.clone()),
            path: request.path.clone(),
            chance,
        }
    }

    /// The bytes of the right body.
    pub fn body(&self) -> Vec<u8> {
        match self.range {
            Some((first, last)) => self.whole[first..=last].to_vec(),
            None => self.whole.clone(),
        }
    }

    pub fn status(&self) -> u16 {
        if self.range.is_some() { 206 } else { 200 }
    }

    /// The right header lines but for the length.
    pub fn lines(&self) -> Lines {
        let mut lines = vec![("Content-Type", self.content_type.to_owned())];
        if let Some(digest) = &self.digest {
            lines.push(("Docker-Content-Digest", digest.clone()));
            lines.push(("ETag", format!("\"{digest}\"")));
        }
        if let Some((first, last)) = self.range {
            lines.push(("Content-Range", self.content_range(first, last)));
        }
        lines
    }

    pub fn content_range(&self, first: usize, last: usize) -> String {
        format!("bytes {first}-{last}/{}", self.whole.len())
    }

    /// A place in `bytes`: often an edge, never their end.
    pub fn place(&mut self, bytes: usize) -> usize {
        match self.chance.below(8) {
            0 => 0,
            1 => bytes.saturating_sub(1),
            _ => self.chance.below(bytes.max(1)),
        }
    }

    /// Sends the head: a status line, these lines, the empty line.
    pub fn head(&mut self, version: &str, status: u16, lines: &Lines) -> io::Result<()> {
        let mut head = format!("{version} {status} Matrix\r\n");
        for (name, value) in lines {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.send(head.as_bytes())
    }

    /// Sends bytes in a few pieces.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        for _ in 0..self.chance.below(4) {
            let (piece, after) = rest.split_at(self.chance.below(rest.len() + 1));
            self.raw(piece)?;
            std::thread::sleep(Duration::from_micros(self.chance.below(2_000) as u64));
            rest = after;
        }
        self.raw(rest)
    }

    /// Sends bytes of a body, which answers to HEAD do not have.
    pub fn send_body(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_head { Ok(()) } else { self.send(bytes) }
    }

    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut out = self.stream;
        out.write_all(bytes)
    }

    /// Any answer with a length.
    pub fn plain(&mut self, status: u16, lines: &[(&str, &str)], body: &[u8]) -> io::Result<bool> {
        let mut head = format!("HTTP/1.1 {status} Matrix\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in lines {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.raw(head.as_bytes())?;
        self.send_body(body)?;
        Ok(true)
    }

    /// The right answer.
    pub fn right(&mut self) -> io::Result<bool> {
        let body = self.body();
        let lines = with(self.lines(), "Content-Length", body.len());
        self.head("HTTP/1.1", self.status(), &lines)?;
        self.send_body(&body)?;
        Ok(true)
    }

    /// The right head, with `length` as the body's length if that is told.
    pub fn right_head(&mut self, length: Option<usize>) -> io::Result<()> {
        let lines = match length {
            Some(bytes) => with(self.lines(), "Content-Length", bytes),
            None => self.lines(),
        };
        self.head("HTTP/1.1", self.status(), &lines)
    }

    /// A body in chunks of random sizes, without the last chunk.
    pub fn chunks(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_head {
            let size = 1 + self.chance.below(rest.len());
            let (piece, after) = rest.split_at(size);
            let mut chunk = format!("{size:x}\r\n").into_bytes();
            chunk.extend_from_slice(piece);
            chunk.extend_from_slice(b"\r\n");
            self.send(&chunk)?;
            rest = after;
        }
        Ok(())
    }

    /// The connection will be reset, once what was sent has had time to arrive.
    pub fn reset(&mut self) -> io::Result<bool> {
        std::thread::sleep(Duration::from_millis(20));
        socket2::SockRef::from(self.stream).set_linger(Some(Duration::ZERO))?;
        Ok(false)
    }

    /// Says nothing until the peer hangs up.
    pub fn silence(&mut self) -> io::Result<bool> {
        let mut reader = self.stream;
        while reader.read(&mut [0; 64])? > 0 {}
        Ok(false)
    }

    /// Sends what `next` gives until the peer hangs up or patience ends.
    pub fn for_ever(
        &mut self,
        pause: Duration,
        mut next: impl FnMut() -> Vec<u8>,
    ) -> io::Result<bool> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            self.raw(&next())?;
            std::thread::sleep(pause);
        }
        Ok(false)
    }
}

/// One more line.
pub fn with(mut lines: Lines, name: &'static str, value: impl ToString) -> Lines {
    lines.push((name, value.to_string()));
    lines
}

/// The lines but for one name.
pub fn without(mut lines: Lines, name: &str) -> Lines {
    lines.retain(|(found, _)| *found != name);
    lines
}
