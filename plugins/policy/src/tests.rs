//! What the rules do, through the plugin's real function table.

use ringport_plugin_sdk::testing::{FakeHost, FakeWorker};
use ringport_plugin_sdk::{By, Kind, NsSource, Request};

use crate::PLUGIN;

const EXAMPLE: &str = include_str!("../policy.toml");

fn host() -> FakeHost {
    FakeHost::new()
        .upstream("docker.io", &["index.docker.io", "registry-1.docker.io"])
        .upstream("quay.io", &[])
        .upstream("ghcr.io", &["github.example"])
        .upstream("artifactory.corp", &["art.corp"])
        .credential("team-a")
        .credential("builds")
}

fn start(config: &str) -> FakeWorker {
    host().config(config).start(&PLUGIN).unwrap()
}

fn example() -> FakeWorker {
    start(EXAMPLE)
}

fn ask(worker: &mut FakeWorker, request: &Request<'_>) -> String {
    worker.resolve(request).to_string()
}

/// As the host sends a request by `X-Dragonfly-Registry`.
fn by_header<'a>(ns: &'a str, name: &'a str) -> Request<'a> {
    let mut request = Request::pull(name);
    request.header_ns = Some(ns);
    (request.ns, request.ns_source) = (Some(ns), NsSource::Header);
    request
}

/// As the host sends `/v2/<ns>/<repository>/...`.
fn by_path<'a>(name: &'a str, ns: &'a str, repository: &'a str) -> Request<'a> {
    let mut request = Request::pull(name);
    (request.ns, request.ns_source, request.repository) = (Some(ns), NsSource::Path, repository);
    request
}

#[test]
fn an_image_has_one_name_by_whichever_way_it_is_asked_for() {
    let mut worker = example();
    let rewritten = "artifactory.corp docker-remote/library/alpine \
                     (rewrite docker.io/* -> artifactory.corp/docker-remote/*; tags[1])";
    let rewritten_dotted = "artifactory.corp docker-remote/org/my.app \
                            (rewrite docker.io/* -> artifactory.corp/docker-remote/*)";
    let denied = "DENIED: quay.io/org/app is not allowed here: of quay.io only coreos; ask the \
                  platform team for more";
    let cases = [
        (Request::pull_from("docker.io", "library/alpine"), rewritten),
        (Request::pull_from("docker.io", "alpine"), rewritten),
        (Request::pull_from("index.docker.io", "alpine"), rewritten),
        (Request::pull("alpine"), rewritten),
        (Request::pull("library/alpine"), rewritten),
        (by_header("registry-1.docker.io", "alpine"), rewritten),
        (by_path("index.docker.io/alpine", "index.docker.io", "alpine"), rewritten),
        (Request::pull_from("quay.io", "org/app"), denied),
        (by_header("quay.io", "org/app"), denied),
        (by_path("proxy/quay.io/org/app", "quay.io", "org/app"), denied),
        (Request::pull_from("quay.io", "coreos/etcd"), "DECLINE"),
        (Request::pull_from("ghcr.io", "org/app"), "DECLINE"),
        (Request::pull_from("unknown.example", "org/app"), "DECLINE"),
        // Hosted, or nothing at all: not ours to route.
        (Request::pull("team/app"), "DECLINE"),
        (Request::pull("quay.io"), "DECLINE"),
        (Request::pull("proxy/quay.io"), "DECLINE"),
        // A dot is no host where it stands behind a slash.
        (Request::pull("org/my.app"), rewritten_dotted),
    ];
    for (request, expected) in &cases {
        assert_eq!(&ask(&mut worker, request), expected, "{request:?}");
    }
}

