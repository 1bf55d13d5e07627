//! Minutes of a mixed load: what a server still holds when it is over. Anything that is kept for
//! each request or each connection shows as growth.

use std::time::Duration;

use crate::client::Ask;
use crate::drive::{Load, drive};
use crate::house::{House, NGINX, RINGPORT, Trouble};
use crate::machine::{self, Usage};
use crate::record::{About, Target};
use crate::scenario::{Case, Outcome, Scenario, Servers, manifests};

pub(crate) struct Soak;

const CONNECTIONS: usize = 64;
/// The part of the time that comes before the first look: pools and caches fill once.
const WARM_UP: f64 = 0.2;
/// Until connections that the client has closed are closed there too. To wait for a number of
/// files would be to wait for the figure that is wanted.
const SETTLE: Duration = Duration::from_millis(500);

impl Scenario for Soak {
    fn about(&self) -> About {
        About {
            scenario: "soak".to_owned(),
            measures: format!(
                "A mixed load for minutes (HEADs, manifests, blobs of 64 KiB and 1 MiB, by \
                 {CONNECTIONS} connections that are opened anew three times): by how much memory \
                 and open files have grown from an early look to the end."
            ),
            headline: "rss_growth_bytes".to_owned(),
            more_is_better: false,
            also: ["rss_end_bytes", "files_growth", "requests_per_second"]
                .map(str::to_owned)
                .into(),
            peer: None,
            targets: vec![
                Target::most("rss_growth_bytes", (4_u64 << 20) as f64),
                Target::most("files_growth", 0.0),
            ],
        }
    }

    fn cases(&self, quick: bool) -> Vec<Case> {
        let seconds = if quick { 2 } else { 60 };
        vec![Case::new(format!("{seconds} s"), &[("seconds", seconds)])]
    }

    fn servers(&self, quick: bool) -> Servers {
        Servers::and_given(if quick { &[RINGPORT] } else { &[RINGPORT, NGINX] })
    }

    fn measure(&self, house: &mut House, case: &Case, server: &str) -> Result<Outcome, Trouble> {
        let mut goods = manifests::goods(house)?;
        goods.blobs = house.content.blobs("hit", 1 << 20, 8)?;
        goods.blobs.extend(house.content.blobs("hit", 64 << 10, 16)?);
        let running = house.open(server, &goods)?;
        let mut asks = Vec::new();
        for (n, image) in goods.images.iter().enumerate() {
            asks.push(Ask::manifest_head(image, &image.by_tag()));
            asks.push(Ask::manifest(image, &image.by_digest()));
            asks.push(Ask::manifest(image, &image.by_tag()));
            asks.extend(goods.blobs.get(n % goods.blobs.len().max(1)).map(Ask::blob));
        }
        let load = |seconds: f64| {
            let load = Load { seconds, ..Load::of(&house.settings, &asks, CONNECTIONS) };
            drive(&running, &load, &house.interrupted)
        };
        let seconds = case.number("seconds") as f64;
        let held = || {
            std::thread::sleep(SETTLE);
            let files = running.id().map_or(0, machine::open_files);
            (Usage::of(running.id()).rss_bytes as f64, files as f64)
        };
        let wrong = load(seconds * WARM_UP)?.wrong();
        let (rss_begin, files_begin) = held();
        let mut measured = load(seconds / 3.0)?;
        for _ in 0..2 {
            measured.add(load(seconds / 3.0)?);
        }
        let (rss_end, files_end) = held();
        let mut outcome = Outcome::of(&measured);
        outcome.wrong.extend(wrong);
        outcome.put([
            ("rss_begin_bytes", rss_begin),
            ("rss_end_bytes", rss_end),
            ("rss_growth_bytes", rss_end - rss_begin),
            ("files_begin", files_begin),
            ("files_end", files_end),
            ("files_growth", files_end - files_begin),
        ]);
        Ok(outcome)
    }
}
