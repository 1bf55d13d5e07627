//! The plugin `policy` in a running server: what it denies is not fetched, what it rewrites comes
//! from elsewhere, and `explain` says the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod plugin_support;
mod support;

use std::process::Command;

use plugin_support::{Installed, plugin_entry};
use support::images::{OCI_MANIFEST, random_bytes};
use support::lying::LyingUpstream;
use support::process::run;
use support::rig::manifest;
use support::secs;
use support::server::{Server, Setup, Upstream};

const POLICY: &str = r#"
default_upstream = "docker.io"
hosted = ["team/*"]
[[plugin.config.access]]
action = "deny"
images = ["quay.io/*", "docker.io/evil/*"]
clients = ["10.0.0.0/8", "127.0.0.0/8"]
reason = "ask the platform team"
[[plugin.config.access]]
action = "deny"
images = ["ghcr.io/*"]
clients = ["10.0.0.0/8"]
[[plugin.config.rewrite]]
from = "docker.io/*"
to = "artifactory.corp/docker-remote/*"
[[plugin.config.tags]]
tags = ["v[0-9]*"]
immutable = true
[[plugin.config.tags]]
tags = ["daily"]
tag_ttl = "1d"
"#;

/// The registries behind it, and the mirror.
struct Rig {
    _plugin: Installed,
    hub: LyingUpstream,
    quay: LyingUpstream,
    ghcr: LyingUpstream,
    artifactory: LyingUpstream,
    server: Server,
}

fn rig(what: &str) -> Rig {
    let plugin = Installed::built("ringport_plugin_policy");
    let [hub, quay, ghcr, artifactory] = [(); 4].map(|()| LyingUpstream::start());
    let server = Setup::new(what)
        .upstream(Upstream::new("docker.io", &hub.url()))
        .upstream(Upstream::new("quay.io", &quay.url()))
        .upstream(Upstream::new("ghcr.io", &ghcr.url()).set("tag_ttl = \"0s\""))
        .upstream(Upstream::new("artifactory.corp", &artifactory.url()))
        .routing("resolvers = [\"policy\", \"standard\"]")
        .routing("default_upstream = \"docker.io\"\nhosted = [\"team/*\"]")
        .more(&plugin_entry("policy", &plugin.path, POLICY))
        .start();
    Rig { _plugin: plugin, hub, quay, ghcr, artifactory, server }
}

#[test]
fn what_is_denied_is_not_fetched_by_any_way() {
    let rig = rig("policy-deny");
    rig.quay.add_manifest("org/app", "v1", OCI_MANIFEST, &manifest("denied"));
    let ways = ["/v2/org/app/manifests/v1?ns=quay.io", "/v2/quay.io/org/app/manifests/v1"];
    for target in ways {
        for answer in [rig.server.get(target), rig.server.head(target), rig.server.get(target)] {
            assert_eq!(answer.status(), 403, "{target}: {}", answer.text());
        }
        let answer = rig.server.get(target);
        assert_eq!(answer.error_code(), "DENIED");
        let said = "quay.io/org/app is not allowed here: ask the platform team";
        assert!(answer.text().contains(said), "{}", answer.text());
    }
    assert_eq!(rig.quay.requests(), 0);
    // A name whose later part holds a dot names no registry: it is the default's like any other.
    for target in ["/v2/evil/tool.v1/manifests/v1", "/v2/docker.io/evil/tool.v1/manifests/v1"] {
        assert_eq!(rig.server.get(target).status(), 403, "{target}");
    }
    assert_eq!((rig.hub.requests(), rig.artifactory.requests()), (0, 0));
    // A rule for other clients does not count for this one.
    let body = manifest("allowed");
    rig.ghcr.add_manifest("org/app", "v1", OCI_MANIFEST, &body);
    let answer = rig.server.get("/v2/org/app/manifests/v1?ns=ghcr.io");
    assert_eq!((answer.status(), answer.body.as_slice()), (200, body.as_slice()));
}

