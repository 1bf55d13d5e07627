//! What a look-up costs, on one and on two threads: warm hits (of 1,000 digests, as when many jobs
//! pull the same images), random hits and random misses over everything. At 1,000,000 entries beside
//! the yardsticks `RwLock<HashMap>` in memory and redb on disk (one open read transaction a thread,
//! which flatters it); at 10,000,000 alone.
//!
//! Times are for one look-up on one thread: that of the best quarter of blocks of 4,096 look-ups,
//! so that who else runs on the machine counts little. The digests asked for lie in a row; fetching
//! them is no part of the answer.
//!
//! `cargo bench --bench index_lookup`

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use redb::{Database, ReadableDatabase as _, TableDefinition};
use ringport::index::{BlobEntry, Index, IndexOptions, IndexWriter, LinkEntry, Lookup, TagEntry};
use ringport::keeping::Keeping;
use ringport::oci::{Algorithm, Digest, Namespace, RepositoryName, Scope, Tag};

const ENTRIES: u64 = 1_000_000;
const ENTRIES_MANY: u64 = 10_000_000;
/// What a day's jobs pull again and again.
const WARM: u64 = 1000;
/// Look-ups that are timed together: less than a time slice, much more than a look at the clock.
const BLOCK: usize = 4096;
/// Blocks that a thread goes through in turn: too many keys for the caches, few enough to be made
/// quickly.
const BLOCKS: usize = 64;
const TABLE: TableDefinition<'static, &[u8], u64> = TableDefinition::new("blobs");

fn digest(n: u64) -> Digest {
    Digest::of(Algorithm::Sha256, &n.to_le_bytes())
}

/// What is asked for, in random order.
fn keys(first: u64, of: u64, blocks: usize) -> Vec<Digest> {
    let mut random = fastrand::Rng::with_seed(first);
    (0..blocks * BLOCK).map(|_| digest(first + random.u64(..of))).collect()
}

/// The sets of keys by name, and whether they are known.
fn questions(entries: u64) -> [(&'static str, Vec<Digest>, bool); 3] {
    [
        ("warm hit", keys(0, WARM.min(entries), 1), true),
        ("random hit", keys(0, entries, BLOCKS), true),
        ("random miss", keys(10 * ENTRIES_MANY, entries, BLOCKS), false),
    ]
}

fn entry(size: u64) -> BlobEntry {
    BlobEntry { size, pool: 0, owner: 0, is_hosted: false, keeping: Keeping::default() }
}

/// `look_up` on `threads` threads at once; what `rounds` of them take on the slowest.
fn timed(
    threads: usize,
    rounds: u64,
    keys: &[Digest],
    look_up: impl Fn(&Digest) + Sync,
) -> Duration {
    let blocks = (rounds as usize).div_ceil(BLOCK);
    let run = |offset: usize| {
        let mut times: Vec<Duration> = keys
            .chunks_exact(BLOCK)
            .cycle()
            .skip(offset)
            .take(blocks)
            .map(|block| {
                let begin = Instant::now();
                block.iter().for_each(&look_up);
                begin.elapsed()
            })
            .collect();
        times.sort_unstable();
        times[blocks / 4].mul_f64(rounds as f64 / BLOCK as f64)
    };
    if threads == 1 {
        return run(0);
    }
    std::thread::scope(|scope| {
        let run = &run;
        let running: Vec<_> = (0..threads).map(|n| scope.spawn(move || run(n * 31))).collect();
        running.into_iter().map(|one| one.join().unwrap()).max().unwrap()
    })
}

fn opened(folder: &Path, entries: u64) -> (Arc<Index>, IndexWriter) {
    let (folder, store_id) = (folder.join("index"), *b"a store for test");
    let options = IndexOptions { folder, store_id, slots_min: 3 * entries, small_bytes: 0 };
    let (index, mut writer, _) = Index::open(options).unwrap();
    fill(&mut writer, entries);
    writer.rebuilt();
    eprintln!("{:?}, on disk: {}", index.counts(), index.is_on_disk());
    (index, writer)
}

fn look_ups(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    let mut map = HashMap::new();
    let database = Database::create(folder.path().join("redb")).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut table = write.open_table(TABLE).unwrap();
        for n in 0..ENTRIES {
            let digest = digest(n);
            map.insert(digest, n);
            table.insert(digest.as_bytes(), n).unwrap();
        }
    }
    write.commit().unwrap();
    eprintln!("yardsticks filled in {:?}", begin.elapsed());
    let (index, mut writer) = opened(folder.path(), ENTRIES);
    let map = RwLock::new(map);
    let read = database.begin_read().unwrap();
    let table = read.open_table(TABLE).unwrap();

    let questions = questions(ENTRIES);
    for (name, keys, is_known) in &questions {
        let mut group = c.benchmark_group(*name);
        group.sample_size(20).measurement_time(Duration::from_secs(2));
        group.warm_up_time(Duration::from_secs(1));
        for threads in [1, 2] {
            group.bench_function(format!("index/{threads}"), |b| {
                b.iter_custom(|rounds| index_timed(&index, threads, rounds, keys, *is_known));
            });
            group.bench_function(format!("RwLock<HashMap>/{threads}"), |b| {
                b.iter_custom(|rounds| {
                    timed(threads, rounds, keys, |key| {
                        black_box(map.read().unwrap().get(key).copied());
                    })
                });
            });
            group.bench_function(format!("redb/{threads}"), |b| {
                b.iter_custom(|rounds| {
                    timed(threads, rounds, keys, |key| {
                        black_box(table.get(key.as_bytes()).unwrap().map(|value| value.value()));
                    })
                });
            });
        }
        group.finish();
    }
    others(c, &index, &mut writer, &questions[0].1);
}

