//! The body of a request, piece by piece, as its framing says.

use std::io;
use std::time::Duration;

use bytes::Bytes;

use crate::http::{BodyFraming, ChunkError, ChunkedDecoder, RequestHead, Step, Version};
use crate::limits::{BODY_RATE_FLOOR_BYTES_PER_SECOND, BODY_RATE_WINDOW, FRAME_BYTES_MAX};
use crate::runtime::deadline::Deadline;
use crate::runtime::{ClientStream, clock};

/// Bytes read at once while a body may be a small one.
const PIECE_FIRST: usize = 16 * 1024;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Why a body did not come whole. Nothing more can be read, and the connection must be closed; an
/// answer may still reach the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InletError {
    /// The client has gone, or ended its side too early.
    #[error("the client ended the connection after {received} bytes of the request's body")]
    Gone {
        /// Bytes of the body that had come.
        received: u64,
    },
    /// The client sends next to nothing.
    #[error("the request's body came too slowly: {received} bytes, then nothing for {after:?}")]
    Stalled {
        /// Bytes of the body that had come.
        received: u64,
        /// For how long.
        after: Duration,
    },
    /// The chunks are malformed.
    #[error("the request's body cannot be read: {0}")]
    Framing(#[from] ChunkError),
}

/// A body as a whole.
#[derive(Debug, PartialEq, Eq)]
pub enum Whole {
    /// All of it.
    Bytes(Bytes),
    /// It has more bytes than may be; the rest was not read.
    TooLarge,
    /// It may not be large now; the rest was not read.
    NotNow,
}

/// The receiving half of one request.
pub struct Inlet<'a> {
    stream: &'a mut ClientStream,
    deadline: &'a Deadline,
    /// How long the client may take to send at least one byte.
    stall: Duration,
    /// Where the next request is found when this body has ended.
    buffer: &'a mut Vec<u8>,
    /// What was read of the body's bytes and not given out yet.
    unread: Bytes,
    left: Left,
    length: Option<u64>,
    awaits_continue: bool,
    began: bool,
    failed: bool,
    received: u64,
    /// How long the client was waited for in the current stretch of measuring, and what came.
    measured: (Duration, u64),
}

/// What is still to come.
enum Left {
    Bytes(u64),
    Chunks(ChunkedDecoder),
}

impl<'a> Inlet<'a> {
    /// The body behind `head`, of which `buffer` may hold the beginning. A client that sends no
    /// byte for `stall` is given up.
    pub fn new(
        head: &RequestHead,
        stream: &'a mut ClientStream,
        deadline: &'a Deadline,
        stall: Duration,
        buffer: &'a mut Vec<u8>,
    ) -> Self {
        let (left, length) = match head.body {
            BodyFraming::None => (Left::Bytes(0), Some(0)),
            BodyFraming::Length(length) => (Left::Bytes(length), Some(length)),
            BodyFraming::Chunked => (Left::Chunks(ChunkedDecoder::new()), None),
        };
        Self {
            stream,
            deadline,
            stall,
            buffer,
            unread: Bytes::new(),
            left,
            length,
            awaits_continue: head.expect_100 && head.version == Version::Http11,
            began: false,
            failed: false,
            received: 0,
            measured: (Duration::ZERO, 0),
        }
    }

    /// Bytes of the whole body; `None` when it comes in chunks.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Bytes of it given out so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether some of it was read, or tried to be.
    pub fn has_begun(&self) -> bool {
        self.began
    }

    /// Whether all of it was read, so that the next request stands behind it.
    pub fn is_complete(&self) -> bool {
        !self.failed
            && match &self.left {
                Left::Bytes(left) => *left == 0,
                Left::Chunks(decoder) => decoder.is_complete(),
            }
    }

