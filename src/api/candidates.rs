//! Asking the candidates of a route.
//!
//! They are asked in their order. One that fails (cannot be reached, is too slow, answers 429 or
//! 5xx, sends what can't be right) gives way to the next; any other answer is the answer, a 404
//! too: what the first says is not there is not looked for elsewhere. Each candidate is a scope of
//! its own: what came from one is kept under its name, and is no knowledge about another.
//!
//! Two things are looked for in all of them before a client is made to wait, or to go without:
//! content that is stored (nobody has to be asked whether bytes of a digest are right), and, when
//! every candidate has failed, a tag's stale binding.

use std::time::{Duration, Instant};

use super::answer::{Answer, Facts};
use super::refusal::Refusal;
use super::router::{Api, Ask};
use super::targets::Known;
use super::{content, hosted_lists, relay};
use crate::http::{Method, RequestHead};
use crate::limits::FIRST_BYTE_TIMEOUT;
use crate::oci::{Endpoint, PathName, Reference, Scope, Tag};
use crate::plugin::{Candidate, PlaceRequest, RemoteRequest, Resolution, Route};
use crate::registry::{Decided, OnFailure, Placing, Pull, PullError, Wanted};
use crate::runtime::{clock, timeout};
use crate::telemetry::CacheResult;

/// A read, once it is routed.
pub(super) struct Routed<'a> {
    pub(super) head: &'a RequestHead,
    pub(super) endpoint: &'a Endpoint,
    pub(super) name: &'a PathName,
    pub(super) ask: &'a Ask<'a>,
    pub(super) resolution: &'a Resolution,
}

impl Api {
    /// Answers with a manifest or blob of the only candidate, if nobody has to be asked for it; else gives
    /// the facts back.
    // Those are no error, and as large as what they become a part of.
    #[expect(clippy::result_large_err)]
    pub(super) fn at_hand(
        &self,
        routed: &Routed<'_>,
        known: &Known,
        now: Instant,
        mut facts: Facts,
    ) -> Result<Answer, Facts> {
        let keyed = match &routed.resolution.route {
            Route::Hosted { repository } => known.keyed(None, repository),
            Route::Upstream { candidates } => match candidates.as_slice() {
                [only] => known.keyed(Some(&only.upstream), &only.repository),
                _ => return Err(facts),
            },
        };
        let scope = keyed.scope();
        let found = match routed.ask {
            Ask::Manifest(reference) => {
                let by_resolver = || freshness(routed.resolution);
                let bounds = |tag: &Tag| self.registry.freshness(scope, Some(tag), by_resolver());
                self.registry.manifest_at_hand(&keyed, reference, bounds, now)
            }
            Ask::Blob(digest) => self.registry.blob_at_hand(&keyed, digest, now),
            Ask::Tags | Ask::Referrers(_) => None,
        };
        let Some(pull) = found else { return Err(facts) };
        let pull = of_scope(scope, pull);
        if self.is_logged {
            facts.upstream.clone_from(&scope.upstream);
            facts.repository = Some(scope.repository.clone());
        }
        Ok(content::answer(routed.head, pull, facts))
    }

    /// Answers from the first candidate that can.
    pub(super) async fn ask_candidates(&self, routed: &Routed<'_>, facts: Facts) -> Answer {
        let scopes = scopes(&routed.resolution.route);
        let of = |scope: &Scope| Facts {
            upstream: scope.upstream.clone(),
            repository: Some(scope.repository.clone()),
            ..facts.clone()
        };
        let is_alone = scopes.len() == 1;
        if !is_alone && let Some((scope, pull)) = self.stored_in_one(routed, &scopes).await {
            return content::answer(routed.head, pull, of(scope));
        }
        let mut last = PullError::NameUnknown(format!("{} is routed nowhere", routed.name));
        // The client's patience is for all of them.
        let deadline = clock::now() + FIRST_BYTE_TIMEOUT;
        for (index, scope) in scopes.iter().enumerate() {
            let left = deadline.saturating_duration_since(clock::now());
            let share = left / u32::try_from(scopes.len() - index).unwrap_or(1);
            let on_failure = if is_alone { OnFailure::ServeStale } else { OnFailure::Fail };
            // What this waits for goes on without us; who asks again finds its result.
            let others = scopes.get(index + 1..).unwrap_or_default();
            let asked = self.ask(routed, (scope, others), on_failure, of(scope));
            let asked = timeout(share, asked).await;
            match asked.unwrap_or_else(|_| Err(no_answer(scope, share))) {
                Ok(answer) => return answer,
                Err(error) if error.is_upstream_failure() => {
                    tracing::debug!(%scope, %error, "a candidate failed");
                    last = error;
                }
                Err(error) => return Refusal::from(error).answer(of(scope)),
            }
        }
        if !is_alone && let Some(stale) = self.stale_in_one(routed, &scopes, &of).await {
            return stale;
        }
        match scopes.last() {
            Some(scope) => Refusal::from(last).answer(of(scope)),
            None => Refusal::from(last).answer(facts),
        }
    }

