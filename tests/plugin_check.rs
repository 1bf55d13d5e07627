//! `ringport plugin check`: every plugin of ours keeps every rule, and of every specimen in
//! `plugins/faulty` exactly the rule it breaks fails, in words that say the remedy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod plugin_support;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use plugin_support::Installed;

/// Rules that have no probe: a reader has to look.
const BY_REVIEW: [u8; 6] = [1, 2, 4, 9, 17, 18];

/// How our own plugins come to be files.
enum Form {
    /// A workspace member's library.
    Built(&'static str),
    /// A C file below `plugins`.
    C(&'static str),
}

/// Every plugin of ours, with a file that holds an example of its `[plugin.config]`, if it needs
/// any. A new one is added here.
const FIRST_PARTY: [(Form, Option<&str>); 5] = [
    (Form::Built("ringport_plugin_standard"), None),
    (Form::Built("ringport_plugin_policy"), Some("policy/policy.toml")),
    (Form::Built("ringport_plugin_shard"), Some("shard/shard.toml")),
    (Form::C("minimal-c/minimal.c"), None),
    (Form::C("faulty/specimen.c"), None),
];

/// What the examples name.
const DECLARED: &str = r#"
[[upstream]]
namespace = "docker.io"
[[upstream]]
namespace = "ghcr.io"
[[upstream]]
namespace = "quay.io"
[[upstream]]
namespace = "node-b.mirror"
forward_ns = true
[[upstream]]
namespace = "node-c.mirror"
forward_ns = true
[[upstream]]
namespace = "artifactory.corp"
[[upstream.credential]]
name = "team-a"
token_file = "TOKEN"
[[upstream.credential]]
name = "builds"
token_file = "TOKEN"
"#;

fn run(arguments: &[&str], file: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringport"));
    let command = command.args(["plugin", "check"]).args(arguments).arg(file);
    command.output().expect("ringport runs")
}

/// The report's lines as (rule, verdict), and all of it.
fn check(arguments: &[&str], file: &Path) -> (Option<i32>, Vec<(u8, String)>, String) {
    let output = run(arguments, file);
    let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8");
    let verdict = |line: &str| {
        let (number, rest) = line.split_at_checked(4)?;
        let number = number.strip_suffix("  ")?.trim().parse().ok()?;
        Some((number, rest.get(..14)?.trim().to_owned()))
    };
    let verdicts = text.lines().filter_map(verdict).collect();
    (output.status.code(), verdicts, text)
}

fn calls() -> String {
    std::env::var("RINGPORT_TEST_PLUGIN_CALLS").unwrap_or_else(|_| "20000".to_owned())
}

/// A folder with a server's configuration: the upstreams of `DECLARED` and one plugin.
fn configuration(config: &str, file: &Path) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    std::fs::write(&token, "secret").expect("written");
    std::fs::set_permissions(&token, Permissions::from_mode(0o600)).expect("chmod");
    let declared = DECLARED.replace("TOKEN", token.to_str().expect("UTF-8"));
    let mut all: toml::Table = declared.parse().expect("TOML");
    let mut plugin = toml::Table::new();
    plugin.insert("name".to_owned(), "checked".into());
    plugin.insert("path".to_owned(), file.to_str().expect("UTF-8").into());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins").join(config);
    let config: toml::Table = std::fs::read_to_string(path).unwrap().parse().expect("TOML");
    plugin.insert("config".to_owned(), config.into());
    all.insert("plugin".to_owned(), vec![toml::Value::from(plugin)].into());
    let path = folder.path().join("ringport.toml");
    std::fs::write(&path, all.to_string()).expect("written");
    (folder, path)
}

#[test]
fn every_plugin_of_ours_keeps_every_rule() {
    for (form, config) in FIRST_PARTY {
        let (name, installed) = match form {
            Form::Built(library) => (library, Installed::built(library)),
            Form::C(source) => (source, Installed::compiled(source, "0")),
        };
        let config = config.map(|config| configuration(config, &installed.path));
        let calls = calls();
        let mut arguments = vec!["--calls", &calls];
        if let Some((_folder, config)) = &config {
            arguments.extend(["--config", config.to_str().unwrap()]);
        }
        let (status, verdicts, text) = check(&arguments, &installed.path);
        assert_eq!(status, Some(0), "{name}: {text}");
        assert_eq!(verdicts.len(), 19, "{name}: {text}");
        for (rule, verdict) in verdicts {
            let expected = if BY_REVIEW.contains(&rule) { "by review" } else { "pass" };
            assert_eq!(verdict, expected, "{name}: rule {rule}: {text}");
        }
        assert!(text.contains("\nabi: 1.1\n") && text.contains("p99"), "{name}: {text}");
        let answered = "no request of the kit was answered";
        assert!(!text.contains(answered), "{name}: it was not really looked at: {text}");
    }
}

/// Specimens of one file: the fault, the rule that fails, and words of its lines.
type Specimens = &'static [(&'static str, u8, &'static [&'static str])];

