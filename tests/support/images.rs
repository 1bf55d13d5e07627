//! Images built from nothing, byte for byte the same on every run, and their push into an origin.

use super::http;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::OnceLock;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
pub const ARTIFACT_TYPE: &str = "application/vnd.example.report.v1";
pub const SBOM_TYPE: &str = "application/vnd.example.sbom.v1";

/// Every manifest type, as one Accept value.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// Bytes under their digest.
#[derive(Clone)]
pub struct Content {
    /// `sha256:<hex>`.
    pub digest: String,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What the descriptor calls them.
    pub media_type: &'static str,
}

impl Content {
    /// Names bytes by their sha256.
    pub fn new(media_type: &'static str, bytes: Vec<u8>) -> Content {
        Content { digest: sha256(&bytes), bytes, media_type }
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

/// An image as a registry stores it.
#[derive(Clone)]
pub struct Image {
    /// The last segment of its repository.
    pub name: &'static str,
    /// Configs and layers.
    pub blobs: Vec<Content>,
    /// Manifests and indexes, referenced before referring; each with the tag it gets, if any.
    pub manifests: Vec<(Content, Option<String>)>,
}

impl Image {
    /// What the tag `latest` names.
    pub fn root(&self) -> &Content {
        self.tagged("latest")
    }

    /// What a tag names.
    pub fn tagged(&self, tag: &str) -> &Content {
        let found = self.manifests.iter().find(|(_, t)| t.as_deref() == Some(tag));
        &found.unwrap_or_else(|| panic!("{} has no tag {tag}", self.name)).0
    }

    /// Pushes it to `/v2/<prefix><name>` of an open registry.
    pub fn push(&self, addr: SocketAddr, prefix: &str) {
        let repository = format!("{prefix}{}", self.name);
        for blob in &self.blobs {
            push_blob(addr, &repository, blob);
        }
        for (manifest, tag) in &self.manifests {
            let reference = tag.as_deref().unwrap_or(&manifest.digest);
            let target = format!("/v2/{repository}/manifests/{reference}");
            let answer =
                http::send_body(addr, "PUT", &target, manifest.media_type, &manifest.bytes);
            assert_eq!(answer.status(), 201, "PUT {target}: {}", answer.text());
            assert_eq!(answer.header("docker-content-digest"), manifest.digest, "PUT {target}");
        }
    }
}

fn push_blob(addr: SocketAddr, repository: &str, blob: &Content) {
    let start = format!("/v2/{repository}/blobs/uploads/");
    let begun = http::send_body(addr, "POST", &start, "application/octet-stream", b"");
    assert_eq!(begun.status(), 202, "POST {start}: {}", begun.text());
    let location = begun.header("location");
    let path = location.find("/v2/").map_or(location, |at| &location[at..]);
    let joint = if path.contains('?') { '&' } else { '?' };
    let target = format!("{path}{joint}digest={}", blob.digest);
    let done = http::send_body(addr, "PUT", &target, "application/octet-stream", &blob.bytes);
    assert_eq!(done.status(), 201, "PUT {target}: {}", done.text());
}

/// The five images of the test matrix, built once a process.
pub fn all() -> &'static [Image; 5] {
    static ALL: OnceLock<[Image; 5]> = OnceLock::new();
    ALL.get_or_init(|| [three5m(), forty(), two_platforms(), docker_v2(), artifact()])
}

/// Three layers of 5 MiB that do not compress.
pub fn three5m() -> Image {
    let layers: Vec<_> = (0..3).map(|n| Layer::new(&format!("three5m-{n}"), 5 << 20)).collect();
    single("three5m", &layers, "amd64")
}

/// Forty small layers.
pub fn forty() -> Image {
    let layers: Vec<_> = (0..40).map(|n| Layer::new(&format!("forty-{n}"), 2000)).collect();
    single("forty", &layers, "amd64")
}

/// Eight small layers, for those that push many at a time.
pub fn eight() -> Image {
    let layers: Vec<_> = (0..8).map(|n| Layer::new(&format!("eight-{n}"), 20_000)).collect();
    single("eight", &layers, "amd64")
}

/// An OCI index of linux/amd64 and linux/arm64.
pub fn two_platforms() -> Image {
    listed("twoplatforms", OCI_INDEX, OCI_MANIFEST, OCI_CONFIG, OCI_LAYER)
}

/// A Docker manifest list (`latest`) of schema 2 manifests; `single` is the one for amd64.
pub fn docker_v2() -> Image {
    listed("dockerv2", DOCKER_LIST, DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER)
}

/// An OCI artifact without a runnable config, and an SBOM that refers to it by `subject`, listed
/// under the tag `sha256-<hex>` as the spec wants it of registries without the referrers API.
pub fn artifact() -> Image {
    let empty = Content::new(OCI_EMPTY, b"{}".to_vec());
    let report = Content::new("text/plain", b"all is well\n".repeat(100));
    let sbom = Content::new("application/spdx+json", b"{\"spdxVersion\":\"SPDX-2.3\"}".to_vec());
    let root = manifest(OCI_MANIFEST, &empty, std::slice::from_ref(&report), |m| {
        m["artifactType"] = json!(ARTIFACT_TYPE);
    });
    let subject = root.descriptor();
    let referrer = manifest(OCI_MANIFEST, &empty, std::slice::from_ref(&sbom), |m| {
        m["artifactType"] = json!(SBOM_TYPE);
        m["subject"] = subject;
        m["annotations"] = json!({"org.example.made": "by the tests"});
    });
    let mut listed = referrer.descriptor();
    listed["artifactType"] = json!(SBOM_TYPE);
    listed["annotations"] = json!({"org.example.made": "by the tests"});
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [listed]});
    let index = Content::new(OCI_INDEX, index.to_string().into_bytes());
    let fallback = root.digest.replace(':', "-");
    Image {
        name: "artifact",
        blobs: vec![empty, report, sbom],
        manifests: vec![
            (root, Some("latest".to_owned())),
            (referrer, None),
            (index, Some(fallback)),
        ],
    }
}

