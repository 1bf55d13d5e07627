//! Sending an answer, fair and never on a cold page: windows of the file, corked behind the head, by the
//! worker's pipe, or by sendfile(2) when they are small; to clients that speak TLS, pieces that are read
//! from the page cache and encrypted.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt;

use super::{WINDOW, pages, pipe};
use crate::limits::{BODY_RATE_FLOOR_BYTES_PER_SECOND, BODY_RATE_WINDOW};
use crate::runtime::deadline::Deadline;
use crate::runtime::{ClientStream, bulk_turn, bulk_turn_now, bulk_unused, clock};

/// Bodies longer than this are corked; shorter ones go out in one call, behind their head.
const CORKED_ABOVE: u64 = 64 * 1024;
/// The least that is offered to a socket that had no room for more.
const OFFER_MIN: u64 = 128 * 1024;
/// Bytes encrypted for one client before others have their turn: what takes a worker about a tenth
/// of a millisecond.
const ENCRYPTED_TURN: u64 = 256 * 1024;

/// How far a part of a file has been sent.
#[derive(Default)]
pub struct Underway {
    sent: u64,
    warmth: pages::Warmth,
    /// Whether the kernel has been told to wait for the rest.
    is_corked: bool,
}

impl Underway {
    /// Bytes of the file that the socket has taken.
    pub fn sent(&self) -> u64 {
        self.sent
    }
}

/// Whether the socket takes more.
#[derive(PartialEq, Eq)]
enum Room {
    Perhaps,
    None,
}

/// The sending half of one response.
pub struct Outlet<'a> {
    stream: &'a mut ClientStream,
    deadline: &'a Deadline,
    /// How long the client may take to accept at least one byte.
    stall: Duration,
    sent: u64,
    copied: u64,
    /// Whether files go by the worker's pipe.
    by_pipe: bool,
    /// How much of them is offered to the socket at once.
    offer: u64,
    /// When the first wait of the current stretch of measuring began, if there was one, and what had been
    /// sent when the stretch did.
    measured_from: (Option<Instant>, u64),
}

impl<'a> Outlet<'a> {
    /// Sends to `stream`; a client that takes no byte for `stall` is given up.
    pub fn new(stream: &'a mut ClientStream, deadline: &'a Deadline, stall: Duration) -> Self {
        Self {
            stream,
            deadline,
            stall,
            sent: 0,
            copied: 0,
            by_pipe: true,
            offer: pipe::CAPACITY,
            measured_from: (None, 0),
        }
    }

    /// Bytes the socket has taken so far, head included. Over TLS: bytes that were encrypted, of
    /// which a client that has gone may have missed the last 64 KiB.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes of files that went through user memory, to be encrypted.
    pub fn copied(&self) -> u64 {
        self.copied
    }

    /// Sends bytes from user memory: heads and documents. With `more`, the kernel waits for what
    /// follows before it sends a packet that is not full.
    ///
    /// # Errors
    /// The client has gone or takes nothing.
    pub async fn bytes(&mut self, bytes: &[u8], more: bool) -> io::Result<()> {
        self.measure();
        self.write(bytes, more).await?;
        self.flush(more).await
    }

    /// Sends `length` bytes of `file` from `offset`: without copying them, or encrypted.
    ///
    /// # Errors
    /// The client has gone or takes nothing, the disk failed, or the file is shorter than it
    /// should be (`UnexpectedEof`): the response must then be cut short.
    pub async fn file(&mut self, file: &Arc<File>, offset: u64, length: u64) -> io::Result<()> {
        self.rest_of_file(file, offset, length, Underway::default()).await
    }

    /// Sends a file that grows, from `offset` on, until there is no more of what `readable` says; it
    /// is asked whenever something has gone out. Tells up to where that was.
    ///
    /// # Errors
    /// As [`Outlet::file`].
    pub async fn growing(
        &mut self,
        file: &Arc<File>,
        mut offset: u64,
        readable: impl Fn() -> u64,
    ) -> io::Result<u64> {
        self.measure();
        let mut until = readable();
        if self.stream.is_tls() {
            self.encrypted(file, offset, until).await?;
            return Ok(until);
        }
        let mut is_corked = false;
        let sent = async {
            let _stream = pipe::Stream::begin();
            let (mut warmth, mut has_waited) = (pages::Warmth::default(), false);
            while offset < until {
                let window = warmth.window(file, offset, until).await?;
                bulk_turn(window).await;
                let before = std::mem::replace(&mut until, readable());
                let is_short = offset + window == before && window < WINDOW;
                if is_short && !has_waited && until - offset >= 2 * window {
                    has_waited = true;
                    // While it queued, much has come: small pieces for many take twice as long. The
                    // gate has let in what it was told, so it queues anew.
                    bulk_unused(window, window);
                    warmth.look_again();
                    continue;
                }
                has_waited = false;
                is_corked = is_corked || (window > CORKED_ABOVE && self.cork(true));
                self.by_pipe = pipe::suits_streams();
                if self.send_window(file, &mut offset, window, clock::now())? == Room::None
                    && offset < until
                {
                    self.wait().await?;
                    until = readable();
                }
            }
            Ok(offset)
        }
        .await;
        if is_corked {
            self.cork(false);
        }
        sent
    }