#[test]
fn two_registries_in_one_request_are_refused() {
    let mut worker = example();
    let mut both = by_header("docker.io", "library/alpine");
    both.query_ns = Some("quay.io");
    let refused = ask(&mut worker, &both);
    assert!(refused.starts_with("INVALID: the request means docker.io and quay.io"), "{refused}");
    both.query_ns = Some("index.docker.io");
    assert!(ask(&mut worker, &both).starts_with("artifactory.corp "));
    // The path as well, as far as it names a declared upstream.
    for name in ["quay.io/org/app", "proxy/QUAY.io:443/org/app"] {
        let refused = ask(&mut worker, &Request::pull_from("docker.io", name));
        assert!(
            refused.starts_with("INVALID: the request means docker.io and quay.io"),
            "{refused}"
        );
    }
    let kept = ask(&mut worker, &Request::pull_from("docker.io", "else.example/app"));
    assert!(kept.starts_with("artifactory.corp docker-remote/else.example/app "), "{kept}");
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rules = |first: &str, second: &str| {
        start(&format!(
            "default_upstream = ''\n\
             [[access]]\naction = '{first}'\nimages = ['ghcr.io/a/*']\n\
             [[access]]\naction = '{second}'\nimages = ['ghcr.io/*']\n"
        ))
    };
    let (a, b) = (Request::pull_from("ghcr.io", "a/x"), Request::pull_from("ghcr.io", "b/x"));
    let mut worker = rules("allow", "deny");
    assert_eq!(ask(&mut worker, &a), "DECLINE");
    let denied = "DENIED: ghcr.io/b/x is not allowed here (access[1] of the mirror's policy)";
    assert_eq!(ask(&mut worker, &b), denied);
    let mut worker = rules("deny", "allow");
    assert!(ask(&mut worker, &a).starts_with("DENIED: ghcr.io/a/x"));
    assert_eq!(ask(&mut worker, &b), "DECLINE");
    // A last rule without conditions makes an allow list.
    let mut worker = start(
        "default_upstream = ''\n[[access]]\naction = 'allow'\nimages = ['docker.io/*', 'team/*']\n\
         [[access]]\naction = 'deny'",
    );
    assert_eq!(ask(&mut worker, &Request::pull_from("docker.io", "a/b")), "DECLINE");
    assert_eq!(ask(&mut worker, &Request::pull("team/app")), "DECLINE");
    for request in [&a, &Request::pull("other/app"), &Request::pull_from("u.example", "a")] {
        assert!(ask(&mut worker, request).starts_with("DENIED: "), "{request:?}");
    }
}

#[test]
fn rewrites_take_along_what_the_star_stood_for() {
    let mut worker = start(
        "default_upstream = 'docker.io'\n\
         [[rewrite]]\nfrom = 'docker.io/library/busybox'\nto = 'art.corp/base/busybox'\n\
         [[rewrite]]\nfrom = 'docker.io/*/app'\nto = 'ghcr.io/apps/*/image'\n\
         [[rewrite]]\nfrom = 'docker.io/*'\nto = 'artifactory.corp/*'\nclients = ['10.1.2.3']\n\
         [[rewrite]]\nfrom = 'nowhere.example/*'\nto = 'quay.io/*'\n",
    );
    let mut from = |ns, name, client: Option<[u8; 4]>| {
        let mut request = Request::pull_from(ns, name);
        request.client = client.map(Into::into);
        ask(&mut worker, &request).split(" (").next().unwrap_or_default().to_owned()
    };
    assert_eq!(from("docker.io", "busybox", None), "artifactory.corp base/busybox");
    assert_eq!(from("docker.io", "org/sub/app", None), "ghcr.io apps/org/sub/image");
    assert_eq!(from("docker.io", "org/apps", None), "DECLINE");
    assert_eq!(from("docker.io", "org/apps", Some([10, 1, 2, 3])), "artifactory.corp org/apps");
    assert_eq!(from("nowhere.example", "a", None), "quay.io a");
    let long = format!("a/{}", "b".repeat(250));
    let refused = from("docker.io", &format!("{long}/app"), None);
    assert!(refused.starts_with("INVALID: docker.io/a/bbb"), "{refused}");
}

#[test]
fn logins_go_by_address_and_principal() {
    let mut worker = example();
    let mut as_whom = |client: Option<&str>, principal: Option<&str>| {
        let mut request = Request::pull_from("docker.io", "a/b");
        request.client = client.map(|client| client.parse().unwrap());
        request.principal = principal;
        let answer = worker.resolve(&request);
        answer.candidates[0].credential.clone().unwrap_or_default()
    };
    assert_eq!(as_whom(Some("10.1.200.1"), None), "team-a");
    assert_eq!(as_whom(Some("::ffff:10.1.2.3"), None), "team-a", "IPv4 over an IPv6 listener");
    assert_eq!(as_whom(Some("fd00:1:2::3"), Some("ci-7")), "team-a", "the first that matches");
    assert_eq!(as_whom(Some("10.2.0.1"), Some("ci-7")), "builds");
    assert_eq!(as_whom(Some("10.2.0.1"), Some("dev")), "");
    assert_eq!(as_whom(None, None), "");
}

#[test]
fn tags_may_be_immutable_or_have_their_own_freshness() {
    let mut worker = example();
    let mut of = |ns, name, reference, kind| {
        let mut request = Request::pull_from(ns, name);
        (request.reference, request.kind) = (reference, kind);
        let answer = worker.resolve(&request);
        (answer.immutable, answer.tag_ttl_ms, answer.stale_max_ms)
    };
    let untouched = (false, None, None);
    for tag in ["v1", "v12.0-rc1", "1.2.3", "10.20.30-alpine"] {
        assert_eq!(of("ghcr.io", "org/app", tag, Kind::Manifest), (true, None, None), "{tag}");
    }
    for tag in ["version", "1.2", "latest", "v"] {
        assert_eq!(of("ghcr.io", "org/app", tag, Kind::Manifest), untouched, "{tag}");
    }
    let week = 7 * 24 * 3600 * 1000;
    let latest = of("docker.io", "alpine", "latest", Kind::Manifest);
    assert_eq!(latest, (false, Some(60_000), Some(week)));
    assert_eq!(of("docker.io", "org/app", "latest", Kind::Manifest), untouched);
    // Only a manifest by tag has one.
    let digest = format!("sha256:{}", "1".repeat(64));
    assert_eq!(of("docker.io", "alpine", &digest, Kind::Manifest), untouched);
    assert_eq!(of("docker.io", "alpine", &digest, Kind::Blob), untouched);
    assert_eq!(of("docker.io", "alpine", "", Kind::Tags), untouched);
}

