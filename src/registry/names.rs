//! Looking names up: in the index, and in the catalog when a miss there proves nothing.
//!
//! Of what is ours a miss never proves anything: damage can look like one, and nobody else could be
//! asked. Of what can be fetched again the catalog's failure is a miss.

use std::sync::Arc;

use super::PullError;
use super::state::Shared;
use crate::catalog::{BlobAt, CatalogError};
use crate::index::{BlobEntry, LinkEntry, Lookup, TagEntry};
use crate::oci::{Digest, Scope, Tag};

/// The record that an entry was made of.
pub(super) fn blob_at(digest: &Digest, entry: &BlobEntry) -> BlobAt {
    let BlobEntry { size, pool, is_hosted, .. } = *entry;
    BlobAt { digest: *digest, size, pool, is_hosted }
}

impl Shared {
    /// Stored content, whoever linked it; asked for by somebody in `scope`.
    pub(super) async fn find_blob(
        &self,
        scope: &Scope,
        digest: &Digest,
    ) -> Result<Option<BlobEntry>, PullError> {
        self.confirm_blob(scope, digest, self.index.blob(digest)).await
    }

    /// The same of what the index has just said.
    pub(super) async fn confirm_blob(
        &self,
        scope: &Scope,
        digest: &Digest,
        found: Lookup<BlobEntry>,
    ) -> Result<Option<BlobEntry>, PullError> {
        let in_catalog = self.blob_in_catalog(digest);
        let found = self.in_catalog_if_unsure(scope, found, in_catalog).await?;
        let Some(entry) = found else { return Ok(None) };
        match self.store.pool(entry.pool) {
            Ok(_) => Ok(Some(entry)),
            // In a missing pool: cached content is as good as not there, and fetched again; of
            // hosted content nobody must be told that it does not exist.
            Err(_) if !entry.is_hosted => Ok(None),
            Err(error) => Err(PullError::Busy(format!("{digest} cannot be read: {error}"))),
        }
    }

    async fn blob_in_catalog(&self, digest: &Digest) -> Result<Option<BlobEntry>, CatalogError> {
        let found = self.catalog.find_blob(digest).await?;
        Ok(found.map(|record| BlobEntry {
            size: record.size,
            pool: record.pool,
            owner: record.owner,
            is_hosted: record.is_hosted,
            keeping: record.keeping,
        }))
    }

    /// The link from a repository to content.
    pub(super) async fn find_link(
        &self,
        scope: &Scope,
        digest: &Digest,
    ) -> Result<Option<LinkEntry>, PullError> {
        let found = self.index.link(scope, digest);
        let in_catalog = async {
            let found = self.catalog.find_link(scope, digest).await?;
            Ok(found.map(|record| LinkEntry {
                media_type: record.media_type.map(Arc::from),
                linked_at: record.linked_at,
            }))
        };
        self.in_catalog_if_unsure(scope, found, in_catalog).await
    }

    /// What a tag is bound to.
    pub(super) async fn find_tag(
        &self,
        scope: &Scope,
        tag: &Tag,
    ) -> Result<Option<TagEntry>, PullError> {
        let found = self.index.tag(scope, tag);
        let in_catalog = async {
            let found = self.catalog.find_tag(scope, tag).await?;
            Ok(found
                .map(|record| TagEntry { digest: record.digest, checked_at: record.checked_at }))
        };
        self.in_catalog_if_unsure(scope, found, in_catalog).await
    }

    async fn in_catalog_if_unsure<T>(
        &self,
        scope: &Scope,
        found: Lookup<T>,
        in_catalog: impl Future<Output = Result<Option<T>, CatalogError>>,
    ) -> Result<Option<T>, PullError> {
        let is_hosted = scope.upstream.is_none();
        match found {
            Lookup::Hit(entry) => return Ok(Some(entry)),
            Lookup::Miss if !is_hosted => return Ok(None),
            Lookup::Miss | Lookup::Unsure => {}
        }
        match in_catalog.await {
            Err(error) if !is_hosted => {
                tracing::warn!(%scope, %error, "the catalog cannot be asked; the upstream is");
                Ok(None)
            }
            other => Ok(other?),
        }
    }
}
