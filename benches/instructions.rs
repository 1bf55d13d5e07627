//! What a small hit costs in user space: instructions and heap allocations a request, counted by
//! callgrind, so the figures are the same on a busy machine. docs/PERFORMANCE.md has them.
//!
//! `cargo bench --bench instructions`; needs valgrind. `RINGPORT_BENCH_PROFILES=DIR` keeps the
//! profile of each kind for `callgrind_annotate`.
//!
//! Each kind is asked `FEW` and `MANY` times over one connection each; the difference, divided by
//! the difference of the counts, is a request's own share, without connecting and the server's
//! timers. One worker, on epoll; what the kernel does is not in it. valgrind's processor has no SHA
//! instructions, so each digest computed on the way weighs some ten times more here than it costs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::images::OCI_MANIFEST;
use support::lying::LyingUpstream;
use support::rig::{NS, REPOSITORY, declared};
use support::server::{Server, Setup};
use support::{secs, wait_until};

const FEW: u64 = 100;
/// A connection is closed after 1000 requests.
const MANY: u64 = 900;
/// Body of the manifest, in bytes.
const BODY_BYTES: usize = 4096;

/// As containerd asks.
const FIELDS: &str = "User-Agent: containerd/v2.0.2\r\n\
    Accept: application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*\r\n\
    Accept-Encoding: gzip\r\n";

/// One kind of request.
struct Kind {
    name: &'static str,
    target: String,
    request: String,
    status: u16,
    /// Bytes of body behind each head.
    body: usize,
    /// How many are sent before their answers are read.
    together: u64,
}

/// What callgrind counted between two dumps.
#[derive(Clone, Copy)]
struct Counted {
    instructions: u64,
    allocations: u64,
}

struct Bench {
    server: Server,
    profiles: PathBuf,
    dumps: u64,
}

fn main() {
    let upstream = LyingUpstream::start();
    let setup = Setup::new("bench-instructions").upstream(declared(&upstream));
    let profiles = std::env::var_os("RINGPORT_BENCH_PROFILES")
        .map_or_else(|| setup.scratch().path().join("profiles"), PathBuf::from);
    std::fs::create_dir_all(&profiles).unwrap();
    let valgrind = [
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        "--compress-strings=no".to_owned(),
        "--compress-pos=no".to_owned(),
        format!("--callgrind-out-file={}/profile", profiles.display()),
    ];
    // What valgrind 3.19 knows of rings is not enough for the server.
    let setup = setup.server("workers = 1").server("driver = \"epoll\"");
    let server = setup.without_access_log().run_by(&valgrind).start();
    let body = body();
    let digest = upstream.add_manifest(REPOSITORY, "v1", OCI_MANIFEST, body.as_bytes());
    let mut bench = Bench { server, profiles, dumps: 0 };
    println!("| request | instructions | allocations |\n|---|---|---|");
    for kind in kinds(&digest) {
        // The first is fetched, and of what is remembered some is made by those behind it.
        bench.server.get(&kind.target);
        bench.ask(&kind, FEW);
        let [few, many] = [FEW, MANY].map(|count| bench.counted(&kind, count));
        let each = |many: u64, few: u64| many.saturating_sub(few) as f64 / (MANY - FEW) as f64;
        println!(
            "| {} | {:.0} | {:.2} |",
            kind.name,
            each(many.instructions, few.instructions),
            each(many.allocations, few.allocations)
        );
    }
}

/// A manifest of `BODY_BYTES`.
fn body() -> String {
    let config = "\"mediaType\":\"application/vnd.oci.image.config.v1+json\"";
    let digest = format!("sha256:{}", "0".repeat(64));
    let mut body = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{OCI_MANIFEST}\",\
         \"config\":{{{config},\"digest\":\"{digest}\",\"size\":2}},\"layers\":[],\
         \"annotations\":{{\"x\":\""
    );
    body.push_str(&"x".repeat(BODY_BYTES - body.len() - 4));
    body.push_str("\"}}\n");
    body
}

