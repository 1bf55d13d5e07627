//! Redirects: followed by hand, without credentials past the endpoint, to permitted addresses.

use super::origin::{Answer, Origin, ok, redirect, response};
use super::world::{CANARY, World, failure, fetch, file, get, namespace, request};
use crate::http::ByteRange;
use crate::upstream::{Method, UpstreamError};

fn world(origin: &Origin, more: &str) -> std::sync::Arc<World> {
    World::new(&format!("endpoints = [\"{}\"]\n{more}", origin.url("")))
}

#[test]
fn credentials_and_conditions_stay_with_the_endpoint() {
    let cdn = Origin::start(|seen| match seen.path() {
        "/back" => redirect("/x"),
        _ => Answer::Send(response("206 Partial Content", "Content-Range: bytes 1-2/3\r\n", b"bc")),
    });
    let target = cdn.url(&format!("/presigned?X-Signature={CANARY}"));
    let origin = Origin::start(move |seen| match seen.header("authorization") {
        None => super::origin::status("401 Unauthorized", "WWW-Authenticate: Basic realm=r\r\n"),
        Some(_) => match seen.path() {
            "/v2/team/app/blobs/home" => redirect("/v2/team/app/blobs/x"),
            _ => redirect(&target),
        },
    });
    let (_folder, password) = file(CANARY);
    let (home, away) = (origin.clone(), cdn.clone());
    let keys = format!("username = \"ci\"\npassword_file = \"{password}\"");
    world(&origin, &keys).run(move |client| {
        let (home, away) = (home.clone(), away.clone());
        async move {
            let mut ask = request(Method::Get, "/v2/team/app/blobs/home");
            ask.range = Some(ByteRange::From { first: 1, last: None });
            let mut response = client.exchange(&namespace(), ask).await.expect("an answer");
            assert_eq!(response.body.collect(9).await.expect("a body"), "bc");

            // 401, then two hops at home with credentials, then the CDN without.
            let signed: Vec<_> =
                home.seen().iter().map(|s| s.header("authorization").is_some()).collect();
            assert_eq!(signed, [false, true, true]);
            let asked = away.seen();
            let asked = asked.first().expect("a request");
            assert_eq!(asked.path(), format!("/presigned?X-Signature={CANARY}"));
            assert_eq!(asked.header("authorization"), None);
            assert_eq!(asked.header("range"), Some("bytes=1-"));
            assert_eq!(asked.header("host"), Some(away.address.to_string().as_str()));
            assert!(!asked.headers.iter().any(|line| line.contains(CANARY)));
        }
    });
}

#[test]
fn coming_back_home_does_not_bring_the_credentials_back() {
    let home = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let back = home.clone();
    let cdn = Origin::start(move |_| redirect(&format!("{}/v2/secret", back.get().expect("set"))));
    let target = cdn.url("/");
    let origin = Origin::start(move |seen| match seen.header("authorization") {
        _ if seen.path() == "/v2/secret" => ok(b"open"),
        None => super::origin::status("401 Unauthorized", "WWW-Authenticate: Basic realm=r\r\n"),
        Some(_) => redirect(&target),
    });
    home.set(origin.url("")).expect("first");
    let (_folder, password) = file(CANARY);
    let seen = origin.clone();
    let keys = format!("username = \"ci\"\npassword_file = \"{password}\"");
    world(&origin, &keys).run(move |client| {
        let seen = seen.clone();
        async move {
            assert_eq!(fetch(&client, "/v2/team/app/blobs/x").await.expect("a body"), "open");
            let last = seen.seen().pop().expect("a request");
            assert_eq!((last.path(), last.header("authorization")), ("/v2/secret", None));
        }
    });
}

#[test]
fn chains_end() {
    let origin = Origin::start(|seen| match seen.path().rsplit_once('/') {
        Some((_, "loop")) => redirect("loop"),
        Some((_, "nowhere")) => super::origin::status("302 Found", ""),
        Some((_, "twice")) => {
            super::origin::status("302 Found", "Location: /a\r\nLocation: /b\r\n")
        }
        Some((_, "file")) => redirect("file:///etc/passwd"),
        Some((_, "number")) => redirect("http://2130706433/"),
        Some((_, "userinfo")) => redirect("http://a:b@127.0.0.1/"),
        Some((_, "401")) => super::origin::status("401 Unauthorized", ""),
        _ => redirect("/v2/team/app/401"),
    });
    let seen = origin.clone();
    world(&origin, "").run(move |client| {
        let seen = seen.clone();
        async move {
            let error = failure(get(&client, "/v2/team/app/loop").await);
            assert!(matches!(error, UpstreamError::Redirect { .. }), "{error}");
            assert_eq!(seen.seen().len(), 6);
            for path in ["nowhere", "twice", "file", "number", "userinfo"] {
                let error = failure(get(&client, &format!("/v2/team/app/{path}")).await);
                assert!(matches!(error, UpstreamError::Redirect { .. }), "{path}: {error}");
                assert!(error.is_failure_of_upstream());
            }
        }
    });
}

#[test]
fn a_target_that_refuses_is_a_failure_not_a_denial() {
    let cdn = Origin::start(|_| {
        super::origin::status("401 Unauthorized", "WWW-Authenticate: Basic realm=r\r\n")
    });
    let target = cdn.url(&format!("/?sig={CANARY}"));
    let origin = Origin::start(move |_| redirect(&target));
    let (_folder, password) = file(CANARY);
    let away = cdn.clone();
    let keys = format!("username = \"ci\"\npassword_file = \"{password}\"");
    world(&origin, &keys).run(move |client| {
        let away = away.clone();
        async move {
            let error = failure(get(&client, "/v2/team/app/blobs/x").await);
            assert!(matches!(error, UpstreamError::Redirect { .. }), "{error}");
            assert_eq!(away.seen().len(), 1);
        }
    });
}

#[test]
fn a_redirect_to_a_blocked_address_is_not_dialled() {
    let trap = std::net::TcpListener::bind("127.0.0.2:0").expect("a port");
    trap.set_nonblocking(true).expect("a flag");
    let port = trap.local_addr().expect("an address").port();
    let origin = Origin::start(move |_| redirect(&format!("http://127.0.0.2:{port}/")));
    world(&origin, "").run(move |client| async move {
        let error = failure(get(&client, "/v2/team/app/blobs/x").await);
        assert!(matches!(error, UpstreamError::Blocked { .. }), "{error}");
        assert!(error.to_string().contains("127.0.0.2 is loopback"), "{error}");
    });
    let nobody = trap.accept().map(|_| ()).expect_err("nobody came");
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
}
