//! Lists of mirrored repositories: pages of tags, and referrers. Kept as tags are: fresh, asked for
//! behind the answer, asked for first, or served stale.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::freshness::{self, State};
use super::pull_manifest::PATIENCE_WITH_STALE;
use super::relay::Asked;
use super::state::Registry;
use super::{Freshness, OnFailure, PullError};
use crate::catalog::{ListRecord, Write};
use crate::oci::{Digest, Scope};
use crate::runtime::{clock, timeout};
use crate::telemetry::{CacheResult, Revalidation};
use crate::upstream::Hops;

/// How old, in seconds, a confirmation may be and still answer somebody who has just found the list
/// due: another request had it confirmed meanwhile.
const JUST_CONFIRMED: u64 = 1;
/// A list that nobody has confirmed for as long, in seconds, is served no more, whatever
/// `stale_max` says, and forgotten by `ringport gc`.
pub(super) const LIST_SECONDS_MAX: u64 = 90 * 24 * 3600;

/// Which list of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListKind {
    /// Its tags.
    Tags,
    /// What refers to a manifest.
    Referrers {
        /// The manifest.
        digest: Digest,
        /// Only what is of this type.
        artifact_type: Option<String>,
    },
}

/// A list, or a page of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListAsk {
    /// Which.
    pub kind: ListKind,
    /// What to pass on to the upstream: checked, encoded, in one order, without `ns`.
    pub query: Option<String>,
}

/// A list, as its upstream gave it or as it was kept.
#[derive(Debug, Clone)]
pub struct List {
    /// A JSON document.
    pub body: Bytes,
    /// Query of the next page, without `ns`.
    pub next: Option<String>,
    /// How it was found.
    pub cache: CacheResult,
    /// Whether it is kept, which a very large one is not.
    pub is_kept: bool,
    /// Seconds since the upstream last vouched for it.
    pub age: u64,
    /// Seconds by which its time is over, if it is served before the upstream is asked; else 0.
    pub overdue: u64,
    /// Why it is served although stale, for a `Warning` header.
    pub warning: Option<String>,
}

/// What is asked for, as one key of the questions in flight.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ListKey {
    scope: Scope,
    ask: ListAsk,
}

/// What came of it: the list as it is now, and whether the upstream confirmed the one we had.
pub(super) type ListOutcome = Result<(Arc<ListRecord>, CacheResult), PullError>;

impl fmt::Display for ListAsk {
    /// The name under which it is kept.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ListKind::Tags => write!(f, "tags")?,
            ListKind::Referrers { digest, .. } => write!(f, "referrers/{digest}")?,
        }
        self.query.as_ref().map_or(Ok(()), |query| write!(f, "?{query}"))
    }
}

impl Registry {
    /// A list of a mirrored repository.
    ///
    /// # Errors
    /// As [`PullError`] says; an upstream's failure only when nothing may be served stale.
    pub async fn list(
        &self,
        scope: &Scope,
        ask: &ListAsk,
        bounds: Freshness,
        on_failure: OnFailure,
    ) -> Result<List, PullError> {
        let now = clock::unix_seconds();
        let known = self.find_list(scope, ask).await;
        match &known {
            Some(known) => {
                let asked = (scope, ask, known);
                if let Some(list) = self.unasked_list(asked, (bounds, now), on_failure)? {
                    return Ok(list);
                }
            }
            None => self.expect_not_absent(scope, || key_of(scope, ask))?,
        }
        let stale = known
            .filter(|_| on_failure == OnFailure::ServeStale)
            .filter(|k| may_be_stale(k, bounds));
        match self.ask_for_list(scope, ask, stale.is_some()).await {
            Ok((record, cache)) => Ok(found(&record, cache)),
            Err(error) => match stale.filter(|_| error.is_upstream_failure()) {
                Some(known) => Ok(stale_list(scope, ask, &known, &error)),
                None => Err(error),
            },
        }
    }

