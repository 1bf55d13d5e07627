//! Power cuts on an ext4 in a file (EXT4_IOC_SHUTDOWN without a flush of the journal): what was
//! acknowledged as durable is there, cached content may vanish but is never wrong (reliability
//! plan A2). Needs root and a loop device; elsewhere it says that it was skipped.
//!
//! `RINGPORT_POWER_ROUNDS` cuts, 3 by itself, 200 for a release; `RINGPORT_POWER_SEED` replays
//! the content, the requests and the moments of a run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::chance::Chance;
use support::durable::{DurableCommits, Journal, Names};
use support::load::World;
use support::mounts::CutDisk;
use support::rig::NS;
use support::server::{Server, Setup, Upstream};
use support::{number_from, secs, tell, wait_until};

/// After so many rounds another disk is made.
const ROUNDS_A_DISK: u64 = 20;
const DISK_MEBIBYTES: u64 = 512;

/// A server with a boot id of its own sees the mounts there were when it started, and holds on to
/// them: the tests take turns, so that nobody holds another one's disk.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> std::sync::MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The tool itself: a cut that loses nothing would show nothing.
#[test]
fn a_power_cut_loses_what_was_not_synced() {
    let _turn = turn();
    let Some(mut disk) = CutDisk::mount("crash_power, cut", 64) else { return };
    let path = disk.path().to_path_buf();
    let write = |name: &str, sync: bool| {
        let mut file = File::create(path.join(name)).unwrap();
        file.write_all(&[7; 10_000]).unwrap();
        if sync {
            file.sync_all().unwrap();
            File::open(&path).unwrap().sync_all().unwrap();
        }
    };
    write("synced", true);
    write("unsynced", false);
    disk.cut();
    assert!(File::create(path.join("late")).is_err(), "a write after the cut");
    disk.power_on();
    assert_eq!(std::fs::read(path.join("synced")).unwrap(), [7; 10_000]);
    let unsynced = std::fs::read(path.join("unsynced")).unwrap_or_default();
    assert!(unsynced.is_empty(), "what was not synced was kept: this was no power cut");
}

#[test]
fn a_mirror_whose_power_is_cut_never_serves_wrong_bytes() {
    let _turn = turn();
    let rounds = number_from("RINGPORT_POWER_ROUNDS", 3);
    let seed = Chance::seed_from("RINGPORT_POWER_SEED");
    let chance = Chance::new(seed);
    let (mut kept, mut served, mut slowest) = (0, 0, Duration::ZERO);
    for first in (0..rounds).step_by(ROUNDS_A_DISK as usize) {
        let Some(mut disk) = CutDisk::mount("crash_power", DISK_MEBIBYTES) else { return };
        if first == 0 {
            tell(&format!("crash_power: {rounds} rounds, RINGPORT_POWER_SEED={seed}"));
        }
        let world = World::new(seed ^ first);
        let setup = Setup::new("crash-power").upstream(world.declared());
        let setup = setup.root(&disk.path().join("store")).run_by(&disk.next_boot(first));
        let mut server = setup.start();
        world.warm_up(&server);
        for round in first..rounds.min(first + ROUNDS_A_DISK) {
            let took = one_cut(&mut disk, &mut server, &world, chance.part(round), round);
            slowest = slowest.max(took);
        }
        kept += server.blobs().len();
        served += world.served();
        // Before the disk goes.
        server.kill();
    }
    tell(&format!(
        "crash_power: {rounds} cuts, 0 wrong; {served} blobs served, {kept} files stored at the \
         end; start at most {slowest:?}"
    ));
}

