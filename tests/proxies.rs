//! Upstreams behind an HTTP proxy: by tunnel and in absolute form, from the configuration and from
//! the environment, with a login; what a proxy may not see or reach; and proxies that misbehave.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::io::Write;
use support::images;
use support::listener::{Listener, read_request};
use support::lying::{Answer, LyingUpstream};
use support::origin::{Access, Origin, PASSWORD, PrivateCa, TLS_NAME, USER};
use support::proxy::Proxy;
use support::scratch::Scratch;
use support::server::{Server, Setup, Upstream};
use support::token_server::TokenServer;

const NS: &str = "origin.example";
const REPOSITORY: &str = "org/app";
/// The password of a proxy.
const PROXY_PASSWORD: &str = "canary-7d2b90e1";

/// A scripted origin with one blob, by a name that only a proxy knows.
struct Named {
    upstream: LyingUpstream,
    bytes: Vec<u8>,
    path: String,
}

impl Named {
    fn start() -> Named {
        let upstream = LyingUpstream::start();
        let bytes = images::random_bytes("proxied", 100_000);
        let digest = upstream.add_blob(REPOSITORY, &bytes);
        Named { upstream, bytes, path: format!("/v2/{REPOSITORY}/blobs/{digest}") }
    }

    fn authority(&self) -> String {
        format!("{TLS_NAME}:{}", self.upstream.addr().port())
    }

    fn declared(&self) -> Upstream {
        Upstream::new(NS, &format!("http://{}", self.authority()))
            .set("allow_private = []")
            .set("connect_timeout = \"2s\"")
    }

    #[track_caller]
    fn expect_right(&self, server: &Server) {
        let answer = server.get(&format!("{}?ns={NS}", self.path));
        assert_eq!(answer.status(), 200, "{}\n{}", answer.text(), server.log_text());
        assert!(answer.body == self.bytes);
    }

    #[track_caller]
    fn expect_failure(&self, server: &Server, status: u16, words: &[&str]) {
        let answer = server.get(&format!("{}?ns={NS}", self.path));
        assert_eq!(answer.status(), status, "{}", answer.text());
        for word in words {
            assert!(answer.text().contains(word), "{word}: {}", answer.text());
        }
    }
}

#[test]
fn https_goes_through_a_tunnel_with_the_origins_own_certificate() {
    let scratch = Scratch::new("tunnel");
    let (ca, stranger) = (PrivateCa::new(), PrivateCa::new());
    let images = [images::forty()];
    let Some(open) = Origin::with_images(&scratch, "store", "org/", &images) else { return };
    let Some(origin) = Origin::start(&scratch, open.storage(), &Access::TlsBasic(&ca)) else {
        return;
    };
    let login = format!("proxy-user:{PROXY_PASSWORD}");
    let proxy = Proxy::start_with(&[TLS_NAME], Some(&login));
    let authority = format!("{TLS_NAME}:{}", origin.addr().port());
    let serve = |trusted: &PrivateCa| {
        let setup = Setup::new("tunnel");
        let own = setup.scratch().secret("password", PASSWORD);
        let proxys = setup.scratch().secret("proxy-password", PROXY_PASSWORD);
        let declared = Upstream::new(NS, &format!("https://{authority}"))
            .set("allow_private = []")
            .set(&format!("ca_file = \"{}\"", trusted.write(setup.scratch()).display()))
            .set(&format!("username = \"{USER}\""))
            .set(&format!("password_file = \"{}\"", own.display()))
            .set(&format!("proxy = \"{}\"", proxy.url()))
            .set("proxy_username = \"proxy-user\"")
            .set(&format!("proxy_password_file = \"{}\"", proxys.display()));
        setup.upstream(declared).start()
    };
    let server = serve(&ca);
    for blob in &images[0].blobs[..8] {
        let answer = server.get(&format!("/v2/org/forty/blobs/{}?ns={NS}", blob.digest));
        assert_eq!(answer.status(), 200, "{}\n{}", answer.text(), server.log_text());
        assert!(answer.body == blob.bytes);
    }
    let asked = proxy.asked();
    assert!(asked.iter().all(|line| *line == format!("CONNECT {authority}")), "{asked:?}");
    assert!((1..=4).contains(&asked.len()), "tunnels are used again: {asked:?}");
    for seen in proxy.seen() {
        assert_eq!(seen.header("host"), Some(authority.as_str()));
        assert_eq!(seen.header("authorization"), None, "the upstream's login is not the proxy's");
    }
    for secret in [PASSWORD, PROXY_PASSWORD] {
        assert!(!server.log_text().contains(secret));
    }

    let server = serve(&stranger);
    let target = format!("/v2/org/forty/blobs/{}?ns={NS}", images[0].blobs[0].digest);
    let answer = server.get(&target);
    assert_eq!(answer.status(), 502, "{}", answer.text());
    for word in ["TLS failed", &proxy.url(), "ca_file"] {
        assert!(answer.text().contains(word), "{}", answer.text());
    }
}

