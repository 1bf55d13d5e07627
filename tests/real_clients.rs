//! Real clients pull real images from real registries: ctr, skopeo, podman and curl, by every way
//! in, cold, warm, after a restart and with the upstreams gone; and from origins behind basic
//! auth, tokens and a private CA. Digests are compared with the origin's own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::os::unix::fs::PermissionsExt;
use support::clients::{Containerd, ContainersImage, curl};
use support::http;
use support::images::{self, ACCEPT, Image};
use support::origin::{Access, Origin, PASSWORD, PrivateCa, USER};
use support::scratch::Scratch;
use support::secs;
use support::server::{Server, Setup, Upstream};
use support::token_server::TokenServer;

/// The two registries that are mirrored: namespace, and the prefix of its repositories.
const REGISTRIES: [(&str, &str); 2] = [("docker.io", "library/"), ("ghcr.example", "org/")];

/// Two open origins with the five images each, and a Ringport in front of both.
struct Mirrored {
    origins: Vec<Origin>,
    server: Server,
    scratch: Scratch,
}

impl Mirrored {
    fn start(what: &str) -> Option<Mirrored> {
        let scratch = Scratch::new(what);
        let mut setup = Setup::new(what).routing("default_upstream = \"docker.io\"");
        let mut origins = Vec::new();
        for (namespace, prefix) in REGISTRIES {
            let origin = Origin::with_images(&scratch, namespace, prefix, images::all())?;
            let declared = Upstream::new(namespace, &origin.url())
                .set("tag_ttl = \"1s\"")
                .set("stale_max = \"1h\"");
            setup = setup.upstream(declared);
            origins.push(origin);
        }
        Some(Mirrored { origins, server: setup.start(), scratch })
    }

    /// Runs `pull_all` cold, warm, after a restart, and with both origins gone.
    fn through_all_phases(&mut self, mut pull_all: impl FnMut(&Mirrored, &str)) {
        pull_all(self, "cold");
        self.server.await_empty_staging(secs(10));
        self.server.assert_store_is_right();
        pull_all(self, "warm");
        self.server.restart();
        pull_all(self, "restarted");
        for origin in &mut self.origins {
            origin.stop();
        }
        pull_all(self, "upstreams gone");
    }

    fn port(&self) -> u16 {
        self.server.addr.port()
    }
}

fn each_image() -> impl Iterator<Item = (&'static str, &'static str, &'static Image)> {
    REGISTRIES.into_iter().flat_map(|(namespace, prefix)| {
        images::all().iter().map(move |image| (namespace, prefix, image))
    })
}

#[test]
fn ctr_with_only_a_default_hosts_file() {
    let Some(mut mirrored) = Mirrored::start("ctr") else { return };
    let Some(containerd) = Containerd::start(&mirrored.scratch) else { return };
    containerd.mirror_everything(&mirrored.server.url());
    mirrored.through_all_phases(|_, phase| {
        containerd.forget_everything();
        for (namespace, prefix, image) in each_image() {
            let reference = format!("{namespace}/{prefix}{}:latest", image.name);
            // An artifact has nothing to unpack.
            let ran = match image.name {
                "artifact" => containerd.fetch(&reference),
                _ => containerd.pull(&reference),
            };
            assert!(ran.ok(), "{phase}: {reference}: {}{}", ran.stdout, ran.stderr);
            assert_eq!(containerd.digest_of(&reference), image.root().digest, "{phase}");
        }
    });
}

