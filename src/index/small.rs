//! Small content in memory: a ring of records that manifests and configs are answered from without
//! opening a file.
//!
//! The writer appends and overwrites the oldest; a blob's slot says where its record lies. What is
//! overwritten is a miss, is served from its file, and may be put again.
//!
//! **Invariant:** content is handed out only when the record there has the digest that was asked
//! for, its checksum holds, and the writer had not come near it while it was copied.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::SMALL_BYTES_MAX;
use super::file::{Gates, IndexFile};
use super::layout::{
    BODY_AT, Header, Key, LAYOUT_HASH, LINE_BYTES, LINE_WORDS, LIVE_AT, LIVE_RESERVED, LIVE_WORDS,
    PAGE_BYTES, RECORD_WORDS, RecordHead, SCHEMA, SMALL_MAGIC, claimed_length, seed,
};
use super::protocol::{overwrite, reserved_after_copy};

/// The ring file.
pub(super) struct Small {
    file: IndexFile,
    seed: u32,
    /// Lines of the ring.
    lines: u64,
}

/// Bytes of the file around a ring of `size` bytes.
fn file_bytes(size: u64) -> Option<u64> {
    let is_whole = size.is_multiple_of(PAGE_BYTES as u64) && size >= RING_BYTES_MIN;
    (is_whole && size <= RING_BYTES_MAX).then_some(BODY_AT as u64 + size)
}

/// A smaller ring would hold a handful of records.
const RING_BYTES_MIN: u64 = 256 * 1024;
/// Content is copied in pieces of this size.
const PIECE_BYTES: usize = 8 * LINE_BYTES;
/// Above this a header is not believed: slots hold 32 bits of a position.
const RING_BYTES_MAX: u64 = LINE_BYTES as u64 * (1 << 32);

