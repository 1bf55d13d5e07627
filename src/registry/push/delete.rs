//! Deleting tags and manifests. What nobody needs any more, gc frees.

use super::PushError;
use super::limits::may_go;
use crate::catalog::{CatalogError, Condition, LinkRecord, ReferrerRecord, TagRecord, Write};
use crate::limits::MANIFEST_BYTES_MAX;
use crate::oci::{Digest, Manifest, Reference, Scope, Tag};
use crate::registry::state::{Registry, Shared};

/// How often a delete begins again when the manifest got another tag in between.
const TRIES_MAX: usize = 8;

impl Registry {
    /// Deletes a tag, or a manifest with all tags that are bound to it. When this returns, that is
    /// durable, and no worker finds it any more. Manifests that name it, or that it names, stay.
    ///
    /// # Errors
    /// [`PushError::ManifestUnknown`]; [`PushError::Denied`] of tags that stay; or the catalog
    /// failed.
    pub async fn delete_manifest(
        &self,
        scope: &Scope,
        reference: &Reference,
    ) -> Result<(), PushError> {
        match reference {
            Reference::Tag(tag) => delete_tag(self.shared(), scope, tag).await,
            Reference::Digest(digest) => delete_digest(self.shared(), scope, digest).await,
        }
    }
}

async fn delete_tag(shared: &Shared, scope: &Scope, tag: &Tag) -> Result<(), PushError> {
    let Some(record) = shared.catalog.find_tag(scope, tag).await? else {
        return Err(PushError::ManifestUnknown(format!("{scope} has no tag {tag}")));
    };
    let rule = shared.rules.of(&scope.repository);
    may_go(&rule, scope, std::slice::from_ref(tag))?;
    shared.catalog.write(vec![Write::RemoveTag(record)], true).await?;
    Ok(())
}

async fn delete_digest(shared: &Shared, scope: &Scope, digest: &Digest) -> Result<(), PushError> {
    let mut tries = 1;
    loop {
        let since = shared.catalog.moment();
        let link = shared.catalog.find_link(scope, digest).await?;
        let Some(link) = link.filter(|link| link.media_type.is_some()) else {
            return Err(PushError::ManifestUnknown(format!("{scope} has no manifest {digest}")));
        };
        let tags = shared.catalog.find_tags_to(scope, digest).await?;
        may_go(&shared.rules.of(&scope.repository), scope, &tags)?;
        let writes = removal(shared, &link, &tags).await?;
        let condition = Condition::TagsAre { scope: scope.clone(), digest: *digest, tags };
        match shared.catalog.write_if(since, vec![condition], writes).await {
            // A push has bound another one, which would lead nowhere.
            Err(CatalogError::Unmet(_)) if tries < TRIES_MAX => tries += 1,
            Err(CatalogError::Unmet(unmet)) => {
                return Err(PushError::Busy(format!("{unmet}; nothing was deleted")));
            }
            outcome => return outcome.map(drop).map_err(PushError::from),
        }
    }
}

/// All that a manifest is known by.
async fn removal(
    shared: &Shared,
    link: &LinkRecord,
    tags: &[Tag],
) -> Result<Vec<Write>, PushError> {
    let LinkRecord { scope, digest, .. } = link;
    let untagged = tags.iter().map(|tag| {
        let (scope, tag) = (scope.clone(), tag.clone());
        Write::RemoveTag(TagRecord { scope, tag, digest: *digest, checked_at: 0 })
    });
    let mut writes: Vec<Write> = untagged.collect();
    if let Some(subject) = subject(shared, link).await? {
        let key = ReferrerRecord::key(scope.clone(), subject, *digest);
        writes.push(Write::RemoveReferrer(key));
    }
    writes.push(Write::RemoveLink(link.clone()));
    Ok(writes)
}

/// What a stored manifest refers to. One that cannot be read can be deleted all the same: without
/// its link it is listed nowhere.
async fn subject(shared: &Shared, link: &LinkRecord) -> Result<Option<Digest>, PushError> {
    let LinkRecord { scope, digest, media_type, .. } = link;
    let (Some(record), Some(media_type)) = (shared.catalog.find_blob(digest).await?, media_type)
    else {
        return Ok(None);
    };
    if record.size > MANIFEST_BYTES_MAX as u64 {
        return Ok(None);
    }
    let read = shared.store.read_small(record.pool, digest, record.size).await;
    let bytes = match read {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        Err(error) => {
            tracing::warn!(%scope, %digest, %error, "deleted without having been read");
            return Ok(None);
        }
    };
    let manifest = Manifest::check(&bytes, media_type).ok();
    Ok(manifest.and_then(|manifest| manifest.subject).map(|subject| subject.digest))
}
