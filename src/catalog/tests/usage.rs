//! What hosted repositories hold, beside what their names add up to.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::catalog::{Condition, Unmet, Usage};

const REPOSITORIES: [&str; 3] = ["a", "a/b", "ab"];

fn content(n: usize) -> Digest {
    Digest::of(Algorithm::Sha256, &n.to_le_bytes())
}

/// No two of the same size, and one that is empty.
fn size(n: usize) -> u64 {
    (n * n * 1000) as u64
}

fn of(repository: &str) -> Scope {
    Scope { repository: RepositoryName::parse(repository).unwrap(), ..scope(None) }
}

fn put_blob(n: usize) -> Write {
    let record = BlobRecord {
        digest: content(n),
        size: size(n),
        pool: 0,
        is_hosted: true,
        owner: NO_OWNER,
        keeping: Keeping::default(),
    };
    Write::PutBlob { record, is_synced: true }
}

fn link_of(repository: &str, n: usize, linked_at: u64) -> LinkRecord {
    LinkRecord { scope: of(repository), digest: content(n), media_type: None, linked_at }
}

fn tag_of(repository: &str, tag: usize, n: usize) -> TagRecord {
    let tag = Tag::parse(&format!("t{tag}")).unwrap();
    TagRecord { scope: of(repository), tag, digest: content(n), checked_at: 1 }
}

/// One repository as it should be: its links, and its tags.
type Model = BTreeMap<&'static str, (BTreeSet<usize>, BTreeSet<usize>)>;

#[test]
fn what_is_counted_is_what_the_names_add_up_to_whatever_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.redb");
    let (mut catalog, mut thread, _, _) = start(&path);
    let mut model = Model::new();
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..300 {
        let mut writes = Vec::new();
        for _ in 0..random.usize(1..6) {
            let repository = REPOSITORIES[random.usize(..3)];
            let (links, tags) = model.entry(repository).or_default();
            let (n, tag) = (random.usize(..12), random.usize(..6));
            match random.usize(..6) {
                0 | 1 => {
                    writes.extend([put_blob(n), Write::PutLink(link_of(repository, n, round))]);
                    links.insert(n);
                }
                2 => {
                    writes.push(Write::RemoveLink(link_of(repository, n, round)));
                    links.remove(&n);
                }
                3 => writes.push(Write::TouchLink(link_of(repository, n, round))),
                4 => {
                    writes.push(Write::PutTag(tag_of(repository, tag, n)));
                    tags.insert(tag);
                }
                _ => {
                    writes.push(Write::RemoveTag(tag_of(repository, tag, n)));
                    tags.remove(&tag);
                }
            }
        }
        // Content may go before its links do, as by damage.
        if round % 10 == 0
            && let Some(record) = catalog.blob_now(&content(random.usize(..12))).unwrap()
        {
            writes.push(Write::RemoveBlob(record.at()));
        }
        writes.push(Write::PutLink(LinkRecord { digest: content(3), ..link() }));
        catalog.write_blocking(writes, false).unwrap();
        for repository in REPOSITORIES {
            let (links, tags) = model.entry(repository).or_default();
            let expected =
                Usage { tags: tags.len() as u64, bytes: links.iter().map(|n| size(*n)).sum() };
            let found = catalog.usage_now(&of(repository)).unwrap();
            assert_eq!(found, expected, "{repository} in round {round}");
        }
        assert_eq!(catalog.usage_now(&scope(Some("ghcr.io"))).unwrap(), Usage::default());
        if round == 150 {
            stop(&catalog, thread);
            (catalog, thread, _, _) = start(&path);
        }
    }
    stop(&catalog, thread);
}

#[test]
fn a_repository_never_holds_more_than_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, thread, _, _) = start(&folder.path().join("catalog.redb"));
    let limit = |tags_max, bytes_max| Condition::Within { scope: of("a"), tags_max, bytes_max };
    let write = |condition: Condition, writes: Vec<Write>| {
        wait(catalog.write_if(catalog.moment(), vec![condition], writes)).map(drop)
    };
    let push = |n: usize, tags: &[usize]| {
        let mut writes = vec![put_blob(n), Write::PutLink(link_of("a", n, 1))];
        writes.extend(tags.iter().map(|tag| Write::PutTag(tag_of("a", *tag, n))));
        writes
    };
    // 1,000 and 4,000 bytes.
    write(limit(Some(2), Some(5000)), push(1, &[1])).unwrap();
    write(limit(Some(2), Some(5000)), push(2, &[1, 2])).unwrap();
    let over = |refused: Result<(), CatalogError>| match refused.unwrap_err() {
        CatalogError::Unmet(Unmet::Tags { tags, max, .. }) => (tags, max),
        CatalogError::Unmet(Unmet::Bytes { bytes, max, .. }) => (bytes, max),
        other => panic!("{other}"),
    };
    assert_eq!(over(write(limit(Some(2), None), push(1, &[2, 3, 3]))), (3, 2));
    assert_eq!(over(write(limit(Some(1), None), push(1, &[4]))), (3, 1));
    assert_eq!(over(write(limit(None, Some(13_999)), push(3, &[1]))), (14_000, 13_999));
    // What was refused is not there, and counts for nothing.
    assert_eq!(catalog.usage_now(&of("a")).unwrap(), Usage { tags: 2, bytes: 5000 });
    assert_eq!(catalog.blob_now(&content(3)).unwrap(), None);
    // What adds nothing is no matter, however much is there: the same again, moved, or elsewhere.
    write(limit(Some(1), Some(10)), push(2, &[1, 2])).unwrap();
    let elsewhere = vec![put_blob(9), Write::PutLink(link_of("ab", 9, 1))];
    write(limit(Some(1), Some(10)), elsewhere).unwrap();
    // The size is that of the store when the batch does not bring it.
    let mounted = vec![Write::PutLink(link_of("a", 9, 1))];
    assert_eq!(over(write(limit(None, Some(85_999)), mounted.clone())), (86_000, 85_999));
    write(limit(None, Some(86_000)), mounted).unwrap();
    stop(&catalog, thread);
}
