//! What connections cost: memory of idle and of streaming ones, copies of bodies, and how they are
//! spread over the workers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use support::images::{OCI_MANIFEST, random_bytes};
use support::lying::LyingUpstream;
use support::rig::{NS, REPOSITORY, declared, manifest};
use support::server::{Server, Setup};
use support::tls::{Authority, Client};
use support::{ms, number_from, ports, secs, tell, wait_until};
use tokio_rustls::rustls::ALL_VERSIONS;

/// The most that an idle connection may hold of the server's own memory.
const IDLE_BYTES_MAX: u64 = 8 << 10;
/// The same by TLS: rustls keeps 4 KiB for what comes in, and the keys.
const TLS_IDLE_BYTES_MAX: u64 = 12 << 10;
/// The same of one that is being sent a blob.
const STREAMING_BYTES_MAX: u64 = 64 << 10;
/// The most that a server of a release build has resident while it sends 256 blobs.
const STREAMING_SUM_MAX: u64 = 40 << 20;
/// Connections that warm the server up, so that its first allocations are not counted as theirs.
const WARM: u64 = 64;

/// An upstream with one manifest and one blob, and a server that has pulled both.
struct Stage {
    server: Server,
    tls: SocketAddr,
    authority: Authority,
    manifest: String,
    blob: String,
    blob_bytes: usize,
    _upstream: LyingUpstream,
}

impl Stage {
    fn new(what: &str, blob_bytes: usize, lines: &[&str]) -> Stage {
        let (upstream, tls) = (LyingUpstream::start(), ports::free());
        let authority = Authority::new("CA");
        let mut setup = Setup::new(what).upstream(declared(&upstream));
        let (certificate, key) = authority.server().write(setup.scratch(), "server");
        for line in lines {
            setup = setup.server(line);
        }
        let server = setup
            .server(&format!("tls_listen = [\"{tls}\"]"))
            .server(&format!("tls_certificate = {certificate:?}\ntls_key = {key:?}"))
            .start();
        let bytes = random_bytes("connections", blob_bytes);
        let digest = upstream.add_blob(REPOSITORY, &bytes);
        let named = upstream.add_manifest(REPOSITORY, "v1", OCI_MANIFEST, &manifest("connections"));
        let blob = format!("/v2/{REPOSITORY}/blobs/{digest}?ns={NS}");
        let manifest = format!("/v2/{REPOSITORY}/manifests/{named}?ns={NS}");
        for target in [&blob, &manifest] {
            assert_eq!(server.get(target).status(), 200);
        }
        server.await_blob(&digest);
        Stage { server, tls, authority, manifest, blob, blob_bytes, _upstream: upstream }
    }

    fn copied(&self) -> u64 {
        self.server.metric("ringport_copied_bytes_total", &[]) as u64
    }

    /// Memory of each of `count` connections that `open` has made and that stay, once they have
    /// been left alone for a while.
    fn idle_bytes<C>(&self, count: u64, open: impl Fn(u64) -> C) -> (u64, Vec<C>) {
        let mut kept: Vec<C> = (0..WARM).map(&open).collect();
        std::thread::sleep(ms(600));
        let before = self.server.rss_bytes();
        kept.extend((WARM..WARM + count).map(&open));
        std::thread::sleep(ms(600));
        let open = self.server.metric("ringport_connections", &[]) as u64;
        assert!(open >= WARM + count, "{open} of {} connections are open", WARM + count);
        (self.server.rss_bytes().saturating_sub(before) / count, kept)
    }
}

/// A connection from one of many addresses, so that ports do not run out.
fn from_address(n: u64, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = Ipv4Addr::new(127, 0, 1, (n % 100) as u8 + 1);
    socket.bind(&SockAddr::from(SocketAddr::from((from, 0)))).unwrap();
    socket.connect(&SockAddr::from(to)).unwrap();
    socket.set_read_timeout(Some(secs(30))).unwrap();
    socket.into()
}

/// Asks and reads the whole answer, of which the body must be as long as announced.
fn ask(stream: &mut (impl Read + Write), target: &str) -> Vec<u8> {
    let request = format!("GET {target} HTTP/1.1\r\nHost: mirror\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream.flush().unwrap();
    let mut answer = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "the end in an answer");
        answer.extend_from_slice(&piece[..read]);
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        if answer.len() - end - 4 >= length.unwrap().parse().unwrap() {
            return answer.split_off(end + 4);
        }
    }
}

