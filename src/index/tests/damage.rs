//! Files as they should not be: whatever was done to them, opening does not crash, and every
//! answer is what was put, or none.

use std::fs;
use std::path::Path;

use super::super::layout::{
    BODY_AT, HEADER_BYTES, HEADERS_AT, Header, LINE_BYTES, PAGE_BYTES, SCHEMA,
};
use super::super::recovery::{generation_path, open_in_boot};
use super::super::{Lookup, Opened};
use super::support::{BOOT, Model, STORE, fill, folder, open, options, seed};

const KEYS: u64 = 40;
const SLOTS: u64 = 200;
const MUTATIONS: u32 = 10_000;

struct Files {
    table: Vec<u8>,
    ring: Vec<u8>,
}

fn made(store_id: [u8; 16], is_closed: bool) -> (Files, Model) {
    let folder = folder();
    let mut options = options(folder.path(), SLOTS, 256 * 1024);
    options.store_id = store_id;
    let (_, mut writer, _) = open(options);
    let mut model = Model::default();
    fill(&mut writer, &mut model, KEYS);
    if is_closed {
        writer.close().unwrap();
    }
    let table = fs::read(generation_path(folder.path(), 1)).unwrap();
    let ring = fs::read(folder.path().join("small")).unwrap();
    (Files { table, ring }, model)
}

fn put(folder: &Path, files: &Files) {
    for entry in fs::read_dir(folder).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    fs::write(generation_path(folder, 1), &files.table).unwrap();
    fs::write(folder.join("small"), &files.ring).unwrap();
}

/// Where something is, more often than chance would find it.
fn place(random: &mut fastrand::Rng, file: &[u8]) -> usize {
    match random.u8(..4) {
        0 => random.usize(..HEADER_BYTES),
        1 => PAGE_BYTES * random.usize(..4) + random.usize(..HEADER_BYTES),
        _ => random.usize(..file.len()),
    }
}

fn header_of(file: &[u8]) -> Header {
    let copies = HEADERS_AT.map(|at| file[at..at + HEADER_BYTES].try_into().unwrap());
    let copies = copies.iter().filter_map(Header::decode);
    copies.max_by_key(|header| header.sequence).unwrap()
}

fn reseal(file: &mut [u8], change: impl FnOnce(&mut Header)) {
    let mut header = header_of(file);
    change(&mut header);
    for at in HEADERS_AT {
        file[at..at + HEADER_BYTES].copy_from_slice(&header.encode());
    }
}

/// One mutation. The name tells a failing run what it was.
fn mutate(random: &mut fastrand::Rng, files: &mut Files, foreign: &Files) -> &'static str {
    let file = if random.u8(..4) == 0 { &mut files.ring } else { &mut files.table };
    let length = file.len();
    match random.u8(..11) {
        0 | 1 => {
            for _ in 0..=random.u32(..64) {
                let at = place(random, file);
                file[at] ^= 1 << random.u8(..8);
            }
            "bit flips"
        }
        2 => {
            file.truncate(random.usize(..length));
            "truncated"
        }
        3 => {
            file.resize(length + random.usize(1..3 * PAGE_BYTES), 0);
            "longer"
        }
        4 => {
            let from = place(random, file);
            let to = (from + random.usize(1..2 * PAGE_BYTES)).min(length);
            file[from..to].fill(0);
            "zeroed"
        }
        5 => {
            let from = place(random, file);
            let to = (from + random.usize(1..PAGE_BYTES)).min(length);
            file[from..to].iter_mut().for_each(|byte| *byte = random.u8(..));
            "noise"
        }
        6 => {
            let pages = length / PAGE_BYTES;
            let (a, b) = (random.usize(..pages), random.usize(..pages));
            for n in 0..PAGE_BYTES {
                file.swap(a * PAGE_BYTES + n, b * PAGE_BYTES + n);
            }
            "swapped pages"
        }
        7 => {
            let lines = (length - BODY_AT) / LINE_BYTES;
            for _ in 0..=random.u32(..32) {
                let (a, b) = (random.usize(..lines), random.usize(..lines));
                let from = BODY_AT + a * LINE_BYTES;
                file.copy_within(from..from + LINE_BYTES, BODY_AT + b * LINE_BYTES);
            }
            "copied lines"
        }
        8 => {
            // The body of another store, under this store's header.
            let from = if length == files.table.len() { &foreign.table } else { &foreign.ring };
            let file = if length == files.table.len() { &mut files.table } else { &mut files.ring };
            file[BODY_AT..].copy_from_slice(&from[BODY_AT..]);
            "foreign body"
        }
        9 => {
            let value = random.u64(..) >> random.u32(..64);
            let field = random.u8(..8);
            reseal(file, |header| match field {
                0 => header.magic = value,
                1 => header.schema = SCHEMA.wrapping_sub(1),
                2 => header.layout = value,
                3 => header.store_id = [value as u8; 16],
                4 => header.generation = value,
                5 => header.size = value,
                6 => header.file_bytes = value,
                _ => (header.size, header.file_bytes) = (value, value),
            });
            "header field"
        }
        _ => {
            let clean = random.bool();
            let boot = [random.u8(..8); 16];
            let epoch = random.u64(..);
            let sequence = u64::MAX - random.u64(..2);
            reseal(file, |header| {
                (header.is_clean, header.boot_id) = (clean, boot);
                (header.epoch_minute, header.sequence) = (epoch, sequence);
            });
            "header state"
        }
    }
}

