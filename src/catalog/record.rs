//! The records of the catalog and their form in redb.

use redb::TableDefinition;

use super::CatalogError;
use crate::oci::{Digest, Namespace, RepositoryName, Scope, Tag};

/// (upstream or "", repository, tag) → (digest, fetched at, checked at), times in Unix seconds.
pub(super) const TAGS: TableDefinition<'_, (&str, &str, &str), (&str, u64, u64)> =
    TableDefinition::new("tags.v1");

/// (upstream or "", repository, digest) → (media type or "", size in bytes, linked at).
pub(super) const LINKS: TableDefinition<'_, (&str, &str, &str), (&str, u64, u64)> =
    TableDefinition::new("links.v1");

/// A tag and what it is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRecord {
    /// The repository.
    pub scope: Scope,
    /// The tag.
    pub tag: Tag,
    /// The manifest.
    pub digest: Digest,
    /// When the binding was first fetched, Unix seconds.
    pub fetched_at: u64,
    /// When the upstream last confirmed it, Unix seconds.
    pub checked_at: u64,
}

/// Content that a repository holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkRecord {
    /// The repository.
    pub scope: Scope,
    /// The content.
    pub digest: Digest,
    /// The media type of a manifest; `None` for blobs.
    pub media_type: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// When the link was made, Unix seconds.
    pub linked_at: u64,
}

impl TagRecord {
    pub(super) fn read(
        key: (&str, &str, &str),
        value: (&str, u64, u64),
    ) -> Result<Self, CatalogError> {
        let damaged = |cause: String| damaged("tag", key, cause);
        Ok(Self {
            scope: scope(key.0, key.1).map_err(damaged)?,
            tag: Tag::parse(key.2).map_err(|e| damaged(e.to_string()))?,
            digest: Digest::parse(value.0).map_err(|e| damaged(e.to_string()))?,
            fetched_at: value.1,
            checked_at: value.2,
        })
    }
}

impl LinkRecord {
    pub(super) fn read(
        key: (&str, &str, &str),
        value: (&str, u64, u64),
    ) -> Result<Self, CatalogError> {
        let damaged = |cause: String| damaged("link", key, cause);
        Ok(Self {
            scope: scope(key.0, key.1).map_err(damaged)?,
            digest: Digest::parse(key.2).map_err(|e| damaged(e.to_string()))?,
            media_type: (!value.0.is_empty()).then(|| value.0.to_owned()),
            size: value.1,
            linked_at: value.2,
        })
    }
}

fn scope(upstream: &str, repository: &str) -> Result<Scope, String> {
    let upstream = match upstream {
        "" => None,
        text => Some(Namespace::parse(text).map_err(|e| e.to_string())?),
    };
    let repository = RepositoryName::parse(repository).map_err(|e| e.to_string())?;
    Ok(Scope { upstream, repository })
}

fn damaged(kind: &str, key: (&str, &str, &str), cause: String) -> CatalogError {
    CatalogError::Record { key: format!("{kind} {}/{}@{}", key.0, key.1, key.2), cause }
}
