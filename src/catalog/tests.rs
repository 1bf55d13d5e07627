mod conditions;
mod hosted;
mod lists;
mod usage;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::*;
use crate::keeping::Keeping;
use crate::oci::{Algorithm, Digest, Namespace, RepositoryName, Scope, Tag};
use crate::runtime::Driver;
use crate::runtime::tests::on_workers;

/// Writes down what it is told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Subscriber for Told {
    fn applied(&mut self, write: &Write) {
        let text = match write {
            Write::PutBlob { record, .. } => format!("blob {} {}", record.digest, record.size),
            Write::PutTag(record) => format!("tag {}:{}", record.scope, record.tag),
            Write::PutLink(record) => format!("link {}", record.scope),
            Write::RemoveTag(record) => format!("no tag {}:{}", record.scope, record.tag),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(text);
    }
    fn rebuilt(&mut self) {
        self.0.lock().unwrap().push("rebuilt".into());
    }
    fn group(&mut self, _: u64) {}
    fn offered(&mut self, _: &Digest, _: &[u8]) {}
    fn tend(&mut self) -> Tended {
        Tended::Idle
    }
    fn closed(&mut self) {
        self.0.lock().unwrap().push("closed".into());
    }
}

impl Told {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn wait_for(&self, text: &str) -> Vec<String> {
        let deadline = std::time::Instant::now() + FLUSH_INTERVAL * 10;
        while !self.0.lock().unwrap().iter().any(|told| told == text) {
            assert!(std::time::Instant::now() < deadline, "never told {text}");
            std::thread::yield_now();
        }
        self.take()
    }
}

fn start(path: &Path) -> (Catalog, JoinHandle<()>, Told, Opened) {
    let told = Told::default();
    let unstarted = Catalog::open(path).unwrap();
    let opened = unstarted.opened().clone();
    let (catalog, thread) = unstarted.start(Box::new(told.clone())).unwrap();
    (catalog, thread, told, opened)
}

fn stop(catalog: &Catalog, thread: JoinHandle<()>) {
    catalog.close(true);
    thread.join().unwrap();
}

fn scope(upstream: Option<&str>) -> Scope {
    Scope {
        upstream: upstream.map(|text| Namespace::parse(text).unwrap()),
        repository: RepositoryName::parse("library/alpine").unwrap(),
    }
}

fn digest() -> Digest {
    Digest::of(Algorithm::Sha512, b"manifest")
}

fn tag(upstream: Option<&str>, checked_at: u64) -> TagRecord {
    let tag = Tag::parse("latest").unwrap();
    TagRecord { scope: scope(upstream), tag, digest: digest(), checked_at }
}

fn blob(is_synced: bool) -> Write {
    let record = BlobRecord {
        digest: digest(),
        size: 8,
        pool: 0,
        is_hosted: false,
        owner: NO_OWNER,
        keeping: Keeping::default(),
    };
    Write::PutBlob { record, is_synced }
}

