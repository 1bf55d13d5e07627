//! `tags/list` and referrers: documents of the upstream under our own addresses.

use super::answer::{Answer, Facts};
use super::content::found_status;
use super::refusal::warning;
use crate::oci::{Endpoint, PathName, Target, media_type};
use crate::registry::{List, ListAsk, ListKind};
use crate::telemetry::CacheResult;

/// Which list a target names, if it names one.
pub(super) fn wanted(endpoint: &Endpoint) -> Option<ListAsk> {
    let kind = match &endpoint.target {
        Target::TagsList { .. } => ListKind::Tags,
        Target::Referrers { digest, artifact_type, .. } => {
            ListKind::Referrers { digest: *digest, artifact_type: artifact_type.clone() }
        }
        _ => return None,
    };
    Some(ListAsk { kind, query: endpoint.query_without_ns.clone() })
}

/// The document, with the next page under the address that the client used.
pub(super) fn answer(
    endpoint: &Endpoint,
    (name, ask): (&PathName, &ListAsk),
    list: List,
    mut facts: Facts,
) -> Answer {
    facts.cache = list.cache;
    let (path, content_type, filter) = match &ask.kind {
        ListKind::Tags => (format!("/v2/{name}/tags/list"), media_type::JSON, None),
        ListKind::Referrers { digest, artifact_type } => {
            let path = format!("/v2/{name}/referrers/{digest}");
            (path, media_type::OCI_INDEX, artifact_type.as_deref())
        }
    };
    let mut answer = Answer::new(200, facts).memory(content_type, list.body);
    if filter.is_some() {
        answer = answer.header("OCI-Filters-Applied", "artifactType");
    }
    let cache_status = match (list.cache, list.is_kept) {
        (CacheResult::Miss, false) => "ringport; fwd=miss".into(),
        (cache, _) => found_status(cache, list.overdue),
    };
    answer = answer.header("Cache-Status", cache_status).header("Age", list.age);
    if let Some(text) = &list.warning {
        answer = answer.header("Warning", warning(text));
    }
    let Some(next) = list.next else { return answer };
    let next = endpoint.next_page(&next);
    answer.header("Link", format!("<{path}?{next}>; rel=\"next\""))
}
