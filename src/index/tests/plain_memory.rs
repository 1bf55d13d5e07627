//! The table over plain memory: no file, no map, no system call. These are the tests for Miri:
//! `MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test -p ringport --lib
//! index::tests::plain_memory` (and `index::tests::format`).

use std::sync::atomic::AtomicU64;

use super::super::layout::{BUCKET_LANE_WORDS, BUCKET_SLOTS, Key, Kind, LINE_WORDS, Value};
use super::super::table::{Found, Identity, Placed, Swept, Table};
use crate::keeping::Keeping;

const BUCKETS: u64 = 3;

fn memory() -> [Vec<AtomicU64>; 2] {
    [BUCKET_SLOTS * LINE_WORDS, BUCKET_LANE_WORDS]
        .map(|words| (0..BUCKETS as usize * words).map(|_| AtomicU64::new(0)).collect())
}

fn identity() -> Identity {
    Identity::new([3; 16], 5, BUCKETS)
}

fn key(n: u64) -> Key {
    let words = [n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n, n, n];
    Key { kind: Kind::Blob, words, is_sha512: false }
}

fn value(size: u64) -> Value {
    Value::Blob {
        size,
        pool: 1,
        owner: 2,
        is_hosted: false,
        keeping: Keeping::default(),
        small: None,
    }
}

fn found(table: &Table<'_>, key: &Key) -> Option<Value> {
    match table.find(key) {
        Found::Entry { slot, .. } => slot.decode().map(|(_, value)| value),
        _ => None,
    }
}

#[test]
fn fills_refuses_and_frees() {
    let [slots, lanes] = memory();
    let table = Table::new(&slots, &lanes, identity());
    let mut swept = Swept::default();
    let placed: Vec<u64> = (0..60)
        .filter(|n| table.place(&key(*n), &value(*n), &mut swept) != Placed::Refused)
        .collect();
    assert!((32..=48).contains(&placed.len()), "{} of 48", placed.len());
    for n in 0..60 {
        let expected = placed.contains(&n).then(|| value(n));
        assert_eq!(found(&table, &key(n)), expected);
        assert_eq!(table.remove(&key(n), &mut swept).is_some(), placed.contains(&n));
        assert_eq!(table.find(&key(n)), Found::Absent);
    }
    assert!(matches!(table.place(&key(77), &value(1), &mut swept), Placed::New { .. }));
    assert!(matches!(table.place(&key(77), &value(2), &mut swept), Placed::Known { .. }));
    assert_eq!(found(&table, &key(77)), Some(value(2)));
    assert_eq!(swept, Swept::default());
}

/// The slot of each key alone is its first choice; among others, most still get one of theirs.
#[test]
fn first_choices_are_spread_and_yield() {
    let [slots, lanes] = memory();
    let table = Table::new(&slots, &lanes, identity());
    let mut swept = Swept::default();
    let mut place = |n: u64| match table.place(&key(n), &value(n), &mut swept) {
        Placed::New { number } => number,
        other => panic!("{n}: {other:?}"),
    };
    let alone: Vec<usize> = (0..200)
        .map(|n| {
            let number = place(n);
            table.remove(&key(n), &mut Swept::default());
            number
        })
        .collect();
    let used = (0..BUCKETS as usize * BUCKET_SLOTS).filter(|n| alone.contains(n)).count();
    assert!(used > 40, "{used} of 48 slots are somebody's first choice");
    let as_alone = (0..24).filter(|n| place(*n) == alone[*n as usize]).count();
    assert!((12..24).contains(&as_alone), "{as_alone} of 24 got the first choice of the first");
    for n in 0..24 {
        assert_eq!(found(&table, &key(n)), Some(value(n)));
    }
}

#[test]
fn readers_and_a_writer_share_plain_memory() {
    let [slots, lanes] = memory();
    let table = Table::new(&slots, &lanes, identity());
    let rounds = if cfg!(miri) { 50 } else { 20_000 };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for n in 0..rounds {
                    if let Some(Value::Blob { size, .. }) = found(&table, &key(n % 9)) {
                        assert_eq!(size % 9, n % 9);
                    }
                }
            });
        }
        let mut swept = Swept::default();
        for n in 0..rounds {
            table.place(&key(n % 9), &value(n), &mut swept);
            if n % 5 == 0 {
                table.remove(&key((n + 1) % 9), &mut swept);
            }
        }
        assert_eq!(swept, Swept::default());
    });
}