fn link() -> LinkRecord {
    LinkRecord {
        scope: scope(Some("ghcr.io")),
        digest: digest(),
        media_type: Some("application/vnd.oci.image.manifest.v1+json".into()),
        linked_at: 3,
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    // The answers come from a thread, so polling is all it takes.
    let mut future = Box::pin(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::yield_now();
    }
}

#[test]
fn names_survive_a_close_and_upstreams_are_kept_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.redb");
    let (catalog, thread, told, opened) = start(&path);
    assert!(opened.is_intact && opened.suspects.is_empty());
    let second = Catalog::open(&path).err().unwrap();
    assert!(second.to_string().contains("another ringport"), "{second}");
    wait(catalog.write(vec![Write::PutTag(tag(Some("docker.io"), 5))], false)).unwrap();
    let writes = vec![
        blob(false),
        Write::PutTag(tag(None, 6)),
        Write::PutTag(tag(Some("ghcr.io"), 7)),
        Write::RemoveTag(tag(Some("docker.io"), 0)),
        Write::PutLink(link()),
    ];
    wait(catalog.write(writes, true)).unwrap();
    let live = told.take();
    assert_eq!(live.len(), 6, "told before it was answered: {live:?}");
    stop(&catalog, thread);
    assert_eq!(told.take(), ["closed"]);
    assert!(wait(catalog.write(Vec::new(), false)).is_err(), "closed");

    let (catalog, thread, told, again) = start(&path);
    assert_eq!(again.store_id, opened.store_id);
    assert!(told.take().is_empty(), "nothing unasked");
    catalog.rebuild();
    let expected = [
        format!("blob {} 8", digest()),
        "link ghcr.io/library/alpine".into(),
        "tag hosted library/alpine:latest".into(),
        "tag ghcr.io/library/alpine:latest".into(),
        "rebuilt".into(),
    ];
    assert_eq!(told.wait_for("rebuilt"), expected);
    let asked = catalog.clone();
    on_workers(1, Driver::Epoll, move |_| {
        let catalog = asked.clone();
        async move {
            let found = |upstream| tag(upstream, if upstream.is_some() { 7 } else { 6 });
            let latest = Tag::parse("latest").unwrap();
            for upstream in [None, Some("ghcr.io")] {
                let record = catalog.find_tag(&scope(upstream), &latest).await.unwrap();
                assert_eq!(record, Some(found(upstream)));
            }
            let gone = catalog.find_tag(&scope(Some("docker.io")), &latest).await.unwrap();
            assert_eq!(gone, None);
            assert_eq!(catalog.find_blob(&digest()).await.unwrap().unwrap().size, 8);
            let found = catalog.find_link(&scope(Some("ghcr.io")), &digest()).await.unwrap();
            assert_eq!(found, Some(link()));
            assert_eq!(catalog.find_link(&scope(None), &digest()).await.unwrap(), None);
        }
    });
    stop(&catalog, thread);
}

#[test]
fn a_write_without_durability_reaches_the_disk_soon() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.redb");
    let (catalog, thread, _, _) = start(&path);
    wait(catalog.write(vec![Write::PutTag(tag(None, 1)), blob(false)], false)).unwrap();
    // What a crash would leave is what a copy of the file holds.
    let copy = folder.path().join("copy.redb");
    let deadline = std::time::Instant::now() + FLUSH_INTERVAL * 10;
    loop {
        std::fs::copy(&path, &copy).unwrap();
        let (after_crash, copy_thread, told, opened) = start(&copy);
        assert!(opened.is_intact, "the same boot: the page cache has it all");
        after_crash.rebuild();
        let names = told.wait_for("rebuilt").len();
        stop(&after_crash, copy_thread);
        if names == 3 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "never flushed");
    }
    stop(&catalog, thread);
}

#[test]
fn a_rebuild_tells_every_record_however_many() {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, thread, told, _) = start(&folder.path().join("catalog.redb"));
    let records = |n: u32| Digest::of(Algorithm::Sha256, &n.to_le_bytes());
    let writes = (0..5_000)
        .flat_map(|n| {
            let record = BlobRecord {
                digest: records(n),
                size: u64::from(n),
                pool: 0,
                is_hosted: false,
                owner: NO_OWNER,
                keeping: Keeping::default(),
            };
            let link = LinkRecord { digest: records(n), media_type: None, ..link() };
            [Write::PutBlob { record, is_synced: true }, Write::PutLink(link)]
        })
        .collect();
    wait(catalog.write(writes, false)).unwrap();
    told.take();
    catalog.rebuild();
    // A write in the middle of it waits for a piece at most, and is told.
    wait(catalog.write(vec![Write::PutTag(tag(None, 1))], false)).unwrap();
    let all = told.wait_for("rebuilt");
    assert_eq!(all.iter().filter(|text| text.starts_with("blob")).count(), 5_000);
    assert_eq!(all.iter().filter(|text| text.starts_with("link")).count(), 5_000);
    assert!(all.iter().any(|text| text.starts_with("tag hosted")));
    stop(&catalog, thread);
}

