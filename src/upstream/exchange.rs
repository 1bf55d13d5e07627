//! One exchange with one endpoint: sign in, follow redirects, check what came.

use std::rc::Rc;
use std::sync::Arc;

use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HOST, HeaderValue, IF_NONE_MATCH, LOCATION,
    PROXY_AUTHORIZATION, RANGE, USER_AGENT, VIA,
};
use hyper::http::response::Parts;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::body::{Body, Lease};
use super::client::Inner;
use super::connection::{Reply, Sender, met_closing};
use super::dial::{dial, timed_out, with_causes};
use super::error::{Phase, UpstreamError};
use super::message::{Accept, ContentRange, Method, Request, Response};
use super::outgoing::{Outgoing, Progress};
use super::pool::PoolKey;
use super::proxy::Form;
use super::redirect::{Chain, is_redirect};
use super::reply::{self, Mismatch};
use super::set::{Endpoint, Upstream};
use super::sign_in::{Place, Proof};
use super::url::Url;
use super::via::Hops;
use crate::limits::REDIRECTS_MAX;
use crate::oci::media_type::MANIFEST_ACCEPT;
use crate::runtime::clock;

/// How we name ourselves.
pub(super) const USER_AGENT_VALUE: &str = concat!("ringport/", env!("CARGO_PKG_VERSION"));

/// Requests for one exchange: without proof, with a token that turns out to be stale, with a new
/// one.
const SIGN_INS_MAX: usize = 3;

/// Characters of a namespace that need no encoding in a query.
const NS_VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A reply at the end of a redirect chain.
struct Arrived {
    head: Parts,
    body: Body,
    content_length: Option<u64>,
    url: Url,
    /// Whether the endpoint itself wrote it.
    is_home: bool,
}

impl Inner {
    /// Asks the endpoint at `index`.
    pub(super) async fn exchange_at(
        &self,
        upstream: &Arc<Upstream>,
        index: usize,
        request: &Request,
    ) -> Result<Response, UpstreamError> {
        let endpoint = upstream
            .endpoints
            .get(index)
            .ok_or_else(|| upstream.internal(format!("there is no endpoint {index}")))?;
        let url = address_of(upstream, endpoint, request)?;
        let place = Place { upstream, index, endpoint, repository: &request.repository };
        let began = clock::now();
        let mut proof = self.sign_ins.ahead(&self.shared, &place).await?;
        for _ in 0..SIGN_INS_MAX {
            let arrived = self.follow((upstream, endpoint), &url, request, &proof).await?;
            if arrived.head.status != 401 || !arrived.is_home {
                return respond(upstream, endpoint, request, arrived);
            }
            arrived.body.drain().await;
            let headers = &arrived.head.headers;
            proof = self.sign_ins.answer(&self.shared, &place, headers, &proof, began).await?;
        }
        Err(place.denied("it asked again and again to sign in"))
    }

    /// Sends the request and follows redirects by hand: `Authorization` and `If-None-Match` stay
    /// with the endpoint, `Range` goes along.
    async fn follow(
        &self,
        (upstream, endpoint): (&Arc<Upstream>, &Endpoint),
        url: &Url,
        request: &Request,
        proof: &Proof,
    ) -> Result<Arrived, UpstreamError> {
        let mut chain = Chain::new(url.clone());
        let via = Hops::current().field(upstream.forward_ns.is_some());
        loop {
            let form = Form::of(upstream, &chain.url).await?;
            let make = || message((&chain, &form), request, proof, &via);
            let progress = Progress::within(upstream.timeouts.first_byte);
            let sent = self.send(upstream, &chain.url, &progress, make).await;
            let status = sent.as_ref().ok().map(|(reply, _)| reply.status().as_u16());
            self.shared.observer.upstream_request(&upstream.namespace, request.method, status);
            let (reply, lease) = sent?;
            if chain.is_home {
                let (status, headers) = (reply.status().as_u16(), reply.headers());
                let (login, counts) = (&upstream.login, request.counts());
                self.shared.governor.answered(login, counts, status, headers);
            }
            let arrived = self.arrive((upstream, endpoint), &chain, request, reply, lease)?;
            if !is_redirect(arrived.head.status) {
                return Ok(arrived);
            }
            let mut locations = arrived.head.headers.get_all(LOCATION).iter();
            let location = match (locations.next(), locations.next()) {
                (Some(one), None) => one.to_str().ok(),
                _ => None,
            };
            chain.follow(location, REDIRECTS_MAX).map_err(|reason| UpstreamError::Redirect {
                at: upstream.site(&arrived.url),
                reason,
            })?;
            arrived.body.drain().await;
        }
    }

