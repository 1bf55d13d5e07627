//! Lists of mirrored repositories, which are tags' pages and referrers: kept as tags are, by every way
//! in, over restarts, and while the upstream is gone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use serde_json::{Value, json};
use support::gate::Gate;
use support::http::{self, Answer as Got};
use support::images::{OCI_INDEX, OCI_MANIFEST, SBOM_TYPE, sha256};
use support::lying::{Answer, LyingUpstream};
use support::rig::{NS, REPOSITORY, Rig};
use support::server::{Setup, Upstream};
use support::{ms, secs, wait_until};

const SIGN_TYPE: &str = "application/x.sign";

/// A rig whose upstream has these keys, and time to be held up.
fn rig(what: &str, keys: &[&str]) -> Rig {
    let upstream = LyingUpstream::start();
    let declared = Upstream::new(NS, &upstream.url()).set("first_byte_timeout = \"60s\"");
    let declared = keys.iter().fold(declared, |declared, key| declared.set(key));
    let server = Setup::new(what).upstream(declared).server("workers = 2").start();
    Rig::of(upstream, server, 1000)
}

/// Until a list is due that is fresh for one second.
fn until_due() {
    std::thread::sleep(ms(2100));
}

fn tags_path() -> String {
    format!("/v2/{REPOSITORY}/tags/list")
}

fn tags(names: &[&str]) -> String {
    json!({"name": REPOSITORY, "tags": names}).to_string()
}

fn cache_status(answer: &Got) -> &str {
    answer.header("cache-status")
}

#[track_caller]
fn expect(answer: &Got, body: &str, how: &str) {
    assert_eq!((answer.status(), answer.text().as_str()), (200, body), "{:?}", answer.head);
    assert!(cache_status(answer).starts_with(how), "expected {how}: {:?}", answer.head);
    assert!(answer.head.headers.number("age").is_some(), "{:?}", answer.head);
    let is_stale = how.contains("fwd=stale") && !cache_status(answer).contains("revalidated");
    assert_eq!(answer.head.headers.count("warning") == 1, is_stale, "{:?}", answer.head);
}

/// Where the next page is, as a client reads it.
#[track_caller]
fn next_of(answer: &Got) -> String {
    let link = answer.header("link");
    let target = link.strip_prefix('<').and_then(|rest| rest.strip_suffix(">; rel=\"next\""));
    target.unwrap_or_else(|| panic!("a link to the next page: {:?}", answer.head)).to_owned()
}

#[test]
fn pages_are_kept_for_every_way_in_offline_and_after_a_restart() {
    let mut rig = rig("lists-pages", &["tag_ttl = \"1h\"", "stale_max = \"1h\""]);
    let path = tags_path();
    let (first, second) = (tags(&["a", "b"]), tags(&["c"]));
    let link = format!("<{path}?n=2&last=b>; rel=\"next\"");
    let page = |body: &str| Answer::instead("application/json", body.as_bytes());
    rig.upstream.script("GET", &path, [page(&first).header("Link", &link), page(&second)]);
    let ways = [
        (format!("{path}?ns={NS}&n=2"), "", &format!("{path}?n=2&last=b&ns={NS}")),
        (format!("{path}?n=2"), NS, &format!("{path}?n=2&last=b")),
        (
            format!("/v2/{NS}/{REPOSITORY}/tags/list?n=2"),
            "",
            &format!("/v2/{NS}/{REPOSITORY}/tags/list?n=2&last=b"),
        ),
    ];
    let check = |rig: &Rig, cold: bool| {
        for (n, (target, header, next)) in ways.iter().enumerate() {
            let headers = [("X-Dragonfly-Registry", *header)];
            let headers = if header.is_empty() { &headers[..0] } else { &headers[..] };
            let how = if cold && n == 0 { "ringport; fwd=miss; stored" } else { "ringport; hit" };
            let answer = http::get_with(rig.server.addr, target, headers);
            expect(&answer, &first, how);
            assert_eq!(answer.header("content-type"), "application/json");
            assert_eq!(&next_of(&answer), *next, "{target}");
            let answer = http::get_with(rig.server.addr, &next_of(&answer), headers);
            expect(&answer, &second, how);
            assert_eq!(answer.header("link"), "", "the last page");
        }
        // Parameters in another order are the same question.
        let target = format!("{path}?last=b&ns={NS}&n=2");
        expect(&rig.server.get(&target), &second, "ringport; hit");
    };
    check(&rig, true);
    assert_eq!(rig.upstream.requests(), 2, "one question a page");
    assert!(!rig.upstream.heard("ns="), "the upstream is no proxy");
    rig.upstream.stop();
    check(&rig, false);
    rig.server.restart();
    check(&rig, false);
    let head = rig.server.head(&ways[0].0);
    assert_eq!((head.status(), head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), first.len().to_string());
}

