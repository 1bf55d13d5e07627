//! Changes. One writer, on one thread; it is `&mut` where it changes, so the compiler holds it to
//! that.

use std::sync::Arc;

use super::generation::{Generation, now_minute};
use super::layout::{ACCESS_MINUTE_MAX, BUCKET_SLOTS, Key, Kind, Value};
use super::recovery::generation_path;
use super::{BlobEntry, Index, IndexError, IndexOptions, LinkEntry, Lookup, TagEntry, media};
use crate::oci::{Algorithm, Digest, Scope, Tag};

/// The writing side of the index.
///
/// Puts never fail: what finds no room, or no longer a readable page, is only in the catalog, and
/// look-ups then answer [`Lookup::Unsure`] instead of [`Lookup::Miss`].
pub struct IndexWriter {
    index: Arc<Index>,
    current: Arc<Generation>,
    next: Option<Next>,
    options: IndexOptions,
    boot_id: Option<[u8; 16]>,
    /// The page of uses at which [`IndexWriter::write_uses`] goes on.
    uses_from: usize,
    /// The generation whose file failed when it was to be put there.
    is_unsharable: Option<u64>,
}

/// A generation being filled.
struct Next {
    generation: Arc<Generation>,
    /// The first bucket of the current one that was not carried over yet.
    bucket: u64,
}

impl IndexWriter {
    pub(super) fn new(index: Arc<Index>, options: IndexOptions, boot_id: Option<[u8; 16]>) -> Self {
        let current = index.current();
        Self { index, current, next: None, options, boot_id, uses_from: 0, is_unsharable: None }
    }

    /// Tells of stored content. What was known about its use and its small copy stays.
    pub fn put_blob(&mut self, digest: &Digest, entry: &BlobEntry) {
        let key = Key::blob(digest);
        let small = self.small_line(&key);
        self.put(&key, &blob_value(entry, small));
    }

    /// Forgets content whose file is gone or damaged. Links stay: they are proof of access, not of
    /// presence.
    pub fn remove_blob(&mut self, digest: &Digest) {
        self.remove(&Key::blob(digest));
    }

    /// Makes content visible in a repository.
    pub fn put_link(&mut self, scope: &Scope, digest: &Digest, entry: &LinkEntry) {
        let key = Key::scoped(Kind::Link, &scope.link_key(digest));
        let media = media::number(entry.media_type.as_deref());
        self.put(&key, &Value::Link { media, linked_at: entry.linked_at });
    }

    /// Forgets a link.
    pub fn remove_link(&mut self, scope: &Scope, digest: &Digest) {
        self.remove(&Key::scoped(Kind::Link, &scope.link_key(digest)));
    }

    /// Binds a tag.
    pub fn put_tag(&mut self, scope: &Scope, tag: &Tag, entry: &TagEntry) {
        let key = Key::scoped(Kind::Tag, &scope.tag_key(tag));
        let is_short = entry.digest.algorithm() == Algorithm::Sha256;
        let sha256 = is_short.then(|| Key::blob(&entry.digest).words);
        self.put(&key, &Value::Tag { sha256, checked_at: entry.checked_at });
    }

    /// Forgets a tag.
    pub fn remove_tag(&mut self, scope: &Scope, tag: &Tag) {
        self.remove(&Key::scoped(Kind::Tag, &scope.tag_key(tag)));
    }

    /// Keeps small content in memory. Without effect when its blob is not in the index, when it is
    /// larger than [`SMALL_BYTES_MAX`](super::SMALL_BYTES_MAX) or when it is kept already. The
    /// caller has verified that `content` has this digest.
    pub fn put_small(&mut self, digest: &Digest, content: &[u8]) {
        let key = Key::blob(digest);
        let Some(ring) = self.index.ring() else { return };
        let Lookup::Hit((_, value)) = self.current.look_up(&key) else { return };
        let Value::Blob { size, pool, owner, is_hosted, keeping, small } = value else {
            return;
        };
        if size != content.len() as u64 || self.is_kept(small, &key) {
            return;
        }
        let Some(line) = ring.append(&key, content) else { return };
        let small = Some(line);
        self.put(&key, &Value::Blob { size, pool, owner, is_hosted, keeping, small });
    }

    /// Notes that all changes up to this group of the catalog are applied. Cheap: one store.
    pub fn set_applied(&mut self, group: u64) {
        for generation in self.generations() {
            generation.set_applied(group);
        }
    }

    /// Says that everything the catalog knows has been put since the index was opened (or its
    /// last generation swapped in). From now on a miss is an answer, unless an entry found no room
    /// or was damaged meanwhile.
    pub fn rebuilt(&mut self) {
        self.current.complete();
    }

    /// Takes back that a miss is an answer, until [`IndexWriter::rebuilt`]: the catalog knows what
    /// was not put here.
    pub fn doubt(&mut self) {
        self.current.doubt();
    }

    /// Whether a new generation is due: the table is too full, refused an entry, found damage, was
    /// poisoned, is smaller than configured, or its access clock (728 days) runs out.
    pub fn needs_growth(&self) -> bool {
        self.next.is_none()
            && (self.current.is_outgrown() || self.current.slots() < self.options.slots_min)
    }

