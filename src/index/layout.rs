//! The bytes of the index: offsets, and how headers and slots are encoded. FORMAT.md says the same
//! in prose and a test compares the two. Nothing else in this crate knows a byte of these files.
//!
//! Pure: words go in, words come out. What is read is never believed before its checksum holds.

mod header;
mod record;
mod slot;

use std::ops::Range;

pub(super) use header::Header;
pub(super) use record::{RecordHead, claimed_length};
pub(super) use slot::{Key, Kind, Slot, Value};

/// Counted up when the meaning of a file changes; another schema is dropped and rebuilt.
pub(super) const SCHEMA: u64 = 4;
/// First word of an index file: `RNGPIDX1` in ASCII.
pub(super) const INDEX_MAGIC: u64 = u64::from_le_bytes(*b"RNGPIDX1");
/// First word of a small-object file: `RNGPSML1`.
pub(super) const SMALL_MAGIC: u64 = u64::from_le_bytes(*b"RNGPSML1");
/// First word of a record in the small-object ring: `RPsmall1`.
pub(super) const RECORD_MAGIC: u64 = u64::from_le_bytes(*b"RPsmall1");

/// Files are a whole number of these.
pub(super) const PAGE_BYTES: usize = 4096;
/// A cache line: one slot, or one step of the small-object ring.
pub(super) const LINE_BYTES: usize = 64;
/// Words in a line.
pub(super) const LINE_WORDS: usize = 8;
/// Words in one header copy, the last of them the checksum.
pub(super) const HEADER_WORDS: usize = 32;
/// Bytes in one header copy.
pub(super) const HEADER_BYTES: usize = HEADER_WORDS * 8;
/// Where the two header copies lie: on pages of their own, so that no write can tear both.
pub(super) const HEADERS_AT: [usize; 2] = [0, PAGE_BYTES];
/// Where the live words lie: changed at any time, hints, not checksummed.
pub(super) const LIVE_AT: usize = 2 * PAGE_BYTES;
/// Where buckets, or the ring, begin.
pub(super) const BODY_AT: usize = 4 * PAGE_BYTES;

/// Slots in a bucket.
pub(super) const BUCKET_SLOTS: usize = 16;
/// Bytes in a bucket.
pub(super) const BUCKET_BYTES: usize = BUCKET_SLOTS * LINE_BYTES;
/// Bytes of an entry of the access table, of which each slot has one.
pub(super) const ACCESS_BYTES: usize = 4;
/// Bytes of the access table for one bucket.
pub(super) const BUCKET_ACCESS_BYTES: usize = BUCKET_SLOTS * ACCESS_BYTES;
/// Bits of a fingerprint.
pub(super) const LANE_BITS: usize = 16;
/// Bit of a fingerprint that tells a blob from a link or a tag.
pub(super) const LANE_BLOB: u64 = 1;
/// Fingerprints in a word.
pub(super) const WORD_LANES: usize = 64 / LANE_BITS;
/// Words of fingerprints for one bucket.
pub(super) const BUCKET_LANE_WORDS: usize = BUCKET_SLOTS / WORD_LANES;
/// Bytes of fingerprints for one bucket.
pub(super) const BUCKET_LANE_BYTES: usize = BUCKET_LANE_WORDS * 8;
/// Most buckets that are believed in a header: a table of 70 GiB.
pub(super) const BUCKETS_MAX: u64 = 1 << 26;

/// Live word: the last group of changes applied; and its complement, which proves it whole.
pub(super) const LIVE_APPLIED: usize = 0;
pub(super) const LIVE_APPLIED_CHECK: usize = 1;
/// Live words: how many blobs, links and tags there are.
pub(super) const LIVE_COUNTS: usize = 2;
/// Live word: bytes of the blobs that are not hosted; and its complement, which proves it whole.
pub(super) const LIVE_CACHED: usize = 5;
pub(super) const LIVE_CACHED_CHECK: usize = 6;
/// The same of those among them that are pinned.
pub(super) const LIVE_PINNED: usize = 7;
pub(super) const LIVE_PINNED_CHECK: usize = 8;
/// Live word of the small-object file: the ring has been handed out up to here.
pub(super) const LIVE_RESERVED: usize = 0;
/// Live words in use.
pub(super) const LIVE_WORDS: usize = 9;

/// Bits of a slot's first word that hold its sequence; odd while it is being written.
pub(super) const SEQUENCE_MASK: u64 = (1 << 48) - 1;
const KIND_SHIFT: u32 = 48;
const FLAGS_SHIFT: u32 = 56;
/// Flag: the key is the first half of a SHA-512.
pub(super) const FLAG_SHA512: u8 = 1;
/// Flag: hosted content, never evicted.
pub(super) const FLAG_HOSTED: u8 = 1 << 1;
/// Flag: the value does not fit a slot; the catalog has it.
pub(super) const FLAG_IN_CATALOG: u8 = 1 << 2;
/// Flag: pinned content, not evicted before it expires.
pub(super) const FLAG_PINNED: u8 = 1 << 3;
/// Flag: small content, of which the ring has, or had, a copy.
pub(super) const FLAG_SMALL: u8 = 1 << 4;

