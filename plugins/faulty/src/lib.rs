//! A resolver that fails on request: the repository `faulty/<fault>` names how. The server's
//! tests load it to see that each failure is contained. It declines all other requests.
//!
//! What Rust can't do wrong (bad tables, null hooks, statuses that don't exist) is in `faulty.c`.
#![forbid(unsafe_code)]
#![allow(clippy::panic, reason = "it is what this plugin is for")]

use std::time::Duration;

use ringport_plugin_sdk::{
    Answer, By, Candidate, Class, Header, Moment, PlaceAnswer, PlaceRequest, Placement, Purpose,
    Refusal, Remote, Request, Resolver, Setup, Verdict,
};

ringport_plugin_sdk::export!(Faulty);

/// `[plugin.config]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Hook that fails: `configure`, `worker_start`, `refresh`; behind `panic:` it panics instead,
    /// and `hang:refresh` says so on stderr and never returns.
    #[serde(default)]
    fail: String,
    /// Request headers to ask for.
    #[serde(default)]
    headers: Vec<String>,
    /// Interval of refreshes in milliseconds; each makes a successor, unless `fail = 'refresh'`.
    #[serde(default)]
    refresh_ms: Option<u64>,
}

/// One configured instance.
#[derive(Debug)]
pub struct Faulty {
    fail: String,
    headers: Vec<Header>,
    generation: u32,
    tiers: Vec<String>,
}

impl Resolver for Faulty {
    const NAME: &'static str = "faulty";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Config = Config;
    type Worker = ();
    const PLACES: bool = true;
    const REFRESHES: bool = true;

    fn configure(setup: &Setup<'_>, config: Config) -> Result<Faulty, Refusal> {
        match config.fail.as_str() {
            "configure" => return Err(Refusal::invalid("key `fail`: as you wish")),
            "panic:configure" => panic!("in configure"),
            _ => {}
        }
        if let Some(interval) = config.refresh_ms {
            setup.want_refresh(Duration::from_millis(interval))?;
        }
        let headers = config.headers.iter().map(|name| setup.want_header(name));
        let headers = headers.collect::<Result<_, _>>()?;
        let tiers = setup.remote_tiers.iter().map(|&origin| origin.to_owned()).collect();
        Ok(Faulty { fail: config.fail, headers, generation: 1, tiers })
    }

    fn start_worker(&self, number: u32) -> Result<(), Refusal> {
        match self.fail.as_str() {
            "worker_start" => Err(Refusal::unavailable(format!("worker {number} can't start"))),
            "panic:worker_start" => panic!("in worker_start"),
            _ => Ok(()),
        }
    }

    fn resolve(
        &self,
        _worker: &mut (),
        request: &Request<'_>,
        answer: &mut Answer<'_>,
    ) -> Result<Verdict, Refusal> {
        let Some(fault) = request.name.strip_prefix("faulty/") else {
            return Ok(Verdict::Decline);
        };
        match fault {
            "panic" => panic!("at the {} of its life", "height"),
            "internal" => return Err(Refusal::internal("lost its table")),
            "unavailable" => return Err(Refusal::unavailable("")),
            "undeclared" => answer.upstream("169.254.169.254", "latest/meta-data"),
            "bad-name" => answer.hosted("Not A Name"),
            "traversal" => answer.hosted("a/../../etc"),
            "both" => {
                answer.hosted("a");
                answer.upstream("docker.io", "a");
            }
            "many" => (0..17).for_each(|n| answer.upstream("docker.io", &format!("a{n}"))),
            "for-ever" => {
                answer.freshness(Some(u64::MAX - 1), None);
                answer.hosted("a");
            }
            "long-text" => {
                answer.rule(&"é\n".repeat(100_000));
                answer.hosted("a");
            }
            "fresh" => {
                answer.freshness(Some(0), Some(1500));
                answer.upstream("index.docker.io", "a");
                answer.upstream("docker.io", "a");
                answer.upstream("ghcr.io", "a");
            }
            _ => return self.say_what_came_with_1_1(fault, request, answer),
        }
        Ok(Verdict::Answered)
    }

