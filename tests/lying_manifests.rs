//! An upstream that lies about a manifest: nothing is served or cached that is not exactly what
//! was asked for. A manifest is held whole before the first byte of it is sent, so each lie is a
//! clear gateway error.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use serde_json::json;
use support::http::Ending;
use support::images::{self, OCI_INDEX, OCI_MANIFEST};
use support::lying::{Answer, End};
use support::rig::{REPOSITORY, Rig, expect_gateway_error, manifest};
use support::{ms, secs};

const CAP: usize = 4 << 20;

/// Scripts every answer to the tag `v1` and to the digest of its manifest, asks for both, and
/// expects two gateway errors, an untouched store, and the right manifest when the lying ends.
#[track_caller]
fn refused(what: &str, lie: Answer) {
    let mut rig = Rig::new(what, 1000);
    let good = manifest(what);
    let digest = rig.upstream.add_manifest(REPOSITORY, "v1", OCI_MANIFEST, &good);
    for reference in ["v1", digest.as_str()] {
        rig.upstream.script("GET", &rig.manifest_path(reference), [lie.clone()]);
        let answer = rig.server.get(&rig.manifest_target(reference));
        expect_gateway_error(&answer, answer.status());
        assert_eq!(answer.ending, Ending::Complete);
    }
    rig.server.await_empty_staging(secs(10));
    assert_eq!(rig.server.blobs(), Vec::<std::path::PathBuf>::new(), "{what}: nothing is stored");
    rig.server.assert_alive();
    for reference in ["v1", digest.as_str()] {
        rig.upstream.script("GET", &rig.manifest_path(reference), [Answer::right()]);
        let answer = rig.server.get(&rig.manifest_target(reference));
        assert_eq!((answer.status(), &answer.body), (200, &good), "{what}: {}", answer.text());
        assert_eq!(answer.header("docker-content-digest"), digest);
    }
}

#[test]
fn a_sign_in_page_with_200() {
    refused("m-html", Answer::instead("text/html", "<html>sign in</html>"));
}

#[test]
fn json_that_is_no_manifest() {
    refused("m-list", Answer::right().bytes("[1, 2, 3]"));
}

#[test]
fn no_json_at_all() {
    refused("m-nojson", Answer::right().bytes(vec![0xff; 300]));
}

#[test]
fn a_content_type_that_is_no_manifest_type() {
    refused("m-plain", Answer::instead("text/plain", manifest("m-plain")));
}

#[test]
fn a_content_type_that_the_body_contradicts() {
    refused("m-type", Answer::instead(OCI_INDEX, manifest("m-type")));
}

#[test]
fn a_document_that_is_manifest_and_index_at_once() {
    let mut both: serde_json::Value = serde_json::from_slice(&manifest("m-both")).unwrap();
    both["manifests"] = json!([]);
    refused("m-both", Answer::instead(OCI_MANIFEST, both.to_string()));
}

#[test]
fn a_gzipped_body() {
    refused("m-gzip", Answer::right().header("Content-Encoding", "gzip"));
}

#[test]
fn a_body_that_is_cut() {
    refused("m-cut", Answer::right().ending(End::Fin(40)));
}

#[test]
fn a_body_that_is_reset() {
    refused("m-reset", Answer::right().ending(End::Reset(40)));
}

#[test]
fn a_body_that_stalls() {
    refused("m-stall", Answer::right().ending(End::Stall(40)));
}

#[test]
fn a_server_error() {
    refused("m-503", Answer::status(503));
}

#[test]
fn a_digest_header_that_the_body_contradicts() {
    let mut rig = Rig::new("m-header", 1000);
    rig.upstream.add_manifest(REPOSITORY, "v1", OCI_MANIFEST, &manifest("good"));
    // The right header, another body: as if two answers were mixed up.
    let lie = Answer::right().bytes(manifest("other"));
    rig.upstream.script("GET", &rig.manifest_path("v1"), [lie]);
    let answer = rig.server.get(&rig.manifest_target("v1"));
    expect_gateway_error(&answer, answer.status());
    assert_eq!(rig.server.blobs(), Vec::<std::path::PathBuf>::new());
    rig.server.assert_alive();
}

