//! What of a file is in memory, and getting it there without holding up the worker.

use std::cell::RefCell;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::io::{Errno, ReadWriteFlags};

use super::WINDOW;
use crate::runtime::{TLS_PIECE_BYTES_MAX, blocking};

/// How far apart the page cache is probed: the kernel's usual read-ahead.
const STRETCH: u64 = 128 * 1024;
/// Smallest page size there is.
const PAGE: u64 = 4096;

thread_local! {
    /// Where the worker reads what it encrypts at once; one for all of its connections.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Makes sure that sendfile will not wait for the disk: returns how many of the `window` bytes from
/// `offset` are in memory, at least one stretch of them. What is not there is read ahead on the
/// blocking pool.
pub(super) async fn warm(file: &Arc<std::fs::File>, offset: u64, window: u64) -> io::Result<u64> {
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
        advise(&file, offset);
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

/// Asks for more than is needed now: the rest comes while this is being sent.
fn advise(file: &std::fs::File, offset: u64) {
    let ahead = NonZeroU64::new(WINDOW);
    let _ = rustix::fs::fadvise(file, offset, ahead, rustix::fs::Advice::WillNeed);
}

/// Gives `take` the bytes from `offset`, at most `length` and [`TLS_PIECE_BYTES_MAX`], none at the
/// end of the file; `None` when the first of them is not in memory.
pub(super) fn with_warm<R>(
    file: &std::fs::File,
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
pub(super) async fn read_cold(
    file: &Arc<std::fs::File>,
    offset: u64,
    length: u64,
) -> io::Result<Vec<u8>> {
    let file = file.clone();
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(TLS_PIECE_BYTES_MAX);
    blocking(move || {
        advise(&file, offset);
        let mut buffer = vec![0; length];
        let read = file.read_at(&mut buffer, offset)?;
        buffer.truncate(read);
        Ok(buffer)
    })
    .await?
}
