//! `ringport replay`: yesterday's requests, asked of today's resolvers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod plugin_support;
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use plugin_support::{Installed, plugin_entry};
use support::images::OCI_MANIFEST;
use support::lying::LyingUpstream;
use support::process::{Ran, run};
use support::rig::manifest;
use support::secs;
use support::server::{Server, Setup, Upstream};

/// Requests by what names their registry, 200 in all; 50 mean quay.io.
const DOCKER: usize = 100;
const QUAY_BY_NS: usize = 20;
const QUAY_BY_HEADER: usize = 15;
const QUAY_BY_PATH: usize = 15;
const HOSTED: usize = 30;
const UNDECLARED: usize = 20;
const QUAY: u64 = (QUAY_BY_NS + QUAY_BY_HEADER + QUAY_BY_PATH) as u64;
const ALL: u64 = (DOCKER + HOSTED + UNDECLARED) as u64 + QUAY;

/// A server with the standard resolver that has answered `ALL` requests, and its access log.
struct Recorded {
    server: Server,
    log: PathBuf,
    _registry: LyingUpstream,
}

fn record(what: &str) -> Recorded {
    let registry = LyingUpstream::start();
    registry.add_manifest("org/app", "v1", OCI_MANIFEST, &manifest("recorded"));
    let mut server = Setup::new(what)
        .upstream(Upstream::new("docker.io", &registry.url()))
        .upstream(Upstream::new("quay.io", &registry.url()))
        .routing("default_upstream = \"docker.io\"\nhosted = [\"team/*\"]")
        .start();
    let send = |target: &str, registry: Option<&str>| {
        let mut headers = vec![("Authorization", "Bearer hunter2")];
        headers.extend(registry.map(|registry| ("X-Dragonfly-Registry", registry)));
        server.connect().exchange("GET", target, &headers).status()
    };
    for _ in 0..DOCKER / 2 {
        assert_eq!(send("/v2/org/app/manifests/v1?ns=docker.io", None), 200);
        assert_eq!(send("/v2/org/app/manifests/v1?token=hunter2", None), 200);
    }
    for _ in 0..QUAY_BY_NS {
        assert_eq!(send("/v2/org/app/manifests/v1?ns=quay.io", None), 200);
    }
    for _ in 0..QUAY_BY_HEADER {
        assert_eq!(send("/v2/org/app/manifests/v1", Some("https://Quay.io")), 200);
    }
    for _ in 0..QUAY_BY_PATH {
        assert_eq!(send("/v2/quay.io/org/app/manifests/v1", None), 200);
    }
    for _ in 0..HOSTED {
        assert_eq!(send("/v2/team/app/manifests/v1", None), 404);
    }
    for _ in 0..UNDECLARED {
        assert_eq!(send("/v2/org/app/manifests/v1?ns=else.example", None), 404);
    }
    // Not routed, so not to be compared.
    assert_eq!(send("/v2/", None), 200);
    assert_eq!(send("/v2/org/app/manifests/v1", Some("a b")), 400);
    assert!(server.terminate(secs(30)).is_some_and(|status| status.success()));
    // The log goes to the same file.
    let lines: String = server
        .log_text()
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| line.to_owned() + "\n")
        .collect();
    assert_eq!(lines.lines().count() as u64, ALL + 2);
    assert!(!lines.contains("hunter2"), "no secret is in it");
    let log = server.scratch().file("access.log", lines);
    Recorded { server, log, _registry: registry }
}

/// The server's configuration with a policy in front.
fn with_policy(recorded: &Recorded, plugin: &Path, policy: &str) -> PathBuf {
    let old = std::fs::read_to_string(recorded.server.config()).unwrap();
    let config = format!("default_upstream = \"docker.io\"\nhosted = [\"team/*\"]\n{policy}");
    let routing = "[routing]\nresolvers = [\"policy\", \"standard\"]\n";
    let new = old.replace("[routing]\n", routing) + &plugin_entry("policy", plugin, &config);
    recorded.server.scratch().file("new.toml", new)
}

fn replay(words: &[&str], log: &Path) -> Ran {
    let mut ringport = Command::new(env!("CARGO_BIN_EXE_ringport"));
    ringport.arg("replay").args(words).arg(log);
    run(ringport, secs(60))
}

fn json(ran: &Ran) -> serde_json::Value {
    serde_json::from_str(&ran.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}{}", ran.stdout, ran.stderr))
}

