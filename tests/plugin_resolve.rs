//! One table of routing cases, asked of the standard resolver in each of its forms: linked in,
//! loaded from its `.so` in place of that, and linked in behind a loaded plugin that declines.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod plugin_support;

use std::sync::Arc;
use std::time::Duration;

use plugin_support::{Installed, config, plugin_entry, pull};
use ringport::oci::Namespace;
use ringport::plugin::{Chain, Resolution, ResolveError, Route, WorkerChain};

/// What `[routing]` (or `[plugin.config]`) says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    /// A mirror for Docker Hub first of all, with a team's own images beside it.
    Default,
    /// No default upstream: what names no registry is ours.
    Ours,
    /// Hosted patterns that look like registry hosts.
    HostLike,
}

impl Profile {
    fn lines(self) -> &'static str {
        match self {
            Profile::Default => "default_upstream = 'docker.io'\nhosted = ['team/*', 'single']",
            Profile::Ours => "hosted = ['*']",
            Profile::HostLike => {
                "default_upstream = 'ghcr.io'\nhosted = ['our.example/*', 'proxy/p.example/*', \
                 'ghcr.io/*', '*.example/x', 'lone.app']"
            }
        }
    }
}

struct Case {
    profile: Profile,
    ns: &'static str,
    header: &'static str,
    name: &'static str,
    expected: &'static str,
}

