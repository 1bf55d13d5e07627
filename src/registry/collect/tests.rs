use std::fs;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::catalog::ListRecord;
use crate::registry::upkeep::tests::{Scratch, cached, hosted};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OLD: u64 = 1_000;

fn collect(scratch: &Scratch, dry_run: bool) -> GcReport {
    scratch.upkeep.collect(dry_run, &Progress::default()).unwrap()
}

fn link_at(
    scratch: &Scratch,
    scope: &Scope,
    digest: Digest,
    media_type: Option<&str>,
    linked_at: u64,
) {
    let media_type = media_type.map(str::to_owned);
    scratch.link(LinkRecord { scope: scope.clone(), digest, media_type, linked_at });
}

fn layer(scratch: &Scratch, scope: &Scope, text: &str) -> Digest {
    let digest = scratch.blob(text.as_bytes(), true);
    link_at(scratch, scope, digest, None, OLD);
    digest
}

fn descriptor(digest: Digest, media_type: &str) -> serde_json::Value {
    json!({"mediaType": media_type, "digest": digest.to_string(), "size": 1})
}

fn manifest(
    scratch: &Scratch,
    scope: &Scope,
    layers: &[Digest],
    subject: Option<Digest>,
) -> Digest {
    let config = layer(scratch, scope, &format!("{{\"config\":\"{layers:?}{subject:?}\"}}"));
    let blob = |digest: &Digest| descriptor(*digest, "application/octet-stream");
    let mut document = json!({
        "schemaVersion": 2, "mediaType": IMAGE,
        "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
        "layers": layers.iter().map(blob).collect::<Vec<_>>(),
    });
    if let Some(subject) = subject {
        document["subject"] = descriptor(subject, IMAGE);
    }
    let digest = scratch.blob(document.to_string().as_bytes(), true);
    link_at(scratch, scope, digest, Some(IMAGE), OLD);
    digest
}

fn index(scratch: &Scratch, scope: &Scope, manifests: &[Digest]) -> Digest {
    let manifests: Vec<_> = manifests.iter().map(|digest| descriptor(*digest, IMAGE)).collect();
    let document = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    let digest = scratch.blob(document.to_string().as_bytes(), true);
    link_at(scratch, scope, digest, Some(INDEX), OLD);
    digest
}

fn is_linked(scratch: &Scratch, scope: &Scope, digest: &Digest) -> bool {
    scratch.upkeep.catalog.link_now(scope, digest).unwrap().is_some()
}

#[test]
fn what_tags_lead_to_stays_and_the_rest_goes() {
    let scratch = Scratch::new();
    let (app, other) = (hosted("team/app"), hosted("team/app2"));
    let (kept, shared, gone) = (
        layer(&scratch, &app, "kept layer"),
        layer(&scratch, &app, "shared layer"),
        layer(&scratch, &app, "layer of nothing any more"),
    );
    let image = manifest(&scratch, &app, &[kept, shared], None);
    let tagged = index(&scratch, &app, &[image]);
    scratch.tag(&app, "latest", tagged);
    let signature_layer = layer(&scratch, &app, "signature");
    let signature = manifest(&scratch, &app, &[signature_layer], Some(image));
    let of_signature = manifest(&scratch, &app, &[], Some(signature));
    let untagged = manifest(&scratch, &app, &[gone, shared], None);
    let of_untagged = manifest(&scratch, &app, &[], Some(untagged));
    // The same layer in another repository: the link goes there, the content stays.
    link_at(&scratch, &other, shared, None, OLD);
    // A tag of another repository keeps nothing here.
    scratch.tag(&other, "latest", untagged);

    let dry = collect(&scratch, true);
    assert!(scratch.has_file(&gone) && is_linked(&scratch, &app, &gone), "only counted");
    let report = collect(&scratch, false);
    assert_eq!(GcReport { dry_run: true, ..report.clone() }, dry, "the same is told");
    assert!(report.is_well(), "{report:?}");
    for digest in [kept, shared, image, tagged, signature_layer, signature, of_signature] {
        assert!(is_linked(&scratch, &app, &digest) && scratch.has_name(&digest), "{digest}");
        assert!(scratch.has_file(&digest), "{digest}");
    }
    assert!(!is_linked(&scratch, &other, &shared));
    for digest in [gone, untagged, of_untagged] {
        assert!(!is_linked(&scratch, &app, &digest), "{digest}");
        assert!(!scratch.has_name(&digest) && !scratch.has_file(&digest), "{digest}");
    }
    // Three of the above, the two configurations, and the link of the other repository.
    assert_eq!((report.unreachable_links.count, report.unreachable_blobs.count), (6, 5));
    let again = collect(&scratch, false);
    assert_eq!(again, GcReport::default(), "nothing is left to free");
}

