//! The plugin `shard` over three mirrors: each content is fetched from its origin once, however many
//! nodes are asked for it, and a node that dies costs no pull.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "nothing here runs on a worker")]

mod plugin_support;
mod support;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use plugin_support::{Installed, plugin_entry};
use support::chance::Chance;
use support::http::{self, Connection, Ending};
use support::images::{OCI_MANIFEST, random_bytes};
use support::lying::LyingUpstream;
use support::rig::manifest;
use support::server::{Server, Setup, Upstream};
use support::{number_from, ports, secs, tell};

const NODES: usize = 3;
const CLIENTS: usize = 8;
const BLOB_BYTES: usize = 20_000;
/// Of each tenth: so large that clients are sent its beginning before it is here.
const LARGE_BYTES: usize = 300_000;
const NS: &str = "origin.example";

/// Three nodes that share what one origin has.
struct Cluster {
    origin: LyingUpstream,
    nodes: Vec<Server>,
    _plugin: Installed,
}

fn name(node: usize) -> String {
    format!("node-{node}.mirror")
}

/// `lists`: which nodes each node knows of, in which order; itself, if it is among them.
fn cluster(what: &str, lists: [&[usize]; NODES]) -> Cluster {
    let plugin = Installed::built("ringport_plugin_shard");
    let origin = LyingUpstream::start();
    let addrs = [(); NODES].map(|()| ports::free());
    let node = |(at, list): (usize, &&[usize])| {
        let names: Vec<String> = list.iter().map(|node| format!("{:?}", name(*node))).collect();
        let own_name = list.contains(&at).then(|| format!("self = {:?}\n", name(at)));
        let config = format!("{}nodes = [{}]", own_name.unwrap_or_default(), names.join(", "));
        let setup = Setup::new(&format!("{what}-{at}"))
            .at(addrs[at])
            .server("workers = 2")
            .upstream(Upstream::new(NS, &origin.url()).set("tag_ttl = \"1h\""))
            .routing("resolvers = [\"shard\", \"standard\"]")
            .more(&plugin_entry("shard", &plugin.path, &config));
        let others = (0..NODES).filter(|other| *other != at);
        let setup = others.fold(setup, |setup, other| {
            let endpoint = format!("http://{}", addrs[other]);
            setup.upstream(Upstream::new(&name(other), &endpoint).set("forward_ns = true"))
        });
        setup.start()
    };
    let nodes = lists.iter().enumerate().map(node).collect();
    Cluster { origin, nodes, _plugin: plugin }
}

const ALL: [&[usize]; NODES] = [&[0, 1, 2], &[2, 0, 1], &[1, 2, 0]];

/// Content of the origin: path and bytes.
type Blobs = Vec<(String, Vec<u8>)>;

fn add_blobs(origin: &LyingUpstream, count: usize) -> Blobs {
    let blob = |number: usize| {
        let size = if number.is_multiple_of(10) { LARGE_BYTES } else { BLOB_BYTES };
        let bytes = random_bytes(&format!("blob {number}"), size);
        let digest = origin.add_blob("org/app", &bytes);
        (format!("/v2/org/app/blobs/{digest}"), bytes)
    };
    (0..count).map(blob).collect()
}

impl Cluster {
    fn addrs(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.addr).collect()
    }

    /// GETs of the origin, by path.
    fn origin_gets(&self) -> HashMap<String, usize> {
        let mut gets = HashMap::new();
        for seen in self.origin.seen() {
            if seen.request.method == "GET" {
                *gets.entry(seen.request.path.clone()).or_default() += 1;
            }
        }
        gets
    }

    /// Which node owns what this path names, as node 0 tells.
    fn owner(&self, path: &str) -> usize {
        let path = path.replace(':', "%3A");
        let target = format!("/explain?path={path}&ns={NS}");
        let said = http::get(self.nodes[0].admin, &target).text();
        let named = (1..NODES).find(|node| said.contains(&format!("rule: owner {}", name(*node))));
        assert!(named.is_some() || said.contains("resolver: shard declined"), "{said}");
        named.unwrap_or(0)
    }
}

