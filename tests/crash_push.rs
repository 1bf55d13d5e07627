//! kill -9, power cuts and full disks while clients push: what was acknowledged is there byte for byte, with
//! its tags and referrers; what was under way has happened wholly or not at all; uploads go on or
//! are gone, and leave nothing behind.
//!
//! `RINGPORT_PUSH_KILL_ROUNDS` kills, 8 by itself, 1,000 for the full form;
//! `RINGPORT_PUSH_POWER_ROUNDS` cuts, 2 by itself, 200 for the full form;
//! `RINGPORT_PUSH_FULL_ROUNDS` full disks, 1 by itself. `RINGPORT_PUSH_SEED`
//! replays contents and moments. Power cuts need root and a loop device.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod model_support;
mod support;

use model_support::ledger::Found;
use model_support::pushing::Pusher;
use model_support::subject::OPEN;
use model_support::wire::{Life, Trouble};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::chance::Chance;
use support::mounts::{CutDisk, Tmpfs};
use support::scratch::files_below;
use support::server::{Server, Setup};
use support::{number_from, secs, tell, wait_until};

/// Clients at a time.
const CLIENTS: usize = 4;
/// After so many rounds another store is begun.
const ROUNDS_A_STORE: u64 = 20;
const DISK_MEBIBYTES: u64 = 2048;

/// A server with a boot id of its own holds on to the mounts there were when it started.
static TURN: Mutex<()> = Mutex::new(());

/// A store under load, and all that its clients know.
struct World {
    life: Arc<Life>,
    pushers: Vec<Pusher>,
    found: Found,
    slowest: Duration,
}

impl World {
    fn new(server: &Server, chance: &Chance) -> World {
        let life = Arc::new(Life::default());
        let pusher = |n| Pusher::new(server.addr, &life, n, chance.part(1000 + n as u64));
        let pushers = (0..CLIENTS).map(pusher).collect();
        World { life, pushers, found: Found::default(), slowest: Duration::ZERO }
    }

    /// Lets them push until `end` has ended the server.
    fn load(&mut self, wait: Duration, end: impl FnOnce(&Life)) {
        let stop = Arc::new(AtomicBool::new(false));
        let running: Vec<_> = self.pushers.drain(..).map(|pusher| pusher.start(&stop)).collect();
        std::thread::sleep(wait);
        end(&self.life);
        stop.store(true, Ordering::SeqCst);
        for client in running {
            let (pusher, wrong) = client.join().expect("a client that does not panic");
            if let Some(wrong) = wrong {
                panic!("under load: {wrong}");
            }
            self.pushers.push(pusher);
        }
    }

    /// Lets them push until all of them were refused often enough.
    fn load_until_refused(&mut self) {
        let stop = Arc::new(AtomicBool::new(false));
        let running: Vec<_> = self.pushers.drain(..).map(|pusher| pusher.start(&stop)).collect();
        for client in running {
            let (pusher, wrong) = client.join().expect("a client that does not panic");
            assert_eq!(wrong, None, "on a full disk");
            self.pushers.push(pusher);
        }
    }

    /// The server is there again: everything it should know is asked for.
    fn check(&mut self, server: &mut Server, round: u64, sample: usize) {
        assert_eq!(server.staged(), Vec::<std::path::PathBuf>::new(), "round {round}: staging");
        for pusher in &mut self.pushers {
            let Pusher { wire, ledger, .. } = pusher;
            wire.is_quiet = true;
            let checked = ledger.check(wire, sample, &mut self.found);
            wire.is_quiet = false;
            if let Err(Trouble::Gone(what) | Trouble::Wrong(what)) = checked {
                panic!("round {round}: {what}");
            }
        }
        // Every upload has ended, or was gone.
        let left = files_below(&server.root().join("uploads"));
        assert_eq!(left, Vec::<std::path::PathBuf>::new(), "round {round}: uploads left behind");
        assert_eq!(server.staged(), Vec::<std::path::PathBuf>::new(), "round {round}: staging");
        assert_eq!(server.metric("ringport_task_panics_total", &[]), 0.0, "round {round}: panics");
    }

    fn tell(&self, what: &str, rounds: u64) {
        let acknowledged: u64 = self.pushers.iter().map(|pusher| pusher.acknowledged).sum();
        let Found { asked, resumed, ended, happened, had_not } = self.found;
        tell(&format!(
            "crash_push: {rounds} {what}: {acknowledged} acknowledged, 0 lost, asked for {asked} \
             times; {resumed} uploads went on, {ended} were gone; of what was under way {happened} \
             had happened, {had_not} had not; start at most {:?}",
            self.slowest
        ));
    }

    fn add(&mut self, other: World) {
        self.found.add(other.found);
        self.slowest = self.slowest.max(other.slowest);
        self.pushers.extend(other.pushers);
    }
}

fn setup(what: &str) -> Setup {
    Setup::new(what).routing("hosted = [\"*\"]").more(OPEN)
}