    /// The next piece, of at most [`FRAME_BYTES_MAX`] bytes and never empty; `None` at the end. The
    /// first call tells a client that waits for it to go on.
    ///
    /// # Errors
    /// See [`InletError`]; it comes again whenever this is called after it.
    pub async fn next(&mut self) -> Result<Option<Bytes>, InletError> {
        if self.is_complete() {
            return Ok(None);
        }
        if self.failed {
            return Err(self.gone());
        }
        let next = self.advance().await;
        self.failed = next.is_err();
        if self.failed || self.is_complete() {
            self.give_back();
        }
        if let Ok(Some(piece)) = &next {
            self.received += piece.len() as u64;
        }
        next
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, InletError> {
        if !std::mem::replace(&mut self.began, true) {
            self.unread = Bytes::from(std::mem::take(self.buffer));
            if self.awaits_continue && self.unread.is_empty() {
                self.go_on().await?;
            }
        }
        loop {
            if !self.unread.is_empty()
                && let Some(piece) = self.take_piece()?
            {
                return Ok(Some(piece));
            }
            if self.is_complete() {
                return Ok(None);
            }
            self.read().await?;
        }
    }

    async fn go_on(&mut self) -> Result<(), InletError> {
        self.deadline.write_by(clock::now() + self.stall);
        let (written, _) = self.stream.write_all(CONTINUE.to_vec()).await;
        self.deadline.clear();
        written.map_err(|_| self.gone())
    }

    /// Takes what is a piece of the body off what was read; `None` when that was only framing.
    fn take_piece(&mut self) -> Result<Option<Bytes>, InletError> {
        let most = self.unread.len().min(FRAME_BYTES_MAX);
        match &mut self.left {
            Left::Bytes(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(most);
                *left -= count as u64;
                Ok((count > 0).then(|| self.unread.split_to(count)))
            }
            Left::Chunks(decoder) => {
                let input = self.unread.get(..most).unwrap_or_default();
                match decoder.advance(input)? {
                    Step::Data { skip, len } => {
                        let _ = self.unread.split_to(skip);
                        Ok(Some(self.unread.split_to(len)))
                    }
                    Step::More => {
                        let _ = self.unread.split_to(most);
                        Ok(None)
                    }
                    Step::End { consumed } => {
                        let _ = self.unread.split_to(consumed);
                        Ok(None)
                    }
                }
            }
        }
    }

    /// Reads more behind what was used up.
    async fn read(&mut self) -> Result<(), InletError> {
        let first = if self.received == 0 { PIECE_FIRST } else { FRAME_BYTES_MAX };
        let capacity = match &self.left {
            // Not a byte of what follows, so that nothing has to be given back.
            Left::Bytes(left) => usize::try_from(*left).unwrap_or(usize::MAX).min(first),
            Left::Chunks(_) => first,
        };
        let asked = clock::now();
        self.deadline.read_by(asked + self.stall, false);
        let (read, bytes) = self.stream.read_more(Vec::with_capacity(capacity)).await;
        let expired = self.deadline.expired();
        self.deadline.clear();
        match read {
            Ok(count @ 1..) if !self.is_below_floor(asked.elapsed(), count as u64) => {
                self.unread = Bytes::from(bytes);
                Ok(())
            }
            Ok(0) | Err(_) if !expired => Err(self.gone()),
            _ => Err(InletError::Stalled { received: self.received, after: self.stall }),
        }
    }

    /// As for bodies that are sent: a client that drips holds a connection and a file. Only the time
    /// in which it was waited for counts.
    fn is_below_floor(&mut self, waited: Duration, count: u64) -> bool {
        self.measured = (self.measured.0 + waited, self.measured.1 + count);
        let (window, came) = self.measured;
        if window < BODY_RATE_WINDOW {
            return false;
        }
        self.measured = (Duration::ZERO, 0);
        came < window.as_secs().saturating_mul(BODY_RATE_FLOOR_BYTES_PER_SECOND)
    }

    fn gone(&self) -> InletError {
        InletError::Gone { received: self.received }
    }

    fn give_back(&mut self) {
        if self.began && self.buffer.is_empty() {
            *self.buffer = Vec::from(std::mem::take(&mut self.unread));
        }
    }

    /// Reads all of a body that has at most `max` bytes. Before it takes more memory than a piece
    /// does, `may_be_large` is asked, once.
    ///
    /// # Errors
    /// As [`Inlet::next`].
    pub async fn whole(
        &mut self,
        max: usize,
        may_be_large: impl FnOnce() -> bool,
    ) -> Result<Whole, InletError> {
        if self.length.is_some_and(|length| length > max as u64) {
            return Ok(Whole::TooLarge);
        }
        let mut asked = Some(may_be_large);
        let mut all = Vec::new();
        while let Some(piece) = self.next().await? {
            let length = all.len() + piece.len();
            if length > max {
                return Ok(Whole::TooLarge);
            }
            if length > FRAME_BYTES_MAX
                && let Some(may_be_large) = asked.take()
                && !may_be_large()
            {
                return Ok(Whole::NotNow);
            }
            if all.is_empty() && self.is_complete() {
                return Ok(Whole::Bytes(piece));
            }
            all.extend_from_slice(&piece);
        }
        Ok(Whole::Bytes(Bytes::from(all)))
    }
}

impl From<InletError> for io::Error {
    fn from(error: InletError) -> Self {
        Self::other(error)
    }
}
