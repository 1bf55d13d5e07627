//! The only door to mapped memory: files that are wholly there before they are mapped, and a view
//! of them as atomic words.
//!
//! **Invariant:** a map is never handed out as `&[u8]` or `&mut`: other threads, and other copies
//! of the page, change it at any time. Atomics are the only references.
//! **Invariant:** a file's blocks are all reserved before it is mapped, so a full disk is an error
//! here and not a signal later.
//! **Invariant:** headers are read before mapping and written with `pwrite`, whose errors are seen.
//!
//! What workers store goes to a [`PrivatePart`], never to a [`Map`] of a file: the kernel protects a
//! page of a file each time it has written it back, and the next store then waits until the file
//! system has noted that the page changes again, behind its journal while the disk is busy.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, MemfdFlags};

use super::layout::{LIVE_AT, PAGE_BYTES};
use super::sigbus::Guard;

/// File systems on which a shared map is not what it is on a plain disk: copies on write can run
/// out of space after the reservation, and network and user-space ones can take pages away.
const REFUSED: [(i64, &str); 9] = [
    (0x9123_683e, "btrfs"),
    (0x2fc1_2fc1, "zfs"),
    (0xca45_1a4e, "bcachefs"),
    (0x0000_6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb"),
    (0x6573_5546, "fuse"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "ceph"),
];

/// A file is made only where this many times its size is free: what is stored there is worth more
/// than the index of it.
const FREE_MIN: u64 = 4;

/// Bytes written at once.
const COPY_BYTES: usize = 64 << 10;
/// A smaller table is filled through its file: so few pages are not written back often.
const UNSHARED_BYTES_MIN: u64 = 16 << 20;
/// A table is filled in memory only where this many times its size is free.
const MEMORY_MIN: u64 = 4;

/// A mapped file, or mapped memory that belongs to no folder.
pub(super) struct Map {
    // Dropped before `raw`: what is unmapped must not be watched.
    guard: Guard,
    raw: MmapRaw,
    file: File,
    /// Up to here stores go to the file; beyond, they stay in memory until [`Map::share`].
    shared_to: AtomicUsize,
}

impl Map {
    /// Makes the file, with `bytes` of zeros, and maps it. It must not exist.
    ///
    /// # Errors
    /// Not 4 times its size free, no permission, or the file system is none to map files on.
    pub(super) fn create(path: &Path, bytes: u64) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        let made = refuse_unmappable(&file)
            .and_then(|()| refuse_scarce(&file, bytes))
            .and_then(|()| reserve(&file, bytes))
            .and_then(|()| Self::over(file, bytes));
        if made.is_err() {
            // Whether or not that works: a file without a header is swept at the next start.
            let _ = std::fs::remove_file(path);
        }
        made
    }

    /// Maps memory that is gone when the process ends.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(super) fn anonymous(bytes: u64) -> io::Result<Self> {
        let file = File::from(rustix::fs::memfd_create("ringport-index", MemfdFlags::CLOEXEC)?);
        reserve(&file, bytes)?;
        Self::over(file, bytes)
    }

    /// Maps an existing file of exactly this size.
    ///
    /// # Errors
    /// It cannot be mapped, or has another size.
    pub(super) fn over(file: File, bytes: u64) -> io::Result<Self> {
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        let found = file.metadata()?.len();
        if found != bytes || length == 0 || !length.is_multiple_of(PAGE_BYTES) {
            return Err(io::Error::other(format!("it has {found} bytes and not {bytes}")));
        }
        let raw = MmapOptions::new().len(length).map_raw(&file)?;
        let guard = Guard::watch(raw.as_ptr(), length).ok_or_else(too_many)?;
        Ok(Self { guard, raw, file, shared_to: AtomicUsize::new(length) })
    }

    /// Takes a file that was just made, to be filled at random: what is stored stays in memory
    /// until [`Map::share`], where there is enough of it. Else the kernel would write each page
    /// back again and again while entries come to it, and each store would be a fault.
    pub(super) fn filled_first(self) -> Self {
        let bytes = self.raw.len() as u64;
        if bytes < UNSHARED_BYTES_MIN || free_memory().is_none_or(|free| free / MEMORY_MIN < bytes)
        {
            return self;
        }
        let Ok(part) = self.private_part(0..self.raw.len()) else { return self };
        let (guard, raw) = (part.guard, part.raw);
        Self { guard, raw, file: self.file, shared_to: AtomicUsize::new(LIVE_AT) }
    }

    /// Whether everything stored is in the file, for as long as the machine runs.
    pub(super) fn is_shared(&self) -> bool {
        self.shared_to.load(Ordering::Relaxed) >= self.raw.len()
    }

    /// Puts what was stored into the file, the next `bytes` of it (whole pages), and lets stores
    /// there go to the file from then on; whether that was all. Readers notice nothing. Only the
    /// thread that stores may call this.
    ///
    /// # Errors
    /// The disk failed, or a page of the file is gone. The rest stays in memory.
    pub(super) fn share(&self, bytes: usize) -> io::Result<bool> {
        let from = self.shared_to.load(Ordering::Relaxed);
        let length = self.raw.len();
        let to = from.saturating_add(bytes.min(length)).next_multiple_of(PAGE_BYTES).min(length);
        let mut image = Vec::with_capacity(COPY_BYTES);
        for at in (from..to).step_by(COPY_BYTES) {
            let words = self.words(at, (to - at).min(COPY_BYTES) / size_of::<AtomicU64>());
            image.clear();
            image.extend(words.iter().flat_map(|w| w.load(Ordering::Relaxed).to_ne_bytes()));
            if self.is_poisoned() {
                return Err(io::Error::other("a page of it is gone"));
            }
            // The file has zeros: of a new store's table, nothing else is to be written.
            if image.iter().any(|byte| *byte != 0) {
                self.write_at(&image, at)?;
            }
        }
        if from < to {
            // SAFETY: whole pages inside the map, which lives as long as `self` and whose owner
            // unmaps all of its range. They are replaced by pages with the same bytes, in one step
            // for the other threads, and nobody else stores to them. All access is through atomics.
            let mapped = unsafe {
                libc::mmap(
                    self.raw.as_mut_ptr().add(from).cast(),
                    to - from,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED | libc::MAP_FIXED,
                    self.file.as_raw_fd(),
                    libc::off_t::try_from(from).map_err(io::Error::other)?,
                )
            };
            if mapped == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            self.shared_to.store(to, Ordering::Relaxed);
        }
        Ok(self.is_shared())
    }

    /// `count` words from the byte `at`; fewer, or none, where the map ends before.
    #[inline]
    pub(super) fn words(&self, at: usize, count: usize) -> &[AtomicU64] {
        let count = count.min(self.raw.len().saturating_sub(at) / size_of::<AtomicU64>());
        if count == 0 || !at.is_multiple_of(align_of::<AtomicU64>()) {
            return &[];
        }
        // SAFETY: the map starts on a page and `at` is a multiple of 8, so words are aligned;
        // `count` keeps them inside. The map lives as long as `self`. No other kind of reference
        // to these bytes exists in this process, and any bytes are a valid `AtomicU64`.
        unsafe { std::slice::from_raw_parts(self.raw.as_ptr().add(at).cast(), count) }
    }

    /// Reads these bytes of the file into memory and puts them under the map, so that look-ups
    /// find them there. Blocks on the disk. Best effort: kernels before 5.14 cannot.
    pub(super) fn populate(&self, bytes: Range<usize>) -> io::Result<()> {
        advise(&self.raw, Advice::PopulateRead, bytes)
    }

    /// A copy of a part of the file in the memory of this process.
    ///
    /// # Errors
    /// There is no room for it.
    pub(super) fn private_part(&self, bytes: Range<usize>) -> io::Result<PrivatePart> {
        let mut options = MmapOptions::new();
        options.offset(bytes.start as u64).len(bytes.len());
        // SAFETY: the map is only accessed through atomics, for which any content is valid at any
        // time, however the file changes under it; a page that is gone is what `Guard` is for.
        let raw = MmapRaw::from(unsafe { options.map_copy(&self.file) }?);
        let guard = Guard::watch(raw.as_ptr(), raw.len()).ok_or_else(too_many)?;
        Ok(PrivatePart { guard, raw })
    }

    /// Whether a page could not be read: then zeros stand in for it.
    #[inline]
    pub(super) fn is_poisoned(&self) -> bool {
        self.guard.is_poisoned()
    }

    /// Writes past the map; the map shows it at once.
    ///
    /// # Errors
    /// The disk failed.
    pub(super) fn write_at(&self, bytes: &[u8], at: usize) -> io::Result<()> {
        self.file.write_all_at(bytes, at as u64)
    }

    /// Puts everything on disk: what was stored through the map, and what was written.
    ///
    /// # Errors
    /// The disk failed. Then nothing is known about what is on it: never call again and hope.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.raw.flush()?;
        self.file.sync_all()
    }
}

