//! Error codes of the distribution-spec and the JSON body that carries them ("Error codes").

use std::fmt;

use serde::Serialize;

/// Every code the spec defines, and two more for failures it has no code for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// `BLOB_UNKNOWN`: no such blob in this repository.
    BlobUnknown,
    /// `BLOB_UPLOAD_INVALID`: the upload can't go on.
    BlobUploadInvalid,
    /// `BLOB_UPLOAD_UNKNOWN`: no such upload session.
    BlobUploadUnknown,
    /// `DIGEST_INVALID`: malformed, or not the digest of the content.
    DigestInvalid,
    /// `MANIFEST_BLOB_UNKNOWN`: the manifest names content that isn't here.
    ManifestBlobUnknown,
    /// `MANIFEST_INVALID`: not a manifest.
    ManifestInvalid,
    /// `MANIFEST_UNKNOWN`: no such manifest in this repository.
    ManifestUnknown,
    /// `NAME_INVALID`: malformed repository name or namespace.
    NameInvalid,
    /// `NAME_UNKNOWN`: no such repository or namespace.
    NameUnknown,
    /// `SIZE_INVALID`: the length given is not the length received.
    SizeInvalid,
    /// `UNAUTHORIZED`: credentials are needed.
    Unauthorized,
    /// `DENIED`: policy forbids it.
    Denied,
    /// `UNSUPPORTED`: this registry doesn't do that.
    Unsupported,
    /// `TOOMANYREQUESTS`: a rate limit, ours or an upstream's.
    TooManyRequests,
    /// `UNAVAILABLE`: the answer can't be had now. Not of the spec; distribution's word for it.
    Unavailable,
    /// `UNKNOWN`: an error of ours. Not of the spec; distribution's word for it.
    Unknown,
}

impl ErrorCode {
    /// The code as written in the body.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The spec's error document, `{"errors":[{"code","message","detail"}]}`, with one error.
#[derive(Serialize)]
pub struct ErrorBody<'a> {
    errors: [Entry<'a>; 1],
}

#[derive(Serialize)]
struct Entry<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

impl<'a> ErrorBody<'a> {
    /// The document as bytes, escaped as JSON; `detail` is left out when there is none.
    pub fn json(code: ErrorCode, message: &'a str, detail: Option<&'a str>) -> Vec<u8> {
        let body = Self { errors: [Entry { code: code.as_str(), message, detail }] };
        // Strings always serialise; the plain document is there so that no path can panic.
        serde_json::to_vec(&body).unwrap_or_else(|_| br#"{"errors":[]}"#.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn the_body_is_the_specs_document() {
        let body = ErrorBody::json(ErrorCode::NameUnknown, "no such namespace", Some("x.io"));
        assert_eq!(
            String::from_utf8(body).unwrap(),
            r#"{"errors":[{"code":"NAME_UNKNOWN","message":"no such namespace","detail":"x.io"}]}"#
        );
        let body = ErrorBody::json(ErrorCode::Denied, "no", None);
        let expected = json!({"errors": [{"code": "DENIED", "message": "no"}]});
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
    }

    #[test]
    fn hostile_text_is_escaped() {
        let message = "a\"b\\c\n\u{0}\u{7f}</script>é\"}]}";
        let body = ErrorBody::json(ErrorCode::NameInvalid, message, Some(message));
        assert!(!body.contains(&b'\n') && !body.contains(&0));
        let value: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["errors"][0]["message"], message);
        assert_eq!(value["errors"][0]["detail"], message);
    }
}
