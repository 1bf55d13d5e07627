//! The worker's pipe, by which large bodies go from the page cache to their sockets.
//!
//! sendfile(2) does the same with a pipe of its own that holds 64 KiB; in this one a call of TCP gets
//! sixteen times as much to send.
//!
//! **Invariant:** between two calls the pipe is empty. One that could not be emptied is closed.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};

use crate::runtime::clock;

/// What a pipe may hold for anybody, by the kernel's usual settings, in bytes.
pub(super) const CAPACITY: u64 = 1024 * 1024;

/// With fewer streams than these, what a stream has sent is acknowledged while its next megabyte is
/// prepared, and the worker pays for both; with sendfile the client's side does.
const STREAMS_MIN: usize = 8;

/// How long to do without after one could not be had: for want of descriptors, or because this user's
/// pipes hold too much already.
const PAUSE: Duration = Duration::from_secs(1);

thread_local! {
    static REFUSED: Cell<Option<Instant>> = const { Cell::new(None) };
    static PIPE: RefCell<Option<Pipe>> = const { RefCell::new(None) };
    /// Bodies that this worker sends window by window.
    static STREAMS: Cell<usize> = const { Cell::new(0) };
}

/// A body that is sent window by window.
pub(super) struct Stream(());

impl Stream {
    /// Counts until it is dropped.
    pub(super) fn begin() -> Self {
        STREAMS.set(STREAMS.get() + 1);
        Self(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // When the thread ends nobody asks any more.
        let _ = STREAMS.try_with(|streams| streams.set(streams.get().saturating_sub(1)));
    }
}

/// Whether streams are better sent by the pipe now.
pub(super) fn suits_streams() -> bool {
    STREAMS.get() >= STREAMS_MIN
}

struct Pipe {
    ours: OwnedFd,
    theirs: OwnedFd,
    nowhere: File,
}

/// Sends up to `count` bytes of `file` from `offset`, which moves on, as far as the socket takes them
/// now (it must not wait): how many it took, of how many it was offered. `None` if it does not go by a
/// pipe here, and nothing was done.
///
/// # Errors
/// As sendfile(2); `UnexpectedEof` where the file ends.
pub(super) fn send(
    file: &File,
    offset: &mut u64,
    socket: BorrowedFd<'_>,
    count: u64,
) -> Option<io::Result<(u64, u64)>> {
    let pipe = PIPE.take().or_else(Pipe::open)?;
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    let count = usize::try_from(count.min(CAPACITY)).unwrap_or(usize::MAX);
    let mut at = *offset;
    let held = match rustix::pipe::splice(file, Some(&mut at), &pipe.theirs, None, count, flags) {
        Ok(0) => {
            PIPE.replace(Some(pipe));
            return Some(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(held) => Ok(held),
        // Not of this file system, or it is not empty as it should be.
        Err(Errno::INVAL | Errno::AGAIN | Errno::INTR) => return None,
        Err(errno) => Err(errno.into()),
    };
    let sent = held.and_then(|held| {
        let (sent, is_empty) = pipe.pass_on(held, socket)?;
        if is_empty {
            PIPE.replace(Some(pipe));
        }
        *offset += sent;
        Ok((sent, held as u64))
    });
    Some(sent)
}

impl Pipe {
    /// A new one, unless there was none to be had a moment ago.
    fn open() -> Option<Self> {
        let now = clock::now();
        if REFUSED.get().is_some_and(|at| now.duration_since(at) < PAUSE) {
            return None;
        }
        let made = Self::make();
        REFUSED.set(made.is_err().then_some(now));
        made.ok()
    }

    fn make() -> io::Result<Self> {
        let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A smaller one is not worth its calls.
        rustix::pipe::fcntl_setpipe_size(&theirs, usize::try_from(CAPACITY).unwrap_or_default())?;
        let nowhere = OpenOptions::new().write(true).open("/dev/null")?;
        Ok(Self { ours, theirs, nowhere })
    }

    /// Sends what the pipe holds. What the socket does not take is let go: how many bytes it took,
    /// and whether the pipe is empty.
    fn pass_on(&self, held: usize, socket: BorrowedFd<'_>) -> io::Result<(u64, bool)> {
        let mut left = held;
        while left > 0 {
            match self.splice(socket, left) {
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(taken) => left = left.saturating_sub(taken),
                Err(Errno::INTR) => {}
                // After something was sent it comes again with the next call.
                Err(_) if left < held => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        let sent = (held - left) as u64;
        while left > 0 {
            match self.splice(self.nowhere.as_fd(), left) {
                Ok(0) | Err(_) => return Ok((sent, false)),
                Ok(taken) => left = left.saturating_sub(taken),
            }
        }
        Ok((sent, true))
    }

    fn splice(&self, to: BorrowedFd<'_>, count: usize) -> Result<usize, Errno> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE | SpliceFlags::MORE;
        rustix::pipe::splice(&self.ours, None, to, None, count, flags)
    }
}
