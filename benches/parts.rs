//! What the parts of an answer cost by themselves: reading a request's head, checking a manifest,
//! digests. The decision and the look-up have benches of their own, `resolve` and `index_lookup`.
//!
//! `cargo bench --bench parts`

#![allow(clippy::expect_used)]

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringport::http::{Parsed, RequestHead};
use ringport::oci::{Algorithm, Digest, Endpoint, Manifest, media_type};

/// What containerd 2 asks for a manifest with.
const CONTAINERD: &str = "GET /v2/library/alpine/manifests/\
    sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\
    ?ns=docker.io HTTP/1.1\r\n\
    Host: 127.0.0.1:5000\r\n\
    User-Agent: containerd/2.1.4\r\n\
    Accept: application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*\r\n\
    Accept-Encoding: gzip\r\n\r\n";
/// The least that a client can ask with.
const BARE: &str = "GET /v2/ HTTP/1.1\r\nHost: 127.0.0.1:5000\r\n\r\n";

fn heads(c: &mut Criterion) {
    let mut group = c.benchmark_group("request head");
    for (name, text) in [("containerd, a manifest", CONTAINERD), ("the bare least", BARE)] {
        let whole = RequestHead::parse(text.as_bytes()).expect("a good head");
        assert!(matches!(whole, Parsed::Complete { .. }), "the whole head is there");
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| black_box(RequestHead::parse(black_box(text.as_bytes()))));
        });
    }
    group.finish();
}

fn digest_of(n: u64) -> Digest {
    Digest::of(Algorithm::Sha256, &n.to_le_bytes())
}

fn image_manifest(layers: u64) -> String {
    let descriptor = |media_type: &str, n: u64| {
        format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#, digest_of(n), n + 1)
    };
    let layer = |n| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", n);
    let layers: Vec<String> = (1..=layers).map(layer).collect();
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]}}"#,
        media_type::OCI_MANIFEST,
        descriptor("application/vnd.oci.image.config.v1+json", 0),
        layers.join(","),
    )
}

const ABOUT: &str = r#""platform":{"architecture":"arm64","os":"linux","variant":"v8"},
    "annotations":{"com.docker.official-images.bashbrew.arch":"arm64v8",
    "org.opencontainers.image.created":"2026-07-15T18:12:08Z",
    "org.opencontainers.image.version":"3.22.1"}"#;

/// An index as official images have them: each platform's image and what attests it.
fn index(platforms: u64) -> String {
    let mut manifests = String::new();
    for n in 0..platforms {
        let comma = if n == 0 { "" } else { "," };
        write!(
            manifests,
            r#"{comma}{{"mediaType":"{}","digest":"{}","size":1025,{ABOUT}}}"#,
            media_type::OCI_MANIFEST,
            digest_of(n),
        )
        .expect("a text takes what is written");
    }
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{manifests}]}}"#,
        media_type::OCI_INDEX
    )
}

fn manifests(c: &mut Criterion) {
    let mut group = c.benchmark_group("manifest check");
    let documents = [
        ("image, 8 layers", image_manifest(8), media_type::OCI_MANIFEST),
        ("image, 100 layers", image_manifest(100), media_type::OCI_MANIFEST),
        ("index, 16 entries", index(16), media_type::OCI_INDEX),
    ];
    for (name, text, media_type) in &documents {
        Manifest::check(text.as_bytes(), media_type).expect("a good manifest");
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(*name, |b| {
            b.iter(|| black_box(Manifest::check(black_box(text.as_bytes()), media_type)));
        });
    }
    group.finish();
}

/// Which of sha2's implementations runs here, by the features that sha2 itself goes by.
fn sha256_by() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1") {
        return "SHA-NI";
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("sha2") {
        return "ARMv8 SHA2";
    }
    "no instructions of its own"
}

fn digests(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("SHA-256 by {}", sha256_by()));
    for (name, length) in [("4 KiB", 4096), ("1 MiB", 1 << 20)] {
        let content = vec![0x5a; length];
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(name, |b| {
            b.iter(|| black_box(Digest::of(Algorithm::Sha256, black_box(&content))));
        });
    }
    group.finish();
}

fn endpoints(c: &mut Criterion) {
    let path = "/v2/library/alpine/manifests/\
        sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let parse = |path| Endpoint::parse(true, path, Some("ns=docker.io"));
    parse(path).expect("an endpoint");
    c.bench_function("path to endpoint", |b| {
        b.iter(|| black_box(parse(black_box(path))));
    });
}

criterion_group!(benches, heads, endpoints, manifests, digests);
criterion_main!(benches);
