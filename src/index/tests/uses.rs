//! Uses: noted in memory, in the file when the writer puts them there; and what a start reads.

use std::fs;
use std::path::Path;

use super::super::generation::{Access, now_minute};
use super::super::layout::{Key, access_range};
use super::super::recovery::generation_path;
use super::super::{Index, Lookup, Opened};
use super::support::{Model, blob, digest, fill, folder, open, options};

const KEYS: u64 = 600;
/// Three pages of uses, the last of them not whole.
const SLOTS: u64 = 2700;

pub(super) fn uses(index: &Index, n: u64) -> Access {
    let table = index.current();
    let Lookup::Hit((number, _)) = table.look_up(&Key::blob(&digest(n))) else { panic!("no {n}") };
    table.access(number)
}

fn table(folder: &Path) -> Vec<u8> {
    fs::read(generation_path(folder, 1)).unwrap()
}

/// A minute after any at which the entries were put.
fn later() -> u64 {
    now_minute() + 10
}

#[test]
fn a_use_is_not_seen_in_the_file_before_it_is_written_there() {
    let folder = folder();
    let (index, mut writer, _) = open(options(folder.path(), SLOTS, 0));
    fill(&mut writer, &mut Model::default(), KEYS);
    assert!(writer.write_uses(usize::MAX));
    let before = table(folder.path());
    for n in 0..KEYS {
        index.touch(&digest(n), later() * 60);
    }
    assert!(table(folder.path()) == before, "a worker stored into the file");
    assert!(writer.write_uses(usize::MAX));
    let after = table(folder.path());
    let access = access_range(index.current().buckets() as usize);
    let changed: Vec<usize> = (0..after.len()).filter(|&at| before[at] != after[at]).collect();
    assert!(changed.len() >= KEYS as usize, "{} bytes", changed.len());
    assert!(changed.iter().all(|at| access.contains(at)));
}

/// Each use stores again what others count on: one in a minute is enough.
#[test]
fn a_use_in_the_same_minute_stores_nothing() {
    let folder = folder();
    let (index, mut writer, _) = open(options(folder.path(), SLOTS, 0));
    writer.put_blob(&digest(1), &blob(1));
    let minute = later();
    index.touch(&digest(1), minute * 60);
    assert!(!writer.write_uses(0), "there is something to write");
    assert!(writer.write_uses(1));
    index.touch(&digest(1), minute * 60 + 59);
    assert!(writer.write_uses(0), "nothing new");
    index.touch(&digest(1), minute * 60 + 60);
    assert!(!writer.write_uses(0));
}

#[test]
fn uses_are_written_in_pieces_until_all_are() {
    let folder = folder();
    let (index, mut writer, _) = open(options(folder.path(), SLOTS, 0));
    fill(&mut writer, &mut Model::default(), KEYS);
    let minute = later();
    for n in 0..KEYS {
        index.touch(&digest(n), minute * 60);
    }
    assert_eq!([(); 3].map(|()| writer.write_uses(1)), [false, false, true]);
    drop(writer);
    let (again, _writer, _) = open(options(folder.path(), SLOTS, 0));
    for n in 0..KEYS {
        assert_eq!(uses(&again, n), Access { minute, hits: 1 }, "{n}");
    }
}

#[test]
fn uses_outlast_a_stop_and_what_was_written_outlasts_a_kill() {
    for is_killed in [false, true] {
        let folder = folder();
        let (index, mut writer, _) = open(options(folder.path(), SLOTS, 0));
        fill(&mut writer, &mut Model::default(), KEYS);
        let minute = later();
        index.touch(&digest(1), minute * 60);
        writer.write_uses(usize::MAX);
        index.touch(&digest(1), (minute + 1) * 60);
        let last = uses(&index, 1);
        let left = if is_killed {
            drop(writer);
            Access { minute, hits: 1 }
        } else {
            writer.close().unwrap();
            last
        };
        drop(index);
        let (index, mut writer, opened) = open(options(folder.path(), SLOTS, 0));
        assert!(matches!(opened, Opened::Trusted { clean, .. } if clean != is_killed));
        assert_eq!(uses(&index, 1), left, "killed: {is_killed}");
        // And they go on from there, in the new process and in a larger table.
        index.touch(&digest(1), (minute + 2) * 60);
        writer.rebuilt();
        writer.begin_generation(2 * SLOTS).unwrap();
        while !writer.carry_over(7) {}
        writer.finish_generation();
        let known = uses(&index, 1);
        assert_eq!(known.minute, minute + 2);
        writer.write_uses(usize::MAX);
        drop(writer);
        let (index, _writer, _) = open(options(folder.path(), SLOTS, 0));
        assert_eq!(uses(&index, 1), known, "killed: {is_killed}");
    }
}

/// Bytes in memory of the maps of files in a folder: shared ones, and pages of one's own.
fn resident(folder: &Path) -> [u64; 2] {
    let folder = folder.to_str().unwrap();
    let (mut sums, mut at) = ([0, 0], None);
    for line in fs::read_to_string("/proc/self/smaps").unwrap().lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let kib = || fields[1].parse::<u64>().unwrap();
        match fields[0] {
            _ if fields[0].contains('-') => {
                let is_ours = line.contains(folder);
                at = is_ours.then(|| usize::from(fields[1].ends_with('p')));
            }
            "Rss:" if at == Some(0) => sums[0] += kib() * 1024,
            "Anonymous:" if at == Some(1) => sums[1] += kib() * 1024,
            _ => {}
        }
    }
    sums
}

#[test]
fn a_start_reads_all_that_look_ups_need() {
    let folder = folder();
    let (index, mut writer, _) = open(options(folder.path(), 100_000, 1 << 20));
    fill(&mut writer, &mut Model::default(), KEYS);
    writer.close().unwrap();
    let buckets = index.current().buckets() as usize;
    let ring = index.ring().unwrap().written().len() as u64;
    assert!(ring > 100_000, "{ring}");
    drop(index);
    let access = access_range(buckets).len() as u64;
    let expected = [table(folder.path()).len() as u64 - access - 4 * 4096 + ring, access];
    let (index, _writer, _) = open(options(folder.path(), 100_000, 1 << 20));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let found = resident(folder.path());
        if found.iter().zip(expected).all(|(found, expected)| *found >= expected) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{found:?} of {expected:?} bytes");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    drop(index);
}