#[test]
fn a_due_list_is_confirmed_by_its_entity_tag_followed_and_served_stale() {
    let mut rig = rig("lists-due", &["tag_ttl = \"1s\"", "stale_max = \"1h\""]);
    let (path, target) = (tags_path(), format!("{}?ns={NS}", tags_path()));
    let body = tags(&["a"]);
    let etag = |body: &str| sha256(body.as_bytes());
    rig.upstream.add(&path, "application/json", body.as_bytes(), Some(&etag(&body)));
    expect(&rig.server.get(&target), &body, "ringport; fwd=miss; stored");
    until_due();
    expect(&rig.server.get(&target), &body, "ringport; fwd=stale; detail=revalidated");
    let seen = rig.upstream.seen().last().unwrap().request.clone();
    assert_eq!(seen.header("if-none-match"), Some(format!("\"{}\"", etag(&body)).as_str()));
    assert_eq!(rig.upstream.bytes_sent(&path), body.len() as u64, "304 the second time");
    let newer = tags(&["a", "b"]);
    rig.upstream.add(&path, "application/json", newer.as_bytes(), Some(&etag(&newer)));
    until_due();
    expect(&rig.server.get(&target), &newer, "ringport; fwd=miss; stored");
    let busy = Answer::status(429).header("Retry-After", "600");
    rig.upstream.script_everything(Some(busy));
    until_due();
    let asked = rig.upstream.requests();
    for _ in 0..10 {
        expect(&rig.server.get(&target), &newer, "ringport; fwd=stale");
    }
    assert_eq!(rig.upstream.requests(), asked + 1, "then it rests");
    rig.upstream.stop();
    rig.server.restart();
    expect(&rig.server.get(&target), &newer, "ringport; fwd=stale");
}

#[test]
fn a_late_list_is_answered_at_once_and_asked_for_behind_that() {
    let rig = rig("lists-late", &["tag_ttl = \"1s\"", "stale_while_revalidate = \"1h\""]);
    let (path, target) = (tags_path(), format!("{}?ns={NS}", tags_path()));
    let (body, newer) = (tags(&["a"]), tags(&["a", "b"]));
    rig.upstream.add(&path, "application/json", body.as_bytes(), None);
    expect(&rig.server.get(&target), &body, "ringport; fwd=miss; stored");
    until_due();
    let gate = Gate::new();
    let held = Answer::instead("application/json", newer.as_bytes()).held(&gate);
    rig.upstream.script("GET", &path, [held]);
    for _ in 0..20 {
        let late = rig.server.get(&target);
        expect(&late, &body, "ringport; hit; ttl=-");
        assert!(cache_status(&late).ends_with("; detail=updating"), "{:?}", late.head);
    }
    gate.await_arrivals(1, secs(10));
    assert_eq!(rig.upstream.count("GET", &path), 2, "one behind all of them");
    gate.open();
    wait_until("the new list", secs(10), || rig.server.get(&target).text() == newer);
}

#[test]
fn all_who_want_one_due_list_cause_one_question() {
    let rig = rig("lists-herd", &["tag_ttl = \"3s\"", "stale_max = \"0s\""]);
    let (path, target) = (tags_path(), format!("{}?ns={NS}", tags_path()));
    let body = tags(&["a"]);
    rig.upstream.add(&path, "application/json", body.as_bytes(), None);
    assert_eq!(rig.server.get(&target).text(), body);
    std::thread::sleep(ms(4100));
    let gate = Gate::new();
    rig.upstream.script("GET", &path, [Answer::right().held(&gate)]);
    let mut clients: Vec<_> = (0..50).map(|_| rig.server.connect()).collect();
    for client in &mut clients {
        client.request("GET", &target, &[]);
    }
    gate.await_arrivals(1, secs(10));
    let open = || rig.server.metric("ringport_connections", &[]);
    wait_until("all clients", secs(10), || open() >= 50.0);
    clients.remove(0).reset();
    gate.open();
    for mut client in clients {
        assert_eq!(client.read_answer("GET").unwrap().text(), body);
    }
    assert_eq!(rig.upstream.count("GET", &path), 2);
}

fn descriptor(seed: &str, artifact_type: &str) -> Value {
    json!({"mediaType": OCI_MANIFEST, "digest": sha256(seed.as_bytes()), "size": 4,
        "artifactType": artifact_type})
}

fn index(manifests: &[Value]) -> String {
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).to_string()
}