#[test]
fn uploads_in_progress_are_kept() {
    let scratch = Scratch::new();
    let app = hosted("app");
    let now = clock::unix_seconds();
    let content = scratch.blob(b"just uploaded", true);
    link_at(&scratch, &app, content, None, now - GRACE_SECONDS + 60);
    let unlinked = scratch.blob(b"not linked yet", true);
    let old = layer(&scratch, &app, "old layer of a new manifest");
    let image = manifest(&scratch, &app, &[old], None);
    link_at(&scratch, &app, image, Some(IMAGE), now);
    assert_eq!(collect(&scratch, false), GcReport::default());
    // Two days on, nothing of it has got a tag.
    let later = now + 2 * GRACE_SECONDS;
    let report = scratch.upkeep.collect_at(later, false, &Progress::default()).unwrap();
    assert_eq!((report.unreachable_links.count, report.unreachable_blobs.count), (4, 5));
    assert!(!scratch.has_file(&unlinked) && !scratch.has_file(&old));
}

#[test]
fn what_a_push_links_after_the_mark_is_kept() {
    let scratch = Arc::new(Scratch::new());
    let app = hosted("app");
    let lower = layer(&scratch, &app, "layer");
    let image = manifest(&scratch, &app, &[lower], None);
    let doomed = manifest(&scratch, &app, &[], None);
    let pushing = pollster::block_on(scratch.upkeep.gate.pushing());
    let collecting = scratch.clone();
    let thread = std::thread::spawn(move || collect(&collecting, false));
    // It has marked, or will; it cannot sweep. The push finds the image there and uses it.
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(!thread.is_finished(), "it waits for the push");
    let list = index(&scratch, &app, &[image]);
    link_at(&scratch, &app, list, Some(INDEX), clock::unix_seconds());
    link_at(&scratch, &app, image, Some(IMAGE), clock::unix_seconds());
    scratch.tag(&app, "new", list);
    drop(pushing);
    let report = thread.join().unwrap();
    assert_eq!(report.unreachable_links.count, 2, "{report:?}");
    for digest in [lower, image, list] {
        assert!(is_linked(&scratch, &app, &digest) && scratch.has_file(&digest), "{digest}");
    }
    assert!(!scratch.has_file(&doomed));
}

#[test]
fn content_that_an_upstream_links_too_is_handed_to_the_cache() {
    let scratch = Scratch::new();
    let shared = layer(&scratch, &hosted("app"), "base layer");
    link_at(&scratch, &cached("library/base"), shared, None, OLD);
    let report = collect(&scratch, false);
    assert_eq!((report.handed_to_cache.count, report.unreachable_blobs.count), (1, 0));
    let record = scratch.upkeep.catalog.blob_now(&shared).unwrap().unwrap();
    assert!(!record.is_hosted && scratch.has_file(&shared));
}

