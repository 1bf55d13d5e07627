//! Where an upstream may send us and what we take along: redirects, token realms, credentials.
//! The canary is the password; it may be heard by the endpoint and its declared realm alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::os::unix::fs::PermissionsExt;
use support::http::Ending;
use support::listener::Listener;
use support::lying::{Answer, End, LyingUpstream};
use support::origin::{PASSWORD, USER};
use support::rig::{NS, REPOSITORY, Rig, declared, expect_gateway_error};
use support::secs;
use support::server::{Setup, Upstream};
use support::token_server::TokenServer;

const SIZE: usize = 200_000;

/// `Basic` of the canary, as it would stand in a request.
fn basic() -> String {
    use base64::Engine;
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
    format!("Basic {encoded}")
}

/// A rig whose upstream has the canary as its credentials.
fn with_credentials(what: &str, change: impl FnOnce(Upstream) -> Upstream) -> Rig {
    let upstream = LyingUpstream::start();
    let setup = Setup::new(what);
    let password = setup.scratch().file("password", PASSWORD);
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
    let declared = declared(&upstream)
        .set(&format!("username = \"{USER}\""))
        .set(&format!("password_file = \"{}\"", password.display()));
    let server = setup.upstream(change(declared)).start();
    Rig::of(upstream, server, SIZE)
}

#[track_caller]
fn assert_unheard_and_unlogged(rig: &Rig, stranger: &LyingUpstream) {
    for secret in [PASSWORD, basic().trim_start_matches("Basic ")] {
        assert!(!stranger.heard(secret), "the canary was told to a stranger");
        assert!(!rig.server.log_text().contains(secret), "the canary is in the log");
    }
    let authorized = |s: &support::lying::Seen| s.request.header("authorization").is_some();
    assert!(!stranger.seen().iter().any(authorized), "Authorization was told to a stranger");
}

#[test]
fn authorization_stays_behind_when_a_redirect_leaves_the_endpoint() {
    let rig = with_credentials("canary", |u| u);
    rig.upstream.require(&basic(), "Basic realm=\"lying\"");
    // Another host, and another port of the same host.
    for (n, stranger) in
        [LyingUpstream::start_on([127, 0, 0, 2]), LyingUpstream::start()].into_iter().enumerate()
    {
        let bytes = support::images::random_bytes(&format!("canary-{n}"), SIZE);
        let digest = rig.upstream.add_blob(REPOSITORY, &bytes);
        let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
        stranger.add("/elsewhere", "application/octet-stream", &bytes, None);
        let location = format!("{}/elsewhere?signature=abc%2Fdef", stranger.url());
        rig.upstream.script("GET", &path, [Answer::redirect(307, &location)]);
        let answer = rig.server.get(&format!("{path}?ns={NS}"));
        assert_eq!((answer.status(), answer.ending), (200, Ending::Complete), "{}", answer.text());
        assert!(answer.body == bytes);
        let query = stranger.seen()[0].request.query.clone();
        assert_eq!(query.as_deref(), Some("signature=abc%2Fdef"), "the query as it was given");
        assert_unheard_and_unlogged(&rig, &stranger);
    }
    assert!(rig.upstream.heard(&basic()), "the endpoint itself was told");
    assert!(!rig.server.log_text().contains("abc%2Fdef"), "signatures are secrets too");
}

#[test]
fn authorization_does_not_come_back_with_a_redirect_that_returns() {
    let rig = with_credentials("canary-back", |u| u);
    rig.upstream.require(&basic(), "Basic realm=\"lying\"");
    let stranger = LyingUpstream::start_on([127, 0, 0, 2]);
    let back = format!("{}/v2/{REPOSITORY}/stolen", rig.upstream.url());
    let there = format!("{}/bounce", stranger.url());
    stranger.script("GET", "/bounce", [Answer::redirect(302, &back)]);
    rig.upstream.script("GET", &rig.path, [Answer::redirect(302, &there)]);
    let stolen = format!("/v2/{REPOSITORY}/stolen");
    rig.upstream.add(&stolen, "application/octet-stream", &rig.bytes, None);
    let _ = rig.server.get(&rig.target);
    let seen = rig.upstream.seen();
    let returned: Vec<_> = seen.iter().filter(|s| s.request.path == stolen).collect();
    assert!(!returned.is_empty(), "the redirect back is followed");
    assert!(returned.iter().all(|s| s.request.header("authorization").is_none()));
    assert_unheard_and_unlogged(&rig, &stranger);
}

