//! Plans, by hand and at random.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::single_range_in_vec_init)]

use std::time::Duration;

use super::*;

const MIB: u64 = 1024 * 1024;

fn want(at: u64, end: u64) -> Want {
    Want { at, end, is_to_end: false }
}

fn bounds(piece: Option<Piece>) -> Option<(u64, u64)> {
    piece.map(|piece| (piece.first, piece.end))
}

/// All bytes of a piece arrive.
fn bring(plan: &mut Plan, piece: Piece) {
    plan.answered(piece.id, false, Instant::now());
    more(plan, piece, piece.end - piece.first);
    plan.end(piece.id);
}

/// The next bytes of a piece arrive: how many were written, and whether it goes on.
fn more(plan: &mut Plan, piece: Piece, length: u64) -> (u64, bool) {
    let mut written = 0;
    for part in plan.take(piece.id, length).1 {
        written += part.end - part.start;
        plan.wrote(&part);
    }
    (written, plan.advance(piece.id, length, 0))
}

#[test]
fn what_is_asked_for_comes_first_then_the_rest_in_order() {
    let now = Instant::now();
    let mut plan = Plan::new(5 * MIB, true);
    plan.want(want(3 * MIB, 3 * MIB + 100)).unwrap();
    let asked = plan.next(now).unwrap();
    assert_eq!((asked.first, asked.end), (3 * MIB, 3 * MIB + 100));
    assert_eq!(plan.next_of_rest(now), None, "not while somebody waits");
    bring(&mut plan, asked);
    let mut all = Vec::new();
    while let Some(piece) = plan.next_of_rest(now) {
        all.push((piece.first, piece.end));
        bring(&mut plan, piece);
    }
    // The hundred bytes that are there come again rather than cost a request.
    assert_eq!(all, [(0, 2 * MIB), (2 * MIB, 4 * MIB), (4 * MIB, 5 * MIB)]);
    assert!(plan.is_whole());
}

#[test]
fn without_a_background_only_what_is_asked_for_is_fetched() {
    let now = Instant::now();
    let mut plan = Plan::new(5 * MIB, false);
    plan.want(want(10, 20)).unwrap();
    let asked = plan.next(now).unwrap();
    bring(&mut plan, asked);
    assert_eq!((plan.next(now), plan.next_of_rest(now)), (None, None));
    plan.want_all();
    assert_eq!(bounds(plan.next_of_rest(now)), Some((0, 2 * MIB)));
}

#[test]
fn requests_that_overlap_share_what_both_want() {
    let now = Instant::now();
    let mut plan = Plan::new(10 * MIB, false);
    plan.want(want(0, 200_000)).unwrap();
    let first = plan.next(now).unwrap();
    plan.want(want(100_000, 300_000)).unwrap();
    plan.want(want(50_000, 60_000)).unwrap();
    assert_eq!(plan.next(now), None, "all begin with what is on its way");
    bring(&mut plan, first);
    let second = plan.next(now).unwrap();
    assert_eq!((second.first, second.end), (200_000, 300_000));
    bring(&mut plan, second);
    // One that lies around what is on its way gets what lacks, and no more.
    plan.want(want(MIB, MIB + 1000)).unwrap();
    plan.next(now).unwrap();
    plan.want(want(MIB - 500, MIB + 2000)).unwrap();
    assert_eq!(bounds(plan.next(now)), Some((MIB - 500, MIB)));
    assert_eq!(plan.next(now), None);
}

#[test]
fn a_stream_is_waited_for_when_it_is_sooner_there_than_an_answer() {
    let asked = Instant::now();
    let mut plan = Plan::new(100 * MIB, false);
    plan.want(Want { at: 0, end: 100 * MIB, is_to_end: true }).unwrap();
    let stream = plan.next(asked).unwrap();
    let far = want(3 * MIB, 3 * MIB + 1000);
    assert!(!plan.is_on_its_way(far.at, &far, asked), "nobody knows when it will come");
    assert!(plan.is_on_its_way(NEAR_BYTES, &want(NEAR_BYTES, MIB), asked));
    // Answered after 100 ms; 1 MiB in 10 ms: the other two take 20 more.
    let answered = asked + Duration::from_millis(100);
    plan.answered(stream.id, false, answered);
    assert_eq!(more(&mut plan, stream, MIB), (MIB, true));
    let later = |ms| answered + Duration::from_millis(ms);
    assert!(plan.is_on_its_way(far.at, &far, later(10)));
    // Then it stands still.
    assert!(!plan.is_on_its_way(far.at, &far, later(60)));
    plan.want(far).unwrap();
    assert_eq!(bounds(plan.next(later(60))), Some((3 * MIB, 3 * MIB + 1000)));
    // Whoever reads to the end follows it all the same: one stream for all of them.
    let to_end = Want { at: 10 * MIB, end: 100 * MIB, is_to_end: true };
    assert!(plan.is_on_its_way(to_end.at, &to_end, later(60)));
}

