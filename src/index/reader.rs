//! Look-ups.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::generation::Generation;
use super::layout::{Key, Kind, Value};
use super::small::Small;
use super::{BlobEntry, IndexCounts, LinkEntry, Lookup, Sample, TagEntry, media};
use crate::oci::{Digest, Scope, ScopeKey, Tag};

/// The reading side of the index, shared by all workers. See the module for what it promises.
pub struct Index {
    current: ArcSwap<Generation>,
    small: Option<Small>,
}

/// The table as it stands now, for the look-ups of one request. Not to be held over a wait, nor over
/// anything after which a look-up has to see what others have done meanwhile.
pub struct View<'a> {
    current: Guard<Arc<Generation>>,
    small: Option<&'a Small>,
}

/// Small content as [`View::use_small`] has found it: for [`Index::copy_small`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SmallAt {
    key: Key,
    line: u32,
    size: u64,
}

impl Index {
    pub(super) fn new(current: Arc<Generation>, small: Option<Small>) -> Self {
        Self { current: ArcSwap::new(current), small }
    }

    /// The table as it stands now.
    pub fn view(&self) -> View<'_> {
        View { current: self.current.load(), small: self.small.as_ref() }
    }

    /// Stored content. Knowing it is no permission to serve it: that is a link.
    #[inline]
    pub fn blob(&self, digest: &Digest) -> Lookup<BlobEntry> {
        let found = self.current.load().look_up(&Key::blob(digest));
        found.and_then(|(_, value)| blob_entry(&value))
    }

    /// The link from a repository to content.
    pub fn link(&self, scope: &Scope, digest: &Digest) -> Lookup<LinkEntry> {
        self.view().link_of(&scope.link_key(digest))
    }

    /// What a tag is bound to.
    pub fn tag(&self, scope: &Scope, tag: &Tag) -> Lookup<TagEntry> {
        self.view().tag_of(&scope.tag_key(tag))
    }

    /// Appends small content to `out`; `false`, and `out` as it was, when it is not here. At most
    /// [`SMALL_BYTES_MAX`](super::SMALL_BYTES_MAX) bytes; their checksum, not their digest, was
    /// checked.
    pub fn small(&self, digest: &Digest, out: &mut Vec<u8>) -> bool {
        matches!(self.blob_and_small(digest, out), Lookup::Hit((_, true)))
    }

    /// [`Index::blob`] and [`Index::small`] with one look-up: the entry, and whether its bytes were
    /// appended to `out`. A hit without them is served from its file.
    pub fn blob_and_small(&self, digest: &Digest, out: &mut Vec<u8>) -> Lookup<(BlobEntry, bool)> {
        let key = Key::blob(digest);
        self.current.load().look_up(&key).and_then(|(_, value)| {
            let entry = blob_entry(&value)?;
            let is_copied = match (value, &self.small) {
                (Value::Blob { small: Some(line), .. }, Some(small)) => small.copy(line, &key, out),
                _ => false,
            };
            Some((entry, is_copied))
        })
    }

    /// Appends what [`View::use_small`] has found to `out`; `false`, and `out` as it was, when it was
    /// overwritten meanwhile or is damaged. Its checksum, not its digest, is checked.
    pub fn copy_small(&self, at: &SmallAt, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let Some(small) = &self.small else { return false };
        let is_copied = small.copy(at.line, &at.key, out);
        let is_whole = is_copied && (out.len() - start) as u64 == at.size;
        if !is_whole {
            out.truncate(start);
        }
        is_whole
    }

    /// [`Index::blob`] that notes the use, as [`Index::touch`] does.
    pub fn use_blob(&self, digest: &Digest, now: u64) -> Lookup<BlobEntry> {
        let current = self.current.load();
        current.look_up(&Key::blob(digest)).and_then(|(number, value)| {
            let entry = blob_entry(&value)?;
            current.touch(number, now / 60);
            Some(entry)
        })
    }

    /// Notes that content was used at `now` (Unix seconds), in memory: the file has it after the
    /// next [`IndexWriter::write_uses`](super::IndexWriter::write_uses). One use in a minute is
    /// counted, as [`counted`](super::counted) does, and only that one stores. Uses noted at the
    /// same time on several threads may count once.
    pub fn touch(&self, digest: &Digest, now: u64) {
        let current = self.current.load();
        if let Lookup::Hit((number, _)) = current.look_up(&Key::blob(digest)) {
            current.touch(number, now / 60);
        }
    }

    /// Whether a miss proves nothing now: the index is being filled, lost something, or could not
    /// take something. Look-ups say so themselves with [`Lookup::Unsure`].
    pub fn may_miss(&self) -> bool {
        self.current.load().may_miss()
    }

    /// Whether a page of the table could not be read. Every look-up is then
    /// [`Lookup::Unsure`] until [`IndexWriter::finish_generation`](super::IndexWriter) put a new
    /// table in its place.
    pub fn is_poisoned(&self) -> bool {
        self.current.load().is_poisoned()
    }

    /// Whether the table lies in a file, and not in memory that ends with the process.
    pub fn is_on_disk(&self) -> bool {
        self.current.load().is_on_disk()
    }

    /// Tells every blob once, beginning at a place chosen by `random`, until `tell` says no. Places
    /// are hashes, so what comes first is drawn at random, too: for who looks for rare ones, or
    /// adds up. Reads as much of the table as is needed, so it is not for workers.
    pub fn walk(&self, random: u64, mut tell: impl FnMut(Sample) -> bool) {
        let current = self.current.load();
        let slots = current.slots();
        let first = random.checked_rem(slots).unwrap_or(0);
        for number in (first..slots).chain(0..first) {
            let number = number as usize;
            let Some((key, value)) = current.entry(number) else { continue };
            if sampled(&current, number, &key, &value).is_some_and(|sample| !tell(sample)) {
                return;
            }
        }
    }

    /// How full the table is.
    pub fn counts(&self) -> IndexCounts {
        self.current.load().counts()
    }

    /// Some blob, drawn by `random` (any number, evenly spread), each as likely as any other. `None`
    /// when the draw hit none: the table is almost empty of blobs; try another number.
    pub fn sample(&self, random: u64) -> Option<Sample> {
        let current = self.current.load();
        let (number, key, value) = current.sample(random)?;
        sampled(&current, number, &key, &value)
    }

    // ---- for the writer ------------------------------------------------------------------------

    pub(super) fn current(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    pub(super) fn replace(&self, next: Arc<Generation>) {
        self.current.store(next);
    }

    pub(super) fn ring(&self) -> Option<&Small> {
        self.small.as_ref()
    }
}

