//! Putting and deleting manifests and tags.

use super::answer::{Answer, Facts};
use super::push::Change;
use super::refusal::Refusal;
use super::router::Api;
use crate::oci::Reference;
use crate::transfer::Inlet;

/// Stores a manifest.
pub(super) async fn put(
    _api: &Api,
    change: &Change<'_>,
    _reference: &Reference,
    _body: &mut Inlet<'_>,
    facts: Facts,
) -> Answer {
    Refusal::method(change.head.method, "GET, HEAD").answer(facts)
}

/// Deletes a tag, or a manifest.
pub(super) async fn delete(
    _api: &Api,
    change: &Change<'_>,
    _reference: &Reference,
    facts: Facts,
) -> Answer {
    Refusal::method(change.head.method, "GET, HEAD").answer(facts)
}
