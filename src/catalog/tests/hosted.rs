//! Referrers, uploads and tombstones.

use super::*;
use crate::catalog::hosted::{REFERRERS, TOMBSTONES, UPLOADS};
use crate::oci::Reference;

fn numbered(n: u32) -> Digest {
    Digest::of(Algorithm::Sha256, &n.to_le_bytes())
}

fn referrer(subject: u32, referrer: u32) -> ReferrerRecord {
    ReferrerRecord {
        scope: scope(None),
        subject: numbered(subject),
        referrer: numbered(referrer),
        artifact_type: Some("application/vnd.example.sbom".into()),
        size: u64::from(referrer),
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        annotations: Bytes::from_static(br#"{"made":"up"}"#),
    }
}

fn upload(confirmed: u64) -> UploadRecord {
    UploadRecord {
        id: UploadId::parse("00ff00000000000000000000000000a1").unwrap(),
        scope: scope(None),
        owner: "alice".to_owned(),
        started_at: 7,
        last_active_at: 8,
        confirmed,
        pool: 2,
    }
}

fn hosted_link() -> LinkRecord {
    LinkRecord { scope: scope(None), ..link() }
}

/// A referrer with the link that makes it one.
fn referring(record: ReferrerRecord) -> [Write; 2] {
    let scope = record.scope.clone();
    let link = LinkRecord { scope, digest: record.referrer, ..hosted_link() };
    [Write::PutLink(link), Write::PutReferrer(record)]
}

fn put(catalog: &Catalog, writes: Vec<Write>) {
    catalog.write_blocking(writes, true).unwrap();
}

fn tombstones(catalog: &Catalog) -> Vec<String> {
    let piece = catalog.scan_tombstones(None, 100).unwrap();
    assert!(piece.damaged.is_empty() && piece.next.is_none(), "{piece:?}");
    piece.records.iter().map(|record| record.name.to_string()).collect()
}

/// Calls on a worker, as look-ups are made.
fn ask<F: Future<Output = ()> + 'static>(
    catalog: &Catalog,
    call: impl Fn(Catalog) -> F + Send + Sync + Clone + 'static,
) {
    let catalog = catalog.clone();
    on_workers(1, Driver::Epoll, move |_| call(catalog.clone()));
}

#[test]
fn what_was_durable_is_there_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.redb");
    let (catalog, thread, _, _) = start(&path);
    let other = UploadRecord { id: UploadId::random().unwrap(), ..upload(1) };
    let mut writes = vec![
        Write::PutReferrer(referrer(1, 3)),
        Write::PutUpload(upload(5)),
        Write::PutUpload(other.clone()),
        Write::PutTag(tag(None, 1)),
        Write::PutLink(hosted_link()),
    ];
    writes.extend(referring(referrer(1, 2)));
    put(&catalog, writes);
    let writes = vec![
        Write::RemoveReferrer(referrer(1, 3)),
        Write::PutUpload(upload(9)),
        Write::RemoveUpload(other.id),
        Write::RemoveTag(tag(None, 0)),
        Write::RemoveLink(hosted_link()),
    ];
    put(&catalog, writes);
    let copy = folder.path().join("copy.redb");
    std::fs::copy(&path, &copy).unwrap();
    stop(&catalog, thread);

    let (catalog, thread, _, _) = start(&copy);
    let piece = catalog.referrers_now(&scope(None), &numbered(1), None, 9).unwrap();
    assert_eq!(piece.records, [referrer(1, 2)]);
    assert_eq!(catalog.scan_uploads(None, 9).unwrap().records, [upload(9)]);
    assert_eq!(tombstones(&catalog), ["latest".to_owned(), digest().to_string()]);
    ask(&catalog, move |catalog| async move {
        assert_eq!(catalog.find_upload(&upload(0).id).await.unwrap(), Some(upload(9)));
        assert_eq!(catalog.find_upload(&other.id).await.unwrap(), None);
        for name in [Reference::Tag(tag(None, 0).tag), Reference::Digest(digest())] {
            let found = catalog.find_tombstone(&scope(None), &name).await.unwrap().unwrap();
            assert_eq!((found.scope, found.name), (scope(None), name.clone()));
            let elsewhere = catalog.find_tombstone(&scope(Some("ghcr.io")), &name).await.unwrap();
            assert_eq!(elsewhere, None);
        }
        let piece = catalog.find_referrers(&scope(None), &numbered(1), None, 9).await.unwrap();
        assert_eq!(piece.records, [referrer(1, 2)]);
    });
    stop(&catalog, thread);
}

