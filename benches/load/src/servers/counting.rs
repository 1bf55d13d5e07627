//! An origin of our own, which counts what it is asked for: the tree of files, by the paths of the
//! API, over plain HTTP. It runs in this process, on the cores of the load.
//!
//! A thread for each connection is enough here: mirrors have few to their origin.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::content::{MANIFEST_TYPE, named};
use crate::machine;

const HEAD_BYTES_MAX: usize = 16 << 10;
/// A mirror that says nothing for so long has forgotten its connection.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// An origin that runs until it is dropped.
pub(crate) struct Counting {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    root: PathBuf,
    cores: Vec<usize>,
    gets: AtomicU64,
    is_over: AtomicBool,
}

impl Counting {
    /// Serves the tree below `root`, which holds `v2/`.
    ///
    /// # Errors
    /// The network's.
    pub(crate) fn start(root: &Path, cores: &[usize]) -> Result<Counting, String> {
        let failed = |e: io::Error| format!("an origin on 127.0.0.1: {e}");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            cores: cores.to_owned(),
            gets: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        let accepting = std::thread::spawn(move || accept(&listener, &own));
        Ok(Counting { addr, shared, accepting: Some(accepting) })
    }

    /// How many GETs of blobs and manifests have come since this was asked last.
    pub(crate) fn take_gets(&self) -> u64 {
        self.shared.gets.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // Wakes the accept; connections end with their mirrors.
        let _ = TcpStream::connect(self.addr);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    /// File, media type and digest of what is asked for.
    fn find(&self, target: &str) -> Option<(PathBuf, &'static str, String)> {
        let path = target.strip_prefix('/')?;
        if path.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
            return None;
        }
        let file = self.root.join(path);
        let name = path.rsplit('/').next()?;
        if path.contains("/manifests/") {
            let digest = named(&Sha256::digest(fs::read(&file).ok()?));
            return Some((file, MANIFEST_TYPE, digest));
        }
        file.is_file().then(|| (file, "application/octet-stream", name.to_owned()))
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for socket in listener.incoming() {
        if shared.is_over.load(Ordering::Relaxed) {
            return;
        }
        let Ok(socket) = socket else { continue };
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            // Unpinned it would only be in the servers' way; a connection that fails is for the
            // mirror to tell of.
            let _ = machine::pin(&shared.cores);
            let _ = converse(socket, &shared);
        });
    }
}

fn converse(mut socket: TcpStream, shared: &Shared) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(SILENCE_MAX))?;
    socket.set_write_timeout(Some(SILENCE_MAX))?;
    let mut kept = Vec::new();
    loop {
        let Some(asked) = read_request(&mut socket, &mut kept)? else { return Ok(()) };
        answer(&mut socket, &asked, shared)?;
        if asked.closes {
            return Ok(());
        }
    }
}

struct Asked {
    is_head: bool,
    target: String,
    closes: bool,
}

/// The next request; none when there is no more. Bodies are not expected.
fn read_request(socket: &mut TcpStream, kept: &mut Vec<u8>) -> io::Result<Option<Asked>> {
    let mut buffer = [0; 4096];
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        let parsed = request.parse(kept).map_err(io::Error::other)?;
        if let httparse::Status::Complete(length) = parsed {
            let closes = |header: &httparse::Header<'_>| {
                header.name.eq_ignore_ascii_case("connection")
                    && header.value.eq_ignore_ascii_case(b"close")
            };
            let is_old = request.version == Some(0);
            let target = request.path.unwrap_or_default();
            let asked = Asked {
                is_head: request.method == Some("HEAD"),
                target: target.split('?').next().unwrap_or_default().to_owned(),
                closes: is_old || request.headers.iter().any(closes),
            };
            kept.drain(..length);
            return Ok(Some(asked));
        }
        let got = socket.read(&mut buffer)?;
        if got == 0 || kept.len() > HEAD_BYTES_MAX {
            return Ok(None);
        }
        kept.extend_from_slice(buffer.get(..got).unwrap_or_default());
    }
}

fn answer(socket: &mut TcpStream, asked: &Asked, shared: &Shared) -> io::Result<()> {
    let connection = if asked.closes { "Connection: close\r\n" } else { "" };
    let api = "Docker-Distribution-Api-Version: registry/2.0\r\n";
    if asked.target.trim_end_matches('/') == "/v2" {
        let length = if asked.is_head { "" } else { "{}" };
        let head = format!("HTTP/1.1 200 OK\r\n{api}{connection}Content-Length: 2\r\n\r\n{length}");
        return socket.write_all(head.as_bytes());
    }
    let found = shared.find(&asked.target);
    let opened = found.and_then(|(path, media_type, digest)| {
        let file = File::open(path).ok()?;
        let bytes = file.metadata().ok()?.len();
        Some((file, bytes, media_type, digest))
    });
    let Some((file, bytes, media_type, digest)) = opened else {
        let head = format!("HTTP/1.1 404 Not Found\r\n{api}{connection}Content-Length: 0\r\n\r\n");
        return socket.write_all(head.as_bytes());
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\n{api}{connection}Content-Type: {media_type}\r\n\
         Docker-Content-Digest: {digest}\r\nETag: \"{digest}\"\r\nContent-Length: {bytes}\r\n\r\n"
    );
    if !asked.is_head {
        shared.gets.fetch_add(1, Ordering::Relaxed);
    }
    socket.write_all(head.as_bytes())?;
    if asked.is_head {
        return Ok(());
    }
    send_file(&file, bytes, socket)
}

/// In the kernel, from file to socket. `io::copy` would copy 8 KiB at a time, which makes the origin
/// the slowest of all.
fn send_file(file: &File, bytes: u64, socket: &TcpStream) -> io::Result<()> {
    let mut sent = 0;
    while sent < bytes {
        let left = usize::try_from(bytes - sent).unwrap_or(usize::MAX);
        match rustix::fs::sendfile(socket, file, Some(&mut sent), left) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::plain::Plain;
    use crate::content::Content;

    #[test]
    fn what_is_asked_for_is_served_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let content = Content::below(folder.path()).unwrap();
        let image = content.images("test", 1, &[100_000]).unwrap().remove(0);
        let origin = Counting::start(folder.path(), &machine::allowed_cores()).unwrap();
        let mut connection = Plain::open(origin.addr).unwrap();
        let target = image.blobs[1].target();
        let mut ask = |method: &str, target: &str| {
            let text = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            connection.ask(text.as_bytes()).unwrap()
        };
        assert_eq!(ask("GET", "/v2/").status, 200);
        assert_eq!(ask("HEAD", &target).status, 200);
        assert_eq!(origin.take_gets(), 0, "neither a HEAD nor the base is one");
        for _ in 0..2 {
            let answer = ask("GET", &target);
            assert_eq!((answer.body_bytes, &answer.digest), (100_000, &image.blobs[1].digest));
        }
        assert_eq!((origin.take_gets(), origin.take_gets()), (2, 0));
        let manifest = ask("GET", &image.by_tag());
        assert_eq!(manifest.header("docker-content-digest"), Some(image.digest.as_str()));
        assert_eq!(manifest.digest, image.digest);
        for target in ["/v2/../made", "/etc/passwd", "//etc/passwd", "/v2/bench/images/blobs/x"] {
            assert_eq!(ask("GET", target).status, 404, "{target}");
        }
    }
}