#[test]
fn other_bytes_under_a_digest() {
    let mut rig = Rig::new("m-digest", 1000);
    let digest = rig.upstream.add_manifest(REPOSITORY, "v1", OCI_MANIFEST, &manifest("good"));
    let lie = Answer::right().bytes(manifest("other")).without("Docker-Content-Digest");
    rig.upstream.script("GET", &rig.manifest_path(&digest), [lie]);
    let answer = rig.server.get(&rig.manifest_target(&digest));
    expect_gateway_error(&answer, answer.status());
    assert_eq!(rig.server.blobs(), Vec::<std::path::PathBuf>::new());
    rig.server.assert_alive();
}

/// A manifest of exactly `size` bytes.
fn of_size(size: usize) -> Vec<u8> {
    let bare = manifest("").len();
    let bytes = manifest(&"x".repeat(size - bare));
    assert_eq!(bytes.len(), size);
    bytes
}

#[test]
fn four_mib_are_taken_and_one_byte_more_is_not() {
    let mut rig = Rig::new("m-size", 1000);
    let largest = of_size(CAP);
    rig.upstream.add_manifest(REPOSITORY, "largest", OCI_MANIFEST, &largest);
    let answer = rig.server.get(&rig.manifest_target("largest"));
    assert_eq!((answer.status(), answer.body.len()), (200, CAP), "{}", answer.text());

    let digest = rig.upstream.add_manifest(REPOSITORY, "over", OCI_MANIFEST, &of_size(CAP + 1));
    for (reference, lie) in [
        ("over", Answer::right()),
        (digest.as_str(), Answer::right()),
        ("over", Answer::right().chunked()),
    ] {
        rig.upstream.script("GET", &rig.manifest_path(reference), [lie]);
        let answer = rig.server.get(&rig.manifest_target(reference));
        expect_gateway_error(&answer, answer.status());
    }
    assert!(!rig.server.has_blob(&digest));
    rig.server.await_empty_staging(secs(5));
    rig.server.assert_alive();
}

#[test]
fn an_endless_manifest_is_not_read_to_its_end() {
    let rig = Rig::new("m-endless", 1000);
    let bytes = vec![b' '; 64 << 20];
    let path = rig.manifest_path("endless");
    rig.upstream.add(&path, OCI_MANIFEST, &bytes, None);
    rig.upstream.script("GET", &path, [Answer::right().chunked().paced(256 << 10, ms(1))]);
    let answer = rig.server.get(&rig.manifest_target("endless"));
    expect_gateway_error(&answer, answer.status());
    let sent = rig.upstream.bytes_sent(&path);
    assert!(sent < 32 << 20, "{sent} bytes were taken for a manifest");
}

#[test]
fn media_type_and_bytes_come_back_as_the_upstream_stores_them() {
    let rig = Rig::new("m-exact", 1000);
    // Spaces and key order that no serialiser would keep, in each type that a manifest may have.
    for (tag, media_type, body) in [
        ("docker", images::DOCKER_MANIFEST, docker_text()),
        ("oci", OCI_MANIFEST, String::from_utf8(manifest("exact")).unwrap() + "\n\n"),
    ] {
        let digest = rig.upstream.add_manifest(REPOSITORY, tag, media_type, body.as_bytes());
        for reference in [tag, digest.as_str(), tag] {
            let answer = rig.server.get(&rig.manifest_target(reference));
            assert_eq!((answer.status(), answer.text()), (200, body.clone()), "{reference}");
            assert_eq!(answer.header("content-type"), media_type);
            assert_eq!(answer.header("docker-content-digest"), digest);
            assert_eq!(answer.header("etag"), format!("\"{digest}\""));
        }
    }
}

fn docker_text() -> String {
    let digest = images::sha256(b"config");
    format!(
        "{{\n   \"mediaType\": \"{}\",\n   \"schemaVersion\": 2,\n   \"layers\": [],\n   \
         \"config\": {{ \"size\": 6, \"digest\": \"{digest}\", \"mediaType\": \"{}\" }}\n}}",
        images::DOCKER_MANIFEST,
        images::DOCKER_CONFIG
    )
}
