//! The closed world: nothing that a client writes into `ns`, a header, a path or `Host` makes a
//! connection leave for anything that is not declared.
//!
//! `RINGPORT_ATTACK_SECONDS` is how long the random attack lasts (default 5; the full run is 60).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::http::{self, Connection};
use support::images::{OCI_MANIFEST, random_bytes};
use support::listener::Listener;
use support::lying::LyingUpstream;
use support::rig::{NS, REPOSITORY, declared, manifest};
use support::server::{Server, Setup};
use support::sockets;

const UNKNOWN: &[u16] = &[404];
const INVALID: &[u16] = &[400];
const EITHER: &[u16] = &[400, 404];
const SERVED: &[u16] = &[200];

struct World {
    upstream: LyingUpstream,
    /// Declared as other.example, and it holds nothing.
    other: LyingUpstream,
    server: Server,
    decoys: Vec<Listener>,
    watch: Watch,
}

impl World {
    fn new(what: &str) -> World {
        let upstream = LyingUpstream::start();
        upstream.add_manifest(REPOSITORY, "v1", OCI_MANIFEST, &manifest("v1"));
        let other = LyingUpstream::start();
        let server = Setup::new(what)
            .upstream(declared(&upstream))
            .upstream(support::server::Upstream::new("other.example", &other.url()))
            .routing("default_upstream = \"lying.example\"")
            .start();
        let decoys = [[127, 0, 0, 1], [127, 0, 0, 2], [127, 6, 6, 6]].map(Listener::decoy).into();
        let watch = Watch::start(&server, &[upstream.addr(), other.addr()]);
        World { upstream, other, server, decoys, watch }
    }

    /// Nobody was dialled but what is declared.
    #[track_caller]
    fn assert_closed(&mut self) {
        for decoy in &self.decoys {
            assert_eq!(decoy.accepted(), 0, "{} was dialled", decoy.addr());
        }
        assert_eq!(self.watch.strangers(), Vec::<sockets::Socket>::new());
        self.server.assert_alive();
    }

    /// The status of a manifest request with this raw query and these headers.
    fn ask(&self, path: &str, query: &str, headers: &[(&str, &str)]) -> http::Answer {
        let joint = if query.is_empty() { "" } else { "?" };
        let target = format!("/v2/{path}/manifests/v1{joint}{query}");
        http::get_with(self.server.addr, &target, headers)
    }
}

/// Looks every few milliseconds at the sockets of the server, for one that goes elsewhere: a dial
/// to an address that does not answer stands there for seconds, a name look-up for less.
struct Watch {
    stop: Arc<AtomicBool>,
    found: Arc<Mutex<Vec<sockets::Socket>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    fn start(server: &Server, allowed: &[SocketAddr]) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let found = Arc::new(Mutex::new(Vec::new()));
        let (stopped, list) = (Arc::clone(&stop), Arc::clone(&found));
        let (pid, own) = (server.pid(), [server.addr, server.admin]);
        let allowed = allowed.to_vec();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                for socket in sockets::connected(pid) {
                    if !own.contains(&socket.local) && !allowed.contains(&socket.remote) {
                        list.lock().unwrap().push(socket);
                    }
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Watch { stop, found, thread: Some(thread) }
    }