/// `"ns"`, `"header"`: empty = not sent. Expected: the whole answer, or the start of a refusal.
fn case(
    profile: Profile,
    [ns, header]: [&'static str; 2],
    name: &'static str,
    expected: &'static str,
) -> Case {
    Case { profile, ns, header, name, expected }
}

fn ways_to_name_a_registry() -> Vec<Case> {
    use Profile::{Default, Ours};
    vec![
        case(Default, ["docker.io", ""], "library/alpine", "docker.io library/alpine [ns, scoped]"),
        case(Default, ["ghcr.io", ""], "org/app", "ghcr.io org/app [ns, scoped]"),
        case(Default, ["", "ghcr.io"], "org/app", "ghcr.io org/app [header]"),
        case(Default, ["", ""], "ghcr.io/org/app", "ghcr.io org/app [path prefix]"),
        case(Default, ["", ""], "proxy/ghcr.io/org/app", "ghcr.io org/app [path prefix]"),
        case(Default, ["", ""], "localhost:5711/x", "localhost:5711 x [path prefix]"),
        case(Default, ["", ""], "proxy/localhost:5711/x/y", "localhost:5711 x/y [path prefix]"),
        case(Default, ["", ""], "team/app", "hosted team/app [hosted pattern team/*]"),
        case(Default, ["", ""], "team/a/b", "hosted team/a/b [hosted pattern team/*]"),
        case(Default, ["", ""], "single", "hosted single [hosted pattern single]"),
        case(Default, ["", ""], "org/app", "docker.io org/app [default_upstream]"),
        case(Default, ["", ""], "teams/app", "docker.io teams/app [default_upstream]"),
        case(Ours, ["", ""], "org/app", "hosted org/app [hosted pattern *]"),
        case(Ours, ["docker.io", ""], "a/b", "docker.io a/b [ns, scoped]"),
        // ns and header come before hosted patterns.
        case(Default, ["ghcr.io", ""], "team/app", "ghcr.io team/app [ns, scoped]"),
        case(Default, ["", "ghcr.io"], "single", "ghcr.io single [header]"),
    ]
}

fn names_of_one_upstream() -> Vec<Case> {
    use Profile::Default;
    vec![
        case(Default, ["index.docker.io", ""], "a/b", "docker.io a/b [ns, scoped]"),
        case(Default, ["registry-1.docker.io", ""], "a/b", "docker.io a/b [ns, scoped]"),
        case(Default, ["registry.hub.docker.com", ""], "a/b", "docker.io a/b [ns, scoped]"),
        case(Default, ["", ""], "registry-1.docker.io/a/b", "docker.io a/b [path prefix]"),
        case(Default, ["github.example", ""], "a/b", "ghcr.io a/b [ns, scoped]"),
        case(Default, ["", ""], "GitHub.Example/a/b", "ghcr.io a/b [path prefix]"),
        case(Default, ["", ""], "proxy/GHCR.IO:443/a/b", "ghcr.io a/b [path prefix]"),
        // Port 80 is the default one where the scheme is http, and only there.
        case(Default, ["plain.example:80", ""], "a", "plain.example a [ns, scoped]"),
        case(Default, ["", ""], "plain.example:80/a", "plain.example a [path prefix]"),
        case(Default, ["ghcr.io:80", ""], "a", "NotFound: registry ghcr.io:80 is not declared"),
        // Official images of Docker Hub, by every route.
        case(Default, ["docker.io", ""], "alpine", "docker.io library/alpine [ns, scoped]"),
        case(Default, ["", "docker.io"], "alpine", "docker.io library/alpine [header]"),
        case(Default, ["", ""], "docker.io/alpine", "docker.io library/alpine [path prefix]"),
        case(Default, ["", ""], "alpine", "docker.io library/alpine [default_upstream]"),
        case(Default, ["ghcr.io", ""], "alpine", "ghcr.io alpine [ns, scoped]"),
    ]
}

fn two_routes_in_one_request() -> Vec<Case> {
    use Profile::Default;
    vec![
        case(Default, ["ghcr.io", "ghcr.io"], "a/b", "ghcr.io a/b [header, scoped]"),
        case(Default, ["docker.io", "index.docker.io"], "a/b", "docker.io a/b [header, scoped]"),
        case(Default, ["ghcr.io", "docker.io"], "a/b", "Invalid: the X-Dragonfly-Registry header"),
        case(Default, ["quay.io", "docker.io"], "a/b", "Invalid: the X-Dragonfly-Registry header"),
        case(Default, ["quay.io", "gcr.io"], "a/b", "Invalid: the X-Dragonfly-Registry header"),
        case(Default, ["quay.io", "quay.io"], "a/b", "NotFound: registry quay.io is not declared"),
        case(Default, ["ghcr.io", ""], "ghcr.io/a/b", "ghcr.io a/b [ns, scoped]"),
        case(Default, ["ghcr.io", ""], "github.example/a", "ghcr.io a [ns, scoped]"),
        case(Default, ["ghcr.io", ""], "proxy/ghcr.io/a", "ghcr.io a [ns, scoped]"),
        case(Default, ["", "docker.io"], "docker.io/alpine", "docker.io library/alpine [header]"),
        case(Default, ["docker.io", ""], "ghcr.io/a/b", "Invalid: ns means docker.io and the path"),
        case(Default, ["", "docker.io"], "proxy/ghcr.io/a", "Invalid: header means docker.io and"),
        case(Default, ["quay.io", ""], "ghcr.io/a/b", "Invalid: ns means quay.io and the path"),
        // A host that nobody declared is part of the name.
        case(Default, ["ghcr.io", ""], "quay.io/a/b", "ghcr.io quay.io/a/b [ns, scoped]"),
        case(Default, ["ghcr.io", ""], "proxy/a/b", "ghcr.io proxy/a/b [ns, scoped]"),
        case(Default, ["ghcr.io", ""], "ghcr.io", "ghcr.io ghcr.io [ns, scoped]"),
        case(Default, ["ghcr.io", ""], "quay.io:5000/a", "Invalid: \"quay.io:5000/a\" is not a"),
    ]
}

fn the_closed_world() -> Vec<Case> {
    use Profile::{Default, HostLike, Ours};
    vec![
        case(Default, ["quay.io", ""], "a/b", "NotFound: registry quay.io is not declared here"),
        case(Default, ["", "quay.io"], "a/b", "NotFound: registry quay.io is not declared here"),
        case(Default, ["", ""], "quay.io/a/b", "NotFound: registry quay.io is not declared here"),
        case(Default, ["", ""], "proxy/quay.io/a", "NotFound: registry quay.io is not declared"),
        case(Default, ["", ""], "localhost/a", "NotFound: registry localhost is not declared"),
        case(Default, ["", ""], "ghcr.io:8443/a", "NotFound: registry ghcr.io:8443 is not"),
        case(Default, ["127.0.0.1:22", ""], "a", "NotFound: registry 127.0.0.1:22 is not declared"),
        case(Default, ["169.254.169.254", ""], "a", "NotFound: registry 169.254.169.254 is not"),
        case(Default, ["[::1]:5000", ""], "a", "NotFound: registry [::1]:5000 is not declared"),
        // Never the default, and no catch-all pattern either: a pattern must spell the host out.
        case(Ours, ["", ""], "quay.io/a/b", "NotFound: registry quay.io is not declared here"),
        case(HostLike, ["", ""], "our.example/a", "hosted our.example/a [hosted pattern our.ex"),
        case(HostLike, ["", ""], "our.example.org/a", "NotFound: registry our.example.org is"),
        case(HostLike, ["", ""], "any.example/x", "NotFound: registry any.example is not"),
        case(HostLike, ["", ""], "proxy/p.example/a", "hosted proxy/p.example/a [hosted pattern"),
        case(HostLike, ["", ""], "p.example/a", "NotFound: registry p.example is not declared"),
        // A declared upstream comes before a hosted pattern of its name.
        case(HostLike, ["", ""], "ghcr.io/a", "ghcr.io a [path prefix]"),
        // A name that is only a host is no request for the default's repository of that name.
        case(Default, ["", ""], "ghcr.io", "NotFound: ghcr.io names a registry and no repository"),
        case(Default, ["", ""], "proxy/quay.io", "NotFound: proxy/quay.io names a registry"),
        case(HostLike, ["", ""], "lone.app", "hosted lone.app [hosted pattern lone.app]"),
        case(Ours, ["", ""], "lone.app", "hosted lone.app [hosted pattern *]"),
        // `proxy/` before anything but a host is a name.
        case(Default, ["", ""], "proxy/a/b", "docker.io proxy/a/b [default_upstream]"),
        case(Default, ["", ""], "proxy", "docker.io library/proxy [default_upstream]"),
    ]
}

fn all_cases() -> Vec<Case> {
    let tables = [
        ways_to_name_a_registry,
        names_of_one_upstream,
        two_routes_in_one_request,
        the_closed_world,
    ];
    tables.iter().flat_map(|table| table()).collect()
}

fn shown(outcome: &Result<Arc<Resolution>, Arc<ResolveError>>) -> String {
    let resolution = match outcome {
        Ok(resolution) => resolution,
        Err(error) => return format!("{:?}: {}", error.status, error.message),
    };
    let route = match &resolution.route {
        Route::Hosted { repository } => format!("hosted {repository}"),
        Route::Upstream { candidates } => {
            let one = |c: &ringport::plugin::Candidate| format!("{} {}", c.upstream, c.repository);
            candidates.iter().map(one).collect::<Vec<_>>().join(", ")
        }
    };
    let scope = if resolution.scoped_by_ns { ", scoped" } else { "" };
    format!("{route} [{}{scope}]", resolution.rule)
}

fn resolve(worker: &WorkerChain, case: &Case) -> String {
    let namespace = |text: &str| (!text.is_empty()).then(|| Namespace::parse(text).expect(text));
    let (ns, header) = (namespace(case.ns), namespace(case.header));
    let mut request = pull(case.name);
    request.ns = ns.as_ref();
    request.header = header.as_ref();
    let outcome = worker.resolve(&request);
    // Asked again, now that it may be remembered.
    assert_eq!(worker.resolve(&request), outcome);
    shown(&outcome)
}

/// Runs the table over chains that `start` makes, one for each profile.
fn check_all(start: impl Fn(Profile) -> Chain) {
    let mut wrong = Vec::new();
    for profile in [Profile::Default, Profile::Ours, Profile::HostLike] {
        let worker = start(profile).start_worker(0).expect("the worker starts");
        for case in all_cases().iter().filter(|case| case.profile == profile) {
            let answer = resolve(&worker, case);
            let right = match case.expected.ends_with(']') {
                true => answer == case.expected,
                false => answer.starts_with(case.expected),
            };
            if !right {
                wrong.push(format!(
                    "{profile:?} ns={:?} header={:?} {}\n  expected {}\n  got      {answer}",
                    case.ns, case.header, case.name, case.expected
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_linked_in_resolver_follows_the_table() {
    check_all(|profile| {
        let routing = format!("resolvers = ['standard']\n{}", profile.lines());
        Chain::load(&config(&routing, "")).expect("loads")
    });
}

#[test]
fn the_loaded_resolver_follows_the_table() {
    let file = Installed::built("ringport_plugin_standard");
    check_all(|profile| {
        let plugin = plugin_entry("loaded", &file.path, profile.lines());
        // [routing] says the opposite, to see that it is not what is asked.
        let routing = "resolvers = ['loaded']\ndefault_upstream = 'registry.corp'";
        Chain::load(&config(routing, &plugin)).expect("loads")
    });
}

#[test]
fn the_table_holds_behind_a_plugin_that_declines() {
    let file = Installed::built("ringport_plugin_faulty");
    check_all(|profile| {
        let routing = format!("resolvers = ['front', 'standard']\n{}", profile.lines());
        let plugin = plugin_entry("front", &file.path, "");
        Chain::load(&config(&routing, &plugin)).expect("loads")
    });
}

#[test]
fn a_c_plugin_answers_refuses_and_declines() {
    let file = Installed::compiled("minimal-c/minimal.c", "0");
    let routing = "resolvers = ['corp', 'standard']\ndefault_upstream = 'docker.io'";
    let chain = Chain::load(&config(routing, &plugin_entry("corp", &file.path, ""))).unwrap();
    let worker = chain.start_worker(0).unwrap();
    let cases = [
        case(
            Profile::Default,
            ["ghcr.io", ""],
            "org/app",
            "registry.corp ghcr/org/app [ghcr.io through registry.corp, scoped]",
        ),
        case(
            Profile::Default,
            ["quay.io", ""],
            "a",
            "Denied: quay.io is not allowed here; ask the platform team",
        ),
        case(Profile::Default, ["docker.io", ""], "a/b", "docker.io a/b [ns, scoped]"),
        case(Profile::Default, ["", ""], "alpine", "docker.io library/alpine [default_upstream]"),
    ];
    for case in &cases {
        assert_eq!(resolve(&worker, case), case.expected);
    }
    let explanation = worker.explain(&pull("alpine")).to_string();
    let expected = "resolver: corp declined\nresolver: standard answered\nrule: default_upstream\n\
                    route: upstream\nupstream: docker.io\nrepository: library/alpine\n";
    assert_eq!(explanation, expected);
    let of_corp = &chain.stats()[0];
    // Each of the four once, since all may be remembered, and once to explain.
    assert_eq!((&*of_corp.plugin, of_corp.resolve.calls), ("corp", [1, 3, 0, 1, 0, 0, 0]));
    assert_eq!(of_corp.resolve.durations.iter().sum::<u64>(), 5);
    assert_eq!(chain.remembered(), 4);
}

#[test]
fn a_plugin_may_give_several_candidates_and_bounds_of_freshness() {
    let file = Installed::built("ringport_plugin_faulty");
    let config = config("resolvers = ['several']", &plugin_entry("several", &file.path, ""));
    let worker = Chain::load(&config).unwrap().start_worker(0).unwrap();
    let resolution = worker.resolve(&pull("faulty/fresh")).unwrap();
    assert_eq!(resolution.tag_ttl, Some(Duration::ZERO));
    assert_eq!(resolution.stale_max, Some(Duration::from_millis(1500)));
    // Two names of one upstream are one candidate.
    assert_eq!(shown(&Ok(resolution)), "docker.io a, ghcr.io a []");
    let long = worker.resolve(&pull("faulty/long-text")).unwrap();
    assert!(long.rule.len() <= 256 && !long.rule.contains('\n'), "{:?}", long.rule);
    let declined = shown(&worker.resolve(&pull("other")));
    assert_eq!(
        declined,
        "NotFound: no resolver knows other (asked: several); \"standard\" as the last of \
         routing.resolvers answers what others decline"
    );
}
