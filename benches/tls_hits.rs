//! What TLS costs a hit: blobs, small manifests and handshakes, plain and by TLS 1.3 of one server, in
//! turns in one run. The clients are this program, on the machine's same cores, so the server's CPU
//! time tells more than the rates.
//!
//! `cargo bench --bench tls_hits`; `RINGPORT_BENCH_MIB` (512, what each client pulls),
//! `RINGPORT_BENCH_MANIFESTS` (40,000), `RINGPORT_BENCH_HANDSHAKES` (4,000) and
//! `RINGPORT_BENCH_ROUNDS` (5) make it smaller. docs/TLS.md has the figures.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;
use support::images::{OCI_MANIFEST, random_bytes};
use support::lying::LyingUpstream;
use support::rig::{NS, REPOSITORY, declared, manifest};
use support::server::{Server, Setup};
use support::tls::{Authority, Client};
use support::{number_from, ports};
use tokio_rustls::rustls::ALL_VERSIONS;

const BLOB_MIB: u64 = 64;

/// By which of its doors the server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Plain,
    Tls,
}

struct Bench {
    server: Server,
    tls: SocketAddr,
    authority: Authority,
    blob: String,
    manifest: String,
    figures: Vec<Row>,
}

/// The rates and the CPU times of one measurement, one of each a round.
struct Row {
    name: String,
    door: Door,
    rates: Vec<f64>,
    costs: Vec<f64>,
}

fn main() {
    let (rounds, mib) =
        (number_from("RINGPORT_BENCH_ROUNDS", 5), number_from("RINGPORT_BENCH_MIB", 512));
    let manifests = number_from("RINGPORT_BENCH_MANIFESTS", 40_000);
    let handshakes = number_from("RINGPORT_BENCH_HANDSHAKES", 4_000);
    let mut bench = Bench::start();
    bench.idle(500);
    for round in 0..rounds {
        // Who goes first changes from round to round.
        let mut doors = [Door::Plain, Door::Tls];
        doors.rotate_left((round % 2) as usize);
        for clients in [1, 4] {
            for door in doors {
                bench.blobs(door, clients, mib);
            }
        }
        for door in doors {
            bench.manifests(door, 16, manifests);
        }
        for door in doors {
            bench.connections(door, 8, handshakes);
        }
    }
    bench.print();
}

impl Bench {
    fn start() -> Bench {
        let (upstream, tls) = (LyingUpstream::start(), ports::free());
        let setup = Setup::new("bench-tls").upstream(declared(&upstream));
        let authority = Authority::new("CA");
        let (certificate, key) = authority.server().write(setup.scratch(), "server");
        let server = setup
            .server(&format!("tls_listen = [\"{tls}\"]"))
            .server(&format!("tls_certificate = {certificate:?}\ntls_key = {key:?}"))
            .start();
        let digest =
            upstream.add_blob(REPOSITORY, &random_bytes("bench", (BLOB_MIB << 20) as usize));
        let content = manifest("bench");
        let named = upstream.add_manifest(REPOSITORY, "v1", OCI_MANIFEST, &content);
        let blob = format!("/v2/{REPOSITORY}/blobs/{digest}?ns={NS}");
        let manifest = format!("/v2/{REPOSITORY}/manifests/{named}?ns={NS}");
        for target in [&blob, &manifest] {
            assert_eq!(server.get(target).status(), 200);
        }
        server.await_blob(&digest);
        Bench { server, tls, authority, blob, manifest, figures: Vec::new() }
    }

    /// Memory of connections that have asked once and stay; each kind beside those before it.
    fn idle(&self, count: u64) {
        let mut kept = Vec::new();
        for door in [Door::Plain, Door::Tls] {
            let before = self.server.rss_bytes();
            for _ in 0..count {
                let mut stream = self.open(door);
                pull(&mut *stream, &self.manifest, 0);
                kept.push(stream);
            }
            let each = self.server.rss_bytes().saturating_sub(before) / count;
            println!("an idle connection, {door:?}: {each} bytes");
        }
    }

    /// Each of the clients pulls the blob until it has had `mib`.
    fn blobs(&mut self, door: Door, clients: u64, mib: u64) {
        let pulls = (mib / BLOB_MIB).max(1);
        let work = |mut stream: Box<dyn Stream>| {
            for _ in 0..pulls {
                pull(&mut *stream, &self.blob, BLOB_MIB << 20);
            }
        };
        let gib = (clients * pulls * BLOB_MIB) as f64 / 1024.0;
        let (wall, cpu) = self.timed(door, clients, &work);
        let name = format!("blobs, {clients} clients: MiB/s, CPU ms a GiB");
        self.add(name, door, gib * 1024.0 / wall, cpu * 1e3 / gib);
    }

