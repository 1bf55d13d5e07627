//! sendfile(2) in windows, corked behind the head, fair, and never on a cold page.

use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::{Errno, ReadWriteFlags};
use rustix::net::SendFlags;

use crate::limits::{BODY_RATE_FLOOR_BYTES_PER_SECOND, BODY_RATE_WINDOW};
use crate::runtime::deadline::Deadline;
use crate::runtime::{TcpStream, blocking, clock};

/// Bytes handed to the kernel in one call. About 1 MiB is where throughput stops to grow.
const WINDOW: u64 = 1024 * 1024;
/// How far apart the page cache is probed: the kernel's usual read-ahead.
const STRETCH: u64 = 128 * 1024;
/// Smallest page size there is.
const PAGE: u64 = 4096;

/// The sending half of one response.
pub struct Outlet<'a> {
    stream: &'a mut TcpStream,
    deadline: &'a Deadline,
    /// How long the client may take to accept at least one byte.
    stall: Duration,
    sent: u64,
    /// When the current stretch of measuring began, and what had been sent by then.
    measured_from: (Instant, u64),
}

impl<'a> Outlet<'a> {
    /// Sends to `stream`; a client that takes no byte for `stall` is given up.
    pub fn new(stream: &'a mut TcpStream, deadline: &'a Deadline, stall: Duration) -> Self {
        Self { stream, deadline, stall, sent: 0, measured_from: (clock::now(), 0) }
    }

    /// Bytes the socket has taken so far, head included.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Sends bytes from user memory: heads and documents. With `more`, the kernel waits for what
    /// follows before it sends a packet that is not full.
    ///
    /// # Errors
    /// The client has gone or takes nothing.
    pub async fn bytes(&mut self, bytes: &[u8], more: bool) -> io::Result<()> {
        let flags = SendFlags::NOSIGNAL
            | SendFlags::DONTWAIT
            | if more { SendFlags::MORE } else { SendFlags::empty() };
        let mut rest = bytes;
        self.measured_from = (clock::now(), self.sent);
        while !rest.is_empty() {
            match rustix::net::send(self.stream.borrow(), rest, flags) {
                Ok(taken) => {
                    self.sent += taken as u64;
                    rest = rest.get(taken..).unwrap_or_default();
                }
                Err(Errno::AGAIN) => self.wait().await?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Sends `length` bytes of `file` from `offset`, without copying them.
    ///
    /// # Errors
    /// The client has gone or takes nothing, the disk failed, or the file is shorter than it
    /// should be (`UnexpectedEof`): the response must then be cut short.
    pub async fn file(
        &mut self,
        file: &Arc<std::fs::File>,
        mut offset: u64,
        length: u64,
    ) -> io::Result<()> {
        let end = offset.saturating_add(length);
        self.measured_from = (clock::now(), self.sent);
        while offset < end {
            let window = warm(file, offset, (end - offset).min(WINDOW)).await?;
            let count = usize::try_from(window).unwrap_or(usize::MAX);
            match rustix::fs::sendfile(self.stream.borrow(), file, Some(&mut offset), count) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(taken) => {
                    self.sent += taken as u64;
                    if offset < end {
                        self.wait().await?;
                    }
                }
                Err(Errno::AGAIN) => self.wait().await?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Queues behind the ring until the socket takes bytes again.
    async fn wait(&mut self) -> io::Result<()> {
        self.deadline.write_by(clock::now() + self.stall);
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

    /// Whether a whole window has passed in which the client took fewer bytes than the floor,
    /// although there were some to take: each call that sends begins to measure anew.
    fn is_below_floor(&mut self) -> bool {
        let (since, sent_before) = self.measured_from;
        let window = clock::now().duration_since(since);
        if window < BODY_RATE_WINDOW {
            return false;
        }
        self.measured_from = (clock::now(), self.sent);
        let floor = window.as_secs().saturating_mul(BODY_RATE_FLOOR_BYTES_PER_SECOND);
        self.sent - sent_before < floor
    }
}

/// Makes sure that sendfile will not wait for the disk: returns how many of the `window` bytes from
/// `offset` are in memory, at least one stretch of them. What is not there is read ahead on the
/// blocking pool.
async fn warm(file: &Arc<std::fs::File>, offset: u64, window: u64) -> io::Result<u64> {
    let mut at = offset;
    while at < offset + window {
        let length = (offset + window - at).min(STRETCH);
        let last = at + length - 1;
        match is_in_memory(file, last) {
            Ok(true) => at += length,
            Ok(false) if at > offset => break,
            Ok(false) => {
                read_ahead(file.clone(), at, length).await?;
                at += length;
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(at - offset)
}

/// Whether the page of this byte is in the page cache. Where the file system cannot tell, yes:
/// nothing better can be done than to send.
fn is_in_memory(file: &std::fs::File, offset: u64) -> io::Result<bool> {
    let mut byte = [0_u8; 1];
    let mut buffer = [IoSliceMut::new(&mut byte)];
    match rustix::io::preadv2(file, &mut buffer, offset, ReadWriteFlags::NOWAIT) {
        Ok(_) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

async fn read_ahead(file: Arc<std::fs::File>, offset: u64, length: u64) -> io::Result<()> {
    blocking(move || {
        // Advice for more than is needed now: the rest comes while this is being sent.
        let ahead = std::num::NonZeroU64::new(WINDOW);
        let _ = rustix::fs::fadvise(&file, offset, ahead, rustix::fs::Advice::WillNeed);
        let mut at = offset;
        let mut byte = [0_u8; 1];
        while at < offset + length {
            file.read_at(&mut byte, at)?;
            at += PAGE;
        }
        Ok(())
    })
    .await?
}