/// Pulls blobs at random from nodes at random, `pulls` in all, by several clients at a time. A
/// client that finds a node gone goes to another, as containerd does with its list of mirrors; any
/// other failure is one. `meanwhile` is called once, when a third is done.
fn pull_all(
    addrs: &[SocketAddr],
    blobs: &Blobs,
    pulls: usize,
    dead: &AtomicUsize,
    meanwhile: impl FnOnce() + Send,
) {
    let (next, is_third) = (AtomicUsize::new(0), AtomicBool::new(false));
    let failures = Mutex::new(Vec::new());
    let (next, is_third, failures_of) = (&next, &is_third, &failures);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let mut chance = Chance::new(client as u64);
                let mut open: HashMap<usize, Connection> = HashMap::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= pulls {
                        break;
                    }
                    is_third.fetch_or(number >= pulls / 3, Ordering::Relaxed);
                    // Every blob at least once.
                    let blob = match number < blobs.len() {
                        true => number,
                        false => chance.below(blobs.len()),
                    };
                    let mut node = chance.below(NODES);
                    let (path, bytes) = &blobs[blob];
                    loop {
                        match pull(&mut open, node, addrs[node], path, bytes) {
                            Ok(()) => break,
                            Err(why) => {
                                open.remove(&node);
                                if node != dead.load(Ordering::SeqCst) {
                                    let at = format!("pull {number}, node {node}: {why}");
                                    failures_of.lock().unwrap().push(at);
                                    break;
                                }
                                node = (node + 1) % NODES;
                            }
                        }
                    }
                }
                is_third.store(true, Ordering::Relaxed);
            });
        }
        support::wait_until("a third of the pulls", secs(300), || is_third.load(Ordering::Relaxed));
        meanwhile();
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {pulls} failed: {:#?}", failures.len(), failures);
}

fn pull(
    open: &mut HashMap<usize, Connection>,
    node: usize,
    addr: SocketAddr,
    path: &str,
    bytes: &[u8],
) -> Result<(), String> {
    for is_new in [false, true] {
        let connection = match open.entry(node) {
            Entry::Occupied(kept) => kept.into_mut(),
            Entry::Vacant(place) => {
                let opened = Connection::try_open(addr);
                place.insert(opened.map_err(|e| format!("no connection: {e}"))?)
            }
        };
        connection.request("GET", &format!("{path}?ns={NS}"), &[]);
        match connection.read_answer("GET") {
            Ok(answer) if answer.status() != 200 => {
                return Err(format!("{} {}", answer.status(), answer.text()));
            }
            Ok(answer) if answer.ending != Ending::Complete => {
                return Err(format!("ended by {:?}", answer.ending));
            }
            Ok(answer) if answer.body != bytes => return Err("wrong bytes".to_owned()),
            Ok(answer) => {
                if answer.header("connection").eq_ignore_ascii_case("close") {
                    open.remove(&node);
                }
                return Ok(());
            }
            // A kept connection may have been closed since its last use.
            Err(_) if !is_new => {
                open.remove(&node);
            }
            Err(e) => return Err(format!("no answer: {e}")),
        }
    }
    Err("no answer twice".to_owned())
}

fn sizes() -> (usize, usize) {
    let pulls = number_from("RINGPORT_SHARD_PULLS", 1_500) as usize;
    let blobs = number_from("RINGPORT_SHARD_BLOBS", 100) as usize;
    assert!(blobs <= pulls, "every blob is pulled");
    (pulls, blobs)
}

#[test]
fn each_content_is_fetched_from_its_origin_once() {
    let (pulls, count) = sizes();
    let cluster = cluster("shard", ALL);
    let blobs = add_blobs(&cluster.origin, count);
    let nobody = AtomicUsize::new(usize::MAX);
    let start = Instant::now();
    pull_all(&cluster.addrs(), &blobs, pulls, &nobody, || {});
    let gets = cluster.origin_gets();
    tell(&format!(
        "shard: {pulls} pulls of {count} blobs over {NODES} nodes: {} origin GETs, {:?}",
        gets.values().sum::<usize>(),
        start.elapsed()
    ));
    for (path, _) in &blobs {
        assert_eq!(gets.get(path), Some(&1), "{path}");
    }
    assert_eq!(gets.values().sum::<usize>(), count, "and nothing else");
    // The work is shared out: every node owns some.
    let mut owned = [0; NODES];
    blobs.iter().for_each(|(path, _)| owned[cluster.owner(path)] += 1);
    assert!(owned.iter().all(|owned| *owned > count / 10), "{owned:?}");
}