#[track_caller]
fn only_the_right_rule_fails(source: &str, specimens: Specimens, patience: &str) {
    for (fault, rule, words) in specimens {
        let file = Installed::compiled(source, fault);
        let (status, verdicts, text) =
            check(&["--calls", "20000", "--patience", patience], &file.path);
        assert_eq!(status, Some(1), "{fault}: {text}");
        let failed: Vec<u8> =
            verdicts.iter().filter(|(_, v)| v == "FAIL").map(|(rule, _)| *rule).collect();
        assert_eq!(failed, [*rule], "{fault}: {text}");
        let lines = text.split("FAIL").nth(1).unwrap_or_default();
        for word in ["expected: ", "found:    ", "remedy:   "].iter().chain(*words) {
            assert!(lines.contains(word), "{fault}: {word:?} is not in: {text}");
        }
    }
}

#[test]
fn tables_that_are_wrong() {
    let of_tables: Specimens = &[
        ("REFUSES_HOST", 5, &["null", "whatever the host's version"]),
        ("BAD_MAGIC", 5, &["0x54524f50474e4952", "0x1122334455667788", "RINGPORT_PLUGIN_MAGIC"]),
        ("SHORT_TABLE", 5, &["at least 104 bytes", "size 96", "sizeof(ringport_plugin)"]),
        ("OTHER_MAJOR", 6, &["ABI major 1", "major 2", "ringport_plugin.h"]),
        ("NEWER_MINOR", 6, &["ABI 1.1 or an older minor", "1.9", "newer server"]),
        ("UNKNOWN_CAPABILITY", 5, &["0x80", "RINGPORT_CAN_*"]),
        ("BAD_NAME", 5, &["[a-z][a-z0-9_-]*", "Bad Name"]),
        ("NAME_LENGTH", 5, &["18446744073709551615 bytes"]),
        ("NULL_NAME", 5, &["a null pointer"]),
        ("BAD_VERSION", 5, &["printable ASCII", "1.0\\n"]),
        ("NULL_RESOLVE", 5, &["the required hook `resolve`", "fill every hook"]),
        ("NULL_DESTROY", 5, &["the required hook `destroy`"]),
        ("NO_INSTANCE", 11, &["OK from configure with *out left null", "set *out"]),
        ("NO_WORKER", 11, &["OK from worker_start with *out left null"]),
        ("UNKNOWN_STATUS", 15, &["the unknown status -77 from resolve"]),
        ("NULL_STRING", 8, &["emit_hosted with a null pointer and length 5", "{NULL, 0}"]),
        ("ROUTE_IN_CONFIGURE", 11, &["emit_hosted in configure"]),
        ("LATE_EMIT", 10, &["emit_rule with the ctx of resolve after it had returned"]),
    ];
    only_the_right_rule_fails("faulty/faulty.c", of_tables, "10");
}