#[test]
fn http_goes_in_absolute_form_and_so_do_tokens() {
    let named = Named::start();
    let tokens = TokenServer::start();
    tokens.conduct(|c| c.fixed_token = Some("let-me-in".to_owned()));
    named.upstream.require("Bearer let-me-in", &tokens.challenge(REPOSITORY));
    let login = format!("proxy-user:{PROXY_PASSWORD}");
    let proxy = Proxy::start_with(&[TLS_NAME, "localhost"], Some(&login));
    let declared = |keys: &[&str]| {
        let realm = format!("token_realms = [\"{}\"]", tokens.realm_host());
        let proxy = format!("proxy = \"{}\"", proxy.url());
        // The token server is `localhost` to the proxy, which has to be allowed.
        let lines = [realm.as_str(), &proxy, "allow_private = [\"127.0.0.0/8\"]"];
        let lines = lines.iter().chain(keys);
        lines.fold(named.declared(), |declared, line| declared.set(line))
    };
    let without = Setup::new("absolute-none").upstream(declared(&[])).start();
    named.expect_failure(&without, 502, &["407", "proxy_password_file", &proxy.url()]);
    assert_eq!(named.upstream.requests(), 0);
    let before = proxy.seen().len();

    let setup = Setup::new("absolute");
    let file = setup.scratch().secret("password", PROXY_PASSWORD);
    let file = format!("proxy_password_file = \"{}\"", file.display());
    let keys = ["proxy_username = \"proxy-user\"", &file];
    let server = setup.upstream(declared(&keys)).start();
    named.expect_right(&server);
    let asked = proxy.asked().split_off(before);
    let target = format!("GET http://{}{}", named.authority(), named.path);
    let token = format!("GET {}?", tokens.realm());
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(asked[0] == target && asked[1].starts_with(&token) && asked[2] == target, "{asked:?}");
    let seen = named.upstream.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].request.header("host"), Some(named.authority().as_str()));
    assert!(!named.upstream.heard("proxy-authorization") && !named.upstream.heard(PROXY_PASSWORD));
    assert!(tokens.requests().iter().all(|r| r.header("proxy-authorization").is_none()));
    assert!(!server.log_text().contains(PROXY_PASSWORD));
}

#[test]
fn the_environment_counts_where_the_configuration_is_silent() {
    let named = Named::start();
    let proxy = Proxy::start_with(&[TLS_NAME], Some("env:se%cret"));
    let with_login = format!("http://env:se%25cret@{}", proxy.addr());
    let near = LyingUpstream::start();
    let digest = near.add_blob(REPOSITORY, b"near");
    let setup = |what: &str| {
        Setup::new(what)
            .upstream(named.declared())
            .upstream(Upstream::new("near.example", &near.url()))
            .environment("HTTP_PROXY", "http://127.0.0.1:1")
            .environment("http_proxy", &with_login)
    };
    let server = setup("environment").start();
    named.expect_right(&server);
    assert_eq!(proxy.asked(), [format!("GET http://{}{}", named.authority(), named.path)]);
    // This machine is reached straight.
    let target = format!("/v2/{REPOSITORY}/blobs/{digest}?ns=near.example");
    assert_eq!(server.get(&target).body, b"near");
    assert_eq!(proxy.asked().len(), 1);
    let log = server.log_text();
    assert_eq!(log.matches("the environment's proxies").count(), 1, "{log}");
    assert!(log.contains(&proxy.url()) && !log.contains("se%"), "{log}");

    let excepted = setup("no-proxy").environment("NO_PROXY", "other.test, .test").start();
    named.expect_failure(&excepted, 502, &[&format!("resolving {TLS_NAME}")]);
    let direct = Setup::new("proxy-none")
        .upstream(named.declared().set("proxy = \"none\""))
        .environment("http_proxy", &with_login)
        .start();
    named.expect_failure(&direct, 502, &[&format!("resolving {TLS_NAME}")]);
    assert_eq!(proxy.asked().len(), 1);

    let mut unusable = setup("proxy-socks").environment("http_proxy", "socks5://p:1").prepare();
    unusable.launch();
    let status = unusable.wait_for_exit(support::secs(20)).expect("it does not start");
    assert_eq!(status.code(), Some(1));
    assert!(unusable.log_text().contains("http_proxy"), "{}", unusable.log_text());
}

