//! Far more than a store holds is pulled through it by 64 clients: a CI platform's trace, as
//! `benches/eviction` makes it up, with synthetic content and a clock that goes with it. No pull
//! fails, the disk never holds more than it may, and the table at the end compares what was found
//! in the store with what LRU and others would have kept of the same requests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod soak_support;
mod support;

use ringport_bench_eviction::policies::{Kind, Request, SHIPPED};
use ringport_bench_eviction::replay::{Cache, Room};
use ringport_bench_eviction::trace::{Trace, TraceOptions};
use sha2::{Digest as _, Sha256};
use soak_support::clock::Clock;
use soak_support::origin::{Content, Origin, REPOSITORY, hex_digest};
use soak_support::sampler::Sampler;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use support::http::Connection;
use support::images::ACCEPT;
use support::mounts::Tmpfs;
use support::rig::NS;
use support::scratch::Scratch;
use support::server::{Setup, Upstream};
use support::{number_from, secs, tell};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const CLIENTS: usize = 64;
/// In a store of this many bytes, content is as large as in the trace; the largest is 1/16 of it.
const TRUE_SIZE: u64 = 5 * GIB;

/// One request, in the order in which they were sent.
#[derive(Clone, Copy)]
struct Asked {
    object: u32,
    minute: u32,
    /// Whose manifest it is, when it is one.
    image: Option<u32>,
}

/// What the clients share.
struct Soak {
    trace: Trace,
    content: Arc<Content>,
    clock: Option<Clock>,
    next: AtomicUsize,
    asked: Mutex<Vec<Asked>>,
    hits: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

/// The trace of pulls of together about `bytes`, its sizes made to fit a store of `room`.
fn trace(bytes: u64, room: u64) -> Trace {
    let options = TraceOptions {
        repositories: 200,
        waves_a_day: 150,
        waves: 0.3,
        days: 14,
        ..TraceOptions::default()
    };
    let mut trace = Trace::generate(&options, 1);
    let mut is_pulled = vec![false; trace.images.len()];
    trace.pulls.iter().for_each(|pull| is_pulled[pull.image as usize] = true);
    let mut is_layer = vec![false; trace.sizes.len()];
    for (image, is_pulled) in trace.images.iter_mut().zip(is_pulled) {
        if !is_pulled {
            // Of these the trace has lost what nobody else has: manifest and configuration.
            image.objects.clear();
            continue;
        }
        image.objects[2..].iter().for_each(|&object| is_layer[object as usize] = true);
    }
    for (size, _) in trace.sizes.iter_mut().zip(is_layer).filter(|(_, is_layer)| *is_layer) {
        let scaled = u128::from(*size) * u128::from(room) / u128::from(TRUE_SIZE);
        *size = (scaled as u64).clamp(200, room / 16);
    }
    let size = |pull| trace.requests(pull).map(|object| trace.sizes[object as usize]).sum::<u64>();
    let mut sum = 0;
    let enough = trace.pulls.iter().position(|&pull| {
        sum += size(pull);
        sum >= bytes
    });
    let count = enough.expect("a trace that is long enough") + 1;
    trace.pulls.truncate(count);
    trace
}

impl Soak {
    /// One client: pull after pull, in the order of the trace.
    fn client(&self, addr: SocketAddr) {
        let mut connection = Connection::open(addr);
        while let Some(&pull) = self.trace.pulls.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if let Some(clock) = &self.clock {
                clock.advance_to(pull.minute);
            }
            for object in self.trace.requests(pull) {
                let image = &self.trace.images[pull.image as usize];
                let is_manifest = object == image.objects[0];
                let target = if is_manifest {
                    format!("/v2/{REPOSITORY}/manifests/t{}?ns={NS}", pull.image)
                } else {
                    let digest = &self.content.digests[object as usize];
                    format!("/v2/{REPOSITORY}/blobs/{digest}?ns={NS}")
                };
                let image = is_manifest.then_some(pull.image);
                self.asked.lock().unwrap().push(Asked { object, minute: pull.minute, image });
                match self.fetch(&mut connection, &target, object) {
                    Ok(true) => {}
                    Ok(false) => connection = Connection::open(addr),
                    Err(error) => {
                        self.failures.lock().unwrap().push(format!("{target}: {error}"));
                        connection = Connection::open(addr);
                    }
                }
            }
        }
    }

