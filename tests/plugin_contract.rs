//! What ABI 1.1 adds, between the real host and a loaded plugin: candidates with credentials and
//! forwarded namespaces, request headers, remembered answers, placements, refreshes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod plugin_support;

use std::time::Duration;

use plugin_support::{Installed, plugin_entry, pull};
use ringport::config::Config;
use ringport::http::{Parsed, RequestHead};
use ringport::oci::Namespace;
use ringport::plugin::{
    Chain, PlaceRequest, RequestKind, ResolveRequest, ResolveStatus, StorageClass, WorkerChain,
};

const UPSTREAMS: &str = r#"
[[upstream]]
namespace = "docker.io"
aliases = ["hub.example"]

[[upstream]]
namespace = "ghcr.io"

[[upstream]]
namespace = "proxy.example"
forward_ns = true
[[upstream.credential]]
name = "team-a"
token_file = "/nowhere"

[storage]
remote_tiers = ["https://s3.example"]
[[storage.pool]]
name = "nvme"
path = "/mnt/nvme"
"#;

fn chain(lines: &str) -> Chain {
    let file = Installed::built("ringport_plugin_faulty");
    let plugin = plugin_entry("p", &file.path, lines);
    let text = format!("[routing]\nresolvers = ['p', 'standard']\n{UPSTREAMS}\n{plugin}");
    let config = Config::parse(&text, "test.toml").unwrap_or_else(|error| panic!("{error}"));
    Chain::load(&config).expect("loads")
}

fn start(lines: &str) -> WorkerChain {
    chain(lines).start_worker(0).expect("starts")
}

