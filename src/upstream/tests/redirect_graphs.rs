//! Random redirects between an endpoint and strangers who ask for its credentials: every walk ends,
//! nobody but the endpoint hears a secret, and nothing leads from https to http.
//!
//! `RINGPORT_REDIRECT_GRAPHS` graphs (10,000 is the full form); the hash of a graph's number decides
//! everything in it.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use base64::Engine;

use super::origin::{Answer, Origin, Seen, ok, status};
use super::tls::Authority;
use super::world::{CANARY, World, fetch, file, only};
use crate::limits::REDIRECTS_MAX;

/// Who takes part: the endpoint, a plain stranger, two with TLS.
const PLAYERS: usize = 4;

/// What is known of all of them.
#[derive(Default)]
struct Game {
    /// `scheme://authority` of each.
    origins: OnceLock<[String; PLAYERS]>,
    asked: AtomicUsize,
    /// Requests with a secret in them, at home and elsewhere.
    trusted: AtomicUsize,
    leaked: AtomicUsize,
}

impl Game {
    fn script(self: &Arc<Self>, player: usize) -> impl Fn(&Seen) -> Answer + Send + Sync + 'static {
        let game = self.clone();
        move |seen| game.answer(player, seen)
    }

    fn answer(&self, player: usize, seen: &Seen) -> Answer {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let secret = base64::engine::general_purpose::STANDARD.encode(format!("ci:{CANARY}"));
        let told = format!("{} {:?}", seen.line, seen.headers);
        let is_signed = told.contains(&secret) || told.contains(CANARY);
        if is_signed || (player != 0 && seen.header("authorization").is_some()) {
            let counter = if player == 0 { &self.trusted } else { &self.leaked };
            counter.fetch_add(1, Ordering::SeqCst);
        }
        let mut hasher = DefaultHasher::new();
        (player, seen.path()).hash(&mut hasher);
        let random = hasher.finish() as usize;
        let challenge = || status("401 Unauthorized", "WWW-Authenticate: Basic realm=r\r\n");
        if player == 0 && !is_signed && !random.is_multiple_of(5) {
            return challenge();
        }
        match random / 8 % 12 {
            0 => ok(b"content"),
            1 if player != 0 => challenge(),
            2 => odd(random / 128),
            _ => self.redirect(player, seen.path(), random / 128),
        }
    }

    fn redirect(&self, player: usize, path: &str, random: usize) -> Answer {
        let origins = self.origins.get().expect("set before the first request");
        let node = random / 64 % 6;
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let origin = origins.get(random % PLAYERS).expect("a player");
        let authority = origin.split_once("//").map_or("", |(_, authority)| authority);
        let location = match random / 4 % 8 {
            0 => format!("{node}"),
            1 => format!("{folder}/{node}"),
            2 => format!("../{node}/./x/../{node}"),
            3 => format!("//{authority}{folder}/{node}"),
            4 => path.to_owned(),
            _ => format!("{origin}{folder}/{node}?X-Signature={random}"),
        };
        let codes = ["301 M", "302 F", "303 S", "307 T", "308 P"];
        let code = codes.get((random / 32 + player) % codes.len()).expect("a code");
        status(code, &format!("Location: {location}\r\n"))
    }
}

/// Locations that lead nowhere.
fn odd(random: usize) -> Answer {
    let lines = [
        "",
        "Location: \r\n",
        "Location: /a\r\nLocation: /b\r\n",
        "Location: file:///etc/passwd\r\n",
        "Location: http://ci:x@127.0.0.1/\r\n",
        "Location: http://2130706433/\r\n",
        "Location: https://127.0.0.2/\r\n",
        "Location: javascript:alert(1)\r\n",
    ];
    status("307 T", lines.get(random % lines.len()).expect("a line"))
}

/// Who says hello by TLS is hung up on: that is no request.
fn is_plain(stream: TcpStream) -> Option<TcpStream> {
    let mut first = [0];
    let _ = stream.peek(&mut first);
    (first != [22]).then_some(stream)
}

/// Walks through `graphs` of them from an endpoint that speaks TLS or not.
fn play(graphs: usize, home_is_secure: bool) {
    let authority = Authority::new();
    let game = Arc::new(Game::default());
    let secure = |name: &str, player| authority.serve_with(name, None, game.script(player));
    let home = match home_is_secure {
        true => secure("home.test", 0),
        false => Origin::start_wrapped(game.script(0), is_plain),
    };
    let plain = Origin::start_wrapped(game.script(1), is_plain);
    let others = [secure("one.test", 2), secure("two.test", 3)];
    let port = |origin: &Origin| origin.address.port();
    let home_url = match home_is_secure {
        true => format!("https://home.test:{}", port(&home)),
        false => home.url(""),
    };
    let [one, two] = &others;
    let origins = [
        home_url.clone(),
        plain.url(""),
        format!("https://one.test:{}", port(one)),
        format!("https://two.test:{}", port(two)),
    ];
    game.origins.set(origins).expect("set once");
    let (_a, ca) = file(&authority.pem());
    let (_b, password) = file(CANARY);
    let keys = format!(
        "endpoints = [\"{home_url}\"]\nca_file = \"{ca}\"\nusername = \"ci\"\n\
         password_file = \"{password}\""
    );
    let world = World::with_names(&keys, || {
        let local: &[&str] = &["127.0.0.1"];
        only(Box::leak(Box::new([("home.test", local), ("one.test", local), ("two.test", local)])))
    });
    let (counts, played) = (game.clone(), Arc::new(AtomicUsize::new(0)));
    let completed = played.clone();
    world.run(move |client| {
        let (counts, completed) = (counts.clone(), completed.clone());
        async move {
            for graph in 0..graphs {
                let before = counts.asked.load(Ordering::SeqCst);
                let came = fetch(&client, &format!("/v2/team/app/blobs/{graph}/0")).await;
                // One more at home, which is asked again with the credentials.
                let asked = counts.asked.load(Ordering::SeqCst) - before;
                assert!(asked <= REDIRECTS_MAX + 2, "graph {graph}: {asked} requests");
                let is_there = came.is_ok_and(|body| body == "content".as_bytes());
                completed.fetch_add(usize::from(is_there), Ordering::SeqCst);
            }
        }
    });
    let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
    eprintln!(
        "{graphs} graphs from {}: {} requests, {} with the secret at home, {} elsewhere; {} led to \
         content; {} requests to a plain stranger",
        if home_is_secure { "https" } else { "http" },
        count(&game.asked),
        count(&game.trusted),
        count(&game.leaked),
        count(&played),
        plain.seen().len(),
    );
    assert_eq!(count(&game.leaked), 0, "a stranger heard a secret");
    assert!(count(&game.trusted) > graphs / 4 && count(&played) > 0, "nothing was at stake");
    assert_eq!(plain.seen().is_empty(), home_is_secure, "from https nothing leads to http");
    assert!(one.connections() > 0 && two.connections() > 0, "nobody left home");
}

#[test]
fn every_walk_ends_and_tells_no_secret() {
    let graphs = std::env::var("RINGPORT_REDIRECT_GRAPHS").ok().and_then(|text| text.parse().ok());
    let graphs = graphs.unwrap_or(300);
    play(graphs, true);
    play(graphs, false);
}
