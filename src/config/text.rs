//! Values with a textual form of their own: read and checked where serde meets them, so that the
//! error knows the place, and written back in the same form.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::access::{MissingReferences, Subject};
use super::model::{AccessTarget, ClientCertificate, ColdRanges, Driver, LogFormat, LogLevel};
use super::{EndpointUrl, parse, units};
use crate::oci::Namespace;

/// Stands between what was expected and why this was not it in the message of a refused text;
/// TOML text cannot hold it unescaped.
pub(super) const REASON: char = '\u{1f}';

/// Longest name of a user.
const SUBJECT_BYTES_MAX: usize = 256;

/// `server.admin`: an address, or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AdminAddress(pub Option<SocketAddr>);

/// `storage.verify_interval`: a duration, or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval(pub Option<Duration>);

/// Bytes written with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub u64);

/// `host` or `host:port` of a token server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RealmHost(pub Namespace);

/// A value with a textual form of its own.
pub(super) trait Text: Sized {
    /// What may be written, as the end of the sentence "expected ...".
    const EXPECTED: &'static str;

    /// Reads it; the error is the reason or the way out, possibly empty.
    fn read(text: &str) -> Result<Self, String>;

    /// Writes what `read` reads.
    fn write(&self) -> String;
}

/// A `T` written as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct As<T>(pub T);

impl<'de, T: Text> Deserialize<'de> for As<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(PhantomData))
    }
}

impl<T: Text> Serialize for As<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.write())
    }
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: Text> Visitor<'_> for TextVisitor<T> {
    type Value = As<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<As<T>, E> {
        T::read(text).map(As).map_err(|reason| {
            let (expected, text) = (T::EXPECTED, without_login(text));
            E::custom(format!(
                "invalid value: string {text:?}, expected {expected}{REASON}{reason}"
            ))
        })
    }
}

/// A text that is shown because it was refused: a URL without the login that it should not have had.
fn without_login(text: &str) -> Cow<'_, str> {
    // The scheme may be what is missing.
    let from = text.find("://").map_or(0, |scheme| scheme + 3);
    match text.rfind('@').filter(|at| *at >= from) {
        Some(at) => {
            let (kept, _) = text.split_at(from);
            Cow::Owned(format!("{kept}[redacted]{}", text.get(at..).unwrap_or_default()))
        }
        None => Cow::Borrowed(text),
    }
}

impl Text for SocketAddr {
    const EXPECTED: &'static str = "an address with a port such as \"127.0.0.1:5000\"";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| match text.strip_prefix("localhost:") {
            Some(port) => format!("write \"127.0.0.1:{port}\", names are not looked up here"),
            None => "an IPv6 address stands in brackets, as in \"[::1]:5000\"".to_owned(),
        })
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Text for AdminAddress {
    const EXPECTED: &'static str = "an address with a port such as \"127.0.0.1:5001\", or \"off\"";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(AdminAddress(None)),
            _ => <SocketAddr as Text>::read(text).map(|address| AdminAddress(Some(address))),
        }
    }

    fn write(&self) -> String {
        self.0.map_or_else(|| "off".to_owned(), |address| address.to_string())
    }
}

impl Text for Namespace {
    const EXPECTED: &'static str = "a registry host such as \"docker.io\" or \"10.0.0.5:5000\"";

