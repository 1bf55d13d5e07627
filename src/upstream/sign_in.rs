//! Proving who we are to an endpoint: what to send ahead, and what to answer a 401 with.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use hyper::HeaderMap;
use hyper::header::{HeaderValue, WWW_AUTHENTICATE};

use super::challenge::{self, Challenge};
use super::credentials::Kind;
use super::error::UpstreamError;
use super::issued::Issued;
use super::realm;
use super::set::{Endpoint, Upstream};
use super::shared::Shared;
use super::token::{self, Token, TokenKey};
use super::url::{Host, Url};
use crate::oci::{Namespace, RepositoryName};

/// Repositories whose challenge a worker remembers; over it the memory starts afresh, which costs
/// one 401 each.
const REMEMBERED_MAX: usize = 4096;
/// Longest scope taken from a challenge.
const SCOPE_BYTES_MAX: usize = 1024;

/// What one request proves who we are with.
#[derive(Debug, Clone)]
pub(super) enum Proof {
    /// Nothing: no 401 came yet.
    None,
    /// A token of the realm's.
    Token(Arc<Token>),
    /// Password or ready token, from a file or a command.
    Secret(HeaderValue, Option<Arc<Issued>>),
}

/// What a 401 has shown to be of no use any more.
#[derive(Default, Clone, Copy)]
struct Rejected<'a> {
    token: Option<&'a Arc<Token>>,
    issued: Option<&'a Arc<Issued>>,
}

/// Whom a proof is for.
pub(super) struct Place<'a> {
    pub(super) upstream: &'a Arc<Upstream>,
    /// Which of its endpoints.
    pub(super) index: usize,
    pub(super) endpoint: &'a Endpoint,
    pub(super) repository: &'a RepositoryName,
}

type PlaceKey = (Namespace, usize, RepositoryName);

/// The way an endpoint asked us to sign in for a repository.
#[derive(Clone)]
enum Way {
    Bearer { key: TokenKey, realm: Url },
    Basic,
    ReadyToken,
}

/// One worker's memory of challenges, so that only the first request of a repository gets a 401.
#[derive(Default)]
pub(super) struct SignIns {
    ways: RefCell<HashMap<PlaceKey, Way>>,
}

impl Proof {
    /// The value of `Authorization`.
    pub(super) fn header(&self) -> Option<&HeaderValue> {
        match self {
            Self::None => None,
            Self::Token(token) => Some(&token.header),
            Self::Secret(header, _) => Some(header),
        }
    }
}

impl SignIns {
    /// What to send with the first request: what this place asked for the last time.
    pub(super) async fn ahead(
        &self,
        shared: &Arc<Shared>,
        place: &Place<'_>,
    ) -> Result<Proof, UpstreamError> {
        let way = self.ways.borrow().get(&place.key()).cloned();
        let Some(way) = way else { return Ok(Proof::None) };
        let proof = place.prove(shared, &way, Rejected::default()).await;
        if proof.is_err() {
            // The place may have changed its mind: the next request asks it again.
            self.ways.borrow_mut().remove(&place.key());
        }
        proof
    }

    /// What to send after a 401 that came back to `sent`. `began` is when the exchange began: a
    /// token obtained since then is as good as tokens get.
    ///
    /// # Errors
    /// `Denied` when there is nothing more to offer, or why no token could be had.
    pub(super) async fn answer(
        &self,
        shared: &Arc<Shared>,
        place: &Place<'_>,
        headers: &HeaderMap,
        sent: &Proof,
        began: Instant,
    ) -> Result<Proof, UpstreamError> {
        let rejected = match sent {
            Proof::None => Rejected::default(),
            Proof::Token(token) if token.fetched < began => {
                Rejected { token: Some(token), ..Rejected::default() }
            }
            Proof::Token(_) => return Err(place.denied("a fresh token is not enough for it")),
            // A command may know better by now.
            Proof::Secret(_, Some(issued)) if issued.fetched < began => {
                Rejected { issued: Some(issued), ..Rejected::default() }
            }
            Proof::Secret(..) => return Err(place.denied("it does not take our credentials")),
        };
        let fields = headers.get_all(WWW_AUTHENTICATE).iter();
        let challenges = challenge::parse_all(fields.filter_map(|value| value.to_str().ok()))
            .map_err(|error| place.denied(&format!("its challenge is not readable: {error}")))?;
        let kind = place.upstream.credentials.kind(shared, place.upstream).await?;
        let way = place.way(&challenges, &kind)?;
        let proof = place.prove(shared, &way, rejected).await?;
        let mut ways = self.ways.borrow_mut();
        if ways.len() >= REMEMBERED_MAX {
            ways.clear();
        }
        ways.insert(place.key(), way);
        Ok(proof)
    }
}

