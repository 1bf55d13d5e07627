//! What a look-up costs at 1,000,000 entries: hit and miss, on one and on two threads, beside the
//! yardsticks: `RwLock<HashMap>` in memory and redb on disk (one open read transaction a thread,
//! which flatters it). Times are for one look-up on one thread.
//!
//! `cargo bench --bench index_lookup`

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::RwLock;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use redb::{Database, ReadableDatabase as _, TableDefinition};
use ringport::index::{BlobEntry, Index, IndexOptions, LinkEntry, Lookup, TagEntry};
use ringport::oci::{Algorithm, Digest, Namespace, RepositoryName, Scope, Tag};

const ENTRIES: u64 = 1_000_000;
/// Keys a thread goes through in turn: too many for the caches, few enough to be made quickly.
const ASKED: u64 = 1 << 18;
const TABLE: TableDefinition<'static, &[u8], u64> = TableDefinition::new("blobs");

fn digest(n: u64) -> Digest {
    Digest::of(Algorithm::Sha256, &n.to_le_bytes())
}

/// Keys in random order; all known, or none.
fn keys(first: u64) -> Vec<Digest> {
    let mut random = fastrand::Rng::with_seed(first);
    (0..ASKED).map(|_| digest(first + random.u64(..ENTRIES))).collect()
}

fn entry(size: u64) -> BlobEntry {
    BlobEntry { size, pool: 0, is_hosted: false, is_unproven: false }
}

/// `look_up` on `threads` threads at once, `rounds` times on each; the time of the slowest.
fn timed(
    threads: usize,
    rounds: u64,
    keys: &[Digest],
    look_up: impl Fn(&Digest) + Sync,
) -> Duration {
    let run = |offset: usize| {
        let begin = Instant::now();
        for key in keys.iter().cycle().skip(offset).take(rounds as usize) {
            look_up(key);
        }
        begin.elapsed()
    };
    if threads == 1 {
        return run(0);
    }
    std::thread::scope(|scope| {
        let run = &run;
        let running: Vec<_> = (0..threads).map(|n| scope.spawn(move || run(n * 7919))).collect();
        running.into_iter().map(|one| one.join().unwrap()).max().unwrap()
    })
}

fn look_ups(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let options = IndexOptions {
        folder: folder.path().join("index"),
        store_id: *b"a store for test",
        slots_min: 3_000_000,
        small_bytes: 0,
    };
    let (index, mut writer, _) = Index::open(options).unwrap();
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
    fill(&mut writer);
    writer.rebuilt();
    eprintln!("{:?}, may miss: {}", index.counts(), index.may_miss());
    let map = RwLock::new(map);
    let read = database.begin_read().unwrap();
    let table = read.open_table(TABLE).unwrap();

    let (known, unknown) = (keys(0), keys(10 * ENTRIES));
    for (name, keys, is_known) in [("hit", &known, true), ("miss", &unknown, false)] {
        let mut group = c.benchmark_group(name);
        group.sample_size(20).measurement_time(Duration::from_secs(3));
        group.warm_up_time(Duration::from_secs(1));
        for threads in [1, 2] {
            group.bench_function(format!("index/{threads}"), |b| {
                b.iter_custom(|rounds| {
                    timed(threads, rounds, keys, |key| {
                        let found = black_box(index.blob(key));
                        debug_assert_eq!(matches!(found, Lookup::Hit(_)), is_known);
                    })
                });
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
    others(c, &index, &mut writer, &known);
}

/// Fills the index as the issue asks: blobs, as many links, a tenth as many tags.
fn fill(writer: &mut ringport::index::IndexWriter) {
    let begin = Instant::now();
    for n in 0..ENTRIES {
        writer.put_blob(&digest(n), &entry(n));
    }
    eprintln!("{ENTRIES} blobs put in {:?} (with their SHA-256)", begin.elapsed());
    let scope = scope();
    for n in 0..ENTRIES {
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
fn others(
    c: &mut Criterion,
    index: &Index,
    writer: &mut ringport::index::IndexWriter,
    known: &[Digest],
) {
    let scope = scope();
    let tag = Tag::parse("v0").unwrap();
    let mut group = c.benchmark_group("other");
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    group.bench_function("tag, with the SHA-256 of its scope", |b| {
        b.iter(|| black_box(index.tag(&scope, &tag)));
    });
    group.bench_function("touch", |b| {
        let mut keys = known.iter().cycle();
        b.iter(|| keys.next().map(|key| index.touch(key, 1 << 31)));
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

criterion_group!(benches, look_ups);
criterion_main!(benches);
