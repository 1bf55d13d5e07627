//! What keeps the index in step with the catalog: told of every write, on the catalog's thread.

use std::sync::Arc;

use super::space::Space;
use crate::catalog::{Subscriber, Write};
use crate::index::{BlobEntry, Index, IndexWriter, LinkEntry, TagEntry};
use crate::oci::Digest;

/// Turns writes of the catalog into entries of the index.
pub struct IndexFeed {
    index: Arc<Index>,
    writer: IndexWriter,
    space: Arc<Space>,
}

impl IndexFeed {
    /// Feeds this index, and keeps account of what the store holds.
    pub fn new(index: Arc<Index>, writer: IndexWriter, space: Arc<Space>) -> Self {
        Self { index, writer, space }
    }

    /// Bytes of cached content under this digest.
    fn cached_bytes(&self, digest: &Digest) -> u64 {
        self.index.blob(digest).filter(|entry| !entry.is_hosted).map_or(0, |entry| entry.size)
    }
}

impl Subscriber for IndexFeed {
    fn applied(&mut self, write: &Write) {
        match write {
            Write::PutBlob { record, .. } => {
                let before = self.cached_bytes(&record.digest);
                let after = if record.is_hosted { 0 } else { record.size };
                self.space.add(after);
                self.space.subtract(before);
                let entry =
                    BlobEntry { size: record.size, pool: record.pool, is_hosted: record.is_hosted };
                self.writer.put_blob(&record.digest, &entry);
            }
            Write::RemoveBlob(digest) => {
                self.space.subtract(self.cached_bytes(digest));
                self.writer.remove_blob(digest);
            }
            Write::Synced(_) => {}
            Write::PutTag(record) => {
                let entry = TagEntry { digest: record.digest, checked_at: record.checked_at };
                self.writer.put_tag(&record.scope, &record.tag, &entry);
            }
            Write::RemoveTag(record) => self.writer.remove_tag(&record.scope, &record.tag),
            Write::PutLink(record) => {
                let media_type = record.media_type.as_deref().map(Arc::from);
                let entry = LinkEntry { media_type, linked_at: record.linked_at };
                self.writer.put_link(&record.scope, &record.digest, &entry);
            }
            Write::RemoveLink(record) => self.writer.remove_link(&record.scope, &record.digest),
        }
    }

    fn rebuilt(&mut self) {
        self.writer.rebuilt();
    }

    fn wants_rebuild(&mut self) -> bool {
        false
    }

    fn closed(&mut self) {}
}