#[test]
fn symbols_versions_and_data_that_are_wrong() {
    let specimens: Specimens = &[
        ("NO_ENTRY", 3, &["`ringport_plugin_entry`", "export!"]),
        ("ENTRY_IS_DATA", 3, &["a function called ringport_plugin_entry"]),
        ("EXTRA_SYMBOL", 3, &["ringport_extra", "-fvisibility=hidden"]),
        ("SYMBOL_OF_HOST", 3, &["ringport_of_the_host", "through its table"]),
        ("BIT_WITHOUT_HOOK", 5, &["`place`", "take the bit away"]),
        ("CONFIGURE_REFUSES", 5, &["INVALID: key `target`: missing", "--config FILE"]),
        ("REFUSES_NEWER_HOST", 6, &["null", "whatever the host's version"]),
        ("SAYS_TOO_OLD_A_MINOR", 6, &["signal 11", "rule 6", "older host"]),
        ("WANTS_EXACT_SIZE", 7, &["INVALID", "min(size, your sizeof)"]),
        ("UNKNOWN_BITS", 7, &["0x1000000000000000", "RINGPORT_BY_*"]),
        ("NO_STRUCT_SIZE", 7, &["emit_candidate with size 0", "sizeof()"]),
        ("READS_TO_NUL", 8, &["which is not UTF-8", "not at a NUL"]),
        ("GARBAGE_LENGTH", 8, &["length 1099511627776"]),
        ("NAME_NOT_UTF8", 8, &["which is not UTF-8"]),
        ("READS_EMPTY_STRING", 8, &["signal 11", "rule 8"]),
        ("FIXED_BUFFER", 8, &["rule 8", "only `len` bytes"]),
    ];
    only_the_right_rule_fails("faulty/specimen.c", specimens, "10");
}

#[test]
fn owners_lives_and_threads_that_are_wrong() {
    let specimens: Specimens = &[
        ("KEEPS_ARGUMENTS", 10, &["DENIED", "copy what you want to keep"]),
        ("WRITES_LATER", 10, &["after its call had returned", "never write"]),
        ("ENDS_NULL_BADLY", 10, &["signal 11", "stop and destroy nothing"]),
        ("FREES_TWICE", 10, &["signal 6", "double free", "once"]),
        ("USES_FREED", 10, &["signal 11", "rule 10"]),
        ("LEAKS_A_CALL", 10, &["calls, 4 times in a row", "free what a call made"]),
        ("LEAKS_A_LIFE", 10, &["lives, 4 times in a row", "destroy the instance"]),
        ("LEAKS_DESCRIPTORS", 10, &["50 more descriptors"]),
        ("SUCCESSOR_POINTS_BACK", 10, &["outlives the instance it was made from"]),
        ("GLOBAL_STATE", 11, &["no globals"]),
        ("COUNTS", 12, &["the first answer again", "no counters, clocks, chance"]),
        ("THREAD_LOCAL", 12, &["DENIED", "share nothing"]),
        ("OTHER_THREAD", 12, &["emit_rule on another thread", "on the thread"]),
        ("REMEMBERED_TOO_WIDELY", 12, &["RINGPORT_BY_KIND"]),
    ];
    only_the_right_rule_fails("faulty/specimen.c", specimens, "10");
}

#[test]
fn answers_that_are_wrong() {
    let specimens: Specimens = &[
        ("UNDECLARED_UPSTREAM", 14, &["evil.example", "docker.io, ghcr.io"]),
        ("UNDECLARED_CREDENTIAL", 14, &["\"root\"", "a declared one"]),
        ("BAD_REPOSITORY", 14, &["../../etc", "is_repository_name"]),
        ("TWO_ROUTES", 14, &["beside another route", "emit one of them"]),
        ("FRESH_FOR_EVER", 14, &["18446744073709551614", "RINGPORT_MS_UNSET"]),
        ("UNDECLARED_POOL", 14, &["\"/etc\"", "a declared pool"]),
        ("UNDECLARED_POOL_BY_DIGEST", 14, &["\"/etc\"", "a declared pool"]),
        ("PASSES_HOSTED_THROUGH", 14, &["PASS_THROUGH", "cache or pin"]),
        ("HEADER_OF_SECRETS", 14, &["want_header of \"authorization\""]),
        ("OK_WITHOUT_ROUTE", 15, &["OK without one", "DECLINE"]),
        ("NEVER_DECIDES", 15, &["UNAVAILABLE to all of"]),
        ("INTERNAL", 15, &["INTERNAL from resolve: lost its table"]),
        ("PLACE_UNKNOWN_STATUS", 15, &["the unknown status 1000 from place"]),
        ("CRASHES_AT_LOAD", 16, &["signal 6", "load the file"]),
        ("EXITS", 16, &["the process was ended", "the host's to end"]),
        ("ABORTS", 16, &["signal 6", "never abort"]),
        ("UNWINDS", 16, &["signal 6", "catch every exception and panic"]),
    ];
    only_the_right_rule_fails("faulty/specimen.c", specimens, "10");
}

