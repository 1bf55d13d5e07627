//! Tables that are filled in memory and then put into their file.

use std::fs;
use std::path::Path;

use super::super::layout::BODY_AT;
use super::super::recovery::generation_path;
use super::super::{Lookup, Opened};
use super::support::{Model, blob, digest, fill, folder, open, options};
use super::uses::uses;

const KEYS: u64 = 2000;
/// 21 MB: smaller tables are filled through their file.
const SLOTS: u64 = 300_000;
const PIECE: usize = 1 << 20;

/// Whether anything lies behind the headers.
fn is_blank(folder: &Path, number: u64) -> bool {
    let bytes = fs::read(generation_path(folder, number)).unwrap();
    bytes[BODY_AT..].iter().all(|byte| *byte == 0)
}

fn is_trusted(folder: &Path) -> bool {
    let (_, _, opened) = open(options(folder, SLOTS, 0));
    matches!(opened, Opened::Trusted { .. })
}

#[test]
fn a_large_table_is_filled_in_memory_and_believed_once_it_is_in_the_file() {
    for pieces in [0, 3, usize::MAX] {
        let folder = folder();
        let mut model = Model::default();
        let (index, mut writer, _) = open(options(folder.path(), SLOTS, 0));
        fill(&mut writer, &mut model, KEYS);
        model.small.clear();
        assert!(!index.may_miss() && is_blank(folder.path(), 1));
        let is_all = (0..pieces).any(|_| writer.share(PIECE));
        assert_eq!(is_all, pieces == usize::MAX);
        // Changes while it is done, and after, are not lost.
        writer.put_blob(&digest(KEYS), &blob(KEYS));
        writer.remove_blob(&digest(3));
        model.blobs.insert(KEYS, blob(KEYS));
        model.blobs.remove(&3);
        model.compare(&index, KEYS + 1, true);
        // Killed.
        drop((index, writer));
        if !is_all {
            assert!(!is_trusted(folder.path()), "{pieces} pieces");
            continue;
        }
        let (index, mut writer, opened) = open(options(folder.path(), SLOTS, 0));
        assert!(matches!(opened, Opened::Trusted { clean: false, .. }), "{opened:?}");
        writer.rebuilt();
        model.compare(&index, KEYS + 1, true);
    }
}

#[test]
fn closing_puts_the_rest_into_the_file() {
    for is_begun in [false, true] {
        let folder = folder();
        let mut model = Model::default();
        let (index, mut writer, _) = open(options(folder.path(), SLOTS, 0));
        fill(&mut writer, &mut model, KEYS);
        model.small.clear();
        index.touch(&digest(1), u64::from(u32::MAX));
        let before = uses(&index, 1);
        assert!(!is_begun || !writer.share(PIECE));
        writer.close().unwrap();
        drop(index);
        let (index, _writer, opened) = open(options(folder.path(), SLOTS, 0));
        assert_eq!(opened, Opened::Trusted { clean: true, applied: 0 });
        model.compare(&index, KEYS, true);
        assert_eq!((uses(&index, 1), before.hits), (before, 1));
    }
}

#[test]
fn readers_notice_nothing_while_a_table_is_put_into_its_file() {
    let folder = folder();
    let (index, mut writer, _) = open(options(folder.path(), SLOTS, 0));
    for n in 0..KEYS {
        writer.put_blob(&digest(n), &blob(n));
    }
    writer.rebuilt();
    let digests: Vec<_> = (0..KEYS).map(|n| (digest(n), blob(n))).collect();
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                    for (digest, blob) in &digests {
                        assert_eq!(index.blob(digest), Lookup::Hit(*blob));
                    }
                }
            });
        }
        let mut pieces = 0;
        while !writer.share(64 << 10) {
            pieces += 1;
        }
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(pieces > 300, "{pieces}");
    });
    assert!(!is_blank(folder.path(), 1));
}

#[test]
fn a_file_cut_short_before_its_table_is_there_is_not_believed() {
    let folder = folder();
    let mut model = Model::default();
    let (index, mut writer, _) = open(options(folder.path(), SLOTS, 0));
    fill(&mut writer, &mut model, KEYS);
    model.small.clear();
    fs::File::options()
        .write(true)
        .open(generation_path(folder.path(), 1))
        .unwrap()
        .set_len(0)
        .unwrap();
    assert!(writer.share(PIECE), "it never will be");
    model.compare(&index, KEYS, false);
    assert!(index.may_miss() && writer.needs_growth());
    drop((index, writer));
    assert!(!is_trusted(folder.path()));
}