fn start(server: &mut Server, world: &mut World) {
    let started = Instant::now();
    server.start_again();
    world.slowest = world.slowest.max(started.elapsed());
    world.life.turn();
}

#[test]
fn acknowledged_pushes_survive_a_full_disk() {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let rounds = number_from("RINGPORT_PUSH_FULL_ROUNDS", 1);
    let seed = Chance::seed_from("RINGPORT_PUSH_SEED");
    for round in 0..rounds {
        let Some(disk) = Tmpfs::mount("crash_push, full", "size=48m") else { return };
        tell(&format!("crash_push: full disk {round}, RINGPORT_PUSH_SEED={seed}"));
        let mut server = setup("push-full").root(&disk.path().join("store")).start();
        let mut world = World::new(&server, &Chance::new(seed).part(round));
        world.pushers.iter_mut().for_each(|pusher| pusher.refusals_max = Some(12));
        world.load_until_refused();
        let refused: u64 = world.pushers.iter().map(|pusher| pusher.refused).sum();
        world.pushers.iter_mut().for_each(|pusher| pusher.check_acknowledged(&mut world.found));

        disk.remount("size=512m");
        let started = Instant::now();
        for pusher in &mut world.pushers {
            wait_until("pushes to be taken again", secs(30), || pusher.step().is_ok());
            pusher.refusals_max = None;
        }
        world.slowest = started.elapsed();
        world.check(&mut server, round, 1);
        world.load(Duration::from_millis(300), |_| {});
        world.life.turn();
        server.kill();
        start(&mut server, &mut world);
        world.check(&mut server, round, 1);
        server.assert_store_is_right();
        world.tell(&format!("full disks ({refused} refused)"), round + 1);
    }
}

/// Mostly while they push small things, sometimes right at the beginning.
fn moment(chance: &mut Chance) -> Duration {
    if chance.percent(20) { chance.milliseconds(0, 20) } else { chance.milliseconds(20, 400) }
}

#[test]
fn acknowledged_pushes_survive_kill() {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let rounds = number_from("RINGPORT_PUSH_KILL_ROUNDS", 8);
    let seed = Chance::seed_from("RINGPORT_PUSH_SEED");
    tell(&format!("crash_push: {rounds} kills, RINGPORT_PUSH_SEED={seed}"));
    let chance = Chance::new(seed);
    let mut all: Option<World> = None;
    for first in (0..rounds).step_by(ROUNDS_A_STORE as usize) {
        let mut server = setup("push-kill").start();
        let mut world = World::new(&server, &chance.part(first));
        let until = rounds.min(first + ROUNDS_A_STORE);
        for round in first..until {
            let mut chance = chance.part(round);
            world.load(moment(&mut chance), |life| {
                life.turn();
                server.kill();
            });
            // One start in four does not get to its end.
            if chance.percent(25) {
                server.launch();
                std::thread::sleep(chance.milliseconds(1, 60));
                server.kill();
            }
            start(&mut server, &mut world);
            world.check(&mut server, round, if round + 1 == until { 1 } else { 16 });
        }
        server.assert_store_is_right();
        match &mut all {
            Some(all) => all.add(world),
            None => all = Some(world),
        }
    }
    if let Some(all) = all {
        all.tell("kills", rounds);
    }
}

#[test]
fn acknowledged_pushes_survive_a_power_cut() {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let rounds = number_from("RINGPORT_PUSH_POWER_ROUNDS", 2);
    let seed = Chance::seed_from("RINGPORT_PUSH_SEED");
    let chance = Chance::new(seed);
    let mut all: Option<World> = None;
    for first in (0..rounds).step_by(ROUNDS_A_STORE as usize) {
        let Some(mut disk) = CutDisk::mount("crash_push, power", DISK_MEBIBYTES) else { return };
        if first == 0 {
            tell(&format!("crash_push: {rounds} power cuts, RINGPORT_PUSH_SEED={seed}"));
        }
        let setup = setup("push-power").root(&disk.path().join("store"));
        let mut server = setup.run_by(&disk.next_boot(first)).start();
        let mut world = World::new(&server, &chance.part(first));
        let until = rounds.min(first + ROUNDS_A_STORE);
        for round in first..until {
            if disk.used_percent() > 80 {
                break;
            }
            let mut chance = chance.part(round);
            let is_synced = chance.percent(50);
            let later = chance.milliseconds(0, 50);
            world.load(moment(&mut chance), |life| {
                if is_synced {
                    disk.sync();
                }
                // From here on refusals and silence are right, and acknowledgements count.
                life.turn();
                disk.cut();
                std::thread::sleep(later);
                server.kill();
            });
            disk.power_on();
            let _ = disk.next_boot(round + 1);
            start(&mut server, &mut world);
            world.check(&mut server, round, if round + 1 == until { 1 } else { 16 });
        }
        server.assert_store_is_right();
        server.kill();
        match &mut all {
            Some(all) => all.add(world),
            None => all = Some(world),
        }
    }
    if let Some(all) = all {
        all.tell("power cuts", rounds);
    }
}
