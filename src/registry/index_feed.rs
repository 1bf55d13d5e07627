//! What keeps the index in step with the catalog: told of every write, on the catalog's thread.
//!
//! It also gives the index a larger table when it needs one, a little at a time between writes, and
//! asks to be told everything again when the index has lost something.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::space::{Claim, Space};
use crate::catalog::{BlobRecord, NO_OWNER, Subscriber, Tended, Write};
use crate::index::{BlobEntry, Index, IndexWriter, LinkEntry, Opened, TagEntry};
use crate::oci::Digest;
use crate::runtime::clock;
use crate::storage::ROOT_POOL;

/// Buckets that are copied at once to a larger table: about a millisecond.
const BUCKETS_AT_ONCE: u64 = 1000;
/// Bytes of a new table that are put into its file at once: about a millisecond.
const BYTES_AT_ONCE: usize = 1 << 20;
/// Pages of noted uses that are written at once: less than a millisecond, unless the disk is busy.
const USES_AT_ONCE: usize = 64;
/// How often they are: what a kill can lose of them.
const USES_INTERVAL: Duration = Duration::from_secs(60);
/// After a larger table was refused, or everything was told again, the same is not tried for as long.
const PAUSE: Duration = Duration::from_secs(60);

/// What the index that was found has to be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing: it knows all that the catalog knows.
    Nothing,
    /// The whole catalog. What it knows is true, but it may lack the last changes.
    All,
    /// The whole catalog: it is empty.
    First,
}

impl Due {
    /// Compares what an index says of itself with the number of the catalog's last commit.
    pub fn of(opened: &Opened, group: u64) -> Self {
        match opened {
            // More than the catalog knows is right after a kill: what was not durable is undone
            // there, while the mapped index has kept it. After a clean stop both stand at the same.
            Opened::Trusted { clean: false, applied } if *applied >= group => Self::Nothing,
            Opened::Trusted { clean: true, applied } if *applied == group => Self::Nothing,
            Opened::Trusted { .. } => Self::All,
            Opened::Rebuild { .. } => Self::First,
        }
    }
}

/// What is being done to the index beside single changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Nothing,
    /// The whole catalog is put into the table in use.
    Filling,
    /// The whole catalog is put into a new table, which then takes the place of the one in use.
    Replacing,
    /// The table in use is copied to a larger one.
    Growing,
    /// Both at once: the catalog goes to both.
    FillingAndGrowing,
}

/// Turns writes of the catalog into entries of the index.
pub struct IndexFeed {
    index: Arc<Index>,
    writer: Option<IndexWriter>,
    space: Arc<Space>,
    work: Work,
    group: u64,
    grow_after: Option<Instant>,
    rebuild_after: Option<Instant>,
    uses_after: Option<Instant>,
}

impl IndexFeed {
    /// Feeds this index, and keeps account of what the store holds. `group` is the catalog's last
    /// commit. With anything [`Due`], [`Catalog::rebuild`](crate::catalog::Catalog::rebuild) has to
    /// be called next.
    pub fn new(
        (index, mut writer): (Arc<Index>, IndexWriter),
        (due, group): (Due, u64),
        space: Arc<Space>,
    ) -> Self {
        account(&index, &space);
        let work = match due {
            Due::Nothing => {
                writer.rebuilt();
                // The catalog may be behind, and gives the numbers in between once more.
                writer.set_applied(group);
                Work::Nothing
            }
            Due::First => Work::Filling,
            // Beside the one in use, so that what was removed meanwhile goes with the old one.
            Due::All => {
                writer.doubt();
                match writer.begin_generation(index.counts().slots) {
                    Ok(()) => Work::Replacing,
                    Err(error) => {
                        tracing::warn!(%error, "the index is filled in place");
                        Work::Filling
                    }
                }
            }
        };
        let writer = Some(writer);
        Self {
            index,
            writer,
            space,
            work,
            group,
            grow_after: None,
            rebuild_after: None,
            uses_after: None,
        }
    }

    /// What is counted of the content under this digest.
    fn counted(&self, digest: &Digest) -> Option<Claim> {
        self.index.blob(digest).hit().as_ref().and_then(claim_of)
    }

