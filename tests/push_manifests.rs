//! Manifests of hosted repositories: put by tag and by digest, found at once by everybody and after
//! a kill, listed, referred to, deleted, and refused when they are none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use support::http::{Answer, Connection, send_body};
use support::images::{DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST};
use support::images::{sha256, sha512};
use support::process::run;
use support::secs;
use support::server::{Server, Setup};

const LOOSE: &str = "[[hosted]]\nrepositories = [\"loose/*\"]\npush = [\"anonymous\"]\n\
    delete = [\"anonymous\"]\nmissing_references = \"allowed\"\n";
const INDEXES: &str = "[[hosted]]\nrepositories = [\"indexes/*\"]\npush = [\"anonymous\"]\n\
    missing_references = \"in_indexes\"\n";
const OPEN: &str = "[[hosted]]\nrepositories = [\"*\"]\npush = [\"anonymous\"]\n\
    delete = [\"anonymous\"]\n";

fn start(what: &str) -> Server {
    let auth = "[auth]\ncatalog = [\"anonymous\"]\n";
    Setup::new(what).more(auth).more(LOOSE).more(INDEXES).more(OPEN).start()
}

/// An index of its own for each number.
fn index(n: u64) -> Vec<u8> {
    let annotations = json!({"n": n.to_string()});
    let document = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [],
        "annotations": annotations});
    document.to_string().into_bytes()
}

fn descriptor(media_type: &str, digest: &str) -> Value {
    json!({"mediaType": media_type, "digest": digest, "size": 5})
}

fn referrer(subject: &str, n: u64, artifact_type: Option<&str>) -> Vec<u8> {
    let mut document: Value = serde_json::from_slice(&index(n)).unwrap();
    document["subject"] = descriptor(OCI_INDEX, subject);
    if let Some(artifact_type) = artifact_type {
        document["artifactType"] = json!(artifact_type);
    }
    document.to_string().into_bytes()
}

fn put(server: &Server, target: &str, bytes: &[u8]) -> Answer {
    send_body(server.addr, "PUT", &format!("/v2/{target}"), OCI_INDEX, bytes)
}

#[track_caller]
fn stored(server: &Server, target: &str, bytes: &[u8]) -> Answer {
    let answer = put(server, target, bytes);
    assert_eq!(answer.status(), 201, "{target}: {}", answer.text());
    answer
}

fn delete(server: &Server, target: &str) -> u16 {
    server.connect().exchange("DELETE", &format!("/v2/{target}"), &[]).status()
}

#[track_caller]
fn expect(server: &Server, target: &str, bytes: &[u8], digest: &str) {
    let target = format!("/v2/{target}");
    let (whole, head) = (server.get(&target), server.head(&target));
    assert_eq!(whole.status(), 200, "{target}: {}", whole.text());
    assert_eq!(whole.body, bytes, "{target}");
    for answer in [whole, head] {
        assert_eq!(answer.status(), 200, "{target}");
        assert_eq!(answer.header("content-type"), OCI_INDEX);
        assert_eq!(answer.header("content-length"), bytes.len().to_string());
        assert_eq!(answer.header("docker-content-digest"), digest);
        assert_eq!(answer.header("etag"), format!("\"{digest}\""));
        assert_eq!((answer.header("cache-status"), answer.header("age")), ("", ""), "it is ours");
    }
}

