//! The chain over tables that are linked in: what needs no file.

use std::sync::Arc;

use super::answer::{Answer, Phase};
use super::declared::Declared;
use super::error::Fault;
use super::{Chain, RequestKind, Resolution, ResolveRequest, handshake};
use crate::config::Config;
use crate::oci::Namespace;

fn config(routing: &str, upstreams: &str) -> Config {
    Config::parse(&format!("[routing]\n{routing}\n{upstreams}"), "test.toml").unwrap()
}

const HUB: &str = "[[upstream]]\nnamespace = 'docker.io'\nendpoints = ['https://hub.example']\n";

fn pull(name: &str) -> ResolveRequest<'_> {
    ResolveRequest {
        method: "HEAD",
        kind: RequestKind::Blob,
        ns: None,
        header: None,
        name,
        reference: "",
        client: Some([10, 0, 0, 1].into()),
        principal: None,
        head: None,
    }
}

#[test]
fn the_embedded_configuration_loads_and_routes() {
    let chain = Chain::load(&Config::embedded().unwrap()).unwrap();
    assert_eq!(chain.names().collect::<Vec<_>>(), ["standard"]);
    let worker = chain.start_worker(0).unwrap();
    assert!(worker.resolve(&pull("alpine")).is_ok());
}

#[test]
fn every_linked_table_passes_the_handshake() {
    let table = handshake::check_linked(&ringport_plugin_standard::PLUGIN).unwrap();
    assert_eq!((table.name.as_str(), table.abi_minor), ("standard", 1));
}

#[test]
fn a_namespace_of_two_upstreams_is_refused() {
    let mut config = config("default_upstream = 'docker.io'", HUB);
    let mut second = config.upstreams[0].clone();
    second.namespace = crate::oci::Namespace::parse("other.example").unwrap();
    config.upstreams.push(second);
    // The checked configuration doesn't let this pass; a caller that builds one might.
    let error = Chain::load(&config).expect_err("ambiguous");
    assert!(matches!(error.fault, Fault::AmbiguousNamespace { .. }), "{error}");
}

#[test]
fn implied_names_yield_to_declared_ones() {
    let second = "[[upstream]]\nnamespace = 'index.docker.io'\nendpoints = ['https://b.example']\n\
                  [[upstream]]\nnamespace = 'h.example'\nendpoints = ['http://h.example']\n\
                  [[upstream]]\nnamespace = 'h.example:80'\nendpoints = ['http://c.example']\n";
    let config = config("default_upstream = 'docker.io'", &format!("{HUB}{second}"));
    let worker = Chain::load(&config).unwrap().start_worker(0).unwrap();
    let cases = [
        ("index.docker.io/a/b", "index.docker.io"),
        ("registry-1.docker.io/a/b", "docker.io"),
        ("h.example/a", "h.example"),
        ("h.example:80/a", "h.example:80"),
    ];
    for (name, upstream) in cases {
        let explanation = worker.explain(&pull(name)).to_string();
        assert!(explanation.contains(&format!("upstream: {upstream}\n")), "{explanation}");
    }
}

#[test]
fn a_resolver_that_nobody_declared_is_refused() {
    let mut config = config("default_upstream = 'docker.io'", HUB);
    config.routing.resolvers.push("corp".to_owned());
    let error = Chain::load(&config).expect_err("undeclared").to_string();
    assert!(error.starts_with("plugin corp: `routing.resolvers` names it"), "{error}");
}

/// What an answer says to these emits; `rule` and the bound of a tag's age may be missing.
fn answer(
    answer: &mut Answer,
    repository: &str,
    rule: Option<&str>,
    tag_ttl_ms: Option<u64>,
) -> Arc<Resolution> {
    answer.begin(Phase::Resolve);
    if let Some(rule) = rule {
        answer.set_rule(rule.as_bytes()).unwrap();
    }
    if let Some(ms) = tag_ttl_ms {
        answer.set_freshness(ms, ms).unwrap();
    }
    answer.add_candidate("", b"docker.io", repository.as_bytes(), [b"", b""]).unwrap();
    answer.end();
    answer.take_resolution("p", false).unwrap()
}

#[test]
fn an_answer_is_given_again_while_it_says_the_same_and_keeps_nothing_of_others() {
    let declared = Arc::new(Declared::new(&config("", HUB)).unwrap());
    let mut used = Answer::new(Arc::clone(&declared));
    let first = answer(&mut used, "a", Some("r"), None);
    assert!(Arc::ptr_eq(&first, &answer(&mut used, "a", Some("r"), None)));
    let cases = [
        ("a", None, None),
        ("a", Some("r"), Some(5)),
        ("b", Some("r"), Some(5)),
        ("b", Some("s"), None),
        ("b", Some("a\nrule\u{7f} with control characters"), None),
        ("b", Some(""), None),
        ("a", Some("r"), None),
    ];
    let mut held = Vec::new();
    for (repository, rule, ms) in cases.iter().cycle().take(70) {
        let found = answer(&mut used, repository, *rule, *ms);
        let expected = answer(&mut Answer::new(Arc::clone(&declared)), repository, *rule, *ms);
        assert_eq!(found, expected);
        held.push((found, expected));
    }
    // Those that somebody still holds were not filled again.
    assert!(held.iter().all(|(found, expected)| found == expected));
}

#[test]
fn a_worker_that_has_answered_before_answers_as_a_new_one() {
    let chain = config("default_upstream = 'docker.io'\nhosted = ['team/*']", HUB);
    let chain = Chain::load(&chain).unwrap();
    let used = chain.start_worker(0).unwrap();
    let ns = Namespace::parse("docker.io").unwrap();
    let requests = ["alpine", "a/b", "alpine", "team/x", "team/x", "docker.io/a/b", "quay.io/a"]
        .map(|name| [pull(name), ResolveRequest { ns: Some(&ns), ..pull(name) }]);
    for (number, request) in requests.iter().flatten().cycle().take(100).enumerate() {
        let new = chain.start_worker(number + 1).unwrap();
        assert_eq!(used.resolve_anew(request), new.resolve_anew(request), "{request:?}");
    }
}