    /// Begins to send the same `now`, as far as it takes no wait: nothing over TLS, or of what is not in
    /// memory. [`Outlet::rest_of_file`] has to go on unless all of it has gone.
    ///
    /// It tells of errors, too: they come again, from the byte at which they came.
    pub fn file_at_once(
        &mut self,
        file: &Arc<File>,
        mut offset: u64,
        length: u64,
        now: Instant,
    ) -> Underway {
        let mut underway = Underway::default();
        if self.stream.is_tls() {
            return underway;
        }
        let window = underway.warmth.look(file, offset, offset.saturating_add(length), now);
        let window = window.unwrap_or(0);
        if window == 0 || !bulk_turn_now(window) {
            return underway;
        }
        let is_corked = length > CORKED_ABOVE && self.cork(true);
        let from = offset;
        // What was sent before an error must not be sent again.
        let _ = self.send_window(file, &mut offset, window, now);
        underway.sent = offset - from;
        underway.is_corked = is_corked && underway.sent < length;
        if is_corked && !underway.is_corked {
            self.cork(false);
        }
        underway
    }

    /// Sends what is left of `length` bytes of `file` from `offset`.
    ///
    /// # Errors
    /// As [`Outlet::file`].
    pub async fn rest_of_file(
        &mut self,
        file: &Arc<File>,
        offset: u64,
        length: u64,
        mut underway: Underway,
    ) -> io::Result<()> {
        let end = offset.saturating_add(length);
        let offset = offset.saturating_add(underway.sent);
        self.measure();
        if self.stream.is_tls() {
            return self.encrypted(file, offset, end).await;
        }
        let is_corked = underway.is_corked || length > CORKED_ABOVE && self.cork(true);
        let sent = self.windows(file, offset, end, &mut underway.warmth).await;
        if is_corked {
            self.cork(false);
        }
        sent
    }

    /// Has the kernel send full packets only, until told otherwise. Without it each acknowledgement
    /// that comes between two pages sends what is there. Fails only on sockets that are gone.
    fn cork(&self, corked: bool) -> bool {
        let socket = self.stream.without_tls();
        socket.is_some_and(|socket| sockopt::set_tcp_cork(socket, corked).is_ok())
    }

    /// Sends a part of a file window by window.
    async fn windows(
        &mut self,
        file: &Arc<File>,
        mut offset: u64,
        end: u64,
        warmth: &mut pages::Warmth,
    ) -> io::Result<()> {
        let _stream = pipe::Stream::begin();
        while offset < end {
            let window = warmth.window(file, offset, end).await?;
            bulk_turn(window).await;
            self.by_pipe = pipe::suits_streams();
            if self.send_window(file, &mut offset, window, clock::now())? == Room::None
                && offset < end
            {
                self.wait().await?;
            }
        }
        Ok(())
    }

    /// Sends up to `window` bytes, whose turn was taken, without a wait; `began` is now. `offset` is moved
    /// behind what was sent, also if an error comes after it.
    fn send_window(
        &mut self,
        file: &File,
        offset: &mut u64,
        window: u64,
        began: Instant,
    ) -> io::Result<Room> {
        let (mut left, mut outcome) = (window, Ok(Room::Perhaps));
        while left > 0 && matches!(outcome, Ok(Room::Perhaps)) {
            outcome = self.send_some(file, offset, left).map(|(taken, room)| {
                left = left.saturating_sub(taken);
                self.sent += taken;
                room
            });
        }
        bulk_unused(window, left);
        pages::sent_since(began);
        outcome
    }

