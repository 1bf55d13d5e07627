//! The grammar and the patterns that nearly every resolver needs.

/// Whether `name` is a repository name of the OCI distribution specification
/// (`[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`) of at most 255
/// bytes. What is not must not be emitted: the host would answer 500.
pub fn is_repository_name(name: &str) -> bool {
    // Without a branch a byte: nearly always each separator stands alone, and then it is enough
    // that no two bytes in a row are separators.
    let (mut seen, mut doubled, mut before) = (0, 0, SEPARATOR);
    for byte in name.bytes() {
        let class = CLASSES.get(usize::from(byte)).copied().unwrap_or(FOREIGN);
        seen |= class;
        doubled |= class & before;
        before = class;
    }
    seen & FOREIGN == 0
        && before != SEPARATOR
        && name.len() <= ringport_plugin_abi::REPOSITORY_BYTES_MAX
        && (doubled == 0 || has_legal_runs(name))
}

/// What a byte may be in a repository name.
const WORD: u8 = 0;
const SEPARATOR: u8 = 1;
const FOREIGN: u8 = 2;

/// The class of each byte.
static CLASSES: [u8; 256] = {
    let mut classes = [FOREIGN; 256];
    let mut byte: usize = 0;
    while byte < classes.len() {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'0'..=b'9' => WORD,
            b'/' | b'.' | b'_' | b'-' => SEPARATOR,
            _ => FOREIGN,
        };
        byte += 1;
    }
    classes
};

/// [`is_repository_name`] of a name with separators in a row, such as `a__b`.
#[cold]
fn has_legal_runs(name: &str) -> bool {
    // One pass: what may follow depends on the run of separators being read, and nothing else.
    let mut gap = Gap::Start;
    for byte in name.bytes() {
        gap = match (byte, gap) {
            (b'a'..=b'z' | b'0'..=b'9', _) => Gap::None,
            (b'/', Gap::None) => Gap::Start,
            (b'.', Gap::None) => Gap::Closed,
            (b'_', Gap::None) => Gap::Underscore,
            (b'_', Gap::Underscore) => Gap::Closed,
            (b'-', Gap::None | Gap::Hyphens) => Gap::Hyphens,
            _ => return false,
        };
    }
    gap == Gap::None
}

/// What stands between the last letter or digit of a name and the byte at hand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gap {
    /// Nothing: any separator may follow.
    None,
    /// A slash, or the name's beginning: only a letter or digit may follow.
    Start,
    /// A dot or two underscores: likewise.
    Closed,
    /// One underscore: another may follow.
    Underscore,
    /// Hyphens: more of them may follow.
    Hyphens,
}

/// A repository name put together without allocating, for `resolve`.
///
/// ```
/// use ringport_plugin_sdk::names::NameBuf;
///
/// assert_eq!(NameBuf::join(&["library/", "alpine"]).as_str(), "library/alpine");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct NameBuf {
    bytes: [u8; NAME_BUF_BYTES],
    len: usize,
}

/// One more than a name may have, so that a name that was cut is never mistaken for a good one.
const NAME_BUF_BYTES: usize = ringport_plugin_abi::REPOSITORY_BYTES_MAX + 1;

impl NameBuf {
    /// The parts in a row. What goes beyond 256 bytes is cut off: [`is_repository_name`] and the
    /// host refuse what is left.
    pub fn join(parts: &[&str]) -> NameBuf {
        let mut name = NameBuf { bytes: [0; NAME_BUF_BYTES], len: 0 };
        for part in parts {
            let room = name.bytes.get_mut(name.len..).unwrap_or_default();
            let taken = room.len().min(part.len());
            if let (Some(to), Some(from)) = (room.get_mut(..taken), part.as_bytes().get(..taken)) {
                to.copy_from_slice(from);
            }
            name.len += taken;
        }
        name
    }

    /// The name; empty if it was cut within a character.
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..self.len).unwrap_or_default();
        ringport_plugin_abi::text(bytes).unwrap_or_default()
    }
}

/// Whether a path's first segment is a registry host in the sense of Docker's image references:
/// it holds a `.` or a `:`, or is `localhost`.
pub fn looks_like_host(segment: &str) -> bool {
    segment.contains(['.', ':']) || is_localhost(segment)
}

fn is_localhost(segment: &str) -> bool {
    segment.eq_ignore_ascii_case("localhost")
}

/// The registry host that a name in a path begins with, perhaps behind `proxy/`. `proxy/` counts
/// only before a host; otherwise it is a name like any other.
///
/// ```
/// use ringport_plugin_sdk::names::HostPrefix;
///
/// let prefix = HostPrefix::of("proxy/ghcr.io/org/app").unwrap();
/// assert_eq!((prefix.host, prefix.repository), ("ghcr.io", "org/app"));
/// assert!(HostPrefix::of("org/my.app").is_none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPrefix<'a> {
    /// As the client wrote it: of any case, perhaps with a port.
    pub host: &'a str,
    /// What stands up to the end of the host: `ghcr.io`, `proxy/ghcr.io`.
    pub through_host: &'a str,
    /// The name behind the host; empty when nothing follows.
    pub repository: &'a str,
}