    /// Content asked for by digest that is stored and belongs to one of the candidates.
    async fn stored_in_one<'s>(
        &self,
        routed: &Routed<'_>,
        scopes: &'s [Scope],
    ) -> Option<(&'s Scope, Pull)> {
        for scope in scopes {
            let found = match routed.ask {
                Ask::Blob(digest) => self.registry.stored_blob(scope, digest).await,
                Ask::Manifest(Reference::Digest(digest)) => {
                    self.registry.stored_manifest_by_digest(scope, digest).await
                }
                Ask::Manifest(Reference::Tag(_)) | Ask::Tags | Ask::Referrers(..) => Ok(None),
            };
            // An error shows again when this candidate is asked for itself.
            if let Ok(Some(pull)) = found {
                return Some((scope, pull));
            }
        }
        None
    }

    /// A tag or list that nobody can confirm, from the first candidate that may still serve it.
    async fn stale_in_one(
        &self,
        routed: &Routed<'_>,
        scopes: &[Scope],
        facts: &dyn Fn(&Scope) -> Facts,
    ) -> Option<Answer> {
        let Routed { head, endpoint, name, ask, resolution } = routed;
        let registry = &self.registry;
        for scope in scopes {
            match ask {
                Ask::Manifest(Reference::Tag(tag)) => {
                    let bounds = registry.freshness(scope, Some(tag), freshness(resolution));
                    if let Ok(Some(pull)) = registry.stale_tag(scope, tag, bounds).await {
                        return Some(content::answer(head, pull, facts(scope)));
                    }
                }
                Ask::Tags | Ask::Referrers(..) => {
                    let list = relay::wanted(endpoint)?;
                    let bounds = registry.freshness(scope, None, bounds_of_lists(resolution));
                    if let Some(found) = registry.stale_list(scope, &list, bounds).await {
                        let wanted = (*name, &list);
                        return Some(relay::answer(endpoint, wanted, found, facts(scope)));
                    }
                }
                Ask::Manifest(Reference::Digest(_)) | Ask::Blob(_) => return None,
            }
        }
        None
    }

    async fn ask(
        &self,
        routed: &Routed<'_>,
        (scope, others): (&Scope, &[Scope]),
        on_failure: OnFailure,
        facts: Facts,
    ) -> Result<Answer, PullError> {
        let Routed { head, endpoint, name, ask, resolution } = routed;
        let registry = &self.registry;
        let pull: Pull = match ask {
            Ask::Tags | Ask::Referrers(..) if scope.upstream.is_none() => {
                // Boxed, as below.
                let asked = hosted_lists::answer(self, (endpoint, name), scope, facts);
                return Box::pin(asked).await;
            }
            Ask::Tags | Ask::Referrers(..) => {
                let Some(list) = relay::wanted(endpoint) else {
                    return Err(PullError::Internal(format!("{name}: no list is asked for")));
                };
                let bounds = registry.freshness(scope, None, bounds_of_lists(resolution));
                // Boxed: the rare question about a list right here would make the future of every
                // connection as large as itself.
                let found = Box::pin(registry.list(scope, &list, bounds, on_failure)).await?;
                return Ok(relay::answer(endpoint, (name, &list), found, facts));
            }
            Ask::Manifest(reference) => {
                let bounds = registry.freshness(scope, reference.as_tag(), freshness(resolution));
                let place = || self.placing(scope, ask);
                registry.pull_manifest(scope, reference, bounds, on_failure, &place).await?
            }
            Ask::Blob(digest) => {
                let range = content::asked_range(head, digest);
                let wanted = match (head.method, range.filter(|range| range.is_sound())) {
                    (Method::Head, _) => Wanted::Head,
                    (_, Some(range)) => Wanted::Range(range),
                    (_, None) => Wanted::Bytes,
                };
                let place = || self.placing(scope, ask);
                registry.pull_blob(scope, digest, wanted, (others, &place)).await?
            }
        };
        Ok(content::answer(head, of_scope(scope, pull), facts))
    }
}