#[test]
fn skopeo_by_path_prefix_and_by_mirror_entry() {
    let Some(mut mirrored) = Mirrored::start("skopeo") else { return };
    let clients = ContainersImage::new(&mirrored.scratch);
    let port = mirrored.port();
    let prefixed = format!("127.0.0.1:{port}/ghcr.example");
    let default = format!("127.0.0.1:{port}");
    clients.mirrors(&[("docker.io", &default), ("ghcr.example", &prefixed)]);
    mirrored.through_all_phases(|_, phase| {
        for (namespace, prefix, image) in each_image() {
            let name = format!("{prefix}{}:latest", image.name);
            for (way, reference) in [
                ("mirror", format!("{namespace}/{name}")),
                ("prefix", format!("127.0.0.1:{port}/{namespace}/{name}")),
                ("proxy", format!("127.0.0.1:{port}/proxy/{namespace}/{name}")),
            ] {
                // Each way is a pull of its own while cold; later the bytes are the same.
                if way == "proxy" && phase != "cold" {
                    continue;
                }
                let folder = format!("{way}-{namespace}-{}", image.name);
                let Some((ran, folder)) = clients.skopeo_copy(&reference, &folder) else { return };
                assert!(ran.ok(), "{phase}: {reference}: {}", ran.stderr);
                expect_exactly(image, &folder, &format!("{phase} {way}"));
                std::fs::remove_dir_all(&folder).unwrap();
            }
        }
    });
}

/// A folder that skopeo wrote holds the image's root manifest and every blob.
#[track_caller]
fn expect_exactly(image: &Image, folder: &std::path::Path, what: &str) {
    let manifest = std::fs::read(folder.join("manifest.json")).unwrap();
    assert_eq!(images::sha256(&manifest), image.root().digest, "{what}: {}", image.name);
    // Referrers are no part of a copy.
    let of_root = image.blobs.iter().filter(|blob| {
        image.name != "artifact" || String::from_utf8_lossy(&manifest).contains(&blob.digest)
    });
    for blob in of_root {
        let file = folder.join(blob.digest.trim_start_matches("sha256:"));
        let bytes = std::fs::read(&file).unwrap_or_else(|e| panic!("{what}: {file:?}: {e}"));
        assert!(bytes == blob.bytes, "{what}: {} {}", image.name, blob.digest);
    }
}

#[test]
fn podman_by_path_prefix_and_by_mirror_entry() {
    let Some(mut mirrored) = Mirrored::start("podman") else { return };
    let clients = ContainersImage::new(&mirrored.scratch);
    let port = mirrored.port();
    let prefixed = format!("127.0.0.1:{port}/ghcr.example");
    let default = format!("127.0.0.1:{port}");
    clients.mirrors(&[("docker.io", &default), ("ghcr.example", &prefixed)]);
    mirrored.through_all_phases(|_, phase| {
        if clients.podman_forget().is_none() {
            return;
        }
        for (namespace, prefix, image) in each_image() {
            // podman 4.3.1 can not keep what has no image config.
            if image.name == "artifact" {
                continue;
            }
            let name = format!("{prefix}{}:latest", image.name);
            // One registry by its mirror entry, the other by prefix, and the other way round.
            let by_mirror = (namespace == "docker.io") == matches!(phase, "cold" | "restarted");
            let reference = match by_mirror {
                true => format!("{namespace}/{name}"),
                false => format!("127.0.0.1:{port}/{namespace}/{name}"),
            };
            let ran = clients.podman_pull(&reference).expect("podman, as before");
            assert!(ran.ok(), "{phase}: {reference}: {}", ran.stderr);
            let kept = clients.podman_digests(&reference).expect("podman, as before");
            assert!(kept.contains(&image.root().digest), "{phase}: {reference}: {kept}");
        }
    });
}