#[test]
fn an_image_by_tag_and_by_digest_costs_the_origin_one_request() {
    let cluster = cluster("shard-tags", ALL);
    for number in 0..12 {
        let repository = format!("org/image{number}");
        let body = manifest(&repository);
        let digest = cluster.origin.add_manifest(&repository, "v1", OCI_MANIFEST, &body);
        for node in cluster.nodes.iter().cycle().skip(number).take(6) {
            for reference in ["v1", &digest] {
                let answer = node.get(&format!("/v2/{repository}/manifests/{reference}?ns={NS}"));
                assert_eq!((answer.status(), answer.body.as_slice()), (200, body.as_slice()));
                assert_eq!(answer.header("docker-content-digest"), digest);
                assert_eq!(answer.header("oci-namespace"), NS);
            }
        }
    }
    assert_eq!(cluster.origin.requests(), 12, "{:?}", cluster.origin_gets());
}

#[test]
fn a_node_that_dies_costs_no_pull() {
    let (pulls, count) = sizes();
    let mut cluster = cluster("shard-killed", ALL);
    let blobs = add_blobs(&cluster.origin, count);
    let owners: Vec<usize> = blobs.iter().map(|(path, _)| cluster.owner(path)).collect();
    let killed = NODES - 1;
    let addrs = cluster.addrs();
    let dead = AtomicUsize::new(usize::MAX);
    let victim = &mut cluster.nodes[killed];
    pull_all(&addrs, &blobs, pulls, &dead, || {
        dead.store(killed, Ordering::SeqCst);
        victim.kill();
    });
    let gets = cluster.origin_gets();
    let mut more = 0;
    for ((path, _), owner) in blobs.iter().zip(&owners) {
        // What a survivor owns goes through it to the end. What the dead one owned may have been
        // fetched by it, and then by each survivor that had not yet got it from there.
        let most = if *owner == killed { NODES } else { 1 };
        let found = gets.get(path).copied().unwrap_or_default();
        assert!((1..=most).contains(&found), "{path}, owned by node {owner}: {found} GETs");
        more += found - 1;
    }
    let lost = owners.iter().filter(|owner| **owner == killed).count();
    tell(&format!(
        "shard: {pulls} pulls of {count} blobs, node {killed} killed in the middle, which owned \
         {lost}: no pull failed, {more} origin GETs more (at most {})",
        (NODES - 1) * lost
    ));
}

#[test]
fn lists_that_disagree_cost_a_fetch_and_no_loop() {
    // Each takes another one for the owner of everything: 0 would ask 1, which would ask 2, which
    // would ask 0. Lists of the same names can't do this: of weights that all agree on, one is
    // the highest.
    let cluster = cluster("shard-loop", [&[1], &[2], &[0]]);
    let blobs = add_blobs(&cluster.origin, 30);
    for (path, bytes) in &blobs {
        for node in &cluster.nodes {
            let answer = node.get(&format!("{path}?ns={NS}"));
            assert!(answer.status() == 200 && answer.body == *bytes, "{:?}", answer.head);
        }
    }
    let gets = cluster.origin_gets();
    // Each node fetched it for the one that asked it, and none for more.
    for (path, _) in &blobs {
        assert!((1..=NODES).contains(&gets[path]), "{path}: {}", gets[path]);
    }
    for node in &cluster.nodes {
        let asked = node.metric("ringport_requests_total", &["route_kind=\"blob\""]);
        // By the client, and by one node that does not own it either.
        assert!(asked <= 2.0 * blobs.len() as f64, "{asked} requests for {} blobs", blobs.len());
        assert_eq!(node.metric("ringport_requests_total", &["status=\"502\""]), 0.0);
        assert_eq!(node.metric("ringport_requests_total", &["status=\"504\""]), 0.0);
    }
}