    /// Begins a generation with at least `slots` slots (and what is configured) beside the current
    /// one. From now on changes go to both. Takes as long as reserving its file.
    ///
    /// # Errors
    /// No room for the file, nor memory; the current one goes on.
    pub fn begin_generation(&mut self, slots: u64) -> Result<(), IndexError> {
        self.abandon();
        let number = self.current.number().saturating_add(1);
        let path = generation_path(&self.options.folder, number);
        // The clock of access goes on, moved up when it is past its half so that it never ends.
        let now = now_minute();
        let epoch = self.current.epoch_minute().max(now.saturating_sub(ACCESS_MINUTE_MAX / 2));
        let slots = slots.max(self.options.slots_min);
        let made =
            Generation::create(&path, (number, slots, epoch), self.options.store_id, self.boot_id)
                .map_err(|source| IndexError::Create { path, source })?;
        self.next = Some(Next { generation: Arc::new(made), bucket: 0 });
        Ok(())
    }

    /// Copies the entries of the next `buckets` buckets (16 slots each) to the new generation;
    /// `true` when there are no more. Call it between groups: 1,000 buckets take about a
    /// millisecond.
    pub fn carry_over(&mut self, buckets: u64) -> bool {
        let Some(next) = &mut self.next else { return true };
        let end = next.bucket.saturating_add(buckets).min(self.current.buckets());
        for number in next.bucket as usize * BUCKET_SLOTS..end as usize * BUCKET_SLOTS {
            if let Some((key, value)) = self.current.entry(number) {
                next.generation.put(&key, &value, Some(self.current.access(number)));
            }
        }
        next.bucket = end;
        end == self.current.buckets()
    }

    /// Swaps the new generation in and removes the old file; without effect when none was begun.
    /// If the old one was complete and all of it was carried over, the new one is, too; else
    /// [`Index::may_miss`] holds until the catalog has been put again and [`IndexWriter::rebuilt`]
    /// was called.
    pub fn finish_generation(&mut self) {
        let Some(next) = self.next.take() else { return };
        let is_all = next.bucket == self.current.buckets() && !self.current.may_miss();
        if is_all {
            next.generation.complete();
        }
        next.generation.set_applied(self.current.applied());
        self.uses_from = 0;
        let old = std::mem::replace(&mut self.current, next.generation.clone());
        self.index.replace(next.generation);
        old.remove_file();
    }

    /// Puts the next `bytes` of a table that was filled in memory into its file: of the new
    /// generation, or of the one in use when none is begun. `true` when all is there, or never will
    /// be: then it goes on in memory, and the next start fills a new one. A MiB takes about a
    /// millisecond.
    pub fn share(&mut self, bytes: usize) -> bool {
        let table = self.next.as_ref().map_or(&self.current, |next| &next.generation);
        if self.is_unsharable == Some(table.number()) {
            return true;
        }
        table.share(bytes).unwrap_or_else(|error| {
            let folder = self.options.folder.display();
            tracing::error!(%folder, %error, "the index was not put into its file");
            self.is_unsharable = Some(table.number());
            true
        })
    }

    /// Puts into the file what [`Index::touch`] noted in memory since the last time, `pages` of 4
    /// KiB at most; `true` when that was all. What is not written is lost when the process is
    /// killed; [`IndexWriter::close`] writes the rest. 64 pages take less than a millisecond where
    /// the disk is not in the way.
    pub fn write_uses(&mut self, pages: usize) -> bool {
        let next = self.current.write_uses(self.uses_from, pages).unwrap_or_else(|error| {
            let folder = self.options.folder.display();
            tracing::warn!(%folder, %error, "uses were not noted in the index's file");
            None
        });
        self.uses_from = next.unwrap_or(0);
        next.is_none()
    }

    /// Drops a generation that was begun and not finished.
    pub fn abandon(&mut self) {
        if let Some(next) = self.next.take() {
            next.generation.remove_file();
        }
    }

    /// Ends writing: everything goes to disk and is marked as closed, so that the next process
    /// trusts it. Readers may go on.
    ///
    /// # Errors
    /// The disk failed; the next start rebuilds.
    pub fn close(mut self) -> Result<(), IndexError> {
        self.abandon();
        let table = self.current.close();
        let ring = self.index.ring().map_or(Ok(()), super::small::Small::close);
        let path = self.options.folder.clone();
        table.and(ring).map_err(|source| IndexError::Close { path, source })
    }

    fn put(&mut self, key: &Key, value: &Value) {
        let number = self.current.put(key, value, None);
        if let Some(next) = &self.next {
            let access = number.map(|number| self.current.access(number));
            next.generation.put(key, value, access);
        }
    }

    fn remove(&mut self, key: &Key) {
        for generation in self.generations() {
            generation.remove(key);
        }
    }

    fn generations(&self) -> impl Iterator<Item = &Arc<Generation>> {
        std::iter::once(&self.current).chain(self.next.iter().map(|next| &next.generation))
    }

    fn small_line(&self, key: &Key) -> Option<u32> {
        match self.current.look_up(key) {
            Lookup::Hit((_, Value::Blob { small, .. })) => small,
            _ => None,
        }
    }

    fn is_kept(&self, small: Option<u32>, key: &Key) -> bool {
        let mut copy = Vec::new();
        match (small, self.index.ring()) {
            (Some(line), Some(ring)) => ring.copy(line, key, &mut copy),
            _ => false,
        }
    }
}

fn blob_value(entry: &BlobEntry, small: Option<u32>) -> Value {
    let BlobEntry { size, pool, owner, is_hosted, keeping } = *entry;
    Value::Blob { size, pool, owner, is_hosted, keeping, small }
}
