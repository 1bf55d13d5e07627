//! A thousand clients that want the same blob at the same moment, of a mirror that has it not.
//!
//! The blob crosses the upstream's wire once, and then a thousand times the mirror's: the longer of
//! those two is the least that the herd can take, and both are measured beside it in each round.
//! The origin is a thread of this program on the load's core, where it competes with the clients:
//! what that costs is the herd's, so the ratio is a little too high.

use std::time::Instant;

use crate::client::Ask;
use crate::client::plain::Plain;
use crate::drive::{Load, drive};
use crate::house::{Goods, House, NGINX_CACHE, REGISTRY_PROXY, RINGPORT, Trouble};
use crate::record::{About, Target};
use crate::scenario::{Case, Outcome, Scenario, hits, size};
use crate::servers::counting::Counting;
use crate::stock;

pub(crate) struct ColdHerd;

const CLIENTS: u64 = 1000;

impl Scenario for ColdHerd {
    fn about(&self) -> About {
        let target = |metric: &str, bound: f64| Target {
            case: None,
            metric: metric.to_owned(),
            peer: None,
            at_least: false,
            bound,
        };
        About {
            scenario: "cold_herd".to_owned(),
            measures: format!(
                "{CLIENTS} clients want one blob that the mirror does not have: until the last has \
                 it, beside the longer of what the origin takes to give it once and of what the \
                 mirror takes to serve them all when it is stored."
            ),
            headline: "herd_seconds".to_owned(),
            more_is_better: false,
            also: ["upstream_gets", "times_the_longer_part", "serving_seconds", "upstream_seconds"]
                .map(str::to_owned)
                .into(),
            peer: Some(NGINX_CACHE.to_owned()),
            targets: vec![target("upstream_gets", 1.0), target("times_the_longer_part", 1.2)],
        }
    }

    fn cases(&self, quick: bool) -> Vec<Case> {
        let case = |bytes: u64| {
            let name = format!("{CLIENTS} x {}", size(bytes));
            Case::new(name, &[("bytes", bytes), ("connections", CLIENTS)])
        };
        if quick { vec![case(1 << 20)] } else { vec![case(1 << 20), case(16 << 20)] }
    }

    fn servers(&self, quick: bool) -> Vec<&'static str> {
        match quick {
            true => vec![RINGPORT, NGINX_CACHE],
            false => vec![RINGPORT, NGINX_CACHE, REGISTRY_PROXY],
        }
    }

    fn takes_given(&self) -> bool {
        // What somebody else starts cannot be made to forget.
        false
    }

    fn measure(&self, house: &mut House, case: &Case, server: &str) -> Result<Outcome, Trouble> {
        let blobs = house.content.blobs("herd", case.number("bytes"), 1)?;
        let origin = Counting::start(house.content.root(), &house.settings.client_cores)?;
        let upstream = upstream_seconds(&origin, &blobs)?;
        let asks: Vec<Ask> = blobs.iter().map(Ask::blob).collect();
        let herd: Vec<Ask> = asks.iter().cycle().take(case.count("connections")).cloned().collect();
        let target = blobs.first().map(|blob| blob.target()).unwrap_or_default();
        let running = house.start_cold(server, origin.addr)?;
        let load = Load {
            asks: &herd,
            connections: case.count("connections"),
            once: true,
            seconds: house.settings.seconds,
            beside: None,
            client_cores: &house.settings.client_cores,
            server_cores: &house.settings.server_cores,
        };
        origin.take_gets(&target);
        let cold = drive(&running, &load, &house.interrupted)?;
        let gets = origin.take_gets(&target);
        stock::prove_all(running.addr, &Goods { blobs, images: Vec::new() })?;
        let warm = drive(&running, &load, &house.interrupted)?;
        let mut outcome = hits::outcome(&cold);
        outcome.wrong.extend(warm.wrong());
        let mut put = |name: &str, value: f64| outcome.metrics.insert(name.to_owned(), value);
        put("herd_seconds", cold.seconds);
        put("upstream_gets", gets as f64);
        put("upstream_seconds", upstream);
        put("serving_seconds", warm.seconds);
        put("times_the_longer_part", cold.seconds / upstream.max(warm.seconds));
        Ok(outcome)
    }
}

/// What the origin takes to give the blob once.
fn upstream_seconds(origin: &Counting, blobs: &[crate::content::Blob]) -> Result<f64, String> {
    let mut connection = Plain::open(origin.addr).map_err(|e| format!("the origin: {e}"))?;
    let began = Instant::now();
    for blob in blobs {
        let target = blob.target();
        let answer = connection.fetch(&Ask::blob(blob).bytes, false);
        let answer = answer.map_err(|e| format!("the origin: {target}: {e}"))?;
        if answer.status != 200 || answer.body_bytes != blob.bytes {
            let (status, bytes) = (answer.status, answer.body_bytes);
            return Err(format!("the origin: {target}: {status} and {bytes} bytes"));
        }
    }
    Ok(began.elapsed().as_secs_f64())
}
