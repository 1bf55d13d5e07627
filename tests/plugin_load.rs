//! What may be loaded, what is refused and with which words, and what a broken plugin can't do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod plugin_support;

use std::path::{Path, PathBuf};

use plugin_support::{Installed, config, plugin_entry, pull};
use ringport::plugin::{Chain, PluginError, ResolveStatus, WorkerChain};

const FAULTY: &str = "ringport_plugin_faulty";

fn load(path: &Path, lines: &str) -> Result<Chain, PluginError> {
    let routing = "resolvers = ['p', 'standard']\ndefault_upstream = 'docker.io'";
    Chain::load(&config(routing, &plugin_entry("p", path, lines)))
}

fn start(path: &Path) -> WorkerChain {
    load(path, "").expect("loads").start_worker(0).expect("starts")
}

/// The refusal's text, which must name the plugin and every fragment.
#[track_caller]
fn refused(outcome: Result<Chain, PluginError>, fragments: &[&str]) {
    let error = outcome.expect_err("must be refused").to_string();
    for fragment in ["plugin p "].iter().chain(fragments) {
        assert!(error.contains(fragment), "{fragment:?} is not in: {error}");
    }
}

fn libc_path() -> PathBuf {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let libc = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    libc.map(PathBuf::from)
        .find(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libc"))
        })
        .expect("the C library is mapped")
}

/// How many descriptors of this process are a file of so many bytes in memory.
fn copies_of(bytes: usize) -> usize {
    let is_copy = |descriptor: &PathBuf| {
        let link = std::fs::read_link(descriptor).unwrap_or_default();
        let length = std::fs::metadata(descriptor).map_or(0, |metadata| metadata.len());
        link.to_string_lossy().starts_with("/memfd:") && length == bytes as u64
    };
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    descriptors.map(|entry| entry.unwrap().path()).filter(is_copy).count()
}

#[test]
fn the_same_bytes_are_loaded_once_whatever_they_are() {
    for (fault, is_good, padding) in [("0", true, 4_321), ("NO_ENTRY", false, 98_765)] {
        let compiled = Installed::compiled("faulty/specimen.c", fault);
        // Of a length that no other test's file has.
        let mut bytes = std::fs::read(&compiled.path).unwrap();
        bytes.resize(bytes.len() + padding, 0);
        let file = Installed::file(&bytes);
        for _ in 0..3 {
            assert_eq!(load(&file.path, "").is_ok(), is_good, "{fault}");
            assert_eq!(copies_of(bytes.len()), 1, "{fault}");
        }
    }
}

#[test]
fn the_file_is_checked_before_it_is_loaded() {
    let good = Installed::built(FAULTY);
    let folder = good.path.parent().unwrap();
    refused(load(&folder.join("absent.so"), ""), &["absent.so", "can't be read", "No such file"]);
    refused(load(folder, ""), &["regular file", "a folder"]);
    refused(load(&Installed::file(b"not a library").path, ""), &["dynamic linker", "refused"]);
    refused(load(&libc_path(), ""), &["`ringport_plugin_entry`", "found none"]);
    let mut relative = config("resolvers = ['p']", &plugin_entry("p", &good.path, ""));
    relative.plugins[0].path = PathBuf::from("libp.so");
    refused(Chain::load(&relative), &["(libp.so)", "an absolute path"]);
    for mode in [0o775, 0o757, 0o666] {
        good.set_mode(mode);
        refused(load(&good.path, ""), &[&format!("mode {mode:04o}"), "chmod go-w"]);
    }
    good.set_mode(0o700);
    start(&good.path);
    let long = folder.join("p".repeat(255));
    std::fs::copy(Installed::compiled("faulty/faulty.c", "LARGER_TABLE").path, &long).unwrap();
    start(&long);
}

#[test]
fn a_pipe_is_refused_without_waiting_for_its_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe.so");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    refused(load(&path, ""), &["regular file", "a pipe"]);
}

