//! Draws: every blob is found, each about as often as any other, however full the table is.

use std::collections::HashMap;

use super::super::{Index, IndexWriter};
use super::support::{blob, digest, folder, link, open, options, scope, seed, tag};
use crate::oci::Digest;

/// Digests without hashing: only their spread matters here.
fn drawn_digest(random: &mut fastrand::Rng) -> Digest {
    Digest::from_sha256(std::array::from_fn(|_| random.u8(..)))
}

fn put(writer: &mut IndexWriter, random: &mut fastrand::Rng, blobs: u64) {
    for n in 0..blobs {
        writer.put_blob(&drawn_digest(random), &blob(n));
    }
}

/// How often each blob was drawn, and the misses.
fn draws(index: &Index, random: &mut fastrand::Rng, draws: u64) -> (HashMap<[u8; 32], u64>, u64) {
    let (mut seen, mut missed) = (HashMap::new(), 0);
    for _ in 0..draws {
        match index.sample(random.u64(..)) {
            Some(sample) => *seen.entry(sample.prefix).or_default() += 1,
            None => missed += 1,
        }
    }
    (seen, missed)
}

/// Chi-square per degree of freedom: 1 for even draws, with a deviation of `sqrt(2 / degrees)`.
fn unevenness(seen: &HashMap<[u8; 32], u64>, blobs: u64, draws: u64) -> f64 {
    let expected = draws as f64 / blobs as f64;
    let of = |count: f64| (count - expected).powi(2) / expected;
    let never = (blobs - seen.len() as u64) as f64 * of(0.0);
    (never + seen.values().map(|&count| of(count as f64)).sum::<f64>()) / (blobs - 1) as f64
}

#[test]
fn each_blob_is_as_likely_as_any_other() {
    let mut random = fastrand::Rng::with_seed(seed("even draws"));
    for (slots, blobs, links, most) in [
        (1600, 1100, 0, 1.4),
        (3200, 600, 1700, 1.5),
        (3200, 300, 0, 1.6),
        (16_000, 100, 3000, 2.0),
        (64_000, 100, 0, 2.0),
    ] {
        let folder = folder();
        let (index, mut writer, _) = open(options(folder.path(), slots, 0));
        put(&mut writer, &mut random, blobs);
        for n in 0..links {
            writer.put_link(&scope(n), &digest(n), &link(n));
        }
        let count = blobs * 100;
        let (seen, missed) = draws(&index, &mut random, count);
        let unevenness = unevenness(&seen, blobs, count - missed);
        println!("{blobs} of {slots}: {unevenness:.3}, {missed} missed");
        assert_eq!((seen.len() as u64, missed), (blobs, 0), "of {slots}");
        assert!(unevenness < most, "{blobs} of {slots}: {unevenness}");
    }
}

/// After entries came and went, the buckets are less even than two choices make them.
#[test]
fn removals_leave_draws_even() {
    let mut random = fastrand::Rng::with_seed(seed("draws after removals"));
    let folder = folder();
    let (index, mut writer, _) = open(options(folder.path(), 3200, 0));
    let mut live: Vec<Digest> = Vec::new();
    for _ in 0..40_000 {
        if live.len() == 1200 {
            let gone = live.swap_remove(random.usize(..1200));
            writer.remove_blob(&gone);
        }
        live.push(drawn_digest(&mut random));
        writer.put_blob(live.last().unwrap(), &blob(1));
    }
    let (seen, missed) = draws(&index, &mut random, 120_000);
    assert_eq!((seen.len(), missed), (1200, 0));
    let unevenness = unevenness(&seen, 1200, 120_000);
    assert!(unevenness < 1.5, "{unevenness}");
}

#[test]
fn one_blob_is_found_in_a_table_made_for_many() {
    let mut random = fastrand::Rng::with_seed(seed("one blob"));
    for slots in [1, 65_536, 1_000_000] {
        let folder = folder();
        let (index, mut writer, _) = open(options(folder.path(), slots, 0));
        writer.put_link(&scope(1), &digest(1), &link(1));
        assert!(index.sample(random.u64(..)).is_none(), "a link is no blob");
        writer.put_blob(&digest(2), &blob(2));
        // As many as one making of room draws at most.
        let found = (0..512).find_map(|_| index.sample(random.u64(..))).unwrap();
        assert_eq!((found.digest, found.entry), (Some(digest(2)), blob(2)));
    }
}

/// A million: of so many, draws repeat one as often as birthdays do.
#[test]
fn a_million_blobs_are_drawn_evenly() {
    let mut random = fastrand::Rng::with_seed(seed("a million"));
    let folder = folder();
    let (index, mut writer, _) = open(options(folder.path(), 1_500_000, 0));
    put(&mut writer, &mut random, 1_000_000);
    let (seen, missed) = draws(&index, &mut random, 100_000);
    let repeated = (100_000 - seen.len()) as f64;
    // n draws of m: n^2 / 2m, less the third of n/m that are drawn thrice; deviation about 70.
    assert_eq!(missed, 0);
    assert!((4_400.0..5_400.0).contains(&repeated), "{repeated}");
    let mut groups = HashMap::new();
    for (prefix, count) in seen {
        *groups.entry([prefix[31]; 32]).or_default() += count;
    }
    let unevenness = unevenness(&groups, 256, 100_000);
    assert!(unevenness < 1.7, "{unevenness}");
}

#[test]
fn tags_are_not_drawn() {
    let folder = folder();
    let (index, mut writer, _) = open(options(folder.path(), 100, 0));
    for n in 0..30 {
        let bound = super::super::TagEntry { digest: digest(n), checked_at: n };
        writer.put_tag(&scope(n), &tag(n), &bound);
    }
    writer.put_blob(&digest(99), &blob(99));
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..200 {
        assert_eq!(index.sample(random.u64(..)).unwrap().digest, Some(digest(99)));
    }
    writer.remove_blob(&digest(99));
    assert!(index.sample(random.u64(..)).is_none());
}
