//! What is pushed: blobs, and manifests that name them and each other, all from one seed.

use crate::support::chance::Chance;
use crate::support::images::{
    ARTIFACT_TYPE, DOCKER_CONFIG, DOCKER_LAYER, DOCKER_LIST, DOCKER_MANIFEST, OCI_CONFIG,
    OCI_EMPTY, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, SBOM_TYPE, random_bytes, sha256, sha512,
};
use serde_json::{Value, json};

/// Of nothing, within a page, about the sizes at which reads and writes are split, and more.
const SIZES: [usize; 12] =
    [0, 1, 2, 100, 4095, 4096, 65_536, 65_537, 100_000, 262_143, 300_000, 1_500_000];

/// All that a run can push.
pub struct Contents {
    /// Blobs, referred to by their place here.
    pub blobs: Vec<Blob>,
    /// Manifests; each names only earlier ones as its children.
    pub manifests: Vec<Manifest>,
}

/// Bytes and their name.
pub struct Blob {
    /// By sha256, some by sha512.
    pub digest: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// A manifest, and what it leads to.
pub struct Manifest {
    /// By sha256, some by sha512.
    pub digest: String,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// As its `Content-Type` must be.
    pub media_type: &'static str,
    /// The blobs that it names.
    pub blobs: Vec<usize>,
    /// The manifests that it names.
    pub children: Vec<usize>,
    /// The manifest that it refers to.
    pub subject: Option<usize>,
    /// How a list of referrers describes it.
    pub listed: Value,
}

impl Contents {
    /// So many of each; `with_sha512` names some by that.
    pub fn new(seed: u64, blobs: usize, manifests: usize, with_sha512: bool) -> Contents {
        let mut chance = Chance::new(seed);
        let is_long = |n: usize| with_sha512 && n % 4 == 3;
        let blob = |n: usize| {
            // No two are the same, not even the shortest.
            let size = SIZES[n % SIZES.len()] + n / SIZES.len() * 8;
            let bytes = random_bytes(&format!("{seed} blob {n}"), size);
            Blob { digest: if is_long(n) { sha512(&bytes) } else { sha256(&bytes) }, bytes }
        };
        let blobs = (0..blobs).map(blob).collect();
        let mut contents = Contents { blobs, manifests: Vec::new() };
        for n in 0..manifests {
            let made = contents.manifest(&mut chance, n, is_long(n));
            contents.manifests.push(made);
        }
        contents
    }

    /// Whether this manifest's own digest is the one that a push by tag gives it.
    pub fn is_sha256(&self, manifest: usize) -> bool {
        self.manifests[manifest].digest.starts_with("sha256:")
    }

    fn manifest(&self, chance: &mut Chance, n: usize, is_long: bool) -> Manifest {
        let (mut blobs, mut children) = (Vec::new(), Vec::new());
        let is_index = n > 4 && chance.percent(25);
        let is_docker = chance.percent(20);
        let mut document = if is_index {
            let count = chance.below(3);
            children.extend((0..count).map(|_| chance.below(n)));
            children.dedup();
            self.index(&children, is_docker)
        } else {
            blobs.extend((0..1 + chance.below(4)).map(|_| chance.below(self.blobs.len())));
            self.image(&blobs, is_docker, chance.percent(25))
        };
        document["annotations"] = json!({"org.example.number": n.to_string()});
        let subject = (!is_docker && n > 0 && chance.percent(40)).then(|| chance.below(n));
        if let Some(subject) = subject {
            document["subject"] = self.descriptor(subject);
        }
        // Not alone for referrers that no type is a case of its own.
        if !is_docker && chance.percent(50) {
            document["artifactType"] = json!(chance.of(&[ARTIFACT_TYPE, SBOM_TYPE]));
        }
        let bytes = document.to_string().into_bytes();
        let digest = if is_long { sha512(&bytes) } else { sha256(&bytes) };
        let media_type = match (is_index, is_docker) {
            (false, false) => OCI_MANIFEST,
            (false, true) => DOCKER_MANIFEST,
            (true, false) => OCI_INDEX,
            (true, true) => DOCKER_LIST,
        };
        let mut listed = json!({
            "mediaType": media_type, "digest": digest, "size": bytes.len(),
            "annotations": document["annotations"],
        });
        let of_config = &document["config"]["mediaType"];
        let artifact_type = document.get("artifactType").unwrap_or(of_config);
        if !artifact_type.is_null() {
            listed["artifactType"] = artifact_type.clone();
        }
        Manifest { digest, bytes, media_type, blobs, children, subject, listed }
    }

    /// The first of the blobs is its config.
    fn image(&self, blobs: &[usize], is_docker: bool, is_artifact: bool) -> Value {
        let (own, config, layer) = match (is_docker, is_artifact) {
            (true, _) => (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER),
            (false, true) => (OCI_MANIFEST, OCI_EMPTY, OCI_LAYER),
            (false, false) => (OCI_MANIFEST, OCI_CONFIG, OCI_LAYER),
        };
        let descriptor = |media_type: &str, blob: usize| {
            let Blob { digest, bytes } = &self.blobs[blob];
            json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
        };
        let layers: Vec<Value> = blobs[1..].iter().map(|&blob| descriptor(layer, blob)).collect();
        json!({
            "schemaVersion": 2, "mediaType": own,
            "config": descriptor(config, blobs[0]), "layers": layers,
        })
    }

    fn index(&self, children: &[usize], is_docker: bool) -> Value {
        let own = if is_docker { DOCKER_LIST } else { OCI_INDEX };
        let entry = |&child: &usize| {
            let mut entry = self.descriptor(child);
            entry["platform"] = json!({"architecture": "amd64", "os": "linux"});
            entry
        };
        let entries: Vec<Value> = children.iter().map(entry).collect();
        json!({"schemaVersion": 2, "mediaType": own, "manifests": entries})
    }

    fn descriptor(&self, manifest: usize) -> Value {
        let Manifest { digest, bytes, media_type, .. } = &self.manifests[manifest];
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }
}
