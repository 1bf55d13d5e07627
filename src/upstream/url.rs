//! Absolute http(s) addresses: endpoints, realms and redirect targets, read by one strict parser.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hyper::http::uri::PathAndQuery;

/// Longest address read from an upstream. Presigned ones of clouds are below 4 KiB.
const URL_BYTES_MAX: usize = 16 * 1024;

/// A host as it stands in an address: never something that only looks like a number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Host {
    /// Lower-case DNS name without a trailing dot.
    Name(Arc<str>),
    /// An address literal.
    Address(IpAddr),
}

/// (scheme, host, port): what credentials and connections belong to (RFC 6454).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub(super) https: bool,
    pub(super) host: Host,
    pub(super) port: u16,
}

/// An absolute address. `Display` and `Debug` leave the query out: presigned ones are secrets.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) origin: Origin,
    target: PathAndQuery,
}

/// Why a text is not an address we would use. Never holds the text's query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct UrlError(&'static str);

impl Host {
    /// Reads a host; IPv6 only in brackets and without a zone.
    ///
    /// A host whose last label is a number in any base must be a dotted IPv4 address: `127.1`,
    /// `2130706433` and `0x7f000001` are names to some libraries and loopback to others.
    pub(super) fn parse(text: &str) -> Result<Self, UrlError> {
        if let Some(inside) = text.strip_prefix('[') {
            let address = inside.strip_suffix(']').and_then(|v6| v6.parse::<Ipv6Addr>().ok());
            return address
                .map(|v6| Self::Address(IpAddr::V6(v6)))
                .ok_or(UrlError("the host is not an IPv6 address in brackets"));
        }
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        if text.is_empty() || text.len() > 253 || !text.split('.').all(is_label) {
            return Err(UrlError("the host is not a DNS name or an IP address"));
        }
        let text = text.to_ascii_lowercase();
        let last = text.rsplit('.').next().unwrap_or_default();
        let hex = last.strip_prefix("0x").is_some_and(|h| h.bytes().all(|b| b.is_ascii_hexdigit()));
        if !hex && !last.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Self::Name(text.into()));
        }
        text.parse::<Ipv4Addr>()
            .map(|v4| Self::Address(IpAddr::V4(v4)))
            .map_err(|_| UrlError("the host looks like a number but is not a dotted IPv4 address"))
    }
}

impl Origin {
    /// `host` or `host:port`, as a `Host` field has it: the scheme's default port is left out.
    pub(super) fn authority(&self) -> String {
        match (self.https, self.port) {
            (true, 443) | (false, 80) => self.host.to_string(),
            _ => format!("{}:{}", self.host, self.port),
        }
    }
}

impl Url {
    /// Puts an address together. `target` is path and query, starting with `/`.
    pub(super) fn new(origin: Origin, target: &str) -> Result<Self, UrlError> {
        if target.len() > URL_BYTES_MAX {
            return Err(UrlError("it is longer than 16 KiB"));
        }
        if !target.starts_with('/') || !target.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(UrlError("the path holds something other than printable ASCII"));
        }
        let target = PathAndQuery::try_from(target)
            .map_err(|_| UrlError("the path or query holds characters that may not stand there"))?;
        Ok(Self { origin, target })
    }

    /// Reads an absolute address. User-info is refused; a fragment is dropped.
    pub(super) fn parse(text: &str) -> Result<Self, UrlError> {
        let text = text.split('#').next().unwrap_or_default();
        let (scheme, rest) = text
            .split_once("://")
            .ok_or(UrlError("it is not an absolute http or https address"))?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(UrlError("its scheme is neither http nor https")),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let origin = parse_authority(authority, https)?;
        match target.starts_with('/') {
            true => Self::new(origin, target),
            false => Self::new(origin, &format!("/{target}")),
        }
    }

    /// Resolves `reference` (a `Location`) against this address: RFC 3986 §5.2.
    pub(super) fn join(&self, reference: &str) -> Result<Self, UrlError> {
        let reference = reference.split('#').next().unwrap_or_default();
        let end = reference.find(['/', '?']).unwrap_or(reference.len());
        let (head, tail) = reference.split_at(end);
        if head.contains(':') {
            return Self::parse(reference);
        }
        if head.is_empty() && tail.starts_with("//") {
            let scheme = if self.origin.https { "https:" } else { "http:" };
            return Self::parse(&format!("{scheme}{tail}"));
        }
        let (path, query) = match reference.split_once('?') {
            Some((path, query)) => (path, format!("?{query}")),
            None => (reference, String::new()),
        };
        let base = self.target.path();
        let path = match path {
            "" if query.is_empty() => return Err(UrlError("it is empty")),
            "" => base.to_owned(),
            _ if path.starts_with('/') => without_dot_segments(path),
            _ => {
                let folder = base.rsplit_once('/').map_or("", |(folder, _)| folder);
                without_dot_segments(&format!("{folder}/{path}"))
            }
        };
        Self::new(self.origin.clone(), &format!("{path}{query}"))
    }

    /// Path and query, for the request line.
    pub(super) fn target(&self) -> &PathAndQuery {
        &self.target
    }

    /// This address with `parameters` (already encoded, `a=b&c=d`) added to its query.
    pub(super) fn with_query(&self, parameters: &str) -> Result<Self, UrlError> {
        let target = match self.target.query() {
            None | Some("") => format!("{}?{parameters}", self.target.path()),
            Some(query) => format!("{}?{query}&{parameters}", self.target.path()),
        };
        Self::new(self.origin.clone(), &target)
    }
}

