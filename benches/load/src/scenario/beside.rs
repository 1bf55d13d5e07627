//! Manifests at a steady rate beside streams of large blobs, all on the server's one core: how long
//! a small request waits behind bulk, with the blobs in memory or on a cold disk.
//!
//! A latency counts from the moment at which the request was due, not from when the client got
//! round to sending it. The client's two threads share a core: the one that measures goes first
//! there (of the real-time class, else nice -15) where that is allowed, and `probe_late_p99_us` tells how late it was all the
//! same, which is the part of the latencies that is not the server's.

use crate::client::Ask;
use crate::content::Blob;
use crate::drive::{Beside, Load, Measured, drive};
use crate::house::{House, NGINX, NGINX_THREADS, REGISTRY, RINGPORT, Trouble};
use crate::machine;
use crate::record::{About, Target};
use crate::scenario::{Case, Outcome, Scenario, Servers, manifests, size};
use crate::servers::Running;

/// Of small requests.
const PER_SECOND: u32 = 2000;
/// Over which they are spread: so many that a server which answers each of them once in a tenth of
/// a second keeps up, and the figure is how long it makes one wait, not how many may wait.
const PROBES: usize = 256;
const BLOB_BYTES: u64 = 64 << 20;
/// As much as this of the bytes that were sent has to have come from the disk, or else the pages
/// were not cold and the figure is not what it says.
const COLD_SHARE: f64 = 0.9;

/// How long a pass over the cold files may take; what came until then counts.
const PASS_SECONDS_MAX: f64 = 20.0;

/// One of the two scenarios.
pub(crate) struct HotBeside {
    is_cold: bool,
}

impl HotBeside {
    /// Beside blobs in memory.
    pub(crate) const WARM: HotBeside = HotBeside { is_cold: false };
    /// Beside blobs on a cold disk.
    pub(crate) const COLD: HotBeside = HotBeside { is_cold: true };

    fn peer(&self) -> &'static str {
        if self.is_cold { NGINX_THREADS } else { NGINX }
    }
}

impl Scenario for HotBeside {
    fn about(&self) -> About {
        let (name, streams) = match self.is_cold {
            true => ("hot_beside_cold", "16 streams of blobs whose pages are not in memory"),
            false => ("hot_beside_warm", "64 streams of blobs in memory"),
        };
        let latency = if self.is_cold { 1.0 / 3.0 } else { 0.05 };
        About {
            scenario: name.to_owned(),
            measures: format!(
                "Manifest hits at {PER_SECOND} requests per second beside {streams}, on the same \
                 core: the 99th percentile of their latency from the time at which they were due."
            ),
            headline: "latency_p99_us".to_owned(),
            more_is_better: false,
            also: ["stream_bytes_per_second", "latency_p50_us", "latency_max_us"]
                .map(str::to_owned)
                .into(),
            peer: Some(self.peer().to_owned()),
            targets: vec![
                Target::most("latency_p99_us", latency).times(self.peer()),
                Target::least("stream_bytes_per_second", 1.0).times(self.peer()),
            ],
        }
    }

    fn cases(&self, quick: bool) -> Vec<Case> {
        let (streams, files) = if self.is_cold { (16, 32) } else { (64, 8) };
        let files = if quick && self.is_cold { 16 } else { files };
        let case = |streams: u64| {
            let name = match streams {
                0 => "no streams".to_owned(),
                n => format!("{n} streams of {files} x {}", size(BLOB_BYTES)),
            };
            Case::new(name, &[("streams", streams), ("files", files), ("bytes", BLOB_BYTES)])
        };
        match quick || self.is_cold {
            true => vec![case(streams)],
            false => vec![case(0), case(streams)],
        }
    }

    fn servers(&self, quick: bool) -> Servers {
        let known: &[_] = match (self.is_cold, quick) {
            (false, true) => &[RINGPORT, NGINX],
            (false, false) => &[RINGPORT, NGINX, REGISTRY],
            (true, true) => &[RINGPORT, NGINX_THREADS],
            (true, false) => &[RINGPORT, NGINX_THREADS, NGINX, REGISTRY],
        };
        // Whose files are not known cannot be made cold.
        Servers { known: known.to_vec(), and_given: !self.is_cold }
    }

