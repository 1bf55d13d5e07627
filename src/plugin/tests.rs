//! The chain over tables that are linked in: what needs no file.

use super::error::Fault;
use super::{Chain, RequestKind, ResolveRequest, handshake};
use crate::config::Config;

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