#[test]
fn an_idle_connection_holds_little_memory() {
    let count = number_from("RINGPORT_IDLE_CONNECTIONS", 1000);
    let lines = ["connections_max = 40000", "head_timeout = \"60s\"", "idle_timeout = \"10m\""];
    let stage = Stage::new("idle", 100, &lines);
    let (plain, _kept) = stage.idle_bytes(count, |n| {
        let mut stream = from_address(n, stage.server.addr);
        ask(&mut stream, &stage.manifest);
        stream
    });
    // One that was busy before: its buffer stays with it.
    let (busy, _kept_too) = stage.idle_bytes(count / 4, |n| {
        let mut stream = from_address(n, stage.server.addr);
        for _ in 0..4 {
            ask(&mut stream, &stage.manifest);
        }
        stream
    });
    let client = Client::with(&stage.authority, &["http/1.1"], ALL_VERSIONS, None);
    let (tls, _kept_as_well) = stage.idle_bytes(count / 4, |_| {
        let mut connection = client.connect(stage.tls).unwrap();
        ask(&mut connection.stream, &stage.manifest);
        connection
    });
    tell(&format!("idle, of {count}: {plain} bytes each, {busy} after a burst, {tls} by TLS"));
    assert!(plain <= IDLE_BYTES_MAX, "{plain} bytes");
    assert!(busy <= IDLE_BYTES_MAX, "after a burst: {busy} bytes");
    assert!(tls <= TLS_IDLE_BYTES_MAX, "by TLS: {tls} bytes");
}

#[test]
fn many_streams_hold_little_memory() {
    let mib = number_from("RINGPORT_STREAM_MIB", 4);
    let stage = Stage::new("streams", 64 << 20, &[]);
    let before = stage.server.rss_bytes();
    stage.server.forget_rss_peak();
    let mut streams: Vec<_> = (0..256).map(|n| from_address(n, stage.server.addr)).collect();
    let request = format!("GET {} HTTP/1.1\r\nHost: mirror\r\n\r\n", stage.blob);
    for stream in &mut streams {
        stream.write_all(request.as_bytes()).unwrap();
    }
    let mut piece = vec![0; 256 << 10];
    for _ in 0..mib * 4 {
        for stream in &mut streams {
            stream.read_exact(&mut piece).unwrap();
        }
    }
    let each = stage.server.rss_bytes().saturating_sub(before) / 256;
    let peak = stage.server.rss_peak_bytes();
    tell(&format!("256 streams of 64 MiB: {each} bytes each, {} KiB resident in all", peak >> 10));
    assert!(each <= STREAMING_BYTES_MAX, "{each} bytes a stream");
    // A debug build is several times larger on disk, and so are its pages that are touched.
    let is_release = !cfg!(debug_assertions);
    assert!(!is_release || peak <= STREAMING_SUM_MAX, "{peak} bytes resident");
}

#[test]
fn plain_hits_of_blobs_copy_nothing() {
    let hits = number_from("RINGPORT_COPIED_HITS", 10_000);
    // More than what lies in the index.
    let stage = Stage::new("copied", 40 << 10, &[]);
    let before = stage.copied();
    for _ in 0..hits.div_ceil(500) {
        let mut stream = from_address(0, stage.server.addr);
        for _ in 0..500 {
            assert_eq!(ask(&mut stream, &stage.blob).len(), stage.blob_bytes);
        }
    }
    assert_eq!(stage.copied(), before, "bytes of blobs passed user memory");
    // The counter counts: a manifest is copied out of the index, and TLS has to have what it encrypts.
    let manifest = ask(&mut from_address(0, stage.server.addr), &stage.manifest);
    let after = before + manifest.len() as u64;
    wait_until("a manifest to be counted", secs(10), || stage.copied() == after);
    let client = Client::with(&stage.authority, &["http/1.1"], ALL_VERSIONS, None);
    ask(&mut client.connect(stage.tls).unwrap().stream, &stage.blob);
    let after = after + stage.blob_bytes as u64;
    wait_until("a blob by TLS to be counted", secs(10), || stage.copied() == after);
}

#[test]
fn connections_are_shared_out_to_the_workers() {
    let stage = Stage::new("shared-out", 100, &["workers = 2"]);
    let of = |worker: &str| stage.server.metric("ringport_connections", &[worker]) as i64;
    // The scrapes are connections too, of the first worker.
    let spread = || (of("worker=\"0\"") - 1, of("worker=\"1\""));
    for (rounds, count, apart) in [(20, 8, 3), (1, 100, 14)] {
        for _ in 0..rounds {
            let open = |_| {
                let mut stream = from_address(0, stage.server.addr);
                ask(&mut stream, &stage.manifest);
                stream
            };
            let kept: Vec<TcpStream> = (0..count).map(open).collect();
            let (first, second) = spread();
            assert!((first - second).abs() <= apart, "of {count}: {first} and {second}");
            drop(kept);
            wait_until("all to be gone", secs(10), || spread() <= (0, 0));
        }
    }
}
