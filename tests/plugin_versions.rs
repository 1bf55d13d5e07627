//! Hosts and plugins of different minors of the plugin ABI, in both directions.
//!
//! What is stored in `plugins/abi/tests/frozen` is as old as it says and never changes: the header
//! of 1.0, a plugin and a host compiled from it. A newer plugin than ours is made up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod plugin_support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use plugin_support::{Installed, config, plugin_entry, pull};
use ringport::plugin::{Chain, ResolveStatus, Route};

const FROZEN_PLUGIN: &str = "abi/tests/frozen/plugin_1_0.c";

/// What the host of 1.0 prints of a plugin that is asked for `name`, and how it ends.
fn host_1_0(plugin: &Installed, name: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let host = folder.path().join("host");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/abi/tests/frozen/host_1_0.c");
    let compiled = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([host.as_os_str(), source.as_os_str(), "-ldl".as_ref()])
        .output()
        .expect("a C compiler called `cc` is needed (Debian: apt install gcc)");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let output = Command::new(&host).arg(&plugin.path).arg(name).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_plugin_of_1_0_is_served_by_this_host() {
    let file = Installed::compiled(FROZEN_PLUGIN, "0");
    let routing = "resolvers = ['p', 'standard']\ndefault_upstream = 'docker.io'";
    let chain = Chain::load(&config(routing, &plugin_entry("p", &file.path, ""))).expect("loads");
    let worker = chain.start_worker(0).expect("starts");
    let answer = worker.resolve(&pull("library/alpine")).expect("answered");
    assert_eq!((answer.plugin.as_str(), answer.rule.as_str()), ("p", "of 1.0"));
    assert_eq!((answer.tag_ttl, answer.stale_max), (Some(Duration::from_millis(1500)), None));
    let Route::Upstream { candidates } = &answer.route else { panic!("{answer:?}") };
    assert_eq!(candidates[0].upstream.as_str(), "docker.io");
    assert_eq!(candidates[0].repository.as_str(), "library/alpine");
    let answer = worker.resolve(&pull("ours")).expect("answered");
    assert!(
        matches!(&answer.route, Route::Hosted { repository } if repository.as_str() == "team/ours")
    );
    let refusal = worker.resolve(&pull("denied")).expect_err("denied");
    assert_eq!((refusal.status, refusal.message.as_str()), (ResolveStatus::Denied, "not by 1.0"));
    assert_eq!(worker.resolve(&pull("another")).expect("answered").plugin, "standard");
}

#[test]
fn a_plugin_of_1_0_keeps_the_rules_of_today() {
    let file = Installed::compiled(FROZEN_PLUGIN, "0");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringport"));
    let output = command.args(["plugin", "check", "--calls", "2000"]).arg(&file.path).output();
    let output = output.expect("ringport runs");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("\nabi: 1.0\n") && text.contains("a host of 1.0 is served"), "{text}");
}

#[test]
fn a_host_of_1_0_serves_its_own_and_refuses_what_is_newer() {
    let frozen = Installed::compiled(FROZEN_PLUGIN, "0");
    let (status, said) = host_1_0(&frozen, "library/alpine");
    let served = "rule: of 1.0 \nttl: 1500\nupstream: docker.io library/alpine\nstatus: 0\n";
    assert_eq!((status, said.as_str()), (Some(0), served));
    // One of today, in C and made with the SDK, and one of a minor that does not exist yet.
    for (plugin, minor) in [
        (Installed::compiled("minimal-c/minimal.c", "0"), 1),
        (Installed::built("ringport_plugin_standard"), 1),
        (Installed::compiled("faulty/faulty.c", "NEWER_MINOR"), 9),
    ] {
        let (status, said) = host_1_0(&plugin, "library/alpine");
        let refusal = format!("refused: ABI minor or older: expected 0, found {minor}\n");
        assert_eq!((status, said.as_str()), (Some(3), refusal.as_str()));
    }
}

#[test]
fn this_host_refuses_a_newer_minor_and_says_the_way_out() {
    let file = Installed::compiled("faulty/faulty.c", "NEWER_MINOR");
    let routing = "resolvers = ['p']";
    let error = Chain::load(&config(routing, &plugin_entry("p", &file.path, "")));
    let error = error.expect_err("refused").to_string();
    for words in ["expected ABI 1.1 or an older minor", "found 1.9", "use a newer server"] {
        assert!(error.contains(words), "{error}");
    }
}