#[test]
fn a_manifest_that_cannot_be_read_keeps_its_repository_whole() {
    let damages: [fn(&std::path::Path); 3] = [
        |path| fs::remove_file(path).unwrap(),
        |path| fs::write(path, b"{}").unwrap(),
        |path| fs::write(path, b"").unwrap(),
    ];
    for damage in damages {
        let scratch = Scratch::new();
        let (app, other) = (hosted("app"), hosted("other"));
        let lower = layer(&scratch, &app, "layer");
        let image = manifest(&scratch, &app, &[lower], None);
        scratch.tag(&app, "latest", image);
        let unused = layer(&scratch, &app, "unused");
        let elsewhere = layer(&scratch, &other, "unused, too");
        damage(&scratch.path(&image));
        let report = collect(&scratch, false);
        assert!(!report.is_well() && report.problems.told[0].contains("kept whole"), "{report:?}");
        assert!(scratch.has_file(&lower) && scratch.has_file(&unused));
        assert!(is_linked(&scratch, &app, &image), "a push can make it whole again");
        assert!(!scratch.has_file(&elsewhere), "other repositories are collected");
    }
}

#[test]
fn what_was_left_behind_goes() {
    let scratch = Scratch::new();
    let app = cached("library/app");
    let stored = scratch.blob(b"stored", false);
    link_at(&scratch, &app, stored, None, OLD);
    let evicted = Digest::of(crate::oci::Algorithm::Sha256, b"evicted");
    link_at(&scratch, &app, evicted, None, OLD);
    let fresh = Digest::of(crate::oci::Algorithm::Sha256, b"evicted a moment ago");
    link_at(&scratch, &app, fresh, None, clock::unix_seconds());
    let orphan = scratch.file(b"orphan");
    let quarantine = scratch.folder.path().join("quarantine");
    fs::create_dir(&quarantine).unwrap();
    let now = clock::unix_seconds();
    let name = |age: u64| quarantine.join(format!("{:x}-0-name", now - age));
    fs::write(name(QUARANTINE_SECONDS + 60), b"old").unwrap();
    fs::create_dir(name(QUARANTINE_SECONDS + 61)).unwrap();
    fs::write(name(QUARANTINE_SECONDS - 60), b"newer").unwrap();
    fs::write(quarantine.join("notes"), b"not ours").unwrap();

    let dry = collect(&scratch, true);
    assert!(scratch.has_file(&orphan) && scratch.quarantined() == 4);
    let report = collect(&scratch, false);
    assert_eq!(GcReport { dry_run: true, ..report.clone() }, dry);
    assert_eq!(report.dangling_links.count, 1);
    assert_eq!(report.orphans, Freed { count: 1, bytes: 6 });
    assert_eq!(report.quarantined, Freed { count: 2, bytes: 3 });
    assert_eq!(report.freed_bytes(), 9);
    assert!(is_linked(&scratch, &app, &stored) && is_linked(&scratch, &app, &fresh));
    assert!(!is_linked(&scratch, &app, &evicted));
    assert!(!scratch.has_file(&orphan) && scratch.has_file(&stored));
    assert_eq!(scratch.quarantined(), 2);
}

#[test]
fn cached_content_is_not_collected_and_a_lost_catalog_loses_no_file() {
    let scratch = Scratch::new();
    let stored = scratch.file(b"content");
    let report = collect(&scratch, false);
    assert!(!report.is_well() && scratch.has_file(&stored), "{report:?}");
    scratch.blob(b"content", false);
    let far = clock::unix_seconds() + 10 * GRACE_SECONDS;
    let report = scratch.upkeep.collect_at(far, false, &Progress::default()).unwrap();
    assert_eq!(report, GcReport::default());
    assert!(scratch.has_file(&stored));
}

#[test]
fn lists_that_nobody_has_confirmed_for_long_go() {
    let scratch = Scratch::new();
    let scope = cached("library/alpine");
    let now = clock::unix_seconds();
    let list = |name: &str, age: u64| ListRecord {
        scope: scope.clone(),
        name: name.to_owned(),
        checked_at: now - age,
        etag: None,
        next: None,
        body: "{}".into(),
    };
    let lists = [list("old", LIST_SECONDS_MAX + 60), list("young", LIST_SECONDS_MAX - 60)];
    let writes = lists.into_iter().map(Write::PutList).collect();
    scratch.upkeep.catalog.write_blocking(writes, false).unwrap();
    let is_kept = |name: &str| scratch.upkeep.catalog.list_now(&scope, name).unwrap().is_some();
    collect(&scratch, true);
    assert!(is_kept("old"), "only looked at");
    collect(&scratch, false);
    assert!(!is_kept("old") && is_kept("young"));
}

