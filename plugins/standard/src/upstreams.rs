//! The declared upstreams, by every name that means one.

use std::borrow::Cow;

use ringport_plugin_sdk::Setup;

/// How many names a message lists; a hundred would hide the remedy behind them.
const LISTED_MAX: usize = 12;

/// Position of an upstream in the configuration: two names mean the same upstream if and only if
/// their positions are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UpstreamId(usize);

#[derive(Debug)]
pub(crate) struct Upstreams {
    canonical_names: Vec<String>,
    /// By length: a few comparisons are cheaper than a hash of the name.
    by_name: Vec<(String, UpstreamId)>,
    /// Where in `by_name` the names of each length are: nearly always the length alone tells.
    of_length: Vec<(usize, usize)>,
}

impl Upstreams {
    pub(crate) fn new(setup: &Setup<'_>) -> Upstreams {
        let mut by_name = Vec::new();
        for (index, upstream) in setup.upstreams.iter().enumerate() {
            for name in upstream.aliases.iter().chain([&upstream.canonical_name]) {
                by_name.push(((*name).to_owned(), UpstreamId(index)));
            }
        }
        by_name.sort_by_key(|(name, _)| name.len());
        let longest = by_name.last().map_or(0, |(name, _)| name.len());
        let before = |length| by_name.partition_point(|(name, _)| name.len() < length);
        let of_length = (0..=longest).map(|length| (before(length), before(length + 1))).collect();
        let canonical_name = |u: &ringport_plugin_sdk::Upstream<'_>| u.canonical_name.to_owned();
        Upstreams {
            canonical_names: setup.upstreams.iter().map(canonical_name).collect(),
            by_name,
            of_length,
        }
    }

    /// The upstream that `name` means. Case and the default port make no difference, since a host
    /// in the path comes as the client wrote it.
    pub(crate) fn find(&self, name: &str) -> Option<UpstreamId> {
        // What is declared is in normal form, as is nearly all that is asked for.
        self.find_normal(name).or_else(|| match normalised(name) {
            Cow::Borrowed(normal) if normal.len() == name.len() => None,
            normal => self.find_normal(&normal),
        })
    }

    fn find_normal(&self, name: &str) -> Option<UpstreamId> {
        let (start, end) = *self.of_length.get(name.len())?;
        let alike = self.by_name.get(start..end)?;
        alike.iter().find(|(known, _)| known == name).map(|(_, id)| *id)
    }

    pub(crate) fn canonical_name(&self, id: UpstreamId) -> &str {
        self.canonical_names.get(id.0).map_or("", String::as_str)
    }

    /// What to tell a client (and its operator) about a registry that nobody declared.
    pub(crate) fn undeclared(&self, name: &str) -> String {
        let name = normalised(name);
        let mut listed: Vec<&str> =
            self.canonical_names.iter().take(LISTED_MAX).map(String::as_str).collect();
        let more = format!("{} more", self.canonical_names.len().saturating_sub(LISTED_MAX));
        if self.canonical_names.len() > LISTED_MAX {
            listed.push(&more);
        }
        let declared = match listed.is_empty() {
            true => "nothing".to_owned(),
            false => listed.join(", "),
        };
        format!(
            "registry {name} is not declared here (declared: {declared}); to mirror it, add \
             [[upstream]] namespace = \"{name}\", endpoints = [\"https://{name}\"] to the \
             configuration"
        )
    }
}

/// Lower case, without `:443`: the form in which the host sends namespaces.
fn normalised(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix(":443").unwrap_or(name);
    match name.bytes().any(|b| b.is_ascii_uppercase()) {
        true => name.to_ascii_lowercase().into(),
        false => name.into(),
    }
}