/// A part of a file as it was, and what this process stored over it, which stays in its memory: no
/// store waits for a file system, and none is seen in the file. Where nothing was stored the file
/// shows through.
pub(super) struct PrivatePart {
    // Dropped before `raw`. What of it is gone is no less a hint.
    guard: Guard,
    raw: MmapRaw,
}

impl PrivatePart {
    /// All of it, in halves of words; nothing when it does not begin on one.
    #[inline]
    pub(super) fn half_words(&self) -> &[AtomicU32] {
        let start = self.raw.as_ptr();
        if !start.addr().is_multiple_of(align_of::<AtomicU32>()) {
            return &[];
        }
        // SAFETY: aligned as just seen, and the length keeps them inside. The map lives as long as
        // `self`. No other kind of reference to this memory exists, and any bytes are a valid
        // `AtomicU32`.
        unsafe { std::slice::from_raw_parts(start.cast(), self.raw.len() / size_of::<AtomicU32>()) }
    }

    /// Makes these bytes of it the process's own, so that the first store neither copies nor reads
    /// a page. Blocks on the disk. Best effort: kernels before 5.14 cannot.
    pub(super) fn populate(&self, bytes: Range<usize>) -> io::Result<()> {
        advise(&self.raw, Advice::PopulateWrite, bytes)
    }
}