#[test]
fn a_file_without_a_name_goes_after_a_day_although_this_process_made_it() {
    let mut scratch = Scratch::new();
    scratch.blob(b"content", false);
    scratch.upkeep.since = std::time::SystemTime::UNIX_EPOCH;
    let left = scratch.file(b"left behind");
    let at = |hours: u64| {
        let began = clock::unix_seconds() + hours * 3600;
        scratch.upkeep.collect_at(began, false, &Progress::default()).unwrap().orphans.count
    };
    assert_eq!(
        (at(0), at(23), scratch.has_file(&left)),
        (0, 0, true),
        "it may be about to get one"
    );
    assert_eq!((at(25), scratch.has_file(&left)), (1, false));
}

#[test]
fn cached_names_without_content_are_pruned_after_their_grace() {
    let scratch = Scratch::new();
    let (app, ours) = (cached("library/app"), hosted("app"));
    let now = clock::unix_seconds();
    let stored = scratch.blob(b"stored", false);
    let gone = |text: &str| Digest::of(crate::oci::Algorithm::Sha256, text.as_bytes());
    let (old, fresh, lost) = (gone("evicted"), gone("evicted just now"), gone("lost"));
    for (scope, digest, linked_at) in
        [(&app, stored, OLD), (&app, old, OLD), (&app, fresh, now), (&ours, lost, OLD)]
    {
        link_at(&scratch, scope, digest, Some(IMAGE), linked_at);
    }
    let tag = |scope: &Scope, name: &str, digest: Digest, checked_at: u64| {
        let tag = crate::oci::Tag::parse(name).unwrap();
        let record = crate::catalog::TagRecord { scope: scope.clone(), tag, digest, checked_at };
        scratch.write(vec![Write::PutTag(record)]);
    };
    tag(&app, "stored", stored, OLD);
    tag(&app, "old", old, OLD);
    tag(&app, "fresh", old, now);
    tag(&ours, "ours", lost, OLD);
    let prune = |dry_run| scratch.upkeep.prune(now, dry_run, || true).unwrap();
    assert_eq!(prune(true), Pruned { links: 1, tags: 1 });
    assert_eq!(prune(false), Pruned { links: 1, tags: 1 });
    assert_eq!(prune(false), Pruned::default());
    for (scope, digest, is_kept) in
        [(&app, stored, true), (&app, old, false), (&app, fresh, true), (&ours, lost, true)]
    {
        assert_eq!(is_linked(&scratch, scope, &digest), is_kept, "{digest}");
    }
    for (scope, name, is_kept) in
        [(&app, "stored", true), (&app, "old", false), (&app, "fresh", true), (&ours, "ours", true)]
    {
        let tag = crate::oci::Tag::parse(name).unwrap();
        let found = scratch.upkeep.catalog.tag_now(scope, &tag).unwrap();
        assert_eq!(found.is_some(), is_kept, "{name}");
    }
}

#[test]
fn a_referrer_that_goes_is_listed_no_more() {
    let scratch = Scratch::new();
    let app = hosted("app");
    let image = manifest(&scratch, &app, &[], None);
    let signature = manifest(&scratch, &app, &[], Some(image));
    let record = ReferrerRecord::key(app.clone(), image, signature);
    let record = ReferrerRecord { media_type: IMAGE.to_owned(), ..record };
    scratch.write(vec![Write::PutReferrer(record)]);
    let listed = || scratch.upkeep.catalog.referrers_now(&app, &image, None, 9).unwrap().records;
    scratch.tag(&app, "latest", image);
    collect(&scratch, false);
    assert_eq!(listed().len(), 1);
    let tag = crate::oci::Tag::parse("latest").unwrap();
    let record = scratch.upkeep.catalog.tag_now(&app, &tag).unwrap().unwrap();
    scratch.write(vec![Write::RemoveTag(record)]);
    collect(&scratch, false);
    assert!(!is_linked(&scratch, &app, &signature));
    assert_eq!(listed(), []);
}

