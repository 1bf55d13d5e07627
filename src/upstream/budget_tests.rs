//! A budget against an upstream that keeps one.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::super::ratelimit::RateLimit;
use super::{Budget, Pressure};

const HOUR: u64 = 3_600_000;

fn told(remaining: u64) -> Option<RateLimit> {
    Some(RateLimit { limit: 100, remaining, window: Duration::from_secs(3600) })
}

fn refused(counted: bool, seconds: Option<u64>) -> Option<(bool, Option<Duration>)> {
    Some((counted, seconds.map(Duration::from_secs)))
}

#[test]
fn without_a_word_from_the_upstream_everything_passes() {
    let mut budget = Budget::default();
    for _ in 0..10_000 {
        budget.admit(true, 5).unwrap();
    }
    assert_eq!((budget.pressure(5), budget.share(5)), (Pressure::Free, 1.0));
    assert_eq!((budget.figures(5), budget.forecast(5)), (None, None));
}

#[test]
fn what_is_left_falls_with_requests_and_comes_back_with_time() {
    let mut budget = Budget::default();
    budget.answered(told(30), None, 0);
    let states: Vec<Pressure> = (0..30)
        .map(|_| {
            budget.admit(true, 0).unwrap();
            budget.pressure(0)
        })
        .collect();
    assert_eq!(states[4], Pressure::Free);
    assert_eq!(states[5], Pressure::Saving);
    assert_eq!(states[29], Pressure::Empty);
    // 100 an hour: one in 36 s, and all 30 are still under way.
    assert_eq!(budget.admit(true, 0), Err(Duration::from_secs(36)));
    assert_eq!(budget.admit(true, 35_999), Err(Duration::from_millis(1)));
    budget.admit(false, 0).unwrap();
    budget.admit(true, 36_000).unwrap();
    (0..31).for_each(|_| budget.done());
    assert_eq!(budget.figures(36_000), Some((100, 31)));
    budget.answered(told(0), None, 36_000);
    assert_eq!(budget.pressure(36_000), Pressure::Empty);
    assert_eq!(budget.figures(36_000 + HOUR / 2), Some((100, 50)));
    assert_eq!(budget.figures(36_000 + 10 * HOUR), Some((100, 100)));
    // A clock that was set back gives nothing.
    assert_eq!(budget.figures(0), Some((100, 0)));
}

#[test]
fn a_429_holds_back_what_it_was_about() {
    let mut empty = Budget::default();
    empty.answered(told(0), refused(true, Some(60)), 0);
    assert_eq!(empty.admit(true, 0), Err(Duration::from_secs(60)));
    // HEAD of a manifest, blobs: not what was counted.
    empty.admit(false, 0).unwrap();
    let mut abuse = Budget::default();
    abuse.answered(told(90), refused(true, Some(60)), 0);
    assert_eq!(abuse.admit(false, 1000), Err(Duration::from_secs(59)));
    assert_eq!((abuse.pressure(59_999), abuse.share(59_999)), (Pressure::Empty, 0.0));
    abuse.admit(true, 60_000).unwrap();
    assert_eq!(abuse.pressure(60_000), Pressure::Free);
}

#[test]
fn a_429_without_a_time_is_waited_out_longer_and_longer() {
    let mut budget = Budget::default();
    let mut now = 0;
    for expected in [15, 30, 60, 120, 240, 480, 900, 900] {
        budget.answered(None, refused(false, None), now);
        let wait = budget.admit(false, now).unwrap_err();
        assert_eq!(wait, Duration::from_secs(expected));
        now += wait.as_millis() as u64;
        budget.admit(false, now).unwrap();
    }
    budget.answered(None, None, now);
    budget.answered(None, refused(false, None), now);
    assert_eq!(budget.admit(false, now), Err(Duration::from_secs(15)));
    // A shorter word that comes late does not shorten the wait.
    budget.answered(None, refused(false, Some(1)), now);
    assert_eq!(budget.admit(false, now), Err(Duration::from_secs(15)));
}

#[test]
fn the_forecast_is_of_the_pace_and_what_comes_back() {
    let mut budget = Budget::default();
    budget.answered(told(100), None, 0);
    // One in 36 s comes back; one in 6 s is spent.
    let mut now = 0;
    let mut remaining = 100.0;
    while remaining > 50.0 {
        budget.admit(true, now).unwrap();
        budget.done();
        now += 6_000;
        remaining -= 1.0 - 6.0 / 36.0;
        budget.answered(told(remaining as u64), None, now);
    }
    // 50 left, 500 an hour more spent than gained: 6 minutes.
    let minutes = budget.forecast(now).unwrap().as_secs_f64() / 60.0;
    assert!((4.5..7.5).contains(&minutes), "{minutes}");
    assert_eq!(budget.forecast(now + 4 * HOUR), None, "nobody asks any more");
}

#[test]
fn it_holds_over_a_restart() {
    let mut budget = Budget::default();
    budget.answered(told(10), refused(true, Some(60)), 1000);
    budget.admit(true, 70_000).unwrap();
    let text = serde_json::to_string(&budget).unwrap();
    let after: Budget = serde_json::from_str(&text).unwrap();
    assert_eq!(after.pressure(2000), Pressure::Empty);
    assert_eq!(after.figures(1000), Some((100, 10)), "nothing is under way any more");
    assert!(!after.is_spent_knowledge(2000));
    assert!(after.is_spent_knowledge(1000 + HOUR));
}

#[test]
fn no_word_of_an_upstream_can_upset_it() {
    for (limit, remaining, seconds) in
        [(1, u64::MAX, 1), (1_000_000_000, 0, 1), (1, 0, 2_592_000), (1_000_000_000, 1, 2_592_000)]
    {
        for now in [0, 1, HOUR, u64::MAX] {
            let mut budget = Budget::default();
            let window = Duration::from_secs(seconds);
            let told = Some(RateLimit { limit, remaining, window });
            budget.answered(told, refused(true, Some(u64::MAX)), now);
            budget.answered(told, None, now);
            let _ = budget.admit(true, now).map_err(|wait| assert!(wait > Duration::ZERO));
            assert!((0.0..=1.0).contains(&budget.share(now)));
            budget.forecast(now);
        }
    }
}
