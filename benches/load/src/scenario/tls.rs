//! Hits over TLS. The client decrypts heads only and has a thread for each connection: what it
//! costs is no part of the server's CPU time, which is what is compared.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::client::Ask;
use crate::client::clock::{Clock, StopOnDrop};
use crate::client::tls::{Secure, config};
use crate::house::{Goods, House, NGINX, RINGPORT, Trouble};
use crate::machine::Usage;
use crate::record::{About, Target};
use crate::scenario::{Case, Outcome, Scenario, Servers, hits, manifests, size};
use crate::servers::Running;

/// One of the two scenarios.
pub(crate) struct TlsHit {
    is_small: bool,
}

impl TlsHit {
    /// Large blobs.
    pub(crate) const BLOBS: TlsHit = TlsHit { is_small: false };
    /// Manifests.
    pub(crate) const MANIFESTS: TlsHit = TlsHit { is_small: true };
}

const CIPHER: &str = "TLS 1.3 with TLS_AES_128_GCM_SHA256";
const BLOB_BYTES: u64 = 64 << 20;

/// What is asked, and the digest of what has to come.
type Asked = (Ask, String);

/// What all threads of a measurement count together.
#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    body_bytes: AtomicU64,
}

impl Scenario for TlsHit {
    fn about(&self) -> About {
        let (scenario, measures, headline, also) = match self.is_small {
            true => (
                "tls_manifest",
                format!(
                    "Stored manifests of 4 KiB over {CIPHER}: CPU time of the server for each."
                ),
                "cpu_us_per_request",
                "requests_per_second",
            ),
            false => (
                "tls_blob",
                format!("Stored blobs of {} over {CIPHER}: bytes per second.", size(BLOB_BYTES)),
                "bytes_per_second",
                "cpu_ms_per_gib",
            ),
        };
        let target = Target::least(headline, 0.9).times(NGINX);
        About {
            scenario: scenario.to_owned(),
            measures,
            headline: headline.to_owned(),
            more_is_better: !self.is_small,
            also: [also, "client_busy_percent"].map(str::to_owned).into(),
            peer: Some(NGINX.to_owned()),
            targets: if self.is_small { Vec::new() } else { vec![target] },
        }
    }

    fn cases(&self, quick: bool) -> Vec<Case> {
        let case = |what: &str, connections: u64| {
            Case::new(format!("{what} x {connections}"), &[("connections", connections)])
        };
        match (self.is_small, quick) {
            (true, _) => vec![case("by digest", hits::CONNECTIONS)],
            (false, true) => vec![case(&size(BLOB_BYTES), 4)],
            (false, false) => [1, 4, 16].map(|n| case(&size(BLOB_BYTES), n)).into(),
        }
    }

    fn servers(&self, _: bool) -> Servers {
        // The certificates of others are not ours to make.
        Servers::only(&[RINGPORT, NGINX])
    }

    fn measure(&self, house: &mut House, case: &Case, server: &str) -> Result<Outcome, Trouble> {
        let mut goods = Goods::default();
        if self.is_small {
            goods = manifests::goods(house)?;
        } else {
            goods.blobs = house.content.blobs("hit", BLOB_BYTES, 1)?;
        }
        let blobs = goods.blobs.iter().map(|blob| (Ask::blob(blob), blob.digest.clone()));
        let images = goods
            .images
            .iter()
            .map(|image| (Ask::manifest(image, &image.by_digest()), image.digest.clone()));
        let asked: Vec<Asked> = blobs.chain(images).collect();
        house.publish(&goods)?;
        let (running, addr) = house.start_secure(server)?;
        house.prove(&running, &goods)?;
        let (clock, counts, config) = (Clock::default(), Counts::default(), config()?);
        let connections = case.count("connections").max(1);
        let ready = Barrier::new(connections + 1);
        std::thread::scope(|scope| {
            let stop = StopOnDrop(&clock);
            let mut threads = Vec::new();
            for n in 0..connections {
                let (asked, clock, counts, ready) = (&asked, &clock, &counts, &ready);
                let config = &config;
                threads.push(scope.spawn(move || {
                    let opened = Secure::open(addr, config);
                    ready.wait();
                    converse(opened?, (addr, config), (n, asked), (clock, counts))
                }));
            }
            ready.wait();
            let measured = window(house, &running, &clock, &counts);
            drop(stop);
            let mut wrong = Vec::new();
            for thread in threads {
                let done =
                    thread.join().map_err(|_| "a thread of the client panicked".to_owned())?;
                wrong.extend(done.err());
            }
            let mut outcome = measured?;
            outcome.wrong = wrong;
            Ok(outcome)
        })
    }
}

/// Asks until the time is over. The first answer of the first connection is compared whole.
fn converse(
    mut connection: Secure,
    (addr, config): (SocketAddr, &Arc<ClientConfig>),
    (n, asked): (usize, &[Asked]),
    (clock, counts): (&Clock, &Counts),
) -> Result<(), String> {
    let first = n % asked.len().max(1);
    for (at, (ask, digest)) in asked.iter().cycle().skip(first).enumerate() {
        if clock.is_over() {
            break;
        }
        let compared = (at == 0 && n == 0).then_some(digest.as_str());
        let taken = |bytes: u64| {
            if clock.is_open() {
                counts.body_bytes.fetch_add(bytes, Ordering::Relaxed);
            }
        };
        if connection.get(ask, compared, &taken)? {
            // A server may bound the requests of one connection.
            connection = Secure::open(addr, config)?;
        }
        if clock.is_open() {
            counts.requests.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Lets them warm up, and then counts.
fn window(
    house: &House,
    running: &Running,
    clock: &Clock,
    counts: &Counts,
) -> Result<Outcome, Trouble> {
    let wait = |seconds: f64| {
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < until && !house.is_interrupted() {
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    wait((house.settings.seconds / 4.0).max(0.15));
    let (before, client_before) = (Usage::of(running.id()), own_usage());
    let began = Instant::now();
    clock.open();
    wait(house.settings.seconds);
    let seconds = began.elapsed().as_secs_f64();
    let bytes = counts.body_bytes.load(Ordering::Relaxed);
    let requests = counts.requests.load(Ordering::Relaxed);
    let after = Usage::of(running.id());
    let cpu = after.cpu_since(&before).as_secs_f64();
    // The servers are children of this process: their time is in its family's.
    let all = own_usage().cpu_since(&client_before).as_secs_f64();
    if house.is_interrupted() {
        return Err(Trouble::Failed("interrupted".to_owned()));
    }
    let room = |cores: &[usize]| seconds * cores.len().max(1) as f64 / 100.0;
    let gib = bytes as f64 / (1_u64 << 30) as f64;
    let metrics = [
        ("bytes_per_second", bytes as f64 / seconds),
        ("requests_per_second", requests as f64 / seconds),
        ("cpu_us_per_request", cpu * 1e6 / requests as f64),
        ("cpu_ms_per_gib", cpu * 1e3 / gib),
        ("server_busy_percent", cpu / room(&house.settings.server_cores)),
        ("client_busy_percent", (all - cpu).max(0.0) / room(&house.settings.client_cores)),
        ("rss_peak_bytes", after.rss_peak_bytes as f64),
    ];
    let metrics = metrics.into_iter().filter(|(_, value)| value.is_finite());
    Ok(Outcome {
        seconds,
        requests,
        body_bytes: bytes,
        metrics: metrics.map(|(name, value)| (name.to_owned(), value)).collect(),
        wrong: Vec::new(),
    })
}

fn own_usage() -> Usage {
    Usage::of(Some(std::process::id()))
}