fn head(headers: &str) -> RequestHead {
    let text = format!("GET /v2/a/manifests/b HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    match RequestHead::parse(text.as_bytes()) {
        Ok(Parsed::Complete { head, .. }) => head,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_candidate_is_another_upstream_with_each_credential_and_forwarded_namespace() {
    let worker = start("");
    let cases = [
        ("credential", "proxy.example#team-a"),
        ("forward", "proxy.example?ns=docker.io"),
        ("both-scopes", "proxy.example?ns=docker.io#team-a"),
    ];
    for (fault, expected) in cases {
        let resolution = worker.resolve(&pull(&format!("faulty/{fault}"))).expect(fault);
        let (upstream, _) = resolution.first().unwrap();
        assert_eq!(upstream.unwrap().as_str(), expected);
    }
    let refused = [
        ("other-credential", "credential \"team-b\", which is no [[upstream.credential]] of proxy"),
        ("forward-undeclared", "forwards the namespace \"quay.io\", which no [[upstream]]"),
        ("not-forwarding", "\"ghcr.io\", which is no namespace-aware proxy (set `forward_ns"),
    ];
    for (fault, fragment) in refused {
        let error = worker.resolve(&pull(&format!("faulty/{fault}"))).expect_err(fault);
        assert_eq!(error.status, ResolveStatus::Internal);
        assert!(error.message.contains(fragment), "{fragment:?} is not in: {error}");
    }
    assert!(worker.resolve(&pull("faulty/immutable")).unwrap().is_immutable);
}

#[test]
fn a_plugin_gets_the_headers_it_asked_for_and_no_ambiguous_ones() {
    let worker = start("headers = ['X-Tenant', 'x-site']");
    let resolve = |headers: &str| {
        let head = head(headers);
        let request = ResolveRequest { head: Some(&head), ..pull("faulty/headers") };
        let first = worker.resolve(&request);
        // Once more, from what is remembered.
        assert_eq!(worker.resolve(&request), first);
        first.map(|resolution| resolution.rule.clone()).map_err(|error| error.message.clone())
    };
    let cases = [
        ("", "[None, None]"),
        ("x-site: b\r\nX-TENANT: a\r\n", "[Some(\"a\"), Some(\"b\")]"),
        ("X-Tenant:\r\n", "[Some(\"\"), None]"),
        ("X-Tenant: \u{e9}\r\n", "[Some(\"\u{e9}\"), None]"),
    ];
    for (headers, expected) in cases {
        assert_eq!(resolve(headers).as_deref(), Ok(expected), "{headers:?}");
    }
    let long = format!("x-site: {}\r\n", "a".repeat(1025));
    for (headers, problem) in [
        (
            "x-site: a\r\nx-site: a\r\n",
            "the header x-site, which decides about the route, is given",
        ),
        (long.as_str(), "has a value that is too long"),
    ] {
        let error = resolve(headers).expect_err(headers);
        assert!(error.contains(problem), "{error}");
    }
    // Without a head (an explanation from the command line has one, a warm-up has none).
    assert_eq!(worker.resolve(&pull("faulty/headers")).unwrap().rule, "[None, None]");
}

#[test]
fn an_ambiguous_header_is_refused_whether_an_answer_is_remembered_or_not() {
    let worker = start("headers = ['x-tenant']");
    let doubled = head("x-tenant: a\r\nx-tenant: b\r\n");
    // This answer does not depend on headers, so it is remembered for all of them.
    let request = ResolveRequest { head: Some(&doubled), ..pull("faulty/ns") };
    for what in ["not asked before", "remembered"] {
        let refused = worker.resolve(&request).expect_err(what);
        assert_eq!((refused.status, refused.plugin.as_str()), (ResolveStatus::Invalid, "p"));
        assert!(
            worker.resolve_anew(&request).is_err() && worker.explain(&request).outcome.is_err()
        );
        assert!(worker.resolve(&pull("faulty/ns")).is_ok());
    }
}

#[test]
fn secrets_are_never_handed_out() {
    let file = Installed::built("ringport_plugin_faulty");
    for name in ["Authorization", "cookie", "PROXY-AUTHORIZATION", "no header", ""] {
        let plugin = plugin_entry("p", &file.path, &format!("headers = [{name:?}]"));
        let text = format!("[routing]\nresolvers = ['p']\n{plugin}");
        let error = Chain::load(&Config::parse(&text, "t").unwrap()).expect_err(name).to_string();
        assert!(error.contains("does not hand out the request header"), "{error}");
    }
}

#[test]
fn the_namespace_that_counts_is_told_with_where_it_came_from() {
    let worker = start("");
    let ns = Namespace::parse("hub.example").unwrap();
    let header = Namespace::parse("ghcr.io").unwrap();
    let resolve = |ns, header| {
        let request = ResolveRequest { ns, header, ..pull("faulty/ns") };
        worker.resolve(&request).unwrap().rule.clone()
    };
    assert_eq!(resolve(None, None), "None None");
    assert_eq!(resolve(Some(&ns), None), "Query Some(\"hub.example\")");
    assert_eq!(resolve(Some(&ns), Some(&header)), "Header Some(\"ghcr.io\")");
    assert_eq!(resolve(None, Some(&header)), "Header Some(\"ghcr.io\")");
    assert_eq!(resolve(Some(&header), None), "Query Some(\"ghcr.io\")");
}

#[test]
fn answers_are_remembered_by_what_they_depend_on_and_no_further() {
    let chain = chain("");
    let worker = chain.start_worker(0).unwrap();
    let calls = || chain.stats()[0].resolve.calls.iter().sum::<u64>();
    let ask = |name: &str, reference: &str, kind| {
        let request = ResolveRequest { reference, kind, ..pull(name) };
        worker.resolve(&request).map(|r| r.rule.clone()).map_err(|error| error.status)
    };
    let manifest = RequestKind::Manifest;
    // The first to depend on something empties the memo of shorter keys.
    assert!(ask("faulty/generation", "v1", manifest).is_ok());
    for (reference, kind, expected) in
        [("v1", manifest, 2), ("v2", manifest, 3), ("v2", RequestKind::Tags, 4)]
    {
        for _ in 0..3 {
            assert_eq!(ask("faulty/reference", reference, kind).as_deref(), Ok(reference));
        }
        assert_eq!(calls(), expected);
    }
    for expected in [5, 5] {
        assert_eq!(ask("faulty/remembered-denial", "v1", manifest), Err(ResolveStatus::Denied));
        assert_eq!(calls(), expected);
    }
    // What may be better in a moment is asked again, and what says nothing is not remembered.
    for expected in [6, 7] {
        let outage = ask("faulty/remembered-outage", "v1", manifest);
        assert_eq!((outage, calls()), (Err(ResolveStatus::Unavailable), expected));
    }
    for expected in [8, 9] {
        assert!(ask("faulty/immutable", "v1", manifest).is_ok());
        assert_eq!(calls(), expected);
    }
    assert_eq!(chain.remembered(), 7);
    // An explanation asks, and so does a worker after its plugin has failed.
    worker.explain(&pull("faulty/reference"));
    assert_eq!(calls(), 10);
    assert_eq!(ask("faulty/panic", "v1", manifest), Err(ResolveStatus::Internal));
    assert_eq!(ask("faulty/reference", "v1", manifest), Err(ResolveStatus::Unavailable));
}

#[test]
fn what_a_plugin_said_is_forgotten_whichever_call_it_fails_in() {
    let upstream = Namespace::parse("docker.io").unwrap();
    let place = PlaceRequest {
        is_manifest: false,
        is_stored: false,
        upstream: Some(&upstream),
        repository: "faulty/panic",
        digest: None,
        media_type: None,
        size: None,
    };
    type Call<'a> = &'a dyn Fn(&WorkerChain) -> bool;
    let fails: [(&str, Call<'_>); 4] = [
        ("resolve", &|worker| worker.resolve(&pull("faulty/panic")).is_err()),
        ("resolve_anew", &|worker| worker.resolve_anew(&pull("faulty/panic")).is_err()),
        ("explain", &|worker| worker.explain(&pull("faulty/panic")).outcome.is_err()),
        ("place", &|worker| worker.place(&place).is_err()),
    ];
    for (call, fails) in fails {
        let chain = chain("");
        let worker = chain.start_worker(0).unwrap();
        for _ in 0..2 {
            assert!(worker.resolve(&pull("faulty/generation")).is_ok(), "{call}");
        }
        assert_eq!(chain.remembered(), 1, "{call}");
        assert!(fails(&worker), "{call}");
        let after = worker.resolve(&pull("faulty/generation"));
        assert_eq!(after.unwrap_err().status, ResolveStatus::Unavailable, "{call}");
    }
}

#[test]
fn more_answers_than_there_is_room_for_are_all_right() {
    let worker = start("");
    for round in 0..2 {
        for n in 0..10_000 {
            let name = format!("org{}/app{n}", n % 7);
            let resolution = worker.resolve(&pull(&name)).unwrap();
            let (_, repository) = resolution.first().unwrap();
            assert_eq!(repository.as_str(), name, "round {round}");
        }
    }
}

#[test]
fn placements_are_checked_against_what_is_declared() {
    let chain = chain("");
    let worker = chain.start_worker(0).unwrap();
    let upstream = Namespace::parse("docker.io").unwrap();
    let place = |fault: &str, upstream, is_stored| {
        let repository = format!("faulty/{fault}");
        worker.place(&PlaceRequest {
            is_manifest: false,
            is_stored,
            upstream,
            repository: &repository,
            digest: None,
            media_type: None,
            size: Some(7),
        })
    };
    let placed = place("good", Some(&upstream), false).unwrap().unwrap();
    assert_eq!((placed.class, placed.pool.as_deref()), (StorageClass::Pinned, Some("nvme")));
    assert_eq!((placed.ttl, placed.priority), (Some(Duration::from_secs(60)), 2));
    assert_eq!(placed.remotes[0].shown_url(), "https://s3.example/bucket/key");
    assert_eq!((placed.remotes[0].method, placed.plugin.as_str()), ("GET", "p"));
    assert!(!format!("{placed:?}").contains("secret"), "{placed:?}");
    assert!(placed.remotes[0].expires.is_some());
    let passed = place("pass", Some(&upstream), false).unwrap().unwrap();
    assert_eq!(passed.class, StorageClass::PassThrough);

    let cases = [
        ("pool", "the pool \"floppy\", which no [[storage.pool]] declares (declared: nvme)"),
        ("priority", "the priority 11, beyond -10 to 10"),
        ("pass-and-remote", "uses a remote tier for content that it does not store"),
        ("elsewhere", "the remote tier \"https://s3.example.org\""),
        ("user-info", "the remote tier \"https://evil\""),
        ("signed-elsewhere", "the remote tier \"https://evil.example\""),
        ("method", "method \"DELETE\""),
        ("moment", "writes to a remote tier what is not stored yet"),
        ("host", "the header \"Host\", which is not its own"),
        ("crlf", "the value of its header x-a is not printable"),
        ("headers", "more than 16 headers"),
        ("remotes", "more than 4 requests"),
    ];
    for (fault, fragment) in cases {
        let error = place(fault, Some(&upstream), false).expect_err(fault);
        assert_eq!(error.status, ResolveStatus::Internal);
        assert!(error.message.contains(fragment), "{fragment:?} is not in: {error}");
    }
    // Routed before a reload took the upstream out: no plugin is asked about what it never knew.
    let gone = Namespace::parse("gone.example").unwrap();
    let alias = Namespace::parse("hub.example").unwrap();
    for upstream in [&gone, &alias] {
        assert_eq!(place("pool", Some(upstream), false), Ok(None));
    }
    let scoped = Namespace::parse("proxy.example").unwrap();
    let scoped = scoped.scoped(Some("team-a"), Some(&upstream));
    assert!(place("pass", Some(&scoped), false).unwrap().is_some());
    let hosted = place("pass", None, false).expect_err("hosted content is nowhere else");
    assert!(hosted.message.contains("passes hosted content through"), "{hosted}");
    let stored = place("good", Some(&upstream), true).expect_err("too late to read");
    assert!(stored.message.contains("reads from a remote tier what is stored already"), "{stored}");
    assert!(place("unavailable", Some(&upstream), false).is_err());
    // Broken answers poison nothing; a panic does, for resolve too.
    assert!(!chain.stats()[0].is_poisoned);
    assert_eq!(chain.stats()[0].place.calls[0], 17);
    assert!(place("panic", Some(&upstream), false).is_err());
    assert_eq!(worker.resolve(&pull("a/b")).unwrap_err().status, ResolveStatus::Unavailable);
}

#[test]
fn what_declines_to_place_leaves_it_to_the_defaults_and_explain_shows_what_does_not() {
    let worker = start("");
    let explanation = worker.explain(&pull("docker.io/faulty/good")).to_string();
    for line in [
        "placement: p answered, rule: to the fast disk, or from the bucket\n",
        "class: pinned\n",
        "pool: nvme\n",
        "ttl: 60s\n",
        "priority: 2\n",
        "remote tier: GET https://s3.example/bucket/key\n",
    ] {
        assert!(explanation.contains(line), "{line:?} is not in:\n{explanation}");
    }
    let plain = worker.explain(&pull("docker.io/org/app")).to_string();
    assert!(plain.contains("upstream: docker.io\n") && !plain.contains("placement"), "{plain}");
    let failed = worker.explain(&pull("docker.io/faulty/pool")).to_string();
    assert!(failed.contains("placement: p failed, so nothing is stored\n"), "{failed}");
}

#[test]
fn a_refresh_takes_one_link_over_and_what_was_remembered_with_it() {
    let chain = chain("refresh_ms = 1500");
    let intervals: Vec<_> = chain.refresh_intervals().collect();
    assert_eq!(intervals, [(0, Duration::from_millis(1500))]);
    let mut worker = chain.start_worker(0).unwrap();
    let generation = |worker: &WorkerChain| {
        let resolution = worker.resolve(&pull("faulty/generation")).unwrap();
        resolution.first().unwrap().1.to_string()
    };
    assert_eq!([generation(&worker), generation(&worker)], ["g1", "g1"]);
    let refreshed = chain.refresh(0).unwrap().expect("a successor");
    drop(worker.replace_link(refreshed.start_worker(0).unwrap()));
    assert_eq!([generation(&worker), generation(&worker)], ["g2", "g2"]);
    let next = chain.with(&refreshed);
    assert!(next.has_link_of(&chain, 1) && !next.has_link_of(&chain, 0));
    let third = next.refresh(0).unwrap().expect("a successor");
    drop(worker.replace_link(third.start_worker(0).unwrap()));
    assert_eq!(generation(&worker), "g3");
    assert_eq!(chain.stats()[0].resolve.calls[0], 3, "the figures go on");
    // The standard resolver has nothing to refresh.
    assert!(next.refresh(1).unwrap().is_none());
}

#[test]
fn a_refresh_that_fails_or_panics_leaves_the_instance() {
    for (fail, fragment) in [("refresh", "the directory is away"), ("panic:refresh", "in refresh")]
    {
        let chain = chain(&format!("refresh_ms = 1000\nfail = '{fail}'"));
        let error = chain.refresh(0).expect_err(fail).to_string();
        assert!(error.contains("plugin p: `refresh`") && error.contains(fragment), "{error}");
        assert!(chain.start_worker(0).unwrap().resolve(&pull("faulty/generation")).is_ok());
    }
    let file = Installed::built("ringport_plugin_faulty");
    for interval in [999, 86_400_001] {
        let plugin = plugin_entry("p", &file.path, &format!("refresh_ms = {interval}"));
        let config =
            Config::parse(&format!("[routing]\nresolvers = ['p']\n{plugin}"), "t").unwrap();
        let error = Chain::load(&config).expect_err("out of bounds").to_string();
        assert!(error.contains("expected 1 s to 1 day"), "{error}");
    }
}
