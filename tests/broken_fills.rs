//! Downloads whose first client leaves, or whose upstream breaks off, at any byte: those who still
//! want the content get all of it, and the upstream sends it about once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use support::chance::Chance;
use support::gate::Gate;
use support::http::{self, Ending};
use support::images::random_bytes;
use support::lying::{Answer, End, LyingUpstream};
use support::rig::{HELD_BACK, NS, REPOSITORY};
use support::server::{Server, Setup, Upstream};
use support::{number_from, secs, tell};

/// Who follows a download besides the one that started it.
const WAITERS: usize = 10;
/// Downloads at a time.
const AT_A_TIME: usize = 4;

/// An upstream, a mirror of it, and what came of a number of downloads.
struct Bench {
    upstream: LyingUpstream,
    server: Server,
    wanted: AtomicUsize,
    right: AtomicUsize,
    wrong: Mutex<Vec<String>>,
}

impl Bench {
    fn new(what: &str) -> Bench {
        let upstream = LyingUpstream::start();
        let declared = Upstream::new(NS, &upstream.url()).set("stall_timeout = \"60s\"");
        let server = Setup::new(what).upstream(declared).start();
        let (wanted, right) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Bench { upstream, server, wanted, right, wrong: Mutex::default() }
    }

    /// Runs `one` for each number below `count`, with choices of its own; how many bytes came of
    /// the upstream for each byte of content.
    fn run(&self, count: usize, seed: u64, one: impl Fn(usize, Chance) + Sync) -> f64 {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..AT_A_TIME {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::SeqCst);
                        if number >= count {
                            return;
                        }
                        one(number, Chance::new(seed).part(number as u64));
                    }
                });
            }
        });
        let wrong = self.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{} wrong: {:?}", wrong.len(), wrong.first());
        self.server.assert_store_is_right();
        let sent: u64 =
            self.upstream.seen().iter().map(|seen| seen.sent.load(Ordering::SeqCst)).sum();
        sent as f64 / self.wanted.load(Ordering::SeqCst) as f64
    }

    /// A new blob; its bytes and its path.
    fn blob(&self, what: &str, size: usize) -> (Vec<u8>, String) {
        let bytes = random_bytes(what, size);
        self.wanted.fetch_add(size, Ordering::SeqCst);
        let digest = self.upstream.add_blob(REPOSITORY, &bytes);
        (bytes, format!("/v2/{REPOSITORY}/blobs/{digest}"))
    }

    fn pull(&self, path: &str, bytes: &[u8]) {
        let answer = http::get(self.server.addr, &target(path));
        let is_complete = answer.status() == 200 && answer.ending == Ending::Complete;
        if is_complete && answer.body == bytes {
            self.right.fetch_add(1, Ordering::SeqCst);
        } else {
            let what = format!("{path}: {:?} {:?}", answer.head, answer.ending);
            self.wrong.lock().unwrap().push(what);
        }
    }
}

fn target(path: &str) -> String {
    format!("{path}?ns={NS}")
}

/// 1,000 downloads in the full form.
#[test]
fn whoever_starts_a_download_may_leave_at_any_byte() {
    let fills = number_from("RINGPORT_LEFT_FILLS", 40) as usize;
    let seed = Chance::seed_from("RINGPORT_LEFT_SEED");
    println!("RINGPORT_LEFT_SEED={seed}");
    let bench = Bench::new("left");
    let share = bench.run(fills, seed, |number, mut chance| {
        let size = 2 * HELD_BACK + chance.below(500_000);
        let (bytes, path) = bench.blob(&format!("left {number}"), size);
        // The upstream stops in the middle until the first client has gone.
        let held = 1 + chance.below(size - 1);
        let gate = Gate::new();
        bench.upstream.script("GET", &path, [Answer::right().held_at(held, &gate)]);
        let mut leader = bench.server.connect();
        leader.request("GET", &target(&path), &[]);
        assert_eq!(leader.read_head().unwrap().status, 200);
        gate.await_arrivals(1, secs(20));
        let reads = chance.below(held.min(size - HELD_BACK) + 1);
        let early = chance.below(WAITERS + 1);
        let everybody = Barrier::new(WAITERS + 1);
        std::thread::scope(|scope| {
            for number in 0..WAITERS {
                let (everybody, bench, path, bytes) = (&everybody, &bench, &path, &bytes);
                scope.spawn(move || {
                    if number >= early {
                        everybody.wait();
                        return bench.pull(path, bytes);
                    }
                    let mut connection = bench.server.connect();
                    connection.request("GET", &target(path), &[]);
                    let head = connection.read_head().unwrap();
                    everybody.wait();
                    let (body, ending, _) = connection.read_body(&head, "GET");
                    let is_right = ending == Ending::Complete && body == *bytes;
                    match is_right {
                        true => drop(bench.right.fetch_add(1, Ordering::SeqCst)),
                        false => bench.wrong.lock().unwrap().push(format!("{path}: {ending:?}")),
                    }
                });
            }
            assert!(leader.read_exactly(reads).unwrap() == bytes[..reads]);
            match chance.percent(50) {
                true => leader.reset(),
                false => drop(leader),
            }
            everybody.wait();
            gate.open();
        });
    });
    let right = bench.right.load(Ordering::SeqCst);
    tell(&format!("{fills} downloads left: {right} right, {share:.3} bytes sent for each"));
    assert_eq!(right, fills * WAITERS);
    assert!(share <= 1.05, "{share:.3}");
}

/// 1,000 downloads in the full form.
#[test]
fn an_upstream_that_breaks_off_is_asked_for_the_rest() {
    let fills = number_from("RINGPORT_CUT_FILLS", 40) as usize;
    let seed = Chance::seed_from("RINGPORT_CUT_SEED");
    println!("RINGPORT_CUT_SEED={seed}");
    let bench = Bench::new("broken-off");
    let share = bench.run(fills, seed, |number, mut chance| {
        let size = 1_000 + chance.below(1 << 20);
        let (bytes, path) = bench.blob(&format!("broken off {number}"), size);
        let cuts = 1 + chance.below(3);
        let cuts = (0..cuts).map(|_| {
            let at = chance.below(size);
            let end = if chance.percent(70) { End::Reset(at) } else { End::Fin(at) };
            Answer::right().ending(end)
        });
        let answers: Vec<Answer> = cuts.chain([Answer::right()]).collect();
        bench.upstream.script("GET", &path, answers);
        std::thread::scope(|scope| {
            (0..3).for_each(|_| drop(scope.spawn(|| bench.pull(&path, &bytes))));
        });
    });
    let right = bench.right.load(Ordering::SeqCst);
    let asked = bench.upstream.requests();
    tell(&format!(
        "{fills} downloads broken off: {asked} requests, {right} clients right, {share:.3} bytes \
         sent for each"
    ));
    assert_eq!(right, fills * 3);
    assert!(asked > fills * 3 / 2, "hardly anything broke off: {asked}");
    assert!(share <= 1.1, "{share:.3}");
}
