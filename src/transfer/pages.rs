//! What of a file is in memory, and getting it there without holding up the worker.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::io::{Errno, ReadWriteFlags};

use super::{WINDOW, seen};
use crate::runtime::{TLS_PIECE_BYTES_MAX, blocking_ahead, clock};

/// How far apart the page cache is probed: the kernel's usual read-ahead. What it reads comes in any
/// order, so that the end of a long stretch tells nothing of its middle.
const STRETCH: u64 = 128 * 1024;
/// What is remembered as one thing.
const LONG_STRETCH: u64 = 1024 * 1024;
/// Windows in a row that have to be in memory before a file that was not is taken to be.
const WARM_AGAIN: u8 = 4;
/// Visiting a window that is in memory takes less. Where another program has the core it takes longer, and
/// the next ones are visited, too: a look instead was right too seldom while a disk was reading.
const VISITED: Duration = Duration::from_micros(500);
/// For how long an answer takes a window to be there still that it has seen, or had read.
const SEEN: Duration = Duration::from_millis(50);
/// Sending a window that is in memory takes less, unless another program has the core.
const HELD_UP: Duration = Duration::from_millis(2);

/// `/dev/null`, opened once.
static NOWHERE: OnceLock<io::Result<File>> = OnceLock::new();

thread_local! {
    /// Where the worker reads what it encrypts at once; one for all of its connections.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What one answer has learned of its file's pages.
#[derive(Default)]
pub(super) struct Warmth {
    /// How many more windows have to be there before they are sent without a visit. While a file is
    /// being read in a look cannot tell for sure whether all of a window is there.
    cold: u8,
    /// Up to where they were in memory, and when that was seen.
    seen: Option<(u64, Instant)>,
}

impl Warmth {
    /// The end of what may be sent has moved: what lies before it is looked at, too.
    pub(super) fn look_again(&mut self) {
        self.seen = None;
    }

    /// How many bytes from `offset` are in memory, one window or up to `end`; none if already the
    /// first stretch is not, or if each window has to be visited. Does not wait.
    pub(super) fn look(
        &mut self,
        file: &Arc<File>,
        offset: u64,
        end: u64,
        now: Instant,
    ) -> io::Result<u64> {
        if let Some((until, at)) = self.seen
            && offset < until
            && now.duration_since(at) < SEEN
        {
            return Ok(until.min(end) - offset);
        }
        if self.cold > 0 {
            return Ok(0);
        }
        let end = end.min(offset.saturating_add(WINDOW));
        let mut at = offset;
        while at < end {
            let stretch = at / LONG_STRETCH;
            let stretch_end = end.min((stretch + 1).saturating_mul(LONG_STRETCH));
            if !seen::is_known(file, stretch, at..stretch_end, now) {
                let until = in_memory_until(file, at, stretch_end)?;
                if until < stretch_end {
                    at = until;
                    break;
                }
                seen::note(file, stretch, at..stretch_end, now);
            }
            at = stretch_end;
        }
        self.seen = Some((at, now));
        Ok(at - offset)
    }

    /// Makes sure that sendfile will not wait for the disk: as [`Warmth::look`], but at least one
    /// byte. What is not there is read in on the blocking pool.
    pub(super) async fn window(
        &mut self,
        file: &Arc<File>,
        offset: u64,
        end: u64,
    ) -> io::Result<u64> {
        let warm = self.look(file, offset, end, clock::now())?;
        if warm > 0 {
            return Ok(warm);
        }
        if self.cold == 0 {
            // Pages are going: what was seen before tells nothing any more.
            seen::forget();
            self.cold = WARM_AGAIN;
        }
        let end = end.min(offset.saturating_add(WINDOW));
        let took = read_in(file.clone(), offset, end).await?;
        self.cold = if took < VISITED { self.cold.saturating_sub(1) } else { WARM_AGAIN };
        self.seen = Some((end, clock::now()));
        Ok(end - offset)
    }
}

/// Up to where the file's pages are in memory, from `at`, at most `end`.
fn in_memory_until(file: &File, mut at: u64, end: u64) -> io::Result<u64> {
    while at < end {
        let stretch_end = end.min((at / STRETCH + 1).saturating_mul(STRETCH));
        if !is_in_memory(file, stretch_end - 1)? {
            break;
        }
        at = stretch_end;
    }
    Ok(at)
}

/// A window was sent that was taken to be in memory, from `began` until now.
pub(super) fn sent_since(began: Instant) {
    if clock::now().duration_since(began) > HELD_UP {
        seen::forget();
    }
}

/// Whether the page of this byte is in the page cache. Where the file system cannot tell, yes:
/// nothing better can be done than to send.
fn is_in_memory(file: &File, offset: u64) -> io::Result<bool> {
    let mut byte = [0_u8; 1];
    let mut buffer = [IoSliceMut::new(&mut byte)];
    match rustix::io::preadv2(file, &mut buffer, offset, ReadWriteFlags::NOWAIT) {
        Ok(_) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Has the pages read, and waits for them: how long that took on its thread. They are "sent" to
/// nowhere: this visits each page just as sending it to the client will, waits for those that are
/// still on their way, and copies nothing.
async fn read_in(file: Arc<File>, offset: u64, end: u64) -> io::Result<Duration> {
    blocking_ahead(move || {
        let began = clock::now();
        expect_sequence(&file);
        let nowhere = match NOWHERE.get_or_init(|| OpenOptions::new().write(true).open("/dev/null"))
        {
            Ok(nowhere) => nowhere,
            Err(error) => return Err(io::Error::new(error.kind(), format!("/dev/null: {error}"))),
        };
        let mut at = offset;
        while at < end {
            let count = usize::try_from(end - at).unwrap_or(usize::MAX);
            match rustix::fs::sendfile(nowhere, &file, Some(&mut at), count) {
                // Shorter than it should be: who sends it finds out.
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(clock::now().duration_since(began))
    })
    .await?
}

/// Has the kernel read twice as far ahead as it usually does. It is not told to read any range: it would
/// then allocate page by page, where its own read-ahead takes larger and larger pieces.
fn expect_sequence(file: &File) {
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Sequential);
}

/// Gives `take` the bytes from `offset`, at most `length` and [`TLS_PIECE_BYTES_MAX`], none at the
/// end of the file; `None` when the first of them is not in memory.
pub(super) fn with_warm<R>(
    file: &File,
    offset: u64,
    length: u64,
    take: impl FnOnce(&[u8]) -> R,
) -> io::Result<Option<R>> {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(TLS_PIECE_BYTES_MAX, 0);
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(TLS_PIECE_BYTES_MAX);
        let buffer = scratch.get_mut(..length).unwrap_or_default();
        let mut into = [IoSliceMut::new(buffer)];
        match rustix::io::preadv2(file, &mut into, offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(Some(take(buffer.get(..read).unwrap_or_default()))),
            // Where the file system cannot tell, it is taken for cold.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    })
}

/// The bytes from `offset`, at most `length` and [`TLS_PIECE_BYTES_MAX`], wherever they are; none at
/// the end of the file.
pub(super) async fn read_cold(file: &Arc<File>, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let file = file.clone();
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(TLS_PIECE_BYTES_MAX);
    blocking_ahead(move || {
        expect_sequence(&file);
        let mut buffer = vec![0; length];
        let read = file.read_at(&mut buffer, offset)?;
        buffer.truncate(read);
        Ok(buffer)
    })
    .await?
}