    fn read(text: &str) -> Result<Self, String> {
        Namespace::parse(text).map_err(|error| error.to_string())
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Text for RealmHost {
    const EXPECTED: &'static str = "the host of a token server such as \"auth.docker.io\"";

    fn read(text: &str) -> Result<Self, String> {
        <Namespace as Text>::read(text).map(RealmHost)
    }

    fn write(&self) -> String {
        self.0.to_string()
    }
}

impl Text for EndpointUrl {
    const EXPECTED: &'static str = "a URL such as \"https://registry-1.docker.io\"";

    fn read(text: &str) -> Result<Self, String> {
        EndpointUrl::parse(text)
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Text for IpNet {
    const EXPECTED: &'static str = "an address range such as \"10.0.0.0/8\"";

    fn read(text: &str) -> Result<Self, String> {
        let net: IpNet = text.parse().map_err(|_| match text.contains('/') {
            true => String::new(),
            false => format!("write \"{text}/32\" (\"/128\" for IPv6) for one address"),
        })?;
        match net.trunc() == net {
            true => Ok(net),
            false => Err(format!("bits after the prefix are set, write \"{}\"", net.trunc())),
        }
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Text for Duration {
    const EXPECTED: &'static str = "a duration such as \"30s\", \"5m\" or \"1h30m\"";

    fn read(text: &str) -> Result<Self, String> {
        units::parse_duration(text)
    }

    fn write(&self) -> String {
        units::format_duration(*self)
    }
}

impl Text for Interval {
    const EXPECTED: &'static str = "a duration such as \"7d\" or \"12h\", or \"off\"";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Interval(None)),
            _ => <Duration as Text>::read(text).map(|interval| Interval(Some(interval))),
        }
    }

    fn write(&self) -> String {
        self.0.map_or_else(|| "off".to_owned(), units::format_duration)
    }
}

impl Text for Size {
    const EXPECTED: &'static str = "a size such as \"512MiB\" or \"100GiB\"";

    fn read(text: &str) -> Result<Self, String> {
        units::parse_size(text).map(Size)
    }

    fn write(&self) -> String {
        units::format_size(self.0)
    }
}

impl Text for Driver {
    const EXPECTED: &'static str = "\"auto\", \"io_uring\" or \"epoll\"";

    fn read(text: &str) -> Result<Self, String> {
        one_of(text, &[Driver::Auto, Driver::IoUring, Driver::Epoll], |driver| driver.as_str())
    }

    fn write(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Text for ColdRanges {
    const EXPECTED: &'static str = "\"verified\" or \"unverified\"";

    fn read(text: &str) -> Result<Self, String> {
        one_of(text, &[ColdRanges::Verified, ColdRanges::Unverified], |ranges| ranges.as_str())
    }

    fn write(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Text for MissingReferences {
    const EXPECTED: &'static str = "\"refused\", \"allowed\" or \"in_indexes\"";

    fn read(text: &str) -> Result<Self, String> {
        use MissingReferences::{Allowed, InIndexes, Refused};
        one_of(text, &[Refused, Allowed, InIndexes], |word| word.as_str())
    }

    fn write(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Text for Subject {
    const EXPECTED: &'static str = "\"anonymous\", \"authenticated\" or a user's name";

    /// A word that is nearly one of the two is one of them mistyped, sooner than a user.
    fn read(text: &str) -> Result<Self, String> {
        let own = [Subject::Anonymous, Subject::Authenticated];
        let lower = text.to_ascii_lowercase();
        if let Some(word) = own.iter().find(|word| word.as_str() == text) {
            return Ok(word.clone());
        }
        let near = |word: &&Subject| strsim::damerau_levenshtein(&lower, word.as_str()) <= 1;
        if let Some(word) = own.iter().find(near) {
            return Err(format!("did you mean \"{}\"?", word.as_str()));
        }
        let is_name = (1..=SUBJECT_BYTES_MAX).contains(&text.len());
        match is_name && !text.chars().any(char::is_control) {
            true => Ok(Subject::User(text.to_owned())),
            false => Err(format!(
                "a name has 1 to {SUBJECT_BYTES_MAX} bytes and none that is a \
                                  control character"
            )),
        }
    }

    fn write(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Text for ClientCertificate {
    const EXPECTED: &'static str = "\"optional\" or \"required\"";

    fn read(text: &str) -> Result<Self, String> {
        let all = [ClientCertificate::Optional, ClientCertificate::Required];
        one_of(text, &all, |asked| asked.as_str())
    }

    fn write(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Text for LogLevel {
    const EXPECTED: &'static str = "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"";

    fn read(text: &str) -> Result<Self, String> {
        use LogLevel::{Debug, Error, Info, Trace, Warn};
        one_of(text, &[Error, Warn, Info, Debug, Trace], |level| level.as_str())
    }

    fn write(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Text for LogFormat {
    const EXPECTED: &'static str = "\"text\" or \"json\"";

    fn read(text: &str) -> Result<Self, String> {
        one_of(text, &[LogFormat::Text, LogFormat::Json], format_word)
    }

    fn write(&self) -> String {
        format_word(*self).to_owned()
    }
}

impl Text for AccessTarget {
    const EXPECTED: &'static str = "\"stdout\", \"stderr\", \"off\" or the path of a file";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "stdout" => Ok(AccessTarget::Stdout),
            "stderr" => Ok(AccessTarget::Stderr),
            "off" => Ok(AccessTarget::Off),
            // A bare word is one of the three mistyped, sooner than a file.
            path if path.contains('/') => Ok(AccessTarget::File(PathBuf::from(path))),
            word => Err(format!("for a file of that name write \"./{word}\"")),
        }
    }

    fn write(&self) -> String {
        match self {
            AccessTarget::Stdout => "stdout".to_owned(),
            AccessTarget::Stderr => "stderr".to_owned(),
            AccessTarget::Off => "off".to_owned(),
            AccessTarget::File(path) => path.display().to_string(),
        }
    }
}

fn format_word(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    }
}

fn one_of<T: Copy>(text: &str, all: &[T], word: fn(T) -> &'static str) -> Result<T, String> {
    let found = all.iter().copied().find(|value| word(*value) == text);
    found.ok_or_else(|| {
        let nearest = parse::nearest(text, all.iter().map(|value| word(*value)));
        nearest.map_or_else(String::new, |word| format!("did you mean \"{word}\"?"))
    })
}
