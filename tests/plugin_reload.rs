//! Reload and refresh of a running server: another configuration, new plugin files, successors,
//! under load and with what must be refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod plugin_support;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use plugin_support::{Installed, plugin_entry};
use support::http::{self, Answer};
use support::images::OCI_MANIFEST;
use support::lying::LyingUpstream;
use support::process::Signal;
use support::rig::manifest;
use support::server::{Server, Setup, Upstream};
use support::{number_from, wait_until};

const ROUTING: &str = "resolvers = [\"p\", \"standard\"]\nhosted = [\"*\"]";

fn reload(server: &Server) -> Answer {
    http::send_body(server.admin, "POST", "/reload", "text/plain", b"")
}

fn rewrite(server: &Server, change: impl FnOnce(String) -> String) {
    let text = std::fs::read_to_string(server.config()).unwrap();
    std::fs::write(server.config(), change(text)).unwrap();
}

/// The rule by which the server would route this.
fn explained(server: &Server, target: &str) -> String {
    http::get(server.admin, &format!("/explain?path={target}")).text()
}

#[test]
fn new_plugin_code_and_configuration_are_taken_up_under_load() {
    let corp = LyingUpstream::start();
    let body = manifest("corporate");
    for repository in ["ghcr/a/b", "a/b"] {
        corp.add_manifest(repository, "v1", OCI_MANIFEST, &body);
    }
    let plugin = Installed::compiled("minimal-c/minimal.c", "0");
    let server = Setup::new("reload-load")
        .upstream(Upstream::new("registry.corp", &corp.url()))
        .routing(ROUTING)
        .more(&plugin_entry("p", &plugin.path, ""))
        .start();
    let target = "/v2/a/b/manifests/v1?ns=ghcr.io";
    assert_eq!(server.get(target).status(), 200);

    // Loads of requests that every state of the configuration answers with 200.
    let wanted = usize::try_from(number_from("RINGPORT_TEST_RELOAD_REQUESTS", 4_000)).unwrap();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let addr = server.addr;
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, done) = (stop.clone(), done.clone());
            std::thread::spawn(move || {
                let mut failed = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let mut connection = http::Connection::open(addr);
                    for _ in 0..100 {
                        let answer = connection.exchange("GET", target, &[]);
                        if answer.status() != 200 {
                            failed.push(answer.text());
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
                failed
            })
        })
        .collect();
    // In turn: the code is overwritten in place, replaced by rename, and configured otherwise.
    let other = Installed::compiled("faulty/faulty.c", "0");
    let (first, second) =
        (std::fs::read(&plugin.path).unwrap(), std::fs::read(&other.path).unwrap());
    let with_ghcr = |text: String| {
        format!(
            "{text}\n[[upstream]]\nnamespace = \"ghcr.io\"\n\
         endpoints = [\"{}\"]\nallow_private = [\"127.0.0.0/8\"]\n",
            corp.url()
        )
    };
    rewrite(&server, with_ghcr);
    let mut reloads = 0;
    while done.load(Ordering::Relaxed) < wanted || reloads < 6 {
        let bytes = if reloads % 2 == 0 { &second } else { &first };
        std::fs::write(&plugin.path, bytes).unwrap();
        if reloads % 3 == 0 {
            let before = server.metric("ringport_reloads_total", &[]);
            let pid = rustix::process::Pid::from_raw(server.pid().cast_signed()).unwrap();
            rustix::process::kill_process(pid, Signal::HUP).unwrap();
            wait_until("the reload by a signal", Duration::from_secs(20), || {
                server.metric("ringport_reloads_total", &[]) > before
            });
        } else {
            let answer = reload(&server);
            assert_eq!(answer.status(), 200, "{}", answer.text());
        }
        reloads += 1;
        // The new code decides: the C example rewrites, the other declines.
        let explained = http::get(server.admin, "/explain?path=/v2/a/b/manifests/v1&ns=ghcr.io");
        let is_rewritten = explained.text().contains("ghcr/a/b");
        assert_eq!(is_rewritten, reloads % 2 == 0, "{}", explained.text());
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        assert_eq!(client.join().unwrap(), Vec::<String>::new());
    }
    support::tell(&format!("{reloads} reloads, {} requests", done.load(Ordering::Relaxed)));
    assert_eq!(server.metric("ringport_reloads_refused_total", &[]), 0.0);
    assert!(server.metric("ringport_plugin_calls_total", &["plugin=\"p\""]) > 0.0);
}

