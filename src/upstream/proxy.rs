//! HTTP proxies on the way to an upstream: which one, and what is said to it.
//!
//! To https origins a tunnel is asked for (CONNECT, RFC 9110 §9.3.6) in which TLS proves the
//! origin as ever; http origins are asked for in absolute form. The proxy is the operator's word:
//! its address may be private, and names are resolved there, so that only literal addresses can be
//! checked here. Our credentials for upstreams are never for it, nor its login for anybody else.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hyper::header::HeaderValue;

use super::credentials::{Credentials, SecretError};
use super::dial::{timed_out, unreachable};
use super::error::{Phase, UpstreamError};
use super::exchange::USER_AGENT_VALUE;
use super::proxy_environment::Environment;
use super::set::Upstream;
use super::url::{Host, Origin, Url};
use crate::runtime::{PollStream, timeout};

/// Largest head that a proxy may answer CONNECT with.
const REPLY_BYTES_MAX: usize = 8 * 1024;

/// A proxy and its login.
#[derive(Clone)]
pub(super) struct Proxy {
    pub(super) url: Url,
    login: Login,
}

#[derive(Clone)]
enum Login {
    /// From the environment; none for most.
    Fixed(Option<HeaderValue>),
    /// `proxy_username` and `proxy_password_file`.
    File(Credentials),
}

/// Through what an upstream is reached.
#[derive(Clone)]
pub(super) enum Proxies {
    Direct,
    Through(Arc<Proxy>),
    Environment(Arc<Environment>),
}

/// How a request line and its head change for the way that a request takes.
pub(super) struct Form {
    /// The target of the request line.
    pub(super) target: String,
    /// `Proxy-Authorization`.
    pub(super) authorization: Option<HeaderValue>,
}

impl Proxies {
    /// The proxy for `origin`, if there is one.
    pub(super) fn proxy_for(&self, origin: &Origin) -> Option<&Arc<Proxy>> {
        match self {
            Self::Direct => None,
            Self::Through(proxy) => Some(proxy),
            Self::Environment(environment) => environment.proxy_for(origin),
        }
    }
}

impl Proxy {
    pub(super) fn new(url: Url, authorization: Option<HeaderValue>) -> Self {
        Self { url, login: Login::Fixed(authorization) }
    }

    pub(super) fn with_login(url: Url, login: Credentials) -> Self {
        Self { url, login: Login::File(login) }
    }

    /// As shown in errors.
    pub(super) fn name(&self) -> String {
        self.url.origin.to_string()
    }

    async fn authorization(&self) -> Result<Option<HeaderValue>, SecretError> {
        match &self.login {
            Login::Fixed(header) => Ok(header.clone()),
            Login::File(credentials) => credentials.basic().await,
        }
    }
}

impl Form {
    /// The form of a request to `url`. A tunnel's inside knows nothing of its proxy.
    pub(super) async fn of(upstream: &Upstream, url: &Url) -> Result<Self, UpstreamError> {
        match upstream.proxies.proxy_for(&url.origin).filter(|_| !url.origin.https) {
            None => Ok(Self { target: url.target().to_string(), authorization: None }),
            Some(proxy) => Ok(Self {
                target: format!("http://{}{}", url.origin.authority(), url.target()),
                authorization: login_of(upstream, proxy).await?,
            }),
        }
    }
}

async fn login_of(
    upstream: &Upstream,
    proxy: &Proxy,
) -> Result<Option<HeaderValue>, UpstreamError> {
    proxy.authorization().await.map_err(|error| UpstreamError::Credentials {
        upstream: upstream.namespace.clone(),
        reason: format!("the login of the proxy {}: {error}", proxy.name()),
    })
}

/// What can still be checked of a host that somebody else resolves: literal addresses, and the
/// name that would be the proxy's own machine (RFC 6761 §6.3).
pub(super) fn literal(host: &Host) -> Option<IpAddr> {
    match host {
        Host::Address(address) => Some(*address),
        Host::Name(name) if **name == *"localhost" || name.ends_with(".localhost") => {
            Some(Ipv4Addr::LOCALHOST.into())
        }
        Host::Name(_) => None,
    }
}

