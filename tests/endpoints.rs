//! One upstream with two endpoints that both break off: fills go on at the other one, under the
//! clients that follow them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::chance::Chance;
use support::http::{self, Ending};
use support::images::random_bytes;
use support::lying::{Answer, End, LyingUpstream};
use support::number_from;
use support::rig::{NS, REPOSITORY};
use support::server::{Server, Setup, Upstream};

fn server(what: &str, endpoints: &[&LyingUpstream], lines: &[&str]) -> Server {
    let urls: Vec<String> = endpoints.iter().map(|one| format!("{:?}", one.url())).collect();
    let mut declared = Upstream::new(NS, "http://unused.example");
    declared = declared.set(&format!("endpoints = [{}]", urls.join(", ")));
    declared = lines.iter().fold(declared, |declared, line| declared.set(line));
    Setup::new(what).upstream(declared).start()
}

fn target(path: &str) -> String {
    format!("{path}?ns={NS}")
}

/// 1,000 fills in the full form, three clients each.
#[test]
fn fills_go_on_at_the_other_endpoint() {
    let fills = number_from("RINGPORT_CUT_FILLS", 60) as usize;
    let seed = Chance::seed_from("RINGPORT_CUT_SEED");
    println!("RINGPORT_CUT_SEED={seed}");
    let both = [LyingUpstream::start(), LyingUpstream::start()];
    let server = server("cut", &[&both[0], &both[1]], &[]);
    let (next, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= fills {
                        return;
                    }
                    let mut chance = Chance::new(seed).part(number as u64);
                    let content = random_bytes(&format!("cut {number}"), size(&mut chance));
                    bytes.fetch_add(content.len(), Ordering::SeqCst);
                    let mut path = String::new();
                    for one in &both {
                        let digest = one.add_blob(REPOSITORY, &content);
                        path = format!("/v2/{REPOSITORY}/blobs/{digest}");
                        one.script("GET", &path, cuts(&mut chance, content.len()));
                    }
                    let found = pull_thrice(&server, &target(&path), &content);
                    wrong.lock().unwrap().extend(found.map(|why| (number, why)));
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {fills}: {:?}", wrong.len(), wrong.first());
    let seen: Vec<_> = both.iter().flat_map(LyingUpstream::seen).collect();
    let sent: u64 = seen.iter().map(|seen| seen.sent.load(Ordering::SeqCst)).sum();
    let share = sent as f64 / bytes.load(Ordering::SeqCst) as f64;
    println!("{fills} fills, {} requests, {share:.3} of the content's bytes sent", seen.len());
    assert!(seen.len() > fills * 3 / 2, "hardly anything broke off: {}", seen.len());
    assert!(share <= 1.1, "{share:.3} of the content's bytes");
}

fn size(chance: &mut Chance) -> usize {
    let most = 1 << (12 + chance.below(10));
    1000 + chance.below(most)
}

/// What an endpoint does with the requests for one content: none to two of them break off, all
/// that follow are right. Offsets are within what a request asks for.
fn cuts(chance: &mut Chance, size: usize) -> Vec<Answer> {
    let mut cut = |_| {
        let at = chance.below(size);
        match chance.percent(50) {
            true => Answer::right().ending(End::Fin(at)),
            false => Answer::right().ending(End::Reset(at)),
        }
    };
    let mut answers: Vec<Answer> = (0..2).map(&mut cut).collect();
    answers.truncate(chance.below(3));
    answers.push(Answer::right());
    answers
}

/// Three clients at once; what one of them got wrong.
fn pull_thrice(server: &Server, target: &str, content: &[u8]) -> Option<String> {
    std::thread::scope(|scope| {
        let pull = || {
            let answer = http::get(server.addr, target);
            let is_right = answer.status() == 200
                && answer.ending == Ending::Complete
                && answer.body == content;
            (!is_right).then(|| format!("{:?} {:?} {}", answer.head, answer.ending, answer.text()))
        };
        let pulls: Vec<_> = (0..3).map(|_| scope.spawn(pull)).collect();
        pulls.into_iter().filter_map(|pull| pull.join().unwrap()).next()
    })
}

#[test]
fn who_sent_wrong_bytes_is_not_the_first_to_be_asked_again() {
    let both = [LyingUpstream::start(), LyingUpstream::start()];
    let server = server("wrong", &[&both[0], &both[1]], &[]);
    let content = random_bytes("wrong", 400_000);
    let digest = both[1].add_blob(REPOSITORY, &content);
    let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
    let others = random_bytes("others", 400_000);
    both[0].add(&path, "application/octet-stream", &others, Some(&digest));
    let cut = server.get(&target(&path));
    // All of it may be there, and be found wrong, before the head has gone out.
    let is_refused = matches!((cut.status(), cut.ending), (200, Ending::Fin) | (502, _));
    assert!(is_refused, "{:?} {:?}", cut.head, cut.ending);
    let whole = server.get(&target(&path));
    assert_eq!((whole.status(), whole.ending), (200, Ending::Complete), "{:?}", whole.head);
    assert!(whole.body == content);
    assert_eq!((both[0].count("GET", &path), both[1].count("GET", &path)), (1, 1));
}
