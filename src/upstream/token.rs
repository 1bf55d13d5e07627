//! Bearer tokens: fetched from the realm, kept for all workers, one fetch at a time.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, HOST, HeaderValue, PROXY_AUTHORIZATION,
    USER_AGENT,
};
use hyper::http::response::Parts;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::body::{Body, Lease};
use super::connection::Reply;
use super::credentials::sensitive;
use super::dial::{dial, timed_out};
use super::error::{Phase, UpstreamError};
use super::exchange::{USER_AGENT_VALUE, failed};
use super::issued::Issued;
use super::outgoing::Outgoing;
use super::pool::PoolKey;
use super::proxy::Form;
use super::set::Upstream;
use super::shards::{Perishable, Shards};
use super::shared::Shared;
use super::url::Url;
use super::{reply, token_reply};
use crate::limits::TOKEN_BYTES_MAX;
use crate::oci::Namespace;
use crate::runtime::{SingleFlight, Workers, clock, timeout};

/// Tokens kept by each worker: one a repository and upstream in use.
const TOKENS_MAX: usize = 4096;
/// A token is renewed this long before it dies, or a tenth of its life if that is shorter.
const RENEW_AHEAD: Duration = Duration::from_secs(10);
/// How long a refusal is not asked for again.
const REFUSAL_KEPT: Duration = Duration::from_secs(5);
/// Everything but the unreserved characters of RFC 3986.
const QUERY_VALUE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a token is for and whose it is. No `Debug`: the realm may have a query.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct TokenKey {
    pub(super) upstream: Namespace,
    /// The user the token is for; `None` is anonymous.
    pub(super) identity: Option<Arc<str>>,
    /// Address of the token service, as the challenge has it.
    pub(super) realm: Arc<str>,
    pub(super) service: Option<Arc<str>>,
    /// Space-separated.
    pub(super) scope: Arc<str>,
}

/// A bearer token, ready to be sent.
pub(super) struct Token {
    pub(super) header: HeaderValue,
    /// When it was asked for: a token younger than an exchange is not to blame for its 401.
    pub(super) fetched: Instant,
    renew_at: Instant,
}

/// What a token service answers, before it is read.
type TokenReply = (Parts, Body);

type TokenResult = Result<Arc<Token>, UpstreamError>;

/// The tokens of all workers.
pub(super) struct TokenStore {
    flights: SingleFlight<TokenKey, TokenResult>,
    kept: Shards<TokenKey, Kept>,
}

#[derive(Clone)]
enum Kept {
    Granted(Arc<Token>),
    Refused { until: Instant, error: UpstreamError },
}

impl Perishable for Kept {
    fn perishes(&self) -> Instant {
        match self {
            Self::Granted(token) => token.renew_at,
            Self::Refused { until, .. } => *until,
        }
    }
}

impl TokenStore {
    pub(super) fn new(workers: &Workers) -> Self {
        Self {
            flights: SingleFlight::new(workers.clone()),
            kept: Shards::new(workers.clone(), TOKENS_MAX),
        }
    }
}

/// The token for `key` from `realm` (which `realm::check` passed): a kept one, or a new one that
/// all who want it meanwhile share. A kept one that is `rejected` (a 401 came back) is not used
/// again.
///
/// # Errors
/// `Denied` when the service refuses us, `Token`, or what dialling it gave.
pub(super) async fn obtain(
    shared: &Arc<Shared>,
    upstream: &Arc<Upstream>,
    key: &TokenKey,
    realm: &Url,
    rejected: Option<&Arc<Token>>,
) -> TokenResult {
    // Twice: a flight that began before the rejection was known may end with the rejected token.
    for _ in 0..2 {
        let work = Fetch {
            shared: shared.clone(),
            upstream: upstream.clone(),
            key: key.clone(),
            realm: realm.clone(),
            rejected: rejected.cloned(),
        };
        let flight = shared.tokens.flights.run(key.clone(), move || work.kept_or_new());
        let token = flight.await.map_err(|error| upstream.internal(error))??;
        if !rejected.is_some_and(|rejected| Arc::ptr_eq(rejected, &token)) {
            return Ok(token);
        }
    }
    Err(UpstreamError::Token {
        at: upstream.site(realm),
        reason: "expected a new token, found the rejected one".to_owned(),
    })
}

/// One look for a token, on the worker that owns the key.
struct Fetch {
    shared: Arc<Shared>,
    upstream: Arc<Upstream>,
    key: TokenKey,
    realm: Url,
    rejected: Option<Arc<Token>>,
}

impl Fetch {
    async fn kept_or_new(self) -> TokenResult {
        let is_rejected =
            |token: &Arc<Token>| self.rejected.as_ref().is_some_and(|r| Arc::ptr_eq(r, token));
        let now = clock::now();
        match self.shared.tokens.kept.find(&self.key) {
            Some(Kept::Granted(token)) if now < token.renew_at && !is_rejected(&token) => {
                return Ok(token);
            }
            Some(Kept::Refused { until, error }) if now < until => return Err(error),
            _ => {}
        }
        let fetched = self.fetch().await;
        let kept = match &fetched {
            Ok(token) => Some(Kept::Granted(token.clone())),
            Err(error @ (UpstreamError::Denied { .. } | UpstreamError::RateLimited { .. })) => {
                Some(Kept::Refused { until: clock::now() + REFUSAL_KEPT, error: error.clone() })
            }
            Err(_) => None,
        };
        if let Some(kept) = kept {
            self.shared.tokens.kept.keep(self.key, kept);
        }
        fetched
    }