#[test]
fn curl_by_ns_header_path_and_default() {
    let Some(mut mirrored) = Mirrored::start("curl") else { return };
    let accept = format!("Accept: {ACCEPT}");
    mirrored.through_all_phases(|mirrored, phase| {
        for (namespace, prefix, image) in each_image() {
            let repository = format!("{prefix}{}", image.name);
            let url = mirrored.server.url();
            let header = format!("X-Dragonfly-Registry: https://{namespace}");
            let tail = "manifests/latest";
            let mut ways = vec![
                ("ns", None, format!("{url}/v2/{repository}/{tail}?ns={namespace}")),
                ("header", Some(header), format!("{url}/v2/{repository}/{tail}")),
                ("path", None, format!("{url}/v2/{namespace}/{repository}/{tail}")),
            ];
            if namespace == "docker.io" {
                ways.push(("default", None, format!("{url}/v2/{repository}/{tail}")));
                // Docker Hub's short names.
                ways.push(("short", None, format!("{url}/v2/{}/{tail}", image.name)));
                let alias = format!("{url}/v2/{repository}/{tail}?ns=registry-1.docker.io");
                ways.push(("alias", None, alias));
            }
            for (way, header, url) in ways {
                let mut arguments = vec!["--header", &accept];
                if let Some(header) = &header {
                    arguments.extend(["--header", header]);
                }
                let Some((status, head, body)) = curl(&mirrored.scratch, &arguments, &url) else {
                    return;
                };
                assert_eq!(status, 200, "{phase} {way} {url}: {head}");
                assert!(body == image.root().bytes, "{phase} {way} {url}");
                let digest = format!("docker-content-digest: {}\r\n", image.root().digest);
                assert!(head.to_ascii_lowercase().contains(&digest), "{phase} {way}: {head}");
            }
            expect_all_content(&mirrored.server, namespace, &repository, image, phase);
        }
    });
}

/// Every manifest and blob of an image, by digest, through one server.
#[track_caller]
fn expect_all_content(
    server: &Server,
    namespace: &str,
    repository: &str,
    image: &Image,
    what: &str,
) {
    for (manifest, tag) in &image.manifests {
        for reference in tag.iter().chain([&manifest.digest]) {
            let target = format!("/v2/{repository}/manifests/{reference}?ns={namespace}");
            let answer = server.get(&target);
            assert_eq!(answer.status(), 200, "{what} {target}: {}", answer.text());
            assert!(answer.body == manifest.bytes, "{what} {target}");
            assert_eq!(answer.header("content-type"), manifest.media_type, "{what} {target}");
        }
    }
    for blob in &image.blobs {
        let target = format!("/v2/{repository}/blobs/{}?ns={namespace}", blob.digest);
        let answer = server.get(&target);
        assert_eq!(answer.status(), 200, "{what} {target}: {}", answer.text());
        assert!(answer.body == blob.bytes, "{what} {target}");
    }
}

#[test]
fn tags_and_referrers_of_a_real_origin() {
    let Some(mirrored) = Mirrored::start("relay") else { return };
    let tags = mirrored.server.get("/v2/org/dockerv2/tags/list?ns=ghcr.example");
    assert_eq!(tags.status(), 200, "{}", tags.text());
    assert_eq!(tags.json()["tags"], serde_json::json!(["latest", "single"]));
    // 2.8.2 has no referrers API: they come from the tag sha256-<hex>.
    let image = images::artifact();
    let target = format!("/v2/org/artifact/referrers/{}?ns=ghcr.example", image.root().digest);
    let referrers = mirrored.server.get(&target);
    assert_eq!(referrers.status(), 200, "{}", referrers.text());
    let listed = &referrers.json()["manifests"];
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed[0]["digest"], image.manifests[1].0.digest);
    assert_eq!(listed[0]["artifactType"], images::SBOM_TYPE);
}

/// Two images behind a guard, and a Ringport that has what it takes to get in.
fn behind(
    what: &str,
    access: &Access<'_>,
    declare: impl FnOnce(&Setup, Upstream) -> Upstream,
) -> Option<(Scratch, Origin, Server)> {
    let scratch = Scratch::new(what);
    let content = [images::forty(), images::artifact()];
    let open = Origin::with_images(&scratch, "store", "org/", &content)?;
    let guarded = Origin::start(&scratch, open.storage(), access)?;
    let setup = Setup::new(what);
    let upstream = declare(&setup, Upstream::new("guarded.example", &guarded.url()));
    Some((scratch, guarded, setup.upstream(upstream).start()))
}

