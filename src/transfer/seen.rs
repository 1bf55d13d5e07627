//! Which stretches of files this worker saw in memory a moment ago, whoever they were sent to.
//!
//! A look costs a call and touches a byte that nothing else touches: together some microseconds, as much
//! as it takes to send a dozen KiB. What many clients want is sent many times a second.
//!
//! **Invariant:** what is remembered was looked at, of this very file. It may be wrong by now, because
//! pages go: the worker then waits for the disk, and if that took long [`forget`] is called.

use std::cell::RefCell;
use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// For how long. What was used this moment is the last that the kernel takes away.
const MEMORY: Duration = Duration::from_secs(1);
/// Stretches that one worker remembers: 2 GiB of files, in 96 KiB.
const STRETCHES: usize = 2048;

/// A part of a stretch of a file that was in memory.
#[derive(Clone)]
struct Seen {
    /// Held, so that nothing else comes to its address; the file is closed all the same.
    file: Weak<File>,
    stretch: u64,
    /// From this byte of the file,
    from: u64,
    /// and up to this one.
    until: u64,
    at: Instant,
}

impl Seen {
    fn is_of(&self, file: &Arc<File>, stretch: u64, now: Instant) -> bool {
        std::ptr::eq(self.file.as_ptr(), Arc::as_ptr(file))
            && self.stretch == stretch
            && now.duration_since(self.at) < MEMORY
    }
}

thread_local! {
    static SEEN: RefCell<Vec<Option<Seen>>> = const { RefCell::new(Vec::new()) };
}

/// Whether these bytes of that stretch of the file were in memory a moment before `now`.
pub(super) fn is_known(file: &Arc<File>, stretch: u64, bytes: Range<u64>, now: Instant) -> bool {
    SEEN.with_borrow(|seen| {
        seen.get(place(file, stretch)).and_then(Option::as_ref).is_some_and(|seen| {
            seen.is_of(file, stretch, now) && seen.from <= bytes.start && seen.until >= bytes.end
        })
    })
}

/// These bytes of that stretch of the file are in memory.
pub(super) fn note(file: &Arc<File>, stretch: u64, bytes: Range<u64>, now: Instant) {
    SEEN.with_borrow_mut(|seen| {
        if seen.is_empty() {
            seen.resize(STRETCHES, None);
        }
        let Some(slot) = seen.get_mut(place(file, stretch)) else { return };
        match slot {
            // Windows that end in the middle of a stretch add up to all of it.
            Some(seen)
                if seen.is_of(file, stretch, now)
                    && seen.from <= bytes.end
                    && seen.until >= bytes.start =>
            {
                seen.from = seen.from.min(bytes.start);
                seen.until = seen.until.max(bytes.end);
            }
            _ => {
                let file = Arc::downgrade(file);
                *slot = Some(Seen { file, stretch, from: bytes.start, until: bytes.end, at: now });
            }
        }
    });
}

/// Something was not in memory: nothing is known any more.
pub(super) fn forget() {
    SEEN.with_borrow_mut(Vec::clear);
}

fn place(file: &Arc<File>, stretch: u64) -> usize {
    let address = Arc::as_ptr(file).addr() as u64;
    let mixed = (address >> 4).wrapping_add(stretch.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    (mixed.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 32) as usize % STRETCHES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_known_for_a_moment_and_until_it_was_wrong() {
        let [one, other] = [(); 2].map(|()| Arc::new(tempfile::tempfile().unwrap()));
        let now = crate::runtime::clock::now();
        assert!(!is_known(&one, 3, 50..100, now));
        note(&one, 3, 50..100, now);
        assert!(is_known(&one, 3, 50..100, now) && is_known(&one, 3, 60..61, now));
        assert!(!is_known(&one, 3, 50..101, now), "behind what was seen");
        assert!(!is_known(&one, 3, 0..60, now), "before what was seen");
        assert!(!is_known(&one, 4, 50..100, now) && !is_known(&other, 3, 50..100, now));
        assert!(is_known(&one, 3, 50..100, now + MEMORY / 2));
        assert!(!is_known(&one, 3, 50..100, now + MEMORY));
        note(&one, 3, 100..150, now + MEMORY / 2);
        note(&one, 3, 0..50, now + MEMORY / 2);
        assert!(is_known(&one, 3, 0..150, now), "one after the other");
        assert!(!is_known(&one, 3, 0..150, now + MEMORY), "the oldest of them counts");
        note(&one, 3, 200..300, now);
        assert!(is_known(&one, 3, 200..300, now) && !is_known(&one, 3, 0..250, now), "apart");
        forget();
        assert!(!is_known(&one, 3, 200..300, now));
    }

    #[test]
    fn another_file_at_the_same_address_is_not_known() {
        let now = crate::runtime::clock::now();
        for _ in 0..100 {
            let file = Arc::new(tempfile::tempfile().unwrap());
            assert!(!is_known(&file, 0, 0..1, now));
            note(&file, 0, 0..1, now);
        }
    }
}