#[test]
fn answers_are_remembered_by_what_they_depend_on() {
    let depends = |config: &str, kind: Kind| {
        let mut request = Request::pull_from("quay.io", "a/b");
        request.kind = kind;
        start(config).resolve(&request).cacheable
    };
    let deny = "default_upstream = ''\n[[access]]\naction = 'deny'\nimages = ['quay.io/*']\n";
    assert_eq!(depends(deny, Kind::Blob), Some(By::NAME), "a refusal, too");
    let of_clients = format!("{deny}clients = ['10.0.0.0/8']\n");
    assert_eq!(depends(&of_clients, Kind::Blob), Some(By::CLIENT));
    let of_principals = format!("{deny}principals = ['ci']\n");
    assert_eq!(depends(&of_principals, Kind::Blob), Some(By::PRINCIPAL));
    let of_tags = format!("{deny}[[tags]]\nimmutable = true");
    assert_eq!(depends(&of_tags, Kind::Blob), Some(By::KIND));
    assert_eq!(depends(&of_tags, Kind::Manifest), Some(By::KIND | By::REFERENCE));
}

#[test]
fn a_wrong_configuration_is_refused_by_its_key() {
    let with = |lines: &str| format!("default_upstream = ''\n{lines}");
    let cases = [
        (String::new(), "key `default_upstream` is missing: set it as in [routing]"),
        ("default_upstream = 'a.io'".into(), "key `default_upstream`: declare [[upstream]] name"),
        (with("hosted = ['a[']"), "key `hosted[0]`: \"a[\" is no pattern"),
        (with("acess = []"), "key `acess`: unknown field"),
        (with("[[access]]\nimages = ['a']"), "key `access[0]`: missing field `action`"),
        (with("[[access]]\naction = 'drop'"), "key `access[0].action`: unknown variant `drop`"),
        (with("[[access]]\naction = 'deny'\nimages = ['']"), "key `access[0].images[0]`: an empty"),
        (with("[[access]]\naction = 'deny'\nimages = ['quay.io']"), "write \"quay.io/*\""),
        (
            with("[[access]]\naction = 'deny'\nimages = ['x/*', 'index.docker.io/*']"),
            "key `access[0].images[1]`: in images index.docker.io is called docker.io",
        ),
        (
            with("[[access]]\naction = 'deny'\nimages = ['docker.io/a']"),
            "write docker.io/library/a",
        ),
        (with("[[access]]\naction = 'deny'\nclients = ['10.0.0.0/33']"), "`access[0].clients[0]`"),
        (with("[[access]]\naction = 'allow'\nreason = 'x'"), "key `access[0].reason`: only who"),
        (with("[[rewrite]]\nfrom = 'a/*/*'\nto = 'ghcr.io/*'"), "key `rewrite[0].from`: one `*`"),
        (with("[[rewrite]]\nfrom = 'a/*'\nto = 'b.io/*'"), "key `rewrite[0].to`: declare [[upst"),
        (with("[[rewrite]]\nfrom = 'a/*'\nto = 'ghcr.io'"), "key `rewrite[0].to`: expected UPSTR"),
        (with("[[rewrite]]\nfrom = 'a/*'\nto = 'ghcr.io/b'"), "key `rewrite[0].to`: a `*` in"),
        (with("[[credential]]\nupstream = 'a.io'\nname = 'x'"), "key `credential[0].upstream`"),
        (
            with("[[credential]]\nupstream = 'art.corp'\nname = 'x'"),
            "key `credential[0].name`: the upstream artifactory.corp has no [[upstream.credential]] \
             called x (it has: team-a, builds)",
        ),
        (with("[[tags]]\ntags = ['v*']"), "key `tags[0]`: it says nothing"),
        (with("[[tags]]\nimmutable = true\ntag_ttl = '1m'"), "key `tags[0]`: what is immutable"),
        (with("[[tags]]\ntag_ttl = '1 parsec'"), "key `tags[0].tag_ttl`: \"1 parsec\""),
        (with("[[tags]]\ntag_ttl = '400d'"), "key `tags[0].tag_ttl`: \"400d\": at most 366d"),
    ];
    for (config, expected) in &cases {
        let error = host().config(config).start(&PLUGIN).expect_err(config);
        assert!(error.contains(expected), "{config:?} gave {error:?}");
    }
}