#[test]
fn the_pin_decides() {
    let file = Installed::built(FAULTY);
    let sum = std::process::Command::new("sha256sum").arg(&file.path).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap()[..64].to_owned();
    let pinned = |pin: &str| {
        let mut config = config("resolvers = ['p']", &plugin_entry("p", &file.path, ""));
        config.plugins[0].sha256 = Some(pin.to_owned());
        Chain::load(&config)
    };
    let zeros = "0".repeat(64);
    refused(pinned(&zeros), &[&format!("expected sha256 {zeros}"), &format!("found {sum}")]);
    pinned(&sum).expect("the right pin");
}

#[test]
fn a_file_that_was_replaced_or_overwritten_is_loaded_anew_beside_the_old_code() {
    let status = |worker: &WorkerChain| worker.resolve(&pull("a")).map_err(|error| error.status);
    let file = Installed::compiled("faulty/faulty.c", "0");
    let old = start(&file.path);
    let other = Installed::compiled("faulty/faulty.c", "UNKNOWN_STATUS");
    let replacements: [&dyn Fn(); 2] = [
        &|| std::fs::rename(&other.path, &file.path).unwrap(),
        // Overwritten in place, its pages are no longer those of the code that runs.
        &|| {
            std::fs::write(&file.path, b"").unwrap();
            let denied = Installed::compiled("faulty/faulty.c", "BAD_UTF8");
            std::fs::write(&file.path, std::fs::read(&denied.path).unwrap()).unwrap();
        },
    ];
    for (replace, expected) in
        replacements.iter().zip([ResolveStatus::Internal, ResolveStatus::Denied])
    {
        replace();
        let new = start(&file.path);
        assert_eq!(status(&new).unwrap_err(), expected);
        assert_eq!(status(&old).unwrap().plugin, "standard");
    }
}

#[test]
fn a_bad_table_is_refused_with_expected_got_and_remedy() {
    let cases: [(&str, &[&str]); 15] = [
        ("BAD_MAGIC", &["0x54524f50474e4952", "0x1122334455667788", "RINGPORT_PLUGIN_MAGIC"]),
        ("SHORT_TABLE", &["at least 104 bytes", "found 96", "sizeof"]),
        ("OTHER_MAJOR", &["ABI major 1", "found 2", "rebuild"]),
        ("NEWER_MINOR", &["ABI 1.1", "found 1.9", "newer server"]),
        ("UNKNOWN_CAPABILITY", &["no capability bits", "0x80"]),
        ("BAD_NAME", &["`name`", "\"Bad Name\""]),
        ("NAME_LENGTH", &["`name`", "18446744073709551615 bytes"]),
        ("NULL_NAME", &["`name`", "a null pointer"]),
        ("BAD_VERSION", &["`version`", "\"1.0\\n\""]),
        ("NULL_RESOLVE", &["the required hook `resolve` is null"]),
        ("NULL_DESTROY", &["the required hook `destroy` is null"]),
        ("REFUSES_HOST", &["returned null", "ABI 1.1"]),
        ("NO_INSTANCE", &["`configure` returned OK without setting *out"]),
        ("ROUTE_IN_CONFIGURE", &["`configure` refused", "emit_hosted outside resolve"]),
        ("WANTS_REFRESHES", &["`configure` refused", "told at once"]),
    ];
    for (fault, fragments) in cases {
        let file = Installed::compiled("faulty/faulty.c", fault);
        refused(load(&file.path, ""), fragments);
    }
    // What a broken `configure` made is ended: these bytes, which have seen that, behave now.
    load(&Installed::compiled("faulty/faulty.c", "ROUTE_IN_CONFIGURE").path, "").expect("loads");
    let file = Installed::compiled("faulty/faulty.c", "NO_WORKER");
    let error = load(&file.path, "").unwrap().start_worker(0).expect_err("refused").to_string();
    assert!(error.contains("`worker_start` returned OK without setting *out"), "{error}");
}