#[test]
fn every_kind_of_redirect_is_followed_by_hand_up_to_five() {
    let rig = Rig::new("hops", SIZE);
    let statuses = [301, 302, 303, 307, 308];
    rig.upstream.script("GET", &rig.path, [Answer::redirect(307, "/hop/1")]);
    for (n, status) in statuses.iter().enumerate().take(4) {
        let next = format!("/hop/{}", n + 2);
        let path = format!("/hop/{}", n + 1);
        rig.upstream.script("GET", &path, [Answer::redirect(*status, &next)]);
    }
    rig.upstream.add("/hop/5", "application/octet-stream", &rig.bytes, None);
    rig.expect_right();

    let mut rig = Rig::new("hops-over", SIZE);
    rig.upstream.script("GET", &rig.path, [Answer::redirect(307, "/hop/1")]);
    for n in 1..=5 {
        let next = format!("/hop/{}", n + 1);
        let path = format!("/hop/{n}");
        rig.upstream.script("GET", &path, [Answer::redirect(307, &next)]);
    }
    rig.upstream.add("/hop/6", "application/octet-stream", &rig.bytes, None);
    rig.expect_failure(false);
    assert_eq!(rig.upstream.count("GET", "/hop/6"), 0, "the sixth hop is one too many");
    rig.expect_nothing_kept_and_recovery();
}

#[test]
fn a_redirect_loop_ends() {
    let mut rig = Rig::new("loop", SIZE);
    let here = rig.path.clone();
    rig.upstream.script("GET", &rig.path, [Answer::redirect(302, &here)]);
    let answer = rig.server.get(&rig.target);
    expect_gateway_error(&answer, answer.status());
    let asked = rig.upstream.requests();
    assert!(asked <= 6, "{asked} requests for one answer");
    rig.expect_nothing_kept_and_recovery();
}