/// Load, cut, a little more load on the dead disk, restart, everything asked for again; how long
/// the start took.
fn one_cut(
    disk: &mut CutDisk,
    server: &mut Server,
    world: &Arc<World>,
    mut chance: Chance,
    round: u64,
) -> Duration {
    world.add_round(&mut chance, round);
    let load = world.start_load(server.addr, &chance);
    std::thread::sleep(chance.milliseconds(5, 500));
    // Sometimes the kernel has just written everything out, and what came after is torn.
    if chance.percent(50) {
        disk.sync();
        std::thread::sleep(chance.milliseconds(0, 100));
    }
    world.allow_refusals(true);
    disk.cut();
    std::thread::sleep(chance.milliseconds(0, 50));
    server.kill();
    let _ = load.stop();
    disk.power_on();
    let _ = disk.next_boot(round + 1);
    world.allow_refusals(false);

    let started = Instant::now();
    server.start_again();
    let took = started.elapsed();
    assert_eq!(server.staged(), Vec::<PathBuf>::new(), "round {round}: files in staging");
    world.check_stored(server);
    world.check_all(server.addr, &mut chance, 40);
    world.expect_no_wrong();
    assert_eq!(server.metric("ringport_task_panics_total", &[]), 0.0, "round {round}: panics");
    // What was asked for was looked at: by now no wrong file is left under a right name.
    server.assert_store_is_right();
    took
}

#[test]
fn what_was_acknowledged_as_durable_survives_a_power_cut() {
    let _turn = turn();
    let rounds = number_from("RINGPORT_POWER_ROUNDS", 3);
    let seed = Chance::seed_from("RINGPORT_POWER_SEED");
    let chance = Chance::new(seed);
    let (mut there, mut gone, mut asked) = (0, 0, 0);
    for first in (0..rounds).step_by(ROUNDS_A_DISK as usize) {
        let Some(mut disk) = CutDisk::mount("crash_power, durable", 4 * DISK_MEBIBYTES) else {
            return;
        };
        if first == 0 {
            tell(&format!("crash_power, durable: {rounds} rounds, RINGPORT_POWER_SEED={seed}"));
        }
        let nowhere = Upstream::new(NS, "http://127.0.0.1:1");
        let setup = Setup::new("durable-power").upstream(nowhere);
        let setup = setup.root(&disk.path().join("store")).run_by(&disk.next_boot(first));
        let mut server = setup.prepare();
        let mut journals = Vec::new();
        for round in first..rounds.min(first + ROUNDS_A_DISK) {
            if disk.used_percent() > 80 {
                break;
            }
            let mut chance = chance.part(round);
            let new = cut_a_commit(&mut disk, &server, &mut chance);
            let _ = disk.next_boot(round + 1);
            there += new.count().0;
            gone += new.count().1;
            journals.push(new);
            let names = Names::of(server.root(), server.scratch());
            for journal in &journals {
                journal.check_names(&names, round);
            }
            server.start_again();
            assert_eq!(server.staged(), Vec::<PathBuf>::new(), "round {round}: files in staging");
            // All of the last round, and one earlier round again.
            let earlier = chance.below(journals.len());
            for journal in [&journals[earlier], &journals[journals.len() - 1]] {
                asked += journal.check_served(&server, round);
            }
            server.kill();
        }
    }
    tell(&format!(
        "crash_power, durable: {there} names acknowledged, 0 lost; {gone} deleted, 0 back; {asked} \
         contents asked for, 0 wrong"
    ));
}

/// Lets content be stored until the power fails; what was acknowledged by then.
fn cut_a_commit(disk: &mut CutDisk, server: &Server, chance: &mut Chance) -> Journal {
    let log = server.scratch().path().join("durable.log");
    let mut commits = DurableCommits::start(server.root(), chance.next(), &log);
    wait_until("a first acknowledgement", secs(60), || {
        commits.count() > 0 || !commits.is_running()
    });
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    assert!(commits.is_running(), "durable_commit ended by itself: {}", text());
    std::thread::sleep(chance.milliseconds(5, 500));
    disk.cut();
    // It may not acknowledge anything from here on; what it does acknowledge is held against it.
    std::thread::sleep(chance.milliseconds(0, 50));
    let acknowledged = commits.kill();
    disk.power_on();
    acknowledged
}
