//! One worker against two, under a mixed load.
//!
//! On a machine of two cores the client has to share them with the server. So both are measured the
//! same way: everything on one core (a worker and a thread of the client), and everything on two (two
//! workers and two threads of the client). The client's part of each core is the same then, and the
//! rate of two cores over that of one, `throughput_scaling`, is that of server and client together.
//! `scaling` is the server's alone: 2 x (requests per CPU second of two workers / of one), 2.0 is
//! perfect. It falls when the workers do each other harm: contended locks that spin, cache lines
//! that wander, and wake-ups across cores, which one core does not have, so it errs against two.
//!
//! What it does not show: workers that sleep for each other cost no CPU time. Those would be seen
//! in `throughput_scaling` and `waits_per_request`, and in `least_worker_share_percent`, which is 50
//! when both had the same to do. On machines with more cores, name some for both with
//! --server-cores and --client-cores in other scenarios and compare the rates themselves.

use crate::client::Ask;
use crate::drive::{Load, Measured, drive};
use crate::house::{House, RINGPORT, Trouble};
use crate::record::{About, Target};
use crate::scenario::{Case, Outcome, Scenario, Servers, manifests};

pub(crate) struct TwoCores;

/// Enough that both workers always have something to do.
const CONNECTIONS: usize = 128;

impl Scenario for TwoCores {
    fn about(&self) -> About {
        About {
            scenario: "two_cores".to_owned(),
            measures: "Ringport with two workers against one, manifests, HEADs and 1 MiB blobs \
                       mixed: 2 x the work of a CPU second of the server with two, over that with \
                       one (2.0 = the second core does as much as the first)."
                .to_owned(),
            headline: "scaling".to_owned(),
            more_is_better: true,
            also: ["throughput_scaling", "cpu_us_per_request", "least_worker_share_percent"]
                .map(str::to_owned)
                .into(),
            peer: None,
            targets: vec![Target::least("scaling", 1.8)],
        }
    }

    fn cases(&self, _: bool) -> Vec<Case> {
        vec![Case::new("2 workers over 1", &[("connections", CONNECTIONS as u64)])]
    }

    fn servers(&self, _: bool) -> Servers {
        Servers::only(&[RINGPORT])
    }

    fn measure(&self, house: &mut House, _: &Case, server: &str) -> Result<Outcome, Trouble> {
        let cores = Load::of(&house.settings, &[], 0).cores();
        let [first, second, ..] = cores.as_slice() else {
            return Err(Trouble::Failed(format!(
                "it takes two cores, and this run has {cores:?}: --server-cores, --client-cores"
            )));
        };
        let (first, second) = (*first, *second);
        let one = self.with_cores(house, server, &[first])?;
        let two = self.with_cores(house, server, &[first, second])?;
        let work = |measured: &Measured| {
            let cpu = measured.server_cpu.map_or(0.0, |cpu| cpu.as_secs_f64());
            measured.bulk.requests as f64 / cpu
        };
        let waits = |m: &Measured| m.server_waits as f64 / m.bulk.requests.max(1) as f64;
        let rate = |m: &Measured| m.bulk.requests as f64 / m.seconds;
        let mut busiest = two.server_threads.iter().map(|cpu| cpu.as_secs_f64());
        let (most, next) = (busiest.next().unwrap_or(0.0), busiest.next().unwrap_or(0.0));
        let mut outcome = Outcome::of(&two);
        outcome.wrong.extend(one.wrong());
        outcome.put([
            ("scaling", 2.0 * work(&two) / work(&one)),
            ("throughput_scaling", rate(&two) / rate(&one)),
            ("one_worker_requests_per_second", rate(&one)),
            ("one_worker_cpu_us_per_request", 1e6 / work(&one)),
            ("one_worker_waits_per_request", waits(&one)),
            ("waits_per_request", waits(&two)),
            ("least_worker_share_percent", next / (most + next) * 100.0),
        ]);
        Ok(outcome)
    }
}

impl TwoCores {
    fn with_cores(
        &self,
        house: &mut House,
        server: &str,
        cores: &[usize],
    ) -> Result<Measured, Trouble> {
        let mut goods = manifests::goods(house)?;
        goods.blobs = house.content.blobs("hit", 1 << 20, 8)?;
        let running = house.open_on(server, cores, &goods)?;
        let mut asks = Vec::new();
        for (n, image) in goods.images.iter().enumerate() {
            asks.push(Ask::manifest_head(image, &image.by_tag()));
            asks.push(Ask::manifest(image, &image.by_digest()));
            if n % 2 == 0 {
                asks.extend(goods.blobs.get(n / 2).map(Ask::blob));
            }
        }
        let load = Load::of(&house.settings, &asks, CONNECTIONS);
        let load = Load { client_cores: cores, server_cores: cores, ..load };
        Ok(drive(&running, &load, &house.interrupted)?)
    }
}
