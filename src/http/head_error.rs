//! Why a request head is refused.

use crate::limits::{CONTENT_LENGTH_MAX, HEAD_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX};

/// A request head that is refused. Each has a status, after which the connection is closed:
/// nobody knows where the next request would begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// A TLS handshake on a clear-text port.
    #[error("this port speaks plain HTTP, not TLS; use an http:// address for it")]
    Tls,
    /// A CR without LF, or an LF without CR.
    #[error("a line of the request head does not end with CR LF")]
    LineEnd,
    /// Not `METHOD SP target SP HTTP/1.x`.
    #[error("the request line is not: method, space, target, space, HTTP/1.1")]
    RequestLine,
    /// The method is not in capital letters, or is CONNECT or TRACE.
    #[error("the request method must be in capital letters, and not CONNECT or TRACE")]
    Method,
    /// A byte in the target that RFC 3986 doesn't allow, or a target of another form.
    #[error("the request target must be a path of visible URI characters, beginning with /")]
    Target,
    /// Over [`TARGET_BYTES_MAX`].
    #[error("the request target is longer than {TARGET_BYTES_MAX} bytes")]
    TargetTooLong,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    #[error("this server speaks HTTP/1.1 and HTTP/1.0 only")]
    Version,
    /// Over [`HEAD_BYTES_MAX`].
    #[error("the request head is longer than {HEAD_BYTES_MAX} bytes")]
    TooLarge,
    /// Over [`HEADERS_MAX`].
    #[error("the request head has more than {HEADERS_MAX} header lines")]
    TooManyHeaders,
    /// An empty or malformed name, a space before the colon, or a folded line.
    #[error("a header name is empty, malformed, followed by a space, or its line is folded")]
    HeaderName,
    /// A control byte in a value.
    #[error("a header value has a control byte")]
    HeaderValue,
    /// HTTP/1.1 without Host, or Host twice.
    #[error("the request must have exactly one Host header")]
    HostCount,
    /// Host is empty or not `host[:port]`.
    #[error("the Host header must be host or host:port")]
    HostSyntax,
    /// An absolute target for another host than the Host header's.
    #[error("the host of the absolute request target differs from the Host header")]
    HostDiffers,
    /// Content-Length twice, also within one line.
    #[error("the request has more than one Content-Length")]
    RepeatedLength,
    /// Content-Length is not a number in digits up to 2^53.
    #[error("Content-Length must be a number in digits, at most {CONTENT_LENGTH_MAX}")]
    Length,
    /// Content-Length and Transfer-Encoding together.
    #[error("the request has both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    /// Transfer-Encoding in HTTP/1.0, which has none.
    #[error("an HTTP/1.0 request can't have Transfer-Encoding")]
    CodingInHttp10,
    /// Transfer-Encoding other than exactly `chunked`.
    #[error("the only transfer coding supported is chunked, once")]
    Coding,
    /// Range or If-Range twice.
    #[error("the request has more than one Range or If-Range header")]
    RepeatedRange,
}

impl HeadError {
    /// The status of the answer: 400, 414, 431, 501 or 505.
    pub const fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::TooLarge | Self::TooManyHeaders => 431,
            Self::Coding => 501,
            Self::Version => 505,
            _ => 400,
        }
    }
}
