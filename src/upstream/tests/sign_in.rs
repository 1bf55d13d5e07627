//! Tokens and passwords: one fetch for all, nothing to strangers, renewed when refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::origin::{Answer, Origin, Seen, ok, redirect, response, status};
use super::world::{CANARY, World, failure, fetch, file, get, on_workers};
use crate::runtime;
use crate::upstream::UpstreamError;

/// Grants token-0, token-1, …, each for `seconds`.
fn token_service(seconds: u64, pause: Duration) -> Origin {
    let granted = AtomicUsize::new(0);
    Origin::start(move |_| {
        std::thread::sleep(pause);
        let n = granted.fetch_add(1, Ordering::SeqCst);
        ok(format!("{{\"token\":\"{CANARY}-{n}\",\"expires_in\":{seconds}}}").as_bytes())
    })
}

fn challenge(realm: &str) -> String {
    format!(
        "WWW-Authenticate: Basic realm=\"x, y\"\r\nWWW-Authenticate: Bearer realm=\"{realm}\",\
         service=\"reg & co\",scope=\"repository:team/app:pull repository:b:pull\"\r\n"
    )
}

/// Serves whoever has a token that `takes` it.
fn registry(realm: String, takes: impl Fn(&str) -> bool + Send + Sync + 'static) -> Origin {
    Origin::start(move |seen: &Seen| match seen.header("authorization") {
        Some(value) if value.strip_prefix("Bearer ").is_some_and(&takes) => ok(b"body"),
        _ => status("401 Unauthorized", &challenge(&realm)),
    })
}

fn world(origin: &Origin, more: &str) -> Arc<World> {
    World::new(&format!("endpoints = [\"{}\"]\n{more}", origin.url("")))
}

#[test]
fn one_token_serves_all_workers() {
    let tokens = token_service(300, Duration::from_millis(100));
    let origin = registry(tokens.url("/token?a=b"), |_| true);
    let world = world(&origin, "");
    let shared = world.clone();
    on_workers(2, move |context| {
        let client = shared.client(&context);
        async move {
            let asking = (0..20).map(|_| fetch(&client, "/v2/team/app/blobs/x"));
            for body in futures_util::future::join_all(asking).await {
                assert_eq!(body.expect("a body"), "body");
            }
            // Remembered: no 401 any more.
            assert_eq!(fetch(&client, "/v2/team/app/blobs/y").await.expect("a body"), "body");
        }
    });
    assert_eq!(world.counts.tokens.load(Ordering::SeqCst), 1);
    let asked = tokens.seen();
    assert_eq!(asked.len(), 1);
    let asked = asked.first().expect("a request");
    let query = "/token?a=b&service=reg%20%26%20co&scope=repository%3Ateam%2Fapp%3Apull\
                 &scope=repository%3Ab%3Apull";
    assert_eq!((asked.path(), asked.header("authorization")), (query, None));
    let last: Vec<_> = origin.seen().into_iter().filter(|s| s.path().ends_with("/y")).collect();
    assert_eq!(last.len(), 2);
}

#[test]
fn a_password_goes_to_the_realm_and_not_to_the_registry() {
    let tokens = token_service(300, Duration::ZERO);
    let origin = registry(tokens.url("/token"), |_| true);
    let (_folder, password) = file("pass:word\r\n");
    let (service, registry) = (tokens.clone(), origin.clone());
    let keys = format!("username = \"ci\"\npassword_file = \"{password}\"");
    world(&origin, &keys).run(move |client| {
        let (service, registry) = (service.clone(), registry.clone());
        async move {
            fetch(&client, "/v2/team/app/blobs/x").await.expect("a body");
            let asked = service.seen().pop().expect("a request");
            // base64 of ci:pass:word
            assert_eq!(asked.header("authorization"), Some("Basic Y2k6cGFzczp3b3Jk"));
            for seen in registry.seen() {
                let value = seen.header("authorization").unwrap_or("Bearer");
                assert!(value.starts_with("Bearer"), "{value}");
            }
        }
    });
}

