//! From the schema to a [`Config`]: defaults, ranges, and the checks that need two keys at once.

mod access;
mod credential_command;
mod proxy;
mod routing;
mod server;
mod tls;
mod upstream;

use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::access::HostedRule;
use super::parse::{self, Source};
use super::schema::{self, Value, Values};
use super::text::As;
use super::{Config, ConfigError, Problem};

/// Whether the files that a configuration names are looked at too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileChecks {
    Made,
    Skipped,
}

/// Reads and checks `text`; `file` is how problems call it.
pub(super) fn check(text: &str, file: &str, files: FileChecks) -> Result<Config, ConfigError> {
    let (parsed, source) =
        parse::parse(text, file).map_err(|problem| ConfigError::Invalid(vec![*problem]))?;
    let mut checker = Checker { source, problems: Vec::new(), files };
    let config = checker.config(parsed);
    match checker.problems.is_empty() {
        true => Ok(config),
        false => Err(ConfigError::Invalid(checker.problems)),
    }
}

/// Collects problems while the values are taken over. After a problem the value taken is any that
/// lets the checks go on: the `Config` is dropped in the end.
struct Checker<'a> {
    source: Source<'a>,
    problems: Vec<Problem>,
    files: FileChecks,
}

impl Checker<'_> {
    fn config(&mut self, file: schema::File) -> Config {
        let upstreams = self.upstreams(file.upstream);
        let plugins = self.plugins(file.plugin);
        let server = self.server(file.server.unwrap_or_default());
        let auth = file.auth.unwrap_or_default();
        let addresses: Vec<_> = server.addresses().collect();
        let (auth, hosted) = self.access(auth, file.hosted, &addresses);
        Config {
            server,
            storage: self.storage(file.storage.unwrap_or_default()),
            routing: self.routing(file.routing.unwrap_or_default(), &upstreams, &plugins),
            auth,
            hosted,
            hosted_otherwise: HostedRule::built_in(),
            upstreams,
            plugins,
            log: self.log(file.log.unwrap_or_default()),
        }
    }

    fn refuse(
        &mut self,
        span: Range<usize>,
        expected: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let remedy = Some(remedy.into()).filter(|text| !text.is_empty());
        let problem = self.source.problem(span, expected, found, remedy);
        self.problems.push(problem);
    }

    /// A whole number within `range`; every count fits a `usize` by then.
    fn count(&mut self, value: Value<u64>, default: usize, range: RangeInclusive<u64>) -> usize {
        let Some(value) = value else { return default };
        let number = *value.get_ref();
        if !range.contains(&number) {
            let expected = format!("a number from {} to {}", range.start(), range.end());
            self.refuse(value.span(), expected, number.to_string(), "");
        }
        usize::try_from(number).unwrap_or(default)
    }

    /// A duration that must be longer than nothing and at most a day: a time limit.
    fn limit(&mut self, value: Value<As<Duration>>, default: Duration) -> Duration {
        let Some(value) = value else { return default };
        let limit = value.get_ref().0;
        if limit.is_zero() || limit > Duration::from_secs(24 * 3600) {
            let found = super::format_duration(limit);
            self.refuse(value.span(), "a time limit from 1ms to 1d", found, "");
        }
        limit
    }

    /// A path that is not empty.
    fn path(&mut self, value: Spanned<PathBuf>) -> PathBuf {
        if value.get_ref().as_os_str().is_empty() {
            self.refuse(value.span(), "a path", "an empty text", "");
        }
        value.into_inner()
    }

    /// A name of ours: lower-case letters, digits, `-` and `_`, at most 64.
    fn name(&mut self, value: &Spanned<String>) {
        let name = value.get_ref();
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            let expected = "1 to 64 lower-case letters, digits, - and _";
            self.refuse(value.span(), expected, format!("{name:?}"), "");
        }
    }

    /// A file that must be there; `secret` ones must not be open to others.
    fn file(&mut self, value: Value<PathBuf>, secret: bool) -> Option<PathBuf> {
        let span = value.as_ref()?.span();
        let path = self.path(value?);
        if self.files == FileChecks::Made {
            self.look_at(span, &path, secret);
        }
        Some(path)
    }

    fn look_at(&mut self, span: Range<usize>, path: &Path, secret: bool) {
        let seen = match secret {
            true => super::files::secret(path),
            false => super::files::readable(path),
        };
        if let Err(refusal) = seen {
            self.refuse(span, refusal.expected, refusal.found, refusal.remedy);
        }
    }
}

/// Nothing given means `default`.
fn flag(value: Value<bool>, default: bool) -> bool {
    value.map_or(default, Spanned::into_inner)
}

fn text<T>(value: Value<As<T>>, default: T) -> T {
    value.map_or(default, |value| value.into_inner().0)
}

/// The items of a list, each with its place; an absent list is empty.
fn items<T>(list: Values<T>) -> Vec<Spanned<T>> {
    list.map(Spanned::into_inner).unwrap_or_default()
}
