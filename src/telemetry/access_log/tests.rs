//! The log as a whole: lines in a file, and a queue that is full.

use std::time::Duration;

use super::*;
use crate::oci::{Namespace, Reference, RepositoryName};
use crate::telemetry::{CacheResult, Decision, RequestIds, RouteKind};

fn entry() -> AccessEntry {
    AccessEntry {
        unix_time: Duration::from_millis(1_700_000_000_123),
        request_id: RequestIds::new(1).next_id(),
        client: Some("127.0.0.1".parse().unwrap()),
        user: None,
        method: "GET".into(),
        path: "/v2/library/a/manifests/latest\"\n".into(),
        query: Some("ns=docker.io&sig=hunter2".into()),
        kind: RouteKind::Manifest,
        upstream: Some(Namespace::parse("docker.io").unwrap()),
        repository: Some(RepositoryName::parse("library/a").unwrap()),
        reference: Some(Reference::parse("latest").unwrap()),
        status: 200,
        bytes_sent: 512,
        duration: Duration::from_micros(1500),
        first_byte: Some(Duration::from_micros(750)),
        cache: CacheResult::Revalidated,
        user_agent: Some("x".repeat(1000)),
        worker: 1,
        header_ns: Some(Namespace::parse("quay.io").unwrap()),
        decision: Some(Arc::new(Routed)),
    }
}

#[derive(Debug)]
struct Routed;

impl Decision for Routed {
    fn resolver(&self) -> &str {
        "standard"
    }

    fn rule(&self) -> &str {
        "ns"
    }

    fn in_words(&self) -> String {
        "docker.io library/a".to_owned()
    }
}

#[test]
fn each_entry_is_one_line_of_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let log = AccessLog::start(&AccessTarget::File(path.clone())).expect("started");
    assert!(log.is_on());
    let bare = AccessEntry {
        client: None,
        query: None,
        upstream: None,
        repository: None,
        reference: None,
        first_byte: None,
        user_agent: None,
        header_ns: None,
        decision: None,
        ..entry()
    };
    log.record(entry());
    log.clone().record(bare);
    assert!(log.flush(Duration::from_secs(10)));

    let text = std::fs::read_to_string(&path).expect("read");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2, "{text}");
    let full = &lines[0];
    assert_eq!(full["time"], "2023-11-14T22:13:20.123Z");
    assert_eq!(full["path"], "/v2/library/a/manifests/latest\"\n?ns=docker.io&sig=[redacted]");
    assert_eq!(full["upstream"], "docker.io");
    assert_eq!(full["reference"], "latest");
    assert_eq!(full["status"], 200);
    assert_eq!(full["duration_ms"], 1.5);
    assert_eq!(full["ttfb_ms"], 0.75);
    assert_eq!(full["cache"], "revalidated");
    assert_eq!(full["user_agent"].as_str().map(str::len), Some(256));
    assert_eq!(full["header_ns"], "quay.io");
    assert_eq!((&full["resolver"], &full["rule"]), (&"standard".into(), &"ns".into()));
    assert_eq!(full["decision"], "docker.io library/a");
    assert!(full["request_id"].as_str().is_some_and(|id| id.contains("-1-")));
    assert!(lines[1].get("upstream").is_none() && lines[1].get("ttfb_ms").is_none());
    assert!(!text.contains("hunter2"));
    assert_eq!(log.dropped(), 0);
}

#[test]
fn a_full_queue_drops_and_counts_instead_of_waiting() {
    let (queue, receiver) = bounded(2);
    let log = AccessLog { queue: Some(queue), dropped: Arc::default() };
    for _ in 0..5 {
        log.record(entry());
    }
    assert_eq!((receiver.len(), log.dropped()), (2, 3));
    assert!(!log.flush(Duration::from_millis(1)), "nobody writes");
}

#[test]
fn a_log_that_is_off_does_nothing() {
    let log = AccessLog::start(&AccessTarget::Off).expect("started");
    log.record(entry());
    assert!(!log.is_on() && log.flush(Duration::ZERO));
    assert_eq!(log.dropped(), 0);
}
