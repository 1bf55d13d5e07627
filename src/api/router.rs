//! From a request head to the use case that answers it.

use std::cell::{Ref, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::answer::{Answer, Facts};
use super::candidates::Routed;
use super::hosted_lists;
use super::peer::Peer;
use super::push::{self, Change};
use super::refusal::Refusal;
use crate::http::{Method, RequestHead};
use crate::oci::{Endpoint, ErrorCode, Namespace, Reference, Scope, Target};
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
    /// Borrowed for a decision, never over a wait.
    chain: RefCell<WorkerChain>,
    counters: WorkerMetrics,
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
    pub fn new(registry: Rc<Registry>, chain: WorkerChain, counters: WorkerMetrics) -> Self {
        Self { registry, chain: RefCell::new(chain), counters }
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

    /// Answers a request of a client. Never fails: every error is an answer too.
    pub async fn answer(&self, head: &RequestHead, body: &mut Inlet<'_>, peer: &Peer) -> Answer {
        let answer = match head.via().map(|via| Hops::read(&via)) {
            None => self.route(head, body, peer).await,
            // Boxed: so that the future of every connection is not larger for this rare case.
            Some(Ok(hops)) => Box::pin(hops.carry(self.route(head, body, peer))).await,
            Some(Err(error)) => {
                self.counters.loop_refused();
                tracing::warn!(client = %peer.address, %error, "refused");
                Refusal::from(error).answer(Facts::of(RouteKind::Other))
            }
        };
        let answer = answer.header("Docker-Distribution-Api-Version", "registry/2.0");
        if head.method == Method::Head { answer.without_body() } else { answer }
    }

    async fn route(&self, head: &RequestHead, body: &mut Inlet<'_>, peer: &Peer) -> Answer {
        let reads = head.method.reads();
        let endpoint = match Endpoint::parse(reads, head.path(), head.query()) {
            Ok(endpoint) => endpoint,
            Err(error) => return Refusal::from(error).answer(Facts::of(RouteKind::Other)),
        };
        let kind = route_kind(&endpoint.target);
        if !reads || matches!(endpoint.target, Target::Upload { .. }) {
            // Boxed, as above.
            return Box::pin(self.change(head, &endpoint, body, peer)).await;
        }
        let (name, request_kind, ask) = match &endpoint.target {
            Target::Base | Target::Upload { .. } => return base(),
            // Boxed, as above.
            Target::Catalog { .. } => {
                return Box::pin(hosted_lists::catalog(self, &endpoint)).await;
            }
            Target::Manifest { name, reference } => {
                (name, RequestKind::Manifest, Ask::Manifest(reference))
            }
            Target::Blob { name, digest } => (name, RequestKind::Blob, Ask::Blob(digest)),
            Target::TagsList { name, .. } => (name, RequestKind::Tags, Ask::Tags),
            Target::Referrers { name, digest, .. } => {
                (name, RequestKind::Referrers, Ask::Referrers(digest))
            }
        };
        let mut facts = Facts::of(kind);
        facts.reference = ask.reference();
        facts.header_ns = match registry_header(head) {
            Ok(header_ns) => header_ns,
            Err(refusal) => return refusal.answer(facts),
        };
        let reference = facts.reference.as_ref().map(|r| r.to_string()).unwrap_or_default();
        let resolved = self.resolve(&ResolveRequest {
            method: head.method.as_str(),
            kind: request_kind,
            ns: endpoint.ns.as_ref(),
            header: facts.header_ns.as_ref(),
            name: name.as_str(),
            reference: &reference,
            client: Some(peer.address),
            principal: None,
            head: Some(head),
        });
        let resolution = match resolved {
            Ok(resolution) => resolution,
            Err(error) => {
                facts.decision = Some(error.clone());
                return Refusal::from(error).answer(facts);
            }
        };
        facts.decision = Some(resolution.clone());
        let routed = Routed { head, endpoint: &endpoint, name, ask: &ask, resolution: &resolution };
        let answer = self.ask_candidates(&routed, facts).await;
        match endpoint.ns_received() {
            Some(ns) if resolution.scoped_by_ns => answer.header("OCI-Namespace", ns.to_owned()),
            _ => answer,
        }
    }

    /// Answers what is part of a push, or changes a hosted repository otherwise.
    async fn change(
        &self,
        head: &RequestHead,
        endpoint: &Endpoint,
        body: &mut Inlet<'_>,
        peer: &Peer,
    ) -> Answer {
        let mut facts = Facts::of(route_kind(&endpoint.target));
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
        facts.header_ns = match registry_header(head) {
            Ok(header_ns) => header_ns,
            Err(refusal) => return refusal.answer(facts),
        };
        let reference = facts.reference.as_ref().map(|r| r.to_string()).unwrap_or_default();
        let resolved = self.resolve(&ResolveRequest {
            method: head.method.as_str(),
            kind,
            ns: endpoint.ns.as_ref(),
            header: facts.header_ns.as_ref(),
            name: name.as_str(),
            reference: &reference,
            client: Some(peer.address),
            principal: None,
            head: Some(head),
        });
        let resolution = match resolved {
            Ok(resolution) => resolution,
            Err(error) => {
                facts.decision = Some(error.clone());
                return Refusal::from(error).answer(facts);
            }
        };
        facts.decision = Some(resolution.clone());
        let Route::Hosted { repository } = &resolution.route else {
            return Refusal::mirrored(head.method, name).answer(facts);
        };
        facts.repository = Some(repository.clone());
        let scope = Scope { upstream: None, repository: repository.clone() };
        push::answer(self, &Change { head, endpoint, name, scope: &scope, peer }, body, facts).await
    }

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
}

impl Ask<'_> {
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

/// `GET /v2/`: yes, this is a registry.
fn base() -> Answer {
    Answer::new(200, Facts::of(RouteKind::Base)).memory("application/json", &b"{}"[..])
}
