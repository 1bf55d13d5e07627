//! Random operations against a `HashMap`.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use super::super::layout::LIVE_AT;
use super::super::{
    BlobEntry, IndexOptions, IndexWriter, Lookup, Opened, SMALL_BYTES_MAX, TagEntry, counted,
};
use super::support::{
    Model, STORE, blob, content, digest, fill, folder, link, open, options, scope, seed, tag,
};
use crate::keeping::Keeping;
use crate::oci::Digest;

const KEYS: u64 = 300;

fn random_change(random: &mut fastrand::Rng, writer: &mut IndexWriter, model: &mut Model) {
    let n = random.u64(..KEYS);
    match random.u8(..8) {
        0 | 1 => {
            let entry = BlobEntry { size: random.u64(..700), ..blob(random.u64(..)) };
            // Content of another size is other content, and cannot have the same digest.
            let size = model.small.get(&n).map_or(entry.size, |small| small.len() as u64);
            let entry = BlobEntry { size, ..entry };
            writer.put_blob(&digest(n), &entry);
            model.blobs.insert(n, entry);
        }
        2 => {
            if let Some(entry) = model.blobs.get(&n) {
                let bytes = content(n, entry.size as usize);
                writer.put_small(&digest(n), &bytes);
                model.small.insert(n, bytes);
            }
        }
        3 => {
            let entry = link(random.u64(..1 << 40));
            writer.put_link(&scope(n), &digest(n), &entry);
            model.links.insert(n, entry);
        }
        4 => {
            let entry = TagEntry {
                digest: digest(random.u64(..9000)),
                checked_at: u64::from(random.u32(..)),
            };
            writer.put_tag(&scope(n), &tag(n), &entry);
            model.tags.insert(n, entry);
        }
        5 => {
            writer.remove_blob(&digest(n));
            model.blobs.remove(&n);
        }
        6 => {
            writer.remove_link(&scope(n), &digest(n));
            model.links.remove(&n);
        }
        _ => {
            writer.remove_tag(&scope(n), &tag(n));
            model.tags.remove(&n);
        }
    }
}

#[test]
fn answers_like_a_hash_map_through_restarts_and_generations() {
    let seed = seed("model");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = folder();
    let options = || options(folder.path(), 2000, 1 << 20);
    let mut model = Model::default();
    let (mut index, mut writer, opened) = open(options());
    assert!(matches!(opened, Opened::Rebuild { .. }), "{opened:?}");
    assert_eq!(index.blob(&digest(0)), Lookup::Unsure, "nothing was put yet");
    writer.rebuilt();
    assert_eq!(index.blob(&digest(0)), Lookup::Miss);
    for round in 0..400_u64 {
        for _ in 0..100 {
            random_change(&mut random, &mut writer, &mut model);
        }
        match random.u8(..40) {
            0 => {
                writer.set_applied(round);
                writer.close().unwrap();
                let (next, next_writer, opened) = open(options());
                assert_eq!(opened, Opened::Trusted { clean: true, applied: round });
                (index, writer) = (next, next_writer);
            }
            1 => {
                drop(writer);
                let (next, mut next_writer, opened) = open(options());
                assert!(matches!(opened, Opened::Trusted { clean: false, .. }), "{opened:?}");
                assert!(next.may_miss());
                next_writer.rebuilt();
                (index, writer) = (next, next_writer);
            }
            2 => {
                writer.begin_generation(random.u64(2000..4000)).unwrap();
                while !writer.carry_over(7) {
                    random_change(&mut random, &mut writer, &mut model);
                }
                random_change(&mut random, &mut writer, &mut model);
                writer.finish_generation();
            }
            _ => {}
        }
        assert!(!writer.needs_growth());
        model.compare(&index, KEYS, true);
        let counts = index.counts();
        assert_eq!(counts.blobs, model.blobs.len() as u64);
        assert_eq!(counts.links, model.links.len() as u64);
        assert_eq!(counts.tags, model.tags.len() as u64);
        assert_eq!(counts.cached_bytes, model.cached_bytes());
        assert_eq!(counts.pinned_bytes, model.pinned_bytes());
        let by_owner = |entry: &BlobEntry| {
            let Keeping { is_pinned, priority, expires_at } = entry.keeping;
            let terms = (is_pinned, priority, expires_at);
            (entry.owner, entry.pool, entry.size, entry.is_hosted, terms)
        };
        let mut told = Vec::new();
        index.walk(random.u64(..), |sample| {
            told.push(by_owner(&sample.entry));
            true
        });
        let mut expected: Vec<_> = model.blobs.values().map(by_owner).collect();
        told.sort_unstable();
        expected.sort_unstable();
        assert_eq!(told, expected);
    }
    assert!(model.compare(&index, KEYS, true).hits > 100);
}

