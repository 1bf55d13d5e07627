//! From a request head to the use case that answers it.

use std::cell::{Ref, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::access::{Access, Place, Rules, Wish};
use super::answer::{Answer, Body, Facts, ready};
use super::at_once::{Begun, Held};
use super::candidates::Routed;
use super::hosted_lists;
use super::peer::Peer;
use super::push::{self, Change};
use super::refusal::Refusal;
use super::targets::Targets;
use crate::auth::{Authenticator, Principal, Verb};
use crate::http::{Method, RequestHead};
use crate::oci::{Endpoint, ErrorCode, Namespace, PathName, Reference, Scope, Target};
use crate::plugin::{
    RequestKind, Resolution, ResolveError, ResolveRequest, ResolveStatus, Route, WorkerChain,
    WorkerLink,
};
use crate::registry::Registry;
use crate::telemetry::{RouteKind, WorkerMetrics};
use crate::transfer::Inlet;
use crate::upstream::Hops;

/// The API as one worker serves it.
pub struct Api {
    pub(super) registry: Rc<Registry>,
    /// Borrowed for a moment, never over a wait.
    access: RefCell<Rc<Access>>,
    /// Borrowed for a decision, never over a wait.
    chain: RefCell<WorkerChain>,
    /// Borrowed for a look-up.
    pub(super) targets: RefCell<Targets>,
    /// Whether somebody wants to know more of an answer than is counted.
    pub(super) is_logged: bool,
    counters: WorkerMetrics,
}

/// A request, and whose it is.
pub(super) struct Asking<'a> {
    pub(super) head: &'a RequestHead,
    pub(super) endpoint: &'a Endpoint,
    /// Its tag or digest as text, or nothing.
    pub(super) reference: &'a str,
    pub(super) peer: &'a Peer,
    pub(super) principal: &'a Principal,
    pub(super) access: &'a Access,
}

