//! An origin that keeps no blob: the bytes of each are made from its number as they are sent.

use crate::support::images::{OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, sha256};
use crate::support::listener::{Listener, Received, read_request};
use ringport_bench_eviction::trace::Trace;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The one repository.
pub const REPOSITORY: &str = "ci/image";
const CHUNK: usize = 64 << 10;

/// What there is to pull.
pub struct Content {
    /// Digest by object.
    pub digests: Vec<String>,
    /// Bytes by object.
    pub sizes: Vec<u64>,
    /// The manifest of each image that has one, with the number of its object.
    images: Vec<Option<(u32, Vec<u8>)>>,
    /// Which image's manifest an object is.
    image_of: HashMap<u32, usize>,
    objects: HashMap<String, u32>,
}

/// It serves them.
pub struct Origin {
    listener: Listener,
    served: Arc<Served>,
}

/// What was fetched.
#[derive(Default)]
pub struct Served {
    /// Objects that were sent.
    pub objects: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
}

impl Content {
    /// Makes up the trace's content, and gives the manifests among its sizes their real ones.
    pub fn make(trace: &mut Trace) -> Content {
        let count = trace.sizes.len();
        let mut is_manifest = vec![false; count];
        for image in &trace.images {
            image.objects.first().into_iter().for_each(|&own| is_manifest[own as usize] = true);
        }
        let next = AtomicUsize::new(0);
        let sizes = &trace.sizes;
        let hash_some = || {
            let mut found = Vec::new();
            loop {
                let object = next.fetch_add(1, Ordering::Relaxed);
                if object >= count {
                    return found;
                }
                if !is_manifest[object] {
                    found.push((object, digest_of(object as u32, sizes[object])));
                }
            }
        };
        let mut digests = vec![String::new(); count];
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2).map(|_| scope.spawn(hash_some)).collect();
            for (object, digest) in threads.into_iter().flat_map(|it| it.join().unwrap()) {
                digests[object] = digest;
            }
        });
        let (mut images, mut image_of) = (Vec::new(), HashMap::new());
        for (number, image) in trace.images.iter().enumerate() {
            images.push(image.objects.split_first().map(|(&own, parts)| {
                let bytes = manifest(parts, &digests, &trace.sizes);
                digests[own as usize] = sha256(&bytes);
                trace.sizes[own as usize] = bytes.len() as u64;
                image_of.insert(own, number);
                (own, bytes)
            }));
        }
        let objects = digests.iter().zip(0..).map(|(digest, n)| (digest.clone(), n)).collect();
        Content { digests, sizes: trace.sizes.clone(), images, image_of, objects }
    }
}

fn manifest(parts: &[u32], digests: &[String], sizes: &[u64]) -> Vec<u8> {
    let descriptor = |media_type: &str, object: u32| {
        let (digest, size) = (&digests[object as usize], sizes[object as usize]);
        json!({"mediaType": media_type, "digest": digest, "size": size})
    };
    let layers: Vec<_> = parts[1..].iter().map(|&layer| descriptor(OCI_LAYER, layer)).collect();
    let config = descriptor(OCI_CONFIG, parts[0]);
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": config, "layers": layers});
    manifest.to_string().into_bytes()
}

/// The bytes of an object, a chunk at a time.
fn chunks(object: u32, size: u64, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut chunk = Vec::with_capacity(CHUNK);
    let mut state = u64::from(object) + 1;
    while chunk.len() < CHUNK {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        chunk.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    for number in 0..size.div_ceil(CHUNK as u64) {
        chunk[..8].copy_from_slice(&number.to_le_bytes());
        let length = (size - number * CHUNK as u64).min(CHUNK as u64);
        each(&chunk[..length as usize])?;
    }
    Ok(())
}

fn digest_of(object: u32, size: u64) -> String {
    let mut hasher = Sha256::new();
    let hashed = chunks(object, size, |chunk| {
        hasher.update(chunk);
        Ok(())
    });
    hashed.unwrap();
    hex_digest(hasher)
}

/// `sha256:<hex>`.
pub fn hex_digest(hasher: Sha256) -> String {
    hasher.finalize().iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

impl Origin {
    /// Serves this on a port of its own.
    pub fn start(content: Arc<Content>) -> Origin {
        let served = Arc::<Served>::default();
        let counted = served.clone();
        let listener = Listener::start(move |stream| {
            // The mirror may hang up when it likes.
            let _ = serve(stream, &content, &counted);
        });
        Origin { listener, served }
    }

    /// Its URL, as an endpoint of the configuration.
    pub fn url(&self) -> String {
        format!("http://{}", self.listener.addr())
    }

    /// Objects and bytes that were fetched so far.
    pub fn served(&self) -> (u64, u64) {
        (self.served.objects.load(Ordering::Relaxed), self.served.bytes.load(Ordering::Relaxed))
    }
}

fn serve(stream: &TcpStream, content: &Content, served: &Served) -> io::Result<()> {
    stream.set_nodelay(true)?;
    while let Some(request) = read_request(stream)? {
        answer(stream, &request, content, served)?;
    }
    Ok(())
}

fn answer(
    mut stream: &TcpStream,
    request: &Received,
    content: &Content,
    served: &Served,
) -> io::Result<()> {
    let is_get = request.method == "GET";
    let reference = request.path.rsplit('/').next().unwrap_or_default();
    let known = match reference.strip_prefix('t').and_then(|image| image.parse::<usize>().ok()) {
        Some(image) => content.images.get(image).and_then(|it| it.as_ref()).map(|it| it.0),
        None => content.objects.get(reference).copied(),
    };
    let Some(object) = known else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    };
    let (digest, size) = (&content.digests[object as usize], content.sizes[object as usize]);
    let is_manifest = request.path.contains("/manifests/");
    let media_type = if is_manifest { OCI_MANIFEST } else { "application/octet-stream" };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Length: {size}\r\n\
         Docker-Content-Digest: {digest}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    if !is_get {
        return Ok(());
    }
    served.objects.fetch_add(1, Ordering::Relaxed);
    served.bytes.fetch_add(size, Ordering::Relaxed);
    if is_manifest {
        let image = content.image_of.get(&object).and_then(|&image| content.images[image].as_ref());
        return stream.write_all(image.map_or(&[], |(_, bytes)| bytes));
    }
    chunks(object, size, |chunk| stream.write_all(chunk))
}