#[test]
fn what_a_power_cut_made_doubtful_stays_so_until_it_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.redb");
    let (catalog, thread, _, _) = start(&path);
    wait(catalog.write(vec![blob(false)], true)).unwrap();
    // Closed, but not in good order, and under another boot: that is what a power cut leaves.
    catalog.close(false);
    thread.join().unwrap();
    database::tests::pretend_another_boot(&path);
    for round in 0..2 {
        let (catalog, thread, _, opened) = start(&path);
        assert_eq!(opened.suspects, [digest()], "round {round}");
        // Neither a clean stop nor a kill on this boot makes it any better.
        catalog.close(round == 0);
        thread.join().unwrap();
    }
    let (catalog, thread, _, _) = start(&path);
    wait(catalog.write(vec![Write::Synced { digest: digest(), until: catalog.moment() }], true))
        .unwrap();
    stop(&catalog, thread);
    let (catalog, thread, _, opened) = start(&path);
    assert!(opened.is_intact && opened.suspects.is_empty());
    stop(&catalog, thread);
}

#[test]
fn content_of_older_versions_is_taken_over_without_owner_and_terms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.redb");
    let first = [digest(), Digest::of(Algorithm::Sha256, b"another")];
    let second = [b"second", b"2econd"].map(|name| Digest::of(Algorithm::Sha256, name));
    older::tests::pretend_older(
        &path,
        &first.map(|digest| (digest.to_string(), (8, 0, 1))),
        &second.map(|digest| (digest.to_string(), (9, 3, 0, 6))),
    );
    let terms = Keeping { is_pinned: true, priority: -3, expires_at: Some(u64::MAX) };
    for keeping in [Keeping::default(), terms] {
        let (catalog, thread, _, opened) = start(&path);
        assert_eq!(opened.records, 4);
        for (digests, size, pool, is_hosted, owner) in
            [(first, 8, 0, true, NO_OWNER), (second, 9, 3, false, 6)]
        {
            for digest in digests {
                let record = BlobRecord { digest, size, pool, is_hosted, owner, keeping };
                assert_eq!(catalog.blob_now(&digest).unwrap(), Some(record.clone()));
                let record = BlobRecord { keeping: terms, ..record };
                let put = Write::PutBlob { record, is_synced: true };
                catalog.write_blocking(vec![put], true).unwrap();
            }
        }
        stop(&catalog, thread);
    }
}

#[test]
fn the_bytes_that_an_orderly_end_vouches_for_are_those_that_have_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.redb");
    let put = |content: &[u8]| {
        let digest = Digest::of(Algorithm::Sha256, content);
        let keeping = Keeping::default();
        let record =
            BlobRecord { digest, size: 1, pool: 0, is_hosted: false, owner: NO_OWNER, keeping };
        (digest, Write::PutBlob { record, is_synced: false })
    };
    let ((early, before), (late, after)) = (put(b"early"), put(b"late"));
    let (catalog, thread, ..) = start(&path);
    catalog.write_soon(vec![before]);
    let sender = catalog.clone();
    // As a fill does that ends while the disks are synced.
    catalog.close_after(move || {
        sender.write_soon(vec![after]);
        true
    });
    thread.join().unwrap();
    database::tests::pretend_another_boot(&path);
    let (catalog, thread, _, opened) = start(&path);
    assert_eq!(opened.suspects, []);
    assert!(catalog.blob_now(&early).unwrap().is_some());
    assert!(catalog.blob_now(&late).unwrap().is_none(), "named, and not synced");
    stop(&catalog, thread);
}

