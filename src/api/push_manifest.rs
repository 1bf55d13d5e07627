//! Putting and deleting manifests and tags.

use super::answer::{Answer, Facts};
use super::push::Change;
use super::refusal::Refusal;
use super::router::Api;
use crate::limits::MANIFEST_BYTES_MAX;
use crate::oci::{ErrorCode, Reference, tags_of};
use crate::registry::{ManifestPut, PushError};
use crate::transfer::Inlet;

/// Stores a manifest.
pub(super) async fn put(
    api: &Api,
    change: &Change<'_>,
    reference: &Reference,
    body: &mut Inlet<'_>,
    facts: Facts,
) -> Answer {
    match stored(api, change, reference, body, facts.clone()).await {
        Ok(answer) => answer,
        Err(refusal) => refusal.answer(facts),
    }
}

async fn stored(
    api: &Api,
    change: &Change<'_>,
    reference: &Reference,
    body: &mut Inlet<'_>,
    facts: Facts,
) -> Result<Answer, Refusal> {
    let Change { head, name, scope, .. } = change;
    let tags = tags_of(head.query())?;
    if reference.as_tag().is_some() && !tags.is_empty() {
        let message = "tag= names further tags of a manifest that is pushed by its digest";
        return Err(Refusal::new(400, ErrorCode::Unsupported, message));
    }
    let whole = body.whole(MANIFEST_BYTES_MAX).await.map_err(PushError::from)?;
    let bytes = whole.ok_or_else(|| {
        PushError::TooLarge(format!("a manifest has at most {MANIFEST_BYTES_MAX} bytes"))
    })?;
    let content_type = head.header_str("content-type");
    let accepted: Vec<String> = tags.iter().map(ToString::to_string).collect();
    let put = ManifestPut { reference, tags, content_type, bytes };
    let stored = api.registry().push_manifest(scope, put).await?;
    let mut answer = Answer::new(201, facts)
        .header("Location", format!("/v2/{name}/manifests/{}", stored.digest))
        .header("Docker-Content-Digest", stored.digest.to_string());
    if let Some(subject) = stored.subject {
        answer = answer.header("OCI-Subject", subject.to_string());
    }
    if !accepted.is_empty() {
        answer = answer.header("OCI-Tag", accepted.join(", "));
    }
    Ok(answer)
}

/// Deletes a tag, or a manifest.
pub(super) async fn delete(
    api: &Api,
    change: &Change<'_>,
    reference: &Reference,
    facts: Facts,
) -> Answer {
    match api.registry().delete_manifest(change.scope, reference).await {
        Ok(()) => Answer::new(202, facts),
        Err(error) => Refusal::from(error).answer(facts),
    }
}
