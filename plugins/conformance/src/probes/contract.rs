//! Handshake, lives and answers on a host of the plugin's own version.

use crate::answer::ALL_BY;
use crate::frame::{EmptyAt, Frame, Shape};
use crate::host::HostVersion;
use crate::life::{self, Life, judge_status};
use crate::report::{Finding, Problem};
use crate::request;
use crate::run::{Run, difference, judge};
use ringport_plugin_abi as abi;

const WORKERS: u32 = 4;
const ROUNDS: usize = 3;

pub(super) fn shake_hands(run: &mut Run<'_>) -> Result<(), Finding> {
    run.kit()?;
    run.pass(5, "every field and hook of the table");
    run.subject.ask_other_major();
    run.pass(6, format!("ABI {}.{} or older", abi::ABI_MAJOR, abi::ABI_MINOR));
    Ok(())
}

pub(super) fn end_nothing(run: &mut Run<'_>) -> Result<(), Finding> {
    life::end_nothing(&run.kit()?.table);
    run.pass(10, "worker_stop and destroy take null");
    Ok(())
}

pub(super) fn live(run: &mut Run<'_>) -> Result<(), Finding> {
    let (life, worker) = run.start()?;
    run.pass(5, "configure accepted");
    let more: Result<Vec<_>, _> = (1..WORKERS).map(|number| life.start_worker(number)).collect();
    drop((worker, more?, life));
    run.pass(11, format!("1 and {WORKERS} workers"));
    Ok(())
}

/// The first answers; each must be one that a host can use.
pub(super) fn ask(run: &mut Run<'_>) -> Result<(), Finding> {
    let (life, mut worker) = run.start()?;
    let frames = run.frames(&life, Shape::Exact, EmptyAt::Null);
    let (mut first_problem, mut counts) = (None, [0_usize; 7]);
    for frame in &frames {
        let called = worker.resolve(frame);
        first_problem = first_problem.or_else(|| judge("resolve", &called));
        let status = usize::try_from(called.answer.status).ok();
        if let Some(count) = status.and_then(|status| counts.get_mut(status)) {
            *count += 1;
        }
        run.baseline.push(called.answer);
    }
    drop((worker, life));
    if let Some(finding) = first_problem {
        return Err(finding);
    }
    let [ok, declined, not_found, denied, unavailable, invalid, _] = counts;
    if unavailable == frames.len() {
        let expected = "an answer to what any client may ask";
        let found = format!("UNAVAILABLE to all of {} requests", frames.len());
        let remedy = "decide with what is there; keep UNAVAILABLE for what passes";
        return Err(Problem::new(expected, found, remedy).breaks(15));
    }
    run.pass(
        15,
        format!(
            "{} requests: {ok} OK, {declined} DECLINE, {not_found} NOT_FOUND, {denied} DENIED, \
             {unavailable} UNAVAILABLE, {invalid} INVALID",
            frames.len()
        ),
    );
    let idle = "no request of the kit was answered OK: give it a configuration (--config FILE)";
    run.pass(14, if ok == 0 { idle } else { "every route was declared" });
    Ok(())
}

/// The same requests on the same worker, backwards; and answers that may be remembered for others.
pub(super) fn ask_again(run: &mut Run<'_>) -> Result<(), Finding> {
    let remedy = "decide by the request and the configuration alone: no counters, clocks, chance";
    let (life, mut worker) = run.start()?;
    let mut frames = run.frames(&life, Shape::Exact, EmptyAt::Null);
    for round in 0..ROUNDS {
        if let Err(finding) = run.compare(&mut worker, &frames, 12, remedy) {
            run.is_stable = false;
            return Err(finding);
        }
        // In another order, so that an answer that depends on the last request differs.
        if round == 0 {
            frames.reverse();
            run.requests.reverse();
            run.baseline.reverse();
        }
    }
    let mut remembered = 0;
    for (request, first) in run.requests.iter().zip(&run.baseline) {
        let Some(depends_on) = first.cacheable.filter(|_| judge_status("", first.status).is_none())
        else {
            continue;
        };
        remembered += 1;
        for bit in (0..u64::BITS).map(|n| 1 << n).filter(|bit| ALL_BY & !depends_on & bit != 0) {
            let Some((what, varied)) = request.varied(bit) else { continue };
            let frame = Frame::new(&varied, life.headers_wanted(), Shape::Exact, EmptyAt::Null);
            let called = worker.resolve(&frame);
            let remedy = format!("add RINGPORT_BY_{what} to emit_cacheable, or leave it out");
            if let Some(finding) = difference(&varied, first, &called, 12, &remedy) {
                return Err(finding);
            }
        }
    }
    run.pass(12, format!("{ROUNDS} rounds of the same answers"));
    if remembered > 0 {
        run.pass(12, format!("{remembered} answers may be remembered as they say"));
    }
    Ok(())
}

