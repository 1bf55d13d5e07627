//! The header: what a file says about itself, in two checksummed copies.

use super::{HEADER_BYTES, halves, joined};

/// What a file says about itself. Fields are in the order of the file, which never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::index) struct Header {
    pub(in crate::index) magic: u64,
    pub(in crate::index) schema: u64,
    pub(in crate::index) layout: u64,
    pub(in crate::index) store_id: [u8; 16],
    pub(in crate::index) generation: u64,
    /// Buckets of an index; bytes of a ring.
    pub(in crate::index) size: u64,
    pub(in crate::index) file_bytes: u64,
    pub(in crate::index) boot_id: [u8; 16],
    pub(in crate::index) is_clean: bool,
    pub(in crate::index) is_complete: bool,
    /// Minutes since 1970 that access times count from.
    pub(in crate::index) epoch_minute: u64,
    /// The copy with the higher one counts.
    pub(in crate::index) sequence: u64,
}

impl Header {
    /// The 256 bytes of a copy, with its checksum.
    pub(in crate::index) fn encode(&self) -> [u8; HEADER_BYTES] {
        let [store_low, store_high] = halves(self.store_id);
        let [boot_low, boot_high] = halves(self.boot_id);
        let fields = [
            self.magic,
            self.schema,
            self.layout,
            store_low,
            store_high,
            self.generation,
            self.size,
            self.file_bytes,
            boot_low,
            boot_high,
            u64::from(self.is_clean) | u64::from(self.is_complete) << 1,
            self.epoch_minute,
            self.sequence,
        ];
        let mut bytes = [0; HEADER_BYTES];
        for (to, field) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(fields) {
            *to = field.to_le_bytes();
        }
        if let Some((content, checksum)) = bytes.split_last_chunk_mut::<8>() {
            *checksum = u64::from(crc32c::crc32c(content)).to_le_bytes();
        }
        bytes
    }

    /// Reads a copy back; `None` when its checksum fails or a bit is set that nobody sets.
    pub(in crate::index) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let (content, checksum) = bytes.split_last_chunk::<8>()?;
        if u64::from_le_bytes(*checksum) != u64::from(crc32c::crc32c(content)) {
            return None;
        }
        let mut words = content.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let mut next = || words.next();
        let header = Self {
            magic: next()?,
            schema: next()?,
            layout: next()?,
            store_id: joined([next()?, next()?]),
            generation: next()?,
            size: next()?,
            file_bytes: next()?,
            boot_id: joined([next()?, next()?]),
            is_clean: false,
            is_complete: false,
            epoch_minute: 0,
            sequence: 0,
        };
        let state = next()?;
        (state <= 3).then_some(Self {
            is_clean: state & 1 != 0,
            is_complete: state & 2 != 0,
            epoch_minute: next()?,
            sequence: next()?,
            ..header
        })
    }
}