#[test]
fn what_is_rewritten_comes_from_the_other_upstream() {
    let rig = rig("policy-rewrite");
    let (body, blob) = (manifest("rewritten"), random_bytes("rewritten", 200_000));
    let name = "docker-remote/library/alpine";
    rig.artifactory.add_manifest(name, "v3", OCI_MANIFEST, &body);
    let digest = rig.artifactory.add_blob(name, &blob);
    for target in [
        "/v2/library/alpine/manifests/v3?ns=docker.io",
        "/v2/alpine/manifests/v3?ns=index.docker.io",
        "/v2/docker.io/library/alpine/manifests/v3",
        "/v2/alpine/manifests/v3",
    ] {
        let answer = rig.server.get(target);
        assert_eq!((answer.status(), answer.body.as_slice()), (200, body.as_slice()), "{target}");
    }
    let answer = rig.server.get(&format!("/v2/alpine/blobs/{digest}"));
    assert!(answer.status() == 200 && answer.body == blob, "{:?}", answer.head);
    assert_eq!((rig.hub.requests(), rig.artifactory.requests()), (0, 2), "each once, from there");
    // Ours stay ours.
    assert_eq!(rig.server.get("/v2/team/app/manifests/v1").status(), 404);
    assert_eq!((rig.hub.requests(), rig.artifactory.requests()), (0, 2));
}

#[test]
fn a_tag_is_asked_for_as_often_as_its_rule_says() {
    let rig = rig("policy-tags");
    let asked = |tag: &str| {
        rig.ghcr.add_manifest("org/app", tag, OCI_MANIFEST, &manifest("a tag"));
        for _ in 0..3 {
            let answer = rig.server.get(&format!("/v2/org/app/manifests/{tag}?ns=ghcr.io"));
            assert_eq!(answer.status(), 200, "{tag}: {}", answer.text());
        }
        let path = format!("/v2/org/app/manifests/{tag}");
        rig.ghcr.seen().iter().filter(|seen| seen.request.path == path).count()
    };
    assert_eq!(asked("latest"), 3, "as its upstream says");
    assert_eq!(asked("v1.0"), 1, "immutable");
    assert_eq!(asked("daily"), 1, "tag_ttl");
}

#[test]
fn explain_says_what_the_server_does() {
    let rig = rig("policy-explain");
    let explain = |words: &[&str]| {
        let mut ringport = Command::new(env!("CARGO_BIN_EXE_ringport"));
        ringport.arg("explain").arg("--config").arg(rig.server.config()).args(words);
        run(ringport, secs(30)).expect_ok()
    };
    let said = explain(&["--ns", "docker.io", "GET", "/v2/alpine/manifests/v3"]);
    for line in [
        "resolver: policy answered",
        "rule: rewrite docker.io/* -> artifactory.corp/docker-remote/*; tags[0]: immutable",
        "upstream: artifactory.corp",
        "repository: docker-remote/library/alpine",
    ] {
        assert!(said.contains(line), "{line:?} is not in\n{said}");
    }
    // A rule for some clients is for these.
    let ghcr = ["--ns", "ghcr.io", "GET", "/v2/org/app/manifests/latest"];
    let said = explain(&ghcr);
    assert!(said.contains("resolver: standard answered"), "{said}");
    assert!(said.contains("\nclient: unknown (rules for addresses were not met)\n"), "{said}");
    let said = explain(&[&["--client", "10.1.2.3"], &ghcr[..]].concat());
    assert!(said.contains("resolver: policy refused\nrefusal: denied\n"), "{said}");
    assert!(said.contains("\nclient: 10.1.2.3\n"), "{said}");
    let asked = |client: &str| {
        let path = format!("/explain?path=/v2/org/app/manifests/latest&ns=ghcr.io{client}");
        support::http::get(rig.server.admin, &path)
    };
    assert!(asked("").text().contains("resolver: standard answered"));
    assert!(asked("&client=10.1.2.3").text().contains("refusal: denied"));
    let wrong = asked("&client=10.1.2");
    assert!(wrong.status() == 400 && wrong.text().contains("10.1.2 is no IP"), "{}", wrong.text());
    let said = explain(&["GET", "/v2/team/app/manifests/v3"]);
    assert!(said.contains("resolver: policy declined\nresolver: standard answered"), "{said}");
}