#[test]
fn a_text_of_an_impossible_length_is_refused_unread() {
    // 2^40 bytes from a literal on: whoever looks for its end, or quotes its begin, reads on.
    let file = Installed::compiled("faulty/specimen.c", "GARBAGE_LENGTH");
    let error = start(&file.path).resolve(&pull("a/b")).expect_err("broken");
    assert_eq!(error.status, ResolveStatus::Internal, "{error}");
    assert!(error.message.ends_with("or one with an impossible length"), "{error}");
}

#[test]
fn a_larger_table_of_the_same_version_is_taken() {
    let file = Installed::compiled("faulty/faulty.c", "LARGER_TABLE");
    assert_eq!(start(&file.path).resolve(&pull("a/b")).unwrap().plugin, "standard");
}

#[test]
fn a_bad_configuration_is_the_plugins_to_refuse_and_names_the_key() {
    let file = Installed::built(FAULTY);
    let cases: [(&str, &[&str]); 4] = [
        ("fial = 'x'", &["`configure` refused with INVALID", "key `fial`: unknown field"]),
        ("fail = 1", &["key `fail`: invalid type: integer `1`"]),
        ("fail = 'configure'", &["key `fail`: as you wish"]),
        ("fail = 'panic:configure'", &["INTERNAL", "panicked in configure: in configure"]),
    ];
    for (lines, fragments) in cases {
        refused(load(&file.path, lines), fragments);
    }
    for (lines, fragment) in [
        ("fail = 'worker_start'", "worker 1 can't start"),
        ("fail = 'panic:worker_start'", "the plugin panicked in worker_start"),
    ] {
        let chain = load(&file.path, lines).expect("configures");
        let error = chain.start_worker(1).expect_err("refused").to_string();
        assert!(error.contains("plugin p: `worker_start`") && error.contains(fragment), "{error}");
    }
}

#[test]
fn a_panic_fails_its_request_and_poisons_that_worker_only() {
    let file = Installed::built(FAULTY);
    let chain = load(&file.path, "").unwrap();
    let (broken, whole) = (chain.start_worker(0).unwrap(), chain.start_worker(1).unwrap());
    assert_eq!(broken.resolve(&pull("a/b")).unwrap().plugin, "standard");
    let error = broken.resolve(&pull("faulty/panic")).expect_err("fails closed");
    assert_eq!((error.status, error.plugin.as_str()), (ResolveStatus::Internal, "p"));
    assert!(error.message.contains("panicked in resolve: at the height of its life"), "{error}");
    // Also for requests that it would have declined: a policy that broke must not turn into none.
    let error = broken.resolve(&pull("a/b")).expect_err("poisoned");
    assert_eq!(error.status, ResolveStatus::Unavailable, "{error}");
    assert_eq!(whole.resolve(&pull("a/b")).unwrap().plugin, "standard");
    let stats = chain.stats();
    let of_broken = stats.iter().find(|s| &*s.plugin == "p" && s.worker == 0).unwrap();
    let of_whole = stats.iter().find(|s| &*s.plugin == "p" && s.worker == 1).unwrap();
    assert_eq!((of_broken.resolve.calls, of_broken.refused_calls), ([0, 1, 0, 0, 0, 0, 1], 1));
    assert!(of_broken.is_poisoned && !of_whole.is_poisoned);
}

#[test]
fn internal_and_unknown_statuses_poison_too() {
    let internal = Installed::built(FAULTY);
    let unknown = Installed::compiled("faulty/faulty.c", "UNKNOWN_STATUS");
    for (file, name, reason) in [
        (&internal, "faulty/internal", "resolver p failed: lost its table"),
        (&unknown, "a", "resolver p failed: it returned the unknown status -77"),
    ] {
        let worker = start(&file.path);
        let error = worker.resolve(&pull(name)).expect_err("fails closed");
        assert_eq!((error.status, error.message.as_str()), (ResolveStatus::Internal, reason));
        let error = worker.resolve(&pull("a/b")).expect_err("poisoned");
        assert_eq!(error.status, ResolveStatus::Unavailable);
    }
}

