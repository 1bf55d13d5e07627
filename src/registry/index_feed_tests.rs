use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use super::*;
use crate::catalog::{Catalog, LinkRecord};
use crate::index::{IndexOptions, Lookup};
use crate::keeping::Keeping;
use crate::oci::{Algorithm, Namespace, RepositoryName, Scope};
use crate::registry::SpaceLimits;
use crate::storage::Store;

/// A catalog with the index that it feeds, in one folder.
struct Rig {
    catalog: Catalog,
    thread: Option<JoinHandle<()>>,
    index: Arc<Index>,
    space: Arc<Space>,
    due: Due,
}

impl Rig {
    fn open(folder: &Path, slots_min: u64) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let unstarted = Catalog::open(&folder.join("catalog.redb")).unwrap();
        let opened = unstarted.opened().clone();
        let (index, writer, found) = Index::open(IndexOptions {
            folder: folder.join("index"),
            store_id: opened.store_id,
            slots_min,
            small_bytes: 1 << 20,
        })
        .unwrap();
        let due = Due::of(&found, opened.group);
        let space = large_space();
        let feed = IndexFeed::new((index.clone(), writer), (due, opened.group), space.clone());
        let (catalog, thread) = unstarted.start(Box::new(feed)).unwrap();
        if due != Due::Nothing {
            catalog.rebuild();
        }
        Self { catalog, thread: Some(thread), index, space, due }
    }

    fn write(&self, writes: Vec<Write>, durable: bool) {
        self.catalog.write_blocking(writes, durable).unwrap();
    }

    fn close(mut self) {
        self.catalog.close(true);
        self.thread.take().unwrap().join().unwrap();
    }

    fn await_complete(&self) {
        let deadline = clock::now() + Duration::from_secs(20);
        while self.index.may_miss() {
            assert!(clock::now() < deadline, "the index was never complete");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn knows(&self, n: u64) -> Lookup<u64> {
        self.index.blob(&digest(n)).map(|entry| entry.size)
    }
}

/// Of a store of its own: its files do not matter here, only which pools there are.
fn large_space() -> Arc<Space> {
    let (store, _) = Store::open(tempfile::tempdir().unwrap().path()).unwrap();
    Space::new(&store, SpaceLimits { total: 1 << 40, ..Default::default() }).0
}

fn digest(n: u64) -> Digest {
    Digest::of(Algorithm::Sha256, &n.to_le_bytes())
}

fn scope() -> Scope {
    Scope {
        upstream: Some(Namespace::parse("docker.io").unwrap()),
        repository: RepositoryName::parse("library/alpine").unwrap(),
    }
}

fn record(n: u64) -> BlobRecord {
    BlobRecord {
        digest: digest(n),
        size: n,
        pool: 0,
        is_hosted: false,
        owner: NO_OWNER,
        keeping: Keeping::default(),
    }
}

fn blob(n: u64) -> Write {
    Write::PutBlob { record: record(n), is_synced: true }
}

fn no_blob(n: u64) -> Write {
    Write::RemoveBlob(record(n).at())
}

fn link(n: u64) -> Write {
    let link = LinkRecord { scope: scope(), digest: digest(n), media_type: None, linked_at: 1 };
    Write::PutLink(link)
}

/// What a killed process leaves: the files as they are, while it still runs.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_table_that_fills_up_grows_while_it_answers() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(folder.path(), 64);
    rig.await_complete();
    let before = rig.index.counts().slots;
    for n in 0..3000 {
        rig.write(vec![blob(n), link(n)], false);
        assert_ne!(rig.knows(n), Lookup::Miss, "{n} was acknowledged");
    }
    rig.await_complete();
    assert!(rig.index.counts().slots > before * 8, "{:?}", rig.index.counts());
    for n in 0..3000 {
        assert_eq!(rig.knows(n), Lookup::Hit(n));
        assert!(matches!(rig.index.link(&scope(), &digest(n)), Lookup::Hit(_)), "{n}");
    }
    assert_eq!(rig.knows(3000), Lookup::Miss);
    assert_eq!(rig.space.used(), (0..3000).sum::<u64>());
    rig.close();
}

#[test]
fn a_clean_stop_leaves_an_index_that_needs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(folder.path(), 1024);
    assert_eq!(rig.due, Due::First);
    rig.await_complete();
    rig.write((0..100).map(blob).collect(), false);
    rig.write(vec![no_blob(7)], false);
    rig.close();
    let rig = Rig::open(folder.path(), 1024);
    assert_eq!(rig.due, Due::Nothing);
    assert!(!rig.index.may_miss(), "at once");
    assert_eq!((rig.knows(8), rig.knows(7)), (Lookup::Hit(8), Lookup::Miss));
    assert_eq!(rig.space.used(), (0..100).sum::<u64>() - 7);
    rig.close();
}