#[test]
fn what_does_not_fit_is_unsure_until_a_larger_generation() {
    let folder = folder();
    let (index, mut writer, _) = open(options(folder.path(), 30, 0));
    writer.rebuilt();
    for n in 0..100 {
        writer.put_blob(&digest(n), &blob(n));
    }
    let hits = |index: &super::super::Index| {
        (0..100).filter(|n| index.blob(&digest(*n)) == Lookup::Hit(blob(*n))).count()
    };
    assert!(hits(&index) <= 32);
    assert!((0..200).all(|n| index.blob(&digest(n)) != Lookup::Miss));
    assert!(index.may_miss() && writer.needs_growth());

    writer.begin_generation(300).unwrap();
    while !writer.carry_over(1) {}
    writer.finish_generation();
    assert!(index.may_miss(), "what was refused was not carried over");
    for n in 0..100 {
        writer.put_blob(&digest(n), &blob(n));
    }
    writer.rebuilt();
    assert_eq!(hits(&index), 100);
    assert_eq!(index.blob(&digest(100)), Lookup::Miss);
    assert!(!writer.needs_growth());
}

#[test]
fn takes_70_percent_without_refusing() {
    let folder = folder();
    let (index, mut writer, _) = open(options(folder.path(), 100_000, 0));
    let entries = index.counts().slots * 70 / 100;
    for n in 0..entries {
        writer.put_blob(&digest(n), &blob(n));
    }
    writer.rebuilt();
    assert!(!index.may_miss() && !writer.needs_growth());
    assert_eq!(index.counts().blobs, entries);
}

#[test]
fn values_that_do_not_fit_a_slot_are_left_to_the_catalog() {
    let folder = folder();
    let (index, mut writer, _) = open(options(folder.path(), 100, 0));
    writer.rebuilt();
    let odd = super::super::LinkEntry { media_type: Some("application/x".into()), linked_at: 1 };
    writer.put_link(&scope(1), &digest(1), &odd);
    assert_eq!(index.link(&scope(1), &digest(1)), Lookup::Unsure);
    assert_eq!(index.link(&scope(2), &digest(1)), Lookup::Miss);
    let long = TagEntry { digest: digest(15), checked_at: 5 };
    writer.put_tag(&scope(1), &tag(1), &long);
    assert_eq!(index.tag(&scope(1), &tag(1)), Lookup::Unsure);
    assert!(!index.may_miss());
}