    async fn fetch(&self) -> TokenResult {
        let fetched = clock::now();
        let (head, mut body) = match self.ask_as(None).await? {
            // A command may know better by now.
            ((head, body), Some(issued)) if is_denied(&head) && issued.fetched < fetched => {
                body.drain().await;
                self.ask_as(Some(&issued)).await?.0
            }
            (reply, _) => reply,
        };
        self.check_status(&head)?;
        let limit = self.upstream.timeouts.first_byte;
        let text = timeout(limit, body.collect(TOKEN_BYTES_MAX))
            .await
            .map_err(|_| self.failed("its reply took too long"))??;
        let granted = token_reply::parse(&text, clock::unix_seconds())
            .map_err(|reason| self.failed(reason))?;
        let header = sensitive(&format!("Bearer {}", granted.token))
            .ok_or_else(|| self.failed("expected a token that can stand in a header"))?;
        let ahead = RENEW_AHEAD.min(granted.lifetime / 10);
        Ok(Arc::new(Token { header, fetched, renew_at: fetched + granted.lifetime - ahead }))
    }

    /// Asks with the login that there is, but with none that is `rejected`.
    async fn ask_as(
        &self,
        rejected: Option<&Arc<Issued>>,
    ) -> Result<(TokenReply, Option<Arc<Issued>>), UpstreamError> {
        let (upstream, credentials) = (&self.upstream, &self.upstream.credentials);
        let login = credentials.login(&self.shared, upstream, rejected).await?;
        let reply = self.ask(login.basic).await;
        let status = reply.as_ref().ok().map(|(head, _)| head.status.as_u16());
        self.shared.observer.token_request(&upstream.namespace, status);
        Ok((reply?, login.issued))
    }

    /// Sends the request on a connection of its own: tokens are rare, and so no worker needs
    /// another's pool.
    async fn ask(&self, secret: Option<HeaderValue>) -> Result<TokenReply, UpstreamError> {
        let (upstream, url) = (&self.upstream, self.url()?);
        let form = Form::of(upstream, &url).await?;
        let mut request = hyper::Request::get(form.target.as_str())
            .header(HOST, url.origin.authority())
            .header(USER_AGENT, USER_AGENT_VALUE)
            .header(ACCEPT, "application/json")
            .header(ACCEPT_ENCODING, "identity")
            .header(CONNECTION, "close");
        if let Some(login) = form.authorization {
            request = request.header(PROXY_AUTHORIZATION, login);
        }
        if let Some(secret) = secret {
            request = request.header(AUTHORIZATION, secret);
        }
        let request = request.body(Outgoing::none()).map_err(|error| upstream.internal(error))?;
        let mut sender = dial(&self.shared, upstream, &url).await?;
        let limit = upstream.timeouts.first_byte;
        let reply: Reply = match timeout(limit, sender.send_request(request)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => return Err(failed(upstream, &url, &error)),
            Err(_) => return Err(timed_out(upstream, &url, Phase::FirstByte, limit)),
        };
        let (head, incoming) = reply.into_parts();
        let expected =
            reply::content_length(&head.headers, head.version).map_err(|(expected, found)| {
                self.failed(&format!("expected {expected}, found {found}"))
            })?;
        let key = PoolKey { upstream: upstream.namespace.clone(), origin: url.origin.clone() };
        let lease = Lease { sender, key, pool: None };
        let (site, stall) = (upstream.site(&url), upstream.timeouts.stall);
        let body = Body::new(incoming, lease, site, expected, stall, Arc::new(()), None);
        Ok((head, body))
    }

    /// The realm with `service` and one `scope` for each.
    fn url(&self) -> Result<Url, UpstreamError> {
        let encoded =
            |name: &str, value: &str| format!("{name}={}", utf8_percent_encode(value, QUERY_VALUE));
        let service = self.key.service.iter().map(|service| encoded("service", service));
        let scopes = self.key.scope.split(' ').filter(|scope| !scope.is_empty());
        let parameters: Vec<_> = service.chain(scopes.map(|s| encoded("scope", s))).collect();
        let url = self.realm.with_query(&parameters.join("&"));
        url.map_err(|error| self.failed(&format!("the realm is not usable: {error}")))
    }

    fn check_status(&self, head: &Parts) -> Result<(), UpstreamError> {
        let at = self.upstream.site(&self.realm);
        match head.status.as_u16() {
            200 => Ok(()),
            status @ (401 | 403) => {
                let reason = match &self.key.identity {
                    Some(user) => format!("the token service refuses the user \"{user}\""),
                    None => "the token service refuses anonymous access; set `username` and \
                             `password_file`"
                        .to_owned(),
                };
                Err(UpstreamError::Denied { at, status, reason })
            }
            429 => {
                let retry_after = reply::retry_after(&head.headers);
                Err(UpstreamError::RateLimited { at, retry_after })
            }
            300..=399 => Err(self.failed("it redirects, which is not followed with credentials")),
            status => Err(self.failed(&format!("expected status 200, found {status}"))),
        }
    }

    fn failed(&self, reason: &str) -> UpstreamError {
        UpstreamError::Token { at: self.upstream.site(&self.realm), reason: reason.to_owned() }
    }
}

fn is_denied(head: &Parts) -> bool {
    matches!(head.status.as_u16(), 401 | 403)
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}