#[test]
fn a_token_that_is_refused_is_replaced_once() {
    // Tokens 0 and 1 work until told otherwise.
    let refused = Arc::new(AtomicUsize::new(usize::MAX));
    let tokens = token_service(300, Duration::ZERO);
    let refusing = refused.clone();
    let origin = registry(tokens.url("/token"), move |token| {
        let n: usize = token.rsplit('-').next().and_then(|n| n.parse().ok()).expect("a number");
        let refused = refusing.load(Ordering::SeqCst);
        refused == usize::MAX || n > refused
    });
    let (service, registry) = (tokens.clone(), origin.clone());
    world(&origin, "").run(move |client| {
        let (service, registry, refused) = (service.clone(), registry.clone(), refused.clone());
        async move {
            fetch(&client, "/v2/team/app/blobs/1").await.expect("a body");
            refused.store(0, Ordering::SeqCst);
            fetch(&client, "/v2/team/app/blobs/2").await.expect("a body");
            assert_eq!(service.seen().len(), 2);
            let asked = |n: &str| registry.seen().iter().filter(|s| s.path().ends_with(n)).count();
            assert_eq!((asked("/1"), asked("/2")), (2, 2));
            // Nothing is good enough any more: one new token, then it is a denial.
            refused.store(99, Ordering::SeqCst);
            let error = failure(get(&client, "/v2/team/app/blobs/3").await);
            assert!(matches!(error, UpstreamError::Denied { status: 401, .. }), "{error}");
            assert_eq!((service.seen().len(), asked("/3")), (3, 2));
        }
    });
}

#[test]
fn a_token_is_renewed_before_it_dies() {
    let tokens = token_service(3, Duration::ZERO);
    let origin = registry(tokens.url("/token"), |_| true);
    let service = tokens.clone();
    world(&origin, "").run(move |client| {
        let service = service.clone();
        async move {
            fetch(&client, "/v2/team/app/blobs/1").await.expect("a body");
            fetch(&client, "/v2/team/app/blobs/2").await.expect("a body");
            assert_eq!(service.seen().len(), 1);
            // Three seconds of life, a tenth of them kept in reserve.
            runtime::sleep(Duration::from_millis(2_850)).await;
            fetch(&client, "/v2/team/app/blobs/3").await.expect("a body");
            assert_eq!(service.seen().len(), 2);
        }
    });
}

#[test]
fn refusals_of_the_service_are_remembered_for_a_while() {
    let tokens = Origin::start(|_| status("403 Forbidden", ""));
    let origin = registry(tokens.url("/token"), |_| true);
    let service = tokens.clone();
    world(&origin, "").run(move |client| {
        let service = service.clone();
        async move {
            for _ in 0..3 {
                let error = failure(get(&client, "/v2/team/app/blobs/x").await);
                assert!(matches!(error, UpstreamError::Denied { status: 403, .. }), "{error}");
            }
            assert_eq!(service.seen().len(), 1);
        }
    });
}

#[test]
fn bad_token_services_are_failures() {
    type Script = fn() -> Answer;
    let cases: [(&str, Script); 7] = [
        ("redirect", || redirect("http://127.0.0.1:1/")),
        ("html", || ok(b"<html>canary-3f9a</html>")),
        ("no token", || ok(b"{\"expires_in\":5}")),
        ("huge", || ok(&vec![b' '; 100_000])),
        ("down", || status("503 Unavailable", "")),
        ("silent", || Answer::Silence(Vec::new())),
        ("cut", || {
            Answer::SendAndClose(response("200 OK", "", b"{\"token\":\"x\"}")[..40].to_vec())
        }),
    ];
    for (name, script) in cases {
        let tokens = Origin::start(move |_| script());
        let origin = registry(tokens.url("/token"), |_| true);
        let registry = origin.clone();
        let keys = "first_byte_timeout = \"1s\"";
        world(&origin, keys).run(move |client| {
            let registry = registry.clone();
            async move {
                let error = failure(get(&client, "/v2/team/app/blobs/x").await);
                assert!(error.is_failure_of_upstream(), "{name}: {error}");
                assert_eq!(registry.seen().len(), 1, "{name}");
            }
        });
    }
}

