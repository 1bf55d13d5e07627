//! The tests' own support, proved without Ringport: real clients straight at real origins, the
//! raw client straight at the lying upstream. When this fails, the other tests prove nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use support::clients::{Client, Containerd, ContainersImage, require};
use support::http::{self, Connection, Ending};
use support::images::{self, ACCEPT, OCI_MANIFEST, random_bytes};
use support::lying::{Answer, End, LyingUpstream, Ranges};
use support::origin::{Access, Origin, PASSWORD, PrivateCa, USER};
use support::process::run;
use support::scratch::Scratch;
use support::token_server::TokenServer;
use support::{gate::Gate, listener::Listener, ms, secs};

#[test]
fn an_open_origin_keeps_the_five_images_byte_for_byte() {
    let scratch = Scratch::new("proof-open");
    let Some(origin) = Origin::with_images(&scratch, "store", "org/", images::all()) else {
        return;
    };
    for image in images::all() {
        let digest = origin.digest_of(&format!("org/{}", image.name), "latest");
        assert_eq!(digest, image.root().digest, "{}", image.name);
        let target = format!("/v2/org/{}/manifests/latest", image.name);
        let answer = http::get_with(origin.addr(), &target, &[("Accept", ACCEPT)]);
        assert_eq!(answer.body, image.root().bytes, "{}", image.name);
        assert_eq!(answer.header("content-type"), image.root().media_type, "{}", image.name);
        for blob in &image.blobs {
            let target = format!("/v2/org/{}/blobs/{}", image.name, blob.digest);
            assert_eq!(http::get(origin.addr(), &target).body, blob.bytes, "{target}");
        }
    }
}

#[test]
fn guarded_origins_let_in_whom_they_should() {
    let scratch = Scratch::new("proof-guarded");
    let Some(open) = Origin::with_images(&scratch, "store", "", &[images::artifact()]) else {
        return;
    };
    let target = "/v2/artifact/manifests/latest";
    let tokens = TokenServer::start();
    let start = |access: &Access<'_>| Origin::start(&scratch, open.storage(), access);
    let Some(basic) = start(&Access::Basic) else { return };
    let Some(token) = start(&Access::Token(&tokens)) else { return };
    for origin in [&basic, &token] {
        assert_eq!(http::get(origin.addr(), target).status(), 401);
    }
    let challenge = http::get(token.addr(), target).header("www-authenticate").to_owned();
    assert!(challenge.contains(&tokens.realm()), "{challenge}");

    let credentials = format!("{USER}:{PASSWORD}");
    let clients = ContainersImage::new(&scratch);
    let curl = require(Client::Curl);
    if let Some(curl) = curl {
        let url = format!("{}{target}", basic.url());
        let mut command = std::process::Command::new(curl);
        command.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-u", &credentials]);
        command.args(["-H", &format!("Accept: {ACCEPT}"), &url]);
        assert_eq!(run(command, secs(10)).expect_ok(), "200");
    }
    let reference = format!("127.0.0.1:{}/artifact:latest", token.addr().port());
    if let Some(digest) = clients.skopeo_digest(&reference) {
        assert_eq!(digest, images::artifact().root().digest);
        assert!(!tokens.requests().is_empty(), "skopeo asked for a token");
    }
}

#[test]
fn a_tls_origin_is_known_by_its_private_authority() {
    let scratch = Scratch::new("proof-tls");
    let Some(open) = Origin::with_images(&scratch, "store", "", &[images::artifact()]) else {
        return;
    };
    let ca = PrivateCa::new();
    let Some(tls) = Origin::start(&scratch, open.storage(), &Access::Tls(&ca)) else { return };
    let Some(curl) = require(Client::Curl) else { return };
    let url = format!("{}/v2/", tls.url());
    let status = |with_ca: bool| {
        let mut command = std::process::Command::new(&curl);
        command.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--noproxy", "*"]);
        if with_ca {
            command.arg("--cacert").arg(ca.write(&scratch));
        }
        run(
            {
                command.arg(&url);
                command
            },
            secs(10),
        )
        .stdout
    };
    assert_eq!(status(true), "200");
    assert_eq!(status(false), "000");
}

