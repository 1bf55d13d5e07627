//! The suite itself, in its smallest form: servers start, are loaded and end, the records can be
//! read, the page is there, no body was wrong; and a server that gives wrong bodies is found out.
//! What the figures are is nobody's business here: builds without optimisation measure nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Cases that are quickly made, one or two of each scenario below.
const CASES: [&str; 5] = ["64 KiB", "by tag", "1000 x 1 MiB", "16 clients", "40 images"];
const SCENARIOS: [&str; 5] = ["blob_hit", "manifest_hit", "cold_herd", "cold_unique", "push_small"];

/// Ringport's program: cargo builds it beside the suite's when it tests the workspace.
fn ringport() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_ringport-bench")).with_file_name("ringport");
    assert!(path.is_file(), "{} is missing: cargo build, or test the workspace", path.display());
    path
}

fn bench(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringport-bench"));
    command.args(["--quick", "--rounds", "1", "--seconds", "0.05", "--json"]);
    command.arg(folder.join("run.jsonl")).arg("--data").arg(folder);
    command
}

fn records(folder: &Path, output: &Output) -> Vec<Value> {
    let told = String::from_utf8_lossy(&output.stderr);
    let text = std::fs::read_to_string(folder.join("run.jsonl"))
        .unwrap_or_else(|e| panic!("no records: {e}\n{told}"));
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[test]
fn a_run_leaves_records_a_table_and_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("run.html");
    let mut command = bench(folder.path());
    command.arg("--ringport").arg(ringport()).arg("--html").arg(&page);
    command.arg("--scenario").args(SCENARIOS).arg("--case").args(CASES);
    let output = command.output().unwrap();
    let records = records(folder.path(), &output);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert_eq!(records[0]["kind"], "run");
    for record in &records {
        assert_ne!(record["kind"], "wrong", "{record}");
        let lacks_ours = record["kind"] == "missing" && record["server"] == "ringport";
        assert!(!lacks_ours, "{record}");
    }
    let table = String::from_utf8(output.stdout).unwrap();
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
    for scenario in SCENARIOS {
        let of = |kind: &str| {
            let is_it = |r: &&Value| r["kind"] == kind && r["scenario"] == scenario;
            records.iter().filter(is_it).collect::<Vec<_>>()
        };
        let headline = of("scenario")[0]["headline"].as_str().unwrap().to_owned();
        let ours: Vec<_> =
            of("sample").into_iter().filter(|sample| sample["server"] == "ringport").collect();
        assert!(!ours.is_empty(), "{scenario}: {told}");
        for sample in ours {
            let value = sample["metrics"][&headline].as_f64();
            assert!(value.is_some_and(|value| value > 0.0), "{headline}: {sample}");
        }
        assert!(table.contains(scenario) && html.contains(&scenario.replace('_', " ")));
    }
    let herd = records.iter().find(|r| r["kind"] == "sample" && r["scenario"] == "cold_herd");
    assert_eq!(herd.unwrap()["metrics"]["upstream_gets"], 1.0, "{herd:?}");
    let unique = records.iter().find(|r| r["kind"] == "sample" && r["scenario"] == "cold_unique");
    assert_eq!(unique.unwrap()["metrics"]["upstream_gets"], 64.0, "one for each blob: {unique:?}");
    // An old run is drawn again as it was.
    let again = folder.path().join("again.html");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringport-bench"));
    command.arg("report").arg(folder.path().join("run.jsonl")).arg("--html").arg(&again);
    assert!(command.output().unwrap().status.success());
    assert_eq!(std::fs::read_to_string(&again).unwrap(), html);
}

#[test]
fn a_server_that_gives_wrong_bodies_fails_the_run() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("liar=http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            std::thread::spawn(move || lie(socket.unwrap()));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let mut command = bench(folder.path());
    command.args(["--url", &url, "--server", "liar"]);
    command.args(["--scenario", "manifest_hit", "--case", "by tag"]);
    let output = command.output().unwrap();
    let records = records(folder.path(), &output);
    let wrong: Vec<_> = records.iter().filter(|record| record["kind"] == "wrong").collect();
    assert_eq!(output.status.code(), Some(1), "{records:?}");
    assert_eq!(wrong.len(), 1, "{records:?}");
    assert_eq!(wrong[0]["server"], "liar");
    assert!(wrong[0]["what"].as_str().unwrap().contains("expected sha256:"), "{wrong:?}");
}

/// Says that it has everything, and gives zeros of the right length.
fn lie(mut socket: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(got) = socket.read(&mut buffer) {
        if got == 0 {
            return;
        }
        let is_head = buffer.starts_with(b"HEAD");
        let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n".to_vec();
        if !is_head {
            answer.resize(answer.len() + 4096, 0);
        }
        if socket.write_all(&answer).is_err() {
            return;
        }
    }
}
