//! Plugins in a running server: bytes are pulled through routes that a loaded file decided.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod plugin_support;
mod support;

use plugin_support::{Installed, plugin_entry};
use support::images::{OCI_MANIFEST, random_bytes};
use support::lying::LyingUpstream;
use support::rig::manifest;
use support::server::{Setup, Upstream};

#[test]
fn a_c_plugin_in_front_of_the_standard_resolver() {
    let corp = LyingUpstream::start();
    let blob = random_bytes("through the plugin", 300_000);
    let digest = corp.add_blob("ghcr/org/app", &blob);
    let body = manifest("corporate");
    let tagged = corp.add_manifest("ghcr/org/app", "v1", OCI_MANIFEST, &body);
    let plugin = Installed::compiled("minimal-c/minimal.c", "0");
    let server = Setup::new("plugin-serve")
        .upstream(Upstream::new("registry.corp", &corp.url()))
        .routing("resolvers = [\"corp\", \"standard\"]\nhosted = [\"*\"]")
        .more(&plugin_entry("corp", &plugin.path, ""))
        .start();

    let answer = server.get("/v2/org/app/manifests/v1?ns=ghcr.io");
    assert_eq!((answer.status(), answer.body.as_slice()), (200, body.as_slice()));
    assert_eq!(answer.header("docker-content-digest"), tagged);
    assert_eq!(answer.header("oci-namespace"), "ghcr.io");
    let answer = server.get(&format!("/v2/org/app/blobs/{digest}?ns=ghcr.io"));
    assert!(answer.body == blob, "{:?}", answer.head);
    // What it declines, the standard resolver answers; what it denies, nobody does.
    let direct = server.get("/v2/ghcr/org/app/manifests/v1?ns=registry.corp");
    assert_eq!((direct.status(), direct.body.as_slice()), (200, body.as_slice()));
    let denied = server.get("/v2/a/b/manifests/v1?ns=quay.io");
    assert_eq!(denied.status(), 403, "{}", denied.text());
    assert!(denied.text().contains("ask the platform team"), "{}", denied.text());
    assert_eq!(server.get("/v2/a/b/manifests/v1?ns=else.example").status(), 404);
}

#[test]
fn the_standard_resolver_as_a_file_replaces_the_one_linked_in() {
    let upstream = LyingUpstream::start();
    let body = manifest("the same");
    upstream.add_manifest("org/app", "v1", OCI_MANIFEST, &body);
    let plugin = Installed::built("ringport_plugin_standard");
    let server = Setup::new("plugin-standard")
        .upstream(Upstream::new("lying.example", &upstream.url()))
        .routing("resolvers = [\"outside\"]\nhosted = [\"*\"]")
        .more(&plugin_entry("outside", &plugin.path, "hosted = [\"*\"]"))
        .start();
    for target in
        ["/v2/org/app/manifests/v1?ns=lying.example", "/v2/lying.example/org/app/manifests/v1"]
    {
        let answer = server.get(target);
        assert_eq!((answer.status(), answer.body.as_slice()), (200, body.as_slice()), "{target}");
    }
    assert_eq!(upstream.requests(), 1, "one upstream, one cache key");
    assert_eq!(server.get("/v2/org/app/manifests/v1?ns=other.example").status(), 404);
    let log = server.log_text();
    assert!(log.contains("plugin=outside") && !log.contains("linked in"), "{log}");
}
