//! Asking an upstream for a list: pages of `tags/list` here, referrers beside it.

use bytes::Bytes;

use super::PullError;
use super::fetch_manifest::read_all;
use super::lists::{ListAsk, ListKind};
use super::state::Registry;
use crate::limits::RELAY_BYTES_MAX;
use crate::oci::Scope;
use crate::upstream::{Accept, Method, Request, Response};

/// Longest entity tag that is kept, in bytes.
const ETAG_BYTES_MAX: usize = 256;

/// What an upstream says of a list.
#[derive(Debug)]
pub(super) enum Asked {
    /// It is still as the entity tag says.
    Same {
        /// Seconds since a cache between us and the registry was told so.
        age: u64,
    },
    /// This, checked to be JSON.
    Document {
        body: Bytes,
        /// Query of the next page (from its `Link` header), without `ns`.
        next: Option<String>,
        /// What it calls this state of it.
        etag: Option<String>,
        /// Seconds that it has spent in caches on its way here.
        age: u64,
    },
}

impl Registry {
    /// Asks the upstream for a list, or whether it is still the one of this entity tag.
    pub(super) async fn ask_upstream_for_list(
        &self,
        scope: &Scope,
        ask: &ListAsk,
        etag: Option<String>,
    ) -> Result<Asked, PullError> {
        match &ask.kind {
            ListKind::Tags => self.ask_for_tags(scope, ask.query.clone(), etag).await,
            ListKind::Referrers { digest, artifact_type } => {
                let which = (digest, artifact_type.as_deref());
                self.ask_for_referrers(scope, which, ask.query.clone(), etag).await
            }
        }
    }

    async fn ask_for_tags(
        &self,
        scope: &Scope,
        query: Option<String>,
        etag: Option<String>,
    ) -> Result<Asked, PullError> {
        let path = format!("/v2/{}/tags/list", scope.repository);
        let mut response = self.ask_relay(scope, path, (query, etag), Accept::Any).await?;
        match response.status {
            200 => {
                let (next, etag) = (next_query(&response), entity_tag(&response));
                let age = response.age();
                let body = json_body(scope, "tags/list", &mut response).await?;
                Ok(Asked::Document { body, next, etag, age })
            }
            304 => Ok(Asked::Same { age: response.age() }),
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
        (query, if_none_match): (Option<String>, Option<String>),
        accept: Accept,
    ) -> Result<Response, PullError> {
        let Some(upstream) = &scope.upstream else { return Err(unknown(scope)) };
        let request = Request::new(Method::Get, path, scope.repository.clone());
        let request = Request { query, accept, if_none_match, ..request };
        self.client().exchange(upstream, request).await.map_err(|error| PullError::from(&error))
    }
}

fn unknown(scope: &Scope) -> PullError {
    PullError::NameUnknown(format!("the {scope} repository does not exist"))
}

/// The entity tag of an answer, if it can be sent back as it is.
pub(super) fn entity_tag(response: &Response) -> Option<String> {
    let tag = response.header("etag")?;
    let opaque = tag.strip_prefix("W/").unwrap_or(tag);
    let is_quoted = opaque.len() >= 2 && opaque.starts_with('"') && opaque.ends_with('"');
    let is_plain = tag.len() <= ETAG_BYTES_MAX && tag.bytes().all(|byte| byte.is_ascii_graphic());
    (is_quoted && is_plain).then(|| tag.to_owned())
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
