//! The header fields that decide where a message ends and whom it is for.

use super::line::Target;
use super::{Asked, BodyFraming, Version};
use crate::http::head_error::HeadError;
use crate::limits::CONTENT_LENGTH_MAX;

/// What those fields said, gathered line by line.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub(super) host: Option<&'a [u8]>,
    pub(super) content_length: Option<u64>,
    pub(super) expect_100: bool,
    pub(super) asked: Asked,
    coding: Option<&'a [u8]>,
    coding_repeated: bool,
    close: bool,
    keep: bool,
    if_range: bool,
}

impl<'a> Fields<'a> {
    /// Takes one header line. A second line of a field that may be there once is an error.
    pub(super) fn take(&mut self, name: &str, value: &'a [u8]) -> Result<(), HeadError> {
        // The length tells nearly all names apart, so most lines cost one comparison of numbers.
        let is = |expected: &str| name.eq_ignore_ascii_case(expected);
        match name.len() {
            4 if is("host") => {
                if self.host.replace(value).is_some() {
                    return Err(HeadError::HostCount);
                }
                check_host(value)?;
            }
            14 if is("content-length") => {
                // A list on one line is a second length as well.
                if value.contains(&b',') || self.content_length.is_some() {
                    return Err(HeadError::RepeatedLength);
                }
                self.content_length = Some(length(value)?);
            }
            17 if is("transfer-encoding") => {
                self.coding_repeated |= self.coding.replace(value).is_some();
            }
            10 if is("connection") => self.take_connection(value),
            6 if is("expect") => self.expect_100 |= value.eq_ignore_ascii_case(b"100-continue"),
            5 if is("range") => {
                if self.asked.has(Asked::RANGE) {
                    return Err(HeadError::RepeatedRange);
                }
                self.asked.add(Asked::RANGE);
            }
            8 if is("if-range") && std::mem::replace(&mut self.if_range, true) => {
                return Err(HeadError::RepeatedRange);
            }
            3 if is("via") => self.asked.add(Asked::VIA),
            13 if is("authorization") => self.asked.add(Asked::AUTHORIZATION),
            13 if is("if-none-match") => self.asked.add(Asked::IF_NONE_MATCH),
            20 if is("x-dragonfly-registry") => self.asked.add(Asked::X_DRAGONFLY_REGISTRY),
            _ => {}
        }
        Ok(())
    }

    fn take_connection(&mut self, value: &[u8]) {
        for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// Judges the fields together, when all lines have been taken.
    pub(super) fn check(
        &self,
        version: Version,
        target: &Target<'_>,
    ) -> Result<BodyFraming, HeadError> {
        if self.host.is_none() && version == Version::Http11 {
            return Err(HeadError::HostCount);
        }
        if let Some(authority) = target.authority {
            let host = self.host.ok_or(HeadError::HostDiffers)?;
            if !authority.as_bytes().eq_ignore_ascii_case(host) {
                return Err(HeadError::HostDiffers);
            }
        }
        match (self.coding, self.content_length) {
            (Some(_), Some(_)) => Err(HeadError::LengthAndCoding),
            (Some(_), None) if version == Version::Http10 => Err(HeadError::CodingInHttp10),
            (Some(coding), None) if is_chunked(coding) && !self.coding_repeated => {
                Ok(BodyFraming::Chunked)
            }
            (Some(_), None) => Err(HeadError::Coding),
            (None, None | Some(0)) => Ok(BodyFraming::None),
            (None, Some(length)) => Ok(BodyFraming::Length(length)),
        }
    }

    /// `close` wins over `keep-alive`; without either, the version decides (RFC 9112 §9.3).
    pub(super) fn keep_alive(&self, version: Version) -> bool {
        !self.close && (self.keep || version == Version::Http11)
    }
}

fn is_chunked(coding: &[u8]) -> bool {
    coding.eq_ignore_ascii_case(b"chunked")
}

fn length(value: &[u8]) -> Result<u64, HeadError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::Length);
    }
    let text = std::str::from_utf8(value).map_err(|_| HeadError::Length)?;
    match text.parse() {
        Ok(length) if length <= CONTENT_LENGTH_MAX => Ok(length),
        _ => Err(HeadError::Length),
    }
}

/// `uri-host [":" port]` (RFC 9110 §7.2), without percent-encoding: no registry has such a name.
fn check_host(value: &[u8]) -> Result<(), HeadError> {
    let (host, port) = match value.iter().rposition(|byte| *byte == b':') {
        // A colon inside brackets belongs to the address.
        Some(at) if !value.ends_with(b"]") => value.split_at_checked(at).unwrap_or((value, b"")),
        _ => (value, &b""[..]),
    };
    let port = port.strip_prefix(b":").unwrap_or(port);
    let name_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let literal_byte = |byte: &u8| byte.is_ascii_hexdigit() || b":.".contains(byte);
    let host_is_well_formed = match host {
        [b'[', address @ .., b']'] => !address.is_empty() && address.iter().all(literal_byte),
        name => !name.is_empty() && name.iter().all(name_byte),
    };
    if host_is_well_formed && port.len() <= 5 && port.iter().all(u8::is_ascii_digit) {
        Ok(())
    } else {
        Err(HeadError::HostSyntax)
    }
}
