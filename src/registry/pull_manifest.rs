//! Pulling a manifest by tag or digest.

use std::time::Duration;

use super::commit::ManifestContent;
use super::fetch_manifest::Fetched;
use super::freshness::{self, State};
use super::state::Registry;
use super::{Content, Decided, Freshness, Place, Pull, PullError};
use crate::index::{LinkEntry, TagEntry};
use crate::oci::{Digest, Reference, Scope, Tag};
use crate::runtime::{clock, timeout};
use crate::telemetry::CacheResult;

/// What becomes of a tag that its upstream can't confirm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// What is known may answer, within its bounds.
    ServeStale,
    /// The failure is the answer: somebody else can be asked, and [`Registry::stale_tag`] after
    /// them.
    Fail,
}

/// How long a revalidation may keep a client waiting that can be served stale.
pub(super) const PATIENCE_WITH_STALE: Duration = Duration::from_secs(5);

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
        on_failure: OnFailure,
        place: Place<'_>,
    ) -> Result<Pull, PullError> {
        match reference {
            Reference::Digest(digest) => self.manifest_by_digest(scope, digest, place).await,
            Reference::Tag(tag) => {
                self.manifest_by_tag(scope, tag, freshness, on_failure, place).await
            }
        }
    }

    /// A manifest that is stored and belongs to this repository; nobody is asked.
    ///
    /// # Errors
    /// The store's.
    pub async fn stored_manifest_by_digest(
        &self,
        scope: &Scope,
        digest: &Digest,
    ) -> Result<Option<Pull>, PullError> {
        let Some(link) = self.shared().find_link(scope, digest).await? else { return Ok(None) };
        let age = clock::unix_seconds().saturating_sub(link.linked_at);
        self.linked_manifest(scope, digest, link, (CacheResult::Hit, age)).await
    }

    /// What a tag was bound to, as far as it may be served although nobody confirms it.
    ///
    /// # Errors
    /// The store's.
    pub async fn stale_tag(
        &self,
        scope: &Scope,
        tag: &Tag,
        bounds: Freshness,
    ) -> Result<Option<Pull>, PullError> {
        let known = self.shared().find_tag(scope, tag).await?;
        let now = clock::unix_seconds();
        match known.filter(|entry| bounds.allows_stale(entry.checked_at, now)) {
            Some(entry) => self.stale_manifest(scope, tag, &entry, "all candidates failed").await,
            None => Ok(None),
        }
    }

    async fn manifest_by_digest(
        &self,
        scope: &Scope,
        digest: &Digest,
        place: Place<'_>,
    ) -> Result<Pull, PullError> {
        if let Some(pull) = self.stored_manifest_by_digest(scope, digest).await? {
            return Ok(pull);
        }
        if scope.upstream.is_none() {
            return Err(unknown(scope, digest));
        }
        self.expect_not_absent(scope, || scope.link_key(digest))?;
        match self.fetch_manifest(scope, Reference::Digest(*digest), place()).await? {
            Fetched::New(content, age) => Ok(arrived(content, age)),
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
        on_failure: OnFailure,
        place: Place<'_>,
    ) -> Result<Pull, PullError> {
        let now = clock::unix_seconds();
        let may_be_stale = |entry: &TagEntry| {
            on_failure == OnFailure::ServeStale && bounds.allows_stale(entry.checked_at, now)
        };
        let known = self.shared().find_tag(scope, tag).await?;
        match known {
            Some(entry) => {
                let asked = (scope, tag, &entry);
                if let Some(pull) = self.unasked(asked, (bounds, now), on_failure, place).await? {
                    return Ok(pull);
                }
            }
            None => self.expect_not_absent(scope, || scope.tag_key(tag))?,
        }
        if scope.upstream.is_none() {
            return Err(unknown(scope, tag));
        }
        let has_stale = known.is_some_and(|entry| may_be_stale(&entry));
        let error = match self.fetch_tag(scope, tag, has_stale, place()).await {
            Ok(Fetched::New(content, age)) => return Ok(arrived(content, age)),
            Ok(Fetched::Confirmed(entry)) => {
                let confirmed = CacheResult::Revalidated;
                let age = freshness::age(entry.checked_at, clock::unix_seconds());
                let digest = &entry.digest;
                return match self.stored_manifest(scope, digest, confirmed, age).await? {
                    Some(pull) => Ok(pull),
                    // Its file has gone; the upstream has just said that it has it.
                    None => self.manifest_by_digest(scope, digest, place).await,
                };
            }
            Err(error) => error,
        };
        if let Some(entry) = known.filter(|_| error.is_upstream_failure())
            && may_be_stale(&entry)
            && let Some(pull) = self.stale_manifest(scope, tag, &entry, &error.to_string()).await?
        {
            return Ok(pull);
        }
        Err(error)
    }

    /// What a tag was bound to, if it may be served before its upstream is asked.
    async fn unasked(
        &self,
        (scope, tag, entry): (&Scope, &Tag, &TagEntry),
        (bounds, now): (Freshness, u64),
        on_failure: OnFailure,
        place: Place<'_>,
    ) -> Result<Option<Pull>, PullError> {
        let state = bounds.state(entry.checked_at, now, || scope.tag_key(tag));
        let age = freshness::age(entry.checked_at, now);
        if state == State::Fresh {
            return self.stored_manifest(scope, &entry.digest, CacheResult::Hit, age).await;
        }
        let key = scope.tag_key(tag);
        let may_be_stale = bounds.allows_stale(entry.checked_at, now);
        if let Some(why) = self.spared(scope, &key, (now, may_be_stale)) {
            return match on_failure {
                // Another candidate is asked only for what would have been waited for.
                OnFailure::Fail if state == State::Due => {
                    Err(PullError::UpstreamFailed(format!("{scope}: {why}")))
                }
                _ if may_be_stale => self.stale_manifest(scope, tag, entry, why).await,
                _ => Ok(None),
            };
        }
        if state == State::Due {
            return Ok(None);
        }
        let pull = self.stored_manifest(scope, &entry.digest, CacheResult::Updating, age).await?;
        let Some(pull) = pull else { return Ok(None) };
        self.revalidate_behind(scope, key, || {
            let (scope, tag, decided) = (scope.clone(), tag.clone(), place());
            async move {
                // Its failure is noted where it is made, for all who would ask next.
                if let Ok(registry) = Self::current() {
                    let _ = registry.fetch_manifest(&scope, Reference::Tag(tag), decided).await;
                }
            }
        });
        Ok(Some(Pull { overdue: bounds.overdue(entry.checked_at, now), ..pull }))
    }

    /// Asks the upstream; with something stale at hand, not for longer than clients notice. The
    /// question goes on, and its answer is there for the next one who asks.
    async fn fetch_tag(
        &self,
        scope: &Scope,
        tag: &Tag,
        may_be_stale: bool,
        decided: Decided,
    ) -> Result<Fetched, PullError> {
        let reference = Reference::Tag(tag.clone());
        if !may_be_stale {
            return self.fetch_manifest(scope, reference, decided).await;
        }
        let fetched = self.fetch_manifest(scope, reference, decided);
        timeout(PATIENCE_WITH_STALE, fetched).await.unwrap_or_else(|_| {
            Err(PullError::UpstreamTimeout(format!(
                "{scope}:{tag} was not confirmed within {PATIENCE_WITH_STALE:?}"
            )))
        })
    }

    async fn stored_manifest(
        &self,
        scope: &Scope,
        digest: &Digest,
        cache: CacheResult,
        age: u64,
    ) -> Result<Option<Pull>, PullError> {
        let Some(link) = self.shared().find_link(scope, digest).await? else { return Ok(None) };
        self.linked_manifest(scope, digest, link, (cache, age)).await
    }

    /// `None`, too, for what was only linked as a blob.
    async fn linked_manifest(
        &self,
        scope: &Scope,
        digest: &Digest,
        link: LinkEntry,
        (cache, age): (CacheResult, u64),
    ) -> Result<Option<Pull>, PullError> {
        let Some(media_type) = link.media_type else { return Ok(None) };
        let found = match self.open_stored(scope, digest).await {
            // The upstream has it, too.
            Err(PullError::Storage(why)) if scope.upstream.is_some() => {
                tracing::warn!(%scope, %digest, why, "the store cannot be read; fetched again");
                return Ok(None);
            }
            found => found?,
        };
        let Some(found) = found else { return Ok(None) };
        Ok(Some(Pull {
            digest: *digest,
            media_type: Some(media_type),
            size: found.size,
            content: found.content,
            cache,
            age,
            overdue: 0,
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
        let age = freshness::age(entry.checked_at, clock::unix_seconds());
        let pull = self.stored_manifest(scope, &entry.digest, CacheResult::Stale, age).await?;
        Ok(pull.map(|pull| {
            tracing::debug!(%scope, %tag, age, why, "served stale");
            // The client is told that it is stale and for how long, not our upstream's details.
            let what = "its registry fails, or is spared";
            let warning = format!("{tag} was last confirmed {age} s ago; {what}");
            Pull { warning: Some(warning), ..pull }
        }))
    }
}

/// Nobody else could be asked about what is ours.
fn unknown(scope: &Scope, reference: &dyn std::fmt::Display) -> PullError {
    PullError::ManifestUnknown(format!("the {scope} repository has no manifest {reference}"))
}

fn arrived(content: ManifestContent, age: u64) -> Pull {
    let ManifestContent { digest, media_type, bytes, is_kept, .. } = content;
    Pull {
        digest,
        media_type: Some(media_type),
        size: bytes.len() as u64,
        content: if is_kept { Content::Memory(bytes) } else { Content::Unkept(bytes) },
        cache: CacheResult::Miss,
        age,
        overdue: 0,
        warning: None,
    }
}
