//! Does a list of operations, and makes one that fails shorter.

use super::contents::Contents;
use super::machine::Machine;
use super::operation::Op;
use super::subject::Subject;
use super::wire::Trouble;
use crate::support::tell;
use std::time::{Duration, Instant};

/// How long a failing list is made shorter.
const SHRINK_BOUND: Duration = Duration::from_secs(240);

/// What went wrong, and where.
pub struct Failure {
    /// The operation, by its place.
    pub at: usize,
    /// What was found.
    pub what: String,
    /// The last requests and answers, and the server's log.
    pub story: String,
}

/// Does all of them at a new server; how many requests that took.
pub fn run(contents: &Contents, names: &[String], ops: &[Op]) -> Option<Result<u64, Failure>> {
    let mut subject = Subject::start("push-model")?;
    let mut machine = Machine::new(contents, names, 0..names.len(), &subject);
    for (at, op) in ops.iter().enumerate() {
        if let Err(trouble) = machine.run_alone(op, &mut subject) {
            let (Trouble::Gone(what) | Trouble::Wrong(what)) = trouble;
            let requests: Vec<String> = machine.wire.log.iter().cloned().collect();
            let story = format!("{}\n--- log ---\n{}", requests.join("\n"), subject.log_tail());
            return Some(Err(Failure { at, what, story }));
        }
    }
    subject.check();
    Some(Ok(machine.wire.count))
}

/// A shorter list that fails, too: what comes behind the failure goes, then ever smaller parts.
pub fn shrink(
    contents: &Contents,
    names: &[String],
    ops: &[Op],
    first: Failure,
) -> (Vec<Op>, Failure) {
    let until = Instant::now() + SHRINK_BOUND;
    let mut best = ops[..=first.at].to_vec();
    let mut failure = first;
    let mut size = best.len() / 2;
    while size > 0 && Instant::now() < until {
        let mut start = 0;
        while start < best.len() && Instant::now() < until {
            let mut fewer = best.clone();
            fewer.drain(start..(start + size).min(best.len()));
            match run(contents, names, &fewer) {
                Some(Err(found)) => {
                    fewer.truncate(found.at + 1);
                    (best, failure) = (fewer, found);
                }
                _ => start += size,
            }
        }
        tell(&format!("push_model: shrunk to {} operations", best.len()));
        size /= 2;
    }
    (best, failure)
}
