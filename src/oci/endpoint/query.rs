//! Queries: the parameters that mean something, and percent-encoding (RFC 3986).

use std::borrow::Cow;
use std::fmt::Write as _;

use super::{Digest, EndpointError, PathName, UploadAsked};
use crate::limits::{PAGE_ENTRIES_MAX, QUERY_VALUE_BYTES_MAX};

/// Parameters of a list's next page besides our own.
const OTHERS_MAX: usize = 8;
const QUERY_KEY_BYTES_MAX: usize = 64;
/// What registries put there may be a whole sealed state of theirs.
const CURSOR_BYTES_MAX: usize = 1024;

/// The query parameters that mean something, decoded once.
#[derive(Default)]
pub(super) struct Query<'a> {
    pub(super) ns: Option<Cow<'a, str>>,
    n: Option<Cow<'a, str>>,
    last: Option<Cow<'a, str>>,
    artifact_type: Option<Cow<'a, str>>,
    /// All others, key decoded, value as it came.
    others: Vec<(Cow<'a, str>, &'a str)>,
}

impl<'a> Query<'a> {
    pub(super) fn parse(query: &'a str) -> Result<Self, EndpointError> {
        let mut found = Self::default();
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            // Keys are decoded too, or `%6es=` would slip past the check for a second `ns=`. One
            // that can't be decoded is none of ours.
            let Ok(key) = decode(key, SlashRule::Allow) else { continue };
            let (name, slot) = match key.as_ref() {
                "ns" => ("ns", &mut found.ns),
                "n" => ("n", &mut found.n),
                "last" => ("last", &mut found.last),
                "artifactType" => ("artifactType", &mut found.artifact_type),
                _ => {
                    found.others.push((key, value));
                    continue;
                }
            };
            if slot.replace(decode(value, SlashRule::Allow)?).is_some() {
                return Err(EndpointError::Repeated(name));
            }
        }
        Ok(found)
    }

    /// `n`, lowered to [`PAGE_ENTRIES_MAX`]: nothing is ever allocated by it.
    pub(super) fn page_size(&self) -> Result<Option<u32>, EndpointError> {
        let Some(text) = self.n.as_deref() else { return Ok(None) };
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(EndpointError::QueryValue { key: "n", expected: "a whole number" });
        }
        // All digits, so the only way to fail is to be too large.
        Ok(Some(text.parse().unwrap_or(PAGE_ENTRIES_MAX).min(PAGE_ENTRIES_MAX)))
    }

    pub(super) fn last(&self) -> Result<Option<String>, EndpointError> {
        checked_value("last", self.last.as_deref())
    }

    pub(super) fn artifact_type(&self) -> Result<Option<String>, EndpointError> {
        // The spec has no filter "no type"; an empty value means that no filter was meant.
        let given = self.artifact_type.as_deref().filter(|text| !text.is_empty());
        checked_value("artifactType", given)
    }

    /// What an upload is asked; everything else is ignored: other registries keep their state there.
    pub(super) fn upload(&self) -> Result<UploadAsked, EndpointError> {
        let text = |key| self.once(key);
        Ok(UploadAsked {
            digest: text("digest")?.map(|text| Digest::parse(&text)).transpose()?,
            mount: text("mount")?.map(|text| Digest::parse(&text)).transpose()?,
            from: text("from")?.map(|text| PathName::parse(&text)).transpose()?,
            algorithm: text("digest-algorithm")?.map(|text| text.parse()).transpose()?,
        })
    }

    /// The value of a parameter that is not one of lists, decoded.
    fn once(&self, key: &'static str) -> Result<Option<Cow<'a, str>>, EndpointError> {
        let mut values = self.others.iter().filter(|(other, _)| other == key);
        let Some((_, value)) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(EndpointError::Repeated(key));
        }
        decode(value, SlashRule::Allow).map(Some)
    }

    /// The parameters that we don't know, decoded, ordered by key. Lists are paged by what their
    /// registry likes: those that stand in its link to the next page must come back to it.
    pub(super) fn others(&self) -> Result<Vec<(String, String)>, EndpointError> {
        let expected = "at most 8, with plain names and 1024 visible ASCII characters each";
        let refused = EndpointError::QueryValue { key: "of the next page", expected };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let is_visible = |byte: u8| byte.is_ascii_graphic();
        let mut others = Vec::new();
        for (key, value) in self.others.iter().filter(|(key, _)| !key.is_empty()) {
            let value = decode(value, SlashRule::Allow)?;
            let is_sound = key.bytes().all(is_plain) && value.bytes().all(is_visible);
            let is_short = key.len() <= QUERY_KEY_BYTES_MAX && value.len() <= CURSOR_BYTES_MAX;
            if !is_sound || !is_short || others.len() >= OTHERS_MAX {
                return Err(refused);
            }
            others.push((key.to_string(), value.into_owned()));
        }
        others.sort();
        Ok(others)
    }
}

fn checked_value(key: &'static str, text: Option<&str>) -> Result<Option<String>, EndpointError> {
    let visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    match text {
        Some(text) if text.len() > QUERY_VALUE_BYTES_MAX || !visible(text) => {
            let expected = "at most 255 visible ASCII characters";
            Err(EndpointError::QueryValue { key, expected })
        }
        text => Ok(text.map(str::to_owned)),
    }
}

/// Adds `key=value` with everything but unreserved characters encoded.
pub(super) fn push_parameter(query: &mut String, key: &str, value: &str) {
    if !query.is_empty() {
        query.push('&');
    }
    query.push_str(key);
    query.push('=');
    for byte in value.bytes() {
        // The unreserved characters of RFC 3986 §2.3; writing to a String can't fail.
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            query.push(char::from(byte));
        } else {
            let _ = write!(query, "%{byte:02X}");
        }
    }
}

/// Whether `%2F` may stand in a text: in a path it would make one segment look like two.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum SlashRule {
    Refuse,
    Allow,
}

/// Percent-decodes once (RFC 3986 §2.1). `+` stays a plus: no value of ours can hold a space, but
/// media types hold a plus. Borrows where nothing is encoded.
pub(super) fn decode(text: &str, slashes: SlashRule) -> Result<Cow<'_, str>, EndpointError> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let digit =
        |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let high = digit(bytes.next()).ok_or(EndpointError::Encoding)?;
        let low = digit(bytes.next()).ok_or(EndpointError::Encoding)?;
        let byte = high << 4 | low;
        if byte == b'/' && slashes == SlashRule::Refuse {
            return Err(EndpointError::Encoding);
        }
        decoded.push(byte);
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| EndpointError::Encoding)
}
