//! Surviving a page of the map that cannot be read: its file was cut short, its disk failed.
//!
//! The kernel then sends SIGBUS to the thread that touched the page. Inside a registered map the
//! handler puts a page of zeros there and marks the map poisoned, and the thread goes on; whoever
//! owns the map stops believing it. Anywhere else the signal does what it did before.
//!
//! The handler only loads and stores atomics and calls `mmap` and `sigaction`, which on Linux are
//! plain system calls. It runs on the alternate stack where a thread has one (Rust's threads do).

use std::ptr;
use std::sync::Once;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// More maps than this are not registered: the two of an index, one being built, and tests.
const REGIONS_MAX: usize = 256;

struct Region {
    start: AtomicUsize,
    /// First byte after it; 0 while the entry is free or being filled in.
    end: AtomicUsize,
    is_taken: AtomicBool,
    is_poisoned: AtomicBool,
}

static REGIONS: [Region; REGIONS_MAX] = [const {
    Region {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        is_taken: AtomicBool::new(false),
        is_poisoned: AtomicBool::new(false),
    }
}; REGIONS_MAX];

static PAGE_BYTES: AtomicUsize = AtomicUsize::new(4096);
static INSTALL: Once = Once::new();
static PREVIOUS: OnceLock<Previous> = OnceLock::new();

struct Previous(libc::sigaction);

// SAFETY: what `sigaction` returned: numbers and the address of a function, never changed.
unsafe impl Send for Previous {}
// SAFETY: as above.
unsafe impl Sync for Previous {}

/// Watches a map while it lives. Drop it before the map is unmapped.
pub(super) struct Guard {
    region: &'static Region,
}

impl Guard {
    /// Watches `length` bytes from `start`; `None` when too many maps are watched.
    pub(super) fn watch(start: *const u8, length: usize) -> Option<Self> {
        INSTALL.call_once(install);
        let region = REGIONS.iter().find(|region| {
            let taken =
                region.is_taken.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed);
            taken.is_ok()
        })?;
        region.is_poisoned.store(false, Ordering::Relaxed);
        region.start.store(start.addr(), Ordering::Relaxed);
        region.end.store(start.addr().saturating_add(length), Ordering::Release);
        Some(Self { region })
    }

    /// Whether a page of the map could not be read since it is watched.
    #[inline]
    pub(super) fn is_poisoned(&self) -> bool {
        self.region.is_poisoned.load(Ordering::Relaxed)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.region.end.store(0, Ordering::Release);
        self.region.is_taken.store(false, Ordering::Release);
    }
}

fn install() {
    PAGE_BYTES.store(rustix::param::page_size(), Ordering::Relaxed);
    // SAFETY: `sigaction` is a plain struct for which all zeros is a valid value.
    let (mut action, mut previous): (libc::sigaction, libc::sigaction) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    action.sa_sigaction = on_sigbus as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for and is async-signal-safe;
    // both structs live across the calls.
    unsafe {
        libc::sigemptyset(&raw mut action.sa_mask);
        // The earlier action has to be known before the first signal can need it.
        if libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut previous) == 0 {
            let _ = PREVIOUS.set(Previous(previous));
            libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut());
        }
    }
}

extern "C" fn on_sigbus(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: this thread's errno; the interrupted code must not see it change.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let saved = unsafe { *errno };
    // SAFETY: with SA_SIGINFO the kernel hands over a valid `siginfo_t`.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    // Codes above 0 come from the kernel; a SIGBUS sent with `kill` has no address.
    let is_fault = code > 0;
    if !is_fault {
        // Somebody wants the process to end, or has a reason that we do not know.
        // SAFETY: sets the default action and sends the signal again; it is held back until we
        // return.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
    } else if !mend(address) {
        // As if we were not here: the fault happens again at once and meets the earlier action.
        let previous = PREVIOUS.get().map_or(ptr::null(), |previous| &raw const previous.0);
        // SAFETY: null, or a struct that `sigaction` gave us.
        unsafe {
            if libc::sigaction(signal, previous, ptr::null_mut()) != 0 || previous.is_null() {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
    // SAFETY: as above.
    unsafe { *errno = saved };
}

/// Poisons the map that `address` lies in and puts zeros under it; `false` when it is no map of
/// ours or the kernel refuses.
fn mend(address: usize) -> bool {
    let region = REGIONS.iter().find(|region| {
        let end = region.end.load(Ordering::Acquire);
        address >= region.start.load(Ordering::Relaxed) && address < end
    });
    let Some(region) = region else { return false };
    region.is_poisoned.store(true, Ordering::Relaxed);
    let bytes = PAGE_BYTES.load(Ordering::Relaxed);
    let page = address & !(bytes - 1);
    // SAFETY: the page lies inside a live map of this process that consists of whole pages and is
    // only accessed through atomics, for which any content is valid. The owner of the map unmaps
    // the whole range later, this page with it.
    let mapped = unsafe {
        libc::mmap(
            ptr::with_exposed_provenance_mut(page),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    mapped != libc::MAP_FAILED
}