    /// Sends some of the next `count` bytes; tells how many.
    fn send_some(&mut self, file: &File, offset: &mut u64, count: u64) -> io::Result<(u64, Room)> {
        let Some(socket) = self.stream.without_tls() else {
            return Err(io::Error::other("a connection without TLS has begun to speak it"));
        };
        if count > CORKED_ABOVE
            && self.by_pipe
            && let Some(sent) = pipe::send(file, offset, socket, count.min(self.offer))
        {
            let (taken, offered) = sent?;
            // What is offered and not taken is work for nothing.
            if taken == offered {
                self.offer = (2 * self.offer).min(pipe::CAPACITY);
                return Ok((taken, Room::Perhaps));
            }
            self.offer = taken.next_power_of_two().clamp(OFFER_MIN, pipe::CAPACITY);
            return Ok((taken, Room::None));
        }
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        match rustix::fs::sendfile(socket, file, Some(offset), count) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(taken) if taken < count => Ok((taken as u64, Room::None)),
            Ok(taken) => Ok((taken as u64, Room::Perhaps)),
            Err(Errno::AGAIN) => Ok((0, Room::None)),
            Err(Errno::INTR) => Ok((0, Room::Perhaps)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends a part of a file to a client that speaks TLS. Of what is encrypted, one piece at most
    /// waits for the client.
    async fn encrypted(&mut self, file: &Arc<File>, mut offset: u64, end: u64) -> io::Result<()> {
        let mut turn_ends = offset.saturating_add(ENCRYPTED_TURN);
        while offset < end {
            // TLS takes a whole piece only when the one before has gone.
            self.flush(false).await?;
            if offset >= turn_ends {
                // Takes about as long as a window that is not encrypted.
                bulk_turn(WINDOW).await;
                turn_ends = offset.saturating_add(ENCRYPTED_TURN);
            }
            let stream = &mut *self.stream;
            let taken = pages::with_warm(file, offset, end - offset, |piece| {
                if piece.is_empty() { Ok(0) } else { stream.try_write(piece, false) }
            })?;
            let taken = match taken {
                Some(Err(error)) if waits(&error) => continue,
                Some(taken) => {
                    let taken = taken? as u64;
                    self.sent += taken;
                    taken
                }
                None => {
                    let piece = pages::read_cold(file, offset, end - offset).await?;
                    self.write(&piece, false).await?;
                    piece.len() as u64
                }
            };
            if taken == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.copied += taken;
            offset += taken;
        }
        self.flush(false).await
    }

    /// Waits until all of `bytes` is taken: by the socket, or by TLS before it.
    async fn write(&mut self, bytes: &[u8], more: bool) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.stream.try_write(rest, more) {
                Ok(taken) => {
                    self.sent += taken as u64;
                    rest = rest.get(taken..).unwrap_or_default();
                }
                Err(error) if waits(&error) => self.wait().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until the socket has taken what TLS has.
    async fn flush(&mut self, more: bool) -> io::Result<()> {
        loop {
            match self.stream.try_flush(more) {
                Err(error) if waits(&error) => self.wait().await?,
                flushed => return flushed,
            }
        }
    }

    /// Queues behind the ring until the socket takes bytes again.
    async fn wait(&mut self) -> io::Result<()> {
        let now = clock::now();
        self.measured_from.0.get_or_insert(now);
        self.deadline.write_by(now + self.stall);
        self.stream.writable().await?;
        let expired = self.deadline.expired();
        self.deadline.clear();
        if expired || self.is_below_floor() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the client took next to nothing for {:?}", self.stall),
            ));
        }
        Ok(())
    }

    fn measure(&mut self) {
        self.measured_from = (None, self.progress());
    }

    /// Bytes that the socket has taken: what is measured. TLS takes more at once than a slow client
    /// does in a window.
    fn progress(&self) -> u64 {
        self.stream.tls_written().unwrap_or(self.sent)
    }

    /// Whether a whole window has passed in which the client took fewer bytes than the floor,
    /// although there were some to take: each call that sends begins to measure anew.
    fn is_below_floor(&mut self) -> bool {
        let (Some(since), before) = self.measured_from else { return false };
        let now = clock::now();
        let window = now.duration_since(since);
        if window < BODY_RATE_WINDOW {
            return false;
        }
        self.measured_from = (Some(now), self.progress());
        let floor = window.as_secs().saturating_mul(BODY_RATE_FLOOR_BYTES_PER_SECOND);
        self.progress() - before < floor
    }
}

/// Whether the call is to be made again when the socket takes bytes.
fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