    /// Begins a larger table, or a fresh one for what is damaged.
    fn begin_growth(&mut self) -> Tended {
        let counts = self.index.counts();
        let used = counts.blobs + counts.links + counts.tags;
        let slots = if used > counts.slots / 2 { counts.slots * 2 } else { counts.slots };
        let Some(writer) = &mut self.writer else { return Tended::Idle };
        match writer.begin_generation(slots) {
            Ok(()) => {
                tracing::info!(used, from = counts.slots, to = slots, "the index gets a new table");
                self.work = if self.work == Work::Filling {
                    Work::FillingAndGrowing
                } else {
                    Work::Growing
                };
                Tended::Busy
            }
            Err(error) => {
                tracing::error!(%error, "the index stays as it is; the catalog answers for the rest");
                self.grow_after = Some(clock::now() + PAUSE);
                Tended::Idle
            }
        }
    }

    fn grow_a_piece(&mut self) -> Tended {
        let Some(writer) = &mut self.writer else { return Tended::Idle };
        if writer.carry_over(BUCKETS_AT_ONCE) && writer.share(BYTES_AT_ONCE) {
            writer.finish_generation();
            // The file of the new table has none.
            self.uses_after = None;
            let is_filling = self.work == Work::FillingAndGrowing;
            self.work = if is_filling { Work::Filling } else { Work::Nothing };
            self.account();
        }
        Tended::Busy
    }

    /// Lets the index's file have what workers noted of uses, in rounds.
    fn write_uses(&mut self) -> Tended {
        let Some(writer) = &mut self.writer else { return Tended::Idle };
        if !is_past(self.uses_after) {
            return Tended::Idle;
        }
        if !writer.write_uses(USES_AT_ONCE) {
            return Tended::Busy;
        }
        self.uses_after = Some(clock::now() + USES_INTERVAL);
        Tended::Idle
    }

    /// What the index holds now is what counts, whatever was added up before.
    fn account(&mut self) {
        let counts = self.index.counts();
        account(&self.index, &self.space);
        tracing::info!(
            blobs = counts.blobs,
            links = counts.links,
            tags = counts.tags,
            slots = counts.slots,
            on_disk = self.index.is_on_disk(),
            "the index has its table"
        );
    }

    fn put(writer: &mut IndexWriter, write: &Write) {
        match write {
            Write::PutBlob { record, .. } => {
                writer.put_blob(&record.digest, &entry_of(record));
            }
            Write::RemoveBlob(at) => writer.remove_blob(&at.digest),
            // What the index does not answer for.
            Write::Synced { .. }
            | Write::HandToCache(_)
            // Only gc asks when a link was last in use, and it asks the catalog.
            | Write::TouchLink(_)
            | Write::PutReferrer(_)
            | Write::RemoveReferrer(_)
            | Write::PutUpload(_)
            | Write::RemoveUpload(_)
            | Write::PutList(_)
            | Write::RemoveList { .. }
            | Write::RemoveTombstone(_) => {}
            Write::PutTag(record) => {
                let entry = TagEntry { digest: record.digest, checked_at: record.checked_at };
                writer.put_tag(&record.scope, &record.tag, &entry);
            }
            Write::RemoveTag(record) => writer.remove_tag(&record.scope, &record.tag),
            Write::PutLink(record) => {
                let media_type = record.media_type.as_deref().map(Arc::from);
                let entry = LinkEntry { media_type, linked_at: record.linked_at };
                writer.put_link(&record.scope, &record.digest, &entry);
            }
            Write::RemoveLink(record) => writer.remove_link(&record.scope, &record.digest),
        }
    }
}

impl Subscriber for IndexFeed {
    fn applied(&mut self, write: &Write) {
        match write {
            Write::PutBlob { record, .. } => {
                let before = self.counted(&record.digest);
                if let Some(after) = claim_of(&entry_of(record)) {
                    self.space.add(&after);
                }
                if let Some(before) = before {
                    self.space.subtract(&before);
                }
            }
            Write::RemoveBlob(at) => {
                if let Some(before) = self.counted(&at.digest) {
                    self.space.subtract(&before);
                }
            }
            _ => {}
        }
        if let Some(writer) = &mut self.writer {
            Self::put(writer, write);
        }
    }

