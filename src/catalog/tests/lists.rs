//! Lists of upstreams: kept, bounded, forgotten.

use super::*;

fn list(name: &str, checked_at: u64, bytes: usize) -> ListRecord {
    ListRecord {
        scope: scope(Some("ghcr.io")),
        name: name.to_owned(),
        checked_at,
        etag: Some("W/\"1\"".into()),
        next: Some("last=b&n=2".into()),
        body: vec![b'x'; bytes].into(),
    }
}

fn put(catalog: &Catalog, writes: Vec<Write>) {
    catalog.write_blocking(writes, true).unwrap();
}

fn remove(list: ListRecord) -> Write {
    Write::RemoveList { scope: list.scope, name: list.name, checked_at: list.checked_at }
}

fn found(catalog: &Catalog, name: &str) -> Option<ListRecord> {
    catalog.list_now(&scope(Some("ghcr.io")), name).unwrap()
}

#[test]
fn a_list_is_kept_replaced_and_forgotten_unless_it_was_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.redb");
    let (catalog, thread, _, _) = start(&path);
    let bare = ListRecord { etag: None, next: None, ..list("bare", 5, 0) };
    put(&catalog, vec![Write::PutList(list("tags", 5, 10)), Write::PutList(bare.clone())]);
    put(&catalog, vec![Write::PutList(list("tags", 9, 20))]);
    stop(&catalog, thread);
    let (catalog, thread, _, _) = start(&path);
    assert_eq!(found(&catalog, "tags"), Some(list("tags", 9, 20)));
    assert_eq!(found(&catalog, "bare"), Some(bare));
    assert_eq!(catalog.list_now(&scope(Some("docker.io")), "tags").unwrap(), None);
    // Read before it was confirmed: it stays.
    put(&catalog, vec![remove(list("tags", 5, 0))]);
    assert!(found(&catalog, "tags").is_some());
    assert_eq!(catalog.forget_lists(9).unwrap(), 1, "the bare one");
    assert_eq!((found(&catalog, "bare"), found(&catalog, "tags").is_some()), (None, true));
    put(&catalog, vec![remove(list("tags", 9, 0))]);
    assert_eq!(found(&catalog, "tags"), None);
    assert_eq!(catalog.forget_lists(u64::MAX).unwrap(), 0);
    stop(&catalog, thread);
}

#[test]
fn lists_stay_within_their_bound_and_the_longest_unconfirmed_go_first() {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, thread, _, _) = start(&folder.path().join("catalog.redb"));
    let bytes = LIST_BYTES_MAX - 1024;
    // As many as there is room for, the first confirmed once more.
    let whole = usize::try_from(LISTS_BYTES_MAX).unwrap() / bytes;
    for n in 0..whole {
        put(&catalog, vec![Write::PutList(list(&format!("p{n}"), 100 + n as u64, bytes))]);
    }
    put(&catalog, vec![Write::PutList(list("p0", 1000, bytes))]);
    assert!((0..whole).all(|n| found(&catalog, &format!("p{n}")).is_some()), "no room needed yet");
    put(&catalog, vec![Write::PutList(list("more", 1001, bytes))]);
    assert_eq!(found(&catalog, "p1"), None, "it was confirmed longest ago");
    assert!(found(&catalog, "p0").is_some() && found(&catalog, "p2").is_some());
    let large = list("large", 1002, LIST_BYTES_MAX + 1);
    assert!(!large.is_small_enough());
    let refused = catalog.write_blocking(vec![Write::PutList(large)], true).unwrap_err();
    assert!(matches!(refused, CatalogError::Refused { .. }), "{refused}");
    stop(&catalog, thread);
}
