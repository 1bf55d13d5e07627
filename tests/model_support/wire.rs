//! One client's requests: over a connection that is kept, with a body if there is one.

use crate::support::http::{Answer, Connection, Ending, request_bytes};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often a server was started and ended: odd while it is being stopped or is away.
#[derive(Default)]
pub struct Life(AtomicU64);

impl Life {
    /// Where it stands now.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// It is being ended, or is there again.
    pub fn turn(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Why there is no answer to judge.
#[derive(Debug)]
pub enum Trouble {
    /// The server went away meanwhile.
    Gone(String),
    /// What came is wrong, whatever the model says.
    Wrong(String),
}

/// The answer, or why there is none.
pub type Told<T> = Result<T, Trouble>;

/// Something that must not happen.
pub fn wrong<T>(what: impl Into<String>) -> Told<T> {
    Err(Trouble::Wrong(what.into()))
}

/// One client.
pub struct Wire {
    addr: SocketAddr,
    life: Arc<Life>,
    connection: Option<(u64, Connection)>,
    /// The last requests, with what came of them.
    pub log: VecDeque<String>,
    /// How many requests were answered.
    pub count: u64,
    /// Only what goes wrong is told of in `log`.
    pub is_quiet: bool,
    /// What the last answer was.
    pub last_status: u16,
    /// The upload that was begun last, as long as its end is not known.
    pub under_way: Option<UnderWay>,
}

/// An upload whose end is not known.
#[derive(Clone, Debug)]
pub struct UnderWay {
    /// Where it goes on.
    pub target: String,
    /// Bytes that may have been received.
    pub sent: usize,
}

/// What goes with a request.
#[derive(Clone, Copy)]
pub enum Body<'a> {
    /// Nothing, not even a length.
    None,
    /// These bytes, their length told.
    Bytes(&'a [u8]),
    /// These bytes in chunks.
    Chunks(&'a [u8]),
}

impl Wire {
    /// A client of the server at this address.
    pub fn new(addr: SocketAddr, life: Arc<Life>) -> Wire {
        Wire {
            addr,
            life,
            connection: None,
            log: VecDeque::new(),
            count: 0,
            is_quiet: false,
            last_status: 0,
            under_way: None,
        }
    }

    /// Sends a request and reads its answer. It is wrong for a server that runs not to answer.
    pub fn ask(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Body<'_>,
    ) -> Told<Answer> {
        let since = self.life.now();
        let answer = self.exchange(since, method, target, headers, body);
        match answer {
            Ok(answer) => {
                let ending = answer.ending;
                self.last_status = answer.status();
                if !self.is_quiet {
                    let (status, code) = (answer.status(), answer.error_code());
                    self.note(format!("{method} {target} {}: {status} {code}", told(headers)));
                }
                self.count += 1;
                let closes = answer.header("connection").eq_ignore_ascii_case("close");
                if closes || ending != Ending::Complete {
                    self.connection = None;
                }
                if ending != Ending::Complete {
                    return self.no_answer(since, format!("{method} {target}: {ending:?}"));
                }
                Ok(answer)
            }
            Err(error) => {
                self.connection = None;
                self.note(format!("{method} {target} {}: {error}", told(headers)));
                self.no_answer(since, format!("{method} {target}: {error}"))
            }
        }
    }

    /// Sends the beginning of a body of `length` bytes and ends the connection.
    pub fn ask_and_leave(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        part: &[u8],
        length: usize,
        by_reset: bool,
    ) -> Told<()> {
        self.note(format!("{method} {target}: left after {} of {length} bytes", part.len()));
        let since = self.life.now();
        let length = length.to_string();
        let headers: Vec<_> =
            headers.iter().copied().chain([("Content-Length", length.as_str())]).collect();
        let mut connection = match Connection::try_open(self.addr) {
            Ok(connection) => connection,
            Err(error) => return self.no_answer(since, error.to_string()),
        };
        connection.request(method, target, &headers);
        connection.send(part);
        if by_reset {
            connection.reset();
        }
        Ok(())
    }

    fn exchange(
        &mut self,
        since: u64,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Body<'_>,
    ) -> io::Result<Answer> {
        // A connection to the process before this one is of no use.
        let kept = self.connection.take().filter(|(of, _)| *of == since);
        let (_, connection) = match kept {
            Some(kept) => self.connection.insert(kept),
            None => self.connection.insert((since, Connection::try_open(self.addr)?)),
        };
        let (length, framing) = match body {
            Body::None => (String::new(), None),
            Body::Bytes(bytes) => (bytes.len().to_string(), Some("Content-Length")),
            Body::Chunks(_) => ("chunked".to_owned(), Some("Transfer-Encoding")),
        };
        let framing = framing.map(|name| (name, length.as_str()));
        let headers: Vec<_> = headers.iter().copied().chain(framing).collect();
        let mut bytes = request_bytes(method, target, &headers).into_bytes();
        match body {
            Body::None => {}
            Body::Bytes(body) => bytes.extend_from_slice(body),
            Body::Chunks(body) => {
                for chunk in body.chunks(100_000) {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
        }
        connection.send(bytes);
        connection.read_answer(method)
    }

    /// Nothing came: right only if the server was ended meanwhile, which may be told a moment
    /// later.
    fn no_answer<T>(&mut self, since: u64, what: String) -> Told<T> {
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            if self.life.now() != since || !since.is_multiple_of(2) {
                return Err(Trouble::Gone(what));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        wrong(format!("no answer, and nobody ended the server: {what}"))
    }

    /// How often the server was started and ended.
    pub fn life(&self) -> u64 {
        self.life.now()
    }

    /// Keeps a line for the report of a failure.
    pub fn note(&mut self, mut line: String) {
        // Tokens in a Location may be long.
        if let Some((at, _)) = line.char_indices().nth(300) {
            line.truncate(at);
        }
        if self.log.len() == 60 {
            self.log.pop_front();
        }
        self.log.push_back(line);
    }
}

/// Headers for the log, without what is always the same.
fn told(headers: &[(&str, &str)]) -> String {
    let some = headers.iter().filter(|(name, _)| *name != "Accept");
    some.map(|(name, value)| format!("{name}: {value} ")).collect()
}

/// The answer has this status, and if that is a refusal, an OCI error body.
pub fn expect(answer: &Answer, statuses: &[u16], what: &str) -> Told<()> {
    let status = answer.status();
    if !statuses.contains(&status) {
        let text = answer.text();
        return wrong(format!("{what}: {status}, not {statuses:?}: {:?} {text}", answer.head));
    }
    Ok(())
}

/// A header has this value.
pub fn expect_header(answer: &Answer, name: &str, value: &str, what: &str) -> Told<()> {
    if answer.header(name) != value {
        let found = &answer.head.headers;
        return wrong(format!("{what}: `{name}` is not {value:?}: {found:?}"));
    }
    Ok(())
}

/// The path of a `Location`, with its query.
pub fn location(answer: &Answer, what: &str) -> Told<String> {
    let location = answer.header("location");
    match location.find("/v2/") {
        Some(at) => Ok(location[at..].to_owned()),
        None => wrong(format!("{what}: no Location: {:?}", answer.head)),
    }
}

/// A target with one more parameter.
pub fn with_query(target: &str, query: &str) -> String {
    let joint = if target.contains('?') { '&' } else { '?' };
    format!("{target}{joint}{query}")
}
