//! Which stretches of files this worker saw in memory a moment ago, whoever they were sent to.
//!
//! A look costs a call and touches a byte that nothing else touches: together some microseconds, as much
//! as it takes to send a dozen KiB. What many clients want is sent many times a second.
//!
//! **Invariant:** what is remembered may be wrong (pages go, and the address of a file that is closed is
//! used again): the worker then waits for the disk, once, and [`forget`] is called.

use std::cell::RefCell;
use std::fs::File;
use std::time::{Duration, Instant};

/// For how long. What was used this moment is the last that the kernel takes away.
const MEMORY: Duration = Duration::from_secs(1);
/// Stretches that one worker remembers: 2 GiB of files, in 64 KiB.
const STRETCHES: usize = 2048;

/// A stretch of a file that was in memory.
#[derive(Clone, Copy)]
struct Seen {
    /// The address of the open file.
    file: usize,
    stretch: u64,
    /// Up to this byte of the file.
    until: u64,
    at: Instant,
}

thread_local! {
    static SEEN: RefCell<Vec<Option<Seen>>> = const { RefCell::new(Vec::new()) };
}

/// Whether that stretch of the file was in memory up to `until` a moment before `now`.
pub(super) fn is_known(file: &File, stretch: u64, until: u64, now: Instant) -> bool {
    let (file, place) = place(file, stretch);
    SEEN.with_borrow(|seen| {
        seen.get(place).copied().flatten().is_some_and(|seen| {
            seen.file == file
                && seen.stretch == stretch
                && seen.until >= until
                && now.duration_since(seen.at) < MEMORY
        })
    })
}

/// That stretch of the file is in memory up to `until`.
pub(super) fn note(file: &File, stretch: u64, until: u64, at: Instant) {
    let (file, place) = place(file, stretch);
    SEEN.with_borrow_mut(|seen| {
        if seen.is_empty() {
            seen.resize(STRETCHES, None);
        }
        if let Some(slot) = seen.get_mut(place) {
            *slot = Some(Seen { file, stretch, until, at });
        }
    });
}

/// Something was not in memory that was taken to be: nothing is known any more.
pub(super) fn forget() {
    SEEN.with_borrow_mut(Vec::clear);
}

fn place(file: &File, stretch: u64) -> (usize, usize) {
    let address = std::ptr::from_ref(file).addr();
    let mixed = (address as u64 >> 4).wrapping_add(stretch.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let place = mixed.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 32;
    (address, place as usize % STRETCHES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_known_for_a_moment_and_until_it_was_wrong() {
        let (one, other) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let now = crate::runtime::clock::now();
        assert!(!is_known(&one, 3, 100, now));
        note(&one, 3, 100, now);
        assert!(is_known(&one, 3, 100, now) && is_known(&one, 3, 1, now));
        assert!(!is_known(&one, 3, 101, now), "behind what was seen");
        assert!(!is_known(&one, 4, 100, now) && !is_known(&other, 3, 100, now));
        assert!(is_known(&one, 3, 100, now + MEMORY / 2) && !is_known(&one, 3, 100, now + MEMORY));
        forget();
        assert!(!is_known(&one, 3, 100, now));
    }
}
