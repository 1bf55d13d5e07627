//! sendfile(2) in windows, corked behind the head, fair, and never on a cold page.

use std::io::{self, IoSliceMut};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::{Errno, ReadWriteFlags};
use rustix::net::SendFlags;

use crate::runtime::deadline::Deadline;
use crate::runtime::{File, TcpStream, clock};

/// Bytes handed to the kernel in one call. About 1 MiB is where throughput stops to grow.
const WINDOW: u64 = 1024 * 1024;

/// The sending half of one response.
pub struct Outlet<'a> {
    stream: &'a mut TcpStream,
    deadline: &'a Deadline,
    /// How long the client may take to accept at least one byte.
    stall: Duration,
    sent: u64,
}

impl<'a> Outlet<'a> {
    /// Sends to `stream`; a client that takes no byte for `stall` is given up.
    pub fn new(stream: &'a mut TcpStream, deadline: &'a Deadline, stall: Duration) -> Self {
        Self { stream, deadline, stall, sent: 0 }
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
        while offset < end {
            let window = (end - offset).min(WINDOW);
            warm(file, offset, window).await?;
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
        if expired {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the client took no byte for {:?}", self.stall),
            ));
        }
        Ok(())
    }
}

/// Makes sure that sendfile will not wait for the disk: asks for the last byte of the window
/// without waiting; if that is not in memory, starts the read-ahead and awaits it on the ring.
async fn warm(file: &Arc<std::fs::File>, offset: u64, window: u64) -> io::Result<()> {
    for probe in [offset, offset + window - 1] {
        let mut byte = [0_u8; 1];
        let mut buffer = [IoSliceMut::new(&mut byte)];
        match rustix::io::preadv2(file, &mut buffer, probe, ReadWriteFlags::NOWAIT) {
            Ok(_) => {}
            Err(Errno::AGAIN) => {
                let length = std::num::NonZeroU64::new(window);
                // Advice only: the read below is what counts.
                let _ = rustix::fs::fadvise(file, offset, length, rustix::fs::Advice::WillNeed);
                File::from_shared(file.clone())?.read_at(1, probe).await?;
            }
            // A file system without RWF_NOWAIT: nothing can be known, so nothing is awaited.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
