//! Referrers of a mirrored manifest: by the upstream's API, or, where it has none, by the tag
//! schema (distribution-spec, "Unavailable Referrers API").

use bytes::Bytes;
use serde_json::{Value, json};

use super::PullError;
use super::fetch_manifest::read_all;
use super::relay::{Asked, entity_tag, json_body, next_query};
use super::state::Registry;
use crate::limits::MANIFEST_BYTES_MAX;
use crate::oci::{Digest, Scope, Tag, media_type};
use crate::upstream::Accept;

impl Registry {
    /// What refers to a digest, as an image index; empty when nothing does. With an artifact type
    /// only descriptors of that type are listed, whether or not the upstream filters.
    pub(super) async fn ask_for_referrers(
        &self,
        scope: &Scope,
        (digest, artifact_type): (&Digest, Option<&str>),
        query: Option<String>,
        etag: Option<String>,
    ) -> Result<Asked, PullError> {
        let path = format!("/v2/{}/referrers/{digest}", scope.repository);
        let mut response = self.ask_relay(scope, path, (query, etag), Accept::Any).await?;
        let age = response.age();
        let (document, next, etag) = match response.status {
            200 => {
                let (next, etag) = (next_query(&response), entity_tag(&response));
                let body = json_body(scope, "referrers", &mut response).await?;
                (parse_index(scope, digest, &body)?, next, etag)
            }
            304 => return Ok(Asked::Same { age: response.age() }),
            // No referrers API there: the list may be kept under a tag made of the digest.
            404 | 405 | 400 => (self.referrers_by_tag(scope, digest).await?, None, None),
            status => {
                return Err(PullError::UpstreamFailed(format!(
                    "{scope} referrers of {digest}: unexpected status {status}"
                )));
            }
        };
        Ok(Asked::Document { body: filtered(document, artifact_type), next, etag, age })
    }

    async fn referrers_by_tag(&self, scope: &Scope, digest: &Digest) -> Result<Value, PullError> {
        let tag = Tag::referrers_fallback(digest);
        let path = format!("/v2/{}/manifests/{tag}", scope.repository);
        let mut response = self.ask_relay(scope, path, (None, None), Accept::Manifests).await?;
        match response.status {
            200 => {
                let body = read_all(&mut response, MANIFEST_BYTES_MAX).await.map_err(|error| {
                    error.unwrap_or_else(|| {
                        PullError::UpstreamFailed(format!(
                            "{scope}:{tag}: more than {MANIFEST_BYTES_MAX} bytes"
                        ))
                    })
                })?;
                parse_index(scope, digest, &body)
            }
            404 => Ok(no_referrers()),
            status => {
                Err(PullError::UpstreamFailed(format!("{scope}:{tag}: unexpected status {status}")))
            }
        }
    }
}

pub(super) fn no_referrers() -> Value {
    json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [] })
}

fn parse_index(scope: &Scope, digest: &Digest, body: &[u8]) -> Result<Value, PullError> {
    let bad =
        |what: String| PullError::UpstreamFailed(format!("{scope} referrers of {digest}: {what}"));
    let document: Value = serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
    if document.get("manifests").is_some_and(Value::is_array) {
        Ok(document)
    } else {
        Err(bad("expected an image index with a list `manifests`".into()))
    }
}

/// The document with only the descriptors of the wanted type.
fn filtered(mut document: Value, artifact_type: Option<&str>) -> Bytes {
    if let Some(wanted) = artifact_type
        && let Some(manifests) = document.get_mut("manifests").and_then(Value::as_array_mut)
    {
        manifests.retain(|entry| entry.get("artifactType").and_then(Value::as_str) == Some(wanted));
    }
    Bytes::from(document.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_keeps_only_the_wanted_type() {
        let document = json!({ "manifests": [
            { "digest": "a", "artifactType": "x/sbom" },
            { "digest": "b", "artifactType": "x/sig" },
            { "digest": "c" },
        ]});
        let digests = |artifact_type| {
            let body: Value =
                serde_json::from_slice(&filtered(document.clone(), artifact_type)).unwrap();
            let list = body["manifests"].as_array().unwrap().clone();
            list.iter().map(|e| e["digest"].as_str().unwrap().to_owned()).collect::<String>()
        };
        assert_eq!(digests(None), "abc");
        assert_eq!(digests(Some("x/sig")), "b");
        assert_eq!(digests(Some("none")), "");
    }
}
