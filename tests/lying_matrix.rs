//! The matrix of lies: each behaviour of an upstream at each thing that it is asked for. Nothing
//! wrong is completed or stored, every answer comes in bounded time and memory, and when the
//! upstream is right again the pull succeeds.
//!
//! One round of each cell by itself; `RINGPORT_LIE_SEEDS=100` is the full form and
//! `RINGPORT_LIE_SEED` replays the numbers of a run that printed it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod matrix_support;
mod support;

use matrix_support::behaviour::{BEHAVIOURS, Behaviour, Must};
use matrix_support::{Liar, Round, TARGETS, Target};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::chance::Chance;
use support::http::{Connection, Ending};
use support::listener::Listener;
use support::server::{Server, Setup, Upstream};
use support::{ms, number_from, secs, tell};

/// From the request to the last byte of an answer. What the time limits of the configuration below
/// and the tries of a fill come to is 5 s.
const ANSWER_BOUND: Duration = secs(30);
/// From the upstream's first right answer on: tags rest for 5 s, tokens that were refused too.
const RECOVERY_BOUND: Duration = secs(30);
/// Rounds that run at a time, in the short form and the full one; most of their time they wait.
const AT_A_TIME: [usize; 2] = [96, 256];
/// What each of them may take of the server's memory and descriptors, whatever the upstreams send.
const MEMORY_MAX: u64 = 768 << 10;
const DESCRIPTORS_MAX: usize = 8;

struct Cell {
    behaviour: Behaviour,
    target: Target,
    namespace: String,
    liar: Liar,
}

#[test]
fn nothing_that_an_upstream_does_is_completed_wrong_or_kept() {
    let rounds = number_from("RINGPORT_LIE_SEEDS", 1);
    let seed = Chance::seed_from("RINGPORT_LIE_SEED");
    tell(&format!("RINGPORT_LIE_SEED={seed}"));
    let (mut cells, began) = (cells(), Instant::now());
    let at_a_time = AT_A_TIME[usize::from(rounds > 4)];
    let never = Listener::decoy([127, 0, 0, 2]);
    let mut server = server(&cells);
    let watch = Watch::default();
    let (found, asked) = (Mutex::new(Table::default()), Mutex::new(Vec::new()));
    let (next, before) = (AtomicUsize::new(0), server.descriptors());
    std::thread::scope(|scope| {
        let jobs: Vec<_> = (0..at_a_time)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::SeqCst);
                        let round = (number / cells.len()) as u64;
                        if round >= rounds {
                            return;
                        }
                        let cell = &cells[number % cells.len()];
                        let (outcomes, kept) = cell.round(server.addr, seed, round);
                        found.lock().unwrap().note(cell, outcomes);
                        asked.lock().unwrap().extend(kept.map(|kept| (number % cells.len(), kept)));
                    }
                })
            })
            .collect();
        scope.spawn(|| watch.run(&server));
        let ended: Vec<_> = jobs.into_iter().map(|job| job.join()).collect();
        watch.over.store(true, Ordering::SeqCst);
        assert!(ended.iter().all(Result::is_ok), "a round panicked");
    });
    let found = found.into_inner().unwrap();
    tell(&found.text());
    tell(&format!("{rounds} rounds of {} cells in {:.0?}", cells.len(), began.elapsed()));
    watch.judge(at_a_time);
    assert!(found.wrong.is_empty(), "{} wrong: {:#?}", found.wrong.len(), found.wrong);
    assert_eq!(never.accepted(), 0, "a private address was dialled");

    cells.iter_mut().for_each(|cell| cell.liar.stop());
    let asked = asked.into_inner().unwrap();
    std::thread::scope(|scope| {
        for part in asked.chunks(asked.len().div_ceil(8)) {
            let (cells, server) = (&cells, &server);
            let ask = |(cell, round): &(usize, Round)| cells[*cell].ask_again(server, round);
            scope.spawn(move || part.iter().for_each(ask));
        }
    });
    server.await_empty_staging(secs(20));
    server.assert_store_is_right();
    server.assert_alive();
    assert!(!server.log_text().contains("panicked"), "a panic in the log");
    support::wait_until("the descriptors of all that to be closed", secs(30), || {
        server.descriptors() <= before + 16
    });
    tell(&format!("{} MiB in the end", server.rss_bytes() >> 20));
    assert!(server.terminate(secs(40)).is_some_and(|status| status.success()));
}

