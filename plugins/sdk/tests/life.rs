//! A plugin's whole life through its function table: configuration errors, requests of every
//! shape, a panic and what comes after it.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::net::IpAddr;
use std::time::Duration;

use ringport_plugin_sdk::testing::FakeHost;
use ringport_plugin_sdk::{
    Answer, By, Candidate, Class, Header, Kind, Moment, NsSource, PlaceAnswer, PlaceRequest,
    Placement, Purpose, Refusal, Remote, Request, Resolver, Setup, Status, Verdict,
};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    target: String,
    #[serde(default)]
    fail_start: bool,
    #[serde(default)]
    header: Option<String>,
    #[serde(default)]
    refresh_seconds: Option<u64>,
    #[serde(default)]
    needs_remote_tier: bool,
}

struct Probe {
    target: String,
    fail_start: bool,
    header: Option<Header>,
    generation: u32,
}

thread_local! {
    /// What the next refresh does.
    static REFRESH: Cell<&'static str> = const { Cell::new("same") };
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
    const PLACES: bool = true;
    const REFRESHES: bool = true;

    fn configure(setup: &Setup<'_>, config: Config) -> Result<Probe, Refusal> {
        let Some(upstream) = setup.upstream(&config.target) else {
            return Err(Refusal::invalid(format!("`target`: {} is not declared", config.target)));
        };
        if config.needs_remote_tier && !setup.performs_remote_tier {
            return Err(Refusal::invalid("`needs_remote_tier`: this host sends nothing"));
        }
        if let Some(seconds) = config.refresh_seconds {
            setup.want_refresh(Duration::from_secs(seconds))?;
        }
        Ok(Probe {
            target: upstream.canonical_name.to_owned(),
            fail_start: config.fail_start,
            header: config.header.map(|name| setup.want_header(&name)).transpose()?,
            generation: 1,
        })
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
            "generation" => answer.hosted(&format!("g{}", self.generation)),
            "header" => {
                let value = self.header.and_then(|header| request.header(header));
                answer.rule(&format!("{value:?} {:?}", request.principal));
                answer.hosted("a");
            }
            "ns" => {
                answer.rule(&format!("{:?} {:?}", request.ns_source, request.ns));
                answer.hosted(request.repository);
            }
            "all" => {
                answer.cacheable(By::NAME);
                answer.cacheable(By::KIND | By::HEADERS);
                answer.immutable();
                let (upstream, repository) = (self.target.as_str(), "a");
                let plain = Candidate { upstream, repository, ..Candidate::default() };
                answer.candidate(&Candidate { credential: Some("team-a"), ..plain });
                answer.candidate(&Candidate { forward_ns: Some("hub.example"), ..plain });
                answer.candidate(&plain);
                answer.upstream(&self.target, "a");
            }
            "credential" => answer.candidate(&Candidate {
                upstream: &self.target,
                repository: "a",
                credential: Some("team-b"),
                forward_ns: None,
            }),
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

    fn place(
        &self,
        _worker: &mut Worker,
        request: &PlaceRequest<'_>,
        answer: &mut PlaceAnswer<'_>,
    ) -> Result<Verdict, Refusal> {
        let url = format!("https://s3.example/bucket/{}", request.digest.unwrap_or("?"));
        let remote = Remote {
            purpose: Purpose::Read,
            method: "GET",
            url: &url,
            headers: &[("Authorization", "AWS4 signed")],
            expires_unix_ms: Some(7),
        };
        match request.repository {
            "panic" => panic!("in place"),
            "method" => answer.remote(&Remote { method: "DELETE", ..remote }),
            "moment" => answer.remote(&Remote { purpose: Purpose::Write, method: "PUT", ..remote }),
            "unprintable" => answer.remote(&Remote { url: "https://s3.example/a b", ..remote }),
            "host" => answer.remote(&Remote { headers: &[("Host", "evil")], ..remote }),
            "crlf" => answer.remote(&Remote { headers: &[("x-a", "1\r\nx-b: 2")], ..remote }),
            "pass" | "pass-and-remote" => {
                let class = Class::PassThrough;
                answer.placement(&Placement { class, ..Placement::default() });
                if request.repository == "pass-and-remote" {
                    answer.remote(&remote);
                }
            }
            "elsewhere" => answer.remote(&Remote { url: "https://s3.example.org/", ..remote }),
            "pool" => answer.placement(&Placement { pool: Some("ssd"), ..Placement::default() }),
            "s3" => {
                answer.rule("to the bucket");
                answer.remote(&remote);
                answer.placement(&Placement {
                    class: Class::Pinned,
                    pool: Some("nvme"),
                    ttl: Some(Duration::from_micros(1)),
                    priority: -3,
                });
            }
            _ => return Ok(Verdict::Decline),
        }
        Ok(Verdict::Answered)
    }

    fn refresh(&self) -> Result<Option<Probe>, Refusal> {
        match REFRESH.get() {
            "same" => Ok(None),
            "fail" => Err(Refusal::unavailable("the directory is away")),
            "panic" => panic!("in refresh"),
            next => Ok(Some(Probe {
                target: self.target.clone(),
                fail_start: next == "bad",
                header: self.header,
                generation: self.generation + 1,
            })),
        }
    }
}

ringport_plugin_sdk::export!(Probe);

fn host() -> FakeHost {
    FakeHost::new()
        .upstream("docker.io", &["hub.example"])
        .credential("team-a")
        .forwards_ns()
        .pool("nvme")
        .remote_tier("https://s3.example")
        .config("target = 'hub.example'")
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
fn candidates_say_all_they_can_and_nothing_undeclared() {
    let mut worker = host().start(&PLUGIN).expect("starts");
    let answer = worker.resolve(&Request::pull("all"));
    let expected = "docker.io a as team-a, docker.io a with ns=docker.io, docker.io a ()";
    assert_eq!(answer.to_string(), expected);
    assert_eq!((answer.immutable, answer.cacheable), (true, Some(By::KIND | By::HEADERS)));
    assert_eq!(worker.resolve(&Request::pull("hosted")).cacheable, None);
    let refused = worker.resolve(&Request::pull("credential")).to_string();
    assert_eq!(refused, "INTERNAL: upstream docker.io has no credential \"team-b\"");
}

#[test]
fn requests_carry_where_the_namespace_came_from_and_the_headers_asked_for() {
    let host = host().config("target = 'docker.io'\nheader = 'X-Tenant'");
    let mut worker = host.start(&PLUGIN).expect("starts");
    assert_eq!(worker.headers_wanted(), ["x-tenant"]);
    for (value, shown) in [(None, "None"), (Some(""), "Some(\"\")"), (Some("a"), "Some(\"a\")")] {
        let mut request = Request::pull("header");
        let headers = [value];
        (request.headers, request.principal) = (&headers, Some("ci"));
        let expected = format!("hosted a ({shown} Some(\"ci\"))");
        assert_eq!(worker.resolve(&request).to_string(), expected);
    }
    let answer = worker.resolve(&Request::pull_from("docker.io", "ns"));
    assert_eq!(answer.to_string(), "hosted ns (Query Some(\"docker.io\"))");
    let mut request = Request::pull("ns");
    (request.ns_source, request.repository) = (NsSource::Path, "behind");
    assert_eq!(worker.resolve(&request).to_string(), "hosted behind (Path None)");
    for name in ["authorization", "Cookie", "Proxy-Authorization", "a b", ""] {
        let config = format!("target = 'docker.io'\nheader = {name:?}");
        let error = self::host().config(&config).start(&PLUGIN).expect_err(name);
        assert!(error.contains("does not hand out the request header"), "{error}");
    }
}

#[test]
fn placements_come_through_the_table() {
    let mut worker = host().start(&PLUGIN).expect("starts");
    let mut place = |repository| {
        worker.place(&PlaceRequest::blob("docker.io", repository, "sha256:00")).expect("a hook")
    };
    let placed = place("s3");
    assert_eq!((placed.status, placed.class), (Some(Status::Ok), Class::Pinned), "{placed:?}");
    assert_eq!(placed.pool.as_deref(), Some("nvme"));
    assert_eq!((placed.ttl, placed.priority), (Some(Duration::from_millis(1)), -3));
    assert_eq!(placed.remotes[0].url, "https://s3.example/bucket/sha256:00");
    assert_eq!(placed.remotes[0].headers, [("Authorization".into(), "AWS4 signed".into())]);
    assert_eq!(place("other").status, Some(Status::Decline));
    assert_eq!(place("pass").status, Some(Status::Ok));
    for (repository, problem) in [
        ("elsewhere", "no declared remote tier"),
        ("pool", "\"ssd\""),
        ("method", "GET to read, PUT or POST to write, not \"DELETE\""),
        ("moment", "a write of what is not stored"),
        ("unprintable", "not printable"),
        ("host", "the header \"host\""),
        ("crlf", "the header \"x-a\""),
        ("pass-and-remote", "passed through and a remote tier"),
    ] {
        let placed = place(repository);
        assert_eq!(placed.status, Some(Status::Internal));
        assert!(placed.error.contains(problem), "{placed:?}");
    }
    assert!(place("panic").error.contains("panicked in place: in place"));
    assert_eq!(place("s3").status, Some(Status::Unavailable));
    let mut worker = host().start(&PLUGIN).expect("starts");
    let mut hosted = PlaceRequest::blob("docker.io", "pass", "sha256:00");
    hosted.upstream = None;
    let refused = worker.place(&hosted).expect("a hook").error;
    assert!(refused.contains("hosted content passed through"), "{refused}");
    let mut stored = PlaceRequest::blob("docker.io", "s3", "sha256:00");
    stored.moment = Moment::Stored;
    let refused = worker.place(&stored).expect("a hook").error;
    assert!(refused.contains("a read of what is stored"), "{refused}");
}

#[test]
fn a_plugin_can_refuse_a_host_that_only_shows_remote_tiers() {
    let host = host().config("target = 'docker.io'\nneeds_remote_tier = true");
    host.start(&PLUGIN).expect("a host that performs them");
    let error = host.only_shows_remote_tier().start(&PLUGIN).expect_err("one that does not");
    assert!(error.contains("sends nothing"), "{error}");
}

#[test]
fn a_refresh_replaces_the_instance_or_leaves_it() {
    let host = host().config("target = 'docker.io'\nrefresh_seconds = 60");
    let mut worker = host.start(&PLUGIN).expect("starts");
    for (next, outcome, generation) in [
        ("same", Ok(false), "g1"),
        ("new", Ok(true), "g2"),
        ("fail", Err("the directory is away"), "g2"),
        ("panic", Err("the plugin panicked in refresh: in refresh"), "g2"),
        ("bad", Err("worker 0 may not start"), "g2"),
        ("new", Ok(true), "g3"),
    ] {
        REFRESH.set(next);
        assert_eq!(worker.refresh(), outcome.map_err(str::to_owned), "{next}");
        let answer = worker.resolve(&Request::pull("generation")).to_string();
        assert_eq!(answer, format!("hosted {generation} ()"));
    }
    let error = self::host().config("target = 'docker.io'\nrefresh_seconds = 0");
    let error = error.start(&PLUGIN).expect_err("too often");
    assert!(error.contains("does not refresh every 0ns"), "{error}");
}

/// Asks for refreshes that it has no hook for.
struct Wisher;

impl Resolver for Wisher {
    const NAME: &'static str = "wisher";
    const VERSION: &'static str = "1.0";
    type Config = std::collections::HashMap<String, String>;
    type Worker = ();

    fn configure(setup: &Setup<'_>, _: Self::Config) -> Result<Wisher, Refusal> {
        setup.want_refresh(Duration::from_secs(60))?;
        Ok(Wisher)
    }

    fn start_worker(&self, _: u32) -> Result<(), Refusal> {
        Ok(())
    }

    fn resolve(&self, _: &mut (), _: &Request<'_>, _: &mut Answer<'_>) -> Result<Verdict, Refusal> {
        Ok(Verdict::Decline)
    }
}

static WISHER: ringport_plugin_sdk::abi::Plugin = ringport_plugin_sdk::table::<Wisher>();

#[test]
fn refreshes_are_for_plugins_that_say_so() {
    let error = FakeHost::new().start(&WISHER).expect_err("no REFRESHES");
    assert!(error.contains("of a plugin that sets REFRESHES"), "{error}");
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
