//! Several endpoints: in order, and the dead one last for a while.

use std::time::Duration;

use super::origin::{Answer, Origin, ok, status};
use super::world::{World, failure, fetch, get};
use crate::oci::Namespace;
use crate::upstream::{Method, UpstreamError};

/// A port nobody listens on.
fn dead() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("http://{}", listener.local_addr().expect("an address"))
}

fn world(first: &str, second: &str) -> std::sync::Arc<World> {
    World::new(&format!(
        "aliases = [\"alias.test\"]\nendpoints = [\"{first}\", \"{second}\"]\n\
         first_byte_timeout = \"1s\""
    ))
}

#[test]
fn the_next_endpoint_is_asked_when_one_fails() {
    let cases: [fn() -> Answer; 4] = [
        || status("503 Unavailable", ""),
        || Answer::Close,
        || Answer::Silence(Vec::new()),
        || Answer::Send(b"nonsense\r\n\r\n".to_vec()),
    ];
    for script in cases {
        let (first, second) = (Origin::start(move |_| script()), Origin::start(|_| ok(b"2")));
        world(&first.url(""), &second.url("/prefix")).run(move |client| async move {
            let response = get(&client, "/v2/team/app/blobs/x").await.expect("an answer");
            assert!(response.endpoint.ends_with("/prefix"), "{}", response.endpoint);
        });
        assert_eq!(first.seen().len(), 1);
        let asked = second.seen();
        assert_eq!(asked.first().map(|s| s.path()), Some("/prefix/v2/team/app/blobs/x"));
    }
}

#[test]
fn an_answer_is_an_answer() {
    for code in ["404 Not Found", "429 Too Many Requests", "403 Forbidden"] {
        let first = Origin::start(move |_| status(code, ""));
        let second = Origin::start(|_| ok(b"2"));
        world(&first.url(""), &second.url("")).run(move |client| async move {
            let answer = get(&client, "/v2/team/app/blobs/x").await;
            assert_ne!(answer.map(|response| response.status), Ok(200));
        });
        assert_eq!(second.connections(), 0, "{code}");
    }
}

#[test]
fn whom_an_endpoint_sends_us_to_says_nothing_about_connections_to_itself() {
    let (nobody, tokens) = (dead(), Origin::start(|_| Answer::Close));
    let challenge = |realm: &str| {
        status("401 Unauthorized", &format!("WWW-Authenticate: Bearer realm=\"{realm}/token\"\r\n"))
    };
    let (refusing, closing) = (nobody.clone(), tokens.url(""));
    let origin = Origin::start(move |seen| match seen.path().rsplit_once('/') {
        Some((_, "redirect")) => super::origin::redirect(&format!("{refusing}/x")),
        Some((_, "realm")) => challenge(&refusing),
        Some((_, "other-realm")) => challenge(&closing),
        _ => ok(b"well"),
    });
    let authority = |url: &str| url.trim_start_matches("http://").to_owned();
    let realms = [authority(&nobody), authority(&tokens.url(""))];
    let keys = format!("endpoints = [\"{}\"]\ntoken_realms = {realms:?}", origin.url(""));
    World::new(&keys).run(|client| async move {
        for path in ["redirect", "realm", "other-realm"] {
            for _ in 0..4 {
                let error = failure(get(&client, &format!("/v2/team/app/blobs/{path}")).await);
                assert!(error.is_failure_of_upstream(), "{error}");
            }
        }
        assert_eq!(fetch(&client, "/v2/team/app/blobs/x").await.expect("a body"), "well");
    });
}

#[test]
fn a_dead_endpoint_is_asked_last() {
    let silent = Origin::start(|_| Answer::Silence(Vec::new()));
    let second = Origin::start(|_| ok(b"2"));
    world(&silent.url(""), &second.url("")).run(move |client| async move {
        for _ in 0..3 {
            assert_eq!(fetch(&client, "/v2/team/app/blobs/x").await.expect("a body"), "2");
        }
    });
    assert_eq!((silent.seen().len(), second.seen().len()), (1, 3));
}

#[test]
fn when_all_fail_the_error_says_how() {
    world(&dead(), &dead()).run(move |client| async move {
        let error = failure(get(&client, "/v2/team/app/blobs/x").await);
        assert!(matches!(error, UpstreamError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains("refused"), "{error}");
    });
    let silent = Origin::start(|_| Answer::Silence(Vec::new()));
    world(&dead(), &silent.url("")).run(move |client| async move {
        let error = failure(get(&client, "/v2/team/app/blobs/x").await);
        assert!(error.is_timeout(), "{error}");
        assert!(error.to_string().contains(&format!("{:?}", Duration::from_secs(1))), "{error}");
    });
}

#[test]
fn only_declared_upstreams_are_asked() {
    let origin = Origin::start(|_| ok(b"1"));
    world(&origin.url(""), &origin.url("/second")).run(move |client| async move {
        let ask = || super::world::request(Method::Get, "/v2/team/app/blobs/x");
        for name in ["127.0.0.1:22", "169.254.169.254", "evil.test"] {
            let name = Namespace::parse(name).expect(name);
            let error = client.exchange(&name, ask()).await.err().expect("undeclared");
            assert!(matches!(error, UpstreamError::Undeclared { .. }), "{error}");
        }
        let alias = Namespace::parse("alias.test").expect("a namespace");
        assert_eq!(client.exchange(&alias, ask()).await.map(|r| r.status), Ok(200));
    });
}

#[test]
fn one_that_is_late_is_not_waited_for_alone() {
    let silent = Origin::start(|_| Answer::Silence(Vec::new()));
    let second = Origin::start(|_| ok(b"2"));
    let keys = format!(
        "endpoints = [\"{}\", \"{}\"]\nfirst_byte_timeout = \"60s\"\nhedge_after = \"50ms\"",
        silent.url(""),
        second.url("")
    );
    World::new(&keys).run(move |client| async move {
        // Waits for the first byte of the silent one would outlast the test.
        for _ in 0..3 {
            assert_eq!(fetch(&client, "/v2/team/app/blobs/x").await.expect("a body"), "2");
        }
    });
    assert_eq!((silent.seen().len(), second.seen().len()), (1, 3), "then it is asked last");
}

#[test]
fn one_that_is_down_is_left_alone() {
    let (gone, second) = (dead(), Origin::start(|_| ok(b"2")));
    world(&gone, &second.url("")).run(move |client| async move {
        for _ in 0..5 {
            assert_eq!(fetch(&client, "/v2/team/app/blobs/x").await.expect("a body"), "2");
        }
    });
    let gone = dead();
    World::new(&format!("endpoints = [\"{gone}\"]")).run(move |client| async move {
        for _ in 0..3 {
            let error = failure(get(&client, "/v2/team/app/blobs/x").await);
            assert!(error.to_string().contains("refused"), "{error}");
        }
        // One of them may be a probe, if this machine is slow.
        let mut said = Vec::new();
        for _ in 0..5 {
            let error = failure(get(&client, "/v2/team/app/blobs/x").await);
            assert!(error.is_failure_of_upstream(), "{error}");
            said.push(error.to_string());
        }
        assert!(said.iter().any(|said| said.contains("not asked for")), "{said:?}");
    });
}