fn tags(server: &Server, repository: &str) -> Vec<String> {
    let answer = server.get(&format!("/v2/{repository}/tags/list"));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    let json = answer.json();
    assert_eq!(json["name"], repository);
    json["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_was_put_is_found_by_tag_and_digest_at_once_and_after_a_kill() {
    let mut server = start("push-manifests");
    let (one, two, three) = (index(1), index(2), index(3));
    let answer = stored(&server, "team/app/manifests/v1", &one);
    let digest = sha256(&one);
    assert_eq!(answer.header("location"), format!("/v2/team/app/manifests/{digest}"));
    assert_eq!(answer.header("docker-content-digest"), digest);
    assert_eq!((answer.header("oci-subject"), answer.header("oci-tag")), ("", ""));
    let long = sha512(&two);
    let query = format!("team/app/manifests/{long}?tag=a&tag=v%31.0&tag=a&x=y");
    let answer = stored(&server, &query, &two);
    assert_eq!(answer.header("location"), format!("/v2/team/app/manifests/{long}"));
    assert_eq!(answer.header("docker-content-digest"), long);
    assert_eq!(answer.header("oci-tag"), "a, v1.0");
    // In chunks, as some clients send it, and without a word about its type.
    let mut connection = server.connect();
    let chunked = [("Transfer-Encoding", "chunked")];
    connection.request("PUT", "/v2/team/app/manifests/untyped", &chunked);
    connection.send(format!(
        "{:x}\r\n{}\r\n0\r\n\r\n",
        three.len(),
        String::from_utf8_lossy(&three)
    ));
    assert_eq!(connection.read_answer("PUT").unwrap().status(), 201);
    // The same tag to something else, and back under the other tag.
    stored(&server, "team/app/manifests/a", &three);
    let parameters = format!("{OCI_INDEX}; charset=utf-8");
    let again = send_body(server.addr, "PUT", "/v2/team/app/manifests/v1", &parameters, &one);
    assert_eq!(again.status(), 201, "{}", again.text());
    for phase in ["at once", "after a kill"] {
        // Over several connections, so that each worker is asked.
        for _ in 0..4 {
            expect(&server, "team/app/manifests/v1", &one, &digest);
            expect(&server, &format!("team/app/manifests/{digest}"), &one, &digest);
            expect(&server, "team/app/manifests/v1.0", &two, &long);
            expect(&server, &format!("team/app/manifests/{long}"), &two, &long);
            expect(&server, "team/app/manifests/a", &three, &sha256(&three));
            expect(&server, "team/app/manifests/untyped", &three, &sha256(&three));
        }
        assert_eq!(tags(&server, "team/app"), ["a", "untyped", "v1", "v1.0"], "{phase}");
        // Of no other repository, and not by another digest of the same bytes.
        for target in [
            format!("team/other/manifests/{digest}"),
            format!("team/app/manifests/{}", sha256(&two)),
            "team/app/manifests/v2".to_owned(),
        ] {
            let answer = server.get(&format!("/v2/{target}"));
            assert_eq!((answer.status(), answer.error_code().as_str()), (404, "MANIFEST_UNKNOWN"));
        }
        server.kill();
        server.start_again();
    }
    server.assert_store_is_right();
}

#[test]
fn what_is_no_manifest_is_refused_and_nothing_is_kept() {
    let server = start("push-refused");
    let good = index(1);
    let missing = sha256(b"nobody has pushed this");
    let image = |config: &str, layer: Value| {
        let layers = if layer.is_null() { json!([]) } else { json!([layer]) };
        json!({"schemaVersion": 2, "config": descriptor(OCI_CONFIG, config), "layers": layers})
            .to_string()
            .into_bytes()
    };
    let both = json!({"schemaVersion": 2, "manifests": [], "layers": [], "config": {}}).to_string();
    let of = |child: &str| {
        json!({"schemaVersion": 2, "manifests": [descriptor(OCI_MANIFEST, child)]}).to_string()
    };
    let schema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let old = r#"{"schemaVersion":1,"fsLayers":[]}"#.as_bytes().to_vec();
    let huge = vec![b' '; (4 << 20) + 1];
    let tags: Vec<String> = (0..33).map(|n| format!("tag=t{n}")).collect();
    let digest = sha256(&good);
    let by_digest = format!("manifests/{digest}");
    let twins = [
        (format!("manifests/{missing}"), OCI_INDEX, good.clone(), 400, "DIGEST_INVALID"),
        (format!("manifests/{}", sha512(b"x")), OCI_INDEX, good.clone(), 400, "DIGEST_INVALID"),
        ("manifests/sha256:short".into(), OCI_INDEX, good.clone(), 400, "DIGEST_INVALID"),
        ("manifests/.hidden".into(), OCI_INDEX, good.clone(), 400, "MANIFEST_INVALID"),
        ("manifests/v1?tag=v2".into(), OCI_INDEX, good.clone(), 400, "UNSUPPORTED"),
        (format!("{by_digest}?tag=.x"), OCI_INDEX, good.clone(), 400, "MANIFEST_INVALID"),
        (format!("{by_digest}?{}", tags.join("&")), OCI_INDEX, good.clone(), 414, "UNSUPPORTED"),
        ("manifests/v1".into(), OCI_MANIFEST, good.clone(), 400, "MANIFEST_INVALID"),
        ("manifests/v1".into(), "text/html", good.clone(), 400, "MANIFEST_INVALID"),
        ("manifests/v1".into(), OCI_INDEX, both.into_bytes(), 400, "MANIFEST_INVALID"),
        ("manifests/v1".into(), OCI_INDEX, b"<html>".to_vec(), 400, "MANIFEST_INVALID"),
        ("manifests/v1".into(), OCI_INDEX, Vec::new(), 400, "MANIFEST_INVALID"),
        ("manifests/v1".into(), schema1, old, 400, "MANIFEST_INVALID"),
        ("manifests/v1".into(), OCI_INDEX, huge, 413, "SIZE_INVALID"),
        ("manifests/v1".into(), OCI_INDEX, of(&missing).into(), 400, "MANIFEST_BLOB_UNKNOWN"),
        (
            "manifests/v1".into(),
            OCI_MANIFEST,
            image(&missing, json!(null)),
            400,
            "MANIFEST_BLOB_UNKNOWN",
        ),
    ];
    for (target, media_type, bytes, status, code) in twins {
        let target = format!("/v2/team/app/{target}");
        let answer = send_body(server.addr, "PUT", &target, media_type, &bytes);
        let got = (answer.status(), answer.error_code());
        assert_eq!(got, (status, code.to_owned()), "{target}: {}", answer.text());
        if code == "MANIFEST_BLOB_UNKNOWN" {
            assert!(answer.text().contains(&missing), "{}", answer.text());
        }
    }
    assert_eq!(server.get("/v2/team/app/tags/list").error_code(), "NAME_UNKNOWN");
    assert!(server.blobs().is_empty(), "{:?}", server.blobs());
    assert_eq!(server.get("/v2/_catalog").json(), json!({"repositories": []}));
    // The same where the rule of the repository lets it.
    let elsewhere = descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar", &missing);
    let mut by_url = descriptor(OCI_LAYER, &missing);
    by_url["urls"] = json!(["https://layers.example/1"]);
    stored(&server, "team/app/manifests/child", &good);
    for (repository, media_type, bytes, status) in [
        ("indexes/app", OCI_INDEX, of(&missing).into_bytes(), 201),
        ("indexes/app", OCI_MANIFEST, image(&missing, json!(null)), 400),
        ("loose/app", OCI_MANIFEST, image(&missing, json!(null)), 201),
        ("loose/app", DOCKER_MANIFEST, image(&missing, json!(null)), 201),
        // A child of another repository is none of this one.
        ("team/app", OCI_INDEX, of(&digest).into_bytes(), 201),
        ("team/app2", OCI_INDEX, of(&digest).into_bytes(), 400),
        // What is named here is here: the index stands in for a config.
        ("team/app", OCI_MANIFEST, image(&digest, elsewhere), 201),
        ("team/app", OCI_MANIFEST, image(&digest, by_url), 201),
        ("team/app", OCI_MANIFEST, image(&digest, descriptor(OCI_LAYER, &missing)), 400),
    ] {
        let target = format!("/v2/{repository}/manifests/v1");
        let answer = send_body(server.addr, "PUT", &target, media_type, &bytes);
        assert_eq!(answer.status(), status, "{repository} {media_type}: {}", answer.text());
    }
}

#[test]
fn a_delete_takes_what_it_names_and_leaves_the_rest() {
    let mut server = start("push-deletes");
    let (base, list) = (index(1), index(2));
    let (base_digest, list_digest) = (sha256(&base), sha256(&list));
    for tag in ["a", "b", "c"] {
        stored(&server, &format!("team/app/manifests/{tag}"), &base);
    }
    stored(&server, "team/app/manifests/other", &list);
    stored(&server, "team/twin/manifests/a", &base);
    let signature = referrer(&base_digest, 9, Some("application/vnd.example.signature"));
    let target = format!("team/app/manifests/{}", sha256(&signature));
    assert_eq!(stored(&server, &target, &signature).header("oci-subject"), base_digest);
    let parent = json!({"schemaVersion": 2, "manifests": [descriptor(OCI_INDEX, &base_digest)]});
    let parent = parent.to_string().into_bytes();
    stored(&server, "team/app/manifests/parent", &parent);
    for (target, status) in [
        ("team/app/manifests/nope", 404),
        ("team/app/manifests/.nope", 400),
        ("team/nope/manifests/a", 404),
        ("team/app/manifests/a", 202),
        ("team/app/manifests/a", 404),
    ] {
        assert_eq!(delete(&server, target), status, "{target}");
    }
    let by_digest = format!("team/app/manifests/{base_digest}");
    expect(&server, &by_digest, &base, &base_digest);
    assert_eq!(delete(&server, &format!("team/app/manifests/{}", sha256(b"none"))), 404);
    assert_eq!(delete(&server, &by_digest), 202);
    assert_eq!(delete(&server, &by_digest), 404);
    let listed = |server: &Server| {
        let answer = server.get(&format!("/v2/team/app/referrers/{base_digest}"));
        answer.json()["manifests"].as_array().unwrap().len()
    };
    for phase in ["at once", "after a kill"] {
        for gone in ["a", "b", "c", base_digest.as_str()] {
            let target = format!("/v2/team/app/manifests/{gone}");
            assert_eq!(server.get(&target).status(), 404, "{phase} {gone}");
            assert_eq!(server.head(&target).status(), 404, "{phase} {gone}");
        }
        assert_eq!(tags(&server, "team/app"), ["other", "parent"], "{phase}");
        expect(&server, "team/app/manifests/other", &list, &list_digest);
        expect(&server, "team/app/manifests/parent", &parent, &sha256(&parent));
        expect(&server, "team/twin/manifests/a", &base, &base_digest);
        assert_eq!(listed(&server), 1, "the signature waits for what it signs");
        server.kill();
        server.start_again();
    }
    assert_eq!(delete(&server, &target), 202);
    assert_eq!(listed(&server), 0);
    // What was deleted can be pushed again.
    stored(&server, "team/app/manifests/b", &base);
    expect(&server, "team/app/manifests/b", &base, &base_digest);
    stored(&server, &target, &signature);
    assert_eq!(listed(&server), 1);
}

#[test]
fn tags_and_repositories_are_listed_page_by_page() {
    let server = start("push-lists");
    let one = index(1);
    for tag in ["v1", "V2", "_x", "v10", "0", "v1.0"] {
        stored(&server, &format!("team/app/manifests/{tag}"), &one);
    }
    stored(&server, &format!("team/untagged/manifests/{}", sha256(&one)), &one);
    assert_eq!(tags(&server, "team/untagged"), [""; 0]);
    let all = ["0", "V2", "_x", "v1", "v1.0", "v10"];
    assert_eq!(tags(&server, "team/app"), all);
    let page = |target: &str, field: &str| {
        let answer = server.get(target);
        assert_eq!(answer.status(), 200, "{target}: {}", answer.text());
        let link = answer.header("link").to_owned();
        let names: Vec<String> = serde_json::from_value(answer.json()[field].clone()).unwrap();
        (names, link)
    };
    let list = "/v2/team/app/tags/list";
    for (query, expected, next) in [
        ("?n=0", &all[..0], ""),
        ("?n=2", &all[..2], "?n=2&last=V2"),
        ("?n=6", &all[..], ""),
        ("?n=5&last=0", &all[1..], ""),
        ("?n=3&last=V2", &all[2..5], "?n=3&last=v1.0"),
        ("?last=V3", &all[2..], ""),
        ("?last=zz", &all[..0], ""),
        ("?n=99999999999", &all[..], ""),
    ] {
        let (names, link) = page(&format!("{list}{query}"), "tags");
        assert_eq!(names, expected, "{query}");
        let expected =
            if next.is_empty() { "".into() } else { format!("<{list}{next}>; rel=\"next\"") };
        assert_eq!(link, expected, "{query}");
    }
    assert_eq!(server.get(&format!("{list}?n=-1")).status(), 400);
    for name in ["a", "a/b", "a-b", "zz/z"] {
        stored(&server, &format!("{name}/manifests/v1"), &one);
    }
    let names = ["a", "a-b", "a/b", "team/app", "team/untagged", "zz/z"];
    assert_eq!(
        page("/v2/_catalog", "repositories"),
        (names.map(str::to_owned).to_vec(), "".into())
    );
    let (mut found, mut target) = (Vec::new(), "/v2/_catalog?n=2".to_owned());
    for _ in 0..3 {
        let (names, link) = page(&target, "repositories");
        found.extend(names);
        let next = link.strip_prefix('<').and_then(|rest| rest.split_once('>'));
        target = next.map(|(target, _)| target.to_owned()).unwrap_or_default();
    }
    assert_eq!((found, target.as_str()), (names.map(str::to_owned).to_vec(), ""));
    // A repository without content is none.
    assert_eq!(delete(&server, &format!("zz/z/manifests/{}", sha256(&one))), 202);
    assert_eq!(page("/v2/_catalog?last=team/app", "repositories").0, ["team/untagged"]);
    assert_eq!(server.get("/v2/zz/z/tags/list").error_code(), "NAME_UNKNOWN");
}

#[test]
fn referrers_are_listed_by_type_and_in_pages_that_clients_can_read() {
    let server = start("push-referrers");
    let subject = sha256(b"a subject that nobody has pushed");
    let list = format!("/v2/team/app/referrers/{subject}");
    let empty = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []});
    let answer = server.get(&list);
    assert_eq!((answer.status(), answer.header("content-type")), (200, OCI_INDEX));
    assert_eq!(answer.json(), empty);
    let (sbom, signature) = ("application/vnd.example.sbom", "application/vnd.example.sig+json");
    let mut expected = BTreeSet::new();
    for n in 0..6 {
        let bytes = referrer(&subject, n, [Some(sbom), Some(signature), None][n as usize % 3]);
        // By tag or by digest, it is the same.
        let reference = if n % 2 == 0 { format!("t{n}") } else { sha256(&bytes) };
        let answer = stored(&server, &format!("team/app/manifests/{reference}"), &bytes);
        assert_eq!(answer.header("oci-subject"), subject);
        expected.insert(sha256(&bytes));
    }
    // An image without a type of its own is of that of its config.
    let config = index(77);
    stored(&server, "team/app/manifests/config", &config);
    let image = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [],
        "config": descriptor(sbom, &sha256(&config)), "subject": descriptor(OCI_INDEX, &subject)});
    let image = image.to_string();
    let put = "/v2/team/app/manifests/image";
    assert_eq!(send_body(server.addr, "PUT", put, OCI_MANIFEST, image.as_bytes()).status(), 201);
    expected.insert(sha256(image.as_bytes()));
    let page = |target: &str| {
        let answer = server.get(target);
        assert_eq!(answer.status(), 200, "{target}: {}", answer.text());
        let filters = answer.header("oci-filters-applied").to_owned();
        let next = answer.header("link").strip_prefix('<').and_then(|link| link.split_once('>'));
        let next = next.map(|(target, _)| target.to_owned());
        (answer.json()["manifests"].as_array().unwrap().clone(), filters, next)
    };
    let digests = |of: &[Value]| -> BTreeSet<String> {
        of.iter().map(|one| one["digest"].as_str().unwrap().to_owned()).collect()
    };
    let (all, filters, next) = page(&list);
    assert_eq!((digests(&all), filters.as_str(), next), (expected.clone(), "", None));
    for one in &all {
        if one["digest"] == sha256(image.as_bytes()) {
            assert_eq!(
                (&one["mediaType"], &one["artifactType"]),
                (&json!(OCI_MANIFEST), &json!(sbom))
            );
            assert_eq!(one.get("annotations"), None);
        } else {
            let n = one["annotations"]["n"].as_str().unwrap().parse::<usize>().unwrap();
            let artifact_type = [Some(json!(sbom)), Some(json!(signature)), None][n % 3].clone();
            assert_eq!(one.get("artifactType").cloned(), artifact_type);
            assert_eq!(one["size"].as_u64().unwrap() as usize, {
                let types = [Some(sbom), Some(signature), None];
                referrer(&subject, n as u64, types[n % 3]).len()
            });
        }
    }
    let (some, filters, _) =
        page(&format!("{list}?artifactType=application%2Fvnd.example.sig%2Bjson"));
    assert_eq!((some.len(), filters.as_str()), (2, "artifactType"));
    assert!(some.iter().all(|one| one["artifactType"] == signature));
    let (none, filters, _) = page(&format!("{list}?artifactType=no/such"));
    assert_eq!((none.len(), filters.as_str()), (0, "artifactType"));
    let (mut found, mut target, mut pages) =
        (Vec::new(), format!("{list}?n=1&artifactType={sbom}"), 0);
    loop {
        let (some, _, next) = page(&target);
        found.extend(some);
        pages += 1;
        let Some(next) = next.filter(|_| pages < 9) else { break };
        target = next;
    }
    assert_eq!((digests(&found).len(), found.len()), (3, 3), "in {pages} pages");
    assert_eq!(server.get("/v2/team/app/referrers/sha256:bad").status(), 400);
    // No page is larger than a client reads; what one record cannot hold is refused.
    let noted = |n: u64, bytes: usize| {
        let mut document: Value =
            serde_json::from_slice(&referrer(&subject, n, Some("a/b"))).unwrap();
        document["annotations"]["note"] = json!("\u{e9}".repeat(bytes / 2));
        document.to_string().into_bytes()
    };
    let large = put_referrer(&server, &noted(1_000, 70_000));
    assert_eq!((large.status(), large.error_code().as_str()), (400, "MANIFEST_INVALID"));
    for n in 0..80 {
        assert_eq!(put_referrer(&server, &noted(n, 60_000)).status(), 201);
    }
    let (mut found, mut target) = (BTreeSet::new(), list.clone());
    let mut sizes = Vec::new();
    loop {
        let answer = server.get(&target);
        sizes.push(answer.body.len());
        found.extend(digests(answer.json()["manifests"].as_array().unwrap()));
        let next = answer.header("link").strip_prefix('<').and_then(|link| link.split_once('>'));
        let Some((next, _)) = next.filter(|_| sizes.len() < 50) else { break };
        target = next.to_owned();
    }
    assert_eq!(found.len(), expected.len() + 80);
    assert!(sizes.len() > 1 && sizes.iter().all(|size| *size <= 4 << 20), "{sizes:?}");
}