#[test]
fn referrers_come_in_pieces_ordered_by_digest_and_only_those_of_the_subject() {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, thread, _, _) = start(&folder.path().join("catalog.redb"));
    let foreign = ReferrerRecord { scope: scope(Some("ghcr.io")), ..referrer(1, 50) };
    let mut writes: Vec<Write> = (0..10).flat_map(|n| referring(referrer(1, n))).collect();
    writes.extend((0..100).flat_map(|n| referring(referrer(n + 2, 60))));
    writes.push(Write::PutReferrer(foreign));
    // Its manifest has been deleted.
    writes.push(Write::PutReferrer(referrer(1, 70)));
    put(&catalog, writes);
    let all = |subject: u32, max: usize| {
        let (mut found, mut pieces, mut after) = (Vec::new(), 0, None::<Mark>);
        loop {
            let subject = numbered(subject);
            let piece = catalog.referrers_now(&scope(None), &subject, after.as_ref(), max).unwrap();
            assert!(piece.records.len() <= max);
            found.extend(piece.records.iter().map(|record| record.referrer));
            // As a client does, who knows only the last digest.
            after = piece
                .next
                .and(piece.records.last())
                .map(|last| Mark::behind(last.referrer.to_string()));
            pieces += 1;
            assert!(pieces < 100, "it never ends");
            if after.is_none() {
                return (found, pieces);
            }
        }
    };
    let mut expected: Vec<Digest> = (0..10).map(numbered).collect();
    expected.sort_by_key(Digest::to_string);
    assert_eq!(all(1, 3), (expected.clone(), 4));
    assert_eq!(all(1, 100), (expected, 1));
    assert_eq!(all(5_000, 3), (Vec::new(), 1));

    // Large ones come in smaller pieces.
    let text = format!("{{\"note\":\"{}\"}}", "x".repeat(60_000));
    let large = |n| ReferrerRecord { annotations: text.clone().into(), ..referrer(9_000, n) };
    put(&catalog, (0..40).flat_map(|n| referring(large(n))).collect());
    let (found, pieces) = all(9_000, 1_000);
    assert_eq!((found.len(), pieces), (40, 3));
    stop(&catalog, thread);
}

#[test]
fn a_referrer_that_is_too_large_or_no_json_is_refused_with_all_that_belongs_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, thread, told, _) = start(&folder.path().join("catalog.redb"));
    let with = |annotations: String| {
        let record = ReferrerRecord { annotations: annotations.into(), ..referrer(1, 2) };
        vec![Write::PutTag(tag(None, 1)), Write::PutReferrer(record)]
    };
    let bare = referrer(1, 2).weight() - referrer(1, 2).annotations.len();
    let filled = |bytes: usize| format!("{{\"n\":\"{}\"}}", "x".repeat(bytes - bare - 8));
    for (annotations, why) in [
        (filled(REFERRER_BYTES_MAX + 1), "may have 65536 bytes together, and have 65537"),
        ("[]".to_owned(), "no JSON object of strings"),
        (r#"{"a":1}"#.to_owned(), "no JSON object of strings"),
    ] {
        let refused = catalog.write_blocking(with(annotations), true).unwrap_err().to_string();
        let name = format!("@{} of {}", numbered(2), numbered(1));
        assert!(refused.contains(why) && refused.contains(&name), "{refused}");
    }
    assert_eq!(catalog.scan_tags_of(&scope(None), None, 9).unwrap().records, []);
    assert!(told.take().is_empty());
    put(&catalog, with(filled(REFERRER_BYTES_MAX)));
    put(&catalog, with(String::new()));
    stop(&catalog, thread);
}