struct Layer {
    bytes: Vec<u8>,
    diff_id: String,
}

impl Layer {
    /// One file of `size` random bytes, named `name`, as tar in gzip.
    fn new(name: &str, size: usize) -> Layer {
        let mut header = tar::Header::new_gnu();
        header.set_size(size as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_entry_type(tar::EntryType::Regular);
        let mut archive = tar::Builder::new(Vec::new());
        let data = random_bytes(name, size);
        archive.append_data(&mut header, name, data.as_slice()).expect("a tar in memory");
        let plain = archive.into_inner().expect("a tar in memory");
        let diff_id = sha256(&plain);
        // Level 0: the data does not compress, and an unoptimised deflate would take seconds.
        let mut gzip = flate2::GzBuilder::new()
            .mtime(0)
            .write(Vec::with_capacity(plain.len()), flate2::Compression::none());
        std::io::Write::write_all(&mut gzip, &plain).expect("gzip in memory");
        Layer { bytes: gzip.finish().expect("gzip in memory"), diff_id }
    }
}

fn config(layers: &[Layer], architecture: &str, media_type: &'static str) -> Content {
    let diff_ids: Vec<&str> = layers.iter().map(|l| l.diff_id.as_str()).collect();
    let history: Vec<Value> = layers.iter().map(|_| json!({"created_by": "tests"})).collect();
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {"Cmd": ["/none"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": history,
    });
    Content::new(media_type, config.to_string().into_bytes())
}

fn manifest(
    media_type: &'static str,
    config: &Content,
    layers: &[Content],
    amend: impl FnOnce(&mut Value),
) -> Content {
    let layers: Vec<Value> = layers.iter().map(Content::descriptor).collect();
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": media_type,
        "config": config.descriptor(), "layers": layers,
    });
    amend(&mut manifest);
    Content::new(media_type, manifest.to_string().into_bytes())
}

fn single(name: &'static str, layers: &[Layer], architecture: &str) -> Image {
    let config = config(layers, architecture, OCI_CONFIG);
    let contents: Vec<Content> =
        layers.iter().map(|l| Content::new(OCI_LAYER, l.bytes.clone())).collect();
    let root = manifest(OCI_MANIFEST, &config, &contents, |_| {});
    let mut blobs = contents;
    blobs.push(config);
    Image { name, blobs, manifests: vec![(root, Some("latest".to_owned()))] }
}

fn listed(
    name: &'static str,
    list_type: &'static str,
    manifest_type: &'static str,
    config_type: &'static str,
    layer_type: &'static str,
) -> Image {
    let mut blobs = Vec::new();
    let mut manifests = Vec::new();
    let mut entries = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let layers = [Layer::new(&format!("{name}-{architecture}"), 100_000)];
        let config = config(&layers, architecture, config_type);
        let layer = Content::new(layer_type, layers[0].bytes.clone());
        let one = manifest(manifest_type, &config, std::slice::from_ref(&layer), |_| {});
        let mut entry = one.descriptor();
        entry["platform"] = json!({"architecture": architecture, "os": "linux"});
        entries.push(entry);
        blobs.extend([config, layer]);
        manifests.push((one, (architecture == "amd64").then(|| "single".to_owned())));
    }
    let list = json!({"schemaVersion": 2, "mediaType": list_type, "manifests": entries});
    let list = Content::new(list_type, list.to_string().into_bytes());
    manifests.push((list, Some("latest".to_owned())));
    Image { name, blobs, manifests }
}

/// `sha256:<hex>` of the bytes.
pub fn sha256(bytes: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    format!("sha256:{}", hex(hash.as_ref()))
}

/// `sha512:<hex>` of the bytes.
pub fn sha512(bytes: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA512, bytes);
    format!("sha512:{}", hex(hash.as_ref()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// `size` bytes that do not compress, the same for the same `seed`.
pub fn random_bytes(seed: &str, size: usize) -> Vec<u8> {
    let start = ring::digest::digest(&ring::digest::SHA256, seed.as_bytes());
    let first: [u8; 8] = start.as_ref()[..8].try_into().expect("eight bytes of a digest");
    let mut state = u64::from_le_bytes(first) | 1;
    let mut out = Vec::with_capacity(size + 8);
    while out.len() < size {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        out.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    out.truncate(size);
    out
}