#[test]
fn what_is_not_accepted_changes_nothing() {
    let upstream = LyingUpstream::start();
    upstream.add_manifest("a/b", "v1", OCI_MANIFEST, &manifest("one"));
    let plugin = Installed::built("ringport_plugin_faulty");
    let bad = Installed::compiled("faulty/faulty.c", "BAD_MAGIC");
    let server = Setup::new("reload-refused")
        .upstream(Upstream::new("one.example", &upstream.url()))
        .routing(ROUTING)
        .more(&plugin_entry("p", &plugin.path, ""))
        .start();
    let good = std::fs::read_to_string(server.config()).unwrap();
    let plugin_line = format!("path = {:?}", plugin.path);
    let bad_line = format!("path = {:?}", bad.path);
    let cases = [
        (good.replace("[routing]", "[routing]\nresolvrs = []"), "`routing.resolvrs`"),
        (good.replace("[server]", "[server]\nworkers = 3"), "[server] changed, and only a restart"),
        (good.replace("level = \"info\"", "level = \"warn\""), "[log] changed"),
        (good.replace(&plugin_line, &bad_line), "expected magic"),
        (format!("{good}\nfail = 'configure'"), "as you wish"),
        (format!("{good}\nfail = 'worker_start'"), "worker 0 can't start"),
        (
            format!("{good}\n[[upstream]]\nnamespace = 'x.example'\ntoken_file = '/nowhere'\n"),
            "/nowhere",
        ),
        ("not TOML".to_owned(), "TOML"),
    ];
    for (count, (text, fragment)) in cases.iter().enumerate() {
        std::fs::write(server.config(), text).unwrap();
        let answer = reload(&server);
        assert_eq!(answer.status(), 409, "{fragment}: {}", answer.text());
        let told = answer.text();
        assert!(told.contains("everything goes on as before"), "{told}");
        assert!(told.contains(fragment) || server.log_text().contains(fragment), "{told}");
        assert_eq!(server.get("/v2/a/b/manifests/v1?ns=one.example").status(), 200);
        assert_eq!(server.metric("ringport_reloads_refused_total", &[]), (count + 1) as f64);
    }
    assert_eq!(http::get(server.admin, "/reload").status(), 405);
    std::fs::write(server.config(), good).unwrap();
    assert_eq!(reload(&server).status(), 200);
}

#[test]
fn upstreams_come_and_go() {
    let (one, two) = (LyingUpstream::start(), LyingUpstream::start());
    one.add_manifest("a/b", "v1", OCI_MANIFEST, &manifest("one"));
    two.add_manifest("a/b", "v1", OCI_MANIFEST, &manifest("two"));
    let server = Setup::new("reload-upstreams")
        .server("workers = 3")
        .upstream(Upstream::new("one.example", &one.url()))
        .start();
    let get = |namespace: &str| server.get(&format!("/v2/a/b/manifests/v1?ns={namespace}"));
    assert_eq!((get("one.example").status(), get("two.example").status()), (200, 404));
    let before = std::fs::read_to_string(server.config()).unwrap();
    let at = before.find("[[upstream]]").unwrap();
    let table = before[at..].replace("one.example", "two.example").replace(&one.url(), &two.url());
    std::fs::write(server.config(), format!("{before}\n{table}")).unwrap();
    assert_eq!(reload(&server).status(), 200);
    // On every worker, whichever owns what is fetched.
    for _ in 0..30 {
        assert_eq!(get("two.example").body, manifest("two"));
    }
    let fetched = server.metric("ringport_upstream_requests_total", &["namespace=\"two.example\""]);
    assert!(fetched > 0.0, "an upstream that a reload brings is counted");
    std::fs::write(server.config(), format!("{}{table}", &before[..at])).unwrap();
    assert_eq!(reload(&server).status(), 200);
    assert_eq!((get("one.example").status(), get("two.example").status()), (404, 200));
}

