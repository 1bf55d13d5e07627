//! Images as folders that skopeo and podman read and write (their transport `dir:`), and a layer
//! that is too large to be held in memory.

use super::images::{Content, Image, OCI_CONFIG, OCI_MANIFEST, random_bytes, sha256};
use super::scratch::Scratch;
use serde_json::json;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Of a layer that is not compressed.
pub const OCI_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const MIB: u64 = 1 << 20;

/// `sha256:<hex>` without the algorithm.
fn hex(digest: &str) -> &str {
    digest.trim_start_matches("sha256:")
}

/// Writes what `tag` of an image names, with all that it refers to, and gives back the folder.
pub fn write(scratch: &Scratch, image: &Image, tag: &str) -> PathBuf {
    let folder = scratch.dir(&format!("{}-{tag}", image.name));
    let put = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.join(name), bytes).expect("a file of an image");
    };
    put("version", b"Directory Transport Version: 1.1\n");
    put("manifest.json", &image.tagged(tag).bytes);
    for (manifest, _) in &image.manifests {
        put(&format!("{}.manifest.json", hex(&manifest.digest)), &manifest.bytes);
    }
    for blob in &image.blobs {
        put(hex(&blob.digest), &blob.bytes);
    }
    folder
}

/// A folder that a client wrote holds what `tag` names, to the byte: the manifest, those that it
/// lists, and every blob that one of them names.
#[track_caller]
pub fn expect(folder: &Path, image: &Image, tag: &str) {
    let root = image.tagged(tag);
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    assert!(read("manifest.json") == root.bytes, "{} {tag}", image.name);
    let mut named = String::from_utf8_lossy(&root.bytes).into_owned();
    for (manifest, _) in &image.manifests {
        if manifest.digest != root.digest && named.contains(&manifest.digest) {
            let bytes = read(&format!("{}.manifest.json", hex(&manifest.digest)));
            assert!(bytes == manifest.bytes, "{} {}", image.name, manifest.digest);
            named.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    for blob in image.blobs.iter().filter(|blob| named.contains(&blob.digest)) {
        assert!(read(hex(&blob.digest)) == blob.bytes, "{} {}", image.name, blob.digest);
    }
}

/// An image of one layer of `mib` MiB of noise in a tar, made on the disk.
pub struct Large {
    /// As `dir:`.
    pub folder: PathBuf,
    /// Of its manifest.
    pub digest: String,
    /// Of its layer.
    pub layer: String,
    /// Of the layer's file.
    pub layer_bytes: u64,
}

impl Large {
    /// `name` tells it from others, in its bytes too.
    pub fn write(scratch: &Scratch, name: &str, mib: u64) -> Large {
        let folder = scratch.dir(name);
        let (layer, layer_bytes) = write_layer(&folder, name, mib);
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/none"]},
            "rootfs": {"type": "layers", "diff_ids": [layer]},
        });
        let config = Content::new(OCI_CONFIG, config.to_string().into_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": OCI_CONFIG, "digest": config.digest, "size": config.bytes.len(),
            },
            "layers": [{"mediaType": OCI_TAR, "digest": layer, "size": layer_bytes}],
        });
        let manifest = manifest.to_string().into_bytes();
        for (file, bytes) in [(hex(&config.digest), &config.bytes), ("manifest.json", &manifest)] {
            std::fs::write(folder.join(file), bytes).expect("a file of an image");
        }
        Large { folder, digest: sha256(&manifest), layer, layer_bytes }
    }

    /// The file of its layer.
    pub fn layer_file(&self) -> PathBuf {
        self.folder.join(hex(&self.layer))
    }
}

/// A tar of one file; its digest and size.
fn write_layer(folder: &Path, name: &str, mib: u64) -> (String, u64) {
    let path = folder.join("layer.tar");
    let mut header = tar::Header::new_gnu();
    header.set_path(name).expect("a short name");
    header.set_size(mib * MIB);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    let mut out = Hashed::new(File::create(&path).expect("a layer"));
    out.put(header.as_bytes());
    let mut block = random_bytes(name, MIB as usize);
    for number in 0..mib {
        // Noise once, and a number in it: no block is like another, and none takes long.
        block[..8].copy_from_slice(&number.to_le_bytes());
        out.put(&block);
    }
    out.put(&[0; 1024]);
    let (digest, bytes) = out.finish();
    std::fs::rename(&path, folder.join(hex(&digest))).expect("a layer under its name");
    (digest, bytes)
}

struct Hashed {
    file: File,
    hash: ring::digest::Context,
    bytes: u64,
}

impl Hashed {
    fn new(file: File) -> Hashed {
        Hashed { file, hash: ring::digest::Context::new(&ring::digest::SHA256), bytes: 0 }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.file.write_all(bytes).expect("room for a layer");
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    fn finish(self) -> (String, u64) {
        (written(self.hash), self.bytes)
    }
}

fn written(hash: ring::digest::Context) -> String {
    let hash = hash.finish();
    let hex: String = hash.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

/// The digest of a file, which need not fit in memory.
pub fn sha256_of(path: &Path) -> String {
    let mut file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).expect("a readable file");
        if n == 0 {
            return written(hash);
        }
        hash.update(&buffer[..n]);
    }
}