/// Has `proxy` connect `stream` to the origin of `url`, within `connect_timeout`.
///
/// # Errors
/// `Unreachable` or `Timeout`, both with the proxy's name, or what its login is lacking.
pub(super) async fn tunnel(
    upstream: &Upstream,
    url: &Url,
    proxy: &Proxy,
    mut stream: PollStream,
) -> Result<PollStream, UpstreamError> {
    let to = format!("{}:{}", url.origin.host, url.origin.port);
    let mut request =
        format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: {USER_AGENT_VALUE}\r\n")
            .into_bytes();
    if let Some(login) = login_of(upstream, proxy).await? {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(login.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    let limit = upstream.timeouts.connect;
    let asked = timeout(limit, ask(&mut stream, &request)).await;
    match asked.map_err(|_| timed_out(upstream, url, Phase::Proxy, limit))? {
        Ok(200..=299) => Ok(stream),
        Ok(407) => Err(unreachable(
            upstream,
            url,
            "the proxy wants a login (407); set `proxy_username` and `proxy_password_file`, or \
             look at the ones that are set",
        )),
        Ok(status) => {
            let reason = format!("the proxy does not connect to {to}: it says {status}");
            Err(unreachable(upstream, url, &reason))
        }
        Err(reason) => Err(unreachable(upstream, url, &format!("the proxy: {reason}"))),
    }
}

/// Sends a CONNECT and reads the head of its answer; returns the status.
async fn ask(stream: &mut PollStream, request: &[u8]) -> Result<u16, String> {
    stream.write_all(request).await.map_err(|error| error.to_string())?;
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let end = head.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            // The origin speaks second: what came with the head was not said by it.
            let is_alone = end + 4 == head.len();
            let status = status_of(&head).ok_or("its answer to CONNECT is not HTTP")?;
            return match is_alone || !(200..300).contains(&status) {
                true => Ok(status),
                false => Err("it sent more than the head of an answer to CONNECT".to_owned()),
            };
        }
        if head.len() > REPLY_BYTES_MAX {
            return Err(format!("its answer to CONNECT is longer than {REPLY_BYTES_MAX} bytes"));
        }
        match stream.read_some(&mut buffer).await {
            Ok(0) => return Err("it closed the connection instead of an answer".to_owned()),
            Ok(count) => head.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// The status of `HTTP/1.x NNN reason`.
fn status_of(head: &[u8]) -> Option<u16> {
    let line = head.split(|&b| b == b'\r').next()?;
    let rest = line.strip_prefix(b"HTTP/1.1 ").or_else(|| line.strip_prefix(b"HTTP/1.0 "))?;
    let (code, after) = rest.split_at_checked(3)?;
    let is_code = code.iter().all(u8::is_ascii_digit) && matches!(after.first(), None | Some(b' '));
    std::str::from_utf8(code).ok()?.parse().ok().filter(|code| is_code && *code >= 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_an_answer_is_read_strictly() {
        let cases = [
            ("HTTP/1.1 200 Connection established\r\n\r\n", Some(200)),
            ("HTTP/1.0 407\r\nA: b\r\n\r\n", Some(407)),
            ("HTTP/1.1 200", Some(200)),
            ("HTTP/2 200 OK\r\n\r\n", None),
            ("HTTP/1.1 2000 OK\r\n\r\n", None),
            ("HTTP/1.1 099 OK\r\n\r\n", None),
            ("HTTP/1.1 +20 OK\r\n\r\n", None),
            ("HTTP/1.1  200\r\n\r\n", None),
            ("SSH-2.0-OpenSSH\r\n\r\n", None),
            ("", None),
        ];
        for (head, status) in cases {
            assert_eq!(status_of(head.as_bytes()), status, "{head:?}");
        }
    }
}
