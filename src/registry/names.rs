//! Looking names up: in the index, and in the catalog when a miss there proves nothing.

use std::sync::Arc;

use super::PullError;
use super::state::Shared;
use crate::index::{BlobEntry, LinkEntry, TagEntry};
use crate::oci::{Digest, Scope, Tag};

impl Shared {
    /// Stored content, whoever linked it.
    pub(super) async fn find_blob(&self, digest: &Digest) -> Result<Option<BlobEntry>, PullError> {
        if let Some(entry) = self.index.blob(digest) {
            return Ok(Some(entry));
        }
        if !self.index.may_miss() {
            return Ok(None);
        }
        let found = self.catalog.find_blob(digest).await?;
        Ok(found.map(|record| BlobEntry {
            size: record.size,
            pool: record.pool,
            is_hosted: record.is_hosted,
        }))
    }

    /// The link from a repository to content.
    pub(super) async fn find_link(
        &self,
        scope: &Scope,
        digest: &Digest,
    ) -> Result<Option<LinkEntry>, PullError> {
        if let Some(entry) = self.index.link(scope, digest) {
            return Ok(Some(entry));
        }
        if !self.index.may_miss() {
            return Ok(None);
        }
        let found = self.catalog.find_link(scope, digest).await?;
        Ok(found.map(|record| LinkEntry {
            media_type: record.media_type.map(Arc::from),
            linked_at: record.linked_at,
        }))
    }

    /// What a tag is bound to.
    pub(super) async fn find_tag(
        &self,
        scope: &Scope,
        tag: &Tag,
    ) -> Result<Option<TagEntry>, PullError> {
        if let Some(entry) = self.index.tag(scope, tag) {
            return Ok(Some(entry));
        }
        if !self.index.may_miss() {
            return Ok(None);
        }
        let found = self.catalog.find_tag(scope, tag).await?;
        Ok(found.map(|record| TagEntry { digest: record.digest, checked_at: record.checked_at }))
    }
}