fn listed(answer: &Got) -> usize {
    assert_eq!((answer.status(), answer.header("content-type")), (200, OCI_INDEX));
    answer.json()["manifests"].as_array().map_or(0, Vec::len)
}

#[test]
fn referrers_are_kept_by_the_api_and_by_the_tag_schema_with_their_filter() {
    let mut rig = rig("lists-referrers", &["tag_ttl = \"1s\"", "stale_max = \"1h\""]);
    let both = index(&[descriptor("sbom", SBOM_TYPE), descriptor("sign", SIGN_TYPE)]);
    let subjects = ["api", "schema"].map(|subject| sha256(subject.as_bytes()));
    let path = |subject: &str| format!("/v2/{REPOSITORY}/referrers/{subject}");
    rig.upstream.add(&path(&subjects[0]), OCI_INDEX, both.as_bytes(), None);
    let tag = subjects[1].replace(':', "-");
    rig.upstream.add_manifest(REPOSITORY, &tag, OCI_INDEX, both.as_bytes());
    let nobody = sha256(b"nobody");
    let check = |rig: &Rig, how: &str| {
        for subject in &subjects {
            let target = format!("{}?ns={NS}", path(subject));
            let all = rig.server.get(&target);
            assert_eq!(listed(&all), 2, "{}", all.text());
            assert!(cache_status(&all).starts_with(how), "{how}: {:?}", all.head);
            let some = rig.server.get(&format!("{target}&artifactType={SBOM_TYPE}"));
            assert_eq!(listed(&some), 1, "{}", some.text());
            assert_eq!(some.header("oci-filters-applied"), "artifactType");
            assert!(cache_status(&some).starts_with(how), "{how}: {:?}", some.head);
        }
        let none = rig.server.get(&format!("{}?ns={NS}", path(&nobody)));
        assert_eq!(listed(&none), 0);
        assert!(cache_status(&none).starts_with(how), "{how}: {:?}", none.head);
    };
    check(&rig, "ringport; fwd=miss; stored");
    let asked = rig.upstream.requests();
    rig.upstream.stop();
    until_due();
    check(&rig, "ringport; fwd=stale");
    rig.server.restart();
    check(&rig, "ringport; fwd=stale");
    assert_eq!(rig.upstream.requests(), asked);
}

#[test]
fn the_next_page_of_referrers_is_another_page_with_the_same_filter() {
    let rig = rig("lists-referrers-pages", &["tag_ttl = \"1h\""]);
    let subject = sha256(b"subject");
    let path = format!("/v2/{REPOSITORY}/referrers/{subject}");
    // Filters nothing, and pages by a word of its own.
    let link = format!("<{path}?nextToken=ab%2F%3D>; rel=\"next\"");
    let pages = [("sbom", SBOM_TYPE), ("sign", SIGN_TYPE)]
        .map(|(seed, artifact_type)| index(&[descriptor(seed, artifact_type)]))
        .map(|page| Answer::instead(OCI_INDEX, page.as_bytes()));
    let [first, second] = pages;
    rig.upstream.script("GET", &path, [first.header("Link", &link), second]);
    let filter = SIGN_TYPE.replace('/', "%2F");
    let answer = rig.server.get(&format!("{path}?ns={NS}&artifactType={filter}"));
    assert_eq!(listed(&answer), 0, "{}", answer.text());
    let next = next_of(&answer);
    assert_eq!(next, format!("{path}?nextToken=ab%2F%3D&artifactType={filter}&ns={NS}"));
    let answer = rig.server.get(&next);
    assert_eq!(listed(&answer), 1, "{}", answer.text());
    let seen = rig.upstream.seen().last().unwrap().request.clone();
    let query = seen.query.unwrap_or_default();
    assert_eq!(query, format!("artifactType={filter}&nextToken=ab%2F%3D"));
}

#[test]
fn a_list_that_is_too_large_to_keep_is_relayed_each_time() {
    let rig = rig("lists-large", &["tag_ttl = \"1h\""]);
    let path = tags_path();
    let names: Vec<String> = (0..120_000).map(|n| format!("tag-{n:06}")).collect();
    let large = tags(&names.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(large.len() > 1 << 20, "{}", large.len());
    rig.upstream.add(&path, "application/json", large.as_bytes(), None);
    for asked in 1..=2 {
        let answer = rig.server.get(&format!("{path}?ns={NS}"));
        assert!(answer.status() == 200 && answer.text() == large, "{:?}", answer.head);
        assert_eq!(cache_status(&answer), "ringport; fwd=miss");
        assert_eq!(rig.upstream.count("GET", &path), asked);
    }
}
