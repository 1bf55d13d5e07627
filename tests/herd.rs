//! One fetch: a thousand clients that want the same missing thing at the same moment cause one
//! upstream request, whoever of them goes away, in bounded memory.
//!
//! `RINGPORT_HERD_CLIENTS=10000` is the full form; it needs 20,000 descriptors in each process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::JoinHandle;
use support::gate::Gate;
use support::http::{Connection, Ending};
use support::images::{OCI_MANIFEST, random_bytes, sha256};
use support::lying::{Answer, LyingUpstream};
use support::rig::{NS, REPOSITORY, Rig, declared, manifest};
use support::server::{Setup, Upstream};
use support::token_server::TokenServer;
use support::{secs, tell};

/// So many clients, unless the environment says otherwise.
const CLIENTS: usize = 1000;
/// What that many of them pull; more clients pull less each.
const BLOB: usize = 64 << 20;
/// What all clients together use to read into.
const BUFFERS: usize = 128 << 20;
/// What one client may cost the server.
const RSS_A_CLIENT: u64 = 64 << 10;
/// Where each client makes a fill of its own: with its connection upstream and its staging file.
const RSS_A_FILL: u64 = 64 << 10;

/// The tests measure memory and time; they take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> std::sync::MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn clients() -> usize {
    support::number_from("RINGPORT_HERD_CLIENTS", CLIENTS as u64) as usize
}

/// A rig whose server takes as many connections as there are clients.
fn rig(what: &str, size: usize, change: impl FnOnce(Upstream) -> Upstream) -> Rig {
    let upstream = LyingUpstream::start();
    let connections = format!("connections_max = {}", 2 * clients() + 100);
    let setup = Setup::new(what).server(&connections);
    let server = setup.upstream(change(declared(&upstream))).start();
    Rig::of(upstream, server, size)
}

/// Runs `client` on `clients()` threads with small stacks; each gets its number.
fn herd<R: Send + 'static>(
    client: impl Fn(usize) -> R + Send + Sync + 'static,
) -> Vec<JoinHandle<R>> {
    let client = Arc::new(client);
    (0..clients())
        .map(|n| {
            let client = Arc::clone(&client);
            std::thread::Builder::new()
                .stack_size(256 << 10)
                .spawn(move || client(n))
                .expect("a thread for each client")
        })
        .collect()
}

#[test]
fn a_thousand_cold_gets_of_one_blob_are_one_upstream_get() {
    let _turn = turn();
    let size = if clients() > CLIENTS { 1 << 20 } else { BLOB };
    let rig = rig("herd-blob", size, |u| u.set("stall_timeout = \"120s\""));
    // An eighth of the blob, then nothing until everybody is reading.
    let gate = Gate::new();
    rig.upstream.script("GET", &rig.path, [Answer::right().held_at(size / 8, &gate)]);
    let before = rig.server.rss_bytes();
    rig.server.forget_rss_peak();
    let peak_before = rig.server.rss_peak_bytes();

    let mut first = rig.server.connect();
    first.request("GET", &rig.target, &[]);
    assert_eq!(first.read_head().unwrap().status, 200);
    assert!(first.read_exactly(100_000).unwrap() == rig.bytes[..100_000]);

    let reading = Arc::new(AtomicUsize::new(0));
    let expected = Arc::new(rig.bytes.clone());
    let (addr, target) = (rig.server.addr, rig.target.clone());
    let count = Arc::clone(&reading);
    let followers = herd(move |n| read_and_compare(n, addr, &target, &expected, &count));
    support::wait_until(
        "every follower's first byte while the fill stands still",
        secs(120),
        || reading.load(Ordering::SeqCst) == clients(),
    );
    // The one that started it goes away in the middle.
    first.reset();
    gate.open();
    let mut right = 0;
    for client in followers {
        match client.join().expect("a client that does not panic") {
            Ok(()) => right += 1,
            Err(reason) => eprintln!("{reason}"),
        }
    }
    // The herd of the issue is 1,000 with the first gone: here the first comes on top.
    assert_eq!(right, clients(), "right bodies");
    assert_eq!(rig.upstream.count("GET", &rig.path), 1, "upstream GETs");
    assert_eq!(rig.upstream.bytes_sent(&rig.path), size as u64, "upstream bytes");

    let peak = rig.server.rss_peak_bytes().saturating_sub(peak_before);
    let grown = rig.server.rss_bytes().saturating_sub(before);
    tell(&format!("{} clients: peak +{} KiB, after +{} KiB", clients(), peak >> 10, grown >> 10));
    assert!(peak < RSS_A_CLIENT * clients() as u64, "{} bytes a client", peak / clients() as u64);
    rig.server.await_blob(&rig.digest);
    rig.server.await_empty_staging(secs(10));
    rig.server.assert_store_is_right();
}

/// Reads a whole body and compares each piece with what it should be; nothing is kept.
fn read_and_compare(
    n: usize,
    addr: std::net::SocketAddr,
    target: &str,
    expected: &[u8],
    reading: &AtomicUsize,
) -> Result<(), String> {
    let mut connection = Connection::open(addr);
    connection.set_read_timeout(secs(180));
    connection.request("GET", target, &[]);
    let head = connection.read_head().map_err(|e| format!("client {n}: {e}"))?;
    if head.status != 200 || head.headers.number("content-length") != Some(expected.len() as u64) {
        return Err(format!("client {n}: {head:?}"));
    }
    let mut buffer = vec![0; BUFFERS / clients()];
    let mut at = 0;
    while at < expected.len() {
        let got = connection.read_some(&mut buffer).map_err(|e| format!("client {n}: {e}"))?;
        if got == 0 {
            return Err(format!("client {n}: cut short at {at}"));
        }
        if expected.get(at..at + got) != Some(&buffer[..got]) {
            return Err(format!("client {n}: wrong bytes between {at} and {}", at + got));
        }
        if at == 0 {
            reading.fetch_add(1, Ordering::SeqCst);
        }
        at += got;
    }
    Ok(())
}