    /// One request, on an idle connection if there is one. A reused connection that the server was
    /// closing is replaced by a new one, once: what `make` makes may be repeated. The head must
    /// come within the limit of `progress`, which the request's own body moves on.
    pub(super) async fn send(
        &self,
        upstream: &Upstream,
        url: &Url,
        progress: &Progress,
        make: impl Fn() -> Result<hyper::Request<Outgoing>, hyper::http::Error>,
    ) -> Result<(Reply, Lease), UpstreamError> {
        let key = PoolKey { upstream: upstream.namespace.clone(), origin: url.origin.clone() };
        let message = || {
            progress.note();
            make().map_err(|error| upstream.internal(error))
        };
        let lease =
            |sender: Sender, key: PoolKey| Lease { sender, key, pool: Some(Rc::clone(&self.pool)) };
        let limit = progress.limit();
        if let Some(mut sender) = self.pool.take(&key).await {
            match progress.bound(sender.send_request(message()?)).await {
                Ok(Ok(reply)) => return Ok((reply, lease(sender, key))),
                Ok(Err(error)) if met_closing(&error) => {}
                Ok(Err(error)) => return Err(failed(upstream, url, &error)),
                Err(_) => return Err(timed_out(upstream, url, Phase::FirstByte, limit)),
            }
        }
        let mut sender = dial(&self.shared, upstream, url).await?;
        match progress.bound(sender.send_request(message()?)).await {
            Ok(Ok(reply)) => Ok((reply, lease(sender, key))),
            Ok(Err(error)) => Err(failed(upstream, url, &error)),
            Err(_) => Err(timed_out(upstream, url, Phase::FirstByte, limit)),
        }
    }

    fn arrive(
        &self,
        (upstream, endpoint): (&Upstream, &Endpoint),
        chain: &Chain,
        request: &Request,
        reply: Reply,
        lease: Lease,
    ) -> Result<Arrived, UpstreamError> {
        let (head, incoming) = reply.into_parts();
        let content_length = reply::content_length(&head.headers, head.version)
            .map_err(|mismatch| protocol(upstream, &chain.url, mismatch))?;
        let has_body = request.method == Method::Get && head.status != 304;
        let body = Body::new(
            incoming,
            lease,
            upstream.site(&chain.url),
            content_length.filter(|_| has_body),
            upstream.timeouts.stall,
            self.shared.observer.clone(),
            Some((self.shared.health.clone(), endpoint.name.clone())),
        );
        let (url, is_home) = (chain.url.clone(), chain.is_home);
        Ok(Arrived { head, body, content_length, url, is_home })
    }
}

/// Makes a response of what arrived, or the error that its status stands for.
fn respond(
    upstream: &Upstream,
    endpoint: &Endpoint,
    request: &Request,
    mut arrived: Arrived,
) -> Result<Response, UpstreamError> {
    let content_range = match judge(upstream, request, &arrived) {
        Ok(content_range) => content_range,
        Err(error) => {
            if matches!(error, UpstreamError::Protocol { .. }) {
                arrived.body.abandon();
            }
            return Err(error);
        }
    };
    Ok(Response {
        status: arrived.head.status.as_u16(),
        headers: arrived.head.headers,
        content_length: arrived.content_length,
        content_range,
        endpoint: endpoint.name.clone(),
        body: arrived.body,
    })
}