fn cells() -> Vec<Cell> {
    let all = BEHAVIOURS.iter().flat_map(|one| TARGETS.map(|target| (*one, target)));
    all.map(|(behaviour, target)| {
        let namespace = format!("{behaviour:?}.{target:?}.example").to_lowercase();
        Cell { behaviour, target, namespace, liar: Liar::start(behaviour) }
    })
    .collect()
}

/// Short limits. What an upstream may store is limited, so that a body without end has one.
fn server(cells: &[Cell]) -> Server {
    let setup = cells.iter().fold(Setup::new("lying-matrix"), |setup, cell| {
        let declared = Upstream::new(&cell.namespace, &cell.liar.url())
            .set("allow_private = [\"127.0.0.1/32\"]")
            .set("connect_timeout = \"5s\"")
            .set("first_byte_timeout = \"2500ms\"")
            .set("stall_timeout = \"1s\"")
            .set("tag_ttl = \"0s\"")
            .set("max_size = \"48MiB\"");
        setup.upstream(declared)
    });
    setup.start()
}

/// How a pull ended, as the table tells it; or what must never be.
type Outcome = Result<String, String>;

impl Cell {
    /// Clients pull while the upstream lies, then until it is right. What they saw, and what is
    /// stored since.
    fn round(&self, addr: SocketAddr, seed: u64, number: u64) -> (Vec<Outcome>, Option<Round>) {
        let of_cell = Chance::new(seed).part(self.behaviour as u64 * 8 + self.target as u64);
        let mut chance = of_cell.part(number + 1);
        // Most lie until their clients have given up, the others to the first requests only.
        let is_lasting = chance.percent(60);
        let lies = if is_lasting { usize::MAX } else { 1 + chance.below(3) };
        let round = self.liar.prepare(self.target, number, lies, &mut chance);
        let was_bound = self.target == Target::Tag && chance.percent(50);
        if was_bound {
            self.liar.bind_before(&round);
            if let Err(wrong) = self.pull_until(addr, &round, "stale") {
                return (vec![Err(wrong)], None);
            }
            self.liar.rebind(&round);
        }
        let mut outcomes = self.clients(addr, &round, &mut chance);
        for outcome in &mut outcomes {
            let must = self.behaviour.must(self.target);
            let broken = match outcome.as_deref() {
                Ok("200") => must == Must::Fail && is_lasting,
                Ok("stale") => !was_bound,
                Ok(_) => must == Must::Succeed,
                Err(_) => false,
            };
            if broken {
                *outcome = Err(format!("{outcome:?}, but clients must {must:?}"));
            }
        }
        // Of a 429 the other rounds of the cell hear too.
        if round.lies.told() == 0 && self.behaviour != Behaviour::TooMany {
            outcomes.push(Err(format!("never asked to lie: {outcomes:?}")));
        }
        round.lies.end();
        let recovery = self.pull_until(addr, &round, "200");
        let kept = recovery.is_ok().then_some(round);
        outcomes.extend(recovery.err().map(Err));
        let name = |error: String| {
            format!("{:?} {:?} round {number}: {error}", self.behaviour, self.target)
        };
        (outcomes.into_iter().map(|outcome| outcome.map_err(name)).collect(), kept)
    }

