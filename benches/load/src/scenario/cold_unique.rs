//! Blobs that the mirror does not have, each wanted by one client: what a fill costs, how soon its
//! first byte comes through, and how fast the rest.
//!
//! The parts of a fill are receiving, hashing and writing. What they cost by themselves is measured
//! in the same round, on the server's core, by the same SHA-256, in one loop without a server: the
//! server's CPU time over that is `times_the_parts`. It has to send the blob to its client besides,
//! which that sum lacks.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::client::{Ask, timed};
use crate::content::{Blob, named};
use crate::house::{Goods, House, NGINX_CACHE, Trouble};
use crate::machine::{self, Usage};
use crate::profiler::Recorded;
use crate::record::{About, Target};
use crate::scenario::{Case, Outcome, Scenario, Servers, cold, size};
use crate::servers::Running;
use crate::servers::counting::Counting;
use crate::stock;

pub(crate) struct ColdUnique;

const GIB: f64 = (1_u64 << 30) as f64;

impl Scenario for ColdUnique {
    fn about(&self) -> About {
        About {
            scenario: "cold_unique".to_owned(),
            measures: "Blobs that the mirror does not have, each wanted by one client: bytes per \
                       second through the mirror, its CPU time beside that of receiving, hashing \
                       and writing the same bytes without a server, and its first byte beside the \
                       origin's own."
                .to_owned(),
            headline: "bytes_per_second".to_owned(),
            more_is_better: true,
            also: ["cpu_ms_per_gib", "times_the_parts", "first_byte_us", "later_than_upstream_us"]
                .map(str::to_owned)
                .into(),
            peer: Some(NGINX_CACHE.to_owned()),
            targets: [
                Target::least("bytes_per_second", 1.0).times(NGINX_CACHE),
                Target::most("times_the_parts", 1.15),
                Target::most("later_than_upstream_us", 1000.0),
            ]
            .map(|target| target.in_case("1 client"))
            .into(),
        }
    }

    fn cases(&self, quick: bool) -> Vec<Case> {
        let case = |bytes: u64, files: u64, clients: u64| {
            let who =
                if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") };
            let name = format!("{files} x {}, {who}", size(bytes));
            Case::new(name, &[("bytes", bytes), ("files", files), ("connections", clients)])
        };
        match quick {
            true => vec![case(64 << 20, 3, 1), case(1 << 20, 64, 16)],
            false => vec![case(64 << 20, 7, 1), case(1 << 20, 512, 16), case(64 << 10, 2048, 16)],
        }
    }

    fn servers(&self, quick: bool) -> Servers {
        cold::servers(quick)
    }

    fn measure(&self, house: &mut House, case: &Case, server: &str) -> Result<Outcome, Trouble> {
        let blobs = house.content.blobs("unique", case.number("bytes"), case.number("files"))?;
        let asks: Vec<Ask> = blobs.iter().map(Ask::blob).collect();
        let origin = house.counting()?;
        let parts = parts_ms_per_gib(house, origin.addr, &blobs)?;
        let running = house.start_cold(server, origin.addr)?;
        let mut outcome = match case.count("connections") {
            1 => one_client(house, &running, &origin, &asks)?,
            connections => {
                origin.take_gets();
                Outcome::of(&cold::pass(house, &running, &asks, connections)?)
            }
        };
        let gets = origin.take_gets() as f64;
        outcome.put([("parts_cpu_ms_per_gib", parts), ("upstream_gets", gets)]);
        if let Some(cpu) = outcome.metrics.get("cpu_ms_per_gib").copied() {
            outcome.put([("times_the_parts", cpu / parts)]);
        }
        stock::prove_all(running.addr, &Goods { blobs, ..Goods::default() })?;
        Ok(outcome)
    }
}

