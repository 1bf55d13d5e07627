//! Pushes beside docker-registry, in turns in one run: a layer in one streamed upload, and many
//! small manifests. The client is this program, so that both are asked the same in the same way.
//!
//! `cargo bench --bench pushes`; `RINGPORT_BENCH_MIB` (1024), `RINGPORT_BENCH_MANIFESTS` (10,000) and
//! `RINGPORT_BENCH_ROUNDS` (5) make it smaller. Stores lie in `TMPDIR`: on a tmpfs it shows what is
//! left when nothing has to be synchronised. docs/PUSHING.md has the figures, and what each side has
//! synchronised when it acknowledges.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Seek, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use support::folder::Large;
use support::http::{self, Connection, request_bytes};
use support::images::{OCI_CONFIG, OCI_EMPTY, OCI_MANIFEST, sha256};
use support::number_from;
use support::registry::{Guard, Registry, Which};
use support::scratch::Scratch;
use support::upload::Upload;

/// Clients of the small manifests, and the part of them that they push: one alone would take long.
const CLIENTS: [(usize, u64); 2] = [(1, 10), (16, 1)];
const BYTES: &str = "application/octet-stream";

fn main() {
    let rounds = number_from("RINGPORT_BENCH_ROUNDS", 5);
    let mib = number_from("RINGPORT_BENCH_MIB", 1024);
    let manifests = number_from("RINGPORT_BENCH_MANIFESTS", 10_000);
    let mut figures = Figures::default();
    for round in 0..rounds {
        // Who goes first changes from round to round.
        let mut order = [Which::DockerRegistry, Which::Ringport];
        order.rotate_left((round % 2) as usize);
        let scratch = Scratch::new("bench");
        let large = Large::write(&scratch, &format!("round-{round}"), mib);
        let disk = copied(&scratch, &large);
        figures.add("a copy of the file, with fsync", None, mib as f64 / disk.as_secs_f64());
        for which in order {
            let took = layer(which, &large);
            figures.add("layer, MiB/s", Some(which), mib as f64 / took.as_secs_f64());
        }
        drop(scratch);
        for (clients, part) in CLIENTS {
            let count = manifests / part;
            for which in order {
                let took = small_manifests(which, count, clients);
                let name = format!("{count} manifests by {clients} clients, /s");
                figures.add(&name, Some(which), count as f64 / took.as_secs_f64());
            }
        }
    }
    figures.print();
}

/// What was measured: by name and program, one figure a round.
#[derive(Default)]
struct Figures(Vec<(String, Option<Which>, Vec<f64>)>);

impl Figures {
    fn add(&mut self, name: &str, which: Option<Which>, figure: f64) {
        println!("{name} {which:?}: {figure:.0}");
        match self.0.iter_mut().find(|(n, w, _)| n == name && *w == which) {
            Some((_, _, all)) => all.push(figure),
            None => self.0.push((name.to_owned(), which, vec![figure])),
        }
    }

    fn print(&mut self) {
        println!("\n| | | median | least | most |\n|---|---|---|---|---|");
        for (name, which, all) in &mut self.0 {
            all.sort_by(f64::total_cmp);
            let which = which.map_or(String::new(), |w| format!("{w:?}"));
            let (median, least, most) = (all[all.len() / 2], all[0], all[all.len() - 1]);
            println!("| {name} | {which} | {median:.0} | {least:.0} | {most:.0} |");
        }
    }
}

/// A server of its own, with nothing of the former's left to be written to the disk.
fn fresh(which: Which) -> Registry {
    rustix::fs::sync();
    let registry = Registry::start_as(which, "bench", &Guard::Open, |setup| setup);
    registry.expect("docker-registry is installed")
}

/// What the disk itself does: the file of the layer written anew, and synchronised.
fn copied(scratch: &Scratch, large: &Large) -> Duration {
    let mut from = std::fs::File::open(large.layer_file()).unwrap();
    let path = scratch.path().join("copy");
    rustix::fs::sync();
    let began = Instant::now();
    let mut to = std::fs::File::create(&path).unwrap();
    std::io::copy(&mut from, &mut to).unwrap();
    to.sync_all().unwrap();
    let took = began.elapsed();
    std::fs::remove_file(&path).unwrap();
    took
}

/// POST, one PATCH with the whole layer, PUT: from the first byte to the 201.
fn layer(which: Which, large: &Large) -> Duration {
    let registry = fresh(which);
    let mut file = std::fs::File::open(large.layer_file()).unwrap();
    file.rewind().unwrap();
    let began = Instant::now();
    let mut upload = Upload::begin(registry.addr(), "team/bench");
    let length = large.layer_bytes.to_string();
    let headers = [("Content-Type", BYTES), ("Content-Length", &length)];
    let mut connection = Connection::open(registry.addr());
    connection.send(request_bytes("PATCH", &upload.location, &headers));
    let mut stream = connection.stream();
    std::io::copy(&mut file, &mut stream).expect("a server that takes it all");
    stream.flush().unwrap();
    let answer = connection.read_answer("PATCH").expect("an answer");
    assert_eq!(answer.status(), 202, "{}", answer.text());
    upload.location = support::upload::path_of(answer.header("location"));
    let done = upload.put(&large.layer, b"");
    let took = began.elapsed();
    assert_eq!(done.status(), 201, "{}", done.text());
    took
}

/// `count` manifests of about 500 bytes by tag, over one connection a client.
fn small_manifests(which: Which, count: u64, clients: usize) -> Duration {
    let registry = fresh(which);
    let addr = registry.addr();
    let mut upload = Upload::begin(addr, "team/small");
    assert_eq!(upload.put(&sha256(b"{}"), b"{}").status(), 201);
    let bodies: Vec<Vec<u8>> = (0..count).map(manifest).collect();
    let each = bodies.len().div_ceil(clients);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for (client, part) in bodies.chunks(each).enumerate() {
            scope.spawn(move || push_all(addr, client * each, part));
        }
    });
    let took = began.elapsed();
    let last = format!("/v2/team/small/manifests/v{}", count - 1);
    let there = http::get_with(addr, &last, &[("Accept", OCI_MANIFEST)]);
    assert_eq!(there.status(), 200, "{}", there.text());
    took
}

fn push_all(addr: SocketAddr, first: usize, bodies: &[Vec<u8>]) {
    let mut connection = Connection::open(addr);
    for (number, body) in bodies.iter().enumerate() {
        let target = format!("/v2/team/small/manifests/v{}", first + number);
        let length = body.len().to_string();
        let headers = [("Content-Type", OCI_MANIFEST), ("Content-Length", &length)];
        let mut request = request_bytes("PUT", &target, &headers).into_bytes();
        request.extend_from_slice(body);
        connection.send(request);
        let answer = connection.read_answer("PUT").expect("an answer");
        assert_eq!(answer.status(), 201, "{}", answer.text());
    }
}

fn manifest(number: u64) -> Vec<u8> {
    let empty = |media_type: &str| serde_json::json!({"mediaType": media_type, "digest": sha256(b"{}"), "size": 2});
    serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": empty(OCI_CONFIG),
        "layers": [empty(OCI_EMPTY)], "annotations": {"org.example.number": number.to_string()},
    })
    .to_string()
    .into_bytes()
}
