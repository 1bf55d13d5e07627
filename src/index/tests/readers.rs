//! Readers beside the writer, on real threads and real memory.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::super::{BlobEntry, Lookup, TagEntry};
use super::support::{
    blob, content, digest, folder, keeping, link, open, options, scope, seed, tag,
};

const KEYS: u64 = 40;

/// An entry in which every part follows from one number: a mixture of two is noticed.
fn version(n: u64) -> BlobEntry {
    let size = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    BlobEntry { size, pool: n as u8, owner: n as u16, is_hosted: n & 1 != 0, keeping: keeping(n) }
}

fn is_version(entry: &BlobEntry) -> bool {
    const INVERSE: u64 = 0xf1de_83e1_9937_733d;
    version(entry.size.wrapping_mul(INVERSE)) == *entry
}

/// The threads that read run `read` until `write`, on this one, is done; how often they did.
fn beside(read: impl Fn(&mut fastrand::Rng) + Sync, write: impl FnOnce()) -> u64 {
    let (is_done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for n in 0..3 {
            let (read, is_done, reads) = (&read, &is_done, &reads);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(n);
                while !is_done.load(Ordering::Relaxed) {
                    read(&mut random);
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        write();
        is_done.store(true, Ordering::Relaxed);
    });
    reads.into_inner()
}

#[test]
fn no_torn_entry_is_ever_accepted() {
    let seed = seed("torn");
    let folder = folder();
    let (index, mut writer, _) = open(options(folder.path(), 400, 0));
    writer.rebuilt();
    let (hits, unsure) = (AtomicU64::new(0), AtomicU64::new(0));
    let bound = |n: u64| TagEntry { digest: digest(n % 8 * 16), checked_at: n % 8 };
    let reads = beside(
        |random| {
            let n = random.u64(..KEYS);
            match index.blob(&digest(n)) {
                Lookup::Hit(entry) => {
                    assert!(is_version(&entry), "{entry:?}");
                    hits.fetch_add(1, Ordering::Relaxed);
                }
                Lookup::Unsure => {
                    unsure.fetch_add(1, Ordering::Relaxed);
                }
                Lookup::Miss => {}
            }
            if let Lookup::Hit(entry) = index.tag(&scope(n), &tag(n)) {
                assert_eq!(entry, bound(entry.checked_at));
            }
            if let Some(sample) = index.sample(random.u64(..)) {
                assert!(is_version(&sample.entry));
            }
            index.touch(&digest(n), random.u64(..1 << 40));
        },
        || {
            let mut random = fastrand::Rng::with_seed(seed);
            for _ in 0..300_000 {
                let n = random.u64(..KEYS);
                match random.u8(..8) {
                    0 => writer.remove_blob(&digest(n)),
                    1 => writer.put_tag(&scope(n), &tag(n), &bound(random.u64(..))),
                    2 => writer.remove_tag(&scope(n), &tag(n)),
                    _ => writer.put_blob(&digest(n), &version(random.u64(..))),
                }
            }
        },
    );
    assert!(!index.may_miss(), "a slot in work was taken for a damaged one");
    assert!(hits.into_inner() > 1000);
    println!("{reads} rounds of reading, {} unsure", unsure.into_inner());
}

/// Entries that are there all the time are found all the time, whatever happens around them.
#[test]
fn growth_hides_nothing_from_readers() {
    let folder = folder();
    let (index, mut writer, _) = open(options(folder.path(), 400, 0));
    for n in 0..KEYS {
        writer.put_blob(&digest(n), &blob(n));
        writer.put_link(&scope(n), &digest(n), &link(n));
    }
    writer.rebuilt();
    beside(
        |random| {
            let n = random.u64(..KEYS);
            assert_eq!(index.blob(&digest(n)), Lookup::Hit(blob(n)));
            assert_eq!(index.link(&scope(n), &digest(n)), Lookup::Hit(link(n)));
            assert_eq!(index.link(&scope(n + 1), &digest(n)), Lookup::Miss);
        },
        || {
            for round in 0..100 {
                writer.begin_generation(400 + round).unwrap();
                for n in KEYS..2 * KEYS {
                    writer.put_blob(&digest(n), &blob(n + round));
                    writer.carry_over(1);
                    writer.remove_blob(&digest(n));
                }
                while !writer.carry_over(1) {}
                writer.finish_generation();
            }
        },
    );
    assert_eq!(index.counts().blobs, KEYS);
}

/// A ring of 256 KiB that is overwritten hundreds of times under its readers.
#[test]
fn the_ring_never_hands_out_a_mixture() {
    let folder = folder();
    let (index, mut writer, _) = open(options(folder.path(), 400, 256 * 1024));
    let contents: Vec<Vec<u8>> = (0..KEYS).map(|n| content(n, 20_000 + 300 * n as usize)).collect();
    for (n, bytes) in contents.iter().enumerate() {
        let size = bytes.len() as u64;
        writer.put_blob(&digest(n as u64), &BlobEntry { size, ..blob(n as u64) });
    }
    let hits = AtomicU64::new(0);
    beside(
        |random| {
            let n = random.u64(..KEYS);
            let mut out = vec![1, 2, 3];
            if index.small(&digest(n), &mut out) {
                assert!(out[3..] == contents[n as usize], "wrong bytes for {n}");
                hits.fetch_add(1, Ordering::Relaxed);
            }
            assert_eq!(out[..3], [1, 2, 3]);
        },
        || {
            for round in 0..4000 {
                let n = round % KEYS;
                writer.put_small(&digest(n), &contents[n as usize]);
                if round % 16 == 0 {
                    std::thread::yield_now();
                }
            }
        },
    );
    assert!(hits.into_inner() > 10);
}