#[test]
fn small_contents_are_bounded_and_follow_their_blob() {
    let folder = folder();
    let (index, mut writer, _) = open(options(folder.path(), 100, 1));
    let mut out = Vec::new();
    for (n, length) in [(1, 0), (2, 1), (3, 63), (4, 64), (5, 65), (6, SMALL_BYTES_MAX)] {
        let bytes = content(n, length);
        writer.put_small(&digest(n), &bytes);
        assert!(!index.small(&digest(n), &mut out), "no blob {n} yet");
        writer.put_blob(&digest(n), &BlobEntry { size: length as u64, ..blob(n) });
        writer.put_small(&digest(n), &bytes);
        assert!(index.small(&digest(n), &mut out), "{length}");
        assert_eq!(out, bytes);
        out.clear();
        let entry = BlobEntry { size: length as u64, ..blob(n) };
        assert_eq!(index.blob_and_small(&digest(n), &mut out), Lookup::Hit((entry, true)));
        assert_eq!(out, bytes);
        out.clear();
    }
    let large = content(7, SMALL_BYTES_MAX + 1);
    writer.put_blob(&digest(7), &BlobEntry { size: large.len() as u64, ..blob(7) });
    writer.put_small(&digest(7), &large);
    assert!(!index.small(&digest(7), &mut out));
    let found = index.blob_and_small(&digest(7), &mut out);
    assert_eq!(
        found.hit().map(|(entry, copied)| (entry.size, copied)),
        Some((large.len() as u64, false))
    );
    assert!(out.is_empty());
    writer.remove_blob(&digest(6));
    assert!(!index.small(&digest(6), &mut out));
}

/// Slots hold the low half of a position in the ring: nothing is lost or mistaken where it wraps.
#[test]
fn small_contents_are_found_past_four_billion_lines() {
    let folder = folder();
    let options = || options(folder.path(), 10_000, 256 * 1024);
    let (_, writer, _) = open(options());
    writer.close().unwrap();
    let ring = OpenOptions::new().write(true).open(folder.path().join("small")).unwrap();
    let handed_out: u64 = (3 << 32) - 100;
    ring.write_all_at(&handed_out.to_ne_bytes(), LIVE_AT as u64).unwrap();
    drop(ring);
    let (index, mut writer, _) = open(options());
    let mut out = Vec::new();
    // Records of two lines; the ring has room for 2048 of them.
    for n in 0..3000_u64 {
        writer.put_blob(&digest(n), &BlobEntry { size: 50, ..blob(n) });
        writer.put_small(&digest(n), &content(n, 50));
        let oldest = n.saturating_sub(2047);
        for (n, is_there) in [(n, true), (oldest, true), (oldest.saturating_sub(1), oldest == 0)] {
            out.clear();
            assert_eq!(index.small(&digest(n), &mut out), is_there, "{n}");
            let at = index.view().use_small(&digest(n), 0).hit().and_then(|(_, at)| at);
            assert_eq!(at.is_some(), is_there, "{n}");
            assert_eq!(out, if is_there { content(n, 50) } else { Vec::new() });
            if let Some(at) = at {
                assert!(index.copy_small(&at, &mut out), "{n}");
                assert_eq!(out, [content(n, 50), content(n, 50)].concat());
            }
        }
    }
}

/// Between the look and the copy another thread may write.
#[test]
fn what_was_found_and_is_gone_is_not_copied() {
    let folder = folder();
    let (index, mut writer, _) = open(options(folder.path(), 10_000, 256 * 1024));
    let put = |writer: &mut IndexWriter, n: u64, size: u64| {
        writer.put_blob(&digest(n), &BlobEntry { size, ..blob(n) });
        writer.put_small(&digest(n), &content(n, 50));
        index.view().use_small(&digest(n), 0).hit().and_then(|(_, at)| at).unwrap()
    };
    let first = put(&mut writer, 0, 50);
    let mut out = b"before".to_vec();
    for n in 1..2048 {
        put(&mut writer, n, 50);
    }
    assert!(index.copy_small(&first, &mut out), "the ring has room for 2048 records");
    assert_eq!(out, [&b"before"[..], &content(0, 50)].concat());
    put(&mut writer, 2048, 50);
    assert!(!index.copy_small(&first, &mut out), "overwritten");
    assert_eq!(out.len(), 56, "nothing is left behind");
}