#[test]
fn a_redirect_reaches_permitted_addresses_only() {
    let stranger = Listener::decoy([127, 0, 0, 2]);
    let local = Listener::decoy([127, 0, 0, 1]);
    let port = stranger.addr().port();
    let local_port = local.addr().port();
    for location in [
        format!("http://127.0.0.2:{port}/x"),
        format!("http://[::ffff:127.0.0.2]:{port}/x"),
        format!("http://2130706434:{port}/x"),
        format!("http://0x7f000002:{port}/x"),
        format!("http://0177.0.0.2:{port}/x"),
        format!("http://127.2:{port}/x"),
        format!("http://0.0.0.0:{local_port}/x"),
        format!("http://[::]:{local_port}/x"),
        format!("http://user:secret@127.0.0.2:{port}/x"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "ftp://127.0.0.1/x".to_owned(),
        "file:///etc/passwd".to_owned(),
        "gopher://127.0.0.1:1/x".to_owned(),
        String::new(),
        "http://".to_owned(),
        "http:///x".to_owned(),
        "//".to_owned(),
    ] {
        let mut rig = Rig::with("blocked", SIZE, |u| u.set("allow_private = [\"127.0.0.1/32\"]"));
        rig.upstream.script("GET", &rig.path, [Answer::redirect(307, &location)]);
        let answer = rig.server.get(&rig.target);
        assert!(answer.status() != 200, "{location}: {:?}", answer.head);
        expect_gateway_error(&answer, answer.status());
        assert!(!rig.server.has_blob(&rig.digest), "{location}");
        rig.server.assert_alive();
        assert_eq!((stranger.accepted(), local.accepted()), (0, 0), "{location} was dialled");
    }
}

#[test]
fn a_resumption_starts_again_at_the_registry_because_signatures_expire() {
    let rig = Rig::new("presigned", 1 << 20);
    let storage = LyingUpstream::start_on([127, 0, 0, 2]);
    for n in [1, 2] {
        let path = format!("/signed/{n}");
        storage.add(&path, "application/octet-stream", &rig.bytes, None);
    }
    storage.script(
        "GET",
        "/signed/1",
        [Answer::right().ending(End::Reset(300_000)), Answer::status(403)],
    );
    let to = |n: u32| Answer::redirect(307, &format!("{}/signed/{n}", storage.url()));
    rig.upstream.script("GET", &rig.path, [to(1), to(2)]);
    rig.expect_right();
    assert_eq!(storage.count("GET", "/signed/1"), 1);
    assert_eq!(storage.count("GET", "/signed/2"), 1);
    assert_eq!(rig.upstream.count("GET", &rig.path), 2);
}

#[test]
fn credentials_go_to_the_declared_realm_alone_and_tokens_to_the_endpoint() {
    let tokens = TokenServer::start();
    let credentials = (USER.to_owned(), PASSWORD.to_owned());
    tokens.conduct(|c| {
        c.credentials = Some(credentials);
        c.fixed_token = Some("canary-token-93b1".to_owned());
    });
    let realm = tokens.realm_host();
    let rig = with_credentials("realm", |u| u.set(&format!("token_realms = [\"{realm}\"]")));
    rig.upstream.require("Bearer canary-token-93b1", &tokens.challenge(REPOSITORY));
    rig.expect_right();
    assert_eq!(tokens.requests().len(), 1);
    assert!(!rig.upstream.heard(PASSWORD) && !rig.upstream.heard(&basic()));
    let log = rig.server.log_text();
    assert!(!log.contains("canary-token-93b1") && !log.contains(PASSWORD), "{log}");
}

#[test]
fn a_realm_on_a_foreign_host_is_not_asked() {
    let stranger = Listener::decoy([127, 0, 0, 2]);
    for (what, credentials) in [("realm-anonymous", false), ("realm-signed", true)] {
        let rig = match credentials {
            true => with_credentials(what, |u| u),
            false => Rig::new(what, SIZE),
        };
        for scheme in ["http", "https"] {
            let challenge = format!("Bearer realm=\"{scheme}://{}/token\"", stranger.addr());
            rig.upstream.require("Bearer never", &challenge);
            let answer = rig.server.get(&rig.target);
            assert!(matches!(answer.status(), 401 | 403 | 502), "{}", answer.text());
            assert_eq!(stranger.accepted(), 0, "the foreign realm was dialled by {scheme}");
            assert!(!rig.server.log_text().contains(PASSWORD));
            assert!(!rig.upstream.heard(PASSWORD) && !rig.upstream.heard(&basic()));
        }
    }
}

#[test]
fn a_token_server_that_fails_is_a_gateway_error_that_is_not_remembered() {
    let tokens = TokenServer::start();
    tokens.conduct(|c| {
        c.broken = true;
        c.fixed_token = Some("right".to_owned());
    });
    let realm = tokens.realm_host();
    let rig = Rig::with("realm-500", SIZE, |u| u.set(&format!("token_realms = [\"{realm}\"]")));
    rig.upstream.require("Bearer right", &tokens.challenge(REPOSITORY));
    let answer = rig.server.get(&rig.target);
    expect_gateway_error(&answer, answer.status());
    tokens.conduct(|c| c.broken = false);
    support::wait_until("the token server to be asked again", secs(20), || {
        rig.server.get(&rig.target).status() == 200
    });
}

#[test]
fn a_token_is_used_again_and_renewed_before_it_ends() {
    let tokens = TokenServer::start();
    tokens.conduct(|c| c.fixed_token = Some("right".to_owned()));
    let realm = tokens.realm_host();
    let rig = Rig::with("realm-reuse", SIZE, |u| u.set(&format!("token_realms = [\"{realm}\"]")));
    rig.upstream.require("Bearer right", &tokens.challenge(REPOSITORY));
    let ask = |n: usize| {
        let bytes = support::images::random_bytes(&format!("reuse-{n}"), 1000);
        let digest = rig.upstream.add_blob(REPOSITORY, &bytes);
        let answer = rig.server.get(&format!("/v2/{REPOSITORY}/blobs/{digest}?ns={NS}"));
        assert_eq!((answer.status(), answer.body == bytes), (200, true), "{}", answer.text());
    };
    (0..5).for_each(ask);
    assert_eq!(tokens.requests().len(), 1, "one token for one scope");
    // Revoked at the registry: one 401, one new token, no error for the client.
    tokens.conduct(|c| c.fixed_token = Some("newer".to_owned()));
    rig.upstream.require("Bearer newer", &tokens.challenge(REPOSITORY));
    (5..8).for_each(ask);
    assert_eq!(tokens.requests().len(), 2, "one more after the 401");
}