#[test]
fn a_deleted_hosted_name_is_not_brought_back_by_what_began_before() {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, thread, told, _) = start(&folder.path().join("catalog.redb"));
    put(&catalog, vec![Write::PutTag(tag(None, 1)), Write::PutLink(hosted_link())]);
    let before = catalog.moment();
    put(&catalog, vec![Write::RemoveTag(tag(None, 1))]);
    let behind = catalog.moment();
    told.take();
    // All or nothing: the link alone would have been fine.
    let late = || vec![Write::PutLink(hosted_link()), Write::PutTag(tag(None, 2)), blob(true)];
    let refused = wait(catalog.write_unless_deleted(before, late())).unwrap_err();
    assert!(matches!(refused, CatalogError::Deleted { .. }), "{refused}");
    assert!(refused.to_string().contains("latest of hosted library/alpine"), "{refused}");
    assert!(told.take().is_empty(), "the index hears nothing of it");
    assert_eq!(catalog.blob_now(&digest()).unwrap(), None);
    assert_eq!(catalog.scan_tags_of(&scope(None), None, 9).unwrap().records, []);
    assert_eq!(tombstones(&catalog), ["latest"]);
    // One that has not been deleted, and one that began behind the delete.
    wait(catalog.write_unless_deleted(before, vec![Write::PutLink(hosted_link())])).unwrap();
    wait(catalog.write_unless_deleted(behind, late())).unwrap();
    assert_eq!(tombstones(&catalog), [""; 0]);
    assert_eq!(told.take().len(), 4);
    // The name is there again: no reason to refuse.
    wait(catalog.write_unless_deleted(before, late())).unwrap();
    assert!(catalog.blob_now(&digest()).unwrap().is_some());
    stop(&catalog, thread);
}

#[test]
fn writes_of_one_group_are_refused_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let (shared, _) = database::Shared::open(&folder.path().join("catalog.redb")).unwrap();
    let put = [Write::PutTag(tag(None, 1))];
    let other = [Write::PutLink(hosted_link())];
    let remove = [Write::RemoveTag(tag(None, 1))];
    let before = Some(shared.moment());
    let batch = |writes, since| apply::Batch { writes, since, conditions: &[] };
    let batches =
        [batch(&put, before), batch(&remove, None), batch(&put, before), batch(&other, before)];
    let committed = shared.commit(&batches, true).unwrap();
    let refused: Vec<bool> = committed.outcomes.iter().map(Result::is_err).collect();
    assert_eq!(refused, [false, false, true, false]);
}

#[test]
fn only_what_was_there_and_is_hosted_leaves_a_tombstone_for_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, thread, _, _) = start(&folder.path().join("catalog.redb"));
    let cached = tag(Some("ghcr.io"), 1);
    put(&catalog, vec![Write::PutTag(cached.clone()), Write::PutLink(link())]);
    let removed = vec![
        Write::RemoveTag(cached),
        Write::RemoveLink(link()),
        Write::RemoveTag(tag(None, 1)),
        Write::RemoveLink(hosted_link()),
    ];
    put(&catalog, removed);
    assert_eq!(tombstones(&catalog), [""; 0], "an upstream's, or never there");

    let delete = || {
        put(&catalog, vec![Write::PutTag(tag(None, 1)), Write::RemoveTag(tag(None, 1))]);
        catalog.scan_tombstones(None, 1).unwrap().records.remove(0)
    };
    let (first, second) = (delete(), delete());
    assert_ne!(first, second);
    put(&catalog, vec![Write::RemoveTombstone(first)]);
    assert_eq!(tombstones(&catalog), ["latest"], "it was deleted again since");
    let end = second.deleted_at + TOMBSTONE_SECONDS;
    assert_eq!(catalog.forget_tombstones(end - 1).unwrap(), 0);
    assert_eq!(tombstones(&catalog), ["latest"]);
    assert_eq!(catalog.forget_tombstones(end).unwrap(), 1);
    assert_eq!(tombstones(&catalog), [""; 0]);
    stop(&catalog, thread);
}