    /// One object, checked; `false` when the connection ends with it.
    fn fetch(&self, from: &mut Connection, target: &str, object: u32) -> Result<bool, String> {
        from.request("GET", target, &[("Accept", ACCEPT)]);
        let head = from.read_head().map_err(|error| format!("no answer: {error}"))?;
        let length = head.headers.number("content-length").unwrap_or_default();
        let expected = self.content.sizes[object as usize];
        if head.status != 200 || length != expected {
            let body = from.read_exactly(length.min(1000) as usize).unwrap_or_default();
            let body = String::from_utf8_lossy(&body).into_owned();
            return Err(format!("{} with {length} of {expected} bytes: {body}", head.status));
        }
        let (mut hasher, mut buffer, mut missing) = (Sha256::new(), vec![0; 64 << 10], length);
        while missing > 0 {
            let want = buffer.len().min(missing as usize);
            match from.read_some(&mut buffer[..want]) {
                Ok(0) => return Err(format!("cut short, {missing} of {length} bytes missing")),
                Ok(read) => {
                    hasher.update(&buffer[..read]);
                    missing -= read as u64;
                }
                Err(error) => return Err(format!("{error}, {missing} of {length} missing")),
            }
        }
        let (found, digest) = (hex_digest(hasher), &self.content.digests[object as usize]);
        if found != *digest {
            return Err(format!("wrong bytes: {found} instead of {digest}"));
        }
        if !head.headers.text("cache-status").contains("fwd=miss") {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
        Ok(!head.headers.text("connection").eq_ignore_ascii_case("close"))
    }

    /// The shares of requests and of bytes, in percent, that a cache would have had of the same.
    fn simulate(&self, kind: Kind, room: u64) -> (f64, f64) {
        let mut cache = Cache::new(&self.trace, kind, Room { high: room, low: room });
        let asked = self.asked.lock().unwrap();
        let (mut hits, mut hit_bytes) = (0, 0);
        for &Asked { object, minute, image } in &*asked {
            if let Some(image) = image {
                cache.needed(&self.trace.images[image as usize].objects, minute);
            }
            let size = self.trace.sizes[object as usize];
            if cache.ask(Request { object, size, minute, next_use: u32::MAX }) {
                (hits, hit_bytes) = (hits + 1, hit_bytes + size);
            }
        }
        let (requests, bytes) = self.asked_for(&asked);
        (percent(hits, requests), percent(hit_bytes, bytes))
    }

    fn asked_for(&self, asked: &[Asked]) -> (u64, u64) {
        let bytes = asked.iter().map(|it| self.trace.sizes[it.object as usize]).sum();
        (asked.len() as u64, bytes)
    }
}

fn percent(part: u64, all: u64) -> f64 {
    100.0 * part as f64 / all.max(1) as f64
}

#[test]
fn the_disk_never_holds_more_than_it_may_and_no_pull_fails() {
    let gibibytes = number_from("RINGPORT_SOAK_GIB", 0);
    let (bytes, room) = if gibibytes > 0 { (gibibytes * GIB, GIB) } else { (300 * MIB, 32 * MIB) };
    let scratch = Scratch::new("soak");
    let mut trace = trace(bytes, room);
    let content = Arc::new(Content::make(&mut trace));
    let origin = Origin::start(content.clone());
    let soak = Soak {
        trace,
        content,
        clock: Clock::make(&scratch),
        next: AtomicUsize::new(0),
        asked: Mutex::default(),
        hits: AtomicUsize::new(0),
        failures: Mutex::default(),
    };
    let disk = Tmpfs::mount("space_soak (of the disk itself)", &format!("size={}", room * 2));
    let mut setup = Setup::new("soak-server")
        .upstream(Upstream::new(NS, &origin.url()))
        .storage(&format!("max_size = \"{}MiB\"", room / MIB));
    if let Some(disk) = &disk {
        setup = setup.root(&disk.path().join("store"));
    }
    if let Some(clock) = &soak.clock {
        setup = setup.run_by(&clock.wrapper());
    }
    let mut server = setup.start();
    let sampler = Sampler::start(server.root(), disk.is_some());
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| soak.client(server.addr));
        }
    });
    let took = started.elapsed();
    let seen = sampler.stop();

    let (requests, pulled) = soak.asked_for(&soak.asked.lock().unwrap());
    let (fetched, fetched_bytes) = origin.served();
    let metric = |name: &str| server.metric(name, &[]) as u64;
    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    tell(&format!(
        "\nspace_soak: {} pulls, {requests} requests, {:.0} MiB through {:.0} MiB in {took:.1?}; \
         {} different objects of {:.0} MiB; {} evicted, {} passed through",
        soak.trace.pulls.len(),
        mib(pulled),
        mib(room),
        distinct(&soak).0,
        mib(distinct(&soak).1),
        metric("ringport_evictions_total"),
        metric("ringport_fills_without_room_total"),
    ));
    tell(&format!(
        "disk: at most {:.1} MiB of content in {} files, {:.1} MiB of catalog and index; {} samples, \
         at most {:?} apart",
        mib(seen.most),
        seen.most_files,
        mib(seen.most_others),
        seen.samples,
        seen.longest_gap,
    ));
    tell("\n| policy | requests from the store, % | bytes from the store, % |\n|---|---|---|");
    let row = |name: &str, (hits, bytes): (f64, f64)| {
        tell(&format!("| {name} | {hits:.1} | {bytes:.1} |"));
    };
    let found = (100.0 - percent(fetched, requests), 100.0 - percent(fetched_bytes, pulled));
    row("**the server**", found);
    for kind in [Kind::Lru, Kind::Sieve, Kind::S3Fifo, Kind::Gdsf(1.0), Kind::Gdsf(0.5), SHIPPED] {
        row(&format!("{}, simulated", kind.name()), soak.simulate(kind, room));
    }
    tell(&format!(
        "\nOf the server's, {:.1} % joined a download that was under way.",
        found.0 - percent(soak.hits.load(Ordering::Relaxed) as u64, requests)
    ));

    let failures = soak.failures.lock().unwrap();
    assert!(failures.is_empty(), "{} pulls failed: {:#?}", failures.len(), failures.iter().take(9));
    // Files take whole blocks, which max_size does not count.
    let most = room + seen.most_files * 4096;
    assert!(seen.most <= most, "{} bytes on the disk, {most} allowed", seen.most);
    assert!(metric("ringport_evictions_total") > 0, "nothing had to go");
    assert_eq!(metric("ringport_panics_total"), 0);
    // Ended first: it may still be on its way to the low watermark.
    let status = server.terminate(secs(40)).expect("an exit within 40 s of SIGTERM");
    assert!(status.success(), "{status}");
    server.assert_store_is_right();
}

/// Objects that were asked for, and their bytes.
fn distinct(soak: &Soak) -> (usize, u64) {
    let mut objects: Vec<u32> =
        soak.asked.lock().unwrap().iter().map(|asked| asked.object).collect();
    objects.sort_unstable();
    objects.dedup();
    let bytes = objects.iter().map(|&object| soak.trace.sizes[object as usize]).sum();
    (objects.len(), bytes)
}
