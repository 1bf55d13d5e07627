//! The plugins that `plugins/README.md` tells how to write, built from its text alone, loaded and
//! asked: what an author would do on the first afternoon.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "nothing here runs on a worker")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use support::http::{self, Connection};
use support::images::OCI_MANIFEST;
use support::lying::LyingUpstream;
use support::process::run;
use support::rig::manifest;
use support::scratch::Scratch;
use support::server::{Setup, Upstream};
use support::{number_from, secs};

/// The issue's bound of each: what is longer is no first afternoon.
const LINES_MAX: usize = 60;

/// Requests, and what `explain` says of each.
const CASES: [(&[&str], &[&str]); 7] = [
    (&["--ns", "ghcr.io", "GET", "/v2/org/app/manifests/v1"], &REWRITTEN),
    (&["--header", "X-Dragonfly-Registry: GHCR.io", "GET", "/v2/org/app/tags/list"], &REWRITTEN),
    (&["GET", "/v2/ghcr.io/org/app/manifests/v1"], &REWRITTEN),
    (&["--ns", "quay.io", "GET", "/v2/org/app/manifests/v1"], &DENIED),
    (&["GET", "/v2/quay.io/org/app/manifests/v1"], &DENIED),
    (
        &["--ns", "registry.corp", "HEAD", "/v2/team/app/manifests/v1"],
        &["resolver: corp declined", "upstream: registry.corp", "repository: team/app"],
    ),
    (&["GET", "/v2/team/app/manifests/v1"], &["resolver: corp declined", "route: hosted"]),
];
const REWRITTEN: [&str; 4] = [
    "resolver: corp answered",
    "rule: ghcr.io through",
    "upstream: registry.corp",
    "repository: ghcr/org/app",
];
const DENIED: [&str; 3] =
    ["resolver: corp refused", "refusal: denied", "quay.io is not allowed here; ask the platform"];

#[test]
fn the_rust_plugin() {
    let scratch = Scratch::new("readme-rust");
    let sdk = root().join("plugins/sdk");
    let manifest = block("`Cargo.toml`:", "toml");
    let told = "../ringport/plugins/sdk";
    assert!(manifest.contains(told), "where the SDK is:\n{manifest}");
    // With the profile and the versions of this workspace, what it has built already is used.
    let profile = "\n[profile.dev]\ndebug = \"line-tables-only\"\n";
    scratch.file("Cargo.toml", manifest.replace(told, sdk.to_str().unwrap()) + profile);
    std::fs::copy(root().join("Cargo.lock"), scratch.path().join("Cargo.lock")).unwrap();
    let code = block("`src/lib.rs`:", "rust");
    assert!(code.lines().count() < LINES_MAX, "{} lines", code.lines().count());
    let test = block("real function table against a fake host:", "rust,ignore");
    std::fs::create_dir(scratch.path().join("src")).unwrap();
    scratch.file("src/lib.rs", format!("{code}\n{test}"));
    let deps = std::env::current_exe().expect("the test's own path");
    let target = deps.ancestors().nth(3).expect("target/<profile>/deps/<test>");
    for words in [["build", "--offline"], ["test", "--offline"]] {
        let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
        cargo.args(words).arg("--target-dir").arg(target).current_dir(scratch.path());
        run(cargo, secs(300)).expect_ok();
    }
    let built = target.join("debug/libcorp.so");
    expect_answers(&scratch, &built, |config| config.to_owned());
    expect_reloads(&scratch);
    std::fs::remove_file(built).unwrap();
}

#[test]
fn the_c_plugin() {
    let scratch = Scratch::new("readme-c");
    let code = block("`minimal.c`, which needs nothing but `ringport_plugin.h`:", "c");
    assert!(code.lines().count() < LINES_MAX, "{} lines", code.lines().count());
    let shipped = std::fs::read_to_string(root().join("plugins/minimal-c/minimal.c")).unwrap();
    assert_eq!(code, shipped, "plugins/README.md and plugins/minimal-c/minimal.c are one text");
    scratch.file("minimal.c", code);
    let told = block("```c", "sh");
    let words: Vec<&str> = told.split_whitespace().collect();
    assert_eq!(words[0], "cc", "{told}");
    let mut cc = Command::new(words[0]);
    let header = root().join("plugins/abi/include");
    cc.args(words[1..].iter().map(|word| match *word {
        "plugins/abi/include" => header.to_str().unwrap(),
        word => word,
    }));
    cc.args(["-Wall", "-Wextra", "-Werror"]).current_dir(scratch.path());
    run(cc, secs(60)).expect_ok();
    // It reads no configuration and does not mind one.
    expect_answers(&scratch, &scratch.path().join("libcorp.so"), |config| config.to_owned());
    expect_reloads(&scratch);
    // It says what it lacks.
    let lacking =
        |config: &str| config.replace("namespace = \"registry.corp\"", "namespace = \"b.io\"");
    let said = explain(&scratch, lacking, CASES[0].0);
    assert!(said.contains("declare [[upstream]] namespace = \"registry.corp\""), "{said}");
}