#[test]
fn a_plugin_that_failed_is_seen_and_healed_by_a_reload() {
    let plugin = Installed::built("ringport_plugin_faulty");
    let server = Setup::new("reload-poisoned")
        .server("workers = 2")
        .routing(ROUTING)
        .more(&plugin_entry("p", &plugin.path, ""))
        .start();
    let ready = || {
        let answer = http::get(server.admin, "/readyz");
        (answer.status(), answer.text())
    };
    assert_eq!(ready(), (200, "ready\n".to_owned()));
    assert_eq!(server.get("/v2/faulty/panic/manifests/v1").status(), 500);
    let (status, text) = ready();
    assert!(text.starts_with("ready\nwarning: plugin p: failed on 1 of 2 workers"), "{text}");
    assert_eq!(status, 200, "the other worker is whole");
    wait_until("both workers to have failed", Duration::from_secs(20), || {
        server.get("/v2/faulty/panic/manifests/v1");
        server.metric("ringport_plugin_poisoned", &["plugin=\"p\""]) == 2.0
    });
    let (status, text) = ready();
    assert!(status == 503 && text.starts_with("plugin p: failed on 2 of 2 workers"), "{text}");
    assert_eq!(reload(&server).status(), 200);
    assert_eq!(ready(), (200, "ready\n".to_owned()));
    assert_eq!(server.get("/v2/a/b/manifests/v1").status(), 404, "answered, not refused");
}

#[test]
fn a_refresh_takes_over_while_requests_are_answered() {
    let plugin = Installed::built("ringport_plugin_faulty");
    let server = Setup::new("refresh")
        .routing(ROUTING)
        .more(&plugin_entry("p", &plugin.path, "refresh_ms = 1000"))
        .start();
    let generation = || {
        let text = explained(&server, "/v2/faulty/generation/manifests/v1");
        let number = text.lines().find_map(|line| line.strip_prefix("repository: g"));
        number.and_then(|number| number.parse::<u32>().ok()).unwrap_or_else(|| panic!("{text}"))
    };
    let first = generation();
    wait_until("two refreshes", Duration::from_secs(20), || {
        assert_eq!(server.get("/v2/a/b/manifests/v1").status(), 404);
        generation() >= first + 2
    });
    assert!(server.metric("ringport_plugin_refreshes_total", &[]) >= 2.0);
    // A reload begins anew, and the schedule follows it.
    rewrite(&server, |text| {
        text.replace("refresh_ms = 1000", "refresh_ms = 1000\nfail = 'refresh'")
    });
    assert_eq!(reload(&server).status(), 200);
    assert_eq!(generation(), 1);
    wait_until("a refresh that fails", Duration::from_secs(20), || {
        server.metric("ringport_plugin_refreshes_failed_total", &[]) >= 1.0
    });
    assert_eq!(generation(), 1);
    // The log is written by a thread of its own.
    wait_until("the log to say so", Duration::from_secs(20), || {
        server.log_text().contains("the directory is away")
    });
}

#[test]
fn a_refresh_that_hangs_holds_up_no_reload() {
    let plugin = Installed::built("ringport_plugin_faulty");
    let server = Setup::new("refresh-hangs")
        .server("workers = 2")
        .routing(ROUTING)
        .more(&plugin_entry("p", &plugin.path, "refresh_ms = 1000\nfail = 'hang:refresh'"))
        .start();
    wait_until("the refresh to hang", Duration::from_secs(20), || {
        server.log_text().contains("hanging in refresh")
    });
    // The instance that hangs is replaced by the first; the second finds nothing in its way.
    for _ in 0..2 {
        let answer = reload(&server);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(server.get("/v2/a/b/manifests/v1").status(), 404);
    }
}