    fn place(
        &self,
        _worker: &mut (),
        request: &PlaceRequest<'_>,
        answer: &mut PlaceAnswer<'_>,
    ) -> Result<Verdict, Refusal> {
        let Some(fault) = request.repository.strip_prefix("faulty/") else {
            return Ok(Verdict::Decline);
        };
        if fault.starts_with("tier") {
            self.use_tiers(fault == "tier-late", request, answer);
            return Ok(Verdict::Answered);
        }
        let origin = self.tiers.first().map_or("https://s3.example", String::as_str);
        let remote = Remote {
            purpose: Purpose::Read,
            method: "GET",
            url: &format!("{origin}/bucket/key?signature=secret"),
            headers: &[("x-amz-date", "today")],
            expires_unix_ms: Some(1_900_000_000_000),
        };
        let placement = Placement { pool: Some("nvme"), ..Placement::default() };
        match fault {
            "panic" => panic!("in place"),
            "unavailable" => return Err(Refusal::unavailable("the policy is being loaded")),
            "pool" => answer.placement(&Placement { pool: Some("floppy"), ..placement }),
            "priority" => answer.placement(&Placement { priority: 11, ..placement }),
            "pinned" => {
                answer.placement(&Placement { class: Class::Pinned, ..Placement::default() })
            }
            "brief" => answer.placement(&Placement {
                class: Class::Pinned,
                ttl: Some(Duration::from_secs(1)),
                priority: 10,
                ..Placement::default()
            }),
            "dear" => answer.placement(&Placement { priority: 10, ..Placement::default() }),
            "pass" => answer.placement(&Placement { class: Class::PassThrough, ..placement }),
            "pass-and-remote" => {
                answer.placement(&Placement { class: Class::PassThrough, ..placement });
                answer.remote(&remote);
            }
            "elsewhere" => answer.remote(&Remote { url: "https://s3.example.org/key", ..remote }),
            "signed-elsewhere" => {
                answer.remote(&Remote { url: "https://k:secret@evil.example?x=secret", ..remote });
            }
            "user-info" => answer.remote(&Remote { url: "https://s3.example@evil/key", ..remote }),
            "method" => answer.remote(&Remote { method: "DELETE", ..remote }),
            "moment" => answer.remote(&Remote { purpose: Purpose::Write, method: "PUT", ..remote }),
            "host" => answer.remote(&Remote { headers: &[("Host", "evil")], ..remote }),
            "crlf" => answer.remote(&Remote { headers: &[("x-a", "1\r\nx-b: 2")], ..remote }),
            "headers" => answer.remote(&Remote { headers: &[("x-a", "1"); 20], ..remote }),
            "remotes" => (0..5).for_each(|_| answer.remote(&remote)),
            _ => {
                answer.rule("to the fast disk, or from the bucket");
                answer.remote(&remote);
                let ttl = Some(Duration::from_secs(60));
                answer.placement(&Placement {
                    class: Class::Pinned,
                    ttl,
                    priority: 2,
                    ..placement
                });
            }
        }
        Ok(Verdict::Answered)
    }

    fn refresh(&self) -> Result<Option<Faulty>, Refusal> {
        match self.fail.as_str() {
            "refresh" => Err(Refusal::unavailable("the directory is away")),
            "panic:refresh" => panic!("in refresh"),
            "hang:refresh" => {
                eprintln!("faulty: hanging in refresh");
                loop {
                    std::thread::park();
                }
            }
            _ => Ok(Some(Faulty {
                fail: self.fail.clone(),
                headers: self.headers.clone(),
                generation: self.generation + 1,
                tiers: self.tiers.clone(),
            })),
        }
    }
}

impl Faulty {
    /// Reads from every declared tier and writes to every one, below the content's digest.
    fn use_tiers(&self, late: bool, request: &PlaceRequest<'_>, answer: &mut PlaceAnswer<'_>) {
        let (purpose, method) = match request.moment {
            Moment::Stored => (Purpose::Write, "PUT"),
            _ => (Purpose::Read, "GET"),
        };
        for (origin, digest) in self.tiers.iter().zip(request.digest.into_iter().cycle()) {
            let key = digest.replace(':', "/");
            answer.remote(&Remote {
                purpose,
                method,
                url: &format!("{origin}/bucket//{key}?a=%2f&X-Signature=hush-query&b"),
                headers: &[("X-Signed", "hush-header")],
                expires_unix_ms: late.then_some(1),
            });
        }
    }

    fn say_what_came_with_1_1(
        &self,
        fault: &str,
        request: &Request<'_>,
        answer: &mut Answer<'_>,
    ) -> Result<Verdict, Refusal> {
        match fault {
            "generation" => {
                answer.cacheable(By::NAME);
                answer.hosted(&format!("g{}", self.generation));
            }
            "headers" => {
                answer.cacheable(By::HEADERS);
                let values = self.headers.iter().map(|header| request.header(*header));
                answer.rule(&format!("{:?}", values.collect::<Vec<_>>()));
                answer.hosted("a");
            }
            "ns" => {
                answer.cacheable(By::NAME);
                answer.rule(&format!("{:?} {:?}", request.ns_source, request.ns));
                answer.hosted("a");
            }
            "reference" => {
                answer.cacheable(By::REFERENCE | By::KIND);
                answer.rule(request.reference);
                answer.hosted("a");
            }
            "remembered-denial" => {
                answer.cacheable(By::NAME);
                return Err(Refusal::denied("by policy"));
            }
            "remembered-outage" => {
                answer.cacheable(By::NAME);
                return Err(Refusal::unavailable("for a while"));
            }
            "immutable" => {
                answer.immutable();
                answer.hosted("a");
            }
            // No failure: a route with two ways, whatever is asked for.
            "two" => {
                for upstream in ["peer.example", "origin.example"] {
                    let (credential, forward_ns) = (None, None);
                    let repository = "org/app";
                    let candidate = Candidate { upstream, repository, credential, forward_ns };
                    answer.candidate(&candidate);
                }
            }
            "credential" | "other-credential" | "forward" | "forward-undeclared"
            | "both-scopes" | "not-forwarding" => {
                let of =
                    |names: &[&str], value: &'static str| names.contains(&fault).then_some(value);
                let credential = of(&["credential", "both-scopes"], "team-a");
                let forwarded = of(&["forward", "both-scopes", "not-forwarding"], "hub.example");
                answer.candidate(&Candidate {
                    upstream: if fault == "not-forwarding" { "ghcr.io" } else { "proxy.example" },
                    repository: "a",
                    credential: credential.or(of(&["other-credential"], "team-b")),
                    forward_ns: forwarded.or(of(&["forward-undeclared"], "quay.io")),
                });
            }
            _ => {}
        }
        Ok(Verdict::Answered)
    }
}