#[test]
fn uploads_and_tombstones_are_walked_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, thread, _, _) = start(&folder.path().join("catalog.redb"));
    let mut writes = Vec::new();
    for n in 0..2_500 {
        let id = UploadId::parse(&format!("{n:032x}")).unwrap();
        let link = LinkRecord { digest: numbered(n), ..hosted_link() };
        writes.push(Write::PutUpload(UploadRecord { id, ..upload(n.into()) }));
        writes.extend([Write::PutLink(link.clone()), Write::RemoveLink(link)]);
    }
    put(&catalog, writes);
    let (mut after, mut confirmed) = (None, Vec::new());
    loop {
        let piece = catalog.scan_uploads(after.as_ref(), 999).unwrap();
        confirmed.extend(piece.records.iter().map(|record| record.confirmed));
        after = piece.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(confirmed, (0..2_500).collect::<Vec<u64>>());
    let all = catalog.scan_tombstones(None, 5_000).unwrap().records;
    let last = all.iter().map(|record| record.deleted_at).max().unwrap();
    assert_eq!(catalog.forget_tombstones(last + TOMBSTONE_SECONDS).unwrap(), 2_500);
    assert_eq!(tombstones(&catalog), [""; 0]);
    stop(&catalog, thread);
}

#[test]
fn a_damaged_record_is_told_by_its_key_and_hides_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.redb");
    let (catalog, thread, _, _) = start(&path);
    let mut writes = vec![
        Write::PutUpload(upload(1)),
        Write::PutTag(tag(None, 1)),
        Write::RemoveTag(tag(None, 1)),
        Write::PutLink(hosted_link()),
    ];
    writes.extend(referring(referrer(1, 2)));
    put(&catalog, writes);
    stop(&catalog, thread);
    let subject = numbered(1).to_string();
    database::tests::tamper(&path, |transaction| {
        let mut referrers = transaction.open_table(REFERRERS).unwrap();
        let (value, referrer) = (("", 1, "type", &b"{"[..]), digest().to_string());
        referrers.insert(("", "library/alpine", &*subject, &*referrer), value).unwrap();
        let mut uploads = transaction.open_table(UPLOADS).unwrap();
        uploads.insert("0123", ("", "library/alpine", "", 1, 1, 1, 0)).unwrap();
        uploads.insert("0".repeat(32).as_str(), ("", "No/Name", "", 1, 1, 1, 0)).unwrap();
        let mut tombstones = transaction.open_table(TOMBSTONES).unwrap();
        tombstones.insert(("", "library/alpine", "no tag"), (1, 1)).unwrap();
        let mut links = transaction.open_table(record::LINKS).unwrap();
        links.insert(("", "No/Name", &*subject), ("", 1)).unwrap();
        let mut tags = transaction.open_table(record::TAGS).unwrap();
        tags.insert(("", "library/alpine", "no tag"), (&*subject, 1)).unwrap();
        tags.insert(("", "library/alpine", "tag"), (&*subject, 1)).unwrap();
    });
    let (catalog, thread, _, _) = start(&path);
    let keys =
        |damaged: &[CatalogError]| damaged.iter().map(ToString::to_string).collect::<Vec<_>>();
    let of = |told: Vec<String>, expected: &[&str]| {
        assert_eq!(told.len(), expected.len(), "{told:?}");
        for (told, key) in told.iter().zip(expected) {
            assert!(told.contains(key), "{told}");
        }
    };
    let found = catalog.referrers_now(&scope(None), &numbered(1), None, 9).unwrap();
    assert_eq!(found.records, [referrer(1, 2)]);
    of(keys(&found.damaged), &["referrer /library/alpine@sha512:"]);
    let found = catalog.scan_uploads(None, 9).unwrap();
    assert_eq!(found.records, [upload(1)]);
    of(keys(&found.damaged), &["upload 0000000000", "upload 0123"]);
    let found = catalog.scan_tombstones(None, 9).unwrap();
    assert_eq!(found.records.len(), 1);
    of(keys(&found.damaged), &["tombstone /library/alpine@no tag"]);
    let page = catalog.hosted_repositories_now(None, 9).unwrap();
    assert_eq!(page.names, [scope(None).repository]);
    ask(&catalog, |catalog| async move {
        let page = catalog.hosted_tags(&scope(None).repository, None, 9).await.unwrap();
        assert_eq!(page.unwrap().names, [Tag::parse("tag").unwrap()]);
    });
    stop(&catalog, thread);
}

