//! Answers that are passed on from the upstream: `tags/list` here, referrers beside it.

use bytes::Bytes;

use super::PullError;
use super::fetch_manifest::read_all;
use super::state::Registry;
use crate::limits::RELAY_BYTES_MAX;
use crate::oci::Scope;
use crate::upstream::{Accept, Method, Request, Response};

/// A document of the upstream, checked to be JSON.
#[derive(Debug, Clone)]
pub struct Relayed {
    /// The body.
    pub body: Bytes,
    /// Query of the next page (from its `Link` header), without `ns`.
    pub next: Option<String>,
    /// The filters the upstream says it has applied (`OCI-Filters-Applied`).
    pub filtered: bool,
}

impl Registry {
    /// A page of the tags of a mirrored repository, from its upstream. `query` is what to pass on
    /// (`n` and `last`, checked and encoded).
    ///
    /// # Errors
    /// As [`PullError`] says; hosted repositories have no tags yet.
    pub async fn list_tags(
        &self,
        scope: &Scope,
        query: Option<String>,
    ) -> Result<Relayed, PullError> {
        let path = format!("/v2/{}/tags/list", scope.repository);
        let mut response = self.ask_relay(scope, path, query, Accept::Any).await?;
        match response.status {
            200 => {
                let next = next_query(&response);
                let body = json_body(scope, "tags/list", &mut response).await?;
                Ok(Relayed { body, next, filtered: false })
            }
            404 => Err(PullError::NameUnknown(format!("{scope} does not exist"))),
            status => Err(PullError::UpstreamFailed(format!(
                "{scope} tags/list: unexpected status {status}"
            ))),
        }
    }

    pub(super) async fn ask_relay(
        &self,
        scope: &Scope,
        path: String,
        query: Option<String>,
        accept: Accept,
    ) -> Result<Response, PullError> {
        let Some(upstream) = &scope.upstream else {
            return Err(PullError::NameUnknown(format!("the {scope} repository does not exist")));
        };
        let request =
            Request { query, accept, ..Request::new(Method::Get, path, scope.repository.clone()) };
        self.client().exchange(upstream, request).await.map_err(|error| PullError::from(&error))
    }
}

/// The body, at most [`RELAY_BYTES_MAX`], if it is a JSON object.
pub(super) async fn json_body(
    scope: &Scope,
    what: &str,
    response: &mut Response,
) -> Result<Bytes, PullError> {
    let body = read_all(response, RELAY_BYTES_MAX).await.map_err(|error| {
        error.unwrap_or_else(|| {
            PullError::UpstreamFailed(format!(
                "{scope} {what}: more than {RELAY_BYTES_MAX} bytes; ask for smaller pages with n="
            ))
        })
    })?;
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&body) {
        Ok(_) => Ok(body),
        Err(error) => Err(PullError::UpstreamFailed(format!(
            "{scope} {what}: expected a JSON object: {error}"
        ))),
    }
}

/// The query of the `Link: <...?query>; rel="next"` header.
pub(super) fn next_query(response: &Response) -> Option<String> {
    let value = response.headers.get("link")?.to_str().ok()?;
    next_query_of(value)
}

fn next_query_of(link: &str) -> Option<String> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.split(';').any(|parameter| {
        let parameter = parameter.trim().to_ascii_lowercase();
        parameter == "rel=\"next\"" || parameter == "rel=next"
    });
    let (_, query) = target.split_once('?')?;
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| pair.split('=').next() != Some("ns") && !pair.is_empty())
        .filter(|pair| pair.bytes().all(|byte| byte.is_ascii_graphic()))
        .filter(|pair| !pair.contains(['<', '>', '"']))
        .collect();
    (is_next && !kept.is_empty()).then(|| kept.join("&"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_taken_from_the_link_without_ns() {
        for (link, expected) in [
            ("</v2/a/tags/list?last=x&n=2>; rel=\"next\"", Some("last=x&n=2")),
            ("<https://r.example/v2/a/tags/list?ns=b&n=2>; rel=next", Some("n=2")),
            ("</v2/a/tags/list?n=2>; title=x; REL=\"NEXT\"", Some("n=2")),
            ("</v2/a/tags/list?n=2>; rel=\"prev\"", None),
            ("</v2/a/tags/list>; rel=\"next\"", None),
            ("</v2/a/tags/list?ns=b>; rel=\"next\"", None),
            ("</v2/a?n=2\u{7f}>; rel=\"next\"", None),
            ("n=2", None),
            ("", None),
        ] {
            assert_eq!(next_query_of(link).as_deref(), expected, "{link}");
        }
    }
}
