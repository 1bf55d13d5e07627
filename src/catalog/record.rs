//! The records of the catalog and their form in redb.

use redb::TableDefinition;

use super::CatalogError;
use crate::keeping::Keeping;
use crate::oci::{Digest, Namespace, RepositoryName, Scope, Tag};

pub(super) type ScopedKey = (&'static str, &'static str, &'static str);

/// (size in bytes, pool, flags: [`HOSTED`], [`PINNED`], owner, priority, expires at: Unix seconds or 0).
pub(super) type BlobValue = (u64, u8, u8, u16, i8, u64);

/// digest → content.
pub(super) const BLOBS: TableDefinition<'_, &str, BlobValue> = TableDefinition::new("blobs.v3");

/// (upstream or "", repository, tag) → (digest, checked at), in Unix seconds.
pub(super) const TAGS: TableDefinition<'_, ScopedKey, (&str, u64)> =
    TableDefinition::new("tags.v2");

/// (upstream or "", repository, digest) → (media type or "", linked at), in Unix seconds.
pub(super) const LINKS: TableDefinition<'_, ScopedKey, (&str, u64)> =
    TableDefinition::new("links.v2");

/// digest → the commit that put it: cached content whose bytes may not be on the disk yet.
pub(super) const UNSYNCED: TableDefinition<'_, &str, u64> = TableDefinition::new("unsynced.v2");

/// digest → (): content that was unsynced at a power cut, until it has been checked.
pub(super) const SUSPECTS: TableDefinition<'_, &str, ()> = TableDefinition::new("suspects.v1");

/// Facts about the store as a whole.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta.v1");

pub(super) const HOSTED: u8 = 1;
pub(super) const PINNED: u8 = 1 << 1;

/// The owner of content that no upstream is known to have brought.
pub const NO_OWNER: u16 = 0;

/// Content that is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRecord {
    /// Which.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The pool that holds its file.
    pub pool: u8,
    /// Whether it is ours: durable, and never evicted.
    pub is_hosted: bool,
    /// Whose download brought it, as numbered by
    /// [`Unstarted::number_owners`](super::Unstarted::number_owners); [`NO_OWNER`] for hosted
    /// content and for what is older than the numbers.
    pub owner: u16,
    /// On which terms it is kept if it isn't hosted.
    pub keeping: Keeping,
}

/// Which record of content is meant: not one that has taken its place, is in another pool, or has
/// become hosted since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobAt {
    /// Which content.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The pool that holds its file.
    pub pool: u8,
    /// Whether it is ours.
    pub is_hosted: bool,
}

/// A tag and what it is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRecord {
    /// The repository.
    pub scope: Scope,
    /// The tag.
    pub tag: Tag,
    /// The manifest.
    pub digest: Digest,
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
    /// When the link was made, Unix seconds.
    pub linked_at: u64,
}

impl BlobRecord {
    /// What it is known by when it is to be removed or changed.
    pub fn at(&self) -> BlobAt {
        let Self { digest, size, pool, is_hosted, .. } = *self;
        BlobAt { digest, size, pool, is_hosted }
    }

    pub(super) fn read(
        key: &str,
        (size, pool, flags, owner, priority, expires_at): BlobValue,
    ) -> Result<Self, CatalogError> {
        let damaged = |cause| CatalogError::Record { key: format!("blob {key}"), cause };
        let digest = Digest::parse(key).map_err(|e| damaged(e.to_string()))?;
        let keeping = Keeping {
            is_pinned: flags & PINNED != 0,
            priority,
            expires_at: (expires_at > 0).then_some(expires_at),
        };
        Ok(Self { digest, size, pool, is_hosted: flags & HOSTED != 0, owner, keeping })
    }

    pub(super) fn value(&self) -> BlobValue {
        let Keeping { is_pinned, priority, expires_at } = self.keeping;
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let flags = flag(self.is_hosted, HOSTED) | flag(is_pinned, PINNED);
        let expires_at = expires_at.map_or(0, |at| at.max(1));
        (self.size, self.pool, flags, self.owner, priority, expires_at)
    }
}

impl TagRecord {
    pub(super) fn read(key: (&str, &str, &str), value: (&str, u64)) -> Result<Self, CatalogError> {
        let damaged = |cause: String| damaged("tag", key, cause);
        Ok(Self {
            scope: scope(key.0, key.1).map_err(damaged)?,
            tag: Tag::parse(key.2).map_err(|e| damaged(e.to_string()))?,
            digest: Digest::parse(value.0).map_err(|e| damaged(e.to_string()))?,
            checked_at: value.1,
        })
    }
}

impl LinkRecord {
    pub(super) fn read(key: (&str, &str, &str), value: (&str, u64)) -> Result<Self, CatalogError> {
        let damaged = |cause: String| damaged("link", key, cause);
        Ok(Self {
            scope: scope(key.0, key.1).map_err(damaged)?,
            digest: Digest::parse(key.2).map_err(|e| damaged(e.to_string()))?,
            media_type: (!value.0.is_empty()).then(|| value.0.to_owned()),
            linked_at: value.1,
        })
    }
}

pub(super) fn scope(upstream: &str, repository: &str) -> Result<Scope, String> {
    let upstream = match upstream {
        "" => None,
        text => Some(Namespace::from_stored(text).map_err(|e| e.to_string())?),
    };
    let repository = RepositoryName::parse(repository).map_err(|e| e.to_string())?;
    Ok(Scope { upstream, repository })
}

pub(super) fn damaged(kind: &str, key: (&str, &str, &str), cause: String) -> CatalogError {
    CatalogError::Record { key: format!("{kind} {}/{}@{}", key.0, key.1, key.2), cause }
}
