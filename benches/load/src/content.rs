//! What is served: blobs of random bytes, manifests that name them, and requests for both that
//! know what the answer has to be.
//!
//! Everything is made from seeds, so that any piece of a blob can be compared without keeping it,
//! and lies in one tree of files whose paths are those of the distribution API: a static file
//! server needs nothing more.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// Where all of it stands.
pub(crate) const REPOSITORY: &str = "bench/images";
/// Media type of the manifests.
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of the manifests' configurations.
pub(crate) const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of everything else.
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
/// A blob is made, and compared, in blocks of this size.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// About what a manifest of an image with a dozen layers has.
const MANIFEST_BYTES: usize = 4096;

/// Random bytes with a name.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    /// `sha256:…`.
    pub(crate) digest: String,
    /// How long it is.
    pub(crate) bytes: u64,
    /// What it is made from.
    pub(crate) seed: u64,
    /// Where it lies.
    pub(crate) file: PathBuf,
}

/// A manifest of one configuration and one or more layers.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// By which it is also known.
    pub(crate) tag: String,
    /// `sha256:…`.
    pub(crate) digest: String,
    /// The document.
    pub(crate) body: Arc<[u8]>,
    /// What it names, the configuration first.
    pub(crate) blobs: Vec<Blob>,
}

/// The tree of files.
#[derive(Debug)]
pub(crate) struct Content {
    root: PathBuf,
}

impl Content {
    /// A tree below `root`, which is created.
    ///
    /// # Errors
    /// The file system's, with the folder.
    pub(crate) fn below(root: &Path) -> Result<Content, String> {
        for kind in ["blobs", "manifests"] {
            let folder = root.join("v2").join(REPOSITORY).join(kind);
            fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        Ok(Content { root: root.to_owned() })
    }

    /// The folder that holds `v2/`.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The first `count` blobs of that size; `family` sets those of one use apart from another's.
    ///
    /// # Errors
    /// The file system's, with the file.
    pub(crate) fn blobs(&self, family: &str, bytes: u64, count: u64) -> Result<Vec<Blob>, String> {
        (0..count).map(|n| self.blob(seed_of(family, bytes, n), bytes)).collect()
    }

    /// The first `count` images of a family, each of a configuration and `layers`.
    ///
    /// # Errors
    /// The file system's, with the file.
    pub(crate) fn images(
        &self,
        family: &str,
        count: u64,
        layers: &[u64],
    ) -> Result<Vec<Image>, String> {
        (0..count).map(|n| self.image(family, n, layers)).collect()
    }

    fn image(&self, family: &str, n: u64, layers: &[u64]) -> Result<Image, String> {
        let mut blobs = vec![self.blob(seed_of(family, 2048, n), 2048)?];
        for (at, &bytes) in layers.iter().enumerate() {
            let seed = seed_of(&format!("{family}-{at}"), bytes, n);
            blobs.push(self.blob(seed, bytes)?);
        }
        let body = manifest(&blobs);
        let tag = format!("{family}-{n}");
        let digest = named(&Sha256::digest(&body));
        for name in [&digest, &tag] {
            self.write("manifests", name, |file| file.write_all(&body))?;
        }
        Ok(Image { tag, digest, body: body.into(), blobs })
    }

    fn blob(&self, seed: u64, bytes: u64) -> Result<Blob, String> {
        // The name is known when everything has been written; a link from the seed finds it again.
        let made = self.root.join(format!("made-{seed:016x}-{bytes}"));
        if let Ok(digest) = fs::read_to_string(&made) {
            let file = self.path("blobs", &digest);
            if fs::metadata(&file).is_ok_and(|m| m.len() == bytes) {
                return Ok(Blob { digest, bytes, seed, file });
            }
        }
        let staged = self.root.join(format!("staged-{seed:016x}"));
        let digest = File::create(&staged)
            .and_then(|file| make(seed, bytes, file))
            .map_err(|e| format!("{}: {e}", staged.display()))?;
        let file = self.path("blobs", &digest);
        fs::rename(&staged, &file).map_err(|e| format!("{}: {e}", file.display()))?;
        fs::write(&made, &digest).map_err(|e| format!("{}: {e}", made.display()))?;
        Ok(Blob { digest, bytes, seed, file })
    }

    fn write(
        &self,
        kind: &str,
        name: &str,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), String> {
        let path = self.path(kind, name);
        let made = File::create(&path).and_then(|mut file| fill(&mut file));
        made.map_err(|e| format!("{}: {e}", path.display()))
    }

    fn path(&self, kind: &str, name: &str) -> PathBuf {
        self.root.join("v2").join(REPOSITORY).join(kind).join(name)
    }
}

impl Blob {
    /// Its path in the API.
    pub(crate) fn target(&self) -> String {
        format!("/v2/{REPOSITORY}/blobs/{}", self.digest)
    }
}

impl Image {
    /// Its path in the API, by its tag.
    pub(crate) fn by_tag(&self) -> String {
        format!("/v2/{REPOSITORY}/manifests/{}", self.tag)
    }

