//! What is allowed and yet seldom meant.

use std::net::IpAddr;

use super::{Config, EndpointUrl, STANDARD_RESOLVER, UpstreamConfig};

impl Config {
    /// One sentence for each thing that will work differently than the file suggests.
    pub fn advice(&self) -> Vec<String> {
        let mut advice: Vec<String> = Vec::new();
        for upstream in &self.upstreams {
            let blocked = upstream.endpoints.iter().filter(|url| is_blocked(url, upstream));
            advice.extend(blocked.map(|url| {
                format!(
                    "upstream {}: {url} is a private address and will not be dialled unless \
                     allow_private lists it",
                    upstream.namespace
                )
            }));
        }
        for plugin in &self.plugins {
            if !self.routing.resolvers.contains(&plugin.name) {
                let name = &plugin.name;
                advice.push(format!(
                    "plugin {name} is never asked: routing.resolvers does not name it"
                ));
            }
        }
        let standard = self.routing.resolvers.iter().position(|name| name == STANDARD_RESOLVER);
        if standard.is_some_and(|position| position + 1 < self.routing.resolvers.len()) {
            advice.push(
                "routing.resolvers: what stands behind \"standard\" is asked only about \
                 what it declines"
                    .to_owned(),
            );
        }
        let open = self.server.listen.iter().find(|address| !address.ip().is_loopback());
        let secret = self.upstreams.iter().find(|upstream| upstream.has_credentials());
        if let (Some(address), Some(upstream)) = (open, secret) {
            advice.push(format!(
                "everyone who reaches {address} can pull what the credentials of upstream {} can",
                upstream.namespace
            ));
        }
        advice
    }
}

/// A literal address that the dialer refuses. Names are looked up only when they are dialled.
fn is_blocked(url: &EndpointUrl, upstream: &UpstreamConfig) -> bool {
    let Ok(address) = url.host.parse::<IpAddr>() else { return false };
    let private = match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_loopback() || v6.is_unicast_link_local(),
    };
    private && !upstream.allow_private.iter().any(|range| range.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_given_when_it_is_due() {
        let upstream = "[[upstream]]\nnamespace = \"a.io\"\n";
        let plugin = "[[plugin]]\nname = \"p\"\npath = \"/p.so\"\n";
        let cases = [
            (format!("{upstream}endpoints = [\"http://10.0.0.5\"]"), "allow_private"),
            (format!("{upstream}endpoints = [\"http://[::1]:5\"]"), "allow_private"),
            (plugin.to_owned(), "never asked"),
            (format!("[routing]\nresolvers = [\"standard\", \"p\"]\n{plugin}"), "declines"),
            (
                format!("[server]\nlisten = [\"0.0.0.0:5000\"]\n{upstream}token_file = \"t\""),
                "0.0.0.0:5000",
            ),
        ];
        for (text, word) in cases {
            let advice = Config::parse(&text, "t.toml").expect("accepted").advice();
            assert!(advice.len() == 1 && advice[0].contains(word), "{advice:?}");
        }
    }

    #[test]
    fn none_is_given_otherwise() {
        let fine = "[[upstream]]\nnamespace = \"a.io\"\nendpoints = [\"http://127.0.0.1:1\"]\n\
                    allow_private = [\"127.0.0.0/8\"]\ntoken_file = \"t\"";
        for config in [Config::parse(fine, "t.toml"), Config::embedded()] {
            assert_eq!(config.expect("accepted").advice(), Vec::<String>::new());
        }
    }
}
