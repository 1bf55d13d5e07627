//! Where an upstream (or a mirror) is reached: scheme, host, port and an optional path prefix.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::oci::Namespace;

/// An `http://` or `https://` address without user-info, query or fragment.
///
/// `host` is lower-case and without brackets; `path` is empty or starts with `/` and does not end
/// with one. `Display` writes the URL back without a default port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointUrl {
    /// Whether the scheme is https.
    pub https: bool,
    /// A name or an address.
    pub host: String,
    /// The scheme's default when the URL has none.
    pub port: u16,
    /// What comes before `/v2`.
    pub path: String,
}

impl EndpointUrl {
    /// Reads one address; the error says what is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<EndpointUrl, String> {
        let (https, rest) = split_scheme(text)?;
        if let Some(bad) = rest.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(format!("it holds the character {bad:?}"));
        }
        if rest.contains('@') {
            return Err("user names belong into `username`, passwords into `password_file`".into());
        }
        if rest.contains(['?', '#']) {
            return Err("a query or a fragment has no meaning here".into());
        }
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let (host, port) = split_port(authority)?;
        let default_port = if https { 443 } else { 80 };
        Ok(EndpointUrl {
            https,
            host: parse_host(host)?,
            port: port.unwrap_or(default_port),
            path: parse_path(path)?,
        })
    }

    /// `host:port` as it stands in a URL, the default port of the scheme left out.
    pub fn authority(&self) -> String {
        let brackets = self.host.contains(':');
        let host = if brackets { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.https, self.port) {
            (true, 443) | (false, 80) => host,
            _ => format!("{host}:{}", self.port),
        }
    }

    /// Whether the host is an address of this machine written as a literal (127.0.0.0/8 or ::1).
    /// Names, `localhost` too, are not: who answers for them is decided elsewhere.
    pub fn is_loopback_literal(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

fn split_scheme(text: &str) -> Result<(bool, &str), String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        // Without a login that it may have: this is shown.
        let place = text.rsplit('@').next().unwrap_or_default();
        return Err(format!("the scheme is missing, write https://{place}"));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "https" => Ok((true, rest)),
        "http" => Ok((false, rest)),
        other => Err(format!("the scheme `{other}` is not http or https")),
    }
}

/// Splits `host`, `host:port`, `[v6]` and `[v6]:port`; the brackets stay on the host.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if host.contains(':') && !host.starts_with('[') {
        return Err("an IPv6 address must stand in brackets".into());
    }
    let Some(port) = port else { return Ok((host, None)) };
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(number) if digits && number > 0 => Ok((host, Some(number))),
        _ => Err(format!("`{port}` is not a port between 1 and 65535")),
    }
}

/// Lower-case host without brackets. A host that ends in a number must be a dotted IPv4 address:
/// `2130706433` and `0x7f.1` are addresses to some libraries and names to others.
fn parse_host(host: &str) -> Result<String, String> {
    if let Some(inside) = host.strip_prefix('[') {
        let address = inside.strip_suffix(']').and_then(|text| text.parse::<Ipv6Addr>().ok());
        return match address {
            Some(address) => Ok(address.to_string()),
            None => Err(format!("`{host}` is not an IPv6 address")),
        };
    }
    let checked = Namespace::parse(host).map_err(|error| error.to_string())?;
    let host = checked.as_str();
    let last = host.rsplit('.').next().unwrap_or(host);
    let numeric = last.starts_with("0x") || last.bytes().all(|b| b.is_ascii_digit());
    if numeric && host.parse::<Ipv4Addr>().is_err() {
        return Err(format!("`{host}` looks like a number but is not a dotted IPv4 address"));
    }
    Ok(host.to_owned())
}

fn parse_path(path: &str) -> Result<String, String> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    if !path.bytes().all(is_plain) {
        return Err(format!("the path `{path}` may hold letters, digits and - . _ ~ / only"));
    }
    let mut segments = path.split('/').skip(1);
    if segments.any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(format!("the path `{path}` holds an empty, `.` or `..` segment"));
    }
    match path == "/v2" || path.ends_with("/v2") {
        true => Err("leave /v2 out, it is added to every request".into()),
        false => Ok(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_written_back() {
        let cases = [
            ("https://registry-1.docker.io", "https://registry-1.docker.io", 443),
            ("HTTPS://Registry-1.Docker.io/", "https://registry-1.docker.io", 443),
            ("http://127.0.0.1:5711", "http://127.0.0.1:5711", 5711),
            ("http://localhost:80", "http://localhost", 80),
            ("http://h:443", "http://h:443", 443),
            ("https://h:443", "https://h", 443),
            ("https://[::1]:5000/cache/", "https://[::1]:5000/cache", 5000),
            ("https://[2001:DB8::1]", "https://[2001:db8::1]", 443),
        ];
        for (text, written, port) in cases {
            let url = EndpointUrl::parse(text).expect(text);
            assert_eq!(url.to_string(), written);
            assert_eq!(url.port, port, "{text}");
            assert_eq!(EndpointUrl::parse(written), Ok(url));
        }
    }

    #[test]
    fn what_is_not_an_endpoint_is_refused_with_a_reason() {
        let cases = [
            ("registry-1.docker.io", "https://registry-1.docker.io"),
            ("ftp://a", "not http or https"),
            ("https://user:pw@a", "username"),
            ("https://a?x=1", "query"),
            ("https://a#x", "fragment"),
            ("https://a b", "' '"),
            ("https://", ""),
            ("https://a:0", "port"),
            ("https://a:65536", "port"),
            ("https://a:+5", "port"),
            ("https://a:", "port"),
            ("https://::1", "brackets"),
            ("https://[::1", ""),
            ("https://[zz]", "IPv6"),
            ("https://a/v2", "/v2"),
            ("https://a/v2/", "/v2"),
            ("https://a/../b", "segment"),
            ("https://a//b", "segment"),
            ("https://a/%2e", "path"),
            ("https://2130706433", "number"),
            ("https://0x7f.1", "number"),
            ("https://127.1", "number"),
            ("https://a..b", ""),
        ];
        for (text, reason) in cases {
            let error = EndpointUrl::parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn only_literals_of_this_machine_are_loopback() {
        let cases = [
            ("http://127.0.0.1:1", true),
            ("http://127.9.9.9", true),
            ("http://[::1]:5", true),
            ("http://localhost:5", false),
            ("http://10.0.0.1", false),
            ("http://127.0.0.1.nip.io", false),
        ];
        for (text, expected) in cases {
            let url = EndpointUrl::parse(text).expect(text);
            assert_eq!(url.is_loopback_literal(), expected, "{text}");
        }
    }
}
