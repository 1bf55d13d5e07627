//! Lists of what is hosted: tags, referrers and the catalog, a page at a time.

use serde::Serialize;

use super::access::{Place, Wish};
use super::answer::{Answer, Facts};
use super::refusal::Refusal;
use super::router::Api;
use crate::auth::{Principal, Verb};
use crate::oci::{Endpoint, PathName, Scope, Target, media_type};
use crate::registry::{PageAsk, PullError};
use crate::telemetry::RouteKind;

#[derive(Serialize)]
struct Tags<'a> {
    name: &'a str,
    tags: Vec<&'a str>,
}

#[derive(Serialize)]
struct Repositories<'a> {
    repositories: Vec<&'a str>,
}

/// The page of tags or referrers of a hosted repository that the endpoint asks for.
pub(super) async fn answer(
    api: &Api,
    (endpoint, name): (&Endpoint, &PathName),
    scope: &Scope,
    facts: Facts,
) -> Result<Answer, PullError> {
    let registry = api.registry();
    let (path, body, content_type, next) = match &endpoint.target {
        Target::TagsList { n, last, .. } => {
            let page = registry.hosted_tags(scope, &PageAsk { n: *n, last: last.clone() }).await?;
            let tags = page.names.iter().map(|tag| tag.as_str()).collect();
            let body = json(&Tags { name: name.as_str(), tags })?;
            let next = page.names.last().filter(|_| page.has_more).map(ToString::to_string);
            (format!("/v2/{name}/tags/list"), body, media_type::JSON, next)
        }
        Target::Referrers { digest, artifact_type, n, last, .. } => {
            let ask = PageAsk { n: *n, last: last.clone() };
            let artifact_type = artifact_type.as_deref();
            let page = registry.hosted_referrers(scope, digest, artifact_type, &ask).await?;
            let next = page.next.map(|last| last.to_string());
            (format!("/v2/{name}/referrers/{digest}"), page.document, media_type::OCI_INDEX, next)
        }
        _ => return Err(PullError::Internal(format!("{name}: no list is asked for"))),
    };
    let answer = Answer::new(200, facts).memory(content_type, body);
    let is_filtered = matches!(&endpoint.target, Target::Referrers { artifact_type: Some(_), .. });
    let answer = match is_filtered {
        true => answer.header("OCI-Filters-Applied", "artifactType"),
        false => answer,
    };
    Ok(linked(answer, endpoint, &path, next.as_deref()))
}

/// The page of hosted repositories that the endpoint asks for, those that the client may pull.
pub(super) async fn catalog(api: &Api, endpoint: &Endpoint, principal: &Principal) -> Answer {
    let facts = Facts::by(principal, RouteKind::Other);
    let access = api.access();
    let wish = Wish { verb: Verb::Catalog, name: "", target: Place::Catalog };
    if let Err(refusal) = access.check(principal, &wish) {
        return refusal.answer(facts);
    }
    let Target::Catalog { n, last } = &endpoint.target else {
        return Refusal::from(PullError::Internal("no catalog is asked for".into())).answer(facts);
    };
    let ask = PageAsk { n: *n, last: last.clone() };
    let may_see = |repository: &_| access.may_see(principal, repository);
    let page = match api.registry().hosted_repositories(&ask, may_see).await {
        Ok(page) => page,
        Err(error) => return Refusal::from(error).answer(facts),
    };
    let repositories = page.names.iter().map(|name| name.as_str()).collect();
    let body = match json(&Repositories { repositories }) {
        Ok(body) => body,
        Err(error) => return Refusal::from(error).answer(facts),
    };
    let next = page.names.last().filter(|_| page.has_more).map(|name| name.as_str());
    let answer = Answer::new(200, facts).memory(media_type::JSON, body);
    linked(answer, endpoint, "/v2/_catalog", next)
}

/// With the address of the next page, when there is one.
fn linked(answer: Answer, endpoint: &Endpoint, path: &str, next: Option<&str>) -> Answer {
    let Some(last) = next else { return answer };
    let query = endpoint.page_behind(last);
    answer.header("Link", format!("<{path}?{query}>; rel=\"next\""))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, PullError> {
    serde_json::to_vec(value)
        .map_err(|error| PullError::Internal(format!("a list cannot be written: {error}")))
}