#[test]
fn a_policy_that_denies_one_namespace_changes_its_requests_and_no_other() {
    let recorded = record("replay");
    let config = recorded.server.config().to_str().unwrap().to_owned();
    // As it was: nothing differs.
    let same = replay(&["--config", &config, "--json"], &recorded.log);
    assert_eq!(same.status.and_then(|s| s.code()), Some(0), "{}{}", same.stdout, same.stderr);
    let report = json(&same);
    assert_eq!((&report["same"], &report["different"]), (&ALL.into(), &0.into()));
    assert_eq!((&report["undecided"], &report["damaged"]), (&2.into(), &0.into()));

    let plugin = Installed::built("ringport_plugin_policy");
    let policy = "[[plugin.config.access]]\naction = \"deny\"\nimages = [\"quay.io/*\"]\n\
                  clients = [\"127.0.0.0/8\"]\nreason = \"ask the platform team\"\n";
    let new = with_policy(&recorded, &plugin.path, policy);
    let new = new.to_str().unwrap();
    let ran = replay(&["--config", new, "--json", "--examples", "2"], &recorded.log);
    assert_eq!(ran.status.and_then(|s| s.code()), Some(1), "{}{}", ran.stdout, ran.stderr);
    let report = json(&ran);
    assert_eq!((&report["same"], &report["different"]), (&(ALL - QUAY).into(), &QUAY.into()));
    let changes = report["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 1, "{report}");
    let change = &changes[0];
    assert_eq!((&change["before"], &change["now"]), (&"quay.io".into(), &"denied".into()));
    assert_eq!((&change["resolver"], &change["count"]), (&"policy".into(), &QUAY.into()));
    let examples = change["examples"].as_array().unwrap();
    assert_eq!(examples.len(), 2);
    assert_eq!(examples[0]["line"], DOCKER as u64 + 1);
    assert_eq!(examples[0]["request"], "GET /v2/org/app/manifests/v1?ns=quay.io from 127.0.0.1");
    let reason = "quay.io/org/app is not allowed here: ask the platform team";
    assert_eq!(examples[0]["reason"], reason);

    // For people, and with the plugin's file named on the command line.
    let other = Installed::built("ringport_plugin_policy");
    let ran = replay(&["--config", new, "--plugin", other.path.to_str().unwrap()], &recorded.log);
    assert_eq!(ran.status.and_then(|s| s.code()), Some(1));
    for part in [
        "       150 would be answered as before",
        "        50 would be answered otherwise",
        "        50 quay.io -> denied (policy)",
        "line 101: GET /v2/org/app/manifests/v1?ns=quay.io from 127.0.0.1",
        "quay.io org/app -> denied",
        reason,
    ] {
        assert!(ran.stdout.contains(part), "{part:?} is not in\n{}", ran.stdout);
    }
    assert!(ran.stderr.contains("2 lines without a decision"), "{}", ran.stderr);
}

#[test]
fn a_rewrite_and_another_freshness_are_changes_too() {
    let recorded = record("replay-rewrite");
    let plugin = Installed::built("ringport_plugin_policy");
    let policy = "[[plugin.config.rewrite]]\nfrom = \"quay.io/org/*\"\nto = \"quay.io/moved/*\"\n\
                  [[plugin.config.tags]]\nimages = [\"docker.io/*\"]\ntags = [\"v[0-9]*\"]\n\
                  immutable = true\n";
    let new = with_policy(&recorded, &plugin.path, policy);
    let ran = replay(&["--config", new.to_str().unwrap()], &recorded.log);
    assert_eq!(ran.status.and_then(|s| s.code()), Some(1), "{}", ran.stderr);
    for part in [
        "       100 docker.io -> docker.io; immutable (policy: tags[0]: immutable)",
        "        50 quay.io, under another name (policy: rewrite quay.io/org/* -> quay.io/moved/*)",
        "quay.io org/app -> quay.io moved/app",
    ] {
        assert!(ran.stdout.contains(part), "{part:?} is not in\n{}", ran.stdout);
    }
}

#[test]
fn damaged_lines_are_counted_and_told() {
    let recorded = record("replay-damage");
    let config = recorded.server.config().to_str().unwrap().to_owned();
    let text = std::fs::read_to_string(&recorded.log).unwrap();
    let first = text.lines().next().unwrap();
    let cut = &first[..first.len() / 2];
    let long = format!("{{\"path\":\"{}\"}}", "a".repeat(1 << 20));
    let foreign = "{\"method\":\"GET\",\"path\":\"/x\",\"decision\":\"denied\"}";
    let damaged = format!("{first}\n{cut}\nnot JSON\n\n{long}\n{foreign}\n{first}\n{cut}");
    let log = recorded.server.scratch().file("damaged.log", damaged);
    let ran = replay(&["--config", &config, "--json"], &log);
    assert_eq!(ran.status.and_then(|s| s.code()), Some(0), "{}{}", ran.stdout, ran.stderr);
    let report = json(&ran);
    assert_eq!((&report["lines"], &report["same"]), (&8.into(), &2.into()));
    assert_eq!((&report["damaged"], &report["first_damage"]["line"]), (&6.into(), &2.into()));
    assert!(ran.stderr.contains("6 damaged lines left out, the first is line 2"), "{}", ran.stderr);

    // What is no access log at all is not "nothing has changed".
    let ran = replay(&["--config", &config], Path::new(recorded.server.config()));
    assert_eq!(ran.status.and_then(|s| s.code()), Some(1));
    assert!(ran.stderr.contains("there is nothing to compare"), "{}", ran.stderr);
    let ran = replay(&["--config", &config], Path::new("/nowhere/access.log"));
    assert_eq!(ran.status.and_then(|s| s.code()), Some(1));
    assert!(
        ran.stderr.contains("cannot read the access log /nowhere/access.log"),
        "{}",
        ran.stderr
    );
}
