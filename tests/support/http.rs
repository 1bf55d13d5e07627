//! A raw, blocking HTTP/1.1 client: the test decides every byte that is sent and how much of the
//! answer is read, and learns how a body ended.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// No single read of a test waits longer.
pub const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Header lines: names in lower case, in their order.
#[derive(Clone, Debug, Default)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The first value; `name` in lower case.
    pub fn one(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The first value, or an empty text.
    pub fn text(&self, name: &str) -> &str {
        self.one(name).unwrap_or_default()
    }

    /// How many lines have this name.
    pub fn count(&self, name: &str) -> usize {
        self.0.iter().filter(|(n, _)| n == name).count()
    }

    /// The value as a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.one(name)?.parse().ok()
    }
}

/// The head of an answer.
#[derive(Clone, Debug)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// The first line as received.
    pub line: String,
    /// The header lines.
    pub headers: Headers,
}

/// How a body came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All that was announced arrived.
    Complete,
    /// The peer closed in order (FIN) before that.
    Fin,
    /// The peer reset the connection (RST).
    Reset,
    /// Nothing came for `READ_TIMEOUT`.
    Timeout,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status and headers.
    pub head: Head,
    /// What arrived of the body.
    pub body: Vec<u8>,
    /// How the body ended.
    pub ending: Ending,
    /// From sending the request to the end of the head.
    pub head_after: Duration,
    /// From sending the request to the first byte of the body.
    pub first_byte_after: Option<Duration>,
}

impl Answer {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The first value of a header, or an empty text; `name` in lower case.
    pub fn header(&self, name: &str) -> &str {
        self.head.headers.text(name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics with the text when it is none.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("not JSON ({e}): {:?} {}", self.head, self.text()))
    }

    /// The first `code` of an OCI error body; empty when it is none.
    pub fn error_code(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        json["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// A connection, with what was read ahead of need.
pub struct Connection {
    stream: TcpStream,
    ahead: Vec<u8>,
    sent_at: Instant,
    read_timeout: Duration,
}

impl Connection {
    /// Connects, within 5 s.
    #[track_caller]
    pub fn open(addr: SocketAddr) -> Connection {
        match TcpStream::connect_timeout(&addr, Duration::from_secs(5)) {
            Ok(stream) => Connection::over(stream),
            Err(e) => panic!("no connection to {addr}: {e}"),
        }
    }

    /// The same, for a peer that may have gone.
    pub fn try_open(addr: SocketAddr) -> io::Result<Connection> {
        TcpStream::connect_timeout(&addr, Duration::from_secs(5)).map(Connection::over)
    }

    fn over(stream: TcpStream) -> Connection {
        stream.set_read_timeout(Some(READ_TIMEOUT)).expect("a read timeout");
        stream.set_write_timeout(Some(READ_TIMEOUT)).expect("a write timeout");
        let _ = stream.set_nodelay(true);
        let sent_at = Instant::now();
        Connection { stream, ahead: Vec::new(), sent_at, read_timeout: READ_TIMEOUT }
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Lets a read wait for at most `bound`.
    pub fn set_read_timeout(&mut self, bound: Duration) {
        self.read_timeout = bound;
        self.stream.set_read_timeout(Some(bound)).expect("a read timeout");
    }

    /// Sends bytes as they are. A peer that has closed already is no error here: its answer may
    /// still be there to be read.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.sent_at = Instant::now();
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Sends a request with `Host` and the given header lines.
    pub fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) {
        let bytes = request_bytes(method, target, headers);
        self.send(bytes);
    }

    /// Reads one head, 1xx included; an error when the connection ends before it does.
    pub fn read_head(&mut self) -> io::Result<Head> {
        loop {
            if let Some(at) = self.ahead.windows(4).position(|w| w == b"\r\n\r\n") {
                let rest = self.ahead.split_off(at + 4);
                let head = std::mem::replace(&mut self.ahead, rest);
                return parse_head(&head[..at]);
            }
            if self.ahead.len() > 1 << 20 {
                return Err(io::Error::other("a head over 1 MiB"));
            }
            if self.fill_ahead()? == 0 {
                return Err(io::Error::new(
                    ErrorKind::UnexpectedEof,
                    format!(
                        "closed before a whole head: {:?}",
                        String::from_utf8_lossy(&self.ahead)
                    ),
                ));
            }
        }
    }

    /// Reads up to `buffer.len()` bytes of whatever comes next; 0 is the peer's FIN.
    pub fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ahead.is_empty() {
            return self.stream.read(buffer);
        }
        let n = self.ahead.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.ahead[..n]);
        self.ahead.drain(..n);
        Ok(n)
    }

    /// Reads exactly `count` bytes.
    pub fn read_exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(count);
        let mut buffer = [0; 16 << 10];
        while out.len() < count {
            let want = buffer.len().min(count - out.len());
            match self.read_some(&mut buffer[..want])? {
                0 => return Err(io::Error::from(ErrorKind::UnexpectedEof)),
                n => out.extend_from_slice(&buffer[..n]),
            }
        }
        Ok(out)
    }

    /// Reads the body that `head` announces for an answer to `method`.
    pub fn read_body(&mut self, head: &Head, method: &str) -> (Vec<u8>, Ending, Option<Duration>) {
        let mut body = Vec::new();
        let mut first = None;
        let none = method == "HEAD" || matches!(head.status, 100..=199 | 204 | 304);
        let ending = if none {
            Ending::Complete
        } else if head.headers.text("transfer-encoding").eq_ignore_ascii_case("chunked") {
            self.read_chunks(&mut body, &mut first)
        } else {
            let length = head.headers.number("content-length");
            self.read_length(length, &mut body, &mut first)
        };
        (body, ending, first)
    }

