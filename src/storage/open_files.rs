//! The files of stored content that a worker keeps open between two hits, so that a hit costs no way
//! to the blocking pool and back.
//!
//! A kept file is an opinion of what lies under its name. It is used only while all of this holds: it
//! still has a name and the right size (asked of the kernel's memory, without waiting for the disk, when
//! this process has removed any file since it was last asked, and every [`TIDY`] because of others),
//! nothing was put into quarantine since it was opened, and that is not longer ago than [`VALID`].
//! Whoever asks for it has found the content's name in the index before.
//!
//! A file that was removed lives on as long as it is open. It is closed within [`TIDY`], and until then
//! what its keeper was given stands for its bytes.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use rustix::fs::{AtFlags, StatxFlags};

use crate::limits::OPEN_FILES_MAX;
use crate::oci::Digest;
use crate::runtime::{clock, sleep, spawn};

/// How long a file is kept without being used.
const UNUSED: Duration = Duration::from_secs(10);
/// After how long it is opened anew although it is used all the time.
const VALID: Duration = Duration::from_secs(60);
/// How often it is asked whether files were removed, which are closed then.
const TIDY: Duration = Duration::from_millis(25);
/// How often files are closed that are unused, in such rounds.
const UNUSED_ROUNDS: u32 = 40;

/// Files that this process has removed.
static REMOVED: AtomicU64 = AtomicU64::new(0);

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
    /// When it was last seen to have its name and size, and what [`REMOVED`] was just before.
    seen: (Instant, u64),
    /// Dropped after the file.
    _hold: Box<dyn Any>,
}

thread_local! {
    /// Left alone when the thread ends: what is held may need what has gone by then.
    static KEPT: ManuallyDrop<RefCell<HashMap<Key, Kept, RandomState>>> =
        ManuallyDrop::new(RefCell::default());
    /// Whether this worker looks after them.
    static IS_TIDIED: Cell<bool> = const { Cell::new(false) };
}

/// The file, if it is kept open and still what its name promises.
pub(super) fn find(key: &Key, size: u64, quarantined: u64, now: Instant) -> Option<Arc<File>> {
    KEPT.with(|files| {
        let mut files = files.borrow_mut();
        let kept = files.get_mut(key)?;
        let is_current = kept.size == size
            && kept.quarantined == quarantined
            && now.duration_since(kept.opened) < VALID
            && kept.is_unchanged(now);
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
pub(super) fn keep(
    key: Key,
    file: &Arc<File>,
    (size, quarantined): (u64, u64),
    hold: Box<dyn Any>,
) {
    KEPT.with(|files| {
        let mut files = files.borrow_mut();
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
        let (file, opened, used) = (file.clone(), now, now);
        // Opened a moment ago, by another thread: whether it has a name still was not asked.
        let seen = (now, REMOVED.load(Ordering::Acquire).wrapping_sub(1));
        files.insert(key, Kept { file, size, quarantined, opened, used, seen, _hold: hold });
    });
}

/// Closes what this worker keeps open: descriptors lack.
pub(super) fn close_all() {
    KEPT.with(|files| files.take());
}

/// A file was removed: whoever keeps it open is to close it.
pub(super) fn note_removal() {
    REMOVED.fetch_add(1, Ordering::Release);
}

/// Closes what need not be open; ends when nothing is.
async fn tidy() {
    let (mut seen, mut round) = (0, 0_u32);
    loop {
        sleep(TIDY).await;
        round = round.wrapping_add(1);
        let removed = REMOVED.load(Ordering::Acquire);
        if removed == seen && !round.is_multiple_of(UNUSED_ROUNDS) {
            continue;
        }
        seen = removed;
        let now = clock::now();
        let is_empty = KEPT.with(|files| {
            let mut files = files.borrow_mut();
            files
                .retain(|_, kept| now.duration_since(kept.used) < UNUSED && kept.is_unchanged(now));
            files.is_empty()
        });
        if is_empty {
            IS_TIDIED.set(false);
            return;
        }
    }
}

impl Kept {
    /// Whether the file has its name and its size still, as far as the kernel knows without asking a
    /// disk or a file server.
    fn is_unchanged(&mut self, now: Instant) -> bool {
        let removed = REMOVED.load(Ordering::Acquire);
        let (seen_at, seen_removed) = self.seen;
        if removed == seen_removed && now.duration_since(seen_at) < TIDY {
            return true;
        }
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let wanted = StatxFlags::NLINK | StatxFlags::SIZE;
        self.seen = (now, removed);
        rustix::fs::statx(&*self.file, c"", flags, wanted)
            .is_ok_and(|stat| stat.stx_nlink > 0 && stat.stx_size == self.size)
    }
}

/// How many files this worker keeps open.
#[cfg(test)]
pub(super) fn count() -> usize {
    KEPT.with(|files| files.borrow().len())
}