#[test]
fn plugins_that_take_their_time() {
    let slow: Specimens = &[
        ("SLEEPS", 13, &["times asleep in 1000 calls", "no sleep, lock or I/O"]),
        ("SPINS", 13, &["p50 ", "budget 20", "what resolve only looks up"]),
    ];
    only_the_right_rule_fails("faulty/specimen.c", slow, "10");
    let stuck: Specimens = &[
        ("HANGS", 13, &["no end within 3 s", "what is slow belongs into refresh"]),
        ("HANGS_IN_CONFIGURE", 11, &["no end within 3 s", "configure, start"]),
    ];
    only_the_right_rule_fails("faulty/specimen.c", stuck, "3");
    // Not the process's doing, which has ended: one that it started holds its descriptors.
    let survived: Specimens = &[("EXITS_BESIDE_A_CHILD", 16, &["the process was ended"])];
    only_the_right_rule_fails("faulty/specimen.c", survived, "3");
}

/// Only `resolve` is asked to be quick. Fifty lives of this one take longer than the patience.
#[test]
fn a_plugin_whose_configure_takes_its_time_keeps_the_rules() {
    let file = Installed::compiled("faulty/specimen.c", "SLOW_TO_CONFIGURE");
    let (status, _, text) = check(&["--calls", "20000", "--patience", "2"], &file.path);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("nothing is left of "), "{text}");
}

#[test]
fn the_pin_of_the_entry_counts_for_the_file_that_it_names() {
    let file = Installed::compiled("faulty/specimen.c", "0");
    let (folder, config) = configuration("policy/policy.toml", &file.path);
    let pinned = |path: &Path| {
        let mut all: toml::Table = std::fs::read_to_string(&config).unwrap().parse().unwrap();
        let entry = all["plugin"].as_array_mut().unwrap()[0].as_table_mut().unwrap();
        entry.insert("path".to_owned(), path.to_str().unwrap().into());
        entry.insert("sha256".to_owned(), "0".repeat(64).into());
        std::fs::write(&config, all.to_string()).unwrap();
        check(&["--calls", "100", "--config", config.to_str().unwrap()], &file.path)
    };
    let (status, _, text) = pinned(&file.path);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains(" 5  FAIL") && text.contains(&"0".repeat(64)), "{text}");
    // A plugin is checked before it lies where the configuration wants it: the pin may be another's.
    let (_, _, text) = pinned(&folder.path().join("plugin.so"));
    assert!(!text.contains(" 5  FAIL"), "{text}");
}

#[test]
fn misuse_is_told_apart_from_a_broken_rule() {
    let file = Installed::compiled("faulty/specimen.c", "0");
    let said = |arguments: &[&str], file: &Path| {
        let output = run(arguments, file);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let absent = file.path.with_file_name("absent.so");
    assert!(said(&[], &absent).contains("absent.so: No such file"));
    assert!(said(&[], file.path.parent().unwrap()).contains("is not a file"));
    let config = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let arguments = ["--config", config.path().to_str().unwrap()];
    assert!(said(&arguments, &file.path).contains("none of its [[plugin]] entries"));
    std::fs::write(config.path(), "[[upstreams]]").unwrap();
    let words = said(&arguments, &file.path);
    assert!(words.contains("did you mean `upstream`?"), "{words}");
    // What the server would refuse to load is a broken rule.
    file.set_mode(0o775);
    let (status, _, text) = check(&[], &file.path);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains(" 5  FAIL") && text.contains("run chmod go-w"), "{text}");
    let text = Installed::file(b"no library");
    let (_, _, text) = check(&[], &PathBuf::from(&text.path));
    assert!(text.contains(" 5  FAIL") && text.contains("dynamic linker refused"), "{text}");
}