#[test]
fn ten_thousand_mutations_never_crash_and_never_answer_wrong() {
    let seed = seed("mutations");
    let mut random = fastrand::Rng::with_seed(seed);
    let (good, model) = made(STORE, true);
    let (foreign, _) = made(*b"another store's.", true);
    let folder = folder();
    let (mut trusted, mut hits, mut unanswered) = (0_u64, 0_u64, 0_u64);
    for round in 0..MUTATIONS {
        let mut files = Files { table: good.table.clone(), ring: good.ring.clone() };
        let mut done = vec![mutate(&mut random, &mut files, &foreign)];
        if files.table.len() == good.table.len()
            && files.ring.len() == good.ring.len()
            && random.u8(..4) == 0
        {
            done.push(mutate_body(&mut random, &mut files));
        }
        put(folder.path(), &files);
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let (index, mut writer, opened) =
                open_in_boot(options(folder.path(), SLOTS, 256 * 1024), BOOT).unwrap();
            let tally = model.compare(&index, KEYS, false);
            for _ in 0..8 {
                index.sample(fastrand::u64(..));
            }
            let is_trusted = matches!(opened, Opened::Trusted { .. });
            if round % 8 != 0 {
                return (is_trusted, tally);
            }
            // Writing on is as safe, and puts right what it touches.
            let mut again = Model::default();
            fill(&mut writer, &mut again, KEYS);
            if index.may_miss() {
                writer.begin_generation(SLOTS).unwrap();
                while !writer.carry_over(1000) {}
                writer.finish_generation();
                fill(&mut writer, &mut again, KEYS);
            }
            again.compare(&index, KEYS, true);
            (is_trusted, tally)
        }));
        let Ok((is_trusted, tally)) = checked else {
            panic!("round {round} of seed {seed}: {done:?}");
        };
        trusted += u64::from(is_trusted);
        hits += tally.hits;
        unanswered += tally.unanswered;
    }
    println!("{MUTATIONS} mutations: {trusted} trusted, {hits} answers, {unanswered} unanswered");
    assert!(trusted > 1000 && hits > 0 && unanswered > 0, "the mutations were not varied");
}

fn mutate_body(random: &mut fastrand::Rng, files: &mut Files) -> &'static str {
    let at = random.usize(BODY_AT..files.table.len());
    files.table[at] ^= 1 << random.u8(..8);
    "and a bit of the body"
}

/// Each gate alone: what the reason must speak of.
#[test]
fn each_gate_refuses() {
    type Change = fn(&mut Header);
    let cases: [(&str, Change); 9] = [
        ("another kind of file", |header| header.magic ^= 1),
        ("schema 0", |header| header.schema = 0),
        ("another layout", |header| header.layout ^= 1),
        ("another store", |header| header.store_id[3] ^= 1),
        ("does not fit its size", |header| header.size += 8),
        ("does not fit its size", |header| header.file_bytes += 4096),
        ("had not been filled", |header| header.is_complete = false),
        ("without closing it", |header| (header.is_clean, header.boot_id) = (false, [8; 16])),
        ("renamed", |header| header.generation = 9),
    ];
    let (good, _) = made(STORE, true);
    let folder = folder();
    for (expected, change) in cases {
        let mut files = Files { table: good.table.clone(), ring: good.ring.clone() };
        reseal(&mut files.table, change);
        put(folder.path(), &files);
        let (index, _writer, opened) = open(options(folder.path(), SLOTS, 0));
        let Opened::Rebuild { why } = opened else { panic!("{expected}: trusted") };
        assert!(why.contains(expected), "{why}");
        assert!(index.may_miss());
        assert!(!generation_path(folder.path(), 1).exists(), "{expected}: still there");
    }
}

#[test]
fn one_damaged_header_copy_is_enough() {
    let (good, model) = made(STORE, true);
    let folder = folder();
    let newest = header_of(&good.table).sequence % 2;
    let older = HEADERS_AT[1 - newest as usize];
    let mut files = Files { table: good.table.clone(), ring: good.ring.clone() };
    files.table[older + 5] ^= 1;
    put(folder.path(), &files);
    let (index, _writer, opened) = open(options(folder.path(), SLOTS, 1));
    assert!(matches!(opened, Opened::Trusted { clean: true, .. }), "{opened:?}");
    model.compare(&index, KEYS, true);
}

#[test]
fn a_damaged_slot_makes_misses_unsure_and_asks_for_a_new_generation() {
    let (good, model) = made(STORE, true);
    let folder = folder();
    let mut files = Files { table: good.table.clone(), ring: good.ring.clone() };
    // A bit in word 5 of every slot that was used.
    for line in files.table[BODY_AT..].chunks_mut(LINE_BYTES).take(SLOTS as usize) {
        if line[6] != 0 {
            line[42] ^= 1;
        }
    }
    put(folder.path(), &files);
    let (index, mut writer, opened) = open(options(folder.path(), SLOTS, 1));
    assert_eq!(opened, Opened::Trusted { clean: true, applied: 0 });
    assert!(!index.may_miss());
    let tally = model.compare(&index, KEYS, false);
    assert!(tally.unanswered > 0);
    assert!(index.may_miss() && writer.needs_growth());
    assert_eq!(index.blob(&super::support::digest(100_000)), Lookup::Unsure);
    writer.begin_generation(SLOTS).unwrap();
    while !writer.carry_over(1) {}
    writer.finish_generation();
    assert!(index.may_miss(), "what was damaged is missing");
    fill(&mut writer, &mut Model::default(), KEYS);
    model.compare(&index, KEYS, true);
}