#[test]
fn uses_are_counted_and_carried_over() {
    let folder = folder();
    let (index, mut writer, _) = open(options(folder.path(), 1000, 0));
    let mut model = Model::default();
    fill(&mut writer, &mut model, 50);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    // A day's end lies between no two of these.
    let later = (now.as_secs() / 86_400 + 1) * 86_400;
    for minute in [0, 1, 1, 2, 5, 7] {
        index.touch(&digest(3), later + 60 * minute);
    }
    let later = later + 7 * 60;
    let used = |index: &super::super::Index| {
        (0..10_000)
            .filter_map(|_| index.sample(fastrand::u64(..)))
            .find(|sample| sample.digest == Some(digest(3)))
            .unwrap()
    };
    let before = used(&index);
    assert_eq!((before.hits, before.last_use_minute), (5, later / 60));
    assert_eq!(before.entry, model.blobs[&3]);
    writer.begin_generation(5000).unwrap();
    while !writer.carry_over(3) {}
    writer.finish_generation();
    assert_eq!(used(&index), before);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..20_000 {
        seen.extend(index.sample(fastrand::u64(..)).map(|sample| sample.prefix));
    }
    assert!(seen.len() > 45, "sampling reaches only {} of 50", seen.len());
}

/// The clock of one slot, at its ends and over days: what is stored is what [`counted`] says.
#[test]
fn uses_are_counted_once_a_minute_and_halved_at_midnight() {
    let folder = folder();
    let (index, mut writer, _) = open(options(folder.path(), 100, 0));
    writer.put_blob(&digest(1), &blob(1));
    let sample = || (0..99).find_map(|n| index.sample(n)).unwrap();
    let begin = sample().last_use_minute;
    let day = 24 * 60;
    let midnight = (begin / day + 1) * day;
    let mut expected = 0;
    let mut last = begin;
    for minute in [
        begin,
        begin,
        midnight + 1,
        midnight + 1,
        midnight + 2,
        midnight + 3,
        midnight + day - 1,
        midnight + day,
        // The clock was set back: to what a slot can tell, and to what it cannot.
        midnight + 3,
        0,
        0,
        midnight + 5000 * day,
        u64::MAX / 60,
    ] {
        index.touch(&digest(1), minute.saturating_mul(60));
        let told = minute.clamp(begin, begin + (1 << 20) - 1);
        expected = counted(expected, last as u32, told as u32);
        last = told;
        assert_eq!((sample().last_use_minute, sample().hits), (last, expected), "{minute}");
    }
    let busiest = (midnight..midnight + 20 * day).map(|minute| {
        index.touch(&digest(1), minute * 60);
        sample().hits
    });
    let busiest = busiest.max().unwrap();
    assert!((2800..2881).contains(&busiest), "{busiest}");
}

/// A small store begins small and grows without a rebuild.
#[test]
fn a_small_store_grows_by_generations() {
    let folder = folder();
    let options = || IndexOptions::sized(folder.path().to_owned(), STORE, 0);
    let (index, mut writer, _) = open(options());
    writer.rebuilt();
    assert_eq!(index.counts().slots, 1 << 16);
    let mut random = fastrand::Rng::with_seed(1);
    let digests: Vec<Digest> =
        (0..100_000).map(|_| Digest::from_sha256(std::array::from_fn(|_| random.u8(..)))).collect();
    let mut generations = 1;
    for (n, digest) in digests.iter().enumerate() {
        writer.put_blob(digest, &blob(n as u64));
        if writer.needs_growth() {
            writer.begin_generation(index.counts().slots * 2).unwrap();
            while !writer.carry_over(1000) {}
            writer.finish_generation();
            generations += 1;
        }
    }
    assert_eq!((generations, index.counts().slots), (3, 1 << 18));
    let cached = (0..100_000).map(blob).filter(|entry| !entry.is_hosted);
    let cached: u64 = cached.map(|entry| entry.size).sum();
    assert_eq!(index.counts().cached_bytes, cached);
    writer.close().unwrap();
    let (index, writer, opened) = open(options());
    assert_eq!(opened, Opened::Trusted { clean: true, applied: 0 });
    assert!(!writer.needs_growth() && !index.may_miss());
    assert_eq!(index.counts().cached_bytes, cached);
    for (n, digest) in digests.iter().enumerate() {
        assert_eq!(index.blob(digest), Lookup::Hit(blob(n as u64)));
    }
}