#[test]
fn a_thousand_cold_gets_of_one_tag_are_one_upstream_get() {
    let _turn = turn();
    let rig = rig("herd-tag", 1000, |u| u.set("first_byte_timeout = \"60s\""));
    let expected = Arc::new(manifest("herd"));
    let digest = rig.upstream.add_manifest(REPOSITORY, "latest", OCI_MANIFEST, &expected);
    let path = rig.manifest_path("latest");
    let gate = Gate::new();
    rig.upstream.script("*", &path, [Answer::right().held(&gate)]);
    let sent = Arc::new(Barrier::new(clients() + 1));
    rig.server.forget_rss_peak();
    let before = rig.server.rss_peak_bytes();
    let (addr, target) = (rig.server.addr, rig.manifest_target("latest"));
    let all_sent = Arc::clone(&sent);
    let body = Arc::clone(&expected);
    let askers = herd(move |_| {
        let mut connection = Connection::open(addr);
        connection.request("GET", &target, &[]);
        all_sent.wait();
        let answer = connection.read_answer("GET").expect("an answer");
        answer.status() == 200 && answer.body == *body && answer.ending == Ending::Complete
    });
    sent.wait();
    gate.await_arrivals(1, secs(10));
    gate.open();
    let right = askers.into_iter().filter_map(|client| client.join().ok());
    assert_eq!(right.filter(|&right| right).count(), clients());
    let grown = rig.server.rss_peak_bytes().saturating_sub(before);
    tell(&format!("{} clients wait for a tag: +{} KiB at the peak", clients(), grown >> 10));
    assert!(grown < RSS_A_CLIENT * clients() as u64, "{grown} bytes");
    assert_eq!(rig.upstream.count("GET", &path), 1, "upstream GETs");
    assert!(rig.upstream.count("HEAD", &path) <= 1, "upstream HEADs");
    assert!(rig.server.has_blob(&digest));
}

#[test]
fn a_thousand_cold_gets_that_need_one_token_are_one_token_request() {
    let _turn = turn();
    let tokens = TokenServer::start();
    tokens.conduct(|c| {
        c.fixed_token = Some("right".to_owned());
        c.delay = support::ms(500);
    });
    let realm = tokens.realm_host();
    let rig = rig("herd-token", 1000, |u| {
        u.set(&format!("token_realms = [\"{realm}\"]"))
            .set("fills_max = 2000")
            .set("first_byte_timeout = \"20s\"")
            .set("connect_timeout = \"10s\"")
    });
    rig.server.forget_rss_peak();
    let before = rig.server.rss_peak_bytes();
    rig.upstream.require("Bearer right", &tokens.challenge(REPOSITORY));
    // A blob of its own for each, so that nothing but the token is shared; beyond a thousand there
    // would be too few descriptors for the upstream's connections.
    let blobs: Vec<Vec<u8>> =
        (0..CLIENTS).map(|n| random_bytes(&format!("token-{n}"), 300)).collect();
    for blob in &blobs {
        rig.upstream.add_blob(REPOSITORY, blob);
    }
    let addr = rig.server.addr;
    let askers = herd(move |n| {
        let blob = &blobs[n % blobs.len()];
        let target = format!("/v2/{REPOSITORY}/blobs/{}?ns={NS}", sha256(blob));
        let answer = Connection::open(addr).exchange("GET", &target, &[]);
        let right = answer.status() == 200 && answer.body == *blob;
        if !right {
            eprintln!("client {n}: {:?} {}", answer.head, answer.text());
        }
        right
    });
    let right = askers.into_iter().filter_map(|client| client.join().ok());
    assert_eq!(right.filter(|&right| right).count(), clients());
    assert_eq!(tokens.requests().len(), 1, "token requests");
    let grown = rig.server.rss_peak_bytes().saturating_sub(before);
    tell(&format!("{} clients and one token: +{} KiB at the peak", clients(), grown >> 10));
    assert!(grown < (RSS_A_CLIENT + RSS_A_FILL) * clients() as u64, "{grown} bytes");
}

#[test]
fn a_fill_outlives_all_of_its_clients() {
    let _turn = turn();
    let size = 4 << 20;
    let rig = Rig::with("herd-none", size, |u| u.set("stall_timeout = \"60s\""));
    let gate = Gate::new();
    rig.upstream.script("GET", &rig.path, [Answer::right().held_at(size / 2, &gate)]);
    for _ in 0..10 {
        let mut connection = rig.server.connect();
        connection.request("GET", &rig.target, &[]);
        connection.read_head().unwrap();
        connection.read_exactly(1000).unwrap();
        connection.reset();
    }
    gate.open();
    rig.server.await_blob(&rig.digest);
    assert_eq!(rig.expect_right().header("content-length"), size.to_string());
    assert_eq!(rig.upstream.count("GET", &rig.path), 1);
}

#[test]
fn a_client_that_does_not_read_holds_nobody_up() {
    let _turn = turn();
    let size = 32 << 20;
    let rig = Rig::new("herd-lazy", size);
    let mut lazy: Vec<Connection> = (0..20).map(|_| rig.server.connect()).collect();
    for connection in &mut lazy {
        connection.request("GET", &rig.target, &[]);
    }
    let before = rig.server.rss_bytes();
    let started = std::time::Instant::now();
    rig.expect_right();
    assert!(started.elapsed() < secs(30), "{:?}", started.elapsed());
    let grown = rig.server.rss_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes for clients that do not read");
    drop(lazy);
}
