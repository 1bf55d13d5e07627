//! Who is asked for what, through the plugin's real function table.

use ringport_plugin_sdk::testing::{FakeHost, FakeWorker};
use ringport_plugin_sdk::{By, Kind, NsSource, PlaceRequest, Request};

use crate::PLUGIN;

const NODES: &str = "nodes = ['a.mirror', 'b.mirror', 'c.mirror']\n";

fn host() -> FakeHost {
    ["a.mirror", "b.mirror", "c.mirror"]
        .iter()
        .fold(FakeHost::new(), |host, node| host.upstream(node, &[]).forwards_ns())
        .upstream("docker.io", &["index.docker.io"])
        .upstream("ghcr.io", &[])
        .pool("nvme0")
        .pool("nvme1")
}

fn node(name: &str) -> FakeWorker {
    host().config(&format!("self = '{name}'\n{NODES}")).start(&PLUGIN).unwrap()
}

fn digest(number: u32) -> String {
    format!("sha256:{number:064x}")
}

fn blob<'a>(ns: &'a str, name: &'a str, digest: &'a str) -> Request<'a> {
    let mut request = Request::pull_from(ns, name);
    (request.kind, request.reference) = (Kind::Blob, digest);
    request
}

#[test]
fn all_nodes_agree_on_the_owner_who_alone_asks_the_origin() {
    let names = ["a.mirror", "b.mirror", "c.mirror"];
    let mut nodes = names.map(node);
    let mut owned = [0; 3];
    for number in 0..300 {
        let digest = digest(number);
        let request = blob("docker.io", "library/alpine", &digest);
        let answers: Vec<String> =
            nodes.iter_mut().map(|node| node.resolve(&request).to_string()).collect();
        let owners: Vec<usize> = (0..3).filter(|at| answers[*at] == "DECLINE").collect();
        let [owner] = owners[..] else { panic!("{answers:?}") };
        owned[owner] += 1;
        let name = names[owner];
        let expected = format!(
            "{name} library/alpine with ns=docker.io, docker.io library/alpine (owner {name})"
        );
        let others = answers.iter().filter(|answer| *answer != "DECLINE");
        assert!(others.clone().count() == 2 && others.into_iter().all(|a| *a == expected));
    }
    assert!(owned.iter().all(|count| *count > 50), "{owned:?}");
}

#[test]
fn tag_and_digest_of_an_image_meet_on_one_node() {
    let mut worker = node("a.mirror");
    let digest = digest(1);
    for number in 0..50 {
        let name = format!("org/app{number}");
        let mut request = Request::pull_from("ghcr.io", &name);
        let by_tag = worker.resolve(&request).to_string();
        request.reference = &digest;
        assert_eq!(worker.resolve(&request).to_string(), by_tag, "{name}");
    }
    // And so do all ways to name it.
    let by_alias = worker.resolve(&Request::pull_from("index.docker.io", "alpine")).to_string();
    let plain = worker.resolve(&Request::pull_from("docker.io", "library/alpine")).to_string();
    assert_eq!(by_alias, plain);
}

#[test]
fn what_comes_from_a_node_goes_to_no_other() {
    let mut worker = node("a.mirror");
    let away = (0..)
        .map(digest)
        .find(|digest| worker.resolve(&blob("docker.io", "a/b", digest)).to_string() != "DECLINE");
    let digest = away.unwrap();
    let from = |agent: Option<&'static str>, config: &str, client: [u8; 4]| {
        let headers = [agent];
        let mut request = blob("docker.io", "a/b", &digest);
        request.headers = &headers;
        request.client = Some(client.into());
        let config = format!("self = 'a.mirror'\n{NODES}{config}");
        let mut worker = host().config(&config).start(&PLUGIN).unwrap();
        assert_eq!(worker.headers_wanted(), ["user-agent"]);
        worker.resolve(&request).to_string() != "DECLINE"
    };
    assert!(from(None, "", [10, 0, 0, 1]));
    assert!(from(Some("containerd/2.1"), "", [10, 0, 0, 1]));
    assert!(!from(Some("ringport/0.1.0"), "", [10, 0, 0, 1]));
    // A Ringport that is no node, but a client of the nodes.
    assert!(from(Some("ringport/0.1.0"), "peers = ['10.1.0.0/16']", [10, 0, 0, 1]));
    assert!(!from(Some("ringport/0.1.0"), "peers = ['10.1.0.0/16']", [10, 1, 0, 1]));
}

