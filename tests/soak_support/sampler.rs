//! What the store takes on the disk, looked at all the time.

use crate::support::ms;
use crate::support::scratch::files_below;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the disk is looked at.
const INTERVAL: Duration = ms(20);

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Looks at the disk.
    pub samples: u64,
    /// The longest time between two of them.
    pub longest_gap: Duration,
    /// Most bytes of content, in staging, stored, or removed and still open.
    pub most: u64,
    /// Most files of content.
    pub most_files: u64,
    /// Most bytes of catalog and index, if the store has a disk of its own.
    pub most_others: u64,
}

/// A thread that looks until it is stopped.
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Sampler {
    /// Looks at the store in `root`. With `is_own_disk` the file system holds nothing else, and is
    /// asked for what it has left: that counts removed files, too, for as long as they are open.
    /// Otherwise the files are added up.
    pub fn start(root: &Path, is_own_disk: bool) -> Sampler {
        let stop = Arc::<AtomicBool>::default();
        let (is_over, root) = (stop.clone(), root.to_owned());
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            let mut last = Instant::now();
            while !is_over.load(Ordering::Relaxed) {
                let (bytes, files, others) = look(&root, is_own_disk);
                seen.samples += 1;
                seen.longest_gap = seen.longest_gap.max(last.elapsed());
                last = Instant::now();
                seen.most = seen.most.max(bytes);
                seen.most_files = seen.most_files.max(files);
                seen.most_others = seen.most_others.max(others);
                std::thread::sleep(INTERVAL);
            }
            seen
        });
        Sampler { stop, thread }
    }

    /// Ends it.
    pub fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Bytes and files of content, and bytes of the rest.
fn look(root: &Path, is_own_disk: bool) -> (u64, u64, u64) {
    if is_own_disk {
        // The others first: what they gain meanwhile must not be missed.
        let others: u64 = ["index", "catalog.redb", "lock"]
            .iter()
            .flat_map(|name| files_or_self(&root.join(name)))
            .map(|path| blocks(&path))
            .sum();
        let found = rustix::fs::statvfs(root).expect("the state of a file system");
        let used = (found.f_blocks - found.f_bfree) * found.f_frsize;
        let files = files_below(&root.join("blobs")).len() as u64;
        return (used.saturating_sub(others), files, others);
    }
    // Blobs first: one that moves there from staging meanwhile is not counted twice. It may be
    // missed, but not in every look.
    let stored = files_below(&root.join("blobs"));
    let staged = files_below(&root.join("staging"));
    let bytes = stored.iter().chain(&staged).map(|path| blocks(path)).sum();
    (bytes, (stored.len() + staged.len()) as u64, 0)
}

fn files_or_self(path: &Path) -> Vec<PathBuf> {
    if path.is_dir() { files_below(path) } else { vec![path.to_owned()] }
}

fn blocks(path: &Path) -> u64 {
    path.symlink_metadata().map_or(0, |metadata| metadata.blocks() * 512)
}
