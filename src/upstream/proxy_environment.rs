//! The proxies that the environment names, in the way of curl: `https_proxy`, `http_proxy` and
//! `no_proxy`, in lower case first, then in upper case.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use super::credentials::sensitive;
use super::proxy::{Proxy, literal};
use super::url::{Host, Origin, Url};

/// What the environment says. Read when the upstreams are set up.
pub(super) struct Environment {
    https: Option<Arc<Proxy>>,
    http: Option<Arc<Proxy>>,
    except: Vec<Except>,
}

/// A variable that can't be followed. Going round a proxy that is asked for is no way out: it may
/// be there to be the only one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the environment variable {variable}: {reason}; expected http://host:port; correct it, or set \
     `proxy` of each [[upstream]] to \"none\" or to another one"
)]
pub(super) struct EnvironmentError {
    variable: String,
    reason: String,
}

/// An entry of `NO_PROXY`.
#[derive(Debug, PartialEq, Eq)]
enum Except {
    All,
    Network(IpNet),
    /// A domain and what is below it, with one port or all.
    Domain(String, Option<u16>),
}

impl Environment {
    /// Reads the variables that `get` knows; an empty one counts as not set.
    pub(super) fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, EnvironmentError> {
        let find = |name: &str| {
            [name.to_owned(), name.to_ascii_uppercase()].into_iter().find_map(|name| {
                let value = get(&name).filter(|value| !value.trim().is_empty())?;
                Some((name, value.trim().to_owned()))
            })
        };
        let proxy = |name: &str| {
            find(name).map(|(name, value)| read_proxy(&name, &value).map(Arc::new)).transpose()
        };
        let except = find("no_proxy").map(|(_, list)| list).unwrap_or_default();
        Ok(Self {
            https: proxy("https_proxy")?,
            http: proxy("http_proxy")?,
            except: except.split([',', ' ']).filter_map(read_except).collect(),
        })
    }

    /// The proxy for `origin`. This machine is never reached through one.
    pub(super) fn proxy_for(&self, origin: &Origin) -> Option<&Arc<Proxy>> {
        let proxy = if origin.https { &self.https } else { &self.http };
        let is_here = literal(&origin.host).is_some_and(|address| address.is_loopback());
        let is_excepted = || self.except.iter().any(|except| except.holds(origin));
        proxy.as_ref().filter(|_| !is_here && !is_excepted())
    }

    /// Says in the log what is in force, if anything is.
    pub(super) fn log(&self) {
        let name = |proxy: &Option<Arc<Proxy>>| {
            proxy.as_ref().map_or_else(|| "none".to_owned(), |proxy| proxy.name())
        };
        if self.https.is_some() || self.http.is_some() {
            tracing::info!(
                https = name(&self.https),
                http = name(&self.http),
                exceptions = self.except.len(),
                "upstreams without `proxy` are reached through the environment's proxies"
            );
        }
    }
}

fn read_proxy(variable: &str, value: &str) -> Result<Proxy, EnvironmentError> {
    let refused = |reason: String| EnvironmentError { variable: variable.to_owned(), reason };
    let (scheme, rest) = value.split_once("://").unwrap_or(("http", value));
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(refused(format!("the scheme `{scheme}` is not http")));
    }
    let (login, host) = match rest.rsplit_once('@') {
        Some((login, host)) => (Some(login), host),
        None => (None, rest),
    };
    let url = Url::parse(&format!("http://{host}")).map_err(|error| refused(error.to_string()))?;
    if !matches!(url.target().as_str(), "/") {
        return Err(refused("it has a path".to_owned()));
    }
    let login = match login {
        None => None,
        Some(login) => {
            let unusable = || refused("its login can't be read".to_owned());
            Some(basic(login).ok_or_else(unusable)?)
        }
    };
    Ok(Proxy::new(url, login))
}

/// `Basic` with the login of a URL, whose escapes stand for bytes.
fn basic(login: &str) -> Option<HeaderValue> {
    let decoded = |text: &str| Zeroizing::new(percent_decode_str(text).collect::<Vec<u8>>());
    let (username, password) = login.split_once(':').unwrap_or((login, ""));
    let mut pair = decoded(username);
    pair.push(b':');
    pair.extend_from_slice(&decoded(password));
    sensitive(&Zeroizing::new(format!("Basic {}", STANDARD.encode(&*pair))))
}