fn credentials(setup: &Setup, upstream: Upstream) -> Upstream {
    let file = setup.scratch().file("password", PASSWORD);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    upstream
        .set(&format!("username = \"{USER}\""))
        .set(&format!("password_file = \"{}\"", file.display()))
}

fn expect_both(server: &Server, what: &str) {
    for image in [images::forty(), images::artifact()] {
        let repository = format!("org/{}", image.name);
        expect_all_content(server, "guarded.example", &repository, &image, what);
    }
    assert!(!server.log_text().contains(PASSWORD), "the password is in the log");
}

#[test]
fn an_origin_behind_basic_auth() {
    let Some((_scratch, origin, server)) = behind("basic", &Access::Basic, credentials) else {
        return;
    };
    let straight = http::get(origin.addr(), "/v2/org/forty/manifests/latest");
    assert_eq!(straight.status(), 401, "the origin is guarded");
    expect_both(&server, "basic");
    assert!(!origin.log_text().contains(PASSWORD));
}

#[test]
fn an_origin_behind_tokens_anonymous_and_signed_in() {
    for signed_in in [false, true] {
        let tokens = TokenServer::start();
        if signed_in {
            tokens.conduct(|c| c.credentials = Some((USER.to_owned(), PASSWORD.to_owned())));
        }
        let realm = format!("token_realms = [\"{}\"]", tokens.realm_host());
        let declare = |setup: &Setup, upstream: Upstream| {
            let upstream = upstream.set(&realm);
            if signed_in { credentials(setup, upstream) } else { upstream }
        };
        let Some((_scratch, _origin, server)) = behind("token", &Access::Token(&tokens), declare)
        else {
            return;
        };
        expect_both(&server, "token");
        let asked = tokens.requests().len();
        assert!(asked <= 4, "{asked} token requests for two repositories");
    }
}

#[test]
fn tokens_that_die_are_renewed_before_a_client_notices() {
    let tokens = TokenServer::start();
    tokens.conduct(|c| {
        c.lifetime = secs(3);
        // docker-registry forgives 60 s; this makes a token die when it says so.
        c.backdated = true;
    });
    let realm = format!("token_realms = [\"{}\"]", tokens.realm_host());
    let declare = |_: &Setup, upstream: Upstream| upstream.set(&realm);
    let Some((_scratch, _origin, server)) = behind("expiry", &Access::Token(&tokens), declare)
    else {
        return;
    };
    let image = images::forty();
    let started = std::time::Instant::now();
    for blob in image.blobs.iter().take(30) {
        let target = format!("/v2/org/forty/blobs/{}?ns=guarded.example", blob.digest);
        let answer = server.get(&target);
        assert_eq!(answer.status(), 200, "{:?}: {}", started.elapsed(), answer.text());
        std::thread::sleep(support::ms(200));
    }
    let asked = tokens.requests().len();
    assert!((2..=12).contains(&asked), "{asked} token requests in {:?}", started.elapsed());
}

#[test]
fn an_origin_with_a_private_authority() {
    let ca = PrivateCa::new();
    let trust = |setup: &Setup, upstream: Upstream| {
        upstream.set(&format!("ca_file = \"{}\"", ca.write(setup.scratch()).display()))
    };
    let Some((_scratch, _origin, server)) = behind("tls", &Access::Tls(&ca), trust) else {
        return;
    };
    expect_both(&server, "tls");

    let stranger = PrivateCa::new();
    let distrust = |setup: &Setup, upstream: Upstream| {
        upstream.set(&format!("ca_file = \"{}\"", stranger.write(setup.scratch()).display()))
    };
    let Some((_scratch, _origin, server)) = behind("tls-wrong", &Access::Tls(&ca), distrust) else {
        return;
    };
    let answer = server.get("/v2/org/forty/manifests/latest?ns=guarded.example");
    assert_eq!(answer.status(), 502, "{}", answer.text());
}