impl View<'_> {
    /// The link from a repository to content, by its key.
    pub fn link_of(&self, key: &ScopeKey) -> Lookup<LinkEntry> {
        let key = Key::scoped(Kind::Link, key);
        self.current.look_up(&key).and_then(|(_, value)| match value {
            Value::Link { media: Some(number), linked_at } => {
                Some(LinkEntry { media_type: media::text(number)?, linked_at })
            }
            _ => None,
        })
    }

    /// What a tag is bound to, by its key.
    pub fn tag_of(&self, key: &ScopeKey) -> Lookup<TagEntry> {
        let key = Key::scoped(Kind::Tag, key);
        self.current.look_up(&key).and_then(|(_, value)| match value {
            Value::Tag { sha256: Some(words), checked_at } => {
                Some(TagEntry { digest: Digest::from_sha256(bytes_of(words)), checked_at })
            }
            _ => None,
        })
    }

    /// Stored content and, if it lies here, where: its bytes have not been looked at. Notes the use then,
    /// as [`Index::touch`] does.
    pub fn use_small(&self, digest: &Digest, now: u64) -> Lookup<(BlobEntry, Option<SmallAt>)> {
        let key = Key::blob(digest);
        self.current.look_up(&key).and_then(|(number, value)| {
            let entry = blob_entry(&value)?;
            let at = match (value, self.small) {
                (Value::Blob { small: Some(line), size, .. }, Some(small)) => {
                    small.holds(line, &key).then_some(SmallAt { key, line, size })
                }
                _ => None,
            };
            if at.is_some() {
                self.current.touch(number, now / 60);
            }
            Some((entry, at))
        })
    }
}

/// `None` for what is no blob.
fn sampled(current: &Generation, number: usize, key: &Key, value: &Value) -> Option<Sample> {
    let entry = blob_entry(value)?;
    let access = current.access(number);
    let prefix = bytes_of(key.words);
    Some(Sample {
        prefix,
        digest: (!key.is_sha512).then(|| Digest::from_sha256(prefix)),
        entry,
        last_use_minute: access.minute,
        hits: access.hits,
    })
}

fn blob_entry(value: &Value) -> Option<BlobEntry> {
    match *value {
        Value::Blob { size, pool, owner, is_hosted, keeping, .. } => {
            Some(BlobEntry { size, pool, owner, is_hosted, keeping })
        }
        _ => None,
    }
}

fn bytes_of(words: [u64; 4]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (to, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *to = word.to_le_bytes();
    }
    bytes
}