    /// What was known of a list, as far as it may be served although nobody confirms it.
    pub async fn stale_list(
        &self,
        scope: &Scope,
        ask: &ListAsk,
        bounds: Freshness,
    ) -> Option<List> {
        let known = self.find_list(scope, ask).await.filter(|k| may_be_stale(k, bounds))?;
        Some(stale_list(scope, ask, &known, &"all candidates failed"))
    }

    /// A list that may be served before its upstream is asked.
    fn unasked_list(
        &self,
        (scope, ask, known): (&Scope, &ListAsk, &ListRecord),
        (bounds, now): (Freshness, u64),
        on_failure: OnFailure,
    ) -> Result<Option<List>, PullError> {
        let state = bounds.state(known.checked_at, now, || key_of(scope, ask));
        if state == State::Fresh {
            return Ok(Some(found(known, CacheResult::Hit)));
        }
        let key = key_of(scope, ask);
        let may_be_stale = may_be_stale(known, bounds);
        if let Some(why) = self.spared(scope, &key, (now, may_be_stale)) {
            return match on_failure {
                // As for tags.
                OnFailure::Fail if state == State::Due => {
                    Err(PullError::UpstreamFailed(format!("{scope}: {why}")))
                }
                _ if may_be_stale => Ok(Some(stale_list(scope, ask, known, &why))),
                _ => Ok(None),
            };
        }
        if state == State::Due {
            return Ok(None);
        }
        self.revalidate_behind(scope, key, || {
            let wanted = ListKey { scope: scope.clone(), ask: ask.clone() };
            async move {
                // Its failure is noted where it is made, for all who would ask next.
                if let Ok(registry) = Self::current() {
                    let _ = registry.ask_for_list(&wanted.scope, &wanted.ask, false).await;
                }
            }
        });
        let overdue = bounds.overdue(known.checked_at, now);
        Ok(Some(List { overdue, ..found(known, CacheResult::Updating) }))
    }

    /// One question to the upstream for all who ask meanwhile; with something stale at hand it does
    /// not keep a client waiting for longer than clients notice.
    async fn ask_for_list(&self, scope: &Scope, ask: &ListAsk, has_stale: bool) -> ListOutcome {
        let key = ListKey { scope: scope.clone(), ask: ask.clone() };
        let (work, hops) = (key.clone(), Hops::current());
        let lists = &self.shared().lists;
        let asked = lists.run(key, move || hops.carry(async move { fetch(work).await }));
        if !has_stale {
            return asked.await?;
        }
        match timeout(PATIENCE_WITH_STALE, asked).await {
            Ok(outcome) => outcome?,
            Err(_) => Err(PullError::UpstreamTimeout(format!(
                "{scope} {ask} was not confirmed within {PATIENCE_WITH_STALE:?}"
            ))),
        }
    }

    /// What cannot be read is fetched again.
    async fn find_list(&self, scope: &Scope, ask: &ListAsk) -> Option<ListRecord> {
        let found = self.shared().catalog.find_list(scope, &ask.to_string()).await;
        found.unwrap_or_else(|error| {
            tracing::warn!(%scope, %ask, %error, "a kept list cannot be read; fetched again");
            None
        })
    }

    /// Keeps a list, or forgets the one before when this one is too large.
    async fn keep_list(&self, record: &ListRecord, before: Option<&ListRecord>) {
        let write = match record.is_small_enough() {
            true => Some(Write::PutList(record.clone())),
            false => before.map(forget),
        };
        let Some(write) = write else { return };
        if let Err(error) = self.shared().catalog.write(vec![write], false).await {
            tracing::warn!(scope = %record.scope, name = %record.name, %error,
                "a list was not kept; the next who wants it asks the upstream again");
        }
    }
}