#[test]
fn a_stream_ends_where_there_is_nothing_left_for_it() {
    let now = Instant::now();
    let mut plan = Plan::new(20 * MIB, false);
    let to_end = plan.want(Want { at: 0, end: 20 * MIB, is_to_end: true }).unwrap();
    let long = plan.next(now).unwrap();
    for (first, end) in [(MIB, MIB + 1000), (4 * MIB, 5 * MIB)] {
        plan.want(want(first, end)).unwrap();
        let piece = plan.next(now).unwrap();
        assert_eq!((piece.first, piece.end), (first, end));
        bring(&mut plan, piece);
    }
    plan.answered(long.id, false, now);
    // A little that came another way is read over and not written again; of much the stream ends.
    assert_eq!(more(&mut plan, long, 2 * MIB), (2 * MIB - 1000, true));
    assert_eq!(more(&mut plan, long, 2 * MIB), (2 * MIB, false));
    plan.end(long.id);
    plan.reached(to_end, 5 * MIB, now);
    let rest = plan.next(now).unwrap();
    assert_eq!((rest.first, rest.end), (5 * MIB, 20 * MIB));
    plan.answered(rest.id, false, now);
    assert_eq!(more(&mut plan, rest, MIB), (MIB, true));
    plan.leave(to_end);
    let readers = plan.wants.len() + 1;
    assert!(plan.advance(rest.id, 0, readers), "somebody is about to say what he wants");
    assert_eq!(more(&mut plan, rest, MIB), (MIB, false), "nobody is left who wants it");
}

#[test]
fn an_upstream_that_knows_no_ranges_is_asked_once_at_a_time() {
    let now = Instant::now();
    let mut plan = Plan::new(10 * MIB, true);
    plan.want(want(5 * MIB, 6 * MIB)).unwrap();
    let piece = plan.next(now).unwrap();
    plan.answered(piece.id, true, now);
    plan.want(want(9 * MIB, 10 * MIB)).unwrap();
    plan.want(want(0, 10)).unwrap();
    assert_eq!(plan.next(now), None);
    assert_eq!(plan.take(piece.id, 10 * MIB), (0, vec![0..10 * MIB]));
}

#[test]
fn no_more_is_kept_track_of_than_there_is_room_for() {
    let now = Instant::now();
    let mut plan = Plan::new(1000 * MIB, false);
    for n in 0..SPARSE_EXTENTS_MAX as u64 {
        let id = plan.want(want(n * 10, n * 10 + 1)).unwrap();
        let piece = plan.next(now).unwrap();
        bring(&mut plan, piece);
        plan.leave(id);
    }
    assert_eq!(plan.want(want(500 * MIB, 500 * MIB + 1)), None);
    assert!(plan.want(want(20, 21)).is_some(), "what is there is there");
    let to_end = Want { at: 0, end: 1000 * MIB, is_to_end: true };
    assert!(plan.want(to_end).is_some(), "it leaves no holes");
}

/// Readers come, read and leave, streams bring parts, break off and go on, in every order: at the
/// end all who stayed have what they wanted, each byte was written once, and few came twice.
#[test]
fn whatever_happens_everybody_gets_his_bytes() {
    for seed in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed);
        let size = random.u64(1..40 * MIB);
        let mut plan = Plan::new(size, random.bool());
        let mut now = Instant::now();
        let mut readers: Vec<(u64, Want)> = Vec::new();
        let mut streams: Vec<(Piece, bool)> = Vec::new();
        let mut written = Extents::default();
        for step in 0..4_000 {
            now += Duration::from_millis(random.u64(0..5));
            let is_late = step > 600;
            match random.u32(0..10) {
                0 if !is_late && readers.len() < 12 => {
                    let at = random.u64(0..size);
                    let is_to_end = random.u32(0..4) == 0;
                    let end = if is_to_end { size } else { random.u64(at + 1..=size) };
                    let want = Want { at, end, is_to_end };
                    readers.push((plan.want(want).unwrap(), want));
                }
                1 if !is_late && !readers.is_empty() => {
                    let (id, _) = readers.swap_remove(random.usize(0..readers.len()));
                    plan.leave(id);
                }
                2 if !is_late && !streams.is_empty() => {
                    let (piece, _) = streams.swap_remove(random.usize(0..streams.len()));
                    plan.end(piece.id);
                }
                3 | 4 => {
                    let next = plan.next(now).or_else(|| plan.next_of_rest(now));
                    streams.extend(next.map(|piece| (piece, false)));
                }
                _ if !streams.is_empty() => {
                    let index = random.usize(0..streams.len());
                    let (piece, is_answered) = &mut streams[index];
                    if !std::mem::replace(is_answered, true) {
                        plan.answered(piece.id, false, now);
                    }
                    let stream = plan.stream(piece.id).unwrap();
                    let length = random.u64(1..=MIB).min(stream.end - stream.at);
                    for part in plan.take(piece.id, length).1 {
                        assert!(!written.touches(part.start, part.end), "seed {seed}: twice");
                        written.insert(part.start, part.end);
                        plan.wrote(&part);
                    }
                    if !plan.advance(piece.id, length, 0) {
                        plan.end(piece.id);
                        streams.swap_remove(index);
                    }
                }
                _ => {}
            }
            assert!(plan.streams.len() <= SPARSE_STREAMS_MAX);
            readers.retain_mut(|(id, want)| {
                want.at = plan.reached(*id, want.at, now).0;
                assert!(written.covers(want.at, want.at));
                if want.at == want.end {
                    plan.leave(*id);
                }
                want.at < want.end
            });
        }
        assert!(readers.is_empty(), "seed {seed}: {readers:?} wait, {plan:?}");
        if plan.is_all_wanted() {
            assert!(plan.is_whole(), "seed {seed}: {plan:?}");
        }
    }
}
