//! From an address in words to a connection: resolve, check, connect to what was checked, TLS.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio_rustls::rustls;

use super::connection::{Sender, start};
use super::error::{Phase, UpstreamError};
use super::proxy::{self, Proxy};
use super::set::Upstream;
use super::shared::Shared;
use super::tls::server_name;
use super::url::{Host, Origin, Url};
use crate::runtime::{PollStream, clock, connect, timeout};

/// Addresses tried of one name.
const ATTEMPTS_MAX: usize = 4;

/// A new connection to `url`'s origin, under the rules and time limits of `upstream`.
///
/// # Errors
/// `Unreachable`, `Blocked`, `Timeout` or `Tls`.
pub(super) async fn dial(
    shared: &Shared,
    upstream: &Upstream,
    url: &Url,
) -> Result<Sender, UpstreamError> {
    let stream = match upstream.proxies.proxy_for(&url.origin) {
        Some(proxy) => connect_through(shared, upstream, url, proxy).await?,
        None => {
            let addresses = resolve(shared, upstream, (url, &url.origin)).await?;
            let addresses = permitted(upstream, url, &addresses)?;
            connect_any(upstream, url, &addresses).await?
        }
    };
    let started = if url.origin.https {
        start(TokioIo::new(secure(upstream, url, stream).await?)).await
    } else {
        start(TokioIo::new(stream)).await
    };
    started.map_err(|error| unreachable(upstream, url, &error))
}

/// A connection to the proxy, and for https through it. Where the proxy is is the operator's word,
/// so only what is asked of it is checked, as far as that can be seen from here.
async fn connect_through(
    shared: &Shared,
    upstream: &Upstream,
    url: &Url,
    proxy: &Proxy,
) -> Result<PollStream, UpstreamError> {
    if let Some(address) = proxy::literal(&url.origin.host) {
        permitted(upstream, url, &[address])?;
    }
    let addresses = resolve(shared, upstream, (url, &proxy.url.origin)).await?;
    let port = proxy.url.origin.port;
    let addresses: Vec<_> = addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
    let stream = connect_any(upstream, url, &addresses).await?;
    match url.origin.https {
        true => proxy::tunnel(upstream, url, proxy, stream).await,
        false => Ok(stream),
    }
}

/// The addresses of `origin`, which is that of `url` or of its proxy.
async fn resolve(
    shared: &Shared,
    upstream: &Upstream,
    (url, origin): (&Url, &Origin),
) -> Result<Vec<IpAddr>, UpstreamError> {
    let name = match &origin.host {
        Host::Address(address) => return Ok(vec![*address]),
        Host::Name(name) => name,
    };
    let limit = upstream.timeouts.connect;
    match timeout(limit, shared.dns.resolve(name)).await {
        Ok(Ok(addresses)) => Ok(addresses.to_vec()),
        Ok(Err(error)) => Err(unreachable(upstream, url, &format!("resolving {name}: {error}"))),
        Err(_) => Err(timed_out(upstream, url, Phase::Resolve, limit)),
    }
}

/// The addresses that may be connected to; it takes one forbidden address among permitted ones
/// for a mistake of the name's owner, not for a reason to fail.
fn permitted(
    upstream: &Upstream,
    url: &Url,
    addresses: &[IpAddr],
) -> Result<Vec<SocketAddr>, UpstreamError> {
    let mut refusal = "the name has no address".to_owned();
    let mut permitted = Vec::new();
    for &address in addresses {
        match upstream.addresses.check(address) {
            Ok(()) => permitted.push(SocketAddr::new(address, url.origin.port)),
            Err(blocked) => {
                tracing::warn!(
                    upstream = %upstream.namespace, host = %url.origin.host, %address,
                    class = blocked.class, "address blocked"
                );
                refusal = blocked.to_string();
            }
        }
    }
    match permitted.is_empty() {
        true => Err(UpstreamError::Blocked { at: upstream.site(url), reason: refusal }),
        false => Ok(permitted),
    }
}

/// Tries the addresses in order; each gets its share of what is left of `connect_timeout`, so that
/// one black hole does not use up the time of the others.
async fn connect_any(
    upstream: &Upstream,
    url: &Url,
    addresses: &[SocketAddr],
) -> Result<PollStream, UpstreamError> {
    let limit = upstream.timeouts.connect;
    let deadline = clock::now() + limit;
    let attempts = addresses.len().min(ATTEMPTS_MAX) as u32;
    let mut failure = timed_out(upstream, url, Phase::Connect, limit);
    for (n, &address) in (0..attempts).zip(addresses) {
        let left = deadline.saturating_duration_since(clock::now());
        match timeout(left / (attempts - n), connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => {
                failure = unreachable(upstream, url, &format!("{address}: {error}"));
            }
            Err(_) => failure = timed_out(upstream, url, Phase::Connect, limit),
        }
    }
    Err(failure)
}

async fn secure(
    upstream: &Upstream,
    url: &Url,
    stream: PollStream,
) -> Result<tokio_rustls::client::TlsStream<PollStream>, UpstreamError> {
    let limit = upstream.timeouts.tls;
    let name = server_name(&url.origin.host).ok_or_else(|| UpstreamError::Tls {
        at: upstream.site(url),
        reason: "the host is not a name a certificate can have".to_owned(),
    })?;
    let connector = upstream.tls_for(&url.origin);
    match timeout(limit, connector.connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if is_tls(&error) => {
            Err(UpstreamError::Tls { at: upstream.site(url), reason: error.to_string() })
        }
        Ok(Err(error)) => Err(unreachable(upstream, url, &format!("TLS handshake: {error}"))),
        Err(_) => Err(timed_out(upstream, url, Phase::Tls, limit)),
    }
}

fn is_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

/// `Unreachable`, with the causes of `error` spelled out.
pub(super) fn unreachable(
    upstream: &Upstream,
    url: &Url,
    error: &(impl ToString + ?Sized),
) -> UpstreamError {
    UpstreamError::Unreachable { at: upstream.site(url), reason: error.to_string() }
}

pub(super) fn timed_out(
    upstream: &Upstream,
    url: &Url,
    phase: Phase,
    limit: Duration,
) -> UpstreamError {
    UpstreamError::Timeout { at: upstream.site(url), phase, limit }
}

/// An error with its causes, which hyper's `Display` leaves out.
pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
