//! Every mixture of ways to name a registry against a model of them: a request goes to the one
//! upstream that all of it means, or is refused.
//!
//! 20,000 mixtures by themselves; `RINGPORT_NS_CASES=1000000` is the full form and
//! `RINGPORT_NS_SEED` replays a run that printed it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod plugin_support;
mod support;

use plugin_support::config;
use ringport::api::{Question, explain};
use ringport::plugin::Chain;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use support::chance::Chance;
use support::{number_from, tell};

/// What a text means where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    Declared(&'static str),
    Unknown,
    /// No namespace at all.
    Nonsense,
    /// Either a declared one or nonsense, never anybody else.
    Perhaps(&'static str),
}

use Means::{Declared, Nonsense, Perhaps, Unknown};

const GHCR: &str = "ghcr.io";
const HUB: &str = "docker.io";

/// Values of `ns` as they stand in a query.
const NS: &[(&str, Means)] = &[
    ("ghcr.io", Declared(GHCR)),
    ("GHCR.io", Declared(GHCR)),
    ("ghcr.io:443", Declared(GHCR)),
    ("github.example", Declared(GHCR)),
    ("%67hcr.io", Declared(GHCR)),
    ("ghcr%2Eio", Declared(GHCR)),
    ("ghcr.io%3A443", Declared(GHCR)),
    ("docker.io", Declared(HUB)),
    ("index.docker.io", Declared(HUB)),
    ("registry-1.docker.io", Declared(HUB)),
    ("ghcr.io.", Perhaps(GHCR)),
    ("ghcr.io:80", Unknown),
    ("ghcr.io:0443", Perhaps(GHCR)),
    ("ghcr.io.evil.test", Unknown),
    ("evil.test", Unknown),
    ("127.0.0.1", Unknown),
    ("169.254.169.254:80", Unknown),
    ("[::1]:80", Perhaps(GHCR)),
    ("https://ghcr.io", Nonsense),
    ("ghcr.io/x", Nonsense),
    ("ghcr.io%2Fx", Nonsense),
    ("a@ghcr.io", Nonsense),
    ("ghcr.io%00", Nonsense),
    ("ghcr.io%0d%0a", Nonsense),
    ("%2567hcr.io", Nonsense),
    ("ghcr.io?", Nonsense),
];

/// Values of the header.
const HEADERS: &[(&str, Means)] = &[
    ("ghcr.io", Declared(GHCR)),
    ("https://ghcr.io", Declared(GHCR)),
    ("HTTP://GHCR.IO:443/", Declared(GHCR)),
    ("github.example", Declared(GHCR)),
    ("docker.io", Declared(HUB)),
    ("https://index.docker.io", Declared(HUB)),
    ("http://evil.test", Unknown),
    ("http://169.254.169.254", Unknown),
    ("ghcr.io.evil.test", Unknown),
    ("%67hcr.io", Nonsense),
    ("ftp://ghcr.io", Nonsense),
    ("https://https://ghcr.io", Nonsense),
    ("https://ghcr.io/x", Nonsense),
    ("https://a@ghcr.io", Nonsense),
    ("https://ghcr.io#docker.io", Nonsense),
];

/// Hosts before the repository in a path, what they mean, and whether they could be a part of it.
const PREFIXES: &[(&str, Means, bool)] = &[
    ("ghcr.io/", Declared(GHCR), true),
    ("proxy/ghcr.io/", Declared(GHCR), true),
    ("GHCR.io/", Declared(GHCR), false),
    ("ghcr.io:443/", Declared(GHCR), false),
    ("gh%63r.io/", Declared(GHCR), true),
    ("proxy/github.example/", Declared(GHCR), true),
    ("docker.io/", Declared(HUB), true),
    ("proxy/index.docker.io/", Declared(HUB), true),
    ("evil.test/", Unknown, true),
    ("proxy/evil.test/", Unknown, true),
    ("127.0.0.1:80/", Unknown, false),
    ("ghcr.io.evil.test/", Unknown, true),
    ("a@ghcr.io/", Nonsense, false),
    ("ghcr.io%00/", Nonsense, false),
];

const REPOSITORIES: &[&str] = &["org/app", "app", "library/app", "team/app", "a/b/c"];