#[test]
fn only_what_is_shared_is_shared() {
    let config = "self = 'a.mirror'\nnamespaces = ['ghcr.io']\n";
    let mut worker = host().config(&format!("{config}{NODES}")).start(&PLUGIN).unwrap();
    let mut shared = |ns: &str, name: &str| {
        (0..40)
            .map(digest)
            .any(|digest| worker.resolve(&blob(ns, name, &digest)).to_string() != "DECLINE")
    };
    assert!(shared("ghcr.io", "org/app"));
    for (ns, name) in [
        ("docker.io", "org/app"),
        ("unknown.example", "org/app"),
        ("b.mirror", "org/app"),
        ("ghcr.io", "docker.io/org/app"),
        ("ghcr.io", "proxy/docker.io/org/app"),
        ("ghcr.io", "Not/A/Name"),
    ] {
        assert!(!shared(ns, name), "{ns} {name}");
    }
    let mut request = Request::pull("org/app");
    request.kind = Kind::Tags;
    (request.ns, request.ns_source) = (Some("ghcr.io"), NsSource::Path);
    assert_eq!(worker.resolve(&request).to_string(), "DECLINE");
}

#[test]
fn requests_that_name_no_registry_follow_the_default() {
    let with = |lines: &str, name: &str| {
        let mut worker = host().config(&format!("{lines}{NODES}")).start(&PLUGIN).unwrap();
        worker.resolve(&Request::pull(name)).to_string()
    };
    let default = "default_upstream = 'docker.io'\nhosted = ['team/*']\n";
    assert!(with(default, "alpine").contains(" library/alpine with ns=docker.io, docker.io "));
    // A dot is no host where it stands behind a slash.
    assert!(with(default, "org/my.app").contains(" org/my.app with ns=docker.io, docker.io "));
    for name in ["team/app", "ghcr.io", "proxy/ghcr.io"] {
        assert_eq!(with(default, name), "DECLINE", "{name}");
    }
    assert_eq!(with("", "alpine"), "DECLINE");
    let mut both = Request::pull_from("docker.io", "a/b");
    both.header_ns = Some("ghcr.io");
    (both.ns, both.ns_source) = (Some("ghcr.io"), NsSource::Header);
    assert_eq!(node("a.mirror").resolve(&both).to_string(), "DECLINE", "they contradict");
}

#[test]
fn manifests_are_remembered_and_blobs_are_not() {
    let digest = digest(1);
    let mut worker = node("a.mirror");
    let answer = worker.resolve(&blob("docker.io", "a/b", &digest));
    assert_eq!(answer.cacheable, None);
    let answer = worker.resolve(&Request::pull_from("docker.io", "a/b"));
    assert_eq!(answer.cacheable, Some(By::KIND | By::HEADERS));
}

#[test]
fn content_is_spread_over_pools() {
    let config = "pools = ['nvme0', 'nvme1']";
    let mut worker = host().config(config).start(&PLUGIN).unwrap();
    let mut in_first = 0;
    for number in 0..100 {
        let digest = digest(number);
        let request = PlaceRequest::blob("docker.io", "a/b", &digest);
        let pool = worker.place(&request).unwrap().pool;
        let again = worker.place(&PlaceRequest::blob("ghcr.io", "c", &digest)).unwrap().pool;
        assert_eq!(pool, again, "the digest decides");
        in_first += usize::from(pool.as_deref() == Some("nvme0"));
    }
    assert!((30..70).contains(&in_first), "{in_first}");
    assert_eq!(worker.resolve(&Request::pull_from("docker.io", "a")).to_string(), "DECLINE");
    let mut unknown = PlaceRequest::blob("docker.io", "a/b", "");
    unknown.digest = None;
    assert_eq!(worker.place(&unknown).unwrap().pool, None);
}

#[test]
fn a_wrong_configuration_is_refused_by_its_key() {
    let cases = [
        ("", "there is nothing to share: set `nodes` or `pools`"),
        ("nodes = ['x.mirror']", "key `nodes[0]`: declare [[upstream]] namespace = \"x.mirror\""),
        ("nodes = ['ghcr.io']", "key `nodes[0]`: set `forward_ns = true` in the [[upstream]]"),
        ("nodes = ['a.mirror', 'a.mirror']", "key `nodes[1]`: a.mirror stands there twice"),
        ("nodes = ['a.mirror']\nself = 'b.mirror'", "key `self`: b.mirror is none of `nodes`"),
        ("nodes = ['index.docker.io']", "key `nodes[0]`: write docker.io, whose alias this is"),
        ("nodes = ['a.mirror']\nnamespaces = ['a.mirror']", "key `namespaces[0]`: a.mirror is a"),
        ("nodes = ['a.mirror']\nnamespaces = ['x']", "key `namespaces[0]`: declare [[upstream]]"),
        ("nodes = ['a.mirror']\ndefault_upstream = 'x'", "key `default_upstream`: declare"),
        ("nodes = ['a.mirror']\npeers = ['x']", "key `peers[0]`: "),
        ("pools = ['nvme0', 'tape']", "key `pools[1]`: declare [[storage.pool]] name = \"tape\""),
        ("node = []", "key `node`: unknown field"),
    ];
    for (config, expected) in cases {
        let error = host().config(config).start(&PLUGIN).expect_err(config);
        assert!(error.contains(expected), "{config:?} gave {error:?}");
    }
}