fn kinds(digest: &str) -> Vec<Kind> {
    let by_tag = format!("/v2/{REPOSITORY}/manifests/v1?ns={NS}");
    let by_digest = format!("/v2/{REPOSITORY}/manifests/{digest}?ns={NS}");
    let kind = |name, method: &str, target: &str, more: &str, (status, body)| {
        let line = format!("{method} {target} HTTP/1.1\r\nHost: mirror.example:5000\r\n");
        let request = format!("{line}{FIELDS}{more}\r\n");
        Kind { name, target: target.to_owned(), request, status, body, together: 1 }
    };
    let whole = (200, BODY_BYTES);
    let condition = format!("If-None-Match: \"{digest}\"\r\n");
    let pipelined = kind("GET by digest, 16 at once", "GET", &by_digest, "", whole);
    vec![
        kind("GET /v2/", "GET", "/v2/", "", (200, 2)),
        kind("GET by digest", "GET", &by_digest, "", whole),
        kind("GET by tag", "GET", &by_tag, "", whole),
        kind("HEAD by tag", "HEAD", &by_tag, "", (200, 0)),
        kind("304 by tag", "GET", &by_tag, &condition, (304, 0)),
        Kind { together: 16, ..pipelined },
    ]
}

impl Bench {
    fn counted(&mut self, kind: &Kind, count: u64) -> Counted {
        // What came before belongs to nobody.
        self.dump(None);
        self.ask(kind, count);
        let name = format!("{}-{count}", kind.name.replace([' ', '/', ','], "_"));
        self.dump(Some(&name))
    }

    /// Asks over one connection and checks each answer.
    fn ask(&self, kind: &Kind, count: u64) {
        let mut stream = TcpStream::connect(self.server.addr).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut left = count;
        while left > 0 {
            let together = kind.together.min(left);
            stream.write_all(kind.request.repeat(together as usize).as_bytes()).unwrap();
            let mut buffer = Vec::new();
            for _ in 0..together {
                answer(&mut stream, &mut buffer, kind);
            }
            assert!(buffer.is_empty(), "{}: more than was asked for", kind.name);
            left -= together;
        }
    }

    /// Has callgrind write what it counted since the last time, and begin anew.
    fn dump(&mut self, keep_as: Option<&str>) -> Counted {
        self.dumps += 1;
        let path = self.profiles.join(format!("profile.{}", self.dumps));
        let pid = self.server.pid().to_string();
        let done = Command::new("callgrind_control").args(["-d", &pid]).output();
        let done = done.expect("callgrind_control of the package valgrind");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        wait_until("a profile", secs(20), || path.exists());
        let counted = read(&path);
        match keep_as {
            Some(name) => std::fs::rename(&path, self.profiles.join(name)).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        counted
    }
}

/// Takes one answer out of what comes.
fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>, kind: &Kind) {
    let mut piece = [0; 64 << 10];
    loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let whole = at + 4 + kind.body;
            if buffer.len() >= whole {
                let line = format!("HTTP/1.1 {}", kind.status);
                let head = String::from_utf8_lossy(&buffer[..at]);
                assert!(head.starts_with(&line), "{}: {head}", kind.name);
                assert!(kind.target == "/v2/" || head.contains("ringport; hit"), "{head}");
                buffer.drain(..whole);
                return;
            }
        }
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "{}: the end in an answer", kind.name);
        buffer.extend_from_slice(&piece[..read]);
    }
}

/// The sums of a profile.
fn read(path: &Path) -> Counted {
    let text = std::fs::read_to_string(path).unwrap();
    let mut counted = Counted { instructions: 0, allocations: 0 };
    let mut allocates = false;
    for line in text.lines() {
        if let Some(callee) = line.strip_prefix("cfn=") {
            let callee = callee.rsplit(' ').next().unwrap_or_default();
            allocates = matches!(callee, "malloc" | "calloc" | "realloc" | "posix_memalign");
        } else if let Some(calls) = line.strip_prefix("calls=") {
            let calls = calls.split(' ').next().and_then(|count| count.parse::<u64>().ok());
            counted.allocations += if allocates { calls.unwrap() } else { 0 };
        } else if let Some(total) = line.strip_prefix("totals: ") {
            counted.instructions = total.trim().parse().unwrap();
        }
    }
    assert!(counted.instructions > 0, "{}: no totals", path.display());
    counted
}