impl HostPrefix<'_> {
    /// Splits a host off the front of `name`; `None` where its first segment is none.
    pub fn of(name: &str) -> Option<HostPrefix<'_>> {
        let rest = name.strip_prefix("proxy/").unwrap_or(name);
        // Most names have nothing of a host in them.
        let is_mark = |byte| matches!(byte, b'.' | b':');
        let may_be_localhost =
            rest.as_bytes().first().is_some_and(|b| b.eq_ignore_ascii_case(&b'l'));
        if !may_be_localhost && !any::<16>(rest.as_bytes(), is_mark) {
            return None;
        }
        let mut is_marked = false;
        let mut end = rest.len();
        for (at, byte) in rest.bytes().enumerate() {
            if byte == b'/' {
                end = at;
                break;
            }
            is_marked |= is_mark(byte);
        }
        let host = rest.get(..end).filter(|host| is_marked || is_localhost(host))?;
        let repository = rest.get(host.len() + 1..).unwrap_or_default();
        let through_host = name.get(..name.len() - rest.len() + host.len()).unwrap_or(name);
        Some(HostPrefix { host, through_host, repository })
    }
}

/// Whether there is such a byte; of pieces of `N` bytes all are looked at, without a branch.
#[inline(always)]
fn any<const N: usize>(bytes: &[u8], is_wanted: impl Fn(u8) -> bool + Copy) -> bool {
    let in_piece =
        |piece: &[u8; N]| piece.iter().fold(0, |any, b| any | u8::from(is_wanted(*b))) != 0;
    match bytes.last_chunk() {
        Some(last) => in_piece(last) || bytes.as_chunks().0.iter().any(in_piece),
        None => bytes.iter().any(|byte| is_wanted(*byte)),
    }
}

/// Whether `pattern` matches all of `text`. `*` stands for any run of characters, none and `/`
/// included; every other character for itself. Time is at most the product of the lengths.
pub fn glob_matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last `*` does not match: let the `*` take one more.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p, t));
            p += 1;
        } else if pattern.get(p).is_some() && pattern.get(p) == text.get(t) {
            p += 1;
            t += 1;
        } else if let Some((star, taken)) = retry {
            retry = Some((star, taken + 1));
            p = star + 1;
            t = taken + 1;
        } else {
            return false;
        }
    }
    pattern.iter().skip(p).all(|b| *b == b'*')
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn repository_names_follow_the_specification() {
        let good = ["a", "library/alpine", "a.b/c_d/e__f/g--h/i", "0/1", "ghcr.io/x"];
        let bad = [
            "", "/a", "a/", "a//b", "A", "a.", ".a", "a..b", "a___b", "a._b", "a b", "a:5/b", "-a",
            "a_-b", "é", "a/-",
        ];
        for name in good {
            assert!(is_repository_name(name), "{name:?}");
        }
        for name in bad {
            assert!(!is_repository_name(name), "{name:?}");
        }
        assert!(is_repository_name(&"a".repeat(255)));
        assert!(!is_repository_name(&"a".repeat(256)));
    }

    #[test]
    fn the_quick_look_at_a_name_says_what_the_grammar_says() {
        let alphabet = ['a', '7', '/', '.', '_', '-', 'A', 'é'];
        for mut number in 0..8_usize.pow(6) {
            let mut name = String::new();
            while number > 0 {
                name.push(alphabet[number % 8]);
                number /= 8;
            }
            assert_eq!(is_repository_name(&name), has_legal_runs(&name), "{name:?}");
        }
    }

    #[test]
    fn names_are_joined_and_what_is_too_long_is_no_name() {
        assert_eq!(NameBuf::join(&[]).as_str(), "");
        assert_eq!(NameBuf::join(&["a/", "", "b"]).as_str(), "a/b");
        let long = "a".repeat(255);
        assert_eq!(NameBuf::join(&[&long]).as_str(), long);
        for parts in [&[long.as_str(), "a"][..], &[&long, "abc"], &[&long, "/", "b"]] {
            assert!(!is_repository_name(NameBuf::join(parts).as_str()));
        }
        assert_eq!(NameBuf::join(&[&long, "é"]).as_str(), "");
    }

    #[test]
    fn globs() {
        let cases = [
            ("*", "a/b", true),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("team/*", "team/a/b", true),
            ("team/*", "team/", true),
            ("team/*", "team", false),
            ("team/*", "steam/a", false),
            ("*/app", "a/b/app", true),
            ("*/app", "a/apps", false),
            ("a*b*c", "abbc", true),
            ("a*b*c", "acb", false),
            ("a**b", "ab", true),
            ("team", "team", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(glob_matches(pattern, text), expected, "{pattern:?} on {text:?}");
        }
        let evil = format!("{}b", "*a".repeat(50));
        assert!(!glob_matches(&evil, &"a".repeat(255)), "ends, and quickly");
    }

    #[test]
    fn hosts_in_front_of_names() {
        let cases = [
            ("ghcr.io/org/app", Some(("ghcr.io", "ghcr.io", "org/app"))),
            ("proxy/Reg:5000/app", Some(("Reg:5000", "proxy/Reg:5000", "app"))),
            ("my.app", Some(("my.app", "my.app", ""))),
            ("proxy/my.app", Some(("my.app", "proxy/my.app", ""))),
            ("my.app/", Some(("my.app", "my.app", ""))),
            ("proxy/localhost/a.b/c", Some(("localhost", "proxy/localhost", "a.b/c"))),
            ("org/my.app", None),
            ("org/sub/v1.2", None),
            ("proxy/org/my.app", None),
            ("proxy", None),
            ("", None),
        ];
        for (name, expected) in cases {
            let found = HostPrefix::of(name);
            let found = found.map(|found| (found.host, found.through_host, found.repository));
            assert_eq!(found, expected, "{name:?}");
        }
    }

    #[test]
    fn hosts() {
        for host in ["ghcr.io", "reg:5000", "localhost", "LocalHost", "localhost:5000"] {
            assert!(looks_like_host(host), "{host}");
        }
        for name in ["", "library", "local", "my_reg"] {
            assert!(!looks_like_host(name), "{name}");
        }
    }
}