    /// Sends a request and reads the whole answer, 1xx skipped.
    #[track_caller]
    pub fn exchange(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.request(method, target, headers);
        self.read_answer(method).unwrap_or_else(|e| panic!("no answer to {method} {target}: {e}"))
    }

    /// Reads the whole answer to a request that was sent, 1xx skipped.
    pub fn read_answer(&mut self, method: &str) -> io::Result<Answer> {
        let mut head = self.read_head()?;
        while head.status < 200 {
            head = self.read_head()?;
        }
        let head_after = self.sent_at.elapsed();
        let (body, ending, first_byte_after) = self.read_body(&head, method);
        Ok(Answer { head, body, ending, head_after, first_byte_after })
    }

    /// Whether the peer has closed in order, told within `bound`: `Some(true)` by FIN,
    /// `Some(false)` by reset, `None` when it is still open or sent something.
    pub fn closed_in_order(&mut self, bound: Duration) -> Option<bool> {
        self.set_read_timeout(bound);
        match self.read_some(&mut [0; 1]) {
            Ok(0) => Some(true),
            Err(e) if e.kind() == ErrorKind::ConnectionReset => Some(false),
            _ => None,
        }
    }

    /// Ends our sending side (FIN) and keeps the other.
    pub fn finish_sending(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Closes with a reset.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        let _ = socket.set_linger(Some(Duration::ZERO));
    }

    fn fill_ahead(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 << 10];
        let n = self.stream.read(&mut buffer)?;
        self.ahead.extend_from_slice(&buffer[..n]);
        Ok(n)
    }

    fn read_length(
        &mut self,
        length: Option<u64>,
        body: &mut Vec<u8>,
        first: &mut Option<Duration>,
    ) -> Ending {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let missing = length.map(|l| l.saturating_sub(body.len() as u64));
            if missing == Some(0) {
                return Ending::Complete;
            }
            let want = missing.map_or(buffer.len(), |m| buffer.len().min(m as usize));
            match self.read_some(&mut buffer[..want]) {
                Ok(0) if length.is_none() => return Ending::Complete,
                Ok(0) => return Ending::Fin,
                Ok(n) => {
                    first.get_or_insert_with(|| self.sent_at.elapsed());
                    body.extend_from_slice(&buffer[..n]);
                }
                Err(e) => return ending_of(&e),
            }
        }
    }

    fn read_chunks(&mut self, body: &mut Vec<u8>, first: &mut Option<Duration>) -> Ending {
        loop {
            let line = match self.read_line() {
                Ok(line) => line,
                Err(e) => return ending_of(&e),
            };
            let digits = line.split(';').next().unwrap_or_default().trim();
            let Ok(size) = u64::from_str_radix(digits, 16) else { return Ending::Fin };
            if size == 0 {
                return if self.read_line().is_ok() { Ending::Complete } else { Ending::Fin };
            }
            let upto = body.len() as u64 + size;
            match self.read_length(Some(upto), body, first) {
                Ending::Complete => {}
                cut => return cut,
            }
            if self.read_line().is_err() {
                return Ending::Fin;
            }
        }
    }

    fn read_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.ahead.windows(2).position(|w| w == b"\r\n") {
                let line = String::from_utf8_lossy(&self.ahead[..at]).into_owned();
                self.ahead.drain(..at + 2);
                return Ok(line);
            }
            if self.fill_ahead()? == 0 {
                return Err(io::Error::from(ErrorKind::UnexpectedEof));
            }
        }
    }
}

/// The bytes of a bodiless request, `Host` first unless the lines name one.
pub fn request_bytes(method: &str, target: &str, headers: &[(&str, &str)]) -> String {
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("host")) {
        text.push_str("Host: mirror.test\r\n");
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text
}

fn ending_of(error: &io::Error) -> Ending {
    match error.kind() {
        ErrorKind::UnexpectedEof => Ending::Fin,
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Ending::Timeout,
        _ => Ending::Reset,
    }
}

fn parse_head(bytes: &[u8]) -> io::Result<Head> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| io::Error::other(format!("not a status line: {line:?}")))?;
    let mut headers = Headers::default();
    for line in lines {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| io::Error::other(format!("not a header line: {line:?}")))?;
        headers.0.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(Head { status, line, headers })
}

/// GET over a connection of its own.
#[track_caller]
pub fn get(addr: SocketAddr, target: &str) -> Answer {
    get_with(addr, target, &[])
}

/// GET over a connection of its own; no connection or no answer is an error.
pub fn try_get(addr: SocketAddr, target: &str) -> io::Result<Answer> {
    let mut connection = Connection::try_open(addr)?;
    connection.request("GET", target, &[]);
    connection.read_answer("GET")
}

/// GET with header lines, over a connection of its own.
#[track_caller]
pub fn get_with(addr: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Answer {
    Connection::open(addr).exchange("GET", target, headers)
}

/// HEAD over a connection of its own.
#[track_caller]
pub fn head(addr: SocketAddr, target: &str) -> Answer {
    Connection::open(addr).exchange("HEAD", target, &[])
}

/// A request with a body, over a connection of its own; what the tests push images with.
#[track_caller]
pub fn send_body(
    addr: SocketAddr,
    method: &str,
    target: &str,
    content_type: &str,
    body: &[u8],
) -> Answer {
    let length = body.len().to_string();
    let mut connection = Connection::open(addr);
    let headers = [("Content-Type", content_type), ("Content-Length", &length)];
    connection.request(method, target, &headers);
    connection.send(body);
    connection.read_answer(method).unwrap_or_else(|e| panic!("no answer to {method} {target}: {e}"))
}
