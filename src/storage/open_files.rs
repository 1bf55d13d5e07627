//! The files of stored content that a worker keeps open between two hits, so that a hit costs no way
//! to the blocking pool and back.
//!
//! A kept file is an opinion of what lies under its name. It is used only while all of this holds: it
//! still has a name and the right size (asked of the kernel's memory at each use, without waiting for
//! the disk), nothing was put into quarantine since it was opened, and that is not longer ago than
//! [`VALID`]. Whoever asks for it has found the content's name in the index before.
//!
//! A file that was removed lives on as long as it is open: its room on the disk is free up to
//! [`TIDY`] after eviction says so.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, StatxFlags};

use crate::limits::OPEN_FILES_MAX;
use crate::oci::Digest;
use crate::runtime::{clock, sleep, spawn};

/// How long a file is kept without being used.
const UNUSED: Duration = Duration::from_secs(10);
/// After how long it is opened anew although it is used all the time.
const VALID: Duration = Duration::from_secs(60);
/// How often files are closed that are unused or have no name any more.
const TIDY: Duration = Duration::from_millis(500);

/// Which file: of which store of this process, in which of its pools, under which name.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) store: u64,
    pub(super) pool: u8,
    pub(super) digest: Digest,
}

struct Kept {
    file: Arc<File>,
    size: u64,
    /// How many files had been put into quarantine when it was opened.
    quarantined: u64,
    opened: Instant,
    used: Instant,
}

thread_local! {
    static KEPT: RefCell<HashMap<Key, Kept>> = RefCell::new(HashMap::new());
    /// Whether this worker looks after them.
    static IS_TIDIED: Cell<bool> = const { Cell::new(false) };
}

/// The file, if it is kept open and still what its name promises.
pub(super) fn find(key: &Key, size: u64, quarantined: u64) -> Option<Arc<File>> {
    KEPT.with_borrow_mut(|files| {
        let kept = files.get_mut(key)?;
        let now = clock::now();
        let is_current = kept.size == size
            && kept.quarantined == quarantined
            && now.duration_since(kept.opened) < VALID
            && is_unchanged(kept);
        if !is_current {
            files.remove(key);
            return None;
        }
        kept.used = now;
        Some(kept.file.clone())
    })
}

/// Keeps a file open that was opened when `quarantined` files had been put into quarantine. Of too
/// many, the one that was unused the longest makes room.
pub(super) fn keep(key: Key, file: &Arc<File>, size: u64, quarantined: u64) {
    KEPT.with_borrow_mut(|files| {
        if !IS_TIDIED.replace(true) {
            spawn(tidy());
        }
        if files.len() >= OPEN_FILES_MAX
            && let Some(oldest) =
                files.iter().min_by_key(|(_, kept)| kept.used).map(|(key, _)| *key)
        {
            files.remove(&oldest);
        }
        let now = clock::now();
        files.insert(key, Kept { file: file.clone(), size, quarantined, opened: now, used: now });
    });
}

/// Closes what this worker keeps open: descriptors lack.
pub(super) fn close_all() {
    KEPT.take();
}

/// Closes from time to time what need not be open; ends when nothing is.
async fn tidy() {
    loop {
        sleep(TIDY).await;
        let now = clock::now();
        let is_empty = KEPT.with_borrow_mut(|files| {
            files.retain(|_, kept| now.duration_since(kept.used) < UNUSED && is_unchanged(kept));
            files.is_empty()
        });
        if is_empty {
            IS_TIDIED.set(false);
            return;
        }
    }
}

/// Whether a file has its name and its size still, as far as the kernel knows without asking a disk
/// or a file server.
fn is_unchanged(kept: &Kept) -> bool {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let wanted = StatxFlags::NLINK | StatxFlags::SIZE;
    rustix::fs::statx(&*kept.file, c"", flags, wanted)
        .is_ok_and(|stat| stat.stx_nlink > 0 && stat.stx_size == kept.size)
}

/// How many files this worker keeps open.
#[cfg(test)]
pub(super) fn count() -> usize {
    KEPT.with_borrow(HashMap::len)
}
