//! Pulling a manifest by tag or digest.

use super::commit::ManifestContent;
use super::fetch_manifest::Fetched;
use super::freshness::{self, State};
use super::state::Registry;
use super::{Content, Freshness, Pull, PullError};
use crate::index::TagEntry;
use crate::oci::{Digest, Reference, Scope, Tag};
use crate::runtime::clock;
use crate::telemetry::CacheResult;

impl Registry {
    /// Finds a manifest of one repository. A digest is never revalidated; a tag is, once it is
    /// older than `freshness` allows.
    ///
    /// # Errors
    /// As [`PullError`] says; an upstream's failure only when nothing may be served stale.
    pub async fn pull_manifest(
        &self,
        scope: &Scope,
        reference: &Reference,
        freshness: Freshness,
    ) -> Result<Pull, PullError> {
        match reference {
            Reference::Digest(digest) => self.manifest_by_digest(scope, digest).await,
            Reference::Tag(tag) => self.manifest_by_tag(scope, tag, freshness).await,
        }
    }

    async fn manifest_by_digest(&self, scope: &Scope, digest: &Digest) -> Result<Pull, PullError> {
        if let Some(linked_at) = self.linked_manifest(scope, digest) {
            let age = clock::unix_seconds().saturating_sub(linked_at);
            if let Some(pull) = self.stored_manifest(scope, digest, CacheResult::Hit, age).await? {
                return Ok(pull);
            }
        }
        match self.fetch_manifest(scope, Reference::Digest(*digest)).await? {
            Fetched::New(content) => Ok(arrived(content)),
            Fetched::Confirmed(_) => Err(PullError::Internal(format!(
                "{scope}@{digest}: a digest was revalidated, which never happens"
            ))),
        }
    }

    async fn manifest_by_tag(
        &self,
        scope: &Scope,
        tag: &Tag,
        bounds: Freshness,
    ) -> Result<Pull, PullError> {
        let now = clock::unix_seconds();
        let known = self.shared().index.tag(scope, tag);
        if let Some(entry) = known {
            match bounds.state(&entry, now) {
                State::Fresh => {
                    let age = freshness::age(&entry, now);
                    let digest = &entry.digest;
                    if let Some(pull) =
                        self.stored_manifest(scope, digest, CacheResult::Hit, age).await?
                    {
                        return Ok(pull);
                    }
                }
                State::Resting if bounds.allows_stale(&entry, now) => {
                    let why = "the upstream failed a moment ago";
                    if let Some(pull) = self.stale_manifest(scope, tag, &entry, why).await? {
                        return Ok(pull);
                    }
                }
                State::Resting | State::Due => {}
            }
        }
        let error = match self.fetch_manifest(scope, Reference::Tag(tag.clone())).await {
            Ok(Fetched::New(content)) => return Ok(arrived(content)),
            Ok(Fetched::Confirmed(entry)) => {
                let confirmed = CacheResult::Revalidated;
                let pull = self.stored_manifest(scope, &entry.digest, confirmed, 0).await?;
                return pull.ok_or_else(|| {
                    PullError::Storage(format!("{scope}:{tag} vanished from the store; try again"))
                });
            }
            Err(error) => error,
        };
        if let Some(entry) = known.filter(|_| error.is_upstream_failure())
            && bounds.allows_stale(&entry, now)
            && let Some(pull) = self.stale_manifest(scope, tag, &entry, &error.to_string()).await?
        {
            return Ok(pull);
        }
        Err(error)
    }

    /// When this content was linked here as a manifest; `None` if never (or only as a blob).
    fn linked_manifest(&self, scope: &Scope, digest: &Digest) -> Option<u64> {
        let link = self.shared().index.link(scope, digest)?;
        link.media_type.map(|_| link.linked_at)
    }

    async fn stored_manifest(
        &self,
        scope: &Scope,
        digest: &Digest,
        cache: CacheResult,
        age: u64,
    ) -> Result<Option<Pull>, PullError> {
        let Some(link) = self.shared().index.link(scope, digest) else { return Ok(None) };
        let Some(media_type) = link.media_type else { return Ok(None) };
        let Some(blob) = self.open_stored(digest).await? else { return Ok(None) };
        Ok(Some(Pull {
            digest: *digest,
            media_type: Some(media_type),
            size: blob.size,
            content: Content::Stored(blob),
            cache,
            age,
            warning: None,
        }))
    }

    async fn stale_manifest(
        &self,
        scope: &Scope,
        tag: &Tag,
        entry: &TagEntry,
        why: &str,
    ) -> Result<Option<Pull>, PullError> {
        let age = freshness::age(entry, clock::unix_seconds());
        let pull = self.stored_manifest(scope, &entry.digest, CacheResult::Stale, age).await?;
        Ok(pull.map(|pull| {
            tracing::debug!(%scope, %tag, age, why, "served stale");
            // The client is told that it is stale and for how long, not our upstream's details.
            let warning = format!("{tag} was last confirmed {age} s ago; its registry fails");
            Pull { warning: Some(warning), ..pull }
        }))
    }
}

fn arrived(content: ManifestContent) -> Pull {
    let ManifestContent { digest, media_type, bytes } = content;
    Pull {
        digest,
        media_type: Some(media_type),
        size: bytes.len() as u64,
        content: Content::Memory(bytes),
        cache: CacheResult::Miss,
        age: 0,
        warning: None,
    }
}