/// The content range of a 206, nothing for other answers, an error for what is none.
fn judge(
    upstream: &Upstream,
    request: &Request,
    arrived: &Arrived,
) -> Result<Option<ContentRange>, UpstreamError> {
    let Arrived { head, content_length, url, is_home, .. } = arrived;
    let at = upstream.site(url);
    let broken = |mismatch| protocol(upstream, url, mismatch);
    let retry_after = || reply::retry_after(&head.headers);
    match head.status.as_u16() {
        200 => {
            reply::check_encoding(&head.headers).map_err(broken)?;
            Ok(None)
        }
        206 => {
            reply::check_encoding(&head.headers).map_err(broken)?;
            let range = reply::content_range(&head.headers, request.range, *content_length);
            range.map(Some).map_err(broken)
        }
        304 if request.if_none_match.is_some() => Ok(None),
        status @ (401 | 403) if !is_home => {
            let reason = format!("its target answered with status {status}");
            Err(UpstreamError::Redirect { at, reason })
        }
        status @ (401 | 403) => {
            let reason = "the credentials in use, or none, do not open it".to_owned();
            Err(UpstreamError::Denied { at, status, reason })
        }
        // Only a proxy says so, and what it says is no answer of the upstream.
        status @ 407 => Err(UpstreamError::Failed { at, status, retry_after: None }),
        429 => Err(UpstreamError::RateLimited { at, retry_after: retry_after() }),
        status @ (408 | 500..=599) => {
            Err(UpstreamError::Failed { at, status, retry_after: retry_after() })
        }
        400..=499 => Ok(None),
        status => Err(broken(("200, 206, 304 or an error status", format!("status {status}")))),
    }
}

/// The request as it goes on the wire.
fn message(
    (chain, form): (&Chain, &Form),
    request: &Request,
    proof: &Proof,
    via: &str,
) -> Result<hyper::Request<Outgoing>, hyper::http::Error> {
    let accept = match request.accept {
        Accept::Manifests => MANIFEST_ACCEPT,
        Accept::Any => "*/*",
    };
    let mut message = hyper::Request::builder()
        .method(request.method.as_str())
        .uri(form.target.as_str())
        .header(HOST, chain.url.origin.authority())
        .header(USER_AGENT, USER_AGENT_VALUE)
        .header(VIA, via)
        .header(ACCEPT, accept)
        .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(range) = request.range {
        message = message.header(RANGE, format!("bytes={range}"));
    }
    if let Some(login) = &form.authorization {
        message = message.header(PROXY_AUTHORIZATION, login);
    }
    if chain.is_home {
        if let Some(tag) = &request.if_none_match {
            message = message.header(IF_NONE_MATCH, tag);
        }
        if let Some(proof) = proof.header() {
            message = message.header(AUTHORIZATION, proof);
        }
    }
    message.body(Outgoing::none())
}

/// Where a request goes at `endpoint`: its prefix, the path, and the query with our `ns` or none.
fn address_of(
    upstream: &Upstream,
    endpoint: &Endpoint,
    request: &Request,
) -> Result<Url, UpstreamError> {
    let refused = |reason: &str| UpstreamError::Request {
        upstream: upstream.namespace.clone(),
        reason: reason.to_owned(),
    };
    let is_dots = |segment: &str| matches!(segment, "." | "..");
    if !request.path.starts_with("/v2/")
        || request.path.contains(['?', '#', '%', '\\'])
        || request.path.split('/').any(is_dots)
    {
        return Err(refused("expected a plain path below /v2/"));
    }
    let is_ns = |pair: &&str| {
        let key = pair.split('=').next().unwrap_or_default();
        percent_decode_str(key).eq(b"ns".iter().copied())
    };
    let given = request.query.as_deref().unwrap_or_default();
    let mut pairs: Vec<String> = given
        .split('&')
        .filter(|pair| !pair.is_empty() && !is_ns(pair))
        .map(str::to_owned)
        .collect();
    if let Some(namespace) = &upstream.forward_ns {
        let ns = utf8_percent_encode(namespace.as_str(), NS_VALUE);
        pairs.push(format!("ns={ns}"));
    }
    let mark = if pairs.is_empty() { "" } else { "?" };
    let target = format!("{}{}{mark}{}", endpoint.path, request.path, pairs.join("&"));
    if target.contains('#') {
        return Err(refused("expected a query without a fragment"));
    }
    Url::new(endpoint.origin.clone(), &target).map_err(|error| refused(&error.to_string()))
}

/// What hyper's error says of an exchange.
pub(super) fn failed(upstream: &Upstream, url: &Url, error: &hyper::Error) -> UpstreamError {
    match error.is_parse() {
        true => protocol(upstream, url, ("a well-formed HTTP/1.1 response", with_causes(error))),
        // A body of ours that could not be read.
        false if error.is_user() => upstream.internal(with_causes(error)),
        false => UpstreamError::Closed { at: upstream.site(url), reason: with_causes(error) },
    }
}

pub(super) fn protocol(
    upstream: &Upstream,
    url: &Url,
    (expected, found): Mismatch,
) -> UpstreamError {
    UpstreamError::Protocol { at: upstream.site(url), expected, found }
}