/// Offset of the ring position in a blob's word 6, above its expiry.
const SMALL_SHIFT: u32 = 32;
/// Offset of the media type in a link's word 3, above the time.
const MEDIA_SHIFT: u32 = 48;
const TIME_MASK: u64 = (1 << MEDIA_SHIFT) - 1;
/// Offset of a blob's owner in word 7, above the checksum.
const OWNER_SHIFT: u32 = 32;
/// Offset of a blob's pool in word 7, above its owner.
const POOL_SHIFT: u32 = 48;
/// Offset of a blob's priority in word 7, above its pool: a number of two's complement.
const PRIORITY_SHIFT: u32 = 56;
/// Its bits.
const PRIORITY_BITS: u32 = 5;
const PRIORITY_MASK: u64 = (1 << PRIORITY_BITS) - 1;
/// Offset of a tag's time in word 7, above the checksum.
const CHECKED_SHIFT: u32 = 32;
const CHECKSUM_MASK: u64 = u32::MAX as u64;

/// Ring record: words in its head; the content follows.
pub(super) const RECORD_WORDS: usize = LINE_WORDS;
/// Access entry: the minute is above the saturating count of uses.
pub(super) const ACCESS_MINUTE_SHIFT: u32 = 12;
/// Access entry: most uses counted.
pub(super) const ACCESS_HITS_MAX: u32 = (1 << ACCESS_MINUTE_SHIFT) - 1;
/// Access entry: the last minute after the epoch that can be told apart.
pub(super) const ACCESS_MINUTE_MAX: u64 = (1 << (32 - ACCESS_MINUTE_SHIFT)) - 1;

/// Changes whenever an offset or a size above does: a file written by a build with another layout
/// is not read, even if somebody forgot to count up [`SCHEMA`].
pub(super) const LAYOUT_HASH: u64 = hash(&[
    PAGE_BYTES,
    HEADER_WORDS,
    HEADERS_AT[1],
    LIVE_AT,
    LIVE_APPLIED,
    LIVE_APPLIED_CHECK,
    LIVE_COUNTS,
    LIVE_CACHED,
    LIVE_CACHED_CHECK,
    LIVE_PINNED,
    LIVE_PINNED_CHECK,
    LIVE_RESERVED,
    BODY_AT,
    LINE_BYTES,
    BUCKET_SLOTS,
    BUCKET_ACCESS_BYTES,
    LANE_BITS,
    LANE_BLOB as usize,
    KIND_SHIFT as usize,
    FLAGS_SHIFT as usize,
    SMALL_SHIFT as usize,
    MEDIA_SHIFT as usize,
    OWNER_SHIFT as usize,
    POOL_SHIFT as usize,
    PRIORITY_SHIFT as usize,
    PRIORITY_BITS as usize,
    CHECKED_SHIFT as usize,
    RECORD_WORDS,
    ACCESS_MINUTE_SHIFT as usize,
    if cfg!(target_endian = "little") { 1 } else { 2 },
]);

/// FNV-1a.
const fn hash(values: &[usize]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut rest = values;
    while let [value, tail @ ..] = rest {
        hash = (hash ^ *value as u64).wrapping_mul(0x0000_0100_0000_01b3);
        rest = tail;
    }
    hash
}

/// Bytes of an index file with this many buckets; `None` when they are too many.
pub(super) fn index_bytes(buckets: u64) -> Option<u64> {
    (1..=BUCKETS_MAX).contains(&buckets).then(|| {
        let bucket = BUCKET_BYTES + BUCKET_ACCESS_BYTES + BUCKET_LANE_BYTES;
        let body = buckets * bucket as u64;
        (BODY_AT as u64 + body).next_multiple_of(PAGE_BYTES as u64)
    })
}

/// Where the access table of a file with this many buckets lies; the lanes begin at its end.
pub(super) fn access_range(buckets: usize) -> Range<usize> {
    let start = buckets.saturating_mul(BUCKET_BYTES).saturating_add(BODY_AT);
    start..buckets.saturating_mul(BUCKET_ACCESS_BYTES).saturating_add(start)
}

/// The seed of every checksum in a file: no slot of another store or generation passes.
pub(super) fn seed(store_id: [u8; 16], generation: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&store_id), &generation.to_le_bytes())
}

/// Two words from 16 bytes.
pub(super) fn halves(bytes: [u8; 16]) -> [u64; 2] {
    let mut words = [0; 2];
    for (to, half) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *to = u64::from_le_bytes(*half);
    }
    words
}

fn joined(words: [u64; 2]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *to = word.to_le_bytes();
    }
    bytes
}