#[test]
fn skopeo_and_podman_pull_straight_from_an_origin() {
    let scratch = Scratch::new("proof-skopeo");
    let Some(origin) = Origin::with_images(&scratch, "store", "org/", images::all()) else {
        return;
    };
    let clients = ContainersImage::new(&scratch);
    for image in images::all() {
        let reference = format!("{}/org/{}:latest", origin.addr(), image.name);
        let Some((ran, folder)) = clients.skopeo_copy(&reference, image.name) else { return };
        ran.expect_ok();
        let manifest = std::fs::read(folder.join("manifest.json")).unwrap();
        assert_eq!(images::sha256(&manifest), image.root().digest, "{}", image.name);
        // podman 4.3.1 can not keep what has no image config.
        if image.name == "artifact" {
            continue;
        }
        let Some(ran) = clients.podman_pull(&reference) else { return };
        ran.expect_ok();
        let kept = clients.podman_digests(&reference).unwrap();
        assert!(kept.contains(&image.root().digest), "{}: {kept}", image.name);
    }
}

#[test]
fn ctr_pulls_through_a_default_hosts_file() {
    let scratch = Scratch::new("proof-ctr");
    let Some(origin) = Origin::with_images(&scratch, "store", "org/", images::all()) else {
        return;
    };
    let Some(containerd) = Containerd::start(&scratch) else { return };
    containerd.mirror_everything(&origin.url());
    for image in images::all() {
        let reference = format!("ghcr.example/org/{}:latest", image.name);
        match image.name {
            "artifact" => containerd.fetch(&reference).expect_ok(),
            _ => containerd.pull(&reference).expect_ok(),
        };
        assert_eq!(containerd.digest_of(&reference), image.root().digest, "{}", image.name);
    }
    containerd.forget_everything();
    assert_eq!(containerd.ctr(&["content", "ls", "-q"]).expect_ok(), "");
}

#[test]
fn the_lying_upstream_is_honest_until_told() {
    let upstream = LyingUpstream::start();
    let bytes = random_bytes("honest", 100_000);
    let digest = upstream.add_blob("org/app", &bytes);
    let path = format!("/v2/org/app/blobs/{digest}");
    let whole = http::get(upstream.addr(), &path);
    assert_eq!((whole.status(), whole.ending), (200, Ending::Complete));
    assert_eq!(whole.body, bytes);
    assert_eq!(whole.header("docker-content-digest"), digest);
    let part = http::get_with(upstream.addr(), &path, &[("Range", "bytes=99990-")]);
    assert_eq!(part.status(), 206);
    assert_eq!(part.header("content-range"), "bytes 99990-99999/100000");
    assert_eq!(part.body, bytes[99_990..]);
    let etag = format!("\"{digest}\"");
    let same = http::get_with(upstream.addr(), &path, &[("If-None-Match", &etag)]);
    assert_eq!(same.status(), 304);
    let head = http::head(upstream.addr(), &path);
    assert_eq!((head.status(), head.header("content-length")), (200, "100000"));
    assert_eq!(http::get(upstream.addr(), "/v2/org/app/blobs/none").status(), 404);
    assert_eq!((upstream.count("GET", &path), upstream.count("HEAD", &path)), (3, 1));
    assert_eq!(upstream.bytes_sent(&path), 100_010);
    // One connection for several requests.
    let before = upstream.connections();
    let mut connection = Connection::open(upstream.addr());
    for _ in 0..3 {
        assert_eq!(connection.exchange("GET", &path, &[]).body, bytes);
    }
    assert_eq!(upstream.connections(), before + 1);
}

#[test]
fn each_lie_looks_as_it_should_on_the_wire() {
    let upstream = LyingUpstream::start();
    let bytes = random_bytes("lies", 50_000);
    let digest = upstream.add_blob("org/app", &bytes);
    let path = format!("/v2/org/app/blobs/{digest}");
    let ask = |answer: Answer| {
        upstream.script("GET", &path, [answer]);
        http::get(upstream.addr(), &path)
    };
    let right = Answer::right;

    let short = ask(right().ending(End::Fin(10_000)));
    assert_eq!((short.body.len(), short.ending), (10_000, Ending::Fin));
    let reset = ask(right().ending(End::Reset(10_000)));
    assert_eq!((reset.body.len(), reset.ending), (10_000, Ending::Reset));
    let long = ask(right().claiming(40_000));
    assert_eq!((long.body.len(), long.ending), (40_000, Ending::Complete));
    let chunked = ask(right().chunked());
    assert_eq!((&chunked.body, chunked.ending), (&bytes, Ending::Complete));
    assert_eq!(chunked.header("content-length"), "");
    let cut = ask(right().chunked().ending(End::Fin(100)));
    assert_eq!((cut.body.len(), cut.ending), (100, Ending::Fin));
    let old = ask(right().until_close());
    assert!(old.head.line.starts_with("HTTP/1.0 200"), "{}", old.head.line);
    assert_eq!(old.body, bytes);
    let html = ask(Answer::instead("text/html", "<html>sign in</html>"));
    assert_eq!((html.status(), html.header("content-type")), (200, "text/html"));
    let limited = ask(Answer::status(429).header("Retry-After", "7"));
    assert_eq!((limited.status(), limited.header("retry-after")), (429, "7"));
    let moved = ask(Answer::redirect(307, "http://127.0.0.1:1/x"));
    assert_eq!((moved.status(), moved.header("location")), (307, "http://127.0.0.1:1/x"));
    let flooded = ask(right().interim(50));
    assert_eq!(flooded.body, bytes);

    let started = std::time::Instant::now();
    let slow = ask(right().paced(10_000, ms(40)).after(ms(100)));
    assert_eq!(slow.body, bytes);
    assert!(slow.first_byte_after.unwrap() >= ms(100));
    assert!(started.elapsed() >= ms(250));
}

