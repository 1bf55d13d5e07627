//! Asking an upstream for a manifest: the shared work behind all who want the same one.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::absent::manifest_key;
use super::commit::{self, ManifestContent};
use super::state::Registry;
use super::tier_write::NewContent;
use super::{Decided, Freshness, Placing, PullError, freshness};
use crate::index::TagEntry;
use crate::limits::MANIFEST_BYTES_MAX;
use crate::oci::{Algorithm, Digest, Manifest, Reference, Scope, Tag, media_type};
use crate::plugin::RemoteRequest;
use crate::runtime::clock;
use crate::telemetry::Revalidation;
use crate::upstream::{Accept, Hops, Method, Request, Response};

/// What is asked for, as one key of the fetches in flight.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct FetchKey {
    pub(super) scope: Scope,
    pub(super) reference: Reference,
    pub(super) placing: Placing,
}

/// How old a binding may be and still answer somebody who has just found it due: another request
/// confirmed it while this one was on its way here. One second is what the clock can tell.
const JUST_CONFIRMED: u64 = 1;

/// What came of it.
#[derive(Debug, Clone)]
pub(super) enum Fetched {
    /// The upstream confirmed the binding we have.
    Confirmed(TagEntry),
    /// A manifest came, and was kept where it is to be. Its upstream, if that is a cache, had it from
    /// its own so many seconds ago.
    New(ManifestContent, u64),
}

pub(super) type FetchOutcome = Result<Fetched, PullError>;

impl Registry {
    /// Fetches or confirms a manifest; one upstream exchange for all who ask meanwhile.
    pub(super) async fn fetch_manifest(
        &self,
        scope: &Scope,
        reference: Reference,
        Decided { placing, reads }: Decided,
    ) -> FetchOutcome {
        let key = FetchKey { scope: scope.clone(), reference, placing };
        let work = key.clone();
        let (fetches, hops) = (&self.shared().fetches, Hops::current());
        fetches.run(key, move || hops.carry(async move { fetch(work, reads).await })).await?
    }
}

/// On the worker that owns the key.
async fn fetch(
    FetchKey { scope, reference, placing }: FetchKey,
    reads: Vec<RemoteRequest>,
) -> FetchOutcome {
    let registry = Registry::current()?;
    // Noted while this one was on its way here.
    let absent = || registry.shared().known_absent(|| manifest_key(&scope, &reference));
    match &reference {
        Reference::Digest(digest) => {
            if let Some(error) = absent() {
                return Err(error);
            }
            if let Some(content) = registry.manifest_from_tiers(&scope, digest, &reads).await {
                let content = registry.keep(&scope, content, None, placing, true).await;
                return Ok(Fetched::New(content, 0));
            }
            registry.fetch_new(&scope, &reference, Some(digest), placing).await
        }
        Reference::Tag(tag) => match registry.shared().find_tag(&scope, tag).await? {
            None => match absent() {
                Some(error) => Err(error),
                None => registry.fetch_new(&scope, &reference, None, placing).await,
            },
            Some(known) if registry.is_just_confirmed(&scope, &known).await? => {
                Ok(Fetched::Confirmed(known))
            }
            Some(known) => {
                let outcome = registry.revalidate(&scope, tag, known, placing).await;
                registry.count_revalidation(&scope, came(&known, &outcome));
                if let Err(error) = &outcome {
                    registry.rest(&scope, (tag, scope.tag_key(tag)), error);
                }
                outcome
            }
        },
    }
}