    /// Its path in the API, by its digest.
    pub(crate) fn by_digest(&self) -> String {
        format!("/v2/{REPOSITORY}/manifests/{}", self.digest)
    }
}

/// Fills `block` with what stands in the `n`th block of a blob of this seed.
pub(crate) fn fill_block(seed: u64, n: u64, block: &mut [u8]) {
    let mixed = seed ^ n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    fastrand::Rng::with_seed(mixed).fill(block);
}

/// `sha256:` and the digest in hexadecimal digits.
pub(crate) fn named(digest: &[u8]) -> String {
    let mut name = "sha256:".to_owned();
    for byte in digest {
        name.push_str(&format!("{byte:02x}"));
    }
    name
}

/// The digest of a blob that is made from this seed.
///
/// # Errors
/// None: nothing is written.
pub(crate) fn digest_of(seed: u64, bytes: u64) -> io::Result<String> {
    make(seed, bytes, io::sink())
}

fn make(seed: u64, bytes: u64, mut to: impl Write) -> io::Result<String> {
    let mut hash = Sha256::new();
    let (mut buffer, mut at) = (vec![0; 256 * BLOCK_BYTES], 0);
    let mut left = bytes;
    while left > 0 {
        let whole = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let piece = buffer.get_mut(..whole).unwrap_or_default();
        for block in piece.chunks_mut(BLOCK_BYTES) {
            fill_block(seed, at, block);
            at += 1;
        }
        hash.update(&*piece);
        to.write_all(piece)?;
        left -= piece.len() as u64;
    }
    Ok(named(&hash.finalize()))
}

fn seed_of(family: &str, bytes: u64, n: u64) -> u64 {
    let digest = Sha256::digest(format!("{family} {bytes} {n}"));
    digest.iter().take(8).fold(0, |seed, &byte| (seed << 8) | u64::from(byte))
}

/// An image manifest, filled up to [`MANIFEST_BYTES`] with an annotation.
fn manifest(blobs: &[Blob]) -> Vec<u8> {
    let described = |blob: &Blob, media_type: &str| {
        format!(
            r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#,
            blob.digest, blob.bytes
        )
    };
    let mut each = blobs.iter();
    let config = each.next().map(|blob| described(blob, CONFIG_TYPE)).unwrap_or_default();
    let layers: Vec<String> = each.map(|blob| described(blob, LAYER_TYPE)).collect();
    let document = |filling: usize| {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{config},"layers":[{}],"annotations":{{"filling":"{}"}}}}"#,
            layers.join(","),
            "x".repeat(filling)
        )
    };
    let bare = document(0).len();
    document(MANIFEST_BYTES.saturating_sub(bare)).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_what_its_name_and_its_blocks_say() {
        let folder = tempfile::tempdir().unwrap();
        let content = Content::below(folder.path()).unwrap();
        let blobs = content.blobs("test", 10_000, 2).unwrap();
        let [one, two] = blobs.as_slice() else { panic!("{blobs:?}") };
        assert_ne!(one.digest, two.digest);
        let bytes = fs::read(&one.file).unwrap();
        assert_eq!(bytes.len(), 10_000);
        assert_eq!(named(&Sha256::digest(&bytes)), one.digest);
        assert_eq!(digest_of(one.seed, one.bytes).unwrap(), one.digest);
        let mut block = vec![0; BLOCK_BYTES];
        fill_block(one.seed, 1, &mut block);
        assert_eq!(bytes[BLOCK_BYTES..2 * BLOCK_BYTES], block);
        assert_eq!(content.blobs("test", 10_000, 1).unwrap()[0].digest, one.digest);
    }

    #[test]
    fn a_manifest_has_its_size_and_names_its_blobs() {
        let folder = tempfile::tempdir().unwrap();
        let content = Content::below(folder.path()).unwrap();
        let image = content.images("test", 1, &[5000]).unwrap().remove(0);
        assert_eq!(image.body.len(), MANIFEST_BYTES);
        let document: serde_json::Value = serde_json::from_slice(&image.body).unwrap();
        assert_eq!(document["layers"][0]["digest"], image.blobs[1].digest);
        assert_eq!(named(&Sha256::digest(&image.body)), image.digest);
    }
}
