//! Repository names: the spec's `<name>`, and the wider text that may stand in a request path.

use std::fmt;
use std::sync::Arc;

use super::namespace::Namespace;
use crate::limits::{PATH_NAME_BYTES_MAX, REPOSITORY_NAME_BYTES_MAX};

/// First path segment that may stand before a host prefix: `/v2/proxy/ghcr.io/org/app/...`.
const PROXY_SEGMENT: &str = "proxy";

/// Why a text is not a repository name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("the repository name is empty; expected for example library/alpine")]
    Empty,
    /// Over the bound.
    #[error("a repository name has at most {max} bytes; this one has {found}")]
    TooLong {
        /// The bound.
        max: usize,
        /// Bytes found.
        found: usize,
    },
    /// A segment that doesn't match the grammar.
    #[error(
        "segment {segment} of the repository name is not lower-case letters and digits joined by \
         '.', '_', '__' or hyphens"
    )]
    Segment {
        /// Number of the first wrong segment, counted from 1.
        segment: usize,
    },
    /// `localhost:5711` and nothing behind it.
    #[error("the path names a registry host but no repository behind it")]
    HostOnly,
}

/// A repository name by the spec's grammar, at most 255 bytes. Cheap to clone.
///
/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Arc<str>);

impl RepositoryName {
    /// Parses the grammar above; nothing is normalised.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_length(text, REPOSITORY_NAME_BYTES_MAX)?;
        match text.split('/').position(|segment| !is_component(segment)) {
            Some(wrong) => Err(NameError::Segment { segment: wrong + 1 }),
            None => Ok(Self(text.into())),
        }
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name part of a request path: a repository name, perhaps behind a registry host
/// (`ghcr.io/org/app`, `localhost:5711/app`), perhaps both behind `proxy/`.
///
/// What the first segment means is the resolver's decision, since `ghcr.io/org/app` is also a
/// legal repository name. The text is as the client wrote it, percent-decoded once: the host part
/// may be in upper case; all else is in the grammar of [`RepositoryName`]. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathName(Arc<str>);

impl PathName {
    /// Parses `[proxy/][host/]name`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_length(text, PATH_NAME_BYTES_MAX)?;
        let host_at = usize::from(text.split('/').next() == Some(PROXY_SEGMENT));
        let mut host_only = false;
        for (at, segment) in text.split('/').enumerate() {
            host_only = false;
            if is_component(segment) {
                continue;
            }
            if at != host_at || !is_host(segment) {
                return Err(NameError::Segment { segment: at + 1 });
            }
            host_only = true;
        }
        if host_only { Err(NameError::HostOnly) } else { Ok(Self(text.into())) }
    }

    /// The text as it stood in the path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same text as a repository name, if it is one.
    pub fn to_repository_name(&self) -> Result<RepositoryName, NameError> {
        RepositoryName::parse(&self.0)
    }
}

fn check_length(text: &str, max: usize) -> Result<(), NameError> {
    match text.len() {
        0 => Err(NameError::Empty),
        found if found > max => Err(NameError::TooLong { max, found }),
        _ => Ok(()),
    }
}

/// One path component: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_component(segment: &str) -> bool {
    // What may follow depends only on the separator being read, so one pass with a run is enough.
    let mut run: Option<(u8, usize)> = Some((0, 0));
    for byte in segment.bytes() {
        run = match (byte, run) {
            (b'a'..=b'z' | b'0'..=b'9', _) => None,
            (b'.' | b'_' | b'-', None) => Some((byte, 1)),
            (b'_', Some((b'_', 1))) => Some((b'_', 2)),
            (b'-', Some((b'-', length))) => Some((b'-', length + 1)),
            _ => return false,
        };
    }
    run.is_none()
}

/// Whether a segment that is no path component is a registry host, by the rule of the Docker
/// reference grammar: it holds a dot or a colon (or brackets), or is `localhost`.
fn is_host(segment: &str) -> bool {
    let marked = segment.contains(['.', ':']) || segment.eq_ignore_ascii_case("localhost");
    marked && Namespace::parse(segment).is_ok()
}

