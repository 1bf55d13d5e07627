//! What changes a hosted repository: uploads, manifests, deletes.

use super::access::{Place, Wish};
use super::answer::{Answer, Facts};
use super::peer::Peer;
use super::refusal::Refusal;
use super::router::Api;
use super::{push_blob, push_manifest};
use crate::auth::{Principal, Verb};
use crate::http::{Method, RequestHead};
use crate::oci::{Endpoint, PathName, RepositoryName, Scope, Target};
use crate::transfer::Inlet;

/// A request that changes a hosted repository, once it is routed.
pub(super) struct Change<'a> {
    pub(super) head: &'a RequestHead,
    pub(super) endpoint: &'a Endpoint,
    /// The repository as the client writes it: what a `Location` begins with.
    pub(super) name: &'a PathName,
    /// The repository as it is kept; its upstream is `None`.
    pub(super) scope: &'a Scope,
    pub(super) peer: &'a Peer,
    /// Who may do this, as has been checked.
    pub(super) principal: &'a Principal,
}

impl Change<'_> {
    /// What the client is called; empty for somebody unknown.
    pub(super) fn principal_name(&self) -> &str {
        self.principal.name().unwrap_or_default()
    }

    /// Whether who pushes may read the hosted repository that a blob is to be mounted from; `name`
    /// as the client writes it.
    pub(super) fn may_pull_from(&self, api: &Api, name: &str, repository: &RepositoryName) -> bool {
        let wish = Wish { verb: Verb::Pull, name, target: Place::Hosted(repository) };
        api.access().check(self.principal, &wish).is_ok()
    }
}

/// Answers it.
pub(super) async fn answer(
    api: &Api,
    change: &Change<'_>,
    body: &mut Inlet<'_>,
    facts: Facts,
) -> Answer {
    let method = change.head.method;
    match (&change.endpoint.target, method) {
        (Target::Upload { session, asked, .. }, _) => {
            push_blob::upload(api, change, (session.as_deref(), asked), body, facts).await
        }
        (Target::Blob { digest, .. }, Method::Delete) => {
            push_blob::delete(api, change, digest, facts).await
        }
        (Target::Manifest { reference, .. }, Method::Put) => {
            push_manifest::put(api, change, reference, body, facts).await
        }
        (Target::Manifest { reference, .. }, Method::Delete) => {
            push_manifest::delete(api, change, reference, facts).await
        }
        (Target::Manifest { .. }, _) => {
            Refusal::method(method, "GET, HEAD, PUT, DELETE").answer(facts)
        }
        (Target::Blob { .. }, _) => Refusal::method(method, "GET, HEAD, DELETE").answer(facts),
        _ => Refusal::method(method, "GET, HEAD").answer(facts),
    }
}
