//! A trace of lazy pulls: what clients like the stargz snapshotter ask of layers that nobody has.
//! How long the first byte of each range takes beside the upstream's own time, and what the
//! upstream has to send for it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use support::chance::Chance;
use support::http::{Connection, Ending};
use support::images::random_bytes;
use support::lying::{Answer, LyingUpstream};
use support::rig::{NS, REPOSITORY, declared};
use support::server::Setup;
use support::{ms, secs, tell, wait_until};

const CLIENTS: usize = 20;
/// Where a layer's table of contents begins, from its end, and what finds it.
const TOC: usize = 40 << 10;
const FOOTER: usize = 51;

/// What a process does with what it has read, before it reads on.
const THINKING: Duration = ms(20);

struct Layer {
    bytes: Vec<u8>,
    digest: String,
    path: String,
    /// Chunks of the files that every start of the image reads.
    hot: Vec<(usize, usize)>,
}

/// One range of one layer.
#[derive(Clone, Copy)]
struct Ask {
    layer: usize,
    first: usize,
    end: usize,
}

fn layers(count: usize, size: usize) -> Vec<Layer> {
    let mut chance = Chance::new(7);
    let chunk = |chance: &mut Chance| {
        // 4 KiB to 512 KiB, the small ones as often as the large ones.
        let length = (4 << 10 << chance.below(8)) - chance.below(4 << 10);
        let first = chance.below(size - TOC - length);
        (first, first + length)
    };
    let layer = |number: usize| {
        let bytes = random_bytes(&format!("layer {number}"), size);
        let digest = support::images::sha256(&bytes);
        let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
        Layer { bytes, digest, path, hot: (0..16).map(|_| chunk(&mut chance)).collect() }
    };
    (0..count).map(layer).collect()
}

/// What one client asks for: of each layer it comes to the footer and the table of contents first,
/// then chunks, most of them of files that the others read, too.
fn trace(client: usize, ranges: usize, layers: &[Layer]) -> Vec<Ask> {
    let mut chance = Chance::new(1000 + client as u64);
    let mut known = vec![0; layers.len()];
    let mut asks = Vec::new();
    while asks.len() < ranges {
        let layer = chance.below(layers.len());
        let Layer { bytes, hot, .. } = &layers[layer];
        let size = bytes.len();
        known[layer] += 1;
        let (first, end) = match known[layer] {
            1 => (size - FOOTER, size),
            2 => (size - TOC, size - FOOTER),
            _ if chance.percent(70) => *chance.of(hot),
            _ => {
                let first = chance.below(size - TOC);
                (first, (first + (64 << 10)).min(size))
            }
        };
        asks.push(Ask { layer, first, end });
    }
    asks
}

/// How a range was answered.
struct Given {
    first_byte: Duration,
    cache_status: String,
}

/// All clients go through their traces at the same time.
fn replay(addr: SocketAddr, query: &str, layers: &Arc<Vec<Layer>>, each: usize) -> Vec<Given> {
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (layers, query) = (layers.clone(), query.to_owned());
            std::thread::spawn(move || {
                let mut connection = Connection::open(addr);
                let ask = |Ask { layer, first, end }: Ask| {
                    std::thread::sleep(THINKING);
                    let layer = &layers[layer];
                    let value = format!("bytes={first}-{}", end - 1);
                    let target = format!("{}{query}", layer.path);
                    let got = connection.exchange("GET", &target, &[("Range", &value)]);
                    assert_eq!((got.status(), got.ending), (206, Ending::Complete), "{value}");
                    assert!(got.body == layer.bytes[first..end], "wrong bytes: {value}");
                    let cache_status = got.header("cache-status").to_owned();
                    Given { first_byte: got.first_byte_after.unwrap(), cache_status }
                };
                trace(client, each, &layers).into_iter().map(ask).collect::<Vec<_>>()
            })
        })
        .collect();
    clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
}

fn upstream(layers: &[Layer]) -> LyingUpstream {
    let upstream = LyingUpstream::start();
    for layer in layers {
        upstream.add_blob(REPOSITORY, &layer.bytes);
    }
    // 30 ms away, 32 MiB a second on each connection.
    upstream.script_everything(Some(Answer::right().after(ms(30)).paced(64 << 10, ms(2))));
    upstream
}

/// The value below which so many of a hundred are.
fn percentile(sorted: &[f64], of_hundred: usize) -> f64 {
    sorted[(sorted.len() - 1) * of_hundred / 100]
}

fn percentiles(what: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let [p50, p90, p99] = [50, 90, 99].map(|part| percentile(&values, part));
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    tell(&format!("{what}: mean {mean:.2}, p50 {p50:.2}, p90 {p90:.2}, p99 {p99:.2}"));
}

#[test]
fn lazy_pulls_cost_the_upstream_each_byte_once() {
    let ranges = support::number_from("RINGPORT_TEST_RANGES", 240) as usize;
    let (count, size) = if ranges >= 2000 { (30, 12 << 20) } else { (6, 4 << 20) };
    let layers = Arc::new(layers(count, size));
    let each = ranges.div_ceil(CLIENTS);
    let alone = upstream(&layers);
    let direct = replay(alone.addr(), "", &layers, each);

    let behind = upstream(&layers);
    let server = Setup::new("lazy-trace")
        .upstream(declared(&behind).set("cold_ranges = \"unverified\""))
        .start();
    let ours = replay(server.addr, &format!("?ns={NS}"), &layers, each);
    for layer in layers.iter() {
        wait_until("a layer to be stored", secs(120), || server.has_blob(&layer.digest));
    }
    wait_until("all fills to be over", secs(20), || {
        server.metric("ringport_sparse_fills", &[]) == 0.0
    });
    server.assert_store_is_right();

    let sent: u64 = layers.iter().map(|layer| behind.bytes_sent(&layer.path)).sum();
    let content = (count * size) as f64;
    let cost = sent as f64 / content;
    tell(&format!("{} ranges of {count} layers of {} MiB", ours.len(), size >> 20));
    let millis = |given: &Given| given.first_byte.as_secs_f64() * 1e3;
    percentiles("first byte at the upstream, ms", direct.iter().map(millis).collect());
    percentiles("first byte through us, ms", ours.iter().map(millis).collect());
    for kind in ["hit", "collapsed", "fwd"] {
        let is_kind = |given: &&Given| match given.cache_status.as_str() {
            it if it.contains("hit") => kind == "hit",
            it if it.contains("collapsed") => kind == "collapsed",
            _ => kind == "fwd",
        };
        let of_kind: Vec<f64> = ours.iter().filter(is_kind).map(millis).collect();
        if !of_kind.is_empty() {
            percentiles(&format!("  of these {} {kind}", of_kind.len()), of_kind);
        }
    }
    let pairs = || ours.iter().zip(&direct).map(|(ours, theirs)| (millis(ours), millis(theirs)));
    let within = pairs().filter(|(ours, theirs)| *ours <= theirs * 1.2).count();
    let (sum, theirs) = pairs().fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    tell(&format!(
        "{:.2} x the upstream's own time; {:.1} % of the ranges within 1.2 x of it",
        sum / theirs,
        within as f64 * 100.0 / ours.len() as f64,
    ));
    let requests = server.metric("ringport_ranges_fetched_total", &[]);
    tell(&format!("upstream bytes: {cost:.4} x content, {requests} requests"));
    assert!(cost <= 1.05, "{cost} x content");
}
