//! `tags/list` and referrers: documents of the upstream under our own addresses.

use super::answer::{Answer, Facts};
use crate::oci::{Digest, Endpoint, PathName, Scope, media_type};
use crate::registry::{PullError, Registry, Relayed};

pub(super) async fn tags(
    registry: &Registry,
    endpoint: &Endpoint,
    name: &PathName,
    scope: &Scope,
    facts: Facts,
) -> Result<Answer, PullError> {
    let relayed = registry.list_tags(scope, endpoint.query_without_ns.clone()).await?;
    let path = format!("/v2/{name}/tags/list");
    Ok(document(endpoint, &path, media_type::JSON, relayed, facts))
}

pub(super) async fn referrers(
    registry: &Registry,
    endpoint: &Endpoint,
    (name, digest, artifact_type): (&PathName, &Digest, Option<&str>),
    scope: &Scope,
    facts: Facts,
) -> Result<Answer, PullError> {
    let query = endpoint.query_without_ns.clone();
    let relayed = registry.list_referrers(scope, digest, artifact_type, query).await?;
    let path = format!("/v2/{name}/referrers/{digest}");
    let is_filtered = relayed.filtered;
    let answer = document(endpoint, &path, media_type::OCI_INDEX, relayed, facts);
    Ok(if is_filtered { answer.header("OCI-Filters-Applied", "artifactType") } else { answer })
}

/// The document, with the next page under the address that the client used.
fn document(
    endpoint: &Endpoint,
    path: &str,
    content_type: &'static str,
    relayed: Relayed,
    facts: Facts,
) -> Answer {
    let answer = Answer::new(200, facts).memory(content_type, relayed.body);
    let Some(next) = relayed.next else { return answer };
    let ns = endpoint.ns.as_ref().map(|ns| format!("&ns={}", ns.as_str().replace(':', "%3A")));
    let link = format!("<{path}?{next}{}>; rel=\"next\"", ns.unwrap_or_default());
    answer.header("Link", link)
}
