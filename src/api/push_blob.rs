//! Uploads of blobs, and deleting blobs.

use super::answer::{Answer, Facts};
use super::push::Change;
use super::refusal::Refusal;
use super::router::Api;
use crate::oci::Digest;
use crate::transfer::Inlet;

/// One request of an upload session, or the one that opens it.
pub(super) async fn upload(
    _api: &Api,
    change: &Change<'_>,
    _body: &mut Inlet<'_>,
    facts: Facts,
) -> Answer {
    Refusal::method(change.head.method, "").answer(facts)
}

/// Deletes a blob from its repository.
pub(super) async fn delete(
    _api: &Api,
    change: &Change<'_>,
    _digest: &Digest,
    facts: Facts,
) -> Answer {
    Refusal::method(change.head.method, "GET, HEAD").answer(facts)
}