impl Small {
    /// Opens the ring of an earlier process if it has the wanted size and can be believed; else
    /// makes an empty one, on disk if that works.
    ///
    /// # Errors
    /// Neither a file nor memory could be had.
    pub(super) fn open(
        path: &Path,
        bytes: u64,
        store_id: [u8; 16],
        boot_id: Option<[u8; 16]>,
    ) -> io::Result<Self> {
        let size = bytes
            .clamp(RING_BYTES_MIN, RING_BYTES_MAX - PAGE_BYTES as u64)
            .next_multiple_of(PAGE_BYTES as u64);
        let gates =
            Gates { magic: SMALL_MAGIC, store_id, boot_id, file_bytes, needs_complete: false };
        if let Ok((file, _)) = IndexFile::open(path, &gates) {
            let small = Self::over(file);
            let is_as_wanted = small.file.header().size == size;
            if is_as_wanted && small.reserved().is_some_and(|end| end <= LINE_MAX) {
                return Ok(small);
            }
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let made_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let header = Header {
            magic: SMALL_MAGIC,
            schema: SCHEMA,
            layout: LAYOUT_HASH,
            store_id,
            // No record of an earlier ring at this path may pass for one of this.
            generation: made_at.as_nanos() as u64,
            size,
            file_bytes: file_bytes(size).unwrap_or_default(),
            boot_id: boot_id.unwrap_or_default(),
            is_clean: false,
            is_complete: true,
            epoch_minute: 0,
            sequence: 0,
        };
        IndexFile::create_somewhere(path, header).map(Self::over)
    }

    fn over(file: IndexFile) -> Self {
        let header = file.header();
        let seed = seed(header.store_id, header.generation);
        Self { file, seed, lines: header.size / LINE_BYTES as u64 }
    }

    fn reserved_word(&self) -> Option<&AtomicU64> {
        self.file.map().words(LIVE_AT, LIVE_WORDS).get(LIVE_RESERVED)
    }

    fn reserved(&self) -> Option<u64> {
        self.reserved_word().map(|word| word.load(Ordering::Relaxed))
    }

    /// The words of the ring from a position on, `lines` lines, if they do not cross its end.
    fn region(&self, line: u64, lines: u64) -> Option<&[AtomicU64]> {
        let from = line % self.lines;
        if lines > self.lines - from {
            return None;
        }
        let at = usize::try_from(from).ok()?.checked_mul(LINE_BYTES)?.checked_add(BODY_AT)?;
        let count = usize::try_from(lines).ok()?.checked_mul(LINE_WORDS)?;
        Some(self.file.map().words(at, count)).filter(|words| words.len() == count)
    }

    /// Appends content; the low half of its position. Only the one writer. `None` when it is too large.
    pub(super) fn append(&self, key: &Key, content: &[u8]) -> Option<u32> {
        if content.len() > SMALL_BYTES_MAX || self.file.map().is_poisoned() {
            return None;
        }
        let lines = lines_of(content.len() as u64);
        let reserved = self.reserved_word()?;
        let mut line = reserved.load(Ordering::Relaxed);
        let left = self.lines - line % self.lines;
        if lines > left {
            line += left;
        }
        let head = RecordHead {
            key: key.words,
            is_sha512: key.is_sha512,
            length: u32::try_from(content.len()).ok()?,
            line,
        };
        let (words, rest) = content.as_chunks::<8>();
        let mut last = [0; 8];
        for (to, byte) in last.iter_mut().zip(rest) {
            *to = *byte;
        }
        let image = head
            .encode(self.seed, content)
            .into_iter()
            .chain(words.iter().map(|word| u64::from_ne_bytes(*word)))
            .chain((!rest.is_empty()).then_some(u64::from_ne_bytes(last)));
        overwrite(reserved, line + lines, self.region(line, lines)?, image);
        Some(line as u32)
    }

    /// Appends the content at the last position with this low half to `out`, if it still is that of
    /// `key`. Any thread.
    pub(super) fn copy(&self, low: u32, key: &Key, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let is_whole = self.copy_unproven(low, key, out).is_some() && !self.is_poisoned();
        if !is_whole {
            out.truncate(start);
        }
        is_whole
    }

    /// Whether the last position with this low half still is that of `key`. Its content is not looked
    /// at. Any thread.
    pub(super) fn holds(&self, low: u32, key: &Key) -> bool {
        self.record(low, key).is_some_and(|(expected, head)| {
            let is_untouched = self.reserved().is_some_and(|reserved| {
                let end = expected.line + lines_of(u64::from(expected.length));
                end <= reserved && reserved <= expected.line + self.lines
            });
            is_untouched && expected.begins(&head)
        }) && !self.is_poisoned()
    }

    /// The record at the last position with this low half: the head that it should have for `key`,
    /// and the one that it has.
    fn record(&self, low: u32, key: &Key) -> Option<(RecordHead, [u64; RECORD_WORDS])> {
        // A ring has no more lines than the low half tells apart, and an earlier turn is gone.
        let reserved = self.reserved()?;
        let line = reserved.checked_sub(u64::from((reserved as u32).wrapping_sub(low)))?;
        if line > LINE_MAX {
            return None;
        }
        let mut head = [0; RECORD_WORDS];
        for (to, word) in head.iter_mut().zip(self.region(line, 1)?) {
            *to = word.load(Ordering::Relaxed);
        }
        let length = u32::try_from(claimed_length(&head)).ok()?;
        if length as usize > SMALL_BYTES_MAX {
            return None;
        }
        Some((RecordHead { key: key.words, is_sha512: key.is_sha512, length, line }, head))
    }

    fn copy_unproven(&self, low: u32, key: &Key, out: &mut Vec<u8>) -> Option<()> {
        let (expected, head) = self.record(low, key)?;
        let (length, line) = (u64::from(expected.length), expected.line);
        let (start, lines) = (out.len(), lines_of(length));
        let words = self.region(line, lines)?.get(RECORD_WORDS..)?;
        // Piece by piece: each word would cost a call and a check for room, and all in one go would need
        // memory that was written before.
        out.reserve(words.len().checked_mul(size_of::<AtomicU64>())?);
        let mut piece = [0; PIECE_BYTES];
        for words in words.chunks(PIECE_BYTES / size_of::<AtomicU64>()) {
            for (to, word) in piece.as_chunks_mut::<8>().0.iter_mut().zip(words) {
                *to = word.load(Ordering::Relaxed).to_ne_bytes();
            }
            out.extend_from_slice(piece.get(..size_of_val(words))?);
        }
        out.truncate(start + length as usize);
        let reserved = reserved_after_copy(self.reserved_word()?);
        let is_untouched = line + lines <= reserved && reserved <= line + self.lines;
        let content = out.get(start..)?;
        (is_untouched && expected.proves(&head, self.seed, content)).then_some(())
    }

    /// The bytes of the file that hold records, or did.
    pub(super) fn written(&self) -> Range<usize> {
        let lines = self.reserved().unwrap_or(0).min(self.lines);
        let bytes = usize::try_from(lines).unwrap_or(0).saturating_mul(LINE_BYTES);
        BODY_AT..BODY_AT.saturating_add(bytes)
    }

    /// Brings some of the file into memory. Blocks on the disk.
    ///
    /// # Errors
    /// The kernel cannot, or the disk failed.
    pub(super) fn populate(&self, bytes: Range<usize>) -> io::Result<()> {
        self.file.map().populate(bytes)
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.file.map().is_poisoned()
    }

    pub(super) fn close(&self) -> io::Result<()> {
        self.file.close(true)
    }
}

/// Positions above this are not believed: at a gigabyte a second it is reached in 500 years.
const LINE_MAX: u64 = 1 << 54;

/// Lines of a record with this much content.
fn lines_of(length: u64) -> u64 {
    1 + length.div_ceil(LINE_BYTES as u64)
}