#[test]
fn a_script_counts_its_requests_and_ranges_lie() {
    let upstream = LyingUpstream::start();
    let bytes = random_bytes("ranges", 1000);
    let digest = upstream.add_blob("a", &bytes);
    let path = format!("/v2/a/blobs/{digest}");
    upstream.script("GET", &path, [Answer::status(503), Answer::right()]);
    assert_eq!(http::get(upstream.addr(), &path).status(), 503);
    assert_eq!(http::get(upstream.addr(), &path).status(), 200);
    assert_eq!(http::get(upstream.addr(), &path).status(), 200);
    let ask = |ranges| {
        upstream.script("GET", &path, [Answer::right().ranges(ranges)]);
        http::get_with(upstream.addr(), &path, &[("Range", "bytes=100-")])
    };
    assert_eq!(ask(Ranges::Ignore).status(), 200);
    assert_eq!(ask(Ranges::Refuse).status(), 416);
    let shifted = ask(Ranges::Shift);
    assert_eq!(shifted.header("content-range"), "bytes 107-999/1000");
    assert_eq!(shifted.body, bytes[107..]);
    let corrupt = ask(Ranges::Corrupt);
    assert_eq!(corrupt.header("content-range"), "bytes 100-999/1000");
    assert_ne!(corrupt.body, bytes[100..]);
}

#[test]
fn a_gate_holds_an_answer_and_a_guard_asks_for_authorization() {
    let upstream = LyingUpstream::start();
    let bytes = random_bytes("gate", 1000);
    let digest = upstream.add_blob("a", &bytes);
    let path = format!("/v2/a/blobs/{digest}");
    let gate = Gate::new();
    upstream.script("GET", &path, [Answer::right().held_at(300, &gate)]);
    let mut connection = Connection::open(upstream.addr());
    connection.request("GET", &path, &[]);
    connection.read_head().unwrap();
    let mut body = connection.read_exactly(300).unwrap();
    gate.await_arrivals(1, secs(5));
    connection.set_read_timeout(ms(50));
    assert!(connection.read_some(&mut [0; 10]).is_err(), "nothing beyond the gate");
    gate.open();
    connection.set_read_timeout(secs(5));
    body.extend(connection.read_exactly(700).unwrap());
    assert_eq!(body, bytes);

    upstream.require("Bearer right", "Bearer realm=\"http://x/\"");
    assert_eq!(http::get(upstream.addr(), &path).status(), 401);
    let authorized = [("Authorization", "Bearer right")];
    assert_eq!(http::get_with(upstream.addr(), &path, &authorized).status(), 200);
    assert!(upstream.heard("Bearer right") && !upstream.heard("Bearer wrong"));
}

#[test]
fn a_stopped_listener_refuses_and_a_decoy_counts() {
    let mut upstream = LyingUpstream::start();
    upstream.add_manifest("a", "latest", OCI_MANIFEST, b"{}");
    let mut connection = Connection::open(upstream.addr());
    assert_eq!(connection.exchange("GET", "/v2/a/manifests/latest", &[]).status(), 200);
    upstream.stop();
    assert!(std::net::TcpStream::connect_timeout(&upstream.addr(), ms(500)).is_err());
    assert_eq!(connection.closed_in_order(secs(1)), Some(true), "open connections end too");

    let decoy = Listener::decoy([127, 0, 0, 2]);
    assert_eq!(decoy.accepted(), 0);
    drop(Connection::open(decoy.addr()));
    support::wait_until("the decoy to count", secs(2), || decoy.accepted() == 1);
}

#[test]
fn the_kernel_shows_the_connections_of_a_process() {
    let upstream = LyingUpstream::start();
    let connection = Connection::open(upstream.addr());
    let ours = support::sockets::connected(std::process::id());
    assert!(ours.iter().any(|s| s.remote == upstream.addr()), "{ours:?}");
    drop(connection);
}