#[test]
fn a_repository_with_an_image_of_schema_1_is_kept_whole() {
    const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+json";
    let scratch = Scratch::new();
    let app = hosted("app");
    let lower = layer(&scratch, &app, "layer");
    let document = json!({"schemaVersion": 1, "fsLayers": [{"blobSum": lower.to_string()}]});
    let image = scratch.blob(document.to_string().as_bytes(), true);
    link_at(&scratch, &app, image, Some(SCHEMA_1), OLD);
    scratch.tag(&app, "ancient", image);
    let report = collect(&scratch, false);
    assert!(report.problems.told[0].contains("schema 1"), "{report:?}");
    assert!(scratch.has_file(&lower) && is_linked(&scratch, &app, &lower));
}

#[test]
fn a_link_that_dangles_is_not_taken_from_a_push() {
    let scratch = Arc::new(Scratch::new());
    let app = hosted("app");
    let kept = layer(&scratch, &app, "kept");
    let image = manifest(&scratch, &app, &[kept], None);
    scratch.tag(&app, "latest", image);
    let record = scratch.upkeep.catalog.blob_now(&kept).unwrap().unwrap();
    scratch.write(vec![Write::RemoveBlob(record.at())]);
    fs::remove_file(scratch.path(&kept)).unwrap();
    let pushing = pollster::block_on(scratch.upkeep.gate.pushing());
    let collecting = scratch.clone();
    let thread = std::thread::spawn(move || collect(&collecting, false));
    // It has found the link, or will; it cannot remove it.
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(!thread.is_finished(), "it waits for the push");
    scratch.blob(b"kept", true);
    link_at(&scratch, &app, kept, None, clock::unix_seconds());
    drop(pushing);
    thread.join().unwrap();
    assert!(is_linked(&scratch, &app, &kept) && scratch.has_file(&kept));
}

#[test]
fn what_is_just_being_committed_is_left_to_the_next_run() {
    let scratch = Scratch::new();
    scratch.blob(b"content", false);
    let (unlinked, orphan) = (layer(&scratch, &hosted("app"), "layer"), scratch.file(b"orphan"));
    let mut turns = scratch.upkeep.store.turns();
    assert!(turns.try_take(&unlinked) && turns.try_take(&orphan));
    collect(&scratch, false);
    assert!(scratch.has_file(&unlinked) && scratch.has_file(&orphan));
    drop(turns);
    // Its link has gone, so that a day has to pass.
    let later = clock::unix_seconds() + 2 * GRACE_SECONDS;
    scratch.upkeep.collect_at(later, false, &Progress::default()).unwrap();
    assert!(!scratch.has_file(&unlinked) && !scratch.has_file(&orphan));
}

mod retention {
    use super::*;
    use crate::catalog::TagRecord;
    use crate::config::Config;
    use crate::oci::Tag;

    const NOW: u64 = 1_000_000_000;

    fn config(rule: &str) -> Config {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!("[[hosted]]\nrepositories = [\"app\"]\n{rule}\n");
        fs::write(file.path(), text).unwrap();
        Config::load(file.path()).unwrap()
    }

    /// Tags as `name@age`, of which `expected` are over.
    fn expect(rule: &str, tags: &[(&str, u64)], expected: &[&str]) {
        let rule = config(rule).hosted.remove(0);
        let record = |(text, age): &(&str, u64)| TagRecord {
            scope: hosted("app"),
            tag: Tag::parse(text).unwrap(),
            digest: Digest::of(crate::oci::Algorithm::Sha256, b""),
            checked_at: NOW - age,
        };
        let tags: Vec<TagRecord> = tags.iter().map(record).collect();
        let over = retention::expired(&rule, &tags, NOW);
        let over: Vec<&str> = over.iter().map(|tag| tag.tag.as_str()).collect();
        assert_eq!(over, expected, "{rule:?}");
    }

    use super::super::retention;