    fn unkept(&mut self, write: &Write) {
        let known = |digest: &Digest| self.index.blob(digest).hit();
        let is_against = match write {
            Write::PutBlob { record, .. } => {
                !record.is_hosted && known(&record.digest).is_some_and(|entry| entry.is_hosted)
            }
            Write::RemoveBlob(at) => known(&at.digest).is_none_or(|entry| {
                (entry.pool, entry.size, entry.is_hosted) != (at.pool, at.size, at.is_hosted)
            }),
            _ => false,
        };
        if !is_against {
            self.applied(write);
        }
    }

    fn group(&mut self, number: u64) {
        self.group = number;
        // Only a complete index may say so to the next process.
        if !self.index.may_miss()
            && let Some(writer) = &mut self.writer
        {
            writer.set_applied(number);
        }
    }

    fn offered(&mut self, digest: &Digest, content: &[u8]) {
        if let Some(writer) = &mut self.writer {
            writer.put_small(digest, content);
        }
    }

    fn rebuilt(&mut self) {
        let Some(writer) = &mut self.writer else { return };
        if self.work == Work::Replacing {
            writer.finish_generation();
            self.uses_after = None;
        }
        // Before the index says that it is complete: whoever sees that sees the right sums.
        self.account();
        let Some(writer) = &mut self.writer else { return };
        writer.rebuilt();
        writer.set_applied(self.group);
        let is_growing = self.work == Work::FillingAndGrowing;
        self.work = if is_growing { Work::Growing } else { Work::Nothing };
    }

    fn tend(&mut self) -> Tended {
        match self.work {
            Work::Growing | Work::FillingAndGrowing => return self.grow_a_piece(),
            Work::Replacing => return Tended::Idle,
            Work::Nothing | Work::Filling => {}
        }
        if is_past(self.grow_after) && self.writer.as_ref().is_some_and(IndexWriter::needs_growth) {
            return self.begin_growth();
        }
        if self.work == Work::Nothing && self.index.may_miss() && is_past(self.rebuild_after) {
            // Something was damaged or refused.
            self.rebuild_after = Some(clock::now() + PAUSE);
            self.work = Work::Filling;
            return Tended::Rebuild;
        }
        if self.work == Work::Nothing
            && let Some(writer) = &mut self.writer
            && !writer.share(BYTES_AT_ONCE)
        {
            return Tended::Busy;
        }
        self.write_uses()
    }

    fn closed(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        if let Err(error) = writer.close() {
            tracing::warn!(%error, "the index was not closed");
        }
    }
}

fn entry_of(record: &BlobRecord) -> BlobEntry {
    BlobEntry {
        size: record.size,
        pool: record.pool,
        owner: record.owner,
        is_hosted: record.is_hosted,
        keeping: record.keeping,
    }
}

/// What is counted of content: nothing of ours.
fn claim_of(entry: &BlobEntry) -> Option<Claim> {
    let BlobEntry { size, pool, owner, is_hosted, .. } = *entry;
    (!is_hosted).then_some(Claim { pool, owner, is_hosted, bytes: size })
}

/// What the index holds is what counts.
fn account(index: &Index, space: &Space) {
    if !space.is_divided() {
        let bytes = index.counts().cached_bytes;
        return space.set_used([Claim {
            pool: ROOT_POOL,
            owner: NO_OWNER,
            is_hosted: false,
            bytes,
        }]);
    }
    // As many as there are pools and upstreams together in use.
    let mut sums: HashMap<(u8, u16), u64> = HashMap::new();
    index.walk(0, |sample| {
        if let Some(Claim { pool, owner, bytes, .. }) = claim_of(&sample.entry) {
            let sum = sums.entry((pool, owner)).or_default();
            *sum = sum.saturating_add(bytes);
        }
        true
    });
    space.set_used(sums.into_iter().map(|((pool, owner), bytes)| Claim {
        pool,
        owner,
        is_hosted: false,
        bytes,
    }));
}

fn is_past(moment: Option<Instant>) -> bool {
    moment.is_none_or(|moment| clock::now() >= moment)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#[path = "index_feed_tests.rs"]
mod tests;
