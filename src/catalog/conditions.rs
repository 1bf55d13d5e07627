//! What a batch of writes may ask for: judged in the transaction that applies it, so that nothing
//! can change in between. And what this needs to know of hosted tags.

use redb::{ReadableTable, Table, TableDefinition};

use super::hosted::ReferrerKey;
use super::record::{ScopedKey, TagRecord, damaged};
use super::{Catalog, CatalogError, failed};
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
}

/// The tables that conditions are judged by.
pub(super) struct Judging<'a, 't> {
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
                    let is_same =
                        found.len() == tags.len() && found.iter().all(|t| tags.contains(t));
                    (!is_same).then(|| Unmet::TagsAre { scope: scope.clone(), digest: *digest })
                }
                Condition::TagStays { scope, tag, digest } => self.moved(scope, tag, digest)?,
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
