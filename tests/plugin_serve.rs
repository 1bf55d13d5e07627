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

#[test]
fn a_named_credential_goes_to_its_upstream_only_and_what_it_sees_is_kept_apart() {
    let proxy = LyingUpstream::start();
    // team-a:team-a-secret
    proxy.require("Basic dGVhbS1hOnRlYW0tYS1zZWNyZXQ=", "Basic realm=\"x\"");
    let body = manifest("of team a");
    proxy.add_manifest("a", "v1", OCI_MANIFEST, &body);
    let hub = LyingUpstream::start();
    let plugin = Installed::built("ringport_plugin_faulty");
    let setup = Setup::new("plugin-credential");
    let password = setup.scratch().file("team-a.password", "team-a-secret\n");
    std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    let named = format!(
        "[[upstream.credential]]\nname = \"team-a\"\nusername = \"team-a\"\n\
         password_file = {password:?}"
    );
    let server = setup
        .upstream(Upstream::new("docker.io", &hub.url()).set("aliases = [\"hub.example\"]"))
        .upstream(Upstream::new("proxy.example", &proxy.url()).set("forward_ns = true").set(&named))
        .routing("resolvers = [\"p\", \"standard\"]\nhosted = [\"*\"]")
        .more(&plugin_entry("p", &plugin.path, ""))
        .start();
    let answer = server.get("/v2/faulty/credential/manifests/v1");
    assert_eq!((answer.status(), answer.body.as_slice()), (200, body.as_slice()));
    let asked = proxy.requests();
    assert_eq!(server.get("/v2/faulty/credential/manifests/v1").status(), 200);
    assert_eq!(proxy.requests(), asked, "known, to this login");
    // The same repository without the login: the upstream decides, and it refuses.
    let without = server.get("/v2/proxy.example/a/manifests/v1");
    assert!(without.status() != 200 && proxy.requests() > asked, "{}", without.text());
    // Both at once: the namespace is forwarded, under the login.
    assert_eq!(server.get("/v2/faulty/both-scopes/manifests/v1").status(), 200);
    let query = proxy.seen().last().expect("a request").request.query.clone();
    assert_eq!(query.as_deref(), Some("ns=docker.io"));
    let plain = server.get("/v2/faulty/forward/manifests/v1");
    assert_ne!(plain.status(), 200, "{}", plain.text());
    assert!(
        proxy.heard("dGVhbS1hOnRlYW0tYS1zZWNyZXQ=") && !hub.heard("dGVhbS1hOnRlYW0tYS1zZWNyZXQ=")
    );
    assert_eq!(server.metric("ringport_upstream_requests_total", &["#team-a"]), 0.0);
    let log = server.log_text();
    assert!(log.contains("proxy.example#team-a") && !log.contains("team-a-secret"), "{log}");
}