impl Registry {
    /// Asks by HEAD, which registries do not count, whether the tag still points where we think;
    /// fetches what it points at now if not.
    async fn revalidate(
        &self,
        scope: &Scope,
        tag: &Tag,
        known: TagEntry,
        placing: Placing,
    ) -> FetchOutcome {
        let reference = Reference::Tag(tag.clone());
        let response = self.ask(scope, &reference, Method::Head, Some(&known.digest)).await?;
        let told = match response.status {
            200 => announced_digest(&response),
            304 => announced_digest(&response).or(Some(known.digest)),
            404 => {
                commit::forget_tag(self.shared(), scope, tag, &known).await;
                return Err(self.absent(scope, &reference));
            }
            status => return Err(unexpected(scope, &reference, status)),
        };
        let stored = self.shared().find_blob(scope, &known.digest).await?.is_some();
        if told == Some(known.digest) && stored {
            let now = clock::unix_seconds();
            // What a cache of an earlier time confirms is no younger than that time, and what we
            // were told since then is not forgotten.
            let told_at = now.saturating_sub(response.age());
            let checked_at = told_at.max(known.checked_at.min(now));
            let entry = commit::confirm_tag(self.shared(), scope, tag, known, checked_at).await;
            return Ok(Fetched::Confirmed(entry));
        }
        self.fetch_new(scope, &reference, None, placing).await
    }

    async fn is_just_confirmed(&self, scope: &Scope, known: &TagEntry) -> Result<bool, PullError> {
        let age = freshness::age(known.checked_at, clock::unix_seconds());
        let ttl = Freshness::of(self.shared(), scope).tag_ttl.as_secs();
        Ok(age < JUST_CONFIRMED.min(ttl)
            && self.shared().find_blob(scope, &known.digest).await?.is_some())
    }

    /// The upstream has no such manifest; remembered.
    fn absent(&self, scope: &Scope, reference: &Reference) -> PullError {
        let key = manifest_key(scope, reference);
        self.shared().note_absent(scope, key, unknown(scope, reference))
    }

    /// Gets a manifest, checks everything about it, keeps it where it is to be kept.
    async fn fetch_new(
        &self,
        scope: &Scope,
        reference: &Reference,
        expected: Option<&Digest>,
        placing: Placing,
    ) -> FetchOutcome {
        let response = self.ask(scope, reference, Method::Get, None).await?;
        match response.status {
            200 => {}
            404 => {
                if let Reference::Tag(tag) = reference
                    && let Some(known) = self.shared().find_tag(scope, tag).await?
                {
                    commit::forget_tag(self.shared(), scope, tag, &known).await;
                }
                return Err(self.absent(scope, reference));
            }
            status => return Err(unexpected(scope, reference, status)),
        }
        // Content is right whatever its age; only what a tag points at may be old news.
        let (tag, age) = match reference {
            Reference::Tag(tag) => (Some(tag), response.age()),
            Reference::Digest(_) => (None, 0),
        };
        let checked_at = clock::unix_seconds().saturating_sub(age);
        let content = receive(scope, reference, expected, response).await?;
        let tag = tag.map(|tag| (tag, checked_at));
        Ok(Fetched::New(self.keep(scope, content, tag, placing, false).await, age))
    }

    /// Keeps a manifest where it is to be kept; gives it back, with whether it was.
    async fn keep(
        &self,
        scope: &Scope,
        mut content: ManifestContent,
        tag: Option<(&Tag, u64)>,
        placing: Placing,
        is_from_tier: bool,
    ) -> ManifestContent {
        if !placing.is_kept {
            return content;
        }
        let digest = content.digest;
        // What we have is right; that the store did not take it must not fail the pull.
        match commit::manifest(self.shared(), scope, &content, tag, &placing).await {
            Ok(()) => {
                content.is_kept = true;
                if !is_from_tier {
                    self.offer_to_tiers(NewContent {
                        scope: scope.clone(),
                        digest,
                        media_type: Some(content.media_type.clone()),
                        bytes: content.bytes.len() as u64,
                    });
                }
            }
            Err(error @ PullError::NoRoom(_)) => {
                tracing::debug!(%scope, %digest, %error, "a manifest was not kept");
            }
            Err(error) => {
                tracing::error!(%scope, %digest, %error, "a manifest could not be kept");
            }
        }
        content
    }

    async fn ask(
        &self,
        scope: &Scope,
        reference: &Reference,
        method: Method,
        unless: Option<&Digest>,
    ) -> Result<Response, PullError> {
        let Some(upstream) = &scope.upstream else { return Err(unknown(scope, reference)) };
        let request = Request {
            accept: Accept::Manifests,
            if_none_match: unless.map(|digest| format!("\"{digest}\"")),
            ..Request::new(
                method,
                format!("/v2/{}/manifests/{reference}", scope.repository),
                scope.repository.clone(),
            )
        };
        self.client().exchange(upstream, request).await.map_err(|error| PullError::from(&error))
    }
}

