//! A slot: one entry in one cache line.

use super::{
    CHECKED_SHIFT, CHECKSUM_MASK, FLAG_HOSTED, FLAG_IN_CATALOG, FLAG_PINNED, FLAG_SHA512,
    FLAG_SMALL, FLAGS_SHIFT, KIND_SHIFT, LINE_BYTES, LINE_WORDS, MEDIA_SHIFT, OWNER_SHIFT,
    POOL_SHIFT, PRIORITY_BITS, PRIORITY_MASK, PRIORITY_SHIFT, SEQUENCE_MASK, SMALL_SHIFT,
    TIME_MASK, halves,
};
use crate::keeping::Keeping;
use crate::oci::{Algorithm, Digest, ScopeKey};

/// What a slot holds, from its first word. Codes are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::index) enum Kind {
    /// Was used, is free.
    Dead = 1,
    Blob = 2,
    Link = 3,
    Tag = 4,
}

/// What a slot is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::index) struct Key {
    pub(in crate::index) kind: Kind,
    /// The digest, or in the first two words the scope key.
    pub(in crate::index) words: [u64; 4],
    pub(in crate::index) is_sha512: bool,
}

/// What a slot tells about its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::index) enum Value {
    Blob {
        size: u64,
        pool: u8,
        owner: u16,
        is_hosted: bool,
        keeping: Keeping,
        /// The low half of the position in the small-object ring, counted in lines.
        small: Option<u32>,
    },
    Link {
        /// `None` is written for a type that only the catalog knows.
        media: Option<u8>,
        linked_at: u64,
    },
    Tag {
        /// `None` for a digest that does not fit: only the catalog knows it.
        sha256: Option<[u64; 4]>,
        checked_at: u64,
    },
}

impl Value {
    /// The bytes that forgetting this would free: those of a blob that is not hosted. And as many
    /// of them as are pinned.
    pub(in crate::index) fn cached_bytes(&self) -> [u64; 2] {
        match self {
            Self::Blob { size, is_hosted: false, keeping, .. } => {
                [*size, if keeping.is_pinned { *size } else { 0 }]
            }
            _ => [0; 2],
        }
    }
}

impl Key {
    /// The key of stored content. SHA-512 is cut to 256 bits and told apart by a flag.
    pub(in crate::index) fn blob(digest: &Digest) -> Self {
        let words = match digest.as_bytes().as_chunks::<8>().0 {
            [a, b, c, d, ..] => [*a, *b, *c, *d].map(u64::from_le_bytes),
            _ => [0; 4],
        };
        Self { kind: Kind::Blob, words, is_sha512: digest.algorithm() == Algorithm::Sha512 }
    }

    /// The key of a link or a tag: 128 bits of a SHA-256.
    pub(in crate::index) fn scoped(kind: Kind, key: &ScopeKey) -> Self {
        let [low, high] = key.as_bytes().first_chunk::<16>().map_or([0; 2], |half| halves(*half));
        Self { kind, words: [low, high, 0, 0], is_sha512: false }
    }

    /// Whether a slot's words carry this key.
    pub(in crate::index) fn is_in(&self, slot: &Slot) -> bool {
        let [first, k0, k1, k2, k3, ..] = slot.0;
        let [a, b, c, d] = self.words;
        let is_same = kind_code(first) == self.kind as u8 && (k0, k1) == (a, b);
        is_same
            && (self.kind != Kind::Blob
                || ((k2, k3) == (c, d) && (flags(first) & FLAG_SHA512 != 0) == self.is_sha512))
    }
}

/// The eight words of a slot, as copied out of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::index) struct Slot(pub(in crate::index) [u64; LINE_WORDS]);

impl Slot {
    /// Encodes an entry, without sequence and checksum.
    pub(in crate::index) fn encode(key: &Key, value: &Value) -> Self {
        let [a, b, c, d] = key.words;
        let mut set = if key.is_sha512 { FLAG_SHA512 } else { 0 };
        let (kind, payload) = match *value {
            Value::Blob { size, pool, owner, is_hosted, keeping, small } => {
                set |= if is_hosted { FLAG_HOSTED } else { 0 };
                set |= if keeping.is_pinned { FLAG_PINNED } else { 0 };
                set |= if small.is_some() { FLAG_SMALL } else { 0 };
                let expires_at =
                    keeping.expires_at.map_or(0, |at| at.clamp(1, u64::from(u32::MAX)));
                let w6 = expires_at | u64::from(small.unwrap_or(0)) << SMALL_SHIFT;
                let priority = i64::from(keeping.priority) as u64 & PRIORITY_MASK;
                let w7 = u64::from(owner) << OWNER_SHIFT
                    | u64::from(pool) << POOL_SHIFT
                    | priority << PRIORITY_SHIFT;
                (Kind::Blob, [a, b, c, d, size, w6, w7])
            }
            Value::Link { media, linked_at } => {
                set |= if media.is_none() { FLAG_IN_CATALOG } else { 0 };
                let media = u64::from(media.unwrap_or(0));
                let word = linked_at.min(TIME_MASK) | media << MEDIA_SHIFT;
                (Kind::Link, [a, b, word, 0, 0, 0, 0])
            }
            Value::Tag { sha256, checked_at } => {
                set |= if sha256.is_none() { FLAG_IN_CATALOG } else { 0 };
                let [d0, d1, d2, d3] = sha256.unwrap_or([0; 4]);
                let checked = checked_at.min(u64::from(u32::MAX)) << CHECKED_SHIFT;
                (Kind::Tag, [a, b, d0, d1, d2, d3, checked])
            }
        };
        let [w1, w2, w3, w4, w5, w6, w7] = payload;
        let first = (kind as u64) << KIND_SHIFT | u64::from(set) << FLAGS_SHIFT;
        Self([first, w1, w2, w3, w4, w5, w6, w7])
    }