#[test]
fn a_foreign_realm_is_not_asked() {
    let trap = Origin::start(|_| ok(b"{\"token\":\"x\"}"));
    let port = trap.address.port();
    let realms = [
        format!("http://127.0.0.2:{port}/t"),
        format!("http://localhost:{port}/t"),
        format!("http://2130706433:{port}/t"),
        format!("http://127.0.0.1@127.0.0.1:{port}/t"),
        "https://auth.docker.io/token".to_owned(),
        "/token".to_owned(),
        String::new(),
    ];
    for realm in realms {
        let origin = registry(format!("{realm}?secret={CANARY}"), |_| true);
        let (_folder, password) = file(CANARY);
        let keys = format!("username = \"ci\"\npassword_file = \"{password}\"");
        world(&origin, &keys).run(move |client| async move {
            let error = failure(get(&client, "/v2/team/app/blobs/x").await);
            assert!(matches!(error, UpstreamError::Token { .. }), "{error}");
        });
    }
    assert_eq!(trap.connections(), 0);
}

#[test]
fn a_listed_realm_is_asked() {
    let tokens = token_service(300, Duration::ZERO);
    let port = tokens.address.port();
    let origin = registry(format!("http://localhost:{port}/t"), |_| true);
    let (_folder, password) = file("secret");
    let keys = format!(
        "username = \"ci\"\npassword_file = \"{password}\"\ntoken_realms = [\"localhost:{port}\"]"
    );
    let local = || super::world::only(&[("localhost", &["127.0.0.1"])]);
    let keys = format!("endpoints = [\"{}\"]\n{keys}", origin.url(""));
    World::with_names(&keys, local).run(move |client| async move {
        assert_eq!(fetch(&client, "/v2/team/app/blobs/x").await.expect("a body"), "body");
    });
    assert_eq!(tokens.seen().len(), 1);
}

#[test]
fn basic_is_answered_and_remembered() {
    let origin = Origin::start(|seen| match seen.header("authorization") {
        Some("Basic Y2k6c2VjcmV0") => ok(b"body"),
        _ => status("401 Unauthorized", "WWW-Authenticate: Basic realm=\"r\"\r\n"),
    });
    let (folder, password) = file("secret\n");
    let seen = origin.clone();
    let keys = format!("username = \"ci\"\npassword_file = \"{password}\"");
    world(&origin, &keys).run(move |client| {
        let (seen, password) = (seen.clone(), password.clone());
        async move {
            fetch(&client, "/v2/team/app/blobs/1").await.expect("a body");
            fetch(&client, "/v2/team/app/blobs/2").await.expect("a body");
            assert_eq!(seen.seen().len(), 3);
            assert_eq!(seen.connections(), 1);
            // A wrong password is a denial after one try.
            std::fs::write(&password, CANARY).expect("a file");
            let error = failure(get(&client, "/v2/team/app/blobs/3").await);
            assert!(matches!(error, UpstreamError::Denied { .. }), "{error}");
            assert_eq!(seen.seen().len(), 4);
        }
    });
    drop(folder);
    // Without a password the answer says what is missing.
    world(&origin, "").run(move |client| async move {
        let error = failure(get(&client, "/v2/team/app/blobs/x").await);
        assert!(error.to_string().contains("password_file"), "{error}");
    });
}

#[test]
fn a_ready_token_needs_no_service() {
    let tokens = token_service(300, Duration::ZERO);
    let origin = registry(tokens.url("/token"), |token| token == "ready");
    let (_folder, token) = file("ready\n");
    let keys = format!("token_file = \"{token}\"");
    world(&origin, &keys).run(move |client| async move {
        assert_eq!(fetch(&client, "/v2/team/app/blobs/x").await.expect("a body"), "body");
    });
    assert_eq!(tokens.connections(), 0);
}
