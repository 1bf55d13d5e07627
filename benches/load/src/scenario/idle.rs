//! Connections that are kept alive and say nothing, as container engines keep them between pulls.

use std::time::Duration;

use crate::client::Ask;
use crate::client::plain::Plain;
use crate::house::{House, NGINX, REGISTRY, RINGPORT, Trouble};
use crate::machine::{self, Usage};
use crate::record::{About, Target};
use crate::scenario::{Case, Outcome, Scenario, Servers, manifests};

pub(crate) struct Idle;

const CONNECTIONS: u64 = 10_000;
/// Requests before the first look at the memory, so that what is only set up once is no
/// connection's.
const WARM_UP: usize = 200;
/// Until what was freed, or is freed late, has been: nobody can see when that is.
const SETTLE: Duration = Duration::from_millis(500);
/// One in so many is asked again at the end: all of them were kept.
const ASKED_AGAIN: usize = 100;

impl Scenario for Idle {
    fn about(&self) -> About {
        About {
            scenario: "idle".to_owned(),
            measures: format!(
                "Memory of the server's processes with {CONNECTIONS} connections that have each \
                 made one request, less that before, for each of them. What the kernel keeps for a \
                 socket is not in it, and is the same for all servers."
            ),
            headline: "rss_bytes_per_connection".to_owned(),
            more_is_better: false,
            also: ["rss_bytes"].map(str::to_owned).into(),
            peer: Some(NGINX.to_owned()),
            targets: vec![Target::most("rss_bytes_per_connection", 8192.0)],
        }
    }

    fn cases(&self, _: bool) -> Vec<Case> {
        vec![Case::new(format!("{CONNECTIONS} connections"), &[("connections", CONNECTIONS)])]
    }

    fn servers(&self, quick: bool) -> Servers {
        let all = [RINGPORT, NGINX, REGISTRY];
        Servers::and_given(if quick { all.split_at(2).0 } else { &all })
    }

    fn measure(&self, house: &mut House, case: &Case, server: &str) -> Result<Outcome, Trouble> {
        let (count, allowed) = (case.number("connections"), machine::open_files_max());
        if allowed < count + 200 {
            return Err(Trouble::Failed(format!(
                "{count} connections need {} open files, and {allowed} are allowed: ulimit -Hn",
                count + 200
            )));
        }
        let goods = manifests::goods(house)?;
        let running = house.open(server, &goods)?;
        let asks: Vec<Ask> =
            goods.images.iter().map(|image| Ask::manifest(image, &image.by_digest())).collect();
        let open = || Plain::open(running.addr).map_err(|e| format!("{server}: {e}"));
        let mut first = open()?;
        for ask in asks.iter().cycle().take(WARM_UP) {
            check(&mut first, ask)?;
        }
        std::thread::sleep(SETTLE);
        let before = Usage::of(running.id()).rss_bytes;
        let mut connections = Vec::new();
        for ask in asks.iter().cycle().take(case.count("connections")) {
            let mut connection = open()?;
            check(&mut connection, ask)?;
            connections.push(connection);
            if house.is_interrupted() {
                return Err(Trouble::Failed("interrupted".to_owned()));
            }
        }
        std::thread::sleep(SETTLE);
        let after = Usage::of(running.id()).rss_bytes;
        for (connection, ask) in
            connections.iter_mut().step_by(ASKED_AGAIN).zip(asks.iter().cycle())
        {
            check(connection, ask)?;
            if connection.reopened > 0 {
                return Err(Trouble::Failed("an idle connection was not kept".to_owned()));
            }
        }
        let grown = after as f64 - before as f64;
        let mut outcome = Outcome { requests: count, ..Outcome::default() };
        outcome.put([
            ("rss_bytes_per_connection", grown / count as f64),
            ("rss_bytes", after as f64),
            ("rss_before_bytes", before as f64),
        ]);
        Ok(outcome)
    }
}

fn check(connection: &mut Plain, ask: &Ask) -> Result<(), String> {
    let answer = connection.fetch(&ask.bytes, false).map_err(|e| format!("{}: {e}", ask.name))?;
    let expected = (ask.status, ask.body_bytes());
    let found = (answer.status, answer.body_bytes);
    match found == expected {
        true => Ok(()),
        false => Err(format!("{}: expected {expected:?}, found {found:?}", ask.name)),
    }
}
