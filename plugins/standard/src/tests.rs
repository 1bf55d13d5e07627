//! What the resolver answers for itself; the table of all routing rules is
//! `tests/plugin_resolve.rs` of the server, where it runs over the linked-in and the loaded form.

use ringport_plugin_sdk::Request;
use ringport_plugin_sdk::testing::FakeHost;

use crate::PLUGIN;

fn host() -> FakeHost {
    FakeHost::new().upstream("docker.io", &["index.docker.io"]).upstream("ghcr.io", &[])
}

fn pull(config: &str, name: &str, ns: Option<&str>) -> String {
    let mut worker = host().config(config).start(&PLUGIN).unwrap();
    let mut request = Request::pull(name);
    request.query_ns = ns;
    worker.resolve(&request).to_string()
}

#[test]
fn the_configuration_is_checked_and_errors_name_the_key() {
    let cases = [
        (
            "default_upstream = 'quay.io'",
            "key `default_upstream`: registry quay.io is not declared",
        ),
        ("default_upstream = 1", "key `default_upstream`: invalid type"),
        ("hosted = ['team/*', '']", "key `hosted[1]`"),
        ("hosted = 'team/*'", "key `hosted`"),
        ("hostd = []", "key `hostd`: unknown field"),
    ];
    for (config, expected) in cases {
        let error = host().config(config).start(&PLUGIN).expect_err(config);
        assert!(error.contains(expected), "{config:?} gave {error:?}");
    }
}

#[test]
fn the_default_may_be_named_by_an_alias() {
    let answer = pull("default_upstream = 'index.docker.io'", "alpine", None);
    assert_eq!(answer, "docker.io library/alpine (default_upstream)");
}

#[test]
fn the_undeclared_message_lists_what_is_declared_and_how_to_declare() {
    let answer = pull("", "org/app", Some("quay.io"));
    assert_eq!(
        answer,
        "NOT_FOUND: registry quay.io is not declared here (declared: docker.io, ghcr.io); to \
         mirror it, add [[upstream]] namespace = \"quay.io\", endpoints = [\"https://quay.io\"] \
         to the configuration"
    );
    let many = (0..40).fold(FakeHost::new(), |host, n| host.upstream(&format!("r{n}.io"), &[]));
    let answer = many.start(&PLUGIN).unwrap().resolve(&Request::pull("quay.io/a")).to_string();
    assert!(answer.contains("r11.io, 28 more)"), "{answer}");
    assert!(answer.len() < 500, "{answer}");
}

#[test]
fn names_outside_the_grammar_are_the_clients_error_not_ours() {
    let long = "a".repeat(250);
    for name in ["", "a//b", "A/b", "é", "foo.example:5000/x", long.as_str()] {
        let answer = pull("", name, Some("docker.io"));
        assert!(answer.starts_with("INVALID: "), "{name:?} gave {answer}");
    }
}

#[test]
fn it_keeps_the_rules_of_the_guide() {
    use ringport_plugin_conformance::{Options, Subject, World, check};
    let world = World::with_config("default_upstream = 'docker.io'\nhosted = ['team/*']");
    let options = Options { calls: 20_000, ..Options::default() };
    let report = check(Subject::linked(&PLUGIN), &world, &options);
    assert!(report.is_passed(), "{report}");
}
