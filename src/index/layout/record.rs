//! A record of the small-object ring: its head.

use super::{RECORD_MAGIC, RECORD_WORDS};

/// The head of a record in the small-object ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::index) struct RecordHead {
    pub(in crate::index) key: [u64; 4],
    pub(in crate::index) is_sha512: bool,
    /// Bytes of content.
    pub(in crate::index) length: u32,
    /// Position in the ring, counted in lines and never reset.
    pub(in crate::index) line: u64,
}

impl RecordHead {
    /// Word 0 magic, 1 length and flags, 2 position, 3-6 key, 7 checksum over head and content.
    pub(in crate::index) fn encode(&self, seed: u32, content: &[u8]) -> [u64; RECORD_WORDS] {
        let mut words = self.words();
        words[7] = u64::from(record_checksum(&words, seed, content));
        words
    }

    /// Whether these words are exactly this head and fit the content.
    pub(in crate::index) fn proves(
        &self,
        words: &[u64; RECORD_WORDS],
        seed: u32,
        content: &[u8],
    ) -> bool {
        self.encode(seed, content) == *words
    }

    /// Whether these words are this head, whatever the content is.
    pub(in crate::index) fn begins(&self, words: &[u64; RECORD_WORDS]) -> bool {
        let ours = self.words();
        ours.iter().zip(words).take(RECORD_WORDS - 1).all(|(ours, there)| ours == there)
    }

    fn words(&self) -> [u64; RECORD_WORDS] {
        let [a, b, c, d] = self.key;
        let second = u64::from(self.length) | u64::from(self.is_sha512) << 32;
        [RECORD_MAGIC, second, self.line, a, b, c, d, 0]
    }
}

/// The length a record's head claims, before anything of it has been proven.
pub(in crate::index) fn claimed_length(words: &[u64; RECORD_WORDS]) -> u64 {
    words[1] & u64::from(u32::MAX)
}

fn record_checksum(words: &[u64; RECORD_WORDS], seed: u32, content: &[u8]) -> u32 {
    let mut bytes = [0; 8 * RECORD_WORDS];
    for (to, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *to = word.to_le_bytes();
    }
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &bytes), content)
}