fn read_except(entry: &str) -> Option<Except> {
    let entry = entry.trim().to_ascii_lowercase();
    if entry == "*" {
        return Some(Except::All);
    }
    if let Ok(network) = entry.parse::<IpNet>() {
        return Some(Except::Network(network));
    }
    let bare = entry.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(Except::Network(address.into()));
    }
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (entry.as_str(), None),
    };
    let domain = host.trim_start_matches('*').trim_start_matches('.').trim_end_matches('.');
    (!domain.is_empty()).then(|| Except::Domain(domain.to_owned(), port))
}

impl Except {
    fn holds(&self, origin: &Origin) -> bool {
        match (self, &origin.host) {
            (Self::All, _) => true,
            (Self::Network(network), Host::Address(address)) => network.contains(address),
            (Self::Domain(domain, port), host) => {
                let host = host.to_string();
                let is_below = host.strip_suffix(domain.as_str());
                is_below.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
                    && port.is_none_or(|port| port == origin.port)
            }
            (Self::Network(_), Host::Name(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Result<Environment, EnvironmentError> {
        Environment::read(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn through(environment: &Environment, url: &str) -> Option<String> {
        let origin = Url::parse(url).expect(url).origin;
        environment.proxy_for(&origin).map(|proxy| proxy.name())
    }

    #[test]
    fn variables_are_read_as_curl_reads_them() {
        let (a, b) = ("http://a.test:3128", "http://b.test:3128");
        let some = |text: &str| Some(text.to_owned());
        type Variables<'a> = &'a [(&'a str, &'a str)];
        let cases: [(Variables<'_>, Option<String>, Option<String>); 8] = [
            (&[], None, None),
            (&[("HTTPS_PROXY", a)], some(a), None),
            (&[("https_proxy", a), ("HTTPS_PROXY", b)], some(a), None),
            (&[("https_proxy", ""), ("HTTPS_PROXY", b)], some(b), None),
            (&[("http_proxy", a), ("HTTPS_PROXY", b)], some(b), some(a)),
            (&[("HTTP_PROXY", "b.test:3128/")], None, some(b)),
            (&[("HTTPS_PROXY", "http://user:p%40ss@a.test:3128")], some(a), None),
            (&[("ALL_PROXY", a)], None, None),
        ];
        for (variables, https, http) in cases {
            let environment = environment(variables).expect("readable");
            assert_eq!(through(&environment, "https://ghcr.io/"), https, "{variables:?}");
            assert_eq!(through(&environment, "http://ghcr.io/"), http, "{variables:?}");
        }
        let login = basic("user:p%40ss").expect("a header");
        assert_eq!(login.as_bytes(), b"Basic dXNlcjpwQHNz");
    }

    #[test]
    fn what_cannot_be_followed_is_an_error_without_its_login() {
        for value in [
            "socks5://a.test:1",
            "https://u:canary@a.test",
            "http://u:canary@a.test/x",
            "http://:1",
        ] {
            let error = environment(&[("HTTPS_PROXY", value)]).err().expect(value).to_string();
            assert!(error.contains("HTTPS_PROXY") && error.contains("`proxy`"), "{error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn exceptions_hold() {
        let list =
            "corp.example, .internal,*.wild.test 10.0.0.0/8,192.0.2.7,[2001:db8::1],p.test:8443,:";
        let proxy = ("HTTPS_PROXY", "http://a.test:3128");
        let environment_with = |list| environment(&[proxy, ("no_proxy", list)]).expect("readable");
        let excepting = environment_with(list);
        for (url, is_excepted) in [
            ("https://corp.example/", true),
            ("https://r.corp.example/", true),
            ("https://evilcorp.example/", false),
            ("https://internal/", true),
            ("https://r.internal/", true),
            ("https://r.wild.test/", true),
            ("https://10.1.2.3/", true),
            ("https://11.1.2.3/", false),
            ("https://192.0.2.7/", true),
            ("https://[2001:db8::1]/", true),
            ("https://p.test:8443/", true),
            ("https://p.test/", false),
            ("https://ghcr.io/", false),
            ("https://127.0.0.1/", true),
            ("https://localhost:5000/", true),
            ("https://x.localhost/", true),
        ] {
            assert_eq!(through(&excepting, url).is_none(), is_excepted, "{url}");
        }
        assert_eq!(through(&environment_with("*"), "https://ghcr.io/"), None);
    }
}