fn put_referrer(server: &Server, bytes: &[u8]) -> Answer {
    put(server, &format!("team/app/manifests/{}", sha256(bytes)), bytes)
}

/// Pushes and deletes of the same manifests by many at once: whatever tag is left can be pulled.
#[test]
fn a_tag_never_leads_nowhere_whatever_is_pushed_and_deleted_at_once() {
    let server = start("push-races");
    let (manifests, pushing) = ([index(0), index(1)], AtomicUsize::new(4));
    std::thread::scope(|scope| {
        let (server, manifests, pushing) = (&server, &manifests, &pushing);
        for pusher in 0..4 {
            scope.spawn(move || {
                let mut connection = Connection::open(server.addr);
                for n in 0..60 {
                    let bytes = &manifests[n % 2];
                    let length = bytes.len().to_string();
                    let headers = [("Content-Type", OCI_INDEX), ("Content-Length", &*length)];
                    // Each its own, so that none is mended by the next push.
                    let target = format!("/v2/race/app/manifests/t{pusher}-{n}");
                    connection.request("PUT", &target, &headers);
                    connection.send(bytes);
                    let answer = connection.read_answer("PUT").unwrap();
                    assert_eq!(answer.status(), 201, "{}", answer.text());
                }
                pushing.fetch_sub(1, Ordering::Relaxed);
            });
        }
        for bytes in manifests {
            scope.spawn(move || {
                let target = format!("race/app/manifests/{}", sha256(bytes));
                while pushing.load(Ordering::Relaxed) > 0 {
                    let status = delete(server, &target);
                    assert!(matches!(status, 202 | 404 | 503), "{status}");
                }
            });
        }
    });
    let listed = server.get("/v2/race/app/tags/list");
    if listed.status() == 200 {
        for tag in tags(&server, "race/app") {
            let answer = server.get(&format!("/v2/race/app/manifests/{tag}"));
            assert_eq!(answer.status(), 200, "{tag} leads nowhere: {}", answer.text());
        }
    }
    // A fresh push is there, whatever was deleted before.
    stored(&server, "race/app/manifests/x", &index(0));
    expect(&server, "race/app/manifests/x", &index(0), &sha256(&index(0)));
    server.assert_store_is_right();
}

