use super::*;
use crate::oci::{Algorithm, Digest, Namespace, RepositoryName, Scope, Tag};

fn scope(upstream: Option<&str>) -> Scope {
    Scope {
        upstream: upstream.map(|text| Namespace::parse(text).unwrap()),
        repository: RepositoryName::parse("library/alpine").unwrap(),
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    // The answers come from a thread, so any executor does.
    let mut future = Box::pin(future);
    let waker = std::task::Waker::noop();
    let mut context = std::task::Context::from_waker(waker);
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
    let digest = Digest::of(Algorithm::Sha512, b"manifest");
    let tag = |upstream, checked_at| TagRecord {
        scope: scope(upstream),
        tag: Tag::parse("latest").unwrap(),
        digest,
        fetched_at: 1,
        checked_at,
    };
    let link = LinkRecord {
        scope: scope(Some("ghcr.io")),
        digest,
        media_type: Some("application/vnd.oci.image.manifest.v1+json".into()),
        size: 8,
        linked_at: 3,
    };
    let (catalog, loaded, thread) = Catalog::open(&path, |_| ()).unwrap();
    assert!(loaded.tags.is_empty() && loaded.links.is_empty());
    let second = Catalog::open(&path, |_| ()).err().unwrap();
    assert!(second.to_string().contains("another ringport"), "{second}");
    wait(catalog.write(vec![Write::PutTag(tag(Some("docker.io"), 5))], false)).unwrap();
    let writes = vec![
        Write::PutTag(tag(None, 6)),
        Write::PutTag(tag(Some("ghcr.io"), 7)),
        Write::RemoveTag(tag(Some("docker.io"), 0)),
        Write::PutLink(link.clone()),
    ];
    wait(catalog.write(writes, true)).unwrap();
    catalog.close();
    thread.join().unwrap();
    assert!(wait(catalog.write(Vec::new(), false)).is_err(), "closed");

    let (catalog, loaded, thread) = Catalog::open(&path, |_| ()).unwrap();
    assert_eq!(loaded.tags, vec![tag(None, 6), tag(Some("ghcr.io"), 7)]);
    assert_eq!(loaded.links, vec![link]);
    assert!(loaded.damaged.is_empty());
    catalog.close();
    thread.join().unwrap();
}

#[test]
fn a_write_without_durability_reaches_the_disk_soon() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.redb");
    let (catalog, _, thread) = Catalog::open(&path, |_| ()).unwrap();
    let record = TagRecord {
        scope: scope(None),
        tag: Tag::parse("v1").unwrap(),
        digest: Digest::of(Algorithm::Sha256, b"x"),
        fetched_at: 1,
        checked_at: 1,
    };
    wait(catalog.write(vec![Write::PutTag(record)], false)).unwrap();
    // What a crash would leave is what a copy of the file holds.
    let copy = folder.path().join("copy.redb");
    let deadline = std::time::Instant::now() + FLUSH_INTERVAL * 10;
    loop {
        std::fs::copy(&path, &copy).unwrap();
        let (after_crash, loaded, copy_thread) = Catalog::open(&copy, |_| ()).unwrap();
        after_crash.close();
        copy_thread.join().unwrap();
        if loaded.tags.len() == 1 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "never flushed");
    }
    catalog.close();
    thread.join().unwrap();
}
