//! Request methods (RFC 9110 §9), as far as a registry tells them apart.

/// A request method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// GET
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// PATCH
    Patch,
    /// DELETE
    Delete,
    /// OPTIONS
    Options,
    /// Any other name in capital letters; no endpoint has one.
    Other,
}

impl Method {
    /// The name, `OTHER` for those without one of their own.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Other => "OTHER",
        }
    }

    /// GET or HEAD.
    pub const fn reads(self) -> bool {
        matches!(self, Self::Get | Self::Head)
    }

    /// Reads a method name, case-sensitively. `None` for names that are not `[A-Z]+` with inner
    /// hyphens, and for CONNECT and TRACE, which are never acted on.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            "CONNECT" | "TRACE" | "" => return None,
            _ if name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') => Self::Other,
            _ => return None,
        })
    }
}