/// A blob in one request.
fn push_blob(server: &Server, repository: &str, bytes: &[u8]) -> Answer {
    let target = format!("/v2/{repository}/blobs/uploads/?digest={}", sha256(bytes));
    send_body(server.addr, "POST", &target, "application/octet-stream", bytes)
}

fn gc(server: &Server, words: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ringport"));
    command.args(["gc", "--config"]).arg(server.config()).args(words);
    run(command, secs(60)).expect_ok()
}

#[test]
fn the_rule_of_a_repository_bounds_its_tags_and_its_bytes() {
    let immutable = "[[hosted]]\nrepositories = [\"fixed/*\"]\npush = [\"anonymous\"]\n\
        delete = [\"anonymous\"]\nimmutable_tags = [\"v*\", \"stable\"]\n";
    let limited = "[[hosted]]\nrepositories = [\"small/*\"]\npush = [\"anonymous\"]\n\
        delete = [\"anonymous\"]\nmax_tags = 3\nmax_size = \"1MiB\"\n";
    let brief = "[[hosted]]\nrepositories = [\"brief/*\"]\npush = [\"anonymous\"]\n\
        immutable_tags = [\"v*\"]\nkeep_last = 2\n";
    let server =
        Setup::new("push-policy").more(immutable).more(limited).more(brief).more(OPEN).start();
    let (one, two) = (index(1), index(2));
    let refused = |answer: Answer, words: &[&str]| {
        assert_eq!((answer.status(), answer.error_code().as_str()), (403, "DENIED"));
        assert!(words.iter().all(|word| answer.text().contains(word)), "{}", answer.text());
    };

    // Tags that stay.
    for (tag, bytes) in [("v1", &one), ("v1", &one), ("latest", &one), ("latest", &two)] {
        stored(&server, &format!("fixed/app/manifests/{tag}"), bytes);
    }
    let words = ["v1", &sha256(&one), "immutable_tags"];
    refused(put(&server, "fixed/app/manifests/v1", &two), &words);
    let several = format!("fixed/app/manifests/{}?tag=new&tag=v1", sha256(&two));
    refused(put(&server, &several, &two), &words);
    assert_eq!(tags(&server, "fixed/app"), ["latest", "v1"], "all of it or nothing");
    for reference in ["v1", &sha256(&one)] {
        assert_eq!(delete(&server, &format!("fixed/app/manifests/{reference}")), 403);
    }
    expect(&server, "fixed/app/manifests/v1", &one, &sha256(&one));
    assert_eq!(delete(&server, "fixed/app/manifests/latest"), 202);
    assert_eq!(delete(&server, &format!("fixed/app/manifests/{}", sha256(&two))), 202);

    // As many tags as there may be.
    for tag in ["a", "b", "c", "a"] {
        stored(&server, &format!("small/app/manifests/{tag}"), &one);
    }
    refused(put(&server, "small/app/manifests/d", &one), &["max_tags", "3", "4"]);
    assert_eq!(delete(&server, "small/app/manifests/b"), 202);
    stored(&server, "small/app/manifests/d", &one);
    // As many bytes: what is refused leaves nothing on the disk.
    let (blob, large) = (vec![1; 700_000], vec![2; 700_000]);
    assert_eq!(push_blob(&server, "small/app", &blob).status(), 201);
    assert_eq!(push_blob(&server, "small/app", &blob).status(), 201, "it is there already");
    refused(push_blob(&server, "small/app", &large), &["max_size", "1048576"]);
    assert!(!server.has_blob(&sha256(&large)));
    assert_eq!(push_blob(&server, "small/other", &large).status(), 201);
    let mount = format!("/v2/small/app/blobs/uploads/?mount={}&from=small/other", sha256(&large));
    refused(send_body(server.addr, "POST", &mount, "text/plain", b""), &["max_size"]);
    assert!(server.has_blob(&sha256(&large)), "it is another one's");
    let mut wordy: Value = serde_json::from_slice(&two).unwrap();
    wordy["annotations"]["note"] = json!("x".repeat(400_000));
    refused(put(&server, "small/app/manifests/a", wordy.to_string().as_bytes()), &["max_size"]);
    expect(&server, "small/app/manifests/a", &one, &sha256(&one));

    // The newest stay.
    for (tag, n) in [("r1", 11), ("r2", 12), ("r3", 13), ("r4", 14), ("v0", 15)] {
        stored(&server, &format!("brief/app/manifests/{tag}"), &index(n));
    }
    let told = gc(&server, &["--dry-run"]);
    assert!(told.contains("would go: brief/app:r2\nwould go: brief/app:r1\n"), "{told}");
    assert_eq!(tags(&server, "brief/app").len(), 5);
    assert!(gc(&server, &[]).contains("gone: brief/app:r1\n"));
    assert_eq!(tags(&server, "brief/app"), ["r3", "r4", "v0"]);
    assert_eq!(server.get("/v2/brief/app/manifests/r1").status(), 404);
    server.assert_store_is_right();
}