    fn strangers(&self) -> Vec<sockets::Socket> {
        self.found.lock().unwrap().clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Values of `ns` as they stand in the query, and what each must be answered with.
fn attacks(decoy: SocketAddr) -> Vec<(String, &'static [u16])> {
    let port = decoy.port();
    let mut list: Vec<(String, &'static [u16])> = [
        ("169.254.169.254", UNKNOWN),
        ("127.0.0.1:22", UNKNOWN),
        ("localhost", UNKNOWN),
        ("registry-1.docker.io", UNKNOWN),
        ("metadata.google.internal", UNKNOWN),
        ("a@b", INVALID),
        ("user:pw@lying.example", INVALID),
        ("a%40b", INVALID),
        ("%2e%2e", INVALID),
        ("..", INVALID),
        ("%2e%2e%2f%2e%2e", INVALID),
        ("lying.example/..", INVALID),
        ("lying.example%2F..", INVALID),
        ("http://lying.example", INVALID),
        ("http%3A%2F%2Flying.example", INVALID),
        ("//lying.example", INVALID),
        ("LYING.EXAMPLE", SERVED),
        ("Lying.Example", SERVED),
        ("lying.example:443", SERVED),
        ("lying%2Eexample", SERVED),
        // The default port of http is one that a header with a scheme may carry.
        ("lying.example:80", &[200, 404]),
        ("lying.example:0", EITHER),
        ("lying.example:65536", INVALID),
        ("lying.example:", INVALID),
        ("lying.example.", INVALID),
        ("lying%252Eexample", INVALID),
        ("lying.example%00", INVALID),
        ("lying.example%0d%0aX:y", INVALID),
        ("lying.example%20", INVALID),
        ("+lying.example", INVALID),
        ("lying.example%zz", INVALID),
        ("lying.example%", INVALID),
        ("l%C3%BDing.example", INVALID),
        ("%E2%93%9Bying.example", INVALID),
        ("[::1]", UNKNOWN),
        ("[::ffff:127.0.0.1]", EITHER),
        ("::1", INVALID),
        ("[::1", INVALID),
        ("[fe80::1%25eth0]", INVALID),
        ("2130706433", EITHER),
        ("0x7f000001", EITHER),
        ("0177.0.0.1", EITHER),
        ("127.1", EITHER),
        ("0.0.0.0", UNKNOWN),
        ("", INVALID),
        ("lying.example&ns=lying.example", INVALID),
        ("lying.example&ns=other.example", INVALID),
        ("other.example&n%73=lying.example", INVALID),
        ("lying.example,other.example", INVALID),
        ("lying.example#x", INVALID),
        ("*", INVALID),
    ]
    .map(|(ns, status)| (ns.to_owned(), status))
    .into();
    list.extend([
        (format!("127.0.0.1:{port}"), UNKNOWN),
        (format!("127.0.0.1%3A{port}"), UNKNOWN),
        (format!("localhost:{port}"), UNKNOWN),
        (format!("[::1]:{port}"), UNKNOWN),
        (format!("lying.example@127.0.0.1:{port}"), INVALID),
        (format!("lying.example%40127.0.0.1:{port}"), INVALID),
        ("a".repeat(300), INVALID),
        (format!("{}.example", "a.".repeat(146)), INVALID),
    ]);
    list
}

#[test]
fn each_ns_has_its_answer_and_no_connection_leaves() {
    let mut world = World::new("ns");
    for (ns, statuses) in attacks(world.decoys[0].addr()) {
        let answer = world.ask(REPOSITORY, &format!("ns={ns}"), &[]);
        let status = answer.status();
        assert!(statuses.contains(&status), "ns={ns}: {status} {}", answer.text());
        match status {
            404 => assert_eq!(answer.error_code(), "NAME_UNKNOWN", "ns={ns}"),
            400 => assert_ne!(answer.error_code(), "", "ns={ns}: {}", answer.text()),
            // As it was asked for or in its canonical form: both are this one.
            _ => {
                let told = answer.header("oci-namespace").to_ascii_lowercase();
                let host = told.trim_end_matches(":443").trim_end_matches(":80");
                assert_eq!(host, NS, "ns={ns}");
            }
        }
    }
    world.assert_closed();
    assert_eq!(world.upstream.count("GET", &format!("/v2/{REPOSITORY}/manifests/v1")), 1);
}

#[test]
fn headers_and_paths_name_declared_upstreams_only() {
    let mut world = World::new("ways");
    let port = world.decoys[0].addr().port();
    let decoy = format!("127.0.0.1:{port}");
    for (value, statuses) in [
        ("lying.example".to_owned(), SERVED),
        ("https://lying.example".to_owned(), SERVED),
        ("http://169.254.169.254".to_owned(), UNKNOWN),
        (format!("http://{decoy}"), UNKNOWN),
        (decoy.clone(), UNKNOWN),
        (format!("https://a@{decoy}"), INVALID),
        ("https://lying.example/../x".to_owned(), INVALID),
        ("file:///etc/passwd".to_owned(), INVALID),
    ] {
        let answer = world.ask(REPOSITORY, "", &[("X-Dragonfly-Registry", &value)]);
        let status = answer.status();
        assert!(statuses.contains(&status), "header {value}: {status} {}", answer.text());
    }
    for (path, statuses) in [
        (format!("lying.example/{REPOSITORY}"), SERVED),
        (format!("proxy/lying.example/{REPOSITORY}"), SERVED),
        (format!("169.254.169.254/{REPOSITORY}"), UNKNOWN),
        (format!("{decoy}/{REPOSITORY}"), UNKNOWN),
        (format!("proxy/{decoy}/{REPOSITORY}"), UNKNOWN),
        (format!("localhost:{port}/{REPOSITORY}"), UNKNOWN),
        (format!("a@{decoy}/{REPOSITORY}"), EITHER),
        (format!("%6cying.example/../{decoy}/{REPOSITORY}"), EITHER),
    ] {
        let answer = world.ask(&path, "", &[]);
        let status = answer.status();
        assert!(statuses.contains(&status), "path {path}: {status} {}", answer.text());
    }
    // What is for the connection says nothing about where to go.
    let host = world.ask(REPOSITORY, "", &[("Host", "169.254.169.254")]);
    assert_eq!(host.status(), 200, "{}", host.text());
    let forwarded = [("X-Forwarded-Host", decoy.as_str()), ("Forwarded", "host=169.254.169.254")];
    assert_eq!(world.ask(REPOSITORY, "", &forwarded).status(), 200);
    let mut connection = world.server.connect();
    connection.send(format!(
        "GET http://{decoy}/v2/{REPOSITORY}/manifests/v1 HTTP/1.1\r\nHost: {decoy}\r\n\r\n"
    ));
    let absolute = connection.read_answer("GET").unwrap();
    assert!(matches!(absolute.status(), 200 | 400), "{:?}", absolute.head);
    world.assert_closed();
}

#[test]
fn two_ways_that_disagree_are_400() {
    let mut world = World::new("disagree");
    let by_path = format!("other.example/{REPOSITORY}");
    let header = |value: &'static str| [("X-Dragonfly-Registry", value)];
    for (path, query, headers) in [
        (REPOSITORY, "ns=lying.example", &header("https://other.example")[..]),
        (&by_path, "ns=lying.example", &[][..]),
        (&by_path, "", &header("lying.example")[..]),
        (
            REPOSITORY,
            "",
            &[("X-Dragonfly-Registry", "lying.example"), ("X-Dragonfly-Registry", "other.example")],
        ),
    ] {
        let answer = world.ask(path, query, headers);
        assert_eq!(answer.status(), 400, "{path}?{query} {headers:?}: {}", answer.text());
    }
    // Agreeing is well.
    let path = format!("lying.example/{REPOSITORY}");
    let all = world.ask(&path, "ns=LYING.example:443", &header("https://lying.example"));
    assert_eq!(all.status(), 200, "{}", all.text());
    world.assert_closed();
}

#[test]
fn what_one_upstream_gave_is_not_given_for_another() {
    let mut world = World::new("cross");
    assert_eq!(world.ask(REPOSITORY, "ns=lying.example", &[]).status(), 200);
    let bytes = random_bytes("cross", 1000);
    let digest = world.upstream.add_blob(REPOSITORY, &bytes);
    let blob = |ns: &str| world.server.get(&format!("/v2/{REPOSITORY}/blobs/{digest}?ns={ns}"));
    assert_eq!(blob("lying.example").status(), 200);
    // Neither the tag nor, without the other upstream's word, the content.
    let asked = world.other.requests();
    assert_eq!(world.ask(REPOSITORY, "ns=other.example", &[]).status(), 404);
    assert_eq!(blob("other.example").status(), 404, "knowing a digest is no permission");
    assert!(world.other.requests() > asked, "it was asked for its word");
    let other = format!("/v2/org/other/blobs/{digest}?ns=lying.example");
    assert_eq!(world.server.get(&other).status(), 404, "nor is another repository's");
    world.assert_closed();
}

#[test]
fn seconds_of_random_attacks() {
    let seconds = std::env::var("RINGPORT_ATTACK_SECONDS").ok().and_then(|s| s.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(5));
    let mut world = World::new("attack");
    let addr = world.server.addr;
    let ports: Vec<u16> = world.decoys.iter().map(|d| d.addr().port()).collect();
    let attackers: Vec<_> = (0..4)
        .map(|n| {
            let list = attacks(SocketAddr::from(([127, 0, 0, 1], ports[n % ports.len()])));
            std::thread::spawn(move || attack(addr, n, &list, end))
        })
        .collect();
    let mut counts = BTreeMap::new();
    for attacker in attackers {
        for (status, count) in attacker.join().expect("an attacker that does not panic") {
            *counts.entry(status).or_insert(0) += count;
        }
    }
    eprintln!("answers: {counts:?}");
    assert!(counts.values().sum::<u64>() > 100, "{counts:?}");
    for status in counts.keys() {
        assert!([200, 400, 404, 405, 414, 431].contains(status), "{counts:?}");
    }
    world.assert_closed();
}

/// Sends mutated attacks until `end`; how often each status came back.
fn attack(
    addr: SocketAddr,
    seed: usize,
    list: &[(String, &'static [u16])],
    end: Instant,
) -> BTreeMap<u16, u64> {
    let mut counts = BTreeMap::new();
    let noise = random_bytes(&format!("attack-{seed}"), 1 << 20);
    let mut at = 0;
    let mut next = move |bound: usize| {
        at = (at + 2) % (noise.len() - 2);
        usize::from(u16::from_le_bytes([noise[at], noise[at + 1]])) % bound
    };
    let mut connection = Connection::open(addr);
    while Instant::now() < end {
        let mut ns = list[next(list.len())].0.clone().into_bytes();
        for _ in 0..next(3) {
            let byte = b"%.:@/[]0a&=-_"[next(13)];
            let place = next(ns.len() + 1);
            ns.insert(place, byte);
        }
        let ns = String::from_utf8_lossy(&ns).into_owned();
        let kind = ["manifests/v1", "tags/list", "blobs/sha256:00"][next(3)];
        let target = match next(3) {
            0 => format!("/v2/{REPOSITORY}/{kind}?ns={ns}"),
            1 => format!("/v2/{ns}/{REPOSITORY}/{kind}"),
            _ => format!("/v2/proxy/{ns}/{REPOSITORY}/{kind}?ns={ns}"),
        };
        let value = format!("http://{ns}");
        let headers = [("X-Dragonfly-Registry", value.as_str())];
        connection.request("GET", &target, if next(4) == 0 { &headers } else { &[] });
        match connection.read_answer("GET") {
            Ok(answer) => {
                *counts.entry(answer.status()).or_insert(0) += 1;
                if answer.header("connection") == "close" {
                    connection = Connection::open(addr);
                }
            }
            Err(_) => connection = Connection::open(addr),
        }
    }
    counts
}
