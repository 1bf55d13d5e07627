//! What is allowed and yet seldom meant.

use std::net::IpAddr;

use super::{Config, EndpointUrl, HostedRule, STANDARD_RESOLVER, Subject, UpstreamConfig};

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
        let open = self.server.addresses().find(|address| !address.ip().is_loopback());
        let is_open =
            |up: &&UpstreamConfig| up.has_credentials() && up.pull.contains(&Subject::Anonymous);
        let secret = self.upstreams.iter().find(is_open);
        if let (Some(address), Some(upstream)) = (open, secret) {
            advice.push(format!(
                "everyone who reaches {address} can pull what the credentials of upstream {} can",
                upstream.namespace
            ));
        }
        self.advise_on_access(&mut advice);
        advice
    }

    fn advise_on_access(&self, advice: &mut Vec<String>) {
        let mut all_before = false;
        for (index, rule) in self.hosted.iter().enumerate() {
            if all_before {
                advice.push(format!(
                    "hosted[{index}] is never reached: the pattern \"*\" of a rule before it \
                     matches every repository"
                ));
            }
            all_before |= rule.repositories.iter().any(|pattern| pattern == "*");
        }
        let is_restricted = |up: &UpstreamConfig| !up.pull.contains(&Subject::Anonymous);
        let needs_login = self.hosted.iter().any(HostedRule::needs_login)
            || self.upstreams.iter().any(is_restricted);
        if needs_login && !self.has_login() {
            advice.push(
                "nobody can say who they are, and the rules want to know: set htpasswd_file in \
                 [auth], [auth.token], or client_ca_file in [server]"
                    .to_owned(),
            );
        }
        let plain = self.server.listen.iter().find(|address| !address.ip().is_loopback());
        if let (Some(address), true) = (plain, self.auth.htpasswd_file.is_some()) {
            advice.push(format!(
                "passwords come to {address} in the clear: let clients use TLS (tls_listen), or \
                 leave it to a proxy in front"
            ));
        }
        let is_standard = self.routing.resolvers.iter().all(|name| name == STANDARD_RESOLVER);
        if !self.hosted.is_empty() && self.routing.hosted.is_empty() && is_standard {
            advice.push(
                "no [[hosted]] rule is ever used: routing.hosted is empty, so that nothing is \
                 hosted"
                    .to_owned(),
            );
        }
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

    const LOGIN: &str = "\npush = [\"ci\"]";

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
            ("[[hosted]]\nrepositories = [\"*\"]".to_owned() + LOGIN, "htpasswd_file"),
            (
                "[[hosted]]\nrepositories = [\"*\"]\n[[hosted]]\nrepositories = [\"a\"]\n\
                 [auth]\nhtpasswd_file = \"h\""
                    .to_owned(),
                "hosted[1] is never reached",
            ),
            (format!("{upstream}pull = [\"ci\"]"), "htpasswd_file"),
            (
                "[server]\nlisten = [\"0.0.0.0:1\"]\n[auth]\nhtpasswd_file = \"h\"".to_owned(),
                "in the clear",
            ),
            (
                format!(
                    "[routing]\ndefault_upstream = \"a.io\"\n{upstream}\
                     [[hosted]]\nrepositories = [\"a\"]\npush = [\"anonymous\"]"
                ),
                "routing.hosted is empty",
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