#[test]
fn the_makefile_of_the_c_plugin() {
    let scratch = Scratch::new("readme-make");
    let folder = root().join("plugins/minimal-c");
    for name in ["Makefile", "minimal.c"] {
        std::fs::copy(folder.join(name), scratch.path().join(name)).unwrap();
    }
    let include = format!("INCLUDE={}", root().join("plugins/abi/include").display());
    let mut make = Command::new("make");
    make.arg(include).current_dir(scratch.path());
    run(make, secs(60)).expect_ok();
    assert!(scratch.path().join("minimal.so").exists());
}

/// Installs the file as the page says, and asks `explain` all cases.
fn expect_answers(scratch: &Scratch, built: &Path, change: impl Fn(&str) -> String) {
    let installed = installed(scratch);
    std::fs::copy(built, &installed).unwrap();
    std::fs::set_permissions(&installed, std::fs::Permissions::from_mode(0o755)).unwrap();
    for (request, expected) in CASES {
        let said = explain(scratch, &change, request);
        for line in expected {
            assert!(said.contains(line), "{request:?}: expected {line:?} in\n{said}");
        }
    }
}

/// Serves with the installed plugin, and replaces it by a copy again and again under load: no
/// request fails, and none gets another answer.
fn expect_reloads(scratch: &Scratch) {
    let corp = LyingUpstream::start();
    corp.add_manifest("ghcr/org/app", "v1", OCI_MANIFEST, &manifest("corporate"));
    let plugin = installed(scratch);
    let settings = "[plugin.config]\nregistry = \"registry.corp\"\ndenied = [\"quay.io\"]\n";
    let server = Setup::new("readme-reload")
        .upstream(Upstream::new("registry.corp", &corp.url()).set("tag_ttl = \"1h\""))
        .routing("resolvers = [\"corp\", \"standard\"]")
        .more(&format!("[[plugin]]\nname = \"corp\"\npath = {plugin:?}\n{settings}"))
        .start();
    let wanted = number_from("RINGPORT_TEST_RELOAD_REQUESTS", 2_000);
    let (done, wrong) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let mut reloads = 0;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while done.load(Ordering::Relaxed) < wanted {
                    let mut connection = Connection::open(server.addr);
                    for (ns, status) in [("ghcr.io", 200), ("quay.io", 403)].repeat(50) {
                        let target = format!("/v2/org/app/manifests/v1?ns={ns}");
                        let answer = connection.exchange("GET", &target, &[]);
                        if answer.status() != status {
                            wrong.lock().unwrap().push(format!("{ns}: {}", answer.text()));
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        while done.load(Ordering::Relaxed) < wanted || reloads < 3 {
            let new = plugin.with_extension("new");
            std::fs::copy(&plugin, &new).unwrap();
            std::fs::rename(&new, &plugin).unwrap();
            let answer = http::send_body(server.admin, "POST", "/reload", "text/plain", b"");
            assert_eq!(answer.status(), 200, "{}", answer.text());
            reloads += 1;
        }
    });
    let wrong = wrong.into_inner().unwrap();
    println!("{reloads} reloads, {} requests, {} wrong", done.into_inner(), wrong.len());
    assert!(wrong.is_empty(), "{:?}", wrong.first());
}

/// What `ringport explain` says, on both outputs, with the configuration of the page.
fn explain(scratch: &Scratch, change: impl Fn(&str) -> String, request: &[&str]) -> String {
    let told = "/usr/lib/ringport/libcorp.so";
    let config = block("## Install it", "toml");
    assert!(config.contains(told), "where the plugin lies:\n{config}");
    let config = change(&config).replace(told, installed(scratch).to_str().unwrap());
    let config = scratch.file("ringport.toml", config);
    let mut ringport = Command::new(env!("CARGO_BIN_EXE_ringport"));
    ringport.arg("explain").arg("--config").arg(config).args(request);
    let ran = run(ringport, secs(30));
    assert!(ran.status.is_some(), "explain ends");
    ran.stdout + &ran.stderr
}

fn installed(scratch: &Scratch) -> PathBuf {
    scratch.path().join("installed.so")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The first block of this language behind `mark` on the page.
#[track_caller]
fn block(mark: &str, language: &str) -> String {
    let page = std::fs::read_to_string(root().join("plugins/README.md")).expect("the page");
    let (_, rest) = page.split_once(mark).unwrap_or_else(|| panic!("{mark} is gone"));
    let fence = format!("\n```{language}\n");
    let (_, rest) =
        rest.split_once(&fence).unwrap_or_else(|| panic!("no {language} behind {mark}"));
    rest.split_once("```").expect("the block's end").0.to_owned()
}