    fn measure(&self, house: &mut House, case: &Case, server: &str) -> Result<Outcome, Trouble> {
        let blobs = house.content.blobs("stream", case.number("bytes"), case.number("files"))?;
        let mut goods = manifests::goods(house)?;
        let probes: Vec<Ask> =
            goods.images.iter().map(|image| Ask::manifest(image, &image.by_tag())).collect();
        let streams: Vec<Ask> = blobs.iter().map(Ask::blob).collect();
        goods.blobs = blobs;
        let running = house.open(server, &goods)?;
        let load = Load {
            beside: Some(Beside { asks: &probes, per_second: PER_SECOND, connections: PROBES }),
            ..Load::of(&house.settings, &streams, case.count("streams"))
        };
        let measured = match self.is_cold {
            true => cold(house, &running, load, &goods.blobs)?,
            false => drive(&running, &load, &house.interrupted)?,
        };
        self.outcome(&measured, &goods.blobs)
    }
}

impl HotBeside {
    fn outcome(&self, measured: &Measured, blobs: &[Blob]) -> Result<Outcome, Trouble> {
        let probe = measured.beside.as_ref().unwrap_or(&measured.bulk);
        let mut metrics = measured.metrics(probe);
        // What both did together says nothing here.
        for name in ["cpu_us_per_request", "requests_per_second", "bytes_per_second"] {
            metrics.remove(name);
        }
        let streamed = measured.bulk.body_bytes as f64;
        let mut put = |name: &str, value: f64| metrics.insert(name.to_owned(), value);
        put("stream_bytes_per_second", streamed / measured.seconds);
        put("probe_requests_per_second", probe.requests as f64 / measured.seconds);
        put("probe_late_p99_us", probe.lateness.value_at_quantile(0.99) as f64 / 1e3);
        put("probe_is_first_on_its_core", f64::from(u8::from(measured.hurried)));
        if self.is_cold {
            let read = measured.disk_read_bytes as f64;
            put("disk_read_bytes_per_second", read / measured.seconds);
            if read < streamed * COLD_SHARE {
                return Err(Trouble::Failed(format!(
                    "{} blobs were not cold: {read:.0} bytes came from the disk, {streamed:.0} \
                     were sent: does the store lie on a disk, and do others keep its files open?",
                    blobs.len()
                )));
            }
        }
        Ok(Outcome {
            seconds: measured.seconds,
            requests: probe.requests,
            body_bytes: measured.bulk.body_bytes,
            metrics,
            wrong: measured.wrong(),
        })
    }
}

/// Each file once, from a cold disk, as often as the time goes.
fn cold(
    house: &House,
    running: &Running,
    load: Load<'_>,
    blobs: &[Blob],
) -> Result<Measured, Trouble> {
    let Some(files) = running.files.as_deref() else {
        return Err(Trouble::Failed(format!("{}: where are its files?", running.name)));
    };
    if machine::is_in_memory(files) {
        let place = files.display();
        return Err(Trouble::Failed(format!("{place} lies in memory: name a disk with --data")));
    }
    let load = Load { once: true, seconds: PASS_SECONDS_MAX, ..load };
    let mut total: Option<Measured> = None;
    loop {
        machine::drop_pages(files).map_err(|e| format!("{}: {e}", files.display()))?;
        let pass = drive(running, &load, &house.interrupted)?;
        match &mut total {
            Some(total) => total.add(pass),
            None => total = Some(pass),
        }
        let Some(so_far) = &total else { continue };
        let whole = blobs.len() as u64 * BLOB_BYTES;
        if so_far.seconds >= house.settings.seconds || so_far.bulk.body_bytes < whole {
            break;
        }
    }
    total.ok_or_else(|| Trouble::Failed("no pass".to_owned()))
}