/// One blob after the other, each over a connection of its own; and each from the origin itself.
fn one_client(
    house: &House,
    running: &Running,
    origin: &Counting,
    asks: &[Ask],
) -> Result<Outcome, Trouble> {
    let (mut firsts, mut upstream_firsts, mut upstream_took) = (Vec::new(), Vec::new(), 0.0);
    for ask in asks {
        let times = timed::fetch(origin.addr, ask)?;
        upstream_firsts.push(times.first);
        upstream_took += times.whole.as_secs_f64();
    }
    let mut outcome = Outcome::default();
    // What was asked until here was not asked by the mirror.
    origin.take_gets();
    let recorded = Recorded::begin(house.settings.perf_control.as_deref())?;
    let before = Usage::of(running.id());
    for ask in asks {
        let times = timed::fetch(running.addr, ask)?;
        firsts.push(times.first);
        outcome.seconds += times.whole.as_secs_f64();
        outcome.requests += 1;
        outcome.body_bytes += ask.body_bytes();
    }
    let cpu = Usage::of(running.id()).cpu_since(&before);
    drop(recorded);
    let bytes = outcome.body_bytes as f64;
    let (first, upstream_first) = (median_us(firsts), median_us(upstream_firsts));
    outcome.put([
        ("bytes_per_second", bytes / outcome.seconds),
        ("cpu_ms_per_gib", cpu.as_secs_f64() * 1e3 / (bytes / GIB)),
        ("first_byte_us", first),
        ("upstream_first_byte_us", upstream_first),
        ("later_than_upstream_us", (first - upstream_first).max(0.0)),
        ("upstream_bytes_per_second", bytes / upstream_took),
    ]);
    Ok(outcome)
}

fn median_us(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

/// CPU time of receiving, hashing and writing, on the server's core, for each GiB.
fn parts_ms_per_gib(house: &House, origin: SocketAddr, blobs: &[Blob]) -> Result<f64, String> {
    let how = house.afresh("parts")?;
    let work = || {
        machine::pin(&how.cores)?;
        let (mut cpu, mut bytes) = (Duration::ZERO, 0);
        // Enough of them for the clock, not all.
        for blob in blobs {
            cpu += parts(origin, blob, &how.folder.join("written"))?;
            bytes += blob.bytes;
            if bytes >= 256 << 20 {
                break;
            }
        }
        Ok(cpu.as_secs_f64() * 1e3 / (bytes as f64 / GIB))
    };
    let joined = std::thread::scope(|scope| scope.spawn(work).join());
    joined.map_err(|_| "the thread of the parts panicked".to_owned())?
}

/// CPU time of the calling thread for one blob; waiting is none.
fn parts(origin: SocketAddr, blob: &Blob, path: &std::path::Path) -> Result<Duration, String> {
    let failed = |e: std::io::Error| format!("the parts of a fill: {e}");
    let mut socket = TcpStream::connect(origin).map_err(failed)?;
    socket.set_read_timeout(Some(Duration::from_secs(60))).map_err(failed)?;
    let mut file = File::create(path).map_err(failed)?;
    let mut buffer = vec![0; 256 << 10];
    let (mut hash, mut kept) = (Sha256::new(), Vec::new());
    let before = machine::own_thread_cpu();
    let began = Instant::now();
    socket.write_all(&Ask::blob(blob).bytes).map_err(failed)?;
    // The head ends with the first empty line; what follows is the blob.
    let mut filled = loop {
        let got = socket.read(&mut buffer).map_err(failed)?;
        kept.extend_from_slice(buffer.get(..got).unwrap_or_default());
        let end = kept.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let body = kept.split_off(end + 4);
            kept = body;
            break kept.len();
        }
        if got == 0 || began.elapsed() > Duration::from_secs(60) {
            return Err("the parts of a fill: no answer of the origin".to_owned());
        }
    };
    // In whole pieces at multiples of them, which costs the page cache least.
    kept.resize(kept.len().max(buffer.len()), 0);
    let mut left = blob.bytes;
    while left > 0 {
        let piece = kept.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        while filled < piece {
            let room = kept.get_mut(filled..piece).unwrap_or_default();
            match socket.read(room).map_err(failed)? {
                0 => return Err("the parts of a fill: the origin closed early".to_owned()),
                got => filled += got,
            }
        }
        let whole = kept.get(..piece).unwrap_or_default();
        hash.update(whole);
        file.write_all(whole).map_err(failed)?;
        left -= piece as u64;
        filled = 0;
    }
    let found = named(&hash.finalize());
    let took = machine::own_thread_cpu().saturating_sub(before);
    match found == blob.digest {
        true => Ok(took),
        false => Err(format!("the origin: expected {}, found {found}", blob.digest)),
    }
}