macro_rules! text_display {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    )*};
}
text_display!(RepositoryName, PathName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_grammar_are_taken_as_they_stand() {
        let longest = "a/".repeat(127) + "a";
        assert_eq!(longest.len(), 255);
        let cases = [
            "alpine",
            "library/alpine",
            "a.b_c__d-e---f/0",
            "ghcr.io/org/app",
            "proxy/x",
            "manifests/blobs/tags",
            longest.as_str(),
        ];
        for text in cases {
            assert_eq!(RepositoryName::parse(text).unwrap().as_str(), text);
            assert_eq!(PathName::parse(text).unwrap().to_repository_name().unwrap().as_str(), text);
        }
    }

    #[test]
    fn other_names_are_refused_with_the_segment() {
        let cases = [
            ("", NameError::Empty),
            ("/", NameError::Segment { segment: 1 }),
            ("a/", NameError::Segment { segment: 2 }),
            ("/a", NameError::Segment { segment: 1 }),
            ("a//b", NameError::Segment { segment: 2 }),
            ("a/../b", NameError::Segment { segment: 2 }),
            ("a/./b", NameError::Segment { segment: 2 }),
            ("Alpine", NameError::Segment { segment: 1 }),
            ("a..b", NameError::Segment { segment: 1 }),
            ("a___b", NameError::Segment { segment: 1 }),
            ("a._b", NameError::Segment { segment: 1 }),
            ("a-_b", NameError::Segment { segment: 1 }),
            ("a_-b", NameError::Segment { segment: 1 }),
            ("-a", NameError::Segment { segment: 1 }),
            ("a-", NameError::Segment { segment: 1 }),
            ("_a", NameError::Segment { segment: 1 }),
            ("a_", NameError::Segment { segment: 1 }),
            ("a/_catalog", NameError::Segment { segment: 2 }),
            ("a%2fb", NameError::Segment { segment: 1 }),
            ("a b", NameError::Segment { segment: 1 }),
            ("a\0", NameError::Segment { segment: 1 }),
            ("é", NameError::Segment { segment: 1 }),
        ];
        for (text, expected) in cases {
            assert_eq!(RepositoryName::parse(text), Err(expected), "{text:?}");
            assert_eq!(PathName::parse(text), Err(expected), "{text:?}");
        }
        let long = "a".repeat(256);
        let expected = NameError::TooLong { max: 255, found: 256 };
        assert_eq!(RepositoryName::parse(&long), Err(expected));
        assert!(matches!(
            PathName::parse(&"a".repeat(518)),
            Err(NameError::TooLong { max: 517, found: 518 })
        ));
    }

    #[test]
    fn a_host_may_stand_first_or_behind_proxy() {
        let good = [
            "localhost:5711/x",
            "proxy/localhost:5711/x",
            "GHCR.io/org/app",
            "proxy/Ghcr.IO/org/app",
            "127.0.0.1:5000/x/y",
            "[::1]:5000/x",
            "proxy/proxy/x",
            "a.b:443/x",
        ];
        for text in good {
            assert_eq!(PathName::parse(text).unwrap().as_str(), text);
        }
        let bad = [
            ("localhost:5711", NameError::HostOnly),
            ("proxy/localhost:5711", NameError::HostOnly),
            ("GHCR.IO", NameError::HostOnly),
            ("x/localhost:5711/y", NameError::Segment { segment: 2 }),
            ("proxy/x/localhost:5711/y", NameError::Segment { segment: 3 }),
            ("localhost:5711/proxy:1/y", NameError::Segment { segment: 2 }),
            ("Foo/bar", NameError::Segment { segment: 1 }),
            ("ghcr.io./x", NameError::Segment { segment: 1 }),
            ("a@b.c/x", NameError::Segment { segment: 1 }),
            ("ghcr.io:99999/x", NameError::Segment { segment: 1 }),
            ("2130706433:1/x", NameError::Segment { segment: 1 }),
            ("ghcr.io:443/X", NameError::Segment { segment: 2 }),
        ];
        for (text, expected) in bad {
            assert_eq!(PathName::parse(text), Err(expected), "{text:?}");
        }
    }
}
