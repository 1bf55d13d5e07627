//! Putting and deleting manifests and tags.

use std::cell::Cell;

use super::answer::{Answer, Facts};
use super::push::Change;
use super::refusal::Refusal;
use super::router::Api;
use crate::limits::{LARGE_MANIFESTS_MAX, MANIFEST_BYTES_MAX};
use crate::oci::{ErrorCode, Reference, tags_of};
use crate::registry::{ManifestPut, PushError};
use crate::transfer::{Inlet, Whole};

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
    // Held until it is stored.
    let mut permit = None;
    let whole = body.whole(MANIFEST_BYTES_MAX, || {
        permit = LargeManifest::begin();
        permit.is_some()
    });
    let bytes = match whole.await.map_err(PushError::from)? {
        Whole::Bytes(bytes) => bytes,
        Whole::TooLarge => {
            let message = format!("a manifest has at most {MANIFEST_BYTES_MAX} bytes");
            return Err(PushError::TooLarge(message).into());
        }
        Whole::NotNow => {
            let message = format!("{LARGE_MANIFESTS_MAX} large manifests are being pushed already");
            return Err(PushError::Busy(message).into());
        }
    };
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

thread_local! {
    static LARGE_MANIFESTS: Cell<usize> = const { Cell::new(0) };
}

/// One of the large manifests that this worker may hold in memory at a time.
struct LargeManifest;

impl LargeManifest {
    fn begin() -> Option<Self> {
        let under_way = LARGE_MANIFESTS.get();
        let may_begin = under_way < LARGE_MANIFESTS_MAX;
        may_begin.then(|| {
            LARGE_MANIFESTS.set(under_way + 1);
            Self
        })
    }
}

impl Drop for LargeManifest {
    fn drop(&mut self) {
        LARGE_MANIFESTS.set(LARGE_MANIFESTS.get().saturating_sub(1));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn so_many_and_again_when_one_has_ended() {
        let mut held: Vec<_> =
            (0..LARGE_MANIFESTS_MAX).map(|_| LargeManifest::begin().unwrap()).collect();
        assert!(LargeManifest::begin().is_none());
        held.pop();
        assert!(LargeManifest::begin().is_some());
        drop(held);
        assert_eq!(LARGE_MANIFESTS.get(), 0);
    }
}
