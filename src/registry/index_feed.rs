//! What keeps the index in step with the catalog: told of every write, on the catalog's thread.

use std::sync::Arc;

use crate::catalog::{Subscriber, Write};
use crate::index::{BlobEntry, IndexWriter, LinkEntry, TagEntry};

/// Turns writes of the catalog into entries of the index.
pub struct IndexFeed {
    writer: IndexWriter,
}

impl IndexFeed {
    /// Feeds this index.
    pub fn new(writer: IndexWriter) -> Self {
        Self { writer }
    }
}

impl Subscriber for IndexFeed {
    fn applied(&mut self, write: &Write) {
        let writer = &mut self.writer;
        match write {
            Write::PutBlob { record, .. } => {
                let entry =
                    BlobEntry { size: record.size, pool: record.pool, is_hosted: record.is_hosted };
                writer.put_blob(&record.digest, &entry);
            }
            Write::RemoveBlob(digest) => writer.remove_blob(digest),
            Write::Synced(_) => {}
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

    fn rebuilt(&mut self) {
        self.writer.rebuilt();
    }

    fn wants_rebuild(&mut self) -> bool {
        false
    }

    fn closed(&mut self) {}
}
