//! Ringport in front of Ringport: loops end where they began, ages add up, a HEAD fetches nothing,
//! and what real clients pull through two of them is asked of its origin once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use support::clients::{Containerd, ContainersImage};
use support::http::{self, get_with};
use support::images::{self, Image, OCI_MANIFEST, random_bytes};
use support::lying::{Answer, LyingUpstream};
use support::origin::{Access, Origin, PASSWORD, USER};
use support::ports;
use support::rig::manifest;
use support::scratch::Scratch;
use support::server::{Server, Setup, Upstream};
use support::token_server::TokenServer;

const NS: &str = "origin.example";
const REPOSITORY: &str = "org/app";

/// The declaration of another Ringport as where `NS` is had from.
fn mirror_at(addr: SocketAddr) -> Upstream {
    Upstream::new(NS, &format!("http://{addr}")).set("forward_ns = true").set("stale_max = \"1h\"")
}

/// A chain of two before a scripted origin: what clients talk to, then what that talks to.
fn chain(what: &str, near_ttl: &str, far_ttl: &str) -> (LyingUpstream, Server, Server) {
    let origin = LyingUpstream::start();
    let declared = Upstream::new(NS, &origin.url()).set(&format!("tag_ttl = \"{far_ttl}\""));
    let far = Setup::new(&format!("{what}-far")).upstream(declared).start();
    let declared = mirror_at(far.addr).set(&format!("tag_ttl = \"{near_ttl}\""));
    let near = Setup::new(&format!("{what}-near")).upstream(declared).start();
    (origin, near, far)
}

fn manifest_target(reference: &str) -> String {
    format!("/v2/{REPOSITORY}/manifests/{reference}?ns={NS}")
}

fn loops(server: &Server) -> f64 {
    server.metric("ringport_loops_total", &[])
}

#[test]
fn a_loop_ends_where_it_began() {
    let digest = images::sha256(b"nobody has it");
    let targets = [
        manifest_target("v1"),
        manifest_target(&digest),
        format!("/v2/{REPOSITORY}/blobs/{digest}?ns={NS}"),
        format!("/v2/{REPOSITORY}/tags/list?ns={NS}"),
    ];
    // Its own upstream; and two that are each other's.
    let addr = ports::free();
    let alone = Setup::new("loop-alone").at(addr).upstream(mirror_at(addr)).start();
    let (a, b) = (ports::free(), ports::free());
    let first = Setup::new("loop-a").at(a).upstream(mirror_at(b)).start();
    let second = Setup::new("loop-b").at(b).upstream(mirror_at(a)).start();
    for (server, others) in [(&alone, [&alone].as_slice()), (&first, &[&first, &second])] {
        for method in ["GET", "HEAD"] {
            for target in &targets {
                let before = loops(server);
                let answer = http::Connection::open(server.addr).exchange(method, target, &[]);
                assert_eq!(answer.status(), 508, "{method} {target}: {}", answer.text());
                if method == "GET" {
                    assert!(answer.text().contains("a loop"), "{}", answer.text());
                    assert_eq!(answer.error_code(), "UNAVAILABLE");
                }
                assert!(loops(server) > before, "{method} {target}: seen where it began");
            }
        }
        for other in others {
            let asked = other.metric("ringport_requests_total", &[]);
            assert!(asked <= 40.0, "{asked} requests");
        }
    }
    assert_eq!(loops(&second), 0.0, "its requests were the other's");
    let log = first.log_text();
    assert!(log.contains("a loop of mirrors") && log.contains("ringport-"), "{log}");
}