pub(super) fn ask_hostile(run: &mut Run<'_>) -> Result<(), Finding> {
    let (life, mut worker) = run.start()?;
    let hostile = request::hostile(&run.world);
    let mut refused = 0;
    let frame_of = |r| Frame::new(r, life.headers_wanted(), Shape::Exact, EmptyAt::Null);
    // All laid out until the worker has ended: what a plugin does to one later is not for here.
    let hostile_frames: Vec<Frame> = hostile.iter().map(frame_of).collect();
    for frame in &hostile_frames {
        let called = worker.resolve(frame);
        // A route that is no name fails its request closed, and that is all it does.
        refused += usize::from(called.broken.is_some());
        if let Some(finding) = judge_status("resolve", called.answer.status) {
            return Err(finding);
        }
    }
    let frames = run.frames(&life, Shape::Exact, EmptyAt::Somewhere);
    let remedy = "look at `len` before `ptr`: an empty string may point anywhere";
    run.compare(&mut worker, &frames, 8, remedy)?;
    drop((worker, life));
    run.pass(8, format!("{} hostile requests, {refused} of the answers unusable", hostile.len()));
    run.pass(16, format!("all of {} calls returned", hostile.len() + frames.len()));
    Ok(())
}

/// What was borrowed for a call is overwritten after it; nobody may look or write there again.
pub(super) fn spoil(run: &mut Run<'_>) -> Result<(), Finding> {
    let life = Life::start(&run.kit()?, HostVersion::Same, true)?;
    let mut worker = life.start_worker(0)?;
    let remedy = "copy what you want to keep: arguments and requests are borrowed for the call";
    let mut before: Vec<Frame> = Vec::new();
    for _ in 0..ROUNDS {
        let mut frames = run.frames(&life, Shape::Exact, EmptyAt::Null);
        for index in 0..frames.len() {
            let one = frames.get(index..=index).unwrap_or_default();
            let (request, first) = (run.requests.get(index), run.baseline.get(index));
            let (Some(frame), Some(request), Some(first)) = (one.first(), request, first) else {
                continue;
            };
            let called = worker.resolve(frame);
            let differs = difference(request, first, &called, 10, remedy);
            if let Some(finding) = differs.filter(|_| run.is_stable) {
                return Err(finding);
            }
            frames.get_mut(index..=index).unwrap_or_default().iter_mut().for_each(Frame::spoil);
        }
        before.append(&mut frames);
    }
    drop((worker, life));
    if before.iter().any(|frame| !frame.is_spoilt()) {
        let found = "bytes written into a request after its call had returned";
        let remedy = "never write through the request, and keep no pointer into it";
        return Err(Problem::new("requests left alone", found, remedy).breaks(10));
    }
    run.pass(10, "nothing borrowed was kept or written");
    Ok(())
}

/// Two instances at a time; the first ends while the second works.
pub(super) fn configure_twice(run: &mut Run<'_>) -> Result<(), Finding> {
    let remedy = "keep all state in the instance and its workers: no globals";
    let (first, mut worker) = run.start()?;
    let (second, mut other) = run.start()?;
    let frames = run.frames(&first, Shape::Exact, EmptyAt::Null);
    run.compare(&mut worker, &frames, 11, remedy)?;
    run.compare(&mut other, &frames, 11, remedy)?;
    drop((worker, first));
    run.compare(&mut other, &frames, 11, remedy)?;
    let mut again = second.start_worker(0)?;
    run.compare(&mut again, &frames, 11, remedy)?;
    drop((other, again, second));
    run.pass(11, "two instances side by side, one outlives the other");
    Ok(())
}

/// Workers made here and used on threads of their own, at the same time.
pub(super) fn ask_in_parallel(run: &mut Run<'_>) -> Result<(), Finding> {
    let (life, first) = run.start()?;
    let mut workers = vec![first];
    for number in 1..WORKERS {
        workers.push(life.start_worker(number)?);
    }
    let (requests, baseline, is_stable) = (&run.requests, &run.baseline, run.is_stable);
    let frames: Vec<_> =
        workers.iter().map(|_| run.frames(&life, Shape::Exact, EmptyAt::Null)).collect();
    let remedy = "share nothing that changes between workers; an instance is constant";
    let ask = |worker: &mut life::Worker, frames: &[Frame]| {
        for _ in 0..ROUNDS {
            for ((request, first), frame) in requests.iter().zip(baseline).zip(frames) {
                let called = worker.resolve(frame);
                if let Some(finding) =
                    difference(request, first, &called, 12, remedy).filter(|_| is_stable)
                {
                    return Some(finding);
                }
            }
        }
        None
    };
    let ask = &ask;
    let found = std::thread::scope(|scope| {
        let both = workers.iter_mut().zip(frames);
        let threads: Vec<_> =
            both.map(|(worker, frames)| scope.spawn(move || ask(worker, &frames))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok().flatten()).next()
    });
    drop(workers);
    match found {
        Some(finding) => Err(finding),
        None => {
            run.pass(12, format!("{WORKERS} workers on {WORKERS} threads"));
            Ok(())
        }
    }
}
