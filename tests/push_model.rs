//! Random operations on a registry and on a model of it in memory: pushes by every way, mounts,
//! deletes, lists, referrers, gc, crashes; each answer is the model's, and after each start all
//! that was acknowledged is there and nothing that was deleted.
//!
//! `RINGPORT_MODEL_OPS` operations, 300 by itself, 10,000 for the full form.
//! `RINGPORT_MODEL_SEED` replays a run; `RINGPORT_MODEL_SHRINK=1` makes a failing one shorter.
//! `RINGPORT_TEST_YARDSTICK=1` proves the harness with docker-registry and what that can do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod model_support;
mod support;

use model_support::contents::Contents;
use model_support::operation::{Chooser, Op};
use model_support::shrink::{run, shrink};
use model_support::together;
use std::time::Instant;
use support::chance::Chance;
use support::registry::yardstick;
use support::{number_from, tell};

fn names(count: usize) -> Vec<String> {
    // Names that are beginnings of others, or deeper.
    let some = ["team/app", "team/app2", "team", "team/app/sub", "a", "team-x/y_z.w"];
    (0..count).map(|n| some.get(n).map_or(format!("more/r{n}"), |&name| name.to_owned())).collect()
}

#[test]
fn a_registry_does_what_its_model_does() {
    let count = number_from("RINGPORT_MODEL_OPS", 300) as usize;
    let seed = Chance::seed_from("RINGPORT_MODEL_SEED");
    tell(&format!("push_model: {count} operations, RINGPORT_MODEL_SEED={seed}"));
    let names = names(4);
    let contents = Contents::new(seed, 24, 32, !yardstick());
    let mut chance = Chance::new(seed).part(1);
    let chooser = Chooser { contents: &contents, own: 0..4, all: 4, is_alone: true };
    let mut ops: Vec<Op> = (0..count).map(|_| chooser.next(&mut chance)).collect();
    ops.push(Op::Kill);
    let started = Instant::now();
    let Some(done) = run(&contents, &names, &ops) else { return };
    match done {
        Ok(requests) => tell(&format!(
            "push_model: {count} operations, {requests} requests, equal to the model, in {:?}",
            started.elapsed()
        )),
        Err(mut failure) => {
            if number_from("RINGPORT_MODEL_SHRINK", 0) == 1 {
                (ops, failure) = shrink(&contents, &names, &ops, failure);
            }
            let first = failure.at.saturating_sub(30);
            for (at, op) in ops.iter().enumerate().take(failure.at + 1).skip(first) {
                tell(&format!("{at:5} {op:?}"));
            }
            let model_support::shrink::Failure { at, what, story } = failure;
            panic!("{story}\n--- RINGPORT_MODEL_SEED={seed}, operation {at}:\n{what}");
        }
    }
}

#[test]
fn clients_together_each_see_their_own_model() {
    let count = number_from("RINGPORT_MODEL_OPS", 300);
    let seed = Chance::seed_from("RINGPORT_MODEL_SEED");
    tell(&format!("push_model, together: {count} operations, RINGPORT_MODEL_SEED={seed}"));
    let names = names(6);
    let contents = Contents::new(seed, 24, 32, !yardstick());
    together::run(&contents, &names, count, seed);
}
