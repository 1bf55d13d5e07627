//! `proxy` of an upstream: through what it is reached.

use super::EndpointUrl;
use super::text::Text;

/// Through what an upstream is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProxyConfig {
    /// What `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say: the key is left out.
    #[default]
    Environment,
    /// Nothing, whatever the environment says: `"none"`.
    Direct,
    /// This HTTP proxy; `http://`, without a path.
    Through(EndpointUrl),
}

impl Text for ProxyConfig {
    const EXPECTED: &'static str =
        "\"none\", or the URL of an HTTP proxy such as \"http://proxy.example:3128\"";

    fn read(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::Direct);
        }
        if text.contains('@') {
            return Err("a login belongs into `proxy_username` and `proxy_password_file`".into());
        }
        if !text.contains("://") {
            return Err(format!("write \"http://{text}\""));
        }
        let url = EndpointUrl::parse(text)?;
        if url.https {
            let reason = "proxies are spoken to by http://; what goes through them to https:// \
                          registries is encrypted all the same";
            return Err(reason.into());
        }
        match url.path.is_empty() {
            true => Ok(Self::Through(url)),
            false => Err("a proxy has no path".into()),
        }
    }

    fn write(&self) -> String {
        match self {
            Self::Through(url) => url.to_string(),
            Self::Direct | Self::Environment => "none".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read_and_refused_with_the_way_out() {
        assert_eq!(ProxyConfig::read("none"), Ok(ProxyConfig::Direct));
        for text in ["http://proxy.example:3128", "http://10.0.0.1", "http://[::1]:8080"] {
            let read = ProxyConfig::read(text).expect(text);
            assert_eq!(read.write(), text);
        }
        let cases = [
            ("proxy.example:3128", "http://proxy.example:3128"),
            ("http://user:canary@proxy.example:3128", "proxy_password_file"),
            ("https://proxy.example", "spoken to by http://"),
            ("socks5://proxy.example:1080", "socks5"),
            ("http://proxy.example:3128/path", "no path"),
            ("http://proxy.example:99999", "port"),
            ("", "http://"),
        ];
        for (text, reason) in cases {
            let error = ProxyConfig::read(text).expect_err(text);
            assert!(error.contains(reason) && !error.contains("canary"), "{text}: {error}");
        }
    }
}