/// What asking whether a tag is still bound to `known` came to.
fn came(known: &TagEntry, outcome: &FetchOutcome) -> Revalidation {
    match outcome {
        Ok(Fetched::Confirmed(_)) => Revalidation::Confirmed,
        // Fetched again because it had left the store.
        Ok(Fetched::New(content, _)) if content.digest == known.digest => Revalidation::Confirmed,
        Ok(Fetched::New(..)) => Revalidation::Changed,
        Err(PullError::ManifestUnknown(_)) => Revalidation::Gone,
        Err(_) => Revalidation::Failed,
    }
}

/// Reads the body within its bound and checks digest, media type and form.
async fn receive(
    scope: &Scope,
    reference: &Reference,
    expected: Option<&Digest>,
    mut response: Response,
) -> Result<ManifestContent, PullError> {
    let bad = |what: String| PullError::UpstreamFailed(format!("{scope} {reference}: {what}"));
    let too_large = |size: u64| {
        bad(format!("manifest of {size} bytes or more; at most {MANIFEST_BYTES_MAX} are accepted"))
    };
    let announced = announced_digest(&response);
    let content_type = response
        .headers
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .map(|value| media_type::without_parameters(value).to_owned())
        .unwrap_or_default();
    if let Some(size) = response.content_length.filter(|&n| n > MANIFEST_BYTES_MAX as u64) {
        return Err(too_large(size));
    }
    let bytes = read_all(&mut response, MANIFEST_BYTES_MAX)
        .await
        .map_err(|error| error.unwrap_or_else(|| too_large(MANIFEST_BYTES_MAX as u64 + 1)))?;
    checked((scope, reference), expected.copied().or(announced), &content_type, bytes)
}

/// Checks digest and form of a manifest. What no digest was promised for gets the one it has.
pub(super) fn checked(
    (scope, reference): (&Scope, &Reference),
    promised: Option<Digest>,
    content_type: &str,
    bytes: Bytes,
) -> Result<ManifestContent, PullError> {
    let bad = |what: String| PullError::UpstreamFailed(format!("{scope} {reference}: {what}"));
    let digest = match promised {
        Some(promised) => {
            let found = Digest::of(promised.algorithm(), &bytes);
            if found != promised {
                return Err(bad(format!("manifest hashes to {found}, expected {promised}")));
            }
            promised
        }
        None => Digest::of(Algorithm::Sha256, &bytes),
    };
    let manifest = Manifest::check(&bytes, content_type).map_err(|e| bad(e.to_string()))?;
    let children = manifest.descriptors.iter().map(|descriptor| descriptor.digest).collect();
    let media_type = Arc::from(manifest.media_type.as_str());
    Ok(ManifestContent { digest, media_type, bytes, children, is_kept: false })
}

/// Reads a whole body of at most `max` bytes; `Err(None)` when it is larger.
pub(super) async fn read_all(
    response: &mut Response,
    max: usize,
) -> Result<Bytes, Option<PullError>> {
    let mut whole = BytesMut::new();
    while let Some(frame) = response.body.frame().await {
        let frame = frame.map_err(|error| Some(PullError::from(&error)))?;
        if whole.len() + frame.len() > max {
            return Err(None);
        }
        whole.extend_from_slice(&frame);
    }
    Ok(whole.freeze())
}

fn announced_digest(response: &Response) -> Option<Digest> {
    let value = response.headers.get("docker-content-digest")?.to_str().ok()?;
    Digest::parse(value).ok()
}

fn unknown(scope: &Scope, reference: &Reference) -> PullError {
    PullError::ManifestUnknown(format!("{scope} does not know manifest {reference}"))
}

fn unexpected(scope: &Scope, reference: &Reference, status: u16) -> PullError {
    PullError::UpstreamFailed(format!("{scope} {reference}: unexpected status {status}"))
}