#[test]
fn an_upload_id_is_its_text() {
    let ids: Vec<UploadId> = (0..100).map(|_| UploadId::random().unwrap()).collect();
    for id in &ids {
        assert_eq!(UploadId::parse(&id.to_string()), Some(*id));
    }
    assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), ids.len());
    let text = "00ff00000000000000000000000000a1";
    assert_eq!(UploadId::parse(text).unwrap().to_string(), text);
    for wrong in ["", "0f", &text.to_uppercase(), &format!("+{}", &text[1..]), &text[1..]] {
        assert_eq!(UploadId::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn pages_of_hosted_names_are_read_by_their_keys() {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, thread, _, _) = start(&folder.path().join("catalog.redb"));
    let of = |name: &str| Scope { repository: RepositoryName::parse(name).unwrap(), ..scope(None) };
    let texts = |page: Page<RepositoryName>| {
        let names: Vec<String> = page.names.iter().map(ToString::to_string).collect();
        (names.join(" "), page.has_more)
    };
    let repositories = |after: Option<&str>, max| {
        texts(catalog.hosted_repositories_now(after.map(str::to_owned), max).unwrap())
    };
    assert_eq!(repositories(None, 9), (String::new(), false));
    let mut writes = vec![Write::PutLink(link()), Write::PutTag(tag(Some("ghcr.io"), 1))];
    for name in ["b/app", "a", "b", "b/app-2", "a/b/c"] {
        for n in 0..300 {
            let link = LinkRecord { scope: of(name), digest: numbered(n), ..hosted_link() };
            writes.push(Write::PutLink(link));
        }
    }
    let tagged = |name: &str, text: &str| {
        Write::PutTag(TagRecord { scope: of(name), tag: Tag::parse(text).unwrap(), ..tag(None, 1) })
    };
    // Not as a dictionary would have them.
    writes.extend(["v1", "V2", "_x", "v10", "0", "v1.0"].map(|text| tagged("b", text)));
    writes.extend([tagged("a", "first"), tagged("b/app", "last")]);
    put(&catalog, writes);
    let all = "a a/b/c b b/app b/app-2";
    assert_eq!(repositories(None, 9), (all.into(), false));
    assert_eq!(repositories(None, 5), (all.into(), false));
    assert_eq!(repositories(None, 2), ("a a/b/c".into(), true));
    assert_eq!(repositories(Some("a/b/c"), 2), ("b b/app".into(), true));
    assert_eq!(repositories(Some("a/zzz"), 3), ("b b/app b/app-2".into(), false));
    assert_eq!(repositories(Some("b/app-2"), 3), (String::new(), false));
    assert_eq!(repositories(Some("~~"), 3), (String::new(), false));
    assert_eq!(repositories(None, 0), (String::new(), false));
    ask(&catalog, move |catalog| async move {
        let pages = [
            ("b", None, 9, Some("0 V2 _x v1 v1.0 v10"), false),
            ("b", None, 6, Some("0 V2 _x v1 v1.0 v10"), false),
            ("b", None, 2, Some("0 V2"), true),
            ("b", Some("V2"), 3, Some("_x v1 v1.0"), true),
            ("b", Some("V9"), 9, Some("_x v1 v1.0 v10"), false),
            ("b", Some("zz"), 9, Some(""), false),
            ("b", Some("\u{7f}\u{7f}"), 9, Some(""), false),
            ("b", None, 0, Some(""), false),
            ("a/b/c", None, 9, Some(""), false),
            ("b/ap", None, 9, None, false),
            ("library/alpine", None, 9, None, false),
        ];
        for (name, after, max, expected, has_more) in pages {
            let after = after.map(str::to_owned);
            let page = catalog.hosted_tags(&of(name).repository, after, max).await.unwrap();
            let found = page.as_ref().map(|page| {
                let names: Vec<&str> = page.names.iter().map(Tag::as_str).collect();
                names.join(" ")
            });
            assert_eq!(found.as_deref(), expected, "{name} {max}");
            assert_eq!(page.is_some_and(|page| page.has_more), has_more, "{name} {max}");
        }
        // What has left the store is not here, linked or not.
        put(&catalog, vec![blob(true), Write::PutLink(hosted_link())]);
        let asked = vec![digest(), numbered(1), numbered(1_000)];
        let held = catalog.find_holdings(&scope(None), asked).await.unwrap();
        let held: Vec<bool> = held.iter().map(|held| held.link.is_some()).collect();
        assert_eq!(held, [true, false, false]);
    });
    stop(&catalog, thread);
}
