//! Opening: believe the newest table that can be believed, drop the others, or begin an empty one.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::boot_id;
use super::generation::{Generation, now_minute};
use super::small::Small;
use super::{Index, IndexError, IndexOptions, IndexWriter, Opened, warm};

/// Files of a folder that are looked at. Two are normal: more come from starts that failed.
const CANDIDATES_MAX: usize = 1024;
const PREFIX: &str = "index-";
const SMALL: &str = "small";

/// Where the table of a generation lies.
pub(super) fn generation_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{PREFIX}{number:016x}"))
}

/// The number in a file name that [`generation_path`] gave.
fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX).filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

impl Index {
    /// Opens the index of a store, or begins an empty one. The caller holds the lock of the store:
    /// a second process (or a second call) on the same folder would be a second writer. Blocks.
    ///
    /// It takes no time that grows with the index: nothing but headers is read. The rest is brought
    /// into memory by a thread that nothing waits for.
    ///
    /// # Errors
    /// The folder cannot be used, or neither a file nor memory can be had.
    pub fn open(options: IndexOptions) -> Result<(Arc<Self>, IndexWriter, Opened), IndexError> {
        open_in_boot(options, boot_id())
    }
}

/// [`Index::open`] for a given boot of the machine; `None` is a boot that is like no other.
pub(super) fn open_in_boot(
    options: IndexOptions,
    boot_id: Option<[u8; 16]>,
) -> Result<(Arc<Index>, IndexWriter, Opened), IndexError> {
    let folder = options.folder.clone();
    let at_folder = |source| IndexError::Folder { path: folder.clone(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(at_folder)?;
    let numbers = candidates(&folder).map_err(at_folder)?;

    let mut found = None;
    let mut why = None;
    for number in &numbers {
        let path = generation_path(&folder, *number);
        let refused = match &found {
            Some(_) => "it is older than the one in use".to_owned(),
            None => match Generation::open(&path, *number, options.store_id, boot_id) {
                Ok(opened) => {
                    found = Some(opened);
                    continue;
                }
                Err(refused) => refused,
            },
        };
        tracing::info!(path = %path.display(), why = %refused, "an index file is dropped");
        why = why.or_else(|| Some(format!("{} is not used: {refused}", path.display())));
        std::fs::remove_file(&path).map_err(at_folder)?;
    }

    let (current, opened) = match found {
        Some((current, clean)) => {
            let applied = current.applied();
            (current, Opened::Trusted { clean, applied })
        }
        None => {
            let number = numbers.first().map_or(1, |last| last.saturating_add(1));
            let path = generation_path(&folder, number);
            let spec = (number, options.slots_min, now_minute());
            let current = Generation::create(&path, spec, options.store_id, boot_id)
                .map_err(|source| IndexError::Create { path, source })?;
            let why = why.unwrap_or_else(|| "there was no index yet".to_owned());
            (current, Opened::Rebuild { why })
        }
    };
    let small = open_small(&folder, &options, boot_id)?;
    let index = Arc::new(Index::new(Arc::new(current), small));
    warm::begin(&index, matches!(opened, Opened::Trusted { .. }));
    let writer = IndexWriter::new(index.clone(), options, boot_id);
    Ok((index, writer, opened))
}

fn open_small(
    folder: &Path,
    options: &IndexOptions,
    boot_id: Option<[u8; 16]>,
) -> Result<Option<Small>, IndexError> {
    if options.small_bytes == 0 {
        return Ok(None);
    }
    let path = folder.join(SMALL);
    Small::open(&path, options.small_bytes, options.store_id, boot_id)
        .map(Some)
        .map_err(|source| IndexError::Create { path, source })
}

/// Numbers of the generations in the folder, newest first.
fn candidates(folder: &Path) -> std::io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder)?.take(CANDIDATES_MAX) {
        if let Some(number) = entry?.file_name().to_str().and_then(number_of) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    Ok(numbers)
}
