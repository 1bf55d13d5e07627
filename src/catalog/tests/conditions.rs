//! What is judged in the transaction that applies it.

use super::*;
use crate::catalog::{Condition, Unmet};

fn digests() -> [Digest; 2] {
    [Digest::of(Algorithm::Sha256, b"one"), Digest::of(Algorithm::Sha512, b"two")]
}

fn bind(upstream: Option<&str>, text: &str, digest: Digest) -> Write {
    let tag = Tag::parse(text).unwrap();
    Write::PutTag(TagRecord { scope: scope(upstream), tag, digest, checked_at: 1 })
}

fn unbind(text: &str) -> Write {
    let tag = Tag::parse(text).unwrap();
    Write::RemoveTag(TagRecord { scope: scope(None), tag, digest: digest(), checked_at: 1 })
}

fn tags(texts: &[&str]) -> Vec<Tag> {
    texts.iter().map(|text| Tag::parse(text).unwrap()).collect()
}

#[test]
fn which_tags_are_bound_to_content_is_known_whatever_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.redb");
    let (catalog, thread, _, _) = start(&path);
    let [one, two] = digests();
    let bound = |catalog: &Catalog, digest: Digest| {
        let (catalog, found) = (catalog.clone(), Arc::new(std::sync::Mutex::new(Vec::new())));
        let told = found.clone();
        on_workers(1, Driver::Epoll, move |_| {
            let (catalog, told) = (catalog.clone(), told.clone());
            async move {
                *told.lock().unwrap() = catalog.find_tags_to(&scope(None), &digest).await.unwrap();
            }
        });
        found.lock().unwrap().clone()
    };
    let put = |writes| catalog.write_blocking(writes, true).unwrap();
    put(vec![bind(None, "a", one), bind(None, "b", one), bind(Some("ghcr.io"), "c", one)]);
    assert_eq!((bound(&catalog, one), bound(&catalog, two)), (tags(&["a", "b"]), tags(&[])));
    // Again, to something else, and away: a name that is not there changes nothing.
    put(vec![bind(None, "a", one), bind(None, "b", two), unbind("nope")]);
    assert_eq!((bound(&catalog, one), bound(&catalog, two)), (tags(&["a"]), tags(&["b"])));
    put(vec![unbind("a"), bind(None, "a", two), unbind("b"), bind(None, "d", one)]);
    assert_eq!((bound(&catalog, one), bound(&catalog, two)), (tags(&["d"]), tags(&["a"])));
    stop(&catalog, thread);
}

#[test]
fn nothing_of_a_batch_is_applied_unless_its_conditions_hold() {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, thread, told, _) = start(&folder.path().join("catalog.redb"));
    let [one, two] = digests();
    catalog.write_blocking(vec![bind(None, "a", one), bind(None, "b", one)], true).unwrap();
    told.take();
    let are =
        |texts: &[&str]| Condition::TagsAre { scope: scope(None), digest: one, tags: tags(texts) };
    let stays = |text: &str, digest| {
        let tag = Tag::parse(text).unwrap();
        Condition::TagStays { scope: scope(None), tag, digest }
    };
    let write = |conditions: Vec<Condition>| {
        let writes = vec![Write::PutLink(LinkRecord { scope: scope(None), ..link() })];
        wait(catalog.write_if(catalog.moment(), conditions, writes)).map(|effects| effects.len())
    };
    for conditions in [
        vec![are(&["a"])],
        vec![are(&[])],
        vec![are(&["a", "b", "c"])],
        vec![are(&["a", "c"])],
        vec![stays("a", two)],
        vec![stays("a", one), are(&["b", "a"]), stays("b", two)],
    ] {
        let refused = write(conditions.clone()).unwrap_err();
        assert!(matches!(refused, CatalogError::Unmet(_)), "{conditions:?}: {refused}");
    }
    assert!(told.take().is_empty(), "the index hears nothing of it");
    assert_eq!(catalog.scan_links(None, 9).unwrap().records, []);
    let unmet = write(vec![stays("a", two)]).unwrap_err();
    let CatalogError::Unmet(Unmet::TagStays { bound, .. }) = unmet else { panic!("{unmet}") };
    assert_eq!(bound, one);
    let all = vec![are(&["b", "a"]), stays("a", one), stays("new", two)];
    assert_eq!(write(all).unwrap(), 1);
    stop(&catalog, thread);
}