impl Api {
    /// Where what is asked for goes if it has to be fetched. A plugin that fails must not fill a disk
    /// that it would have spared: what it was asked about is passed through.
    fn placing(&self, scope: &Scope, ask: &Ask<'_>) -> Decided {
        let chain = self.chain();
        if !chain.can_place() {
            return Decided::default();
        }
        let (is_manifest, digest) = match ask {
            Ask::Manifest(Reference::Digest(digest)) => (true, Some(digest)),
            Ask::Manifest(Reference::Tag(_)) => (true, None),
            Ask::Blob(digest) => (false, Some(*digest)),
            Ask::Tags | Ask::Referrers(..) => return Decided::default(),
        };
        let request = PlaceRequest {
            is_manifest,
            is_stored: false,
            upstream: scope.upstream.as_ref(),
            repository: scope.repository.as_str(),
            digest,
            media_type: None,
            size: None,
        };
        match chain.place(&request) {
            Ok(Some(placement)) => self.registry.shared().decided(placement),
            Ok(None) => Decided::default(),
            Err(error) => {
                tracing::debug!(%scope, %error, "passed through: nobody says where it goes");
                Placing::PASSED.into()
            }
        }
    }
}

impl Api {
    /// Where content that has just been stored is to be written, too. A plugin that fails writes
    /// nothing: what is stored is right all the same.
    pub fn place_stored(&self, request: &PlaceRequest<'_>) -> Vec<RemoteRequest> {
        match self.chain().place(request) {
            Ok(placement) => placement.map(|placement| placement.remotes).unwrap_or_default(),
            Err(error) => {
                tracing::debug!(repository = request.repository, %error, "written to no tier");
                Vec::new()
            }
        }
    }
}

fn scopes(route: &Route) -> Vec<Scope> {
    match route {
        Route::Hosted { repository } => {
            vec![Scope { upstream: None, repository: repository.clone() }]
        }
        Route::Upstream { candidates } => candidates.iter().map(scope_of).collect(),
    }
}

fn scope_of(candidate: &Candidate) -> Scope {
    let Candidate { upstream, repository } = candidate;
    Scope { upstream: Some(upstream.clone()), repository: repository.clone() }
}

/// No cache has a part in what is hosted.
fn of_scope(scope: &Scope, pull: Pull) -> Pull {
    match scope.upstream {
        None => Pull { cache: CacheResult::None, ..pull },
        Some(_) => pull,
    }
}

fn no_answer(scope: &Scope, within: Duration) -> PullError {
    PullError::UpstreamTimeout(format!("{scope} gave no answer within {within:?}"))
}

/// The same for lists: that one tag never changes says nothing of all of them.
fn bounds_of_lists(resolution: &Resolution) -> (Option<Duration>, Option<Duration>) {
    (resolution.tag_ttl, resolution.stale_max)
}

/// What the resolver said about freshness, if anything.
fn freshness(resolution: &Resolution) -> (Option<Duration>, Option<Duration>) {
    // A tag that never changes is fresh for ever once it is here.
    let tag_ttl = if resolution.is_immutable { Some(Duration::MAX) } else { resolution.tag_ttl };
    (tag_ttl, resolution.stale_max)
}
