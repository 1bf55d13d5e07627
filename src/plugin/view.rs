//! A request as resolvers see it, worked out once for all of them.

use std::borrow::Cow;

use ringport_plugin_abi as abi;
use ringport_plugin_sdk::names::HostPrefix;

use super::declared::Declared;
use super::{ResolveError, ResolveRequest, ResolveStatus};

/// What names the registry in a request, and what is left of the name.
#[derive(Debug)]
pub(super) struct View<'a> {
    /// `abi::NS_*`
    pub(super) ns_source: u32,
    /// The namespace from there, normalised; empty for `NS_NONE`.
    pub(super) ns: Cow<'a, str>,
    /// The name without a host prefix that says the same.
    pub(super) repository: &'a str,
}

impl<'a> View<'a> {
    pub(super) fn of(request: &ResolveRequest<'a>, declared: &Declared) -> View<'a> {
        let prefix = host_prefix(request.name);
        let (ns_source, named) = match (request.header, request.ns) {
            (Some(header), _) => (abi::NS_HEADER, header.as_str()),
            (None, Some(ns)) => (abi::NS_QUERY, ns.as_str()),
            (None, None) => {
                return match prefix {
                    Some((host, repository)) => {
                        View { ns_source: abi::NS_PATH, ns: normalised(host), repository }
                    }
                    None => View {
                        ns_source: abi::NS_NONE,
                        ns: Cow::Borrowed(""),
                        repository: request.name,
                    },
                };
            }
        };
        let repeats = |host: &str| {
            let host = normalised(host);
            *host == *named || declared.is_same(&host, named)
        };
        let repository = match prefix {
            Some((host, repository)) if repeats(host) => repository,
            _ => request.name,
        };
        View { ns_source, ns: Cow::Borrowed(named), repository }
    }
}

/// The registry host in front of a path name, perhaps behind `proxy/`, and the repository behind it.
/// By the plugins' own rule, so that they and the host never see different ones.
fn host_prefix(name: &str) -> Option<(&str, &str)> {
    let prefix = HostPrefix::of(name).filter(|prefix| !prefix.repository.is_empty())?;
    Some((prefix.host, prefix.repository))
}

/// As `Namespace` writes it, for a host that the path's grammar has let pass.
fn normalised(host: &str) -> Cow<'_, str> {
    let host = host.strip_suffix(":443").unwrap_or(host);
    match host.bytes().any(|b| b.is_ascii_uppercase()) {
        true => host.to_ascii_lowercase().into(),
        false => host.into(),
    }
}

/// The values of the headers that a plugin asked for, in that order.
///
/// # Errors
/// INVALID for a value that is too long, not UTF-8, or sent twice: a rule must not depend on which
/// of two values counts, nor be got round by one that is not handed out.
pub(super) fn wanted_headers<'a>(
    request: &ResolveRequest<'a>,
    wanted: &'a [String],
) -> Result<[abi::Str; abi::HEADERS_MAX], ResolveError> {
    let mut values = [abi::Str::EMPTY; abi::HEADERS_MAX];
    let Some(head) = request.head else { return Ok(values) };
    for (value, name) in values.iter_mut().zip(wanted) {
        for found in head.values(name) {
            let problem = if !value.ptr.is_null() {
                "is given more than once"
            } else if found.len() > abi::HEADER_VALUE_BYTES_MAX {
                "has a value that is too long"
            } else if std::str::from_utf8(found).is_err() {
                "has a value that is not UTF-8"
            } else {
                // An empty value keeps its pointer: it was sent.
                *value = abi::Str { ptr: found.as_ptr(), len: found.len() };
                continue;
            };
            return Err(ResolveError {
                status: ResolveStatus::Invalid,
                message: format!("the header {name}, which decides about the route, {problem}"),
                plugin: String::new(),
            });
        }
    }
    Ok(values)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn hosts_in_front_of_names() {
        let cases = [
            ("ghcr.io/org/app", Some(("ghcr.io", "org/app"))),
            ("proxy/ghcr.io/app", Some(("ghcr.io", "app"))),
            ("localhost/app", Some(("localhost", "app"))),
            ("reg:5000/app", Some(("reg:5000", "app"))),
            ("proxy/a/b", None),
            ("org/app", None),
            ("ghcr.io", None),
            ("", None),
        ];
        for (name, expected) in cases {
            assert_eq!(host_prefix(name), expected, "{name}");
        }
        assert_eq!(normalised("GHCR.io:443"), "ghcr.io");
        assert_eq!(normalised("ghcr.io:8443"), "ghcr.io:8443");
    }
}