/// What a read asks of the registry, once it is routed.
pub(super) enum Ask<'a> {
    Manifest(&'a Reference),
    Blob(&'a crate::oci::Digest),
    Tags,
    Referrers(&'a crate::oci::Digest),
}

impl Api {
    /// Answers with this registry what this chain routes.
    /// `is_logged`: there is an access log, which gets all [`Facts`] of each answer.
    pub fn new(
        registry: Rc<Registry>,
        chain: WorkerChain,
        (authenticator, rules): (Arc<Authenticator>, Arc<Rules>),
        counters: WorkerMetrics,
        is_logged: bool,
    ) -> Self {
        let access = Access { authenticator, rules };
        let access = RefCell::new(Rc::new(access));
        let targets = RefCell::default();
        Self { registry, access, chain: RefCell::new(chain), targets, is_logged, counters }
    }

    /// Goes by these rules from now on.
    pub fn replace_rules(&self, rules: Arc<Rules>) {
        let authenticator = self.access.borrow().authenticator.clone();
        self.access.replace(Rc::new(Access { authenticator, rules }));
    }

    /// Who may do what, for the length of a request.
    pub(super) fn access(&self) -> Rc<Access> {
        self.access.borrow().clone()
    }

    /// The chain, for explanations; to be given back before the next wait.
    pub fn chain(&self) -> Ref<'_, WorkerChain> {
        self.chain.borrow()
    }

    /// Routes by this chain from now on. Gives back the one before, to be dropped elsewhere: its
    /// plugins may take a moment to stop.
    pub fn replace_chain(&self, chain: WorkerChain) -> WorkerChain {
        let before = self.chain.replace(chain);
        before.retire();
        before
    }

    /// Routes by this link of the chain from now on. Gives back the one before.
    pub fn replace_link(&self, link: WorkerLink) -> WorkerLink {
        self.chain.borrow_mut().replace_link(link)
    }

    /// What the answers are made from.
    pub fn registry(&self) -> &Rc<Registry> {
        &self.registry
    }

    /// Answers a request of a client that [`Api::begin`] had no answer for. Never fails: every error
    /// is an answer too.
    pub async fn answer(
        &self,
        head: &RequestHead,
        body: &mut Inlet<'_>,
        peer: &Peer,
        begun: Begun,
    ) -> Answer {
        let held = match begun {
            Begun::Answered(answer) => return answer,
            Begun::Routed(held) => held,
            Begun::Untouched => return finished(head, self.whole(head, body, peer).await),
        };
        let Held { known, resolution, facts } = *held;
        let endpoint = &known.endpoint;
        let (name, ask) = match &endpoint.target {
            Target::Manifest { name, reference } => (name, Ask::Manifest(reference)),
            Target::Blob { name, digest } => (name, Ask::Blob(digest)),
            _ => return finished(head, self.whole(head, body, peer).await),
        };
        let routed = Routed { head, endpoint, name, ask: &ask, resolution: &resolution };
        let mut answer = self.ask_candidates(&routed, facts).await;
        scope(endpoint, &resolution, &mut answer);
        finished(head, answer)
    }

    async fn whole(&self, head: &RequestHead, body: &mut Inlet<'_>, peer: &Peer) -> Answer {
        match head.via().map(|via| Hops::read(&via)) {
            None => self.route(head, body, peer).await,
            // Boxed: so that the future of every connection is not larger for this rare case.
            Some(Ok(hops)) => Box::pin(hops.carry(self.route(head, body, peer))).await,
            Some(Err(error)) => {
                self.counters.loop_refused();
                tracing::warn!(client = %peer.address, %error, "refused");
                Refusal::from(error).answer(Facts::of(RouteKind::Other))
            }
        }
    }

    async fn route(&self, head: &RequestHead, body: &mut Inlet<'_>, peer: &Peer) -> Answer {
        let reads = head.method.reads();
        let endpoint = match Endpoint::parse(reads, head.path(), head.query()) {
            Ok(endpoint) => endpoint,
            Err(error) => return Refusal::from(error).answer(Facts::of(RouteKind::Other)),
        };
        let access = self.access();
        let principal = match access.identify(head, &endpoint, peer).await {
            Ok(principal) => principal,
            Err(refusal) => return refusal.answer(Facts::of(route_kind(&endpoint.target))),
        };
        // Waiting for a password may have taken longer than a reload.
        let access = self.access();
        let (principal, access) = (&principal, &access);
        let reference = &endpoint.target.reference();
        let asking = Asking { head, endpoint: &endpoint, reference, peer, principal, access };
        match &endpoint.target {
            // Boxed, as above.
            Target::Upload { .. } => Box::pin(self.change(&asking, body)).await,
            _ if !reads => Box::pin(self.change(&asking, body)).await,
            Target::Base => base(&asking),
            Target::Catalog { .. } => {
                Box::pin(hosted_lists::catalog(self, &endpoint, principal)).await
            }
            Target::Manifest { name, reference } => {
                self.read(&asking, name, Ask::Manifest(reference)).await
            }
            Target::Blob { name, digest } => self.read(&asking, name, Ask::Blob(digest)).await,
            Target::TagsList { name, .. } => self.read(&asking, name, Ask::Tags).await,
            Target::Referrers { name, digest, .. } => {
                self.read(&asking, name, Ask::Referrers(digest)).await
            }
        }
    }

    /// Answers what is read from a repository.
    async fn read(&self, asking: &Asking<'_>, name: &PathName, ask: Ask<'_>) -> Answer {
        let (resolution, facts) = match self.route_read(asking, name, &ask) {
            Ok(routed) => routed,
            Err(answer) => return answer,
        };
        let Asking { head, endpoint, .. } = *asking;
        let routed = Routed { head, endpoint, name, ask: &ask, resolution: &resolution };
        let mut answer = self.ask_candidates(&routed, facts).await;
        scope(endpoint, &resolution, &mut answer);
        answer
    }

    /// Where a read goes, for one who may have it; else the refusal.
    // As large as any answer: a box would only be opened again.
    #[expect(clippy::result_large_err)]
    pub(super) fn route_read(
        &self,
        asking: &Asking<'_>,
        name: &PathName,
        ask: &Ask<'_>,
    ) -> Result<(Arc<Resolution>, Facts), Answer> {
        let mut facts = Facts::by(asking.principal, route_kind(&asking.endpoint.target));
        facts.reference = if self.is_logged { ask.reference() } else { None };
        let resolution = match self.resolve_for(asking, name, ask.kind(), &mut facts) {
            Ok(resolution) => resolution,
            Err(refusal) => return Err(refusal.answer(facts)),
        };
        match asking.check(Verb::Pull, name, &resolution.route) {
            Ok(()) => Ok((resolution, facts)),
            Err(refusal) => Err(refusal.answer(facts)),
        }
    }

    /// Answers what is part of a push, or changes a hosted repository otherwise.
    async fn change(&self, asking: &Asking<'_>, body: &mut Inlet<'_>) -> Answer {
        let Asking { head, endpoint, peer, principal, .. } = *asking;
        let mut facts = Facts::by(principal, route_kind(&endpoint.target));
        let Some(name) = endpoint.target.name() else {
            return Refusal::method(head.method, "GET, HEAD").answer(facts);
        };
        let (kind, reference) = match &endpoint.target {
            Target::Manifest { reference, .. } => (RequestKind::Manifest, Some(reference.clone())),
            Target::Blob { digest, .. } => (RequestKind::Blob, Some(Reference::Digest(*digest))),
            Target::Upload { .. } => (RequestKind::Blob, None),
            _ => return Refusal::method(head.method, "GET, HEAD").answer(facts),
        };
        facts.reference = reference;
        let resolution = match self.resolve_for(asking, name, kind, &mut facts) {
            Ok(resolution) => resolution,
            Err(refusal) => return refusal.answer(facts),
        };
        let Route::Hosted { repository } = &resolution.route else {
            return Refusal::mirrored(head.method, name).answer(facts);
        };
        facts.repository = Some(repository.clone());
        let is_upload = matches!(endpoint.target, Target::Upload { .. });
        // Whoever gives an upload up deletes nothing.
        let deletes = head.method == Method::Delete && !is_upload;
        let verb = if deletes { Verb::Delete } else { Verb::Push };
        if let Err(refusal) = asking.check(verb, name, &resolution.route) {
            return refusal.answer(facts);
        }
        let scope = Scope { upstream: None, repository: repository.clone() };
        let change = Change { head, endpoint, name, scope: &scope, peer, principal };
        push::answer(self, &change, body, facts).await
    }

    /// What the resolvers say.
    pub(super) fn resolve(
        &self,
        request: &ResolveRequest<'_>,
    ) -> Result<Arc<Resolution>, Arc<ResolveError>> {
        let resolved = self.chain.borrow().resolve(request);
        if resolved.as_ref().is_err_and(|error| error.status == ResolveStatus::Invalid) {
            self.counters.route_conflict();
        }
        resolved
    }

    /// Where it goes; the facts learn how that was decided.
    fn resolve_for(
        &self,
        asking: &Asking<'_>,
        name: &PathName,
        kind: RequestKind,
        facts: &mut Facts,
    ) -> Result<Arc<Resolution>, Refusal> {
        facts.header_ns = registry_header(asking.head)?;
        let resolved = self.resolve(&ResolveRequest {
            method: asking.head.method.as_str(),
            kind,
            ns: asking.endpoint.ns.as_ref(),
            header: facts.header_ns.as_ref(),
            name: name.as_str(),
            reference: asking.reference,
            client: Some(asking.peer.address),
            principal: asking.principal.name(),
            head: Some(asking.head),
        });
        match resolved {
            Ok(resolution) => {
                if self.is_logged {
                    facts.decision = Some(resolution.clone());
                }
                Ok(resolution)
            }
            Err(error) => {
                facts.decision = Some(error.clone());
                Err(Refusal::from(error))
            }
        }
    }
}

impl Asking<'_> {
    /// The one check, before any handler.
    fn check(&self, verb: Verb, name: &PathName, route: &Route) -> Result<(), Refusal> {
        let wish = Wish { verb, name: name.as_str(), target: Place::Routed(route) };
        self.access.check(self.principal, &wish)
    }
}

