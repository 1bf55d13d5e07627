//! What a batch of writes may ask for: judged in the transaction that applies it, so that nothing
//! can change in between. And what this needs to know of hosted tags.

use std::collections::HashSet;

use redb::{ReadableTable, Table, TableDefinition};

use super::hosted::ReferrerKey;
use super::record::{BlobValue, ScopedKey, TagRecord, damaged};
use super::usage::Accounts;
use super::{Catalog, CatalogError, Write, failed};
use crate::oci::{Digest, Scope, Tag};
use crate::runtime::blocking;

/// ("", repository, digest, tag): which hosted tags are bound to some content. It follows the table
/// of tags in the same transactions.
pub(super) const TAGGED: TableDefinition<'_, ReferrerKey, ()> = TableDefinition::new("tagged.v1");

/// Sorts behind every tag.
const BEHIND_ALL: &str = "\u{7f}";

/// Without this nothing of a batch is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The tags bound to this content are these and no others.
    TagsAre {
        /// The hosted repository.
        scope: Scope,
        /// The content.
        digest: Digest,
        /// In any order.
        tags: Vec<Tag>,
    },
    /// This tag is bound to nothing, or to this content already.
    TagStays {
        /// The hosted repository.
        scope: Scope,
        /// The tag.
        tag: Tag,
        /// The content.
        digest: Digest,
    },
    /// With the batch the repository holds no more than this, or the batch adds nothing to it.
    Within {
        /// The hosted repository.
        scope: Scope,
        /// Most tags; `None` for no limit.
        tags_max: Option<u64>,
        /// Most bytes, as [`Usage`](super::Usage) counts them; `None` for no limit.
        bytes_max: Option<u64>,
    },
}

/// Which condition did not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unmet {
    /// Other tags are bound to the content.
    #[error("the tags of {digest} in {scope} have changed meanwhile")]
    TagsAre {
        /// The hosted repository.
        scope: Scope,
        /// The content.
        digest: Digest,
    },
    /// The tag is bound to something else.
    #[error("tag {tag} of {scope} is bound to {bound} already")]
    TagStays {
        /// The hosted repository.
        scope: Scope,
        /// The tag.
        tag: Tag,
        /// What it is bound to.
        bound: Digest,
    },
    /// The repository would hold more tags than it may.
    #[error("{scope} may hold {max} tags, and would hold {tags}")]
    Tags {
        /// The hosted repository.
        scope: Scope,
        /// How many it would hold.
        tags: u64,
        /// How many it may.
        max: u64,
    },
    /// The repository would hold more bytes than it may.
    #[error("{scope} may hold {max} bytes, and would hold {bytes}")]
    Bytes {
        /// The hosted repository.
        scope: Scope,
        /// How many it would hold.
        bytes: u64,
        /// How many it may.
        max: u64,
    },
}

/// What conditions are judged by: the tables, and what is about to be written.
pub(super) struct Judging<'a, 't> {
    pub(super) blobs: &'a Table<'t, &'static str, BlobValue>,
    pub(super) accounts: &'a Accounts<'t>,
    pub(super) writes: &'a [Write],
    pub(super) tags: &'a Table<'t, ScopedKey, (&'static str, u64)>,
    pub(super) tagged: &'a Table<'t, ReferrerKey, ()>,
}

impl Judging<'_, '_> {
    /// The first condition that does not hold.
    pub(super) fn first_unmet(
        &self,
        conditions: &[Condition],
    ) -> Result<Option<Unmet>, CatalogError> {
        for condition in conditions {
            let unmet = match condition {
                Condition::TagsAre { scope, digest, tags } => {
                    let found = bound_tags(self.tagged, scope, digest)?;
                    // There may be as many as a client likes to bind.
                    let expected: HashSet<&Tag> = tags.iter().collect();
                    let is_same =
                        found.len() == tags.len() && found.iter().all(|t| expected.contains(t));
                    (!is_same).then(|| Unmet::TagsAre { scope: scope.clone(), digest: *digest })
                }
                Condition::TagStays { scope, tag, digest } => self.moved(scope, tag, digest)?,
                Condition::Within { scope, tags_max, bytes_max } => {
                    self.over(scope, *tags_max, *bytes_max)?
                }
            };
            if unmet.is_some() {
                return Ok(unmet);
            }
        }
        Ok(None)
    }