/// Asks the processor for the memory of `words`, without waiting for it.
#[inline]
pub(super) fn prefetch<const N: usize>(words: &[AtomicU64; N]) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint, which neither faults nor changes anything, whatever the address; every
    // processor of this architecture has it.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(words.as_ptr().cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = words;
}

fn advise(raw: &MmapRaw, advice: Advice, bytes: Range<usize>) -> io::Result<()> {
    let end = bytes.end.min(raw.len());
    match end.saturating_sub(bytes.start) {
        0 => Ok(()),
        length => raw.advise_range(advice, bytes.start, length),
    }
}

/// Bytes of memory that can be had: what the machine has left, or the control group may take.
fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let available = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = available.trim().trim_end_matches(" kB").parse().ok()?;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let limit = std::fs::read_to_string(format!("/sys/fs/cgroup{group}/memory.max"));
    let limit = limit.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(u64::MAX);
    Some(kib.saturating_mul(1024).min(limit))
}

fn too_many() -> io::Error {
    io::Error::other("too many index files are mapped")
}

fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    Ok(rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes)?)
}

fn refuse_unmappable(file: &File) -> io::Result<()> {
    let found = rustix::fs::fstatfs(file)?.f_type as i64;
    match REFUSED.iter().find(|(magic, _)| *magic == found) {
        Some((_, name)) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("{name} is no file system to map files on"),
        )),
        None => Ok(()),
    }
}

fn refuse_scarce(file: &File, bytes: u64) -> io::Result<()> {
    let found = rustix::fs::fstatvfs(file)?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    // A tmpfs without a limit says that it has no blocks at all.
    if found.f_blocks == 0 || free / FREE_MIN >= bytes {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::StorageFull,
        format!("{free} bytes are free, and a file of {bytes} may take a fourth of that at most"),
    ))
}
