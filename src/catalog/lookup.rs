//! Asking the catalog itself, when the index cannot answer: while it is being rebuilt, and for
//! what does not fit into it. On the blocking pool, because redb reads files.

use redb::ReadableDatabase;

use super::hosted::{TOMBSTONES, UPLOADS};
use super::record::{BLOBS, LINKS, TAGS};
use super::{
    BlobRecord, Catalog, CatalogError, LinkRecord, TagRecord, TombstoneRecord, UploadId,
    UploadRecord, failed,
};
use crate::oci::{Digest, Reference, Scope, Tag};
use crate::runtime::blocking;

impl Catalog {
    /// Whether this content is in the store.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn find_blob(&self, digest: &Digest) -> Result<Option<BlobRecord>, CatalogError> {
        let (shared, digest) = (self.shared.clone(), digest.to_string());
        read(move || {
            let database = shared.database().ok_or(CatalogError::Closed)?;
            let transaction = database.begin_read().map_err(failed)?;
            let table = transaction.open_table(BLOBS).map_err(failed)?;
            let found = table.get(digest.as_str()).map_err(failed)?;
            found.map(|value| BlobRecord::read(&digest, value.value())).transpose()
        })
        .await
    }

    /// The link from a repository to this content.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn find_link(
        &self,
        scope: &Scope,
        digest: &Digest,
    ) -> Result<Option<LinkRecord>, CatalogError> {
        let (shared, scope, digest) = (self.shared.clone(), scope.clone(), digest.to_string());
        read(move || {
            let database = shared.database().ok_or(CatalogError::Closed)?;
            let transaction = database.begin_read().map_err(failed)?;
            let table = transaction.open_table(LINKS).map_err(failed)?;
            let key = (scope.upstream_str(), scope.repository.as_str(), digest.as_str());
            let found = table.get(key).map_err(failed)?;
            found.map(|value| LinkRecord::read(key, value.value())).transpose()
        })
        .await
    }

    /// What a tag is bound to.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn find_tag(
        &self,
        scope: &Scope,
        tag: &Tag,
    ) -> Result<Option<TagRecord>, CatalogError> {
        let (shared, scope, tag) = (self.shared.clone(), scope.clone(), tag.clone());
        read(move || {
            let database = shared.database().ok_or(CatalogError::Closed)?;
            let transaction = database.begin_read().map_err(failed)?;
            let table = transaction.open_table(TAGS).map_err(failed)?;
            let key = (scope.upstream_str(), scope.repository.as_str(), tag.as_str());
            let found = table.get(key).map_err(failed)?;
            found.map(|value| TagRecord::read(key, value.value())).transpose()
        })
        .await
    }

    /// An upload under way.
    ///
    /// # Errors
    /// The database or the record cannot be read.
    pub async fn find_upload(&self, id: &UploadId) -> Result<Option<UploadRecord>, CatalogError> {
        let (shared, id) = (self.shared.clone(), id.to_string());
        read(move || {
            let database = shared.database().ok_or(CatalogError::Closed)?;
            let transaction = database.begin_read().map_err(failed)?;
            let table = transaction.open_table(UPLOADS).map_err(failed)?;
            let found = table.get(id.as_str()).map_err(failed)?;
            found.map(|value| UploadRecord::read(&id, value.value())).transpose()
        })
        .await
    }

    /// Whether this name was there, was deleted within the last
    /// [`TOMBSTONE_SECONDS`](super::TOMBSTONE_SECONDS), and has not been put again.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn find_tombstone(
        &self,
        scope: &Scope,
        name: &Reference,
    ) -> Result<Option<TombstoneRecord>, CatalogError> {
        let (shared, scope, name) = (self.shared.clone(), scope.clone(), name.to_string());
        read(move || {
            let database = shared.database().ok_or(CatalogError::Closed)?;
            let transaction = database.begin_read().map_err(failed)?;
            let table = transaction.open_table(TOMBSTONES).map_err(failed)?;
            let key = (scope.upstream_str(), scope.repository.as_str(), name.as_str());
            let found = table.get(key).map_err(failed)?;
            found.map(|value| TombstoneRecord::read(key, value.value())).transpose()
        })
        .await
    }
}

async fn read<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, CatalogError> {
    blocking(call).await.unwrap_or_else(|error| Err(failed(error)))
}
