//! Secrets in memory, and URLs that may hold some.

use std::fmt;

use zeroize::Zeroizing;

/// A text that is never shown and is overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The text, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Secret(Zeroizing::new(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A URL fit for the log: without user-info, and without query and fragment, which in a presigned
/// URL are the permission itself. Works on anything, URL or not.
pub fn redact_url(url: &str) -> String {
    let (visible, hidden) = match url.find(['?', '#']) {
        Some(at) => (url.get(..at).unwrap_or_default(), "?[redacted]"),
        None => (url, ""),
    };
    let Some((scheme, rest)) = visible.split_once("://") else {
        return format!("{visible}{hidden}");
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}{hidden}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let secret = Secret::from("hunter2".to_owned());
        assert_eq!(
            format!("{secret} {secret:?} {:?}", Some(&secret)).matches("hunter2").count(),
            0
        );
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn urls_lose_query_fragment_and_user() {
        let cases = [
            ("https://a/b?X-Amz-Signature=s", "https://a/b?[redacted]"),
            ("https://u:p@a:5/b", "https://a:5/b"),
            ("https://a/b@c", "https://a/b@c"),
            ("https://a#secret?x", "https://a?[redacted]"),
            ("https://u:p/@a@b/c", "https://u:p/@a@b/c"),
            ("/v2/?t=1", "/v2/?[redacted]"),
            ("", ""),
        ];
        for (url, expected) in cases {
            assert_eq!(redact_url(url), expected);
        }
    }
}
