//! kill -9 at random moments: nothing that was stored is lost, nothing wrong is served, nothing
//! is left over (reliability plan A1).
//!
//! `RINGPORT_KILL_ROUNDS` kills, 10 by itself, 1,000 for a release. `RINGPORT_KILL_SEED` replays
//! the content, the requests and the moments of a run; its seed is printed first.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::chance::Chance;
use support::durable::{DurableCommits, Names};
use support::load::{Tally, World};
use support::rig::NS;
use support::server::{Server, Setup, Upstream};
use support::{ms, number_from, tell};

/// After so many rounds another store is begun, so that neither it nor the upstream grows for ever.
const ROUNDS_A_STORE: u64 = 20;

/// What the rounds showed, printed at the end.
#[derive(Default)]
struct Sum {
    tally: Tally,
    cut: usize,
    kills: u64,
    while_starting: u64,
    first_hit_max: Duration,
}

#[test]
fn a_mirror_killed_at_any_moment_serves_what_it_stored() {
    let rounds = number_from("RINGPORT_KILL_ROUNDS", 10);
    let seed = Chance::seed_from("RINGPORT_KILL_SEED");
    tell(&format!("crash_kill: {rounds} rounds, RINGPORT_KILL_SEED={seed}"));
    let chance = Chance::new(seed);
    let mut sum = Sum::default();
    for first in (0..rounds).step_by(ROUNDS_A_STORE as usize) {
        let world = World::new(seed ^ first);
        let setup = Setup::new("crash-kill").upstream(world.declared());
        let mut server = setup.start();
        world.warm_up(&server);
        await_durable_names(&mut server, &world);
        for round in first..rounds.min(first + ROUNDS_A_STORE) {
            one_round(&mut server, &world, chance.part(round), round, &mut sum);
        }
        server.assert_alive();
        assert_eq!(server.metric("ringport_task_panics_total", &[]), 0.0, "panics");
        sum.cut += world.served();
    }
    let Sum { tally, cut, kills, while_starting, first_hit_max } = sum;
    tell(&format!(
        "crash_kill: {kills} kills, {while_starting} more while it started; {tally:?}; {cut} blobs \
         in the journal; start to first hit at most {first_hit_max:?}"
    ));
}

/// Names of cached content are durable a second after they were made, without anybody saying so:
/// waits until the first set is found again after a kill.
fn await_durable_names(server: &mut Server, world: &World) {
    for _ in 0..5 {
        std::thread::sleep(ms(1500));
        server.kill();
        server.start_again();
        let kept = world.warm.iter().all(|blob| world.is_hit(server.addr, blob).is_ok());
        if kept {
            return;
        }
    }
    panic!("content that was stored seconds before a kill -9 is forgotten after it");
}

fn one_round(
    server: &mut Server,
    world: &std::sync::Arc<World>,
    mut chance: Chance,
    round: u64,
    sum: &mut Sum,
) {
    world.add_round(&mut chance, round);
    let load = world.start_load(server.addr, &chance);
    std::thread::sleep(chance.milliseconds(5, 500));
    server.kill();
    let tally = load.stop();
    sum.tally.whole += tally.whole;
    sum.tally.cut += tally.cut;
    sum.tally.refused += tally.refused;
    sum.kills += 1;
    let before: BTreeSet<PathBuf> = server.blobs().into_iter().collect();
    // One start in four does not get to its end.
    if chance.percent(25) {
        server.launch();
        std::thread::sleep(chance.milliseconds(1, 60));
        server.kill();
        sum.while_starting += 1;
    }

    let started = Instant::now();
    server.start_again();
    let blob = chance.of(&world.warm);
    let hit = world.is_hit(server.addr, blob);
    sum.first_hit_max = sum.first_hit_max.max(started.elapsed());
    assert_eq!(hit, Ok(()), "round {round}: the first hit after a kill -9");
    assert_eq!(server.staged(), Vec::<PathBuf>::new(), "round {round}: files in staging");
    server.assert_store_is_right();
    let after: BTreeSet<PathBuf> = server.blobs().into_iter().collect();
    let lost: Vec<_> = before.difference(&after).collect();
    assert!(lost.is_empty(), "round {round}: stored content is gone after the start: {lost:?}");
    for blob in &world.warm {
        assert_eq!(world.is_hit(server.addr, blob), Ok(()), "round {round}: stored long ago");
    }
    // Whether or not the upstream is there to ask, a tag is what it once was.
    if chance.percent(25) {
        world.upstream.script_everything(Some(support::lying::Answer::status(503)));
        world.check_tags(server.addr);
        world.upstream.script_everything(None);
    }
    world.check_all(server.addr, &mut chance, 40);
    world.expect_no_wrong();
}

#[test]
fn what_was_acknowledged_as_durable_survives_kill() {
    let rounds = number_from("RINGPORT_KILL_ROUNDS", 10).div_ceil(3);
    let seed = Chance::seed_from("RINGPORT_KILL_SEED");
    tell(&format!("crash_kill, durable: {rounds} rounds, RINGPORT_KILL_SEED={seed}"));
    let chance = Chance::new(seed);
    let nowhere = Upstream::new(NS, "http://127.0.0.1:1");
    let mut server = Setup::new("durable-kill").upstream(nowhere).prepare();
    let log = server.scratch().path().join("durable.log");
    let (mut journals, mut asked) = (Vec::new(), 0);
    for round in 0..rounds {
        let mut chance = chance.part(round);
        let commits = DurableCommits::start(server.root(), chance.next(), &log);
        support::wait_until("a first acknowledgement", support::secs(30), || commits.count() > 0);
        std::thread::sleep(chance.milliseconds(5, 500));
        journals.push(commits.kill());
        let names = Names::of(server.root(), server.scratch());
        for journal in &journals {
            journal.check_names(&names, round);
        }
        server.start_again();
        assert_eq!(server.staged(), Vec::<PathBuf>::new(), "round {round}: files in staging");
        asked += journals[journals.len() - 1].check_served(&server, round);
        server.kill();
    }
    let there: usize = journals.iter().map(|journal| journal.count().0).sum();
    let gone: usize = journals.iter().map(|journal| journal.count().1).sum();
    assert!(gone > 0, "nothing was deleted");
    tell(&format!(
        "crash_kill, durable: {there} names acknowledged, 0 lost; {gone} deleted, 0 back; {asked} \
         contents asked for"
    ));
}