impl Ask<'_> {
    fn kind(&self) -> RequestKind {
        match self {
            Self::Manifest(_) => RequestKind::Manifest,
            Self::Blob(_) => RequestKind::Blob,
            Self::Tags => RequestKind::Tags,
            Self::Referrers(_) => RequestKind::Referrers,
        }
    }

    fn reference(&self) -> Option<Reference> {
        match self {
            Self::Manifest(reference) => Some((*reference).clone()),
            Self::Blob(digest) | Self::Referrers(digest) => Some(Reference::Digest(**digest)),
            Self::Tags => None,
        }
    }
}

fn route_kind(target: &Target) -> RouteKind {
    match target {
        Target::Base => RouteKind::Base,
        Target::Manifest { .. } => RouteKind::Manifest,
        Target::Blob { .. } => RouteKind::Blob,
        Target::TagsList { .. } => RouteKind::Tags,
        Target::Referrers { .. } => RouteKind::Referrers,
        Target::Catalog { .. } | Target::Upload { .. } => RouteKind::Other,
    }
}

/// The registry named by `X-Dragonfly-Registry`, with or without a scheme.
pub(super) fn registry_header(head: &RequestHead) -> Result<Option<Namespace>, Refusal> {
    let mut found: Option<Namespace> = None;
    for value in head.x_dragonfly_registry() {
        let text = String::from_utf8_lossy(value);
        let text = text.trim();
        let host = ["https://", "http://"]
            .iter()
            .find_map(|scheme| {
                let (head, rest) = text.split_at_checked(scheme.len())?;
                head.eq_ignore_ascii_case(scheme).then_some(rest)
            })
            .unwrap_or(text);
        let host = host.strip_suffix('/').unwrap_or(host);
        let namespace = Namespace::parse(host).map_err(|error| Refusal::bad_header(&error))?;
        if found.is_some() {
            let message = "the header X-Dragonfly-Registry is given more than once";
            return Err(Refusal::new(400, ErrorCode::NameInvalid, message));
        }
        found = Some(namespace);
    }
    Ok(found)
}