#[test]
fn after_a_kill_the_index_is_believed_when_it_has_seen_the_last_commit() {
    let folder = tempfile::tempdir().unwrap();
    let live = Rig::open(&folder.path().join("live"), 1024);
    live.await_complete();
    live.write(vec![blob(1)], true);
    // Undone by a kill in the catalog, not in the index: its file is there all the same.
    live.write(vec![blob(2)], false);
    copy(&folder.path().join("live"), &folder.path().join("killed"));
    live.close();
    let rig = Rig::open(&folder.path().join("killed"), 1024);
    assert_eq!(rig.due, Due::Nothing);
    assert_eq!((rig.knows(1), rig.knows(2), rig.knows(3)), {
        (Lookup::Hit(1), Lookup::Hit(2), Lookup::Miss)
    });
    rig.close();
}

#[test]
fn numbers_that_are_given_again_prove_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [live, killed, again] = ["live", "killed", "again"].map(|name| folder.path().join(name));
    let rig = Rig::open(&live, 1024);
    rig.await_complete();
    rig.write(vec![blob(1)], true);
    for n in 2..10 {
        rig.write(vec![blob(n)], false);
    }
    copy(&live, &killed);
    rig.close();
    // The next process is killed between a commit and telling the index of it: the catalog is one
    // that has it, the index one that has not.
    let rig = Rig::open(&killed, 1024);
    assert_eq!(rig.due, Due::Nothing);
    copy(&killed, &again);
    rig.write(vec![no_blob(1)], true);
    std::fs::copy(killed.join("catalog.redb"), again.join("catalog.redb")).unwrap();
    rig.close();
    let rig = Rig::open(&again, 1024);
    assert_eq!(rig.due, Due::All);
    rig.await_complete();
    assert_eq!(rig.knows(1), Lookup::Miss);
    rig.close();
}

#[test]
fn an_index_that_has_not_seen_the_last_commit_is_filled_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (store, older) = (folder.path().join("store"), folder.path().join("older"));
    std::fs::create_dir_all(&store).unwrap();
    for is_killed in [true, false] {
        let rig = Rig::open(&store, 1024);
        rig.await_complete();
        rig.write(vec![blob(1), blob(2)], true);
        let rig = if is_killed {
            copy(&store.join("index"), &older);
            rig
        } else {
            rig.close();
            copy(&store.join("index"), &older);
            Rig::open(&store, 1024)
        };
        rig.write(vec![no_blob(1), blob(3)], true);
        rig.close();
        std::fs::remove_dir_all(store.join("index")).unwrap();
        copy(&older, &store.join("index"));
        std::fs::remove_dir_all(&older).unwrap();

        let rig = Rig::open(&store, 1024);
        assert_eq!(rig.due, Due::All, "killed: {is_killed}");
        assert_ne!(rig.knows(3), Lookup::Miss, "stored, and not known yet");
        rig.await_complete();
        assert_eq!((rig.knows(1), rig.knows(2), rig.knows(3)), {
            (Lookup::Miss, Lookup::Hit(2), Lookup::Hit(3))
        });
        assert_eq!(rig.space.used(), 5);
        rig.close();
    }
}

#[test]
fn small_content_is_kept_once_its_blob_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::open(folder.path(), 1024);
    rig.await_complete();
    let content = b"a small manifest".to_vec();
    let digest = Digest::of(Algorithm::Sha256, &content);
    let record = BlobRecord {
        digest,
        size: content.len() as u64,
        pool: 0,
        is_hosted: false,
        owner: NO_OWNER,
        keeping: Keeping::default(),
    };
    rig.write(vec![Write::PutBlob { record, is_synced: true }], false);
    rig.catalog.offer(digest, content.clone().into());
    // Served after the offer, which waits in the same queue.
    rig.write(Vec::new(), false);
    rig.write(Vec::new(), false);
    let mut found = Vec::new();
    assert!(rig.index.small(&digest, &mut found), "kept");
    assert_eq!(found, content);
    rig.close();
}

/// What workers note of uses is in the file after a minute at most, and a kill then loses nothing.
#[test]
fn uses_reach_the_file_while_the_process_runs() {
    let folder = tempfile::tempdir().unwrap();
    let options = IndexOptions {
        folder: folder.path().to_owned(),
        store_id: [1; 16],
        slots_min: 100_000,
        small_bytes: 0,
    };
    let (index, writer, _) = Index::open(options.clone()).unwrap();
    let space = large_space();
    let mut feed = IndexFeed::new((index.clone(), writer), (Due::First, 1), space);
    for n in 0..1000 {
        feed.applied(&blob(n));
    }
    feed.rebuilt();
    for n in 0..1000 {
        index.touch(&digest(n), u64::from(u32::MAX));
    }
    let mut rounds = 0;
    while feed.tend() == Tended::Busy {
        rounds += 1;
        assert!(rounds < 100);
    }
    assert!(rounds > 0, "98 pages at once");
    // Noted too late for this minute.
    index.touch(&digest(5), u64::from(u32::MAX) + 60);
    assert_eq!(feed.tend(), Tended::Idle);
    drop((feed, index));
    let (index, _writer, _) = Index::open(options).unwrap();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..20_000 {
        let Some(sample) = index.sample(fastrand::u64(..)) else { continue };
        assert_eq!(sample.hits, 1);
        seen.insert(sample.digest);
    }
    assert!(seen.len() > 900, "{}", seen.len());
}
