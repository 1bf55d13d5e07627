//! The registry host that a client meant: the value of `ns=`, strictly read and normalised.

use std::borrow::Borrow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::limits::NAMESPACE_BYTES_MAX;

/// Longest host name and longest label, in bytes (RFC 1035 §2.3.4).
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;
/// A namespace on this port is the same as one without a port.
const DEFAULT_PORT: u16 = 443;

/// A registry host, `host` or `host:port`, in lower case and without the default port 443.
///
/// It is a key to look up among the declared upstreams, never an address to connect to; so IP
/// literals are in the grammar, and a closed world refuses those that nobody declared.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(Arc<str>);

/// Why a text is not a namespace. The offending text is not repeated: it may hold credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamespaceError {
    /// Nothing there.
    #[error("the namespace is empty; expected a registry host such as docker.io")]
    Empty,
    /// More than [`NAMESPACE_BYTES_MAX`] bytes.
    #[error("a namespace has at most {NAMESPACE_BYTES_MAX} bytes; this one has {0}")]
    TooLong(usize),
    /// `https://...`: a URL where a host belongs.
    #[error("a namespace is host[:port] without a scheme; drop the part up to and with ://")]
    Scheme,
    /// `user@host`.
    #[error("a namespace is host[:port] without user information; drop the part up to and with @")]
    UserInfo,
    /// A slash, backslash, `?` or `#`.
    #[error("a namespace is host[:port] without a path, query or fragment")]
    Path,
    /// A byte that no host holds: white space, control bytes, `%`, non-ASCII and so on.
    #[error(
        "a namespace holds only letters, digits, '.', '-' and a port; byte {at} is something else"
    )]
    Character {
        /// Offset of the first wrong byte.
        at: usize,
    },
    /// An empty label, one over 63 bytes, or one with a hyphen at its end: `a..b`, `-a`, `a.`.
    #[error(
        "each dot-separated part of a namespace has 1 to 63 letters, digits and inner hyphens, \
         and there is no dot at the end"
    )]
    Label,
    /// `2130706433`, `0x7f000001`, `127.1`: reads as a number to some resolvers.
    #[error("a namespace that ends in a number must be a dotted IPv4 address such as 127.0.0.1")]
    Number,
    /// A bad `[...]` literal, or IPv6 without brackets.
    #[error("an IPv6 address in a namespace stands in brackets and has no zone: [::1]:5000")]
    Ipv6,
    /// The port is not `1` to `65535` in plain digits.
    #[error("the port of a namespace is 1 to 65535, in digits without leading zeros")]
    Port,
}