    /// The clients ask `count` times in all, over connections that stay as long as they may.
    fn manifests(&mut self, door: Door, clients: u64, count: u64) {
        let work = |mut stream: Box<dyn Stream>| {
            for n in 1..=count / clients {
                pull(&mut *stream, &self.manifest, 0);
                // A connection is closed after 1000 requests.
                if n % 1000 == 0 {
                    stream = self.open(door);
                }
            }
        };
        let (wall, cpu) = self.timed(door, clients, &work);
        let name = format!("manifests, {clients} clients: /s, CPU µs each");
        self.add(name, door, count as f64 / wall, cpu * 1e6 / count as f64);
    }

    /// A connection for each request; by TLS without tickets, so that each is a whole handshake.
    fn connections(&mut self, door: Door, clients: u64, count: u64) {
        let work = |_: Box<dyn Stream>| {
            for _ in 0..count / clients {
                pull(&mut *self.open(door), "/v2/", 0);
            }
        };
        let (wall, cpu) = self.timed(door, clients, &work);
        let name = format!("connections, {clients} clients: /s, CPU µs each");
        self.add(name, door, count as f64 / wall, cpu * 1e6 / count as f64);
    }

    /// Runs `work` for each client; seconds that passed, and seconds of the server's CPU.
    fn timed(
        &self,
        door: Door,
        clients: u64,
        work: &(dyn Fn(Box<dyn Stream>) + Sync),
    ) -> (f64, f64) {
        let streams: Vec<_> = (0..clients).map(|_| self.open(door)).collect();
        let (began, cpu) = (Instant::now(), self.cpu_seconds());
        std::thread::scope(|scope| {
            for stream in streams {
                scope.spawn(move || work(stream));
            }
        });
        (began.elapsed().as_secs_f64(), self.cpu_seconds() - cpu)
    }

    fn open(&self, door: Door) -> Box<dyn Stream> {
        match door {
            Door::Plain => {
                let stream = TcpStream::connect(self.server.addr).unwrap();
                stream.set_nodelay(true).unwrap();
                Box::new(stream)
            }
            Door::Tls => {
                let client = Client::with(&self.authority, &["http/1.1"], ALL_VERSIONS, None);
                let connection = client.connect(self.tls).unwrap();
                connection.stream.sock.set_nodelay(true).unwrap();
                Box::new(connection.stream)
            }
        }
    }

    fn cpu_seconds(&self) -> f64 {
        let path = format!("/proc/{}/stat", self.server.pid());
        let stat = std::fs::read_to_string(path).unwrap();
        let after_name = stat.rsplit(')').next().unwrap();
        let ticks: Vec<u64> =
            after_name.split_whitespace().skip(11).take(2).map(|t| t.parse().unwrap()).collect();
        let second = rustix::param::clock_ticks_per_second();
        (ticks[0] + ticks[1]) as f64 / second as f64
    }

    fn add(&mut self, name: String, door: Door, rate: f64, cost: f64) {
        println!("{name}; {door:?}: {rate:.0}, {cost:.1}");
        match self.figures.iter_mut().find(|row| row.name == name && row.door == door) {
            Some(row) => {
                row.rates.push(rate);
                row.costs.push(cost);
            }
            None => {
                self.figures.push(Row { name, door, rates: vec![rate], costs: vec![cost] });
            }
        }
    }

    fn print(&mut self) {
        println!("\n| | | rate: median (least, most) | CPU: median (least, most) |");
        println!("|---|---|---|---|");
        for Row { name, door, rates, costs } in &mut self.figures {
            let [rate, cost] = [rates, costs].map(|all| {
                all.sort_by(f64::total_cmp);
                (all[all.len() / 2], all[0], all[all.len() - 1])
            });
            println!(
                "| {name} | {door:?} | {:.0} ({:.0}, {:.0}) | {:.0} ({:.0}, {:.0}) |",
                rate.0, rate.1, rate.2, cost.0, cost.1, cost.2
            );
        }
    }
}

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// A request and its whole answer; more than `least` bytes of it.
fn pull(stream: &mut dyn Stream, target: &str, least: u64) {
    let request = format!("GET {target} HTTP/1.1\r\nHost: bench\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream.flush().unwrap();
    let mut buffer = vec![0; 256 << 10];
    let mut filled = 0;
    let end = loop {
        let read = stream.read(&mut buffer[filled..]).unwrap();
        assert!(read > 0, "the end in a head");
        filled += read;
        if let Some(at) = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    let length: u64 = length.unwrap().parse().unwrap();
    assert!(length >= least, "{length} bytes");
    let mut left = length - (filled - end) as u64;
    while left > 0 {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "the end in a body");
        left -= read as u64;
    }
}