impl Place<'_> {
    fn key(&self) -> PlaceKey {
        (self.upstream.namespace.clone(), self.index, self.repository.clone())
    }

    /// The best of the offered ways for which we have the means: bearer before basic.
    fn way(&self, challenges: &[Challenge], kind: &Kind) -> Result<Way, UpstreamError> {
        let offered = |scheme: &str| challenges.iter().find(|c| c.scheme == scheme);
        match (offered("bearer"), offered("basic"), kind) {
            (Some(_), _, Kind::Token) => Ok(Way::ReadyToken),
            (Some(bearer), _, _) => self.bearer(bearer, kind),
            (None, Some(_), Kind::Password(_)) => Ok(Way::Basic),
            (None, Some(_), _) => Err(self.denied("it wants `username` and `password_file`")),
            (None, None, _) if challenges.is_empty() => {
                Err(self.denied("it does not say how to sign in"))
            }
            (None, None, _) => {
                let schemes: Vec<_> = challenges.iter().map(|c| c.scheme.as_str()).collect();
                Err(self.denied(&format!("it only takes {}", schemes.join(", "))))
            }
        }
    }

    fn bearer(&self, challenge: &Challenge, kind: &Kind) -> Result<Way, UpstreamError> {
        let refused = |reason: String| UpstreamError::Token { at: self.site(), reason };
        let realm = challenge
            .parameter("realm")
            .ok_or_else(|| refused("expected a realm in the challenge, found none".to_owned()))?;
        let url = realm::check(&self.endpoint.origin, realm, &self.upstream.token_realms)
            .map_err(refused)?;
        let in_clear = !url.origin.https && !self.is_near(&url.origin.host);
        if in_clear && matches!(kind, Kind::Password(_)) {
            return Err(refused(format!("the password would go to {url} in clear text")));
        }
        let scope = match challenge.parameter("scope").filter(|scope| !scope.is_empty()) {
            Some(scope) if scope.len() > SCOPE_BYTES_MAX => {
                return Err(refused("expected a scope of at most 1 KiB".to_owned()));
            }
            Some(scope) => scope.to_owned(),
            None => format!("repository:{}:pull", self.repository),
        };
        let key = TokenKey {
            upstream: self.upstream.namespace.clone(),
            identity: match kind {
                Kind::Password(username) => Some(username.clone()),
                Kind::Nothing | Kind::Token => None,
            },
            realm: realm.into(),
            service: challenge.parameter("service").map(Into::into),
            scope: scope.into(),
        };
        Ok(Way::Bearer { key, realm: url })
    }

    /// Whether `host` is the endpoint's own or on this machine, so that nobody new listens in.
    fn is_near(&self, host: &Host) -> bool {
        match host {
            _ if *host == self.endpoint.origin.host => true,
            Host::Address(address) => address.is_loopback(),
            // RFC 6761 §6.3.
            Host::Name(name) => **name == *"localhost",
        }
    }

    async fn prove(
        &self,
        shared: &Arc<Shared>,
        way: &Way,
        rejected: Rejected<'_>,
    ) -> Result<Proof, UpstreamError> {
        let Rejected { token, issued } = rejected;
        if let Way::Bearer { key, realm } = way {
            let token = token::obtain(shared, self.upstream, key, realm, token).await?;
            return Ok(Proof::Token(token));
        }
        let login = self.upstream.credentials.login(shared, self.upstream, issued).await?;
        let header = if matches!(way, Way::Basic) { login.basic } else { login.bearer };
        let header = header.ok_or_else(|| self.denied("there are no credentials for it"))?;
        Ok(Proof::Secret(header, login.issued))
    }

    pub(super) fn denied(&self, reason: &str) -> UpstreamError {
        UpstreamError::Denied { at: self.site(), status: 401, reason: reason.to_owned() }
    }

    fn site(&self) -> Box<super::Site> {
        Box::new(super::Site {
            upstream: self.upstream.namespace.clone(),
            address: self.endpoint.name.clone(),
            is_tier: false,
        })
    }
}
