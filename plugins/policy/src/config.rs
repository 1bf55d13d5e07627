//! `[plugin.config]`: what stands in the file, each value checked where it is read, so that an
//! error names its key.

use std::net::IpAddr;
use std::time::Duration;

use glob::MatchOptions;
use ipnet::IpNet;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// The whole of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// As in `[routing]`; "" when it is not set there. Asked for, see `Policy::configure`.
    pub(crate) default_upstream: Option<String>,
    /// As in `[routing]`.
    #[serde(default)]
    pub(crate) hosted: Vec<Pattern>,
    #[serde(default)]
    pub(crate) access: Vec<Access>,
    #[serde(default)]
    pub(crate) rewrite: Vec<Rewrite>,
    #[serde(default)]
    pub(crate) credential: Vec<Credential>,
    #[serde(default)]
    pub(crate) tags: Vec<Tags>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Access {
    pub(crate) action: Action,
    #[serde(default)]
    pub(crate) images: Vec<Pattern>,
    #[serde(default)]
    pub(crate) clients: Vec<Range>,
    #[serde(default)]
    pub(crate) principals: Vec<Pattern>,
    pub(crate) reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    Allow,
    Deny,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rewrite {
    pub(crate) from: String,
    pub(crate) to: String,
    #[serde(default)]
    pub(crate) clients: Vec<Range>,
    #[serde(default)]
    pub(crate) principals: Vec<Pattern>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credential {
    pub(crate) upstream: String,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) images: Vec<Pattern>,
    #[serde(default)]
    pub(crate) clients: Vec<Range>,
    #[serde(default)]
    pub(crate) principals: Vec<Pattern>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tags {
    #[serde(default)]
    pub(crate) images: Vec<Pattern>,
    #[serde(default)]
    pub(crate) tags: Vec<Pattern>,
    #[serde(default)]
    pub(crate) immutable: bool,
    pub(crate) tag_ttl: Option<Time>,
    pub(crate) stale_max: Option<Time>,
}

/// A pattern of names: `*` is any run of characters, `/` included, `?` one character, `[a-z]` one
/// of a set, `[!a-z]` one that is not in it.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(glob::Pattern);

/// A plain `*` goes past slashes, and nothing is special about a dot.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: false,
    require_literal_leading_dot: false,
};

impl Pattern {
    pub(crate) fn matches(&self, text: &str) -> bool {
        self.0.matches_with(text, OPTIONS)
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// What stands before the first character that is not itself.
    pub(crate) fn literal(&self) -> &str {
        self.as_str().split(['*', '?', '[']).next().unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pattern, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Err(D::Error::custom("an empty pattern matches nothing; \"*\" matches all"));
        }
        glob::Pattern::new(&text).map(Pattern).map_err(|error| {
            let (what, at) = (error.msg, error.pos);
            D::Error::custom(format!("{text:?} is no pattern: {what} (character {})", at + 1))
        })
    }
}

/// An address, or a range of them: `10.1.0.0/16`, `fd00::/8`, `10.1.2.3`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range(IpNet);

impl Range {
    /// An IPv4 client of an IPv6 listener is the same client.
    pub(crate) fn contains(self, client: IpAddr) -> bool {
        self.0.contains(&client.to_canonical())
    }
}

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Range, D::Error> {
        let text = String::deserialize(deserializer)?;
        let one = || text.parse::<IpAddr>().map(IpNet::from).ok();
        text.parse().ok().or_else(one).map(Range).ok_or_else(|| {
            D::Error::custom(format!("{text:?}: expected an address or a range, as 10.1.0.0/16"))
        })
    }
}

/// A duration as people write it: `90s`, `5m`, `1h30m`, `7d`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time(Duration);

/// The ABI's bound.
const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

impl Time {
    pub(crate) fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let text = String::deserialize(deserializer)?;
        match humantime::parse_duration(&text) {
            Ok(time) if time <= TIME_MAX => Ok(Time(time)),
            Ok(_) => Err(D::Error::custom(format!("{text:?}: at most 366d"))),
            Err(error) => Err(D::Error::custom(format!("{text:?}: {error}; expected as in 5m"))),
        }
    }
}
