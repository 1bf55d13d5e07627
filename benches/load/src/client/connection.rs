//! One connection of the load generator: one request at a time, its answer compared as it comes.
//!
//! A body is discarded in the kernel (`MSG_TRUNC`), so that the client costs little beside the
//! server; a piece of it, another one each time, is read and compared.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::head::Head;
use super::{Ask, Body, Tally};
use crate::content::{BLOCK_BYTES, fill_block};

/// What is read of an answer before its length is known. More would copy bodies for nothing.
const HEAD_BYTES: usize = 8 << 10;
/// What is discarded at a time.
const DISCARD_BYTES: usize = 1 << 20;
/// Of the queue of what has come and is not read yet; the kernel doubles it for its own use.
const RECEIVE_BYTES: usize = 2 << 20;
/// Of seeded bodies shorter than a mebibyte, and of small ones, one in so many is compared: to
/// compare each would make the client the slower of the two.
const COMPARED_ONE_IN: u64 = 16;

/// Memory that all connections of a thread share.
pub(crate) struct Scratch {
    discard: Vec<u8>,
    random: fastrand::Rng,
    answers: u64,
}

impl Scratch {
    /// `seed` chooses which pieces are compared.
    pub(crate) fn new(seed: u64) -> Scratch {
        Scratch {
            discard: vec![0; DISCARD_BYTES],
            random: fastrand::Rng::with_seed(seed),
            answers: 0,
        }
    }
}

/// How far an answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There is more to come.
    Waiting,
    /// It was as it had to be, as far as it was compared.
    Whole { closes: bool },
    /// The other side closed before a byte of the answer: the request may be asked again.
    Refused,
}

/// One connection.
pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    /// Of the request under way.
    pub(crate) began: Instant,
    /// The head, and what came with it; of a body that is compared whole, all of it.
    kept: Vec<u8>,
    head_bytes: usize,
    body_bytes: u64,
    received: u64,
    /// Whether the head has come.
    has_head: bool,
    closes: bool,
    /// The block of the body that is compared, if one is.
    piece: Option<u64>,
    piece_bytes: Vec<u8>,
}

