//! Remote tiers: object stores that the configuration declares, for requests that a plugin has
//! signed. What is sent is what was signed; nothing of ours is added but framing.
//!
//! A tier is asked as an upstream's endpoint is, by the same dialer and with the same checks of
//! its address, but never signs in, never redirects, and gives way sooner: the upstream behind it
//! must still have its time.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{ACCEPT_ENCODING, CONTENT_LENGTH, HOST, HeaderValue, USER_AGENT};
use ipnet::IpNet;
use tokio_rustls::rustls::RootCertStore;

use super::address::AddressPolicy;
use super::body::Body;
use super::client::Client;
use super::credentials::Credentials;
use super::error::UpstreamError;
use super::exchange::{USER_AGENT_VALUE, protocol};
use super::message::Response;
use super::outgoing::{Outgoing, Progress, Upload};
use super::proxy::Proxies;
use super::reply;
use super::set::{Endpoint, Timeouts, Upstream, UpstreamSetError};
use super::tls::TlsContexts;
use super::url::Url;
use crate::config::EndpointUrl;
use crate::oci::Namespace;
use crate::runtime::spawn;

/// Where an upstream has 5 s, 20 s and 30 s unless configured.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    tls: Duration::from_secs(5),
    first_byte: Duration::from_secs(10),
    stall: Duration::from_secs(10),
};

/// Nobody waits for an upload: how long it may stand still, and its answer may take.
const UPLOAD_STALL: Duration = Duration::from_secs(30);

/// A request as it was signed.
#[derive(Clone, Copy)]
pub struct TierRequest<'a> {
    /// `GET`, `PUT` or `POST`.
    pub method: &'static str,
    /// Below a declared remote tier; sent byte for byte.
    pub url: &'a str,
    /// Names in lower case and values; neither `host` nor any of framing.
    pub headers: &'a [(String, String)],
}

impl Upstream {
    /// A remote tier. The address that the operator wrote is permitted as it stands; what a name
    /// resolves to only if it is public or in `allow_private`.
    pub(super) fn of_tier(
        tier: &EndpointUrl,
        allow_private: &[IpNet],
        roots: &Arc<RootCertStore>,
    ) -> Result<Self, UpstreamSetError> {
        let refused = |reason: String| UpstreamSetError::Tier { tier: tier.to_string(), reason };
        let host =
            Namespace::parse(&tier.authority()).map_err(|error| refused(error.to_string()))?;
        // Not in the grammar of credentials: connections are shared with no upstream.
        let namespace = host.scoped(Some("remote tier"), None);
        let mut allowed = allow_private.to_vec();
        allowed.extend(tier.host.parse::<IpAddr>().ok().map(IpNet::from));
        let tls = TlsContexts::build(roots, None, None).map_err(|e| refused(e.to_string()))?;
        Ok(Self {
            login: namespace.clone(),
            turns: Vec::new(),
            endpoints: [Endpoint::build(&namespace, tier)?].into(),
            credentials: Credentials::Anonymous,
            addresses: AddressPolicy::new(&allowed),
            token_realms: Vec::new(),
            forward_ns: None,
            timeouts: TIMEOUTS,
            hedge_after: None,
            proxies: Proxies::Direct,
            tls,
            is_tier: true,
            namespace,
        })
    }
}

/// What a tier answers.
pub enum TierReply {
    /// 200, with what it stores there.
    Content(Box<Response>),
    /// Another status; its body is of no interest.
    Status(u16),
}

impl Client {
    /// Sends a signed GET; returns when the head of the answer is there.
    ///
    /// # Errors
    /// No declared tier, not reached, too slow, or an answer that cannot be right.
    pub async fn read_from_tier(
        &self,
        request: &TierRequest<'_>,
    ) -> Result<TierReply, UpstreamError> {
        let response = self.ask_tier(request, None).await?;
        if response.status != 200 {
            spawn(response.body.drain());
            return Ok(TierReply::Status(response.status));
        }
        Ok(TierReply::Content(Box::new(response)))
    }

    /// Sends a signed PUT or POST with this content; returns the status of the answer.
    ///
    /// # Errors
    /// As for [`Client::read_from_tier`]; [`UpstreamError::Internal`] when the content cannot be
    /// read to its end.
    pub async fn write_to_tier(
        &self,
        request: &TierRequest<'_>,
        upload: &Upload,
    ) -> Result<u16, UpstreamError> {
        let mut response = self.ask_tier(request, Some(upload)).await?;
        match response.status {
            200..=299 => spawn(response.body.drain()),
            // Perhaps before it had taken all that we send.
            _ => response.body.abandon(),
        }
        Ok(response.status)
    }

    async fn ask_tier(
        &self,
        request: &TierRequest<'_>,
        upload: Option<&Upload>,
    ) -> Result<Response, UpstreamError> {
        let inner = self.inner();
        let (tier, url) = inner.set.tier(request.url).ok_or(UpstreamError::UndeclaredTier)?;
        let progress = Progress::within(match upload {
            None => tier.timeouts.first_byte,
            Some(_) => UPLOAD_STALL,
        });
        let make = || message(request, &url, upload, &progress);
        let (reply, lease) = inner.send(tier, &url, &progress, make).await?;
        let (head, incoming) = reply.into_parts();
        let content_length = reply::content_length(&head.headers, head.version)
            .map_err(|mismatch| protocol(tier, &url, mismatch))?;
        let status = head.status.as_u16();
        let mut body = Body::new(
            incoming,
            lease,
            tier.site(&url),
            content_length.filter(|_| !matches!(status, 204 | 304)),
            tier.timeouts.stall,
            // What tiers send is not an upstream's traffic.
            Arc::new(()),
            None,
        );
        if status == 200
            && upload.is_none()
            && let Err(mismatch) = reply::check_encoding(&head.headers)
        {
            body.abandon();
            return Err(protocol(tier, &url, mismatch));
        }
        Ok(Response {
            status,
            headers: head.headers,
            content_length,
            content_range: None,
            endpoint: tier.endpoint_names().next().cloned().unwrap_or_else(|| "".into()),
            body,
        })
    }
}

/// The request as it goes on the wire.
fn message(
    request: &TierRequest<'_>,
    url: &Url,
    upload: Option<&Upload>,
    progress: &Progress,
) -> Result<hyper::Request<Outgoing>, hyper::http::Error> {
    let mut message = hyper::Request::builder()
        .method(request.method)
        .uri(url.target().as_str())
        .header(HOST, url.origin.authority());
    let has = |name: &str| request.headers.iter().any(|(given, _)| given == name);
    if !has("user-agent") {
        message = message.header(USER_AGENT, USER_AGENT_VALUE);
    }
    if upload.is_none() && !has("accept-encoding") {
        message = message.header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    for (name, value) in request.headers {
        let mut value = HeaderValue::from_str(value)?;
        value.set_sensitive(true);
        message = message.header(name.as_str(), value);
    }
    match upload {
        None => message.body(Outgoing::none()),
        // Said by us: of no bytes hyper would say nothing.
        Some(upload) => {
            message.header(CONTENT_LENGTH, upload.bytes()).body(Outgoing::of(upload, progress))
        }
    }
}
