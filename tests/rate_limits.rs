//! An upstream that counts: what a fleet of jobs sees of its limit, and what the limit sees of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod hub_support;
mod support;

use hub_support::{Hub, Window};
use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::chance::Chance;
use support::http::{self, Connection};
use support::rig::manifest;
use support::server::{Server, Setup, Upstream};
use support::{ms, number_from, secs};

const NS: &str = "hub.example";

fn server(what: &str, hub: &Hub, change: impl FnOnce(Upstream) -> Upstream) -> Server {
    let declared = Upstream::new(NS, &hub.url()).set("stale_max = \"1h\"");
    Setup::new(what).upstream(change(declared)).start()
}

fn fill(hub: &Hub, tags: usize) {
    for tag in 0..tags {
        hub.set_tag(&repository(tag), "latest", &manifest(&format!("{tag} at first")));
    }
}

fn repository(tag: usize) -> String {
    format!("library/image-{tag}")
}

fn target(tag: usize) -> String {
    format!("/v2/{}/manifests/latest?ns={NS}", repository(tag))
}

#[test]
fn what_is_left_is_kept_for_what_nobody_has() {
    let hub = Hub::start(20, secs(3600), &[]);
    fill(&hub, 40);
    let mut server = server("saving", &hub, |u| u.set("tag_ttl = \"1s\""));
    for tag in 0..14 {
        assert_eq!(server.get(&target(tag)).status(), 200);
    }
    assert_eq!(hub.counts().gets, 14);
    std::thread::sleep(ms(2100));
    // 6 of 20 left: enough to ask by HEAD.
    assert_eq!(server.get(&target(0)).status(), 200);
    assert_eq!(hub.counts().heads, 1);
    for tag in 14..16 {
        assert_eq!(server.get(&target(tag)).status(), 200);
    }
    std::thread::sleep(ms(2100));
    // 4 left: what is stored is answered as it is, what is not is fetched.
    let stale = server.get(&target(1));
    assert_eq!(stale.status(), 200);
    assert!(stale.header("cache-status").contains("fwd=stale"), "{:?}", stale.head);
    assert_eq!(stale.head.headers.count("warning"), 1);
    assert_eq!(hub.counts().heads, 1);
    for tag in 16..20 {
        assert_eq!(server.get(&target(tag)).status(), 200);
    }
    let refused = server.get(&target(20));
    assert_eq!((refused.status(), refused.error_code().as_str()), (429, "TOOMANYREQUESTS"));
    assert!(refused.head.headers.number("retry-after").is_some_and(|wait| wait > 60));
    let asked = hub.counts();
    assert_eq!((asked.gets, asked.refused), (20, 0), "it was not even asked");
    let login = format!("login=\"{NS}\"");
    assert_eq!(server.metric("ringport_ratelimit_limit", &[&login]), 20.0);
    assert_eq!(server.metric("ringport_ratelimit_remaining", &[&login]), 0.0);
    assert_eq!(server.metric("ringport_ratelimit_held_back_total", &[]), 1.0);
    assert!(server.metric("ringport_ratelimit_spared_total", &[]) >= 1.0);
    // It holds over an orderly end.
    server.restart();
    assert_eq!(server.get(&target(21)).status(), 429);
    assert_eq!(server.get(&target(3)).status(), 200);
    assert_eq!(hub.counts(), asked);
}

#[test]
fn a_429_holds_everything_back_for_as_long_as_it_says() {
    let hub = Hub::start(3, secs(10), &[]);
    fill(&hub, 9);
    let server = server("refused", &hub, |u| u);
    // Somebody else behind the same address spends it.
    for tag in 0..3 {
        let path = format!("/v2/{}/manifests/latest", repository(tag));
        let addr = hub.url().trim_start_matches("http://").parse().unwrap();
        assert_eq!(http::get(addr, &path).status(), 200);
    }
    let refused = server.get(&target(4));
    assert_eq!(refused.status(), 429, "{}", refused.text());
    let wait = refused.head.headers.number("retry-after").expect("a time");
    assert!((1..=10).contains(&wait), "{wait}");
    for tag in 4..9 {
        assert_eq!(server.get(&target(tag)).status(), 429);
    }
    assert_eq!(hub.counts().refused, 1, "asked once");
    support::wait_until("the limit to recover", secs(30), || {
        server.get(&target(5)).status() == 200
    });
    assert!(hub.counts().refused <= 2, "{:?}", hub.counts());
}