fn index_timed(
    index: &Index,
    threads: usize,
    rounds: u64,
    keys: &[Digest],
    is_known: bool,
) -> Duration {
    timed(threads, rounds, keys, |key| {
        let found = black_box(index.blob(key));
        debug_assert_eq!(matches!(found, Lookup::Hit(_)), is_known);
    })
}

/// A table that fits no cache, and whose pages no TLB holds.
fn look_ups_among_many(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let (index, _writer) = opened(folder.path(), ENTRIES_MANY);
    let mut group = c.benchmark_group(format!("of {ENTRIES_MANY} blobs"));
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    group.warm_up_time(Duration::from_secs(1));
    for (name, keys, is_known) in questions(ENTRIES_MANY) {
        for threads in [1, 2] {
            group.bench_function(format!("{name}/{threads}"), |b| {
                b.iter_custom(|rounds| index_timed(&index, threads, rounds, &keys, is_known));
            });
        }
    }
    group.finish();
}

/// Fills the index as the issue asks: blobs, as many links, a tenth as many tags.
fn fill(writer: &mut IndexWriter, entries: u64) {
    let begin = Instant::now();
    for n in 0..entries {
        writer.put_blob(&digest(n), &entry(n));
    }
    eprintln!("{entries} blobs put in {:?} (with their SHA-256)", begin.elapsed());
    let scope = scope();
    for n in 0..entries {
        writer.put_link(&scope, &digest(n), &LinkEntry { media_type: None, linked_at: n });
        if n % 10 == 0 {
            let tag = Tag::parse(&format!("v{n}")).unwrap();
            writer.put_tag(&scope, &tag, &TagEntry { digest: digest(n), checked_at: n });
        }
    }
}

fn scope() -> Scope {
    Scope {
        upstream: Some(Namespace::parse("docker.io").unwrap()),
        repository: RepositoryName::parse("library/ubuntu").unwrap(),
    }
}

/// What a manifest hit is made of, besides.
fn others(c: &mut Criterion, index: &Index, writer: &mut IndexWriter, known: &[Digest]) {
    let scope = scope();
    let tag = Tag::parse("v0").unwrap();
    let mut group = c.benchmark_group("other");
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    group.bench_function("tag, with the SHA-256 of its scope", |b| {
        b.iter(|| black_box(index.tag(&scope, &tag)));
    });
    group.bench_function("link, with the SHA-256 of its scope", |b| {
        let mut keys = known.iter().cycle();
        b.iter(|| keys.next().map(|key| black_box(index.link(&scope, key))));
    });
    group.bench_function("touch, again in its minute", |b| {
        let mut keys = known.iter().cycle();
        b.iter(|| keys.next().map(|key| index.touch(key, 1 << 31)));
    });
    group.bench_function("sample", |b| {
        let mut random = fastrand::Rng::with_seed(1);
        b.iter(|| black_box(index.sample(random.u64(..))));
    });
    let mut n = 0;
    group.bench_function("put_blob, the same again", |b| {
        b.iter(|| {
            n = (n + 1) % known.len();
            writer.put_blob(&known[n], &entry(7));
        });
    });
    group.finish();
}

criterion_group!(benches, look_ups, look_ups_among_many);
criterion_main!(benches);