    /// Some clients at about the same time, of which one may leave in the middle.
    fn clients(&self, addr: SocketAddr, round: &Round, chance: &mut Chance) -> Vec<Outcome> {
        let leaves = chance.percent(25);
        let starts: Vec<_> = (0..2 + chance.below(2)).map(|_| chance.milliseconds(0, 30)).collect();
        std::thread::scope(|scope| {
            if leaves {
                let mut connection = Connection::open(addr);
                connection.request("GET", &self.target_of(&round.path), &[]);
                connection.set_read_timeout(ms(50));
                let _ = connection.read_head();
                connection.reset();
            }
            let clients: Vec<_> = starts
                .into_iter()
                .map(|start| {
                    scope.spawn(move || {
                        std::thread::sleep(start);
                        self.pull(addr, round)
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        })
    }

    /// A GET, and what the client saw of it, unless it must never see that.
    fn pull(&self, addr: SocketAddr, round: &Round) -> Outcome {
        let mut connection = Connection::try_open(addr).map_err(|e| format!("connect: {e}"))?;
        connection.set_read_timeout(ANSWER_BOUND);
        let began = Instant::now();
        connection.request("GET", &self.target_of(&round.path), &[]);
        let answer = connection.read_answer("GET").map_err(|e| format!("no answer: {e}"))?;
        let (took, status) = (began.elapsed(), answer.status());
        if took > ANSWER_BOUND {
            return Err(format!("{took:?} for {} bytes", round.right.len()));
        }
        match (status, answer.ending) {
            (200, Ending::Complete) if answer.body == *round.right => Ok("200".to_owned()),
            (200, Ending::Complete) if answer.body == *round.before.bytes => Ok("stale".to_owned()),
            (200, Ending::Complete) => Err(format!("wrong bytes: {:?}", answer.head)),
            (200, Ending::Fin) => Ok("cut".to_owned()),
            (401 | 403 | 429 | 502 | 503 | 504, Ending::Complete)
                if !answer.error_code().is_empty() =>
            {
                Ok(status.to_string())
            }
            (_, ending) => Err(format!("{ending:?} {:?} {}", answer.head, answer.text())),
        }
    }

    fn target_of(&self, path: &str) -> String {
        format!("{path}?ns={}", self.namespace)
    }

    /// Pulls until it ends like this.
    fn pull_until(&self, addr: SocketAddr, round: &Round, end: &str) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let seen = self.pull(addr, round)?;
            if seen == end {
                return Ok(());
            }
            if began.elapsed() > RECOVERY_BOUND {
                let since = "after the upstream began to be right";
                return Err(format!("{seen} {RECOVERY_BOUND:?} {since}"));
            }
            std::thread::sleep(ms(100));
        }
    }

    /// The upstream has gone; what was right is still here, and nothing else is.
    fn ask_again(&self, server: &Server, round: &Round) {
        for path in [&round.path, &round.by_digest] {
            let answer = server.get(&self.target_of(path));
            // What was stored before a body without end has had to make room for it.
            let may_be_gone = self.behaviour == Behaviour::Endless && answer.status() == 502;
            let is_right = answer.status() == 200 && answer.body == *round.right;
            assert!(is_right || may_be_gone, "{:?} {path}: {:?}", self.behaviour, answer.head);
        }
    }
}

/// What was seen in each cell, and what never should have been.
#[derive(Default)]
struct Table {
    seen: BTreeMap<(usize, usize), BTreeMap<String, usize>>,
    wrong: Vec<String>,
}

impl Table {
    fn note(&mut self, cell: &Cell, outcomes: Vec<Outcome>) {
        let seen = self.seen.entry((cell.behaviour as usize, cell.target as usize)).or_default();
        for outcome in outcomes {
            match outcome {
                Ok(words) => *seen.entry(words).or_default() += 1,
                Err(wrong) => self.wrong.push(wrong),
            }
        }
    }

    fn text(&self) -> String {
        let mut text =
            "| the upstream | blob | manifest | tag | token |\n|---|---|---|---|---|".to_owned();
        for behaviour in BEHAVIOURS {
            text.push_str(&format!("\n| {} |", behaviour.words()));
            for target in TARGETS {
                let seen = self.seen.get(&(*behaviour as usize, target as usize));
                let seen =
                    seen.into_iter().flatten().map(|(what, count)| format!("{what} ×{count}"));
                text.push_str(&format!(" {} |", seen.collect::<Vec<_>>().join(", ")));
            }
        }
        text
    }
}

/// The server's memory and descriptors while the rounds run.
#[derive(Default)]
struct Watch {
    over: AtomicBool,
    memory_before: AtomicU64,
    memory_most: AtomicU64,
    descriptors_most: AtomicUsize,
}

impl Watch {
    fn run(&self, server: &Server) {
        self.memory_before.store(server.rss_bytes(), Ordering::SeqCst);
        while !self.over.load(Ordering::SeqCst) {
            self.memory_most.fetch_max(server.rss_bytes(), Ordering::SeqCst);
            self.descriptors_most.fetch_max(server.descriptors(), Ordering::SeqCst);
            std::thread::sleep(ms(20));
        }
    }

    fn judge(&self, at_a_time: usize) {
        let before = self.memory_before.load(Ordering::SeqCst);
        let grown = self.memory_most.load(Ordering::SeqCst).saturating_sub(before);
        let most = self.descriptors_most.load(Ordering::SeqCst);
        tell(&format!(
            "memory: {} MiB, at most {} MiB more; {most} descriptors at most",
            before >> 20,
            grown >> 20
        ));
        assert!(grown < MEMORY_MAX * at_a_time as u64, "{grown} bytes grown");
        assert!(most < DESCRIPTORS_MAX * at_a_time, "{most} descriptors");
    }
}