    fn moved(
        &self,
        scope: &Scope,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<Option<Unmet>, CatalogError> {
        let key = (scope.upstream_str(), scope.repository.as_str(), tag.as_str());
        let Some(found) = self.tags.get(key).map_err(failed)? else { return Ok(None) };
        let bound = TagRecord::read(key, found.value())?.digest;
        let unmet = || Unmet::TagStays { scope: scope.clone(), tag: tag.clone(), bound };
        Ok((bound != *digest).then(unmet))
    }
}

impl Judging<'_, '_> {
    /// What a repository would hold too much of with this batch.
    fn over(
        &self,
        scope: &Scope,
        tags_max: Option<u64>,
        bytes_max: Option<u64>,
    ) -> Result<Option<Unmet>, CatalogError> {
        let usage = self.accounts.of(scope.repository.as_str())?;
        let (mut tags, mut bytes) = (usage.tags, usage.bytes);
        let mut counted = HashSet::new();
        for write in self.writes {
            match write {
                Write::PutTag(record) if record.scope == *scope => {
                    let key =
                        (scope.upstream_str(), scope.repository.as_str(), record.tag.as_str());
                    let is_new = self.tags.get(key).map_err(failed)?.is_none();
                    tags += u64::from(is_new && counted.insert(record.tag.to_string()));
                }
                Write::PutLink(record) if record.scope == *scope => {
                    let digest = record.digest.to_string();
                    let is_new = !self.accounts.counts(scope.repository.as_str(), &digest)?;
                    if is_new && counted.insert(digest) {
                        bytes = bytes.saturating_add(self.size(&record.digest)?);
                    }
                }
                _ => {}
            }
        }
        if let Some(max) = tags_max.filter(|max| tags > *max && tags > usage.tags) {
            return Ok(Some(Unmet::Tags { scope: scope.clone(), tags, max }));
        }
        let max = bytes_max.filter(|max| bytes > *max && bytes > usage.bytes);
        Ok(max.map(|max| Unmet::Bytes { scope: scope.clone(), bytes, max }))
    }

    /// The size of content that this batch puts, or that is here.
    fn size(&self, digest: &Digest) -> Result<u64, CatalogError> {
        let put = self.writes.iter().find_map(|write| match write {
            Write::PutBlob { record, .. } if record.digest == *digest => Some(record.size),
            _ => None,
        });
        if let Some(size) = put {
            return Ok(size);
        }
        let found = self.blobs.get(digest.to_string().as_str()).map_err(failed)?;
        Ok(found.map_or(0, |value| value.value().0))
    }
}

/// Notes that a hosted tag is bound to `now`, and to `before` no more.
pub(super) fn rebind(
    tagged: &mut Table<'_, ReferrerKey, ()>,
    (upstream, repository, tag): (&str, &str, &str),
    before: Option<&str>,
    now: Option<&str>,
) -> Result<(), CatalogError> {
    if !upstream.is_empty() || before == now {
        return Ok(());
    }
    if let Some(before) = before {
        tagged.remove((upstream, repository, before, tag)).map_err(failed)?;
    }
    if let Some(now) = now {
        tagged.insert((upstream, repository, now, tag), ()).map_err(failed)?;
    }
    Ok(())
}

fn bound_tags(
    tagged: &impl ReadableTable<ReferrerKey, ()>,
    of: &Scope,
    digest: &Digest,
) -> Result<Vec<Tag>, CatalogError> {
    let (repository, digest) = (of.repository.as_str(), digest.to_string());
    let range = (of.upstream_str(), repository, digest.as_str(), "")
        ..(of.upstream_str(), repository, digest.as_str(), BEHIND_ALL);
    let mut tags = Vec::new();
    for entry in tagged.range::<(&str, &str, &str, &str)>(range).map_err(failed)? {
        let (key, _) = entry.map_err(failed)?;
        let (upstream, repository, _, tag) = key.value();
        let cause =
            |e: crate::oci::TagError| damaged("tag", (upstream, repository, tag), e.to_string());
        tags.push(Tag::parse(tag).map_err(cause)?);
    }
    Ok(tags)
}

impl Catalog {
    /// The tags of a hosted repository that are bound to this content, in the order of their
    /// bytes.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn find_tags_to(
        &self,
        scope: &Scope,
        digest: &Digest,
    ) -> Result<Vec<Tag>, CatalogError> {
        let (catalog, scope, digest) = (self.clone(), scope.clone(), *digest);
        let found = blocking(move || {
            let table = catalog.snapshot()?.open_table(TAGGED).map_err(failed)?;
            bound_tags(&table, &scope, &digest)
        });
        found.await.unwrap_or_else(|error| Err(failed(error)))
    }
}