impl Connection {
    /// Opens one.
    ///
    /// # Errors
    /// The network's.
    pub(crate) fn open(addr: SocketAddr) -> io::Result<Connection> {
        let socket = TcpStream::connect(addr)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        // Left to itself the kernel lets some clients' queues grow to 32 MiB: gibibytes that came
        // before a window would count in it, and none of them is in a cache when it is read.
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BYTES)?;
        Ok(Connection {
            socket,
            began: Instant::now(),
            kept: Vec::with_capacity(HEAD_BYTES),
            head_bytes: 0,
            body_bytes: 0,
            received: 0,
            has_head: false,
            closes: false,
            piece: None,
            piece_bytes: Vec::new(),
        })
    }

    /// Sends a request. `began` is when its latency counts from.
    ///
    /// # Errors
    /// The network's; a request that does not fit the socket's empty buffer.
    pub(crate) fn ask(&mut self, ask: &Ask, began: Instant) -> io::Result<()> {
        self.began = began;
        self.kept.clear();
        self.piece_bytes.clear();
        (self.head_bytes, self.body_bytes, self.received) = (0, 0, 0);
        (self.has_head, self.closes, self.piece) = (false, false, None);
        let sent = send(&self.socket, &ask.bytes, SendFlags::NOSIGNAL)?;
        if sent < ask.bytes.len() {
            return Err(io::Error::other("a request did not fit an empty socket"));
        }
        Ok(())
    }

    /// Takes what has come, at most one receive's worth, so that connections take turns.
    ///
    /// # Errors
    /// What was expected of the answer, and what was found.
    pub(crate) fn advance(
        &mut self,
        ask: &Ask,
        scratch: &mut Scratch,
        tally: &mut Tally,
        counts: bool,
    ) -> Result<Progress, String> {
        let got = if self.has_head { self.receive_body(ask, scratch) } else { self.receive_head() };
        let got = match got {
            Ok(got) => got,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Progress::Waiting),
            Err(Errno::CONNRESET | Errno::PIPE) => 0,
            Err(error) => return Err(format!("{}: {error}", ask.name)),
        };
        if got == 0 {
            return self.ended(ask);
        }
        let mut body = got as u64;
        if !self.has_head {
            if !self.take_head(ask, scratch)? {
                return Ok(Progress::Waiting);
            }
            body = self.kept.len().saturating_sub(self.head_bytes) as u64;
        }
        self.received += body;
        if counts {
            tally.body_bytes += body;
        }
        if self.received > self.body_bytes {
            return Err(format!(
                "{}: {} bytes more than Content-Length",
                ask.name,
                self.received - self.body_bytes
            ));
        }
        if self.received < self.body_bytes {
            return Ok(Progress::Waiting);
        }
        self.compare(ask, scratch)?;
        Ok(Progress::Whole { closes: self.closes })
    }

    fn receive_head(&mut self) -> Result<usize, Errno> {
        let had = self.kept.len();
        self.kept.resize(had + HEAD_BYTES, 0);
        let space = self.kept.get_mut(had..).unwrap_or_default();
        let got = recv(&self.socket, space, RecvFlags::empty()).map(|(got, _)| got);
        self.kept.truncate(had + got.unwrap_or(0));
        got
    }

    fn receive_body(&mut self, ask: &Ask, scratch: &mut Scratch) -> Result<usize, Errno> {
        let left = usize::try_from(self.body_bytes - self.received).unwrap_or(usize::MAX);
        if matches!(ask.body, Body::Small(_) | Body::Any) {
            let had = self.kept.len();
            self.kept.resize(had + left, 0);
            let space = self.kept.get_mut(had..).unwrap_or_default();
            let got = recv(&self.socket, space, RecvFlags::empty()).map(|(got, _)| got);
            self.kept.truncate(had + got.unwrap_or(0));
            return got;
        }
        let at = self.received;
        let (until, read) = match self.piece.map(|n| n * BLOCK_BYTES as u64) {
            Some(start) if at < start => (start - at, false),
            Some(start) if at < start + BLOCK_BYTES as u64 => {
                (start + BLOCK_BYTES as u64 - at, true)
            }
            _ => (left as u64, false),
        };
        let most = usize::try_from(until).unwrap_or(left).min(left).min(DISCARD_BYTES);
        let space = scratch.discard.get_mut(..most).unwrap_or_default();
        let flags = if read { RecvFlags::empty() } else { RecvFlags::TRUNC };
        let (_, got) = recv(&self.socket, &mut *space, flags)?;
        if read {
            self.piece_bytes.extend_from_slice(space.get(..got).unwrap_or_default());
        }
        Ok(got)
    }

    /// Reads the head if it is whole, and compares it.
    fn take_head(&mut self, ask: &Ask, scratch: &mut Scratch) -> Result<bool, String> {
        let Some(head) = Head::of(&self.kept, ask)? else { return Ok(false) };
        (self.has_head, self.closes) = (true, head.closes);
        (self.head_bytes, self.body_bytes) = (head.bytes, head.body_bytes);
        self.choose_piece(ask, scratch);
        Ok(true)
    }

    fn choose_piece(&mut self, ask: &Ask, scratch: &mut Scratch) {
        scratch.answers += 1;
        let Body::Seeded { bytes, .. } = ask.body else { return };
        let whole_blocks = bytes / BLOCK_BYTES as u64;
        // What came with the head has been copied already: pieces lie behind it.
        let first = 1 + HEAD_BYTES as u64 / BLOCK_BYTES as u64;
        let is_due = bytes >= 1 << 20 || scratch.answers.is_multiple_of(COMPARED_ONE_IN);
        if is_due && whole_blocks > first {
            self.piece = Some(scratch.random.u64(first..whole_blocks));
        }
    }

    fn compare(&self, ask: &Ask, scratch: &mut Scratch) -> Result<(), String> {
        match &ask.body {
            Body::Small(expected) if scratch.answers.is_multiple_of(COMPARED_ONE_IN) => {
                let found = self.kept.get(self.head_bytes..).unwrap_or_default();
                if found != expected.as_ref() {
                    return Err(format!("{}: the body is another one", ask.name));
                }
            }
            Body::Seeded { seed, .. } => {
                let Some(n) = self.piece else { return Ok(()) };
                let mut expected = [0; BLOCK_BYTES];
                fill_block(*seed, n, &mut expected);
                if self.piece_bytes != expected {
                    let at = n * BLOCK_BYTES as u64;
                    return Err(format!("{}: the body differs behind byte {at}", ask.name));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn ended(&self, ask: &Ask) -> Result<Progress, String> {
        if self.kept.is_empty() {
            return Ok(Progress::Refused);
        }
        Err(format!("{}: closed after {} of {} bytes", ask.name, self.received, self.body_bytes))
    }
}