#[test]
fn what_came_through_too_many_is_refused_and_the_rest_passed_on() {
    let (plain, mirror) = (LyingUpstream::start(), LyingUpstream::start());
    let server = Setup::new("via")
        .upstream(Upstream::new("plain.example", &plain.url()).set("tag_ttl = \"0s\""))
        .upstream(
            Upstream::new("mirror.example", &mirror.url())
                .set("forward_ns = true")
                .set("tag_ttl = \"0s\""),
        )
        .start();
    let bytes = manifest("via");
    for upstream in [&plain, &mirror] {
        upstream.add_manifest(REPOSITORY, "v1", OCI_MANIFEST, &bytes);
        let list = format!("/v2/{REPOSITORY}/tags/list");
        upstream.add(&list, "application/json", br#"{"name":"org/app","tags":["v1"]}"#, None);
    }
    let blobs = [plain.add_blob(REPOSITORY, b"plain"), mirror.add_blob(REPOSITORY, b"mirror")];
    let via = [("Via", "1.0 proxy.corp (squid, 6)"), ("Via", "1.1 ringport-0123abcd")];
    let forwarded = "1.0 proxy.corp, 1.1 ringport-0123abcd, 1.1 ringport-";
    for (upstream, namespace, blob, passed_on) in [
        (&plain, "plain.example", &blobs[0], "1.1 ringport-0123abcd, 1.1 ringport-"),
        (&mirror, "mirror.example", &blobs[1], forwarded),
    ] {
        // A manifest, a proof, a download, a relayed list.
        for (method, path) in [
            ("GET", format!("/v2/{REPOSITORY}/manifests/v1")),
            ("HEAD", format!("/v2/{REPOSITORY}/blobs/{blob}")),
            ("GET", format!("/v2/{REPOSITORY}/blobs/{blob}")),
            ("GET", format!("/v2/{REPOSITORY}/tags/list")),
        ] {
            let target = format!("{path}?ns={namespace}");
            http::Connection::open(server.addr).exchange(method, &target, &via);
            let seen = upstream.seen();
            let seen = &seen.last().expect("a request").request;
            assert_eq!((seen.method.as_str(), &seen.path), (method, &path));
            let told = seen.header("via").unwrap_or_default();
            let own = told.strip_prefix(passed_on).unwrap_or_else(|| panic!("{path}: {told}"));
            assert_eq!(own.len(), 8, "{told}");
        }
        // Who comes straight is not told about those before.
        server.get(&format!("/v2/{REPOSITORY}/tags/list?ns={namespace}"));
        let seen = upstream.seen();
        let told = seen.last().unwrap().request.header("via").unwrap_or_default();
        assert_eq!(told.len(), "1.1 ringport-01234567".len(), "{told}");
    }
    let asked = plain.requests();
    let target = format!("/v2/{REPOSITORY}/manifests/v1?ns=plain.example");
    let many = ["1.1 other"; 9].join(", ");
    let answer = get_with(server.addr, &target, &[("Via", &many)]);
    assert_eq!((answer.status(), answer.error_code().as_str()), (508, "UNAVAILABLE"));
    assert!(answer.text().contains("through 9 others"), "{}", answer.text());
    assert_eq!(plain.requests(), asked, "nobody was asked");
    let few = ["1.1 other"; 8].join(", ");
    assert_eq!(get_with(server.addr, &target, &[("Via", &few)]).status(), 200);
    assert_eq!(loops(&server), 1.0);
}

#[test]
fn ages_add_up_over_a_chain() {
    let (origin, near, far) = chain("age", "2s", "1h");
    let body = manifest("aged");
    let path = format!("/v2/{REPOSITORY}/manifests/v1");
    let digest = origin.add_manifest(REPOSITORY, "v1", OCI_MANIFEST, &body);
    let age = |answer: &http::Answer| answer.head.headers.number("age").expect("an age");
    let get = || {
        let answer = near.get(&manifest_target("v1"));
        assert_eq!((answer.status(), answer.body == body), (200, true), "{}", answer.text());
        assert_eq!(answer.header("docker-content-digest"), digest);
        answer
    };
    assert!(age(&get()) <= 2);
    std::thread::sleep(support::ms(3200));
    // The near one asks again; the far one need not, and says how long ago it did.
    let confirmed = get();
    assert!(confirmed.header("cache-status").contains("revalidated"), "{:?}", confirmed.head);
    assert!((3..60).contains(&age(&confirmed)), "{:?}", confirmed.head);
    // Too old for the near one as soon as it comes: served, and asked for again.
    let again = get();
    assert!(again.header("cache-status").contains("revalidated"), "{:?}", again.head);
    assert!(age(&again) >= age(&confirmed));
    assert_eq!((origin.count("GET", &path), origin.count("HEAD", &path)), (1, 0));
    // The same when it comes for the first time.
    let other = Setup::new("age-other").upstream(mirror_at(far.addr)).start();
    let answer = other.get(&manifest_target("v1"));
    assert!((3..60).contains(&age(&answer)), "{:?}", answer.head);
}

#[test]
fn an_upstreams_age_counts_against_tag_ttl() {
    let origin = LyingUpstream::start();
    let declared = Upstream::new(NS, &origin.url()).set("tag_ttl = \"5m\"");
    let server = Setup::new("age-told").upstream(declared).start();
    let body = manifest("told");
    for (tag, told, least, is_due) in [
        ("young", Some("240"), 240, false),
        ("old", Some("300"), 300, true),
        ("ancient", Some("99999999999999999999999"), 0, false),
        ("years", Some("9999999999"), 365 * 24 * 3600, true),
        ("negative", Some("-5"), 0, false),
        ("words", Some("old"), 0, false),
        ("silent", None, 0, false),
    ] {
        let digest = images::sha256(&body);
        let path = format!("/v2/{REPOSITORY}/manifests/{tag}");
        origin.add(&path, OCI_MANIFEST, &body, Some(&digest));
        if let Some(told) = told {
            origin.script("*", &path, [Answer::right().header("Age", told)]);
        }
        for round in 0..3 {
            let answer = server.get(&manifest_target(tag));
            assert_eq!(answer.status(), 200, "{tag}: {}", answer.text());
            assert_eq!(answer.head.headers.count("warning"), 0, "{tag}");
            let age = answer.head.headers.number("age").unwrap();
            assert!((least..least + 60).contains(&age), "{tag}: {age} in round {round}");
        }
        let asked = (origin.count("GET", &path), origin.count("HEAD", &path));
        assert_eq!(asked, (1, if is_due { 2 } else { 0 }), "{tag}");
    }
}

#[test]
fn a_head_goes_through_and_fetches_nothing() {
    let (origin, near, far) = chain("head", "1h", "1h");
    let bytes = random_bytes("head", 300_000);
    let digest = origin.add_blob(REPOSITORY, &bytes);
    let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
    let target = format!("{path}?ns={NS}");
    for _ in 0..2 {
        let head = near.head(&target);
        assert_eq!(head.status(), 200);
        assert_eq!(head.header("content-length"), bytes.len().to_string());
        assert_eq!(head.header("docker-content-digest"), digest);
    }
    assert_eq!((origin.count("HEAD", &path), origin.count("GET", &path)), (2, 0));
    assert!(near.blobs().is_empty() && far.blobs().is_empty());
    let unknown = images::sha256(b"unknown");
    let head = near.head(&format!("/v2/{REPOSITORY}/blobs/{unknown}?ns={NS}"));
    assert_eq!(head.status(), 404, "no failure of anybody");

    // Stored by both: another repository's claim to it is proved through both, and costs no byte.
    assert!(near.get(&target).body == bytes);
    near.await_blob(&digest);
    far.await_blob(&digest);
    origin.add_blob("org/other", &bytes);
    let other = format!("/v2/org/other/blobs/{digest}");
    assert!(near.get(&format!("{other}?ns={NS}")).body == bytes);
    assert_eq!((origin.count("HEAD", &other), origin.count("GET", &other)), (1, 0));
    let strange = near.get(&format!("/v2/org/strange/blobs/{digest}?ns={NS}"));
    assert_eq!(strange.status(), 404, "knowing a digest is no permission");
    assert_eq!(origin.count("GET", &path), 1);
}

/// What docker-registry was asked for with success: GETs by path.
fn origin_gets(origin: &Origin) -> HashMap<String, usize> {
    let mut gets = HashMap::new();
    for line in origin.log_text().lines() {
        let Some((_, request)) = line.split_once("\"GET ") else { continue };
        let Some((path, rest)) = request.split_once(" HTTP/1.1\" ") else { continue };
        if rest.starts_with("200") {
            *gets.entry(path.split('?').next().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    gets
}

#[track_caller]
fn expect_one_get_each(gets: &HashMap<String, usize>, image: &Image) {
    let repository = format!("/v2/org/{}", image.name);
    let count = |path: String| gets.get(&path).copied().unwrap_or_default();
    for blob in &image.blobs {
        let found = count(format!("{repository}/blobs/{}", blob.digest));
        assert_eq!(found, 1, "{} {}: {gets:#?}", image.name, blob.digest);
    }
    for (manifest, tag) in &image.manifests {
        let names = tag.iter().chain([&manifest.digest]);
        let found: usize = names.map(|n| count(format!("{repository}/manifests/{n}"))).sum();
        assert_eq!(found, 1, "{} {}: {gets:#?}", image.name, manifest.digest);
    }
}

#[test]
fn real_clients_through_two_to_an_origin_with_tokens() {
    let scratch = Scratch::new("chain");
    let tokens = TokenServer::start();
    tokens.conduct(|c| c.credentials = Some((USER.to_owned(), PASSWORD.to_owned())));
    let content = [images::forty(), images::two_platforms()];
    let Some(open) = Origin::with_images(&scratch, "store", "org/", &content) else { return };
    let Some(origin) = Origin::start_logged(&scratch, open.storage(), &Access::Token(&tokens))
    else {
        return;
    };
    let Some(containerd) = Containerd::start(&scratch) else { return };
    let setup = Setup::new("chain-far");
    let password = setup.scratch().secret("password", PASSWORD);
    let declared = Upstream::new(NS, &origin.url())
        .set(&format!("token_realms = [\"{}\"]", tokens.realm_host()))
        .set(&format!("username = \"{USER}\""))
        .set(&format!("password_file = \"{}\"", password.display()));
    let far = setup.upstream(declared).start();
    let near = Setup::new("chain-near").upstream(mirror_at(far.addr)).start();
    containerd.mirror_everything(&near.url());
    let clients = ContainersImage::new(&scratch);
    clients.mirrors(&[(NS, &format!("127.0.0.1:{}/{NS}", near.addr.port()))]);

    let by_ctr = |image: &Image| {
        let reference = format!("{NS}/org/{}:latest", image.name);
        let ran = containerd.fetch(&reference);
        assert!(ran.ok(), "{reference}: {}{}", ran.stdout, ran.stderr);
        assert_eq!(containerd.digest_of(&reference), image.root().digest);
    };
    let by_skopeo = |image: &Image| {
        let reference = format!("{NS}/org/{}:latest", image.name);
        let (ran, folder) = clients.skopeo_copy(&reference, image.name)?;
        assert!(ran.ok(), "{reference}: {}", ran.stderr);
        let manifest = std::fs::read(folder.join("manifest.json")).unwrap();
        assert_eq!(images::sha256(&manifest), image.root().digest);
        for blob in &image.blobs {
            let bytes = std::fs::read(folder.join(blob.digest.trim_start_matches("sha256:")));
            assert!(bytes.unwrap() == blob.bytes, "{} {}", image.name, blob.digest);
        }
        Some(())
    };
    // Each image is cold for one client and warm for the other.
    by_ctr(&content[0]);
    if by_skopeo(&content[1]).is_none() {
        return;
    }
    by_ctr(&content[1]);
    by_skopeo(&content[0]);
    let gets = origin_gets(&origin);
    content.iter().for_each(|image| expect_one_get_each(&gets, image));
    support::tell(&format!(
        "chain: 2 images, {} contents, by ctr and skopeo: {} GETs answered by the origin",
        content.iter().map(|i| i.blobs.len() + i.manifests.len()).sum::<usize>(),
        gets.values().sum::<usize>(),
    ));
    for server in [&near, &far] {
        server.assert_store_is_right();
        assert!(!server.log_text().contains(PASSWORD), "the password is in the log");
        assert_eq!(loops(server), 0.0);
    }
}