    #[test]
    fn the_newest_and_the_young_are_kept() {
        let tags = [("b", 50), ("a", 10), ("d", 7_000), ("c", 50), ("e", 7_200)];
        expect("", &tags, &[]);
        expect("immutable_tags = [\"*\"]", &tags, &[]);
        expect("keep_last = 9", &tags, &[]);
        // Of the same second the later name is newer.
        expect("keep_last = 2", &tags, &["b", "d", "e"]);
        expect("keep_last = 3", &tags, &["d", "e"]);
        expect("keep_newer = \"2h\"", &tags, &["e"]);
        expect("keep_newer = \"60s\"", &tags, &["d", "e"]);
        expect("keep_last = 4\nkeep_newer = \"60s\"", &tags, &["e"]);
        expect("keep_last = 1\nkeep_newer = \"60s\"", &tags, &["d", "e"]);
        // What stays counts for nothing.
        expect("keep_last = 1\nimmutable_tags = [\"a\", \"e\"]", &tags, &["b", "d"]);
    }

    #[test]
    fn tags_go_with_what_only_they_led_to() {
        let scratch = Scratch::new();
        scratch.upkeep.rules.replace(&config("keep_last = 1\nimmutable_tags = [\"stable*\"]"));
        let (app, other) = (hosted("app"), hosted("other"));
        let image = |text: &str| {
            let layer = layer(&scratch, &app, text);
            (layer, manifest(&scratch, &app, &[layer], None))
        };
        let (images, names) = ([image("one"), image("two"), image("three")], ["v1", "v2", "v3"]);
        let at = |tag: &str, digest: Digest, checked_at: u64| {
            let tag = Tag::parse(tag).unwrap();
            Write::PutTag(TagRecord { scope: app.clone(), tag, digest, checked_at })
        };
        for (n, ((_, image), name)) in images.iter().zip(names).enumerate() {
            scratch.write(vec![at(name, *image, OLD + n as u64)]);
        }
        scratch.write(vec![at("stable-1", images[1].1, OLD)]);
        // The rule is not for this one.
        let elsewhere = manifest(&scratch, &other, &[], None);
        scratch.tag(&other, "v1", elsewhere);
        scratch.tag(&other, "v2", elsewhere);
        let dry = collect(&scratch, true);
        assert_eq!(dry.expired, ["app:v2", "app:v1"]);
        let kept = |name: &str| {
            let tag = Tag::parse(name).unwrap();
            scratch.upkeep.catalog.tag_now(&app, &tag).unwrap().is_some()
        };
        assert!(kept("v1") && kept("v2"), "only told");
        let report = collect(&scratch, false);
        assert_eq!(GcReport { dry_run: true, ..report.clone() }, dry, "the same is told");
        assert_eq!(report.expired_tags.count, 2);
        assert_eq!(
            [kept("v1"), kept("v2"), kept("v3"), kept("stable-1")],
            [false, false, true, true]
        );
        let [first, second, third] = images;
        assert!(!scratch.has_file(&first.0) && !scratch.has_file(&first.1), "nothing leads there");
        for digest in [second.0, second.1, third.0, third.1, elsewhere] {
            assert!(scratch.has_file(&digest), "{digest}");
        }
        assert_eq!(collect(&scratch, false), GcReport::default());
    }

    #[test]
    fn the_background_removes_tags_and_nothing_else() {
        let scratch = Scratch::new();
        scratch.upkeep.rules.replace(&config("keep_newer = \"1h\""));
        let app = hosted("app");
        let old = manifest(&scratch, &app, &[], None);
        scratch.tag(&app, "old", old);
        let now = clock::unix_seconds();
        let tag = Tag::parse("new").unwrap();
        let new = TagRecord { scope: app.clone(), tag, digest: old, checked_at: now };
        scratch.write(vec![Write::PutTag(new.clone())]);
        assert_eq!(scratch.upkeep.expire_tags(now, || false).unwrap(), 0, "it was told to stop");
        assert_eq!(scratch.upkeep.expire_tags(now, || true).unwrap(), 1);
        let left = scratch.upkeep.catalog.scan_tags_of(&app, None, 9).unwrap().records;
        assert_eq!(left, [new]);
        assert!(is_linked(&scratch, &app, &old) && scratch.has_file(&old));
    }
}
