//! A thousand clients that want the same blob at the same moment, of a mirror that has it not.
//!
//! The blob crosses the upstream's wire once, and then a thousand times the mirror's: the longer of
//! those two is the least that the herd can take, and both are measured beside it in each round.
//! The origin is a thread of this program on the load's core, where it competes with the clients:
//! what that costs is the herd's. And the mirror's memory has grown by the time that it serves them
//! what is stored. Both make the ratio a little too high.

use crate::client::Ask;
use crate::client::timed;
use crate::house::{Goods, House, NGINX_CACHE, Trouble};
use crate::record::{About, Target};
use crate::scenario::{Case, Outcome, Scenario, Servers, cold, size};
use crate::stock;

pub(crate) struct ColdHerd;

const CLIENTS: u64 = 1000;

impl Scenario for ColdHerd {
    fn about(&self) -> About {
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
            targets: vec![
                Target::most("upstream_gets", 1.0),
                Target::most("times_the_longer_part", 1.2),
            ],
        }
    }

    fn cases(&self, quick: bool) -> Vec<Case> {
        let case = |bytes: u64| {
            let name = format!("{CLIENTS} x {}", size(bytes));
            Case::new(name, &[("bytes", bytes), ("connections", CLIENTS)])
        };
        if quick { vec![case(1 << 20)] } else { vec![case(1 << 20), case(16 << 20)] }
    }

    fn servers(&self, quick: bool) -> Servers {
        cold::servers(quick)
    }

    fn measure(&self, house: &mut House, case: &Case, server: &str) -> Result<Outcome, Trouble> {
        let blobs = house.content.blobs("herd", case.number("bytes"), 1)?;
        let asks: Vec<Ask> = blobs.iter().map(Ask::blob).collect();
        let clients = case.count("connections");
        let herd: Vec<Ask> = asks.iter().cycle().take(clients).cloned().collect();
        let origin = house.counting()?;
        // What the origin takes to give the blob once.
        let mut upstream = 0.0;
        for ask in &asks {
            upstream += timed::fetch(origin.addr, ask)?.whole.as_secs_f64();
        }
        let running = house.start_cold(server, origin.addr)?;
        origin.take_gets();
        let cold = cold::pass(house, &running, &herd, clients)?;
        let gets = origin.take_gets();
        stock::prove_all(running.addr, &Goods { blobs, ..Goods::default() })?;
        let warm = cold::pass(house, &running, &herd, clients)?;
        let mut outcome = Outcome::of(&cold);
        outcome.wrong.extend(warm.wrong());
        outcome.put([
            ("herd_seconds", cold.seconds),
            ("upstream_gets", gets as f64),
            ("upstream_seconds", upstream),
            ("serving_seconds", warm.seconds),
            ("times_the_longer_part", cold.seconds / upstream.max(warm.seconds)),
        ]);
        Ok(outcome)
    }
}