#[test]
fn a_proxy_is_no_way_to_this_machine() {
    let named = Named::start();
    let secret = LyingUpstream::start();
    secret.add("/secret", "text/plain", b"secret", None);
    let proxy = Proxy::start(&[TLS_NAME, "localhost", "x.localhost"]);
    let declared = named.declared().set(&format!("proxy = \"{}\"", proxy.url()));
    let server = Setup::new("proxy-guard").upstream(declared).start();
    let port = secret.addr().port();
    for host in ["127.0.0.1", "localhost", "x.localhost", "[::1]", "169.254.169.254"] {
        let location = format!("http://{host}:{port}/secret");
        named.upstream.script("GET", &named.path, [Answer::redirect(307, &location)]);
        named.expect_failure(&server, 502, &["not connected", "allow_private"]);
    }
    assert_eq!(secret.connections(), 0);
    assert!(proxy.asked().iter().all(|line| line.contains(&named.authority())));
    named.upstream.script("GET", &named.path, [Answer::right()]);
    named.expect_right(&server);
}

#[test]
fn proxies_that_misbehave_are_named() {
    let says = |answer: &'static [u8]| {
        Listener::start(move |mut stream| {
            if matches!(read_request(stream), Ok(Some(_))) {
                let _ = stream.write_all(answer);
                if answer.is_empty() {
                    // Silence, until the other side has had enough.
                    let _ = read_request(stream);
                }
            }
        })
    };
    static LONG: [u8; 40_000] = [b'x'; 40_000];
    let cases: [(Listener, u16, &str); 7] = [
        (says(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"), 502, "it says 403"),
        (says(b"HTTP/1.1 407 Login\r\n\r\n"), 502, "proxy_password_file"),
        (says(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), 502, "not HTTP"),
        (says(b"HTTP/1.1 200 OK\r\n\r\n\x16\x03\x03"), 502, "more than the head"),
        (says(b"HTTP/1.1 200 OK\r\nA: "), 502, "closed the connection"),
        (says(&LONG), 502, "longer than 8192 bytes"),
        (says(b""), 504, "the proxy's connection"),
    ];
    for (number, (listener, status, words)) in cases.into_iter().enumerate() {
        let url = format!("http://{}", listener.addr());
        let declared = Upstream::new(NS, "https://origin.test:5443")
            .set("connect_timeout = \"1s\"")
            .set(&format!("proxy = \"{url}\""));
        let server = Setup::new(&format!("proxy-bad-{number}")).upstream(declared).start();
        let answer = server.get(&format!("/v2/{REPOSITORY}/manifests/v1?ns={NS}"));
        assert_eq!(answer.status(), status, "{words}: {}", answer.text());
        assert!(answer.text().contains(words), "{words}: {}", answer.text());
        assert!(answer.text().contains(&url), "{words}: {}", answer.text());
    }
    // Nobody there.
    let mut gone = Listener::decoy([127, 0, 0, 1]);
    gone.stop();
    let url = format!("http://{}", gone.addr());
    let declared = Upstream::new(NS, "https://origin.test").set(&format!("proxy = \"{url}\""));
    let server = Setup::new("proxy-gone").upstream(declared).start();
    let answer = server.get(&format!("/v2/{REPOSITORY}/manifests/v1?ns={NS}"));
    assert_eq!(answer.status(), 502, "{}", answer.text());
    assert!(answer.text().contains(&url), "{}", answer.text());
}