    /// A free slot that once was used.
    pub(in crate::index) fn dead() -> Self {
        Self([(Kind::Dead as u64) << KIND_SHIFT, 0, 0, 0, 0, 0, 0, 0])
    }

    /// The entry; `None` for dead slots and for what this code never writes.
    pub(in crate::index) fn decode(&self) -> Option<(Key, Value)> {
        let [first, a, b, c, d, w5, w6, w7] = self.0;
        let set = flags(first);
        let is_known = set & FLAG_IN_CATALOG == 0;
        let scoped = |kind| Key { kind, words: [a, b, 0, 0], is_sha512: false };
        Some(match kind_code(first) {
            code if code == Kind::Blob as u8 => (
                Key { kind: Kind::Blob, words: [a, b, c, d], is_sha512: set & FLAG_SHA512 != 0 },
                Value::Blob {
                    size: w5,
                    pool: (w7 >> POOL_SHIFT) as u8,
                    owner: (w7 >> OWNER_SHIFT) as u16,
                    is_hosted: set & FLAG_HOSTED != 0,
                    keeping: keeping(set, w6, w7),
                    small: (set & FLAG_SMALL != 0).then_some((w6 >> SMALL_SHIFT) as u32),
                },
            ),
            code if code == Kind::Link as u8 => (
                scoped(Kind::Link),
                Value::Link {
                    media: is_known.then_some((c >> MEDIA_SHIFT) as u8),
                    linked_at: c & TIME_MASK,
                },
            ),
            code if code == Kind::Tag as u8 => (
                scoped(Kind::Tag),
                Value::Tag {
                    sha256: is_known.then_some([c, d, w5, w6]),
                    checked_at: w7 >> CHECKED_SHIFT,
                },
            ),
            _ => return None,
        })
    }

    /// This entry with its sequence and the checksum that binds it to its place: table and slot.
    pub(in crate::index) fn sealed(self, sequence: u64, seed: u32, number: u64) -> Self {
        let mut words = self.0;
        words[0] = (words[0] & !SEQUENCE_MASK) | (sequence & SEQUENCE_MASK);
        words[7] = (words[7] & !CHECKSUM_MASK) | u64::from(checksum(&words, seed, number));
        Self(words)
    }

    /// Whether the checksum holds for this place.
    pub(in crate::index) fn is_whole(&self, seed: u32, number: u64) -> bool {
        self.0[7] & CHECKSUM_MASK == u64::from(checksum(&self.0, seed, number))
    }

    /// Whether two slots say the same, whatever their sequences and checksums.
    pub(in crate::index) fn says_the_same(&self, other: &Self) -> bool {
        let bare = |slot: &Self| {
            let mut words = slot.0;
            words[0] &= !SEQUENCE_MASK;
            words[7] &= !CHECKSUM_MASK;
            words
        };
        bare(self) == bare(other)
    }
}

fn keeping(set: u8, w6: u64, w7: u64) -> Keeping {
    let expires_at = w6 & u64::from(u32::MAX);
    // To the top of a byte and down again: the sign fills it.
    let unused = u8::BITS - PRIORITY_BITS;
    let priority = ((w7 >> PRIORITY_SHIFT) << unused) as u8 as i8 >> unused;
    Keeping {
        is_pinned: set & FLAG_PINNED != 0,
        priority,
        expires_at: (expires_at > 0).then_some(expires_at),
    }
}

fn kind_code(first: u64) -> u8 {
    (first >> KIND_SHIFT) as u8
}

fn flags(first: u64) -> u8 {
    (first >> FLAGS_SHIFT) as u8
}

/// CRC32C over the slot's words, the checksum's own bits as zero, and the slot's number.
fn checksum(words: &[u64; LINE_WORDS], seed: u32, number: u64) -> u32 {
    let mut bytes = [0; LINE_BYTES + 8];
    let [w0, w1, w2, w3, w4, w5, w6, w7] = *words;
    let covered = [w0, w1, w2, w3, w4, w5, w6, w7 & !CHECKSUM_MASK, number];
    for (to, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(covered) {
        *to = word.to_le_bytes();
    }
    crc32c::crc32c_append(seed, &bytes)
}