#[test]
fn logins_take_turns_by_what_is_left() {
    let names = ["one", "two", "three"];
    let hub = Hub::start(10, secs(3600), &names);
    fill(&hub, 40);
    let setup = Setup::new("turns");
    let file = |name: &str| {
        let file = setup.scratch().file(&format!("{name}.password"), format!("{name}-pw"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        file
    };
    let login = |name: &str| {
        format!("username = \"{name}\"\npassword_file = \"{}\"\n", file(name).display())
    };
    let more = names[1..].iter().map(|name| {
        format!("[[upstream.credential]]\nname = \"{name}\"\nrotate = true\n{}", login(name))
    });
    let more: String = more.collect();
    let declared = Upstream::new(NS, &hub.url()).set(login("one").trim_end());
    let server = setup.upstream(declared).more(&more).start();
    for tag in 0..30 {
        let answer = server.get(&target(tag));
        assert_eq!(answer.status(), 200, "{tag}: {}", answer.text());
    }
    assert_eq!(server.get(&target(30)).status(), 429);
    assert_eq!((hub.counts().gets, hub.counts().refused), (30, 0));
    for login in [NS, &format!("{NS}#two"), &format!("{NS}#three")] {
        let label = format!("login=\"{login}\"");
        assert_eq!(server.metric("ringport_ratelimit_remaining", &[&label]), 0.0, "{login}");
    }
    assert!(!server.log_text().contains("-pw"), "a password in the log");
}

/// Pulls of a fleet, an hour being `hour` long: who asks for which tag, and when.
struct Plan {
    hour: Duration,
    limit: usize,
    tags: usize,
    pulls: Vec<(Duration, usize)>,
    /// When which tag moves.
    moves: Vec<(Duration, usize)>,
}

impl Plan {
    /// `pulls` of `tags` over `hours`, popular by Zipf's law; each hour one tag in twenty moves.
    fn new(hour: Duration, hours: u32, limit: usize, (pulls, tags): (usize, usize)) -> Plan {
        let mut chance = Chance::new(42);
        let length = hour * hours;
        let at = |chance: &mut Chance| length.mul_f64(chance.below(1 << 20) as f64 / 1048576.0);
        let zipf = |chance: &mut Chance| {
            let unit = chance.below(1 << 20) as f64 / 1048576.0;
            ((tags as f64).powf(unit) - 1.0) as usize
        };
        let mut pulls: Vec<_> = (0..pulls).map(|_| (at(&mut chance), zipf(&mut chance))).collect();
        let moves = tags * hours as usize / 20;
        let mut moves: Vec<_> = (0..moves).map(|_| (at(&mut chance), chance.below(tags))).collect();
        pulls.sort_unstable();
        moves.sort_unstable();
        Plan { hour, limit, tags, pulls, moves }
    }

    /// The same pulls by a mirror that asks the upstream by GET when `ttl` is over, and passes its
    /// 429 on: (answered GETs, 429s, 429s for what it has).
    fn naive(&self, ttl: Duration) -> (usize, usize, usize) {
        let mut window = Window::default();
        let mut checked: Vec<Option<Duration>> = vec![None; self.tags];
        let (mut gets, mut refused, mut refused_cached) = (0, 0, 0);
        for &(now, tag) in &self.pulls {
            if checked[tag].is_some_and(|at| now - at < ttl) {
                continue;
            }
            match window.spend(self.limit, self.hour, now) {
                Some(_) => {
                    gets += 1;
                    checked[tag] = Some(now);
                }
                None => {
                    refused += 1;
                    refused_cached += usize::from(checked[tag].is_some());
                }
            }
        }
        (gets, refused, refused_cached)
    }
}

/// 10,000 pulls of 300 tags in the full form; an hour takes seconds, and the tags' ttl is as much
/// shorter.
#[test]
fn a_fleet_never_sees_the_limit_for_what_is_cached() {
    let pulls = number_from("RINGPORT_HUB_PULLS", 800) as usize;
    let plan = match pulls >= 10_000 {
        true => Plan::new(secs(24), 6, 100, (pulls, 300)),
        false => Plan::new(secs(12), 1, 30, (pulls, 45)),
    };
    let ttl = plan.hour / 12;
    let hub = Hub::start(plan.limit, plan.hour, &[]);
    fill(&hub, plan.tags);
    let server = server("fleet", &hub, |u| u.set(&format!("tag_ttl = \"{}s\"", ttl.as_secs())));
    let (began, next) = (Instant::now(), AtomicUsize::new(0));
    let cached = Mutex::new(HashSet::new());
    let (refused, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let (mut connection, mut asked) = (Connection::open(server.addr), 0);
                while let Some(&(at, tag)) = plan.pulls.get(next.fetch_add(1, Ordering::SeqCst)) {
                    std::thread::sleep(at.saturating_sub(began.elapsed()));
                    let was_cached = cached.lock().unwrap().contains(&tag);
                    asked += 1;
                    if asked % 500 == 0 {
                        // A connection is good for a thousand requests.
                        connection = Connection::open(server.addr);
                    }
                    let answer = connection.exchange("GET", &target(tag), &[]);
                    match answer.status() {
                        200 => drop(cached.lock().unwrap().insert(tag)),
                        429 if !was_cached => drop(refused.fetch_add(1, Ordering::SeqCst)),
                        status => wrong.lock().unwrap().push((tag, status, answer.text())),
                    }
                }
            });
        }
        scope.spawn(|| {
            for (number, &(at, tag)) in plan.moves.iter().enumerate() {
                std::thread::sleep(at.saturating_sub(began.elapsed()));
                hub.set_tag(&repository(tag), "latest", &manifest(&format!("{tag} {number}")));
            }
        });
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} failed though cached: {:?}", wrong.len(), wrong.first());
    let counts = hub.counts();
    let each = plan.naive(Duration::ZERO);
    let when_due = plan.naive(ttl);
    println!("{} pulls of {} tags, {} manifests an hour:", pulls, plan.tags, plan.limit);
    println!(
        "| policy | GETs answered | HEADs | 429 from the upstream | 429 seen for cached tags |"
    );
    println!("|---|---|---|---|---|");
    println!("| GET for each pull | {} | 0 | {} | {} |", each.0, each.1, each.2);
    println!("| GET when tag_ttl is over | {} | 0 | {} | {} |", when_due.0, when_due.1, when_due.2);
    println!("| Ringport | {} | {} | {} | 0 |", counts.gets, counts.heads, counts.refused);
    println!("429 for tags that nobody had pulled before: {}", refused.load(Ordering::SeqCst));
    assert!(each.2 > 0, "the plan puts no pressure on the limit");
    assert!(counts.refused <= 20, "the limit was run into again and again: {counts:?}");
}
