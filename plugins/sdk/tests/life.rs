//! A plugin's whole life through its function table: configuration errors, requests of every
//! shape, a panic and what comes after it.
#![allow(clippy::expect_used, clippy::panic, reason = "a test")]
#![forbid(unsafe_code)]

use std::net::IpAddr;

use ringport_plugin_sdk::testing::FakeHost;
use ringport_plugin_sdk::{Answer, Kind, Refusal, Request, Resolver, Setup, Status, Verdict};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    target: String,
    #[serde(default)]
    fail_start: bool,
}

struct Probe {
    target: String,
    fail_start: bool,
}

struct Worker {
    calls: u32,
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.calls == 999 {
            panic!("a destructor that panics");
        }
    }
}

impl Resolver for Probe {
    const NAME: &'static str = "probe";
    const VERSION: &'static str = "1.2.3";
    type Config = Config;
    type Worker = Worker;

    fn configure(setup: &Setup<'_>, config: Config) -> Result<Probe, Refusal> {
        let Some(upstream) = setup.upstream(&config.target) else {
            return Err(Refusal::invalid(format!("`target`: {} is not declared", config.target)));
        };
        Ok(Probe { target: upstream.canonical_name.to_owned(), fail_start: config.fail_start })
    }

    fn start_worker(&self, number: u32) -> Result<Worker, Refusal> {
        if self.fail_start {
            return Err(Refusal::unavailable(format!("worker {number} may not start")));
        }
        Ok(Worker { calls: 0 })
    }

    fn resolve(
        &self,
        worker: &mut Worker,
        request: &Request<'_>,
        answer: &mut Answer<'_>,
    ) -> Result<Verdict, Refusal> {
        worker.calls += 1;
        match request.name {
            "panic" => panic!("boom {}", worker.calls),
            "panic/late" => {
                worker.calls = 999;
                return Ok(Verdict::Decline);
            }
            "denied" => return Err(Refusal::denied("policy 7")),
            "internal" => return Err(Refusal::internal("broken")),
            "decline" => return Ok(Verdict::Decline),
            "undeclared" => answer.upstream("evil.example", "a"),
            "twice" => {
                answer.hosted("a");
                answer.hosted("b");
            }
            "nothing" => {}
            "hosted" => answer.hosted("team/app"),
            "fresh" => {
                answer.freshness(Some(1000), None);
                answer.upstream(&self.target, "a");
            }
            "many" => (0..17).for_each(|n| answer.upstream(&self.target, &format!("a{n}"))),
            name => {
                answer.rule(&format!("{:?} {:?}", request.kind, request.client));
                answer.upstream(&self.target, name);
                answer.upstream(&self.target, name);
            }
        }
        Ok(Verdict::Answered)
    }
}

ringport_plugin_sdk::export!(Probe);

fn host() -> FakeHost {
    FakeHost::new().upstream("docker.io", &["hub.example"]).config("target = 'hub.example'")
}

#[test]
fn answers_come_through_the_table() {
    let mut worker = host().start(&PLUGIN).expect("starts");
    let cases = [
        ("app", "docker.io app (Manifest None)"),
        ("hosted", "hosted team/app ()"),
        ("decline", "DECLINE"),
        ("denied", "DENIED: policy 7"),
        ("undeclared", "INTERNAL: upstream \"evil.example\" is not declared"),
        ("twice", "INTERNAL: hosted besides another route"),
        ("nothing", "INTERNAL: OK without a route"),
        ("many", "INTERNAL: more than 16 candidates"),
        ("Bad Name", "INTERNAL: \"Bad Name\" is not a repository name"),
    ];
    for (name, expected) in cases {
        assert_eq!(worker.resolve(&Request::pull(name)).to_string(), expected, "{name}");
    }
    let fresh = worker.resolve(&Request::pull("fresh"));
    assert_eq!((fresh.tag_ttl_ms, fresh.stale_max_ms), (Some(1000), None));
}

#[test]
fn every_field_of_a_request_arrives() {
    let mut worker = host().start(&PLUGIN).expect("starts");
    for (client, shown) in [("10.1.2.3", "10.1.2.3"), ("2001:db8::7", "2001:db8::7")] {
        let mut request = Request::pull("app");
        request.kind = Kind::Referrers;
        request.client = client.parse::<IpAddr>().ok();
        let expected = format!("docker.io app (Referrers Some({shown}))");
        assert_eq!(worker.resolve(&request).to_string(), expected);
    }
}

#[test]
fn a_bad_configuration_is_refused_with_its_key() {
    let cases = [
        ("target = 7", "[plugin.config] key `target`: invalid type: integer `7`"),
        ("target = 'quay.io'", "`target`: quay.io is not declared"),
        ("target = 'docker.io'\nfail_start = true", "worker 0 may not start"),
        ("", "missing field `target`"),
    ];
    for (config, expected) in cases {
        let error = host().config(config).start(&PLUGIN).expect_err(config);
        assert!(error.contains(expected), "{config:?} gave {error:?}");
    }
}

#[test]
fn a_panic_fails_its_request_and_poisons_the_worker() {
    let mut worker = host().start(&PLUGIN).expect("starts");
    let answer = worker.resolve(&Request::pull("panic"));
    assert_eq!(answer.to_string(), "INTERNAL: the plugin panicked in resolve: boom 1");
    let answer = worker.resolve(&Request::pull("app"));
    assert_eq!(answer.status, Some(Status::Unavailable), "{answer}");
    // INTERNAL without a panic is the host's to judge.
    let mut other = host().start(&PLUGIN).expect("starts");
    assert_eq!(other.resolve(&Request::pull("internal")).to_string(), "INTERNAL: broken");
    // A destructor that panics stays inside, too.
    other.resolve(&Request::pull("panic/late"));
    drop(other);
    drop(worker);
}