fn parse_authority(authority: &str, https: bool) -> Result<Origin, UrlError> {
    if authority.contains('@') {
        return Err(UrlError("it holds user-info"));
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port = match port {
        None => {
            if https {
                443
            } else {
                80
            }
        }
        Some(text) => match text.parse::<u16>() {
            Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => port,
            _ => return Err(UrlError("its port is not a number between 1 and 65535")),
        },
    };
    Ok(Origin { https, host: Host::parse(host)?, port })
}

/// RFC 3986 §5.2.4 for a path that starts with `/`.
fn without_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(v4)) => write!(f, "{v4}"),
            Self::Address(IpAddr::V6(v6)) => write!(f, "[{v6}]"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.target.path())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(url: &Url) -> String {
        format!("{}{}", url.origin, url.target)
    }

    #[test]
    fn addresses_are_read() {
        let cases = [
            ("https://a.b", "https://a.b/"),
            ("HTTPS://A.B:443/x?y=1#z", "https://a.b/x?y=1"),
            ("http://a.b:80?q", "http://a.b/?q"),
            ("http://127.0.0.1:5000/v2/", "http://127.0.0.1:5000/v2/"),
            ("https://[2001:DB8::1]:8443/x", "https://[2001:db8::1]:8443/x"),
            ("https://a_b-c.d1/%2e%2e/?a=%2F&b='(x)'", "https://a_b-c.d1/%2e%2e/?a=%2F&b='(x)'"),
        ];
        for (text, expected) in cases {
            assert_eq!(full(&Url::parse(text).expect(text)), expected);
        }
    }

    #[test]
    fn what_is_ambiguous_or_odd_is_refused() {
        let numeric = ["2130706433", "0x7f000001", "0X7F.1", "127.1", "0177.0.0.1", "1.2.3.4.5"];
        for host in numeric {
            assert!(Url::parse(&format!("http://{host}/")).is_err(), "{host}");
        }
        let odd = [
            "",
            "a.b/x",
            "//a.b/x",
            "ftp://a.b/",
            "file:///etc/passwd",
            "https://",
            "https:///x",
            "https://u@a.b/",
            "https://u:p@a.b/",
            "https://a.b:0/",
            "https://a.b:/",
            "https://a.b:+1/",
            "https://a.b:65536/",
            "https://a..b/",
            "https://a.b./",
            "https://.a/",
            "https://a b/",
            "https://a%2eb/",
            "https://a\\b/",
            "https://fe80::1/",
            "https://[fe80::1%25eth0]/",
            "https://[::1/",
            "https://a.b/\u{e9}",
            "https://a.b/x y",
            "https://a.b/x\r\nHost: c",
            "https://\u{ff11}27.0.0.1/",
        ];
        for text in odd {
            assert!(Url::parse(text).is_err(), "{text}");
        }
        assert!(Url::parse(&format!("https://a.b/{}", "x".repeat(URL_BYTES_MAX))).is_err());
    }

    #[test]
    fn references_are_resolved() {
        let base = Url::parse("https://a.b:8443/v2/x/blobs/y?old=1").expect("base");
        let cases = [
            ("https://c.d/e?f", "https://c.d/e?f"),
            ("http://c.d", "http://c.d/"),
            ("//c.d/e", "https://c.d/e"),
            ("/e?f=1", "https://a.b:8443/e?f=1"),
            ("?f=1", "https://a.b:8443/v2/x/blobs/y?f=1"),
            ("z", "https://a.b:8443/v2/x/blobs/z"),
            ("../z/./?q", "https://a.b:8443/v2/x/z/?q"),
            ("../../../../../z", "https://a.b:8443/z"),
            ("/a/b/..", "https://a.b:8443/a/"),
            ("./a:b", "https://a.b:8443/v2/x/blobs/a:b"),
            ("/x#frag", "https://a.b:8443/x"),
        ];
        for (reference, expected) in cases {
            assert_eq!(full(&base.join(reference).expect(reference)), expected, "{reference}");
        }
        for bad in ["", "#x", "javascript:alert(1)", "a:b", "https:foo", "//u@c.d/", "/a b"] {
            assert!(base.join(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_query_is_sent_but_never_shown() {
        let url = Url::parse("https://a.b/x?Signature=canary").expect("url");
        assert_eq!(format!("{url} {url:?}"), "https://a.b/x https://a.b/x");
        let more = url.with_query("service=s&scope=t").expect("url");
        assert_eq!(more.target().as_str(), "/x?Signature=canary&service=s&scope=t");
        let fresh = Url::parse("https://a.b/x").expect("url").with_query("s=1").expect("url");
        assert_eq!(fresh.target().as_str(), "/x?s=1");
    }
}
