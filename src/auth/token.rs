//! Bearer tokens: JWS in compact form (RFC 7515) with the claims of Docker's token specification.
//!
//! The form is three texts between dots, and the signature is verified by `ring`, which is here for
//! TLS already: a library for tokens would bring a second implementation of all the cryptography.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::keys::{Algorithm, Key};
use super::principal::{Grant, Principal};
use crate::config::TokenAuth;

/// Longest token, in bytes: what a head has room for beside the rest.
const TOKEN_BYTES_MAX: usize = 12 * 1024;
/// Longest subject, as the longest user in a rule.
const SUBJECT_BYTES_MAX: usize = 256;
/// How far the issuer's clock may be off, in seconds; what distribution allows.
const LEEWAY: f64 = 60.0;

/// What a token is judged by.
pub(super) struct Tokens {
    service: Box<str>,
    issuer: Box<str>,
    keys: Vec<Key>,
}

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenFault {
    /// No token of ours to read: not three parts, another algorithm, a claim is missing.
    Malformed,
    /// Signed by nobody we know, or changed after that.
    Foreign,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYet,
    /// Of another issuer.
    Issuer,
    /// For another service.
    Audience,
}

/// RFC 7515 §4.1, as far as it is obeyed. Keys and addresses of keys that a token brings along are
/// not: only ours count (CVE-2025-24976).
#[derive(Deserialize)]
struct Header<'a> {
    alg: Algorithm,
    #[serde(borrow)]
    kid: Option<std::borrow::Cow<'a, str>>,
    /// Extensions that must be understood. None is.
    crit: Option<serde::de::IgnoredAny>,
}

/// RFC 7519 §4.1, and `access` of Docker's specification.
#[derive(Deserialize)]
struct Claims {
    iss: Box<str>,
    #[serde(default)]
    sub: Box<str>,
    aud: Audience,
    exp: f64,
    nbf: Option<f64>,
    #[serde(default)]
    access: Option<Vec<Access>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(Box<str>),
    Several(Vec<Box<str>>),
}

#[derive(Deserialize)]
struct Access {
    #[serde(rename = "type")]
    kind: Box<str>,
    name: Box<str>,
    #[serde(default)]
    actions: Option<Vec<Box<str>>>,
}

impl Tokens {
    pub(super) fn new(config: &TokenAuth, keys: Vec<Key>) -> Self {
        let (service, issuer) = (config.service.as_str().into(), config.issuer.as_str().into());
        Self { service, issuer, keys }
    }

    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Whose token this is, at `now` (seconds since 1970).
    pub(super) fn verify(&self, token: &[u8], now: u64) -> Result<Principal, TokenFault> {
        let claims = self.signed_claims(token)?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| TokenFault::Malformed)?;
        // JSON has neither infinities nor NaN; whole seconds below 2^53 are exact.
        #[allow(clippy::cast_precision_loss)]
        let now = now as f64;
        if claims.iss != self.issuer {
            return Err(TokenFault::Issuer);
        }
        let is_for_us = match &claims.aud {
            Audience::One(service) => *service == self.service,
            Audience::Several(services) => services.contains(&self.service),
        };
        if !is_for_us {
            return Err(TokenFault::Audience);
        }
        if now >= claims.exp + LEEWAY {
            return Err(TokenFault::Expired);
        }
        if claims.nbf.is_some_and(|nbf| now < nbf - LEEWAY) {
            return Err(TokenFault::NotYet);
        }
        let is_name = claims.sub.len() <= SUBJECT_BYTES_MAX;
        if !is_name || claims.sub.chars().any(char::is_control) {
            return Err(TokenFault::Malformed);
        }
        let grants = claims.access.unwrap_or_default().into_iter().map(Grant::from).collect();
        Ok(Principal::of_token(&claims.sub, grants))
    }

    /// The claims, which one of our keys has signed.
    fn signed_claims(&self, token: &[u8]) -> Result<Vec<u8>, TokenFault> {
        let malformed = TokenFault::Malformed;
        let token = std::str::from_utf8(token).map_err(|_| malformed)?;
        if token.len() > TOKEN_BYTES_MAX {
            return Err(malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(malformed)?;
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed);
        let (header, claims, signature) = (decode(header)?, decode(claims)?, decode(signature)?);
        let header: Header<'_> = serde_json::from_slice(&header).map_err(|_| malformed)?;
        if header.crit.is_some() {
            return Err(malformed);
        }
        let is_named = |key: &Key| key.id.is_some() && key.id.as_deref() == header.kid.as_deref();
        let named = self.keys.iter().any(is_named);
        let candidates = self.keys.iter().filter(|key| !named || is_named(key));
        let signed = signed.as_bytes();
        let mut verified = candidates.filter(|k| k.verifies(header.alg, signed, &signature));
        verified.next().map(|_| claims).ok_or(TokenFault::Foreign)
    }
}

impl From<Access> for Grant {
    fn from(access: Access) -> Self {
        let actions = access.actions.unwrap_or_default();
        // Older servers write `repository(plugin)`: the class is no part of the type.
        let kind = access.kind.split('(').next().unwrap_or_default().into();
        Grant { kind, name: access.name, actions }
    }
}
