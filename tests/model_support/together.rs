//! Several clients at once, each with repositories of its own and blobs from all: what each sees
//! of its own is its own model, whatever others, a gc and crashes do meanwhile.

use super::contents::Contents;
use super::machine::Machine;
use super::operation::Chooser;
use super::subject::{Subject, collect_at};
use super::wire::Trouble;
use crate::support::chance::Chance;
use crate::support::{http, ms, tell};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};

/// Clients; there are as many repositories for each.
const CLIENTS: usize = 3;

/// What clients and the one who ends the server know of each other.
struct Shared {
    /// Read by a client for the time of an operation, written while all stand still.
    turn: RwLock<Quiet>,
    done: AtomicU64,
    failed: AtomicBool,
    failures: Mutex<Vec<String>>,
}

/// What has happened while all stood still.
#[derive(Default)]
struct Quiet {
    events: Vec<Event>,
}

/// What every client has to know, in this order.
#[derive(Clone, Copy, Debug)]
enum Event {
    Advanced(u64),
    Collected,
    CollectingBegins,
    CollectingEnds,
}

/// Lets them work until so many operations are done.
pub fn run(contents: &Contents, names: &[String], count: u64, seed: u64) {
    let Some(mut subject) = Subject::start("push-together") else { return };
    let shared = Shared {
        turn: RwLock::default(),
        done: AtomicU64::new(0),
        failed: AtomicBool::new(false),
        failures: Mutex::default(),
    };
    let each = names.len() / CLIENTS;
    let mut machines: Vec<Machine<'_>> = (0..CLIENTS)
        .map(|n| Machine::new(contents, names, n * each..(n + 1) * each, &subject))
        .collect();
    let mut chance = Chance::new(seed).part(100);
    let kills = std::thread::scope(|scope| {
        for (n, machine) in machines.iter_mut().enumerate() {
            let own = n * each..(n + 1) * each;
            let chooser = Chooser { contents, own, all: names.len(), is_alone: false };
            let chance = Chance::new(seed).part(n as u64 + 1);
            scope.spawn(|| client(machine, chooser, chance, &shared, count));
        }
        disturb(&mut subject, &mut chance, &shared, count)
    });
    let failures = shared.failures.into_inner().unwrap();
    if !failures.is_empty() {
        let log = subject.log_tail();
        // Its guard would tell the log again.
        drop(subject);
        panic!("--- log ---\n{log}\n--- RINGPORT_MODEL_SEED={seed}:\n{}", failures.join("\n\n"));
    }
    subject.check();
    let requests: u64 = machines.iter().map(|machine| machine.wire.count).sum();
    let done = shared.done.into_inner();
    tell(&format!(
        "push_model, together: {CLIENTS} clients, {done} operations, {requests} requests, {kills} \
         kills, equal to their models"
    ));
}

/// Ends and moves the server until the work is done; how many kills.
fn disturb(subject: &mut Subject, chance: &mut Chance, shared: &Shared, count: u64) -> u64 {
    let mut kills = 0;
    let is_over =
        || shared.done.load(Ordering::SeqCst) >= count || shared.failed.load(Ordering::SeqCst);
    while !is_over() {
        std::thread::sleep(chance.milliseconds(20, 600));
        match chance.below(10) {
            0..4 => {
                // What is not atomic is killed only while nothing is under way.
                let is_full = subject.abilities().is_full;
                let _quiet = (!is_full).then(|| shared.turn.write().unwrap());
                subject.kill();
                kills += 1;
                subject.start_again();
            }
            4 => {
                let _quiet = shared.turn.write().unwrap();
                subject.restart();
            }
            5 => {
                let mut quiet = shared.turn.write().unwrap();
                subject.advance(26);
                quiet.events.push(Event::Advanced(26));
                collect(subject, shared);
                quiet.events.push(Event::Collected);
            }
            is_killed => {
                let mut quiet = shared.turn.write().unwrap();
                if chance.percent(70) {
                    subject.advance(26);
                    quiet.events.push(Event::Advanced(26));
                }
                quiet.events.push(Event::CollectingBegins);
                drop(quiet);
                match subject.admin() {
                    Some(admin) if is_killed == 9 => {
                        let _ = http::send_body(admin, "POST", "/gc", "text/plain", b"");
                        std::thread::sleep(chance.milliseconds(0, 30));
                        subject.kill();
                        kills += 1;
                        subject.start_again();
                    }
                    _ => collect(subject, shared),
                }
                let mut quiet = shared.turn.write().unwrap();
                quiet.events.push(Event::CollectingEnds);
            }
        }
    }
    kills
}

fn collect(subject: &Subject, shared: &Shared) {
    let Some(admin) = subject.admin() else { return };
    if let Err(why) = collect_at(admin) {
        fail(shared, why);
    }
}

fn fail(shared: &Shared, why: String) {
    shared.failures.lock().unwrap().push(why);
    shared.failed.store(true, Ordering::SeqCst);
}

fn client(
    machine: &mut Machine<'_>,
    chooser: Chooser<'_>,
    mut chance: Chance,
    shared: &Shared,
    count: u64,
) {
    let mut known = 0;
    let mut life = 0;
    loop {
        let quiet = shared.turn.read().unwrap();
        let is_over = shared.done.load(Ordering::SeqCst) >= count;
        if shared.failed.load(Ordering::SeqCst) || is_over && quiet.events.len() == known {
            return;
        }
        let done = catch_up(machine, &quiet.events[known..], &mut life).and_then(|()| {
            known = quiet.events.len();
            machine.run(&chooser.next(&mut chance))
        });
        drop(quiet);
        match done {
            Ok(()) => {
                shared.done.fetch_add(1, Ordering::SeqCst);
            }
            // It is looked at when the server is there again.
            Err(Trouble::Gone(_)) => {
                machine.has_ended();
                std::thread::sleep(ms(20));
            }
            Err(Trouble::Wrong(what)) => {
                let log: Vec<String> = machine.wire.log.iter().cloned().collect();
                fail(
                    shared,
                    format!("{}\n--- client {}: {what}", log.join("\n"), chooser.own.start),
                );
                return;
            }
        }
    }
}

/// Learns what happened since, and after an end of the server looks at everything.
fn catch_up(machine: &mut Machine<'_>, events: &[Event], life: &mut u64) -> Result<(), Trouble> {
    for event in events {
        machine.wire.note(format!("-- {event:?}"));
        match event {
            Event::Advanced(hours) => machine.advanced(*hours),
            Event::Collected => machine.collected(),
            Event::CollectingBegins => machine.collecting(true),
            Event::CollectingEnds => machine.collecting(false),
        }
    }
    let now = machine.wire.life();
    let has_doubts = events.iter().any(|event| matches!(event, Event::CollectingEnds));
    if now != *life || machine.model.pending.is_some() || has_doubts {
        machine.has_ended();
        if !now.is_multiple_of(2) {
            return Err(Trouble::Gone("it is being started".to_owned()));
        }
        machine.check()?;
        *life = now;
    }
    Ok(())
}