/// On the worker that owns the key.
async fn fetch(ListKey { scope, ask }: ListKey) -> ListOutcome {
    let registry = Registry::current()?;
    let key = key_of(&scope, &ask);
    // Noted while this one was on its way here.
    if let Some(error) = registry.shared().known_absent(|| key) {
        return Err(error);
    }
    let known = registry.find_list(&scope, &ask).await;
    let now = clock::unix_seconds();
    let ttl = Freshness::of(registry.shared(), &scope).tag_ttl.as_secs();
    if let Some(known) = &known
        && freshness::age(known.checked_at, now) < JUST_CONFIRMED.min(ttl)
    {
        return Ok((Arc::new(known.clone()), CacheResult::Revalidated));
    }
    let etag = known.as_ref().and_then(|known| known.etag.clone());
    let asked = registry.ask_upstream_for_list(&scope, &ask, etag).await;
    if let Some(known) = &known {
        registry.count_revalidation(&scope, came(known, &asked));
    }
    let now = clock::unix_seconds();
    match (asked, known) {
        (Ok(Asked::Same { age }), Some(known)) => {
            // As for a tag: no younger than what was confirmed, no older than what we knew.
            let checked_at = now.saturating_sub(age).max(known.checked_at.min(now));
            let record = ListRecord { checked_at, ..known };
            registry.keep_list(&record, None).await;
            Ok((Arc::new(record), CacheResult::Revalidated))
        }
        (Ok(Asked::Same { .. }), None) => {
            let message = format!("{scope} {ask}: 304, though nothing was known of it");
            Err(PullError::UpstreamFailed(message))
        }
        (Ok(Asked::Document { body, next, etag, age }), known) => {
            let (name, checked_at) = (ask.to_string(), now.saturating_sub(age));
            let record = ListRecord { scope: scope.clone(), name, checked_at, etag, next, body };
            registry.keep_list(&record, known.as_ref()).await;
            registry.shared().note_present(&key);
            Ok((Arc::new(record), CacheResult::Miss))
        }
        (Err(error @ PullError::NameUnknown(_)), known) => {
            if let Some(known) = &known {
                registry.shared().catalog.write_soon(vec![forget(known)]);
            }
            Err(registry.shared().note_absent(&scope, key, error))
        }
        (Err(error), known) => {
            if known.is_some() {
                registry.rest(&scope, (&ask, key), &error);
            }
            Err(error)
        }
    }
}

/// What asking whether a list still holds came to.
fn came(known: &ListRecord, asked: &Result<Asked, PullError>) -> Revalidation {
    match asked {
        Ok(Asked::Same { .. }) => Revalidation::Confirmed,
        Ok(Asked::Document { body, .. }) if *body == known.body => Revalidation::Confirmed,
        Ok(Asked::Document { .. }) => Revalidation::Changed,
        Err(PullError::NameUnknown(_)) => Revalidation::Gone,
        Err(_) => Revalidation::Failed,
    }
}

fn key_of(scope: &Scope, ask: &ListAsk) -> crate::oci::ScopeKey {
    scope.document_key(&ask.to_string())
}

fn forget(record: &ListRecord) -> Write {
    Write::RemoveList {
        scope: record.scope.clone(),
        name: record.name.clone(),
        checked_at: record.checked_at,
    }
}

fn may_be_stale(known: &ListRecord, bounds: Freshness) -> bool {
    let now = clock::unix_seconds();
    bounds.allows_stale(known.checked_at, now)
        && freshness::age(known.checked_at, now) < LIST_SECONDS_MAX
}

fn found(record: &ListRecord, cache: CacheResult) -> List {
    List {
        body: record.body.clone(),
        next: record.next.clone(),
        cache,
        is_kept: record.is_small_enough(),
        age: freshness::age(record.checked_at, clock::unix_seconds()),
        overdue: 0,
        warning: None,
    }
}

fn stale_list(scope: &Scope, ask: &ListAsk, known: &ListRecord, why: &dyn fmt::Display) -> List {
    let list = found(known, CacheResult::Stale);
    tracing::debug!(%scope, %ask, age = list.age, %why, "served stale");
    // The client is told that it is stale and for how long, not our upstream's details.
    let what = "its registry fails, or is spared";
    let warning = format!("this list was last confirmed {} s ago; {what}", list.age);
    List { warning: Some(warning), ..list }
}