#[test]
fn content_is_removed_or_replaced_only_where_the_record_is_the_one_that_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, thread, told, _) = start(&folder.path().join("catalog.redb"));
    let record = |pool: u8, is_hosted: bool| BlobRecord {
        digest: digest(),
        size: 8,
        pool,
        is_hosted,
        owner: NO_OWNER,
        keeping: Keeping::default(),
    };
    let put = |pool, is_hosted| Write::PutBlob { record: record(pool, is_hosted), is_synced: true };
    let remove = |pool, is_hosted| Write::RemoveBlob(record(pool, is_hosted).at());
    let hand = |pool, is_hosted| Write::HandToCache(record(pool, is_hosted).at());
    for (write, is_applied, before, after) in [
        (remove(0, false), false, None, None),
        (put(0, false), true, None, Some((0, false))),
        (put(1, false), true, Some((0, false)), Some((1, false))),
        (remove(0, false), false, Some((1, false)), Some((1, false))),
        (hand(1, true), false, Some((1, false)), Some((1, false))),
        (put(2, true), true, Some((1, false)), Some((2, true))),
        (remove(1, false), false, Some((2, true)), Some((2, true))),
        (remove(2, false), false, Some((2, true)), Some((2, true))),
        (put(1, false), false, Some((2, true)), Some((2, true))),
        (hand(1, true), false, Some((2, true)), Some((2, true))),
        (hand(2, true), true, Some((2, true)), Some((2, false))),
        (put(3, true), true, Some((2, false)), Some((3, true))),
        (remove(3, true), true, Some((3, true)), None),
    ] {
        let what = format!("{write:?} over {before:?}");
        let record = |(pool, is_hosted)| record(pool, is_hosted);
        let effects = wait(catalog.write_told(vec![write.clone()], false)).unwrap();
        assert_eq!(effects, [Effect { is_applied, before: before.map(record) }], "{what}");
        assert_eq!(catalog.blob_now(&digest()).unwrap(), after.map(record), "{what}");
        // The index is told what is so, whatever it was that was asked for.
        let now = match after {
            Some(_) => format!("blob {} 8", digest()),
            None => format!("{write:?}"),
        };
        assert_eq!(told.take(), [now], "{what}");
    }
    stop(&catalog, thread);
}

#[test]
fn a_sync_vouches_for_nothing_that_was_put_after_it_began() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.redb");
    let (mut catalog, mut thread, ..) = start(&path);
    wait(catalog.write(vec![blob(false)], true)).unwrap();
    let until = catalog.moment();
    // Fetched again, while the disk is being synced.
    wait(catalog.write(vec![blob(false)], true)).unwrap();
    for (until, suspects) in [(Some(until), 1), (None, 0)] {
        let until = until.unwrap_or_else(|| catalog.moment());
        wait(catalog.write(vec![Write::Synced { digest: digest(), until }], true)).unwrap();
        // Without an order, as after a power cut.
        catalog.close(false);
        thread.join().unwrap();
        database::tests::pretend_another_boot(&path);
        let opened;
        (catalog, thread, _, opened) = start(&path);
        assert_eq!(opened.suspects.len(), suspects);
    }
    stop(&catalog, thread);
}

#[test]
fn what_an_older_version_left_unsynced_is_suspect_after_a_power_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.redb");
    let (catalog, thread, ..) = start(&path);
    stop(&catalog, thread);
    database::tests::tamper(&path, |transaction| {
        let old = redb::TableDefinition::<&str, ()>::new("unsynced.v1");
        transaction.open_table(old).unwrap().insert(digest().to_string().as_str(), ()).unwrap();
    });
    database::tests::pretend_another_boot(&path);
    let (catalog, thread, _, opened) = start(&path);
    assert_eq!(opened.suspects, [digest()]);
    wait(catalog.write(vec![Write::Synced { digest: digest(), until: catalog.moment() }], true))
        .unwrap();
    stop(&catalog, thread);
    let (catalog, thread, _, opened) = start(&path);
    assert_eq!(opened.suspects, []);
    stop(&catalog, thread);
}