#[test]
fn a_broken_answer_fails_its_request_and_nothing_else() {
    let file = Installed::built(FAULTY);
    let chain = load(&file.path, "").unwrap();
    let worker = chain.start_worker(0).unwrap();
    let cases = [
        ("undeclared", "named the upstream \"169.254.169.254\", which no [[upstream]] declares"),
        ("bad-name", "\"Not A Name\" is not a repository name"),
        ("traversal", "\"a/../../etc\" is not a repository name"),
        ("both", "both a hosted repository and an upstream"),
        ("many", "more than 16 candidates"),
        ("for-ever", "above 366 days"),
        ("nothing", "returned OK without emitting a route"),
    ];
    for (fault, fragment) in cases {
        let name = format!("faulty/{fault}");
        let error = worker.resolve(&pull(&name)).expect_err(fault);
        assert_eq!(error.status, ResolveStatus::Internal, "{error}");
        assert!(error.message.contains(fragment), "{fragment:?} is not in: {error}");
    }
    assert_eq!(worker.resolve(&pull("a/b")).unwrap().plugin, "standard");
    let of_p = &chain.stats()[0];
    assert_eq!((of_p.broken_answers, of_p.is_poisoned), (7, false));
    let quiet = worker.resolve(&pull("faulty/unavailable")).expect_err("refused");
    assert_eq!(quiet.message, "resolver p gave no reason");
}

#[test]
fn nothing_is_remembered_of_a_call_in_which_something_was_refused() {
    let file = Installed::compiled("faulty/faulty.c", "UNKNOWN_DEPENDENCE");
    let chain = load(&file.path, "").unwrap();
    let worker = chain.start_worker(0).unwrap();
    for calls in [1, 2] {
        let error = worker.resolve(&pull("a")).expect_err("denied");
        assert_eq!((error.status, chain.remembered()), (ResolveStatus::Denied, 0));
        assert_eq!(chain.stats()[0].resolve.calls.iter().sum::<u64>(), calls);
    }
}

#[test]
fn strings_of_any_bytes_are_survived() {
    let null = start(&Installed::compiled("faulty/faulty.c", "NULL_STRING").path);
    let error = null.resolve(&pull("a")).expect_err("broken");
    assert!(error.message.contains("sent a null pointer"), "{error}");
    let bad_utf8 = start(&Installed::compiled("faulty/faulty.c", "BAD_UTF8").path);
    let error = bad_utf8.resolve(&pull("a")).expect_err("denied");
    assert_eq!((error.status, error.message.as_str()), (ResolveStatus::Denied, "a\u{fffd} b"));
    // Emits outside a call are refused; the plugin says in its next life what it was told.
    let file = Installed::compiled("faulty/faulty.c", "LATE_EMIT");
    for rule in ["", "refused"] {
        assert_eq!(start(&file.path).resolve(&pull("x")).unwrap().rule, rule);
    }
    // Those to the ctx of `configure` too, as long as there is the instance.
    let worker = start(&Installed::compiled("faulty/faulty.c", "EMIT_TO_CONFIGURE").path);
    assert_eq!(worker.resolve(&pull("x")).map(|r| r.rule.clone()).as_deref(), Ok(""));
}

#[test]
fn workers_start_once_at_a_time_and_may_move_between_threads() {
    let chain = load(&Installed::built(FAULTY).path, "").unwrap();
    let worker = chain.start_worker(0).unwrap();
    let error = chain.start_worker(0).expect_err("runs already").to_string();
    assert!(error.contains("worker 0 runs already"), "{error}");
    let moved = std::thread::spawn(move || worker.resolve(&pull("a/b")).map(|r| r.plugin.clone()));
    assert_eq!(moved.join().unwrap().unwrap(), "standard");
    chain.start_worker(0).expect("it has stopped, so it may start again");
    // The chain's instances live on until their last worker stops.
    let worker = chain.start_worker(1).unwrap();
    drop(chain);
    assert_eq!(worker.resolve(&pull("a/b")).unwrap().plugin, "standard");
}