/// What is asked, and what it means.
struct Mixture {
    target: String,
    headers: Vec<(String, String)>,
    ns: Vec<Means>,
    header: Vec<Means>,
    prefix: Option<(&'static str, Means, bool)>,
    repository: &'static str,
}

fn mixture(chance: &mut Chance) -> Mixture {
    let some = |chance: &mut Chance| match chance.below(20) {
        0..8 => 0,
        8..19 => 1,
        _ => 2,
    };
    let prefix = chance.percent(50).then(|| *chance.of(PREFIXES));
    let repository = *chance.of(REPOSITORIES);
    let kind = *chance.of(&["manifests/v1", "tags/list"]);
    let before = prefix.map_or("", |(text, ..)| text);
    let mut target = format!("/v2/{before}{repository}/{kind}");
    let mut joint = '?';
    let mut ns = Vec::new();
    for _ in 0..some(chance) {
        let (text, means) = *chance.of(NS);
        if chance.percent(20) {
            let _ = write!(target, "{joint}n=5");
            joint = '&';
        }
        let _ = write!(target, "{joint}ns={text}");
        joint = '&';
        ns.push(means);
    }
    let (mut headers, mut header) = (Vec::new(), Vec::new());
    for _ in 0..some(chance) {
        let (text, means) = *chance.of(HEADERS);
        let name = *chance.of(&["X-Dragonfly-Registry", "x-dragonfly-registry"]);
        headers.push((name.to_owned(), text.to_owned()));
        header.push(means);
    }
    if chance.percent(30) {
        // None of our business.
        let name = *chance.of(&["X-Forwarded-Host", "Forwarded", "X-Original-URL", "Referer"]);
        headers.push((name.to_owned(), chance.of(HEADERS).0.to_owned()));
    }
    Mixture { target, headers, ns, header, prefix, repository }
}

/// Where a request may go; none of them is a refusal.
#[derive(Debug, PartialEq, Eq)]
enum Goes {
    Upstream(&'static str, String),
    Hosted(String),
    Nowhere,
}

/// The model. `default` is the upstream of requests that name none.
fn model(mixture: &Mixture, default: Option<&'static str>) -> Goes {
    let all = mixture.ns.iter().chain(&mixture.header);
    if all.clone().any(|means| *means == Nonsense)
        || mixture.ns.len() > 1
        || mixture.header.len() > 1
    {
        return Goes::Nowhere;
    }
    let mut named = all.map(|means| match means {
        Declared(upstream) | Perhaps(upstream) => Some(*upstream),
        _ => None,
    });
    let (first, second) = (named.next(), named.next());
    let in_path = mixture.prefix.map(|(_, means, _)| means);
    if in_path == Some(Nonsense) || second.is_some_and(|second| Some(second) != first) {
        return Goes::Nowhere;
    }
    let whole = || {
        let (text, _, is_name) = mixture.prefix.unwrap_or(("", Unknown, true));
        is_name.then(|| format!("{text}{}", mixture.repository))
    };
    match (first, in_path) {
        (Some(None), _) => Goes::Nowhere,
        (Some(Some(one)), Some(Declared(other))) if one != other => Goes::Nowhere,
        (_, Some(Declared(upstream))) => at(upstream, mixture.repository.to_owned()),
        (Some(Some(upstream)), _) => whole().map_or(Goes::Nowhere, |name| at(upstream, name)),
        (None, Some(_)) => Goes::Nowhere,
        (None, None) => match (mixture.repository, default) {
            ("team/app", _) | (_, None) => Goes::Hosted(mixture.repository.to_owned()),
            (repository, Some(default)) => at(default, repository.to_owned()),
        },
    }
}

fn at(upstream: &'static str, repository: String) -> Goes {
    let is_official = upstream == HUB && !repository.contains('/');
    Goes::Upstream(upstream, if is_official { format!("library/{repository}") } else { repository })
}

/// Where the router and the resolver send it.
fn asked(
    worker: &ringport::plugin::WorkerChain,
    config: &ringport::config::Config,
    mixture: &Mixture,
) -> String {
    let question = Question {
        method: "GET",
        target: &mixture.target,
        ns: None,
        headers: &mixture.headers,
        client: None,
    };
    explain(worker, config, &question).unwrap_or_default()
}

fn is_as_modelled(text: &str, expected: &Goes) -> bool {
    let line = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
    match expected {
        Goes::Upstream(upstream, repository) => {
            line("upstream: ") == Some(upstream) && line("repository: ") == Some(repository)
        }
        Goes::Hosted(repository) => {
            line("route: ") == Some("hosted") && line("repository: ") == Some(repository)
        }
        Goes::Nowhere => line("route: ").is_none() && line("upstream: ").is_none(),
    }
}

#[test]
fn all_ways_of_naming_a_registry_mean_one_or_none() {
    let cases = number_from("RINGPORT_NS_CASES", 20_000);
    let seed = Chance::seed_from("RINGPORT_NS_SEED");
    tell(&format!("RINGPORT_NS_SEED={seed}"));
    let profiles = [
        (Some(HUB), "default_upstream = 'docker.io'\nhosted = ['team/*']"),
        (None, "hosted = ['*']"),
    ];
    let counts: Vec<BTreeMap<&str, u64>> = std::thread::scope(|scope| {
        let parts = profiles.map(|(default, routing)| {
            scope.spawn(move || {
                let config = config(&format!("resolvers = ['standard']\n{routing}"), "");
                let worker = Chain::load(&config).unwrap().start_worker(0).unwrap();
                let mut counts = BTreeMap::new();
                for number in 0..cases / 2 {
                    let mixture = mixture(&mut Chance::new(seed).part(number + 1));
                    let text = asked(&worker, &config, &mixture);
                    let expected = model(&mixture, default);
                    let may_refuse = mixture.ns.iter().any(|means| matches!(means, Perhaps(_)));
                    let is_right = is_as_modelled(&text, &expected)
                        || may_refuse && is_as_modelled(&text, &Goes::Nowhere);
                    assert!(
                        is_right,
                        "{} {:?}: expected {expected:?}\n{text}",
                        mixture.target, mixture.headers
                    );
                    let end = match expected {
                        Goes::Upstream(..) => "an upstream",
                        Goes::Hosted(_) => "hosted",
                        Goes::Nowhere => "refused",
                    };
                    *counts.entry(end).or_default() += 1;
                }
                counts
            })
        });
        parts.into_iter().map(|part| part.join().unwrap()).collect()
    });
    tell(&format!("{cases} mixtures as the model says: {counts:?}"));
    let is_mixed = |counts: &BTreeMap<&str, u64>| {
        counts.len() == 3 && counts.values().all(|&count| count > cases / 400)
    };
    assert!(counts.iter().all(is_mixed));
}