/// Adds what is on every answer of the API.
pub(super) fn finish(head: &RequestHead, answer: &mut Answer) {
    answer.add(ready!("Docker-Distribution-Api-Version", "registry/2.0"));
    if head.method == Method::Head {
        answer.body = Body::Empty;
    }
}

fn finished(head: &RequestHead, mut answer: Answer) -> Answer {
    finish(head, &mut answer);
    answer
}

/// Tells the client whose content it is, if it has asked for that.
pub(super) fn scope(endpoint: &Endpoint, resolution: &Resolution, answer: &mut Answer) {
    if resolution.scoped_by_ns
        && let Some(ns) = endpoint.ns_received()
    {
        answer.add(("OCI-Namespace", ns.into()));
    }
}

/// `GET /v2/`: yes, this is a registry, and so one logs in.
pub(super) fn base(asking: &Asking<'_>) -> Answer {
    let facts = Facts::by(asking.principal, RouteKind::Base);
    let (challenges, is_needed) = asking.access.at_base(asking.principal);
    if is_needed && !challenges.is_empty() {
        let refusal = Refusal::new(401, ErrorCode::Unauthorized, "a login is needed");
        return Refusal { challenges, ..refusal }.answer(facts);
    }
    let answer = Answer::new(200, facts).memory("application/json", &b"{}"[..]);
    challenges.into_iter().fold(answer, |answer, one| answer.header("WWW-Authenticate", one))
}
