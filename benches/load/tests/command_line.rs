//! `ringport-bench` as a program: what it refuses, and that nothing of a run outlives it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringport-bench"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[test]
fn it_lists_what_it_measures() {
    let output = bench(&["--list"]).output().unwrap();
    assert!(output.status.success());
    let text = said(&output);
    for name in ["blob_hit", "manifest_hit", "hot_beside_cold", "two_cores"] {
        assert!(text.contains(name), "{text}");
    }
}

#[test]
fn what_it_does_not_know_is_refused_with_what_it_knows() {
    for (arguments, expected) in [
        (vec!["--scenario", "nope"], "there are blob_hit, "),
        (vec!["--url", "mine"], "expected NAME=URL"),
        (vec!["--command", "nginx=x"], "name it otherwise"),
        (vec!["--seconds", "0"], "expected 0.05 to 3600"),
        (vec!["--server", "nope"], "there are ringport, "),
        (vec!["--case", "64 KiB", "nope"], "there are 64 KiB x 1; "),
        (vec!["--client-cores", "1000"], "core 1000: this process may use the cores ["),
        (vec!["--url", "a=http://a:1", "--command", "a=b"], "named already"),
    ] {
        let output = bench(&arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(said(&output).contains(expected), "{arguments:?}: {}", said(&output));
    }
}

/// A run whose only server never listens, and that server's process.
#[allow(clippy::zombie_processes, reason = "who calls waits; a test that fails ends the process")]
fn run_that_waits(folder: &std::path::Path, seconds: &str) -> (Child, Pid) {
    let server = format!("waits=sleep {seconds}");
    let data = folder.to_string_lossy();
    let run = bench(&["--network", "host", "--scenario", "base", "--server", "waits"])
        .args(["--rounds", "1", "--data", &data, "--command", &server])
        .spawn()
        .unwrap();
    let children = format!("/proc/{0}/task/{0}/children", run.id());
    let is_server = |pid: &&str| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line == [b"sleep\0", seconds.as_bytes(), b"\0"].concat()
    };
    let began = Instant::now();
    // What /proc says has to be looked at again and again: it tells nobody that it changes.
    while began.elapsed() < Duration::from_secs(30) {
        let text = fs::read_to_string(&children).unwrap_or_default();
        if let Some(pid) = text.split_whitespace().find(is_server) {
            return (run, Pid::from_raw(pid.parse().unwrap()).unwrap());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("the server was not started");
}

fn await_end(pid: Pid) {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let began = Instant::now();
    // An orphan may wait for whoever inherited it, and it is not our child: /proc has to be asked.
    while fs::read_to_string(&path).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(began.elapsed() < Duration::from_secs(30), "the server outlived its run");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The process with this command line, if there is one.
fn process_of(command: &[u8]) -> Option<Pid> {
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let number = || entry.file_name().to_str()?.parse().ok();
        (line == command).then(number).flatten().and_then(Pid::from_raw)
    })
}

#[test]
fn what_a_server_leaves_behind_ends_too() {
    let folder = tempfile::tempdir().unwrap();
    // A name of its own, and an end even if nobody ends it.
    let seconds = format!("60.{}", std::process::id());
    let output = bench(&["--network", "host", "--scenario", "base", "--server", "leaves"])
        .args(["--rounds", "1", "--data", &folder.path().to_string_lossy()])
        .args(["--command", &format!("leaves=sleep {seconds} & exec true")])
        .output()
        .unwrap();
    assert!(said(&output).contains("leaves ended on"), "{}", said(&output));
    assert!(said(&output).contains("nothing was measured"), "{}", said(&output));
    assert!(!output.status.success());
    let left = process_of(&[b"sleep\0", seconds.as_bytes(), b"\0"].concat());
    left.into_iter().for_each(await_end);
}

#[test]
fn servers_end_when_the_run_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut run, server) = run_that_waits(folder.path(), "100001");
    run.kill().unwrap();
    run.wait().unwrap();
    await_end(server);
}

#[test]
fn servers_end_when_the_run_is_interrupted_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (mut run, server) = run_that_waits(folder.path(), "100002");
    let pid = Pid::from_child(&run);
    kill_process(pid, Signal::INT).unwrap();
    // Two signals of one kind that are not yet delivered are one, and nothing tells when the first
    // was: they are sent until one is the second.
    let began = Instant::now();
    while run.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(30), "it does not end");
        std::thread::sleep(Duration::from_millis(50));
        let _ = kill_process(pid, Signal::INT);
    }
    await_end(server);
}