impl Namespace {
    /// Parses `host`, `host:port`, `[ipv6]` or `[ipv6]:port`; folds case, drops `:443`.
    ///
    /// # Errors
    /// Whatever goes beyond that: see [`NamespaceError`]. Nothing is percent-decoded here.
    pub fn parse(text: &str) -> Result<Self, NamespaceError> {
        if text.is_empty() {
            return Err(NamespaceError::Empty);
        }
        if text.len() > NAMESPACE_BYTES_MAX {
            return Err(NamespaceError::TooLong(text.len()));
        }
        check_characters(text)?;
        let (host, port) = split_port(text)?;
        let port = port.map(parse_port).transpose()?.filter(|port| *port != DEFAULT_PORT);
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let address = rest.strip_suffix(']').ok_or(NamespaceError::Ipv6)?;
                // Displayed again by the standard library, so that two spellings are one key.
                let address: Ipv6Addr = address.parse().map_err(|_| NamespaceError::Ipv6)?;
                format!("[{address}]")
            }
            None => {
                check_host(host)?;
                host.to_ascii_lowercase()
            }
        };
        Ok(Self(match port {
            Some(port) => format!("{host}:{port}").into(),
            None => host.into(),
        }))
    }

    /// What this upstream is called when it is reached with a named credential or asked about a
    /// forwarded namespace: `docker.io#team-a`, `node2.corp?ns=docker.io`, or both. Neither `?`
    /// nor `#` is in the grammar above, so no client can name one, and two that differ share
    /// neither names nor tags: what one login may see, another may not.
    pub fn scoped(&self, credential: Option<&str>, forward_ns: Option<&Namespace>) -> Namespace {
        let mut text = self.base().to_owned();
        if let Some(namespace) = forward_ns {
            text.push_str("?ns=");
            text.push_str(namespace.base());
        }
        if let Some(credential) = credential {
            text.push('#');
            text.push_str(credential);
        }
        Namespace(text.into())
    }

    /// The upstream's own namespace, without what [`Namespace::scoped`] put behind it.
    pub fn base(&self) -> &str {
        let end = self.0.bytes().position(|byte| matches!(byte, b'?' | b'#'));
        self.0.get(..end.unwrap_or(self.0.len())).unwrap_or_default()
    }

    /// Parses what [`Namespace::as_str`] gave, scoped or not: a name of our own keeping.
    ///
    /// # Errors
    /// As for [`Namespace::parse`], for the part that is wrong.
    pub fn from_stored(text: &str) -> Result<Self, NamespaceError> {
        let (named, credential) = match text.split_once('#') {
            Some((named, credential)) => (named, Some(credential)),
            None => (text, None),
        };
        let (base, forward_ns) = match named.split_once("?ns=") {
            Some((base, namespace)) => (base, Some(Namespace::parse(namespace)?)),
            None => (named, None),
        };
        Ok(Namespace::parse(base)?.scoped(credential, forward_ns.as_ref()))
    }

    /// The normalised text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The normalised text, shared.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }

    /// The host without the port; an IPv6 address keeps its brackets.
    pub fn host(&self) -> &str {
        self.split().0
    }

    /// The port, unless it is the default one.
    pub fn port(&self) -> Option<u16> {
        self.split().1.and_then(|port| port.parse().ok())
    }

    fn split(&self) -> (&str, Option<&str>) {
        // The grammar was checked by `parse`; an error can't occur and would mean "no port".
        split_port(self.base()).unwrap_or((self.base(), None))
    }
}

/// Names the most telling fault first: a URL should be called a URL, not a wrong byte.
fn check_characters(text: &str) -> Result<(), NamespaceError> {
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    let Some(at) = text.bytes().position(|byte| !allowed(byte)) else { return Ok(()) };
    if text.contains("://") {
        return Err(NamespaceError::Scheme);
    }
    if text.contains('@') {
        return Err(NamespaceError::UserInfo);
    }
    if text.contains(['/', '\\', '?', '#']) {
        return Err(NamespaceError::Path);
    }
    Err(NamespaceError::Character { at })
}

/// `host[:port]` → host (brackets kept) and port text.
fn split_port(text: &str) -> Result<(&str, Option<&str>), NamespaceError> {
    if text.starts_with('[') {
        let end = text.find(']').ok_or(NamespaceError::Ipv6)?;
        let (host, rest) = text.split_at_checked(end + 1).ok_or(NamespaceError::Ipv6)?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(NamespaceError::Ipv6),
        };
    }
    match text.split_once(':') {
        None => Ok((text, None)),
        Some((_, port)) if port.contains(':') => Err(NamespaceError::Ipv6),
        Some((host, port)) => Ok((host, Some(port))),
    }
}

fn parse_port(text: &str) -> Result<u16, NamespaceError> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    // `u16` refuses the empty text and everything over 65535; zero has a leading zero.
    if plain { text.parse().map_err(|_| NamespaceError::Port) } else { Err(NamespaceError::Port) }
}

fn check_host(host: &str) -> Result<(), NamespaceError> {
    let label_is_well_formed = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.len() > HOST_BYTES_MAX || !host.split('.').all(label_is_well_formed) {
        return Err(NamespaceError::Label);
    }
    // Resolvers read `127.1`, `0x7f.1` and `2130706433` as IPv4 addresses (inet_aton), so a host
    // that ends in a number is taken only in the one form that everybody reads alike.
    let last = host.rsplit('.').next().unwrap_or(host);
    let hex = last.strip_prefix("0x").or(last.strip_prefix("0X"));
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if numeric && host.parse::<Ipv4Addr>().is_err() {
        return Err(NamespaceError::Number);
    }
    Ok(())
}

impl Borrow<str> for Namespace {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests;
