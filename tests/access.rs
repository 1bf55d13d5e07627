//! Who may do what, seen from outside: every verb, by everybody, under every rule, compared with
//! what the rules say worked out here on its own; every way to be refused; and nothing secret in
//! what is written about it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};
use support::http::{self, Answer, Connection};
use support::images::{OCI_INDEX, random_bytes, sha256};
use support::lying::LyingUpstream;
use support::rig::{NS, REPOSITORY, declared};
use support::scratch::Scratch;
use support::server::{Server, Setup};
use support::tls::{Authority, Client, Kind, Pair};
use support::{ports, secs, wait_until};
use tokio_rustls::rustls::ALL_VERSIONS;

const ALICE: &str = "correct horse alice";
const BOB: &str = "battery staple bob";
const WRONG: &str = "wrong passphrase";

/// What issues tokens: one key.
struct Issuer {
    key: EcdsaKeyPair,
    pem: String,
    random: SystemRandom,
}

impl Issuer {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let (random, der) = (SystemRandom::new(), key.serialize_der());
        let pem = key.public_key_pem();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random);
        Self { key: key.unwrap(), pem, random }
    }

    /// A good token with these claims in the place of its own.
    fn token(&self, changes: Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({
            "iss": "auth.test", "aud": "registry.test", "sub": "ci", "exp": now + 600, "access": [],
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(&json!({"alg": "ES256"})), encode(&claims));
        let signature = self.key.sign(&self.random, text.as_bytes()).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// The `access` claim for one repository.
fn grant(name: &str, actions: &[&str]) -> Value {
    json!({"type": "repository", "name": name, "actions": actions})
}

fn basic(login: &str) -> String {
    format!("Basic {}", STANDARD.encode(login))
}

/// `[auth]` with two users and the issuer's key; `more` are lines of `[auth]`.
fn auth(scratch: &Scratch, issuer: &Issuer, more: &str) -> String {
    let hash = |password: &str| bcrypt::hash(password, 4).unwrap();
    let users = format!("alice:{}\nbob:{}\n", hash(ALICE), hash(BOB));
    let users = scratch.secret("htpasswd", users);
    let key = scratch.file("issuer.pem", &issuer.pem);
    format!(
        "[auth]\nhtpasswd_file = {users:?}\n{more}\n[auth.token]\nrealm = \"https://auth.test/token\"\n\
         service = \"registry.test\"\nissuer = \"auth.test\"\nkey_files = [{key:?}]\n"
    )
}

fn ask(server: &Server, method: &str, target: &str, authorization: Option<&str>) -> Answer {
    let mut headers = vec![("Content-Type", OCI_INDEX)];
    headers.extend(authorization.map(|value| ("Authorization", value)));
    if matches!(method, "PUT" | "POST" | "PATCH") {
        headers.push(("Content-Length", "2"));
    }
    let mut connection = Connection::open(server.addr);
    connection.request(method, target, &headers);
    if matches!(method, "PUT" | "POST" | "PATCH") {
        connection.send("{}");
    }
    connection.read_answer(method).unwrap_or_else(|e| panic!("{method} {target}: {e}"))
}

fn challenges(answer: &Answer) -> Vec<&str> {
    let headers = answer.head.headers.0.iter();
    let named = headers.filter(|(name, _)| name.eq_ignore_ascii_case("www-authenticate"));
    named.map(|(_, value)| value.as_str()).collect()
}

// ---- everybody × every verb × every rule ----------------------------------------------------

/// Somebody, as far as the rules are concerned.
struct Role {
    what: &'static str,
    name: Option<&'static str>,
    /// The token's actions for the repository that is asked for; `None` without a token.
    actions: Option<&'static [&'static str]>,
}

const ROLES: [Role; 8] = [
    Role { what: "nobody", name: None, actions: None },
    Role { what: "an empty login, as skopeo sends it", name: None, actions: None },
    Role { what: "alice", name: Some("alice"), actions: None },
    Role { what: "bob", name: Some("bob"), actions: None },
    Role { what: "all of it", name: Some("ci"), actions: Some(&["pull", "push", "delete"]) },
    Role { what: "to read", name: Some("ci"), actions: Some(&["pull"]) },
    Role { what: "for another", name: Some("ci"), actions: Some(&[]) },
    Role { what: "for anyone", name: None, actions: Some(&["pull", "push"]) },
];

impl Role {
    fn authorization(&self, issuer: &Issuer, repository: &str) -> Option<String> {
        let token = |changes| Some(format!("Bearer {}", issuer.token(changes)));
        match self.what {
            "nobody" => None,
            "alice" => Some(basic(&format!("alice:{ALICE}"))),
            "bob" => Some(basic(&format!("bob:{BOB}"))),
            "for another" => token(json!({"access": [grant("other/app", &["*"])]})),
            "for anyone" => {
                token(json!({"sub": "", "access": [grant(repository, self.actions.unwrap())]}))
            }
            _ => match self.actions {
                Some(actions) => token(json!({"access": [grant(repository, actions)]})),
                None => Some(basic(":")),
            },
        }
    }
}

/// The lists that rules are made of.
const LISTS: [&[&str]; 6] =
    [&["anonymous"], &["authenticated"], &["alice"], &["bob", "ci"], &["alice", "anonymous"], &[]];

#[derive(Debug, PartialEq)]
enum Expected {
    /// Whatever the handler says.
    Passed,
    LogIn,
    Scope,
    Denied,
}

/// The table, from the words of docs/ACCESS.md and not from the code.
fn expected(role: &Role, list: &[&str], action: &str) -> Expected {
    let everyone = list.contains(&"anonymous");
    let known = role.name.is_some() && list.contains(&"authenticated");
    let named = role.name.is_some_and(|name| list.contains(&name));
    let granted = role.actions.is_none_or(|actions| actions.contains(&action));
    match (everyone || known || named, granted) {
        (true, true) => Expected::Passed,
        (true, false) => Expected::Scope,
        (false, _) if list.is_empty() || role.name.is_some() => Expected::Denied,
        (false, _) => Expected::LogIn,
    }
}

fn outcome(answer: &Answer, scope: &str) -> Expected {
    let bearer = "Bearer realm=\"https://auth.test/token\",service=\"registry.test\"";
    let scoped = format!("{bearer},scope=\"{scope}\"");
    let found = challenges(answer);
    match (answer.status(), answer.error_code().as_str()) {
        (401, "UNAUTHORIZED") if found == [&scoped, "Basic realm=\"ringport\""] => Expected::LogIn,
        (401, "UNAUTHORIZED") => {
            let expected = format!("{scoped},error=\"insufficient_scope\"");
            assert_eq!(found, [&expected, "Basic realm=\"ringport\""]);
            Expected::Scope
        }
        (403, "DENIED") => {
            assert!(found.is_empty(), "{found:?}");
            Expected::Denied
        }
        (200..=499, _) => {
            assert!(found.is_empty(), "{found:?}");
            Expected::Passed
        }
        _ => panic!("{:?} {}", answer.head, answer.text()),
    }
}

#[test]
fn every_verb_by_everybody_under_every_rule() {
    let issuer = Issuer::new();
    let mut setup = Setup::new("access-walk");
    let all = std::env::var("RINGPORT_TEST_ACCESS").is_ok_and(|value| value == "all");
    let mut rules = Vec::new();
    for (a, pull) in LISTS.iter().enumerate() {
        for (b, push) in LISTS.iter().enumerate() {
            for (c, delete) in LISTS.iter().enumerate() {
                // Each list in each place, and each pair of them somewhere.
                if all || (a + b + c) % LISTS.len() == 0 {
                    rules.push((format!("r{a}{b}{c}/app"), pull, push, delete));
                }
            }
        }
    }
    let text = auth(setup.scratch(), &issuer, "");
    setup = setup.more(&text);
    for (name, pull, push, delete) in &rules {
        let rule = format!(
            "[[hosted]]\nrepositories = [{name:?}]\npull = {pull:?}\npush = {push:?}\n\
             delete = {delete:?}\n"
        );
        setup = setup.more(&rule);
    }
    let server = setup.start();
    let digest = sha256(b"nothing");
    let mut seen = [0; 4];
    for (name, pull, push, delete) in &rules {
        let path = |rest: &str| format!("/v2/{name}/{rest}");
        let requests = [
            ("GET", path("manifests/v1"), pull, "pull"),
            ("HEAD", path("manifests/v1"), pull, "pull"),
            ("GET", path(&format!("manifests/{digest}")), pull, "pull"),
            ("GET", path(&format!("blobs/{digest}")), pull, "pull"),
            ("GET", path("tags/list"), pull, "pull"),
            ("GET", path(&format!("referrers/{digest}")), pull, "pull"),
            ("PUT", path("manifests/v1"), push, "push"),
            ("POST", path("blobs/uploads/"), push, "push"),
            ("PATCH", path("blobs/uploads/none"), push, "push"),
            ("PUT", path(&format!("blobs/uploads/none?digest={digest}")), push, "push"),
            ("GET", path("blobs/uploads/none"), push, "push"),
            ("DELETE", path("blobs/uploads/none"), push, "push"),
            ("DELETE", path("manifests/v1"), delete, "delete"),
            ("DELETE", path(&format!("manifests/{digest}")), delete, "delete"),
            ("DELETE", path(&format!("blobs/{digest}")), delete, "delete"),
        ];
        for role in &ROLES {
            let authorization = role.authorization(&issuer, name);
            for (method, target, list, action) in &requests {
                let answer = ask(&server, method, target, authorization.as_deref());
                let wanted = expected(role, list, action);
                seen[match wanted {
                    Expected::Passed => 0,
                    Expected::LogIn => 1,
                    Expected::Scope => 2,
                    Expected::Denied => 3,
                }] += 1;
                let actions = if *action == "push" { "pull,push" } else { action };
                let at = format!("{method} {target} by {}, list {list:?}", role.what);
                if *method == "HEAD" {
                    let status = match wanted {
                        Expected::Passed => 404,
                        Expected::LogIn | Expected::Scope => 401,
                        Expected::Denied => 403,
                    };
                    assert_eq!(answer.status(), status, "{at}");
                } else {
                    let scope = format!("repository:{name}:{actions}");
                    assert_eq!(outcome(&answer, &scope), wanted, "{at}: {}", answer.text());
                }
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 100), "each outcome is met: {seen:?}");
    println!("{} rules; passed, log in, scope, denied: {seen:?}", rules.len());
}

/// Who may list, taken up by a reload; and each sees only what they may pull.
#[test]
fn the_catalog_by_everybody_and_rules_by_a_reload() {
    let issuer = Issuer::new();
    let setup = Setup::new("access-catalog");
    let rules = "[[hosted]]\nrepositories = [\"open/*\"]\npush = [\"anonymous\"]\n\
        missing_references = \"allowed\"\n\
        [[hosted]]\nrepositories = [\"alices/*\"]\npull = [\"alice\"]\npush = [\"anonymous\"]\n";
    let text = auth(setup.scratch(), &issuer, "catalog = []");
    let server = setup.more(&text).more(rules).start();
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).to_string();
    for name in ["open/a", "alices/b"] {
        let target = format!("/v2/{name}/manifests/v1");
        let put = http::send_body(server.addr, "PUT", &target, OCI_INDEX, manifest.as_bytes());
        assert_eq!(put.status(), 201, "{}", put.text());
    }
    let mut before = "catalog = []".to_owned();
    for list in LISTS {
        let now = format!("catalog = {list:?}");
        let config = std::fs::read_to_string(server.config()).unwrap();
        std::fs::write(server.config(), config.replace(&before, &now)).unwrap();
        before = now;
        let reloaded = http::send_body(server.admin, "POST", "/reload", "text/plain", b"");
        assert_eq!(reloaded.status(), 200, "{}", reloaded.text());
        for role in &ROLES {
            // "All of it" and "for anyone" are tokens for repositories alone.
            let of_catalog = json!({"type": "registry", "name": "catalog", "actions": ["*"]});
            let authorization = match role.what {
                "to read" => {
                    let token = issuer.token(json!({"access": [of_catalog]}));
                    Some(format!("Bearer {token}"))
                }
                _ => role.authorization(&issuer, "open/a"),
            };
            let answer = ask(&server, "GET", "/v2/_catalog", authorization.as_deref());
            let may = role.actions.is_none() || role.what == "to read";
            let as_if = Role { actions: Some(if may { &["*"] } else { &[] }), ..*role };
            let wanted = expected(&as_if, list, "*");
            let found = outcome(&answer, "registry:catalog:*");
            assert_eq!(found, wanted, "{list:?} by {}: {}", role.what, answer.text());
            if wanted == Expected::Passed {
                let sees_both = role.name == Some("alice");
                let names =
                    if sees_both { json!(["alices/b", "open/a"]) } else { json!(["open/a"]) };
                assert_eq!(answer.json()["repositories"], names, "{}", role.what);
            }
        }
    }
}

// ---- refused --------------------------------------------------------------------------------

/// A private repository with one manifest, an open one, and all there is to log in with.
fn private(what: &str) -> (Server, Issuer, Vec<u8>) {
    let issuer = Issuer::new();
    let setup = Setup::new(what);
    let rules = "[[hosted]]\nrepositories = [\"secret/*\"]\npull = [\"alice\", \"ci\"]\n\
        push = [\"alice\"]\n[[hosted]]\nrepositories = [\"open/*\"]\n";
    let server = setup_with(setup, &issuer, rules);
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []});
    let bytes = manifest.to_string().into_bytes();
    let mut connection = Connection::open(server.addr);
    let login = basic(&format!("alice:{ALICE}"));
    let length = bytes.len().to_string();
    let headers =
        [("Content-Type", OCI_INDEX), ("Content-Length", &*length), ("Authorization", &*login)];
    connection.request("PUT", "/v2/secret/app/manifests/v1", &headers);
    connection.send(&bytes);
    let put = connection.read_answer("PUT").unwrap();
    assert_eq!(put.status(), 201, "{}", put.text());
    (server, issuer, bytes)
}

fn setup_with(setup: Setup, issuer: &Issuer, rules: &str) -> Server {
    let text = auth(setup.scratch(), issuer, "");
    setup.more(&text).more(rules).start()
}

/// Without what differs from one answer to the next.
fn comparable(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let mut headers = answer.head.headers.0.clone();
    headers.retain(|(name, _)| !name.eq_ignore_ascii_case("date"));
    (answer.status(), headers, answer.text())
}

#[test]
fn what_is_refused_and_how() {
    let (server, issuer, manifest) = private("access-refused");
    let target = "/v2/secret/app/manifests/v1";
    let get = |authorization: &str| ask(&server, "GET", target, Some(authorization));
    let bearer = |issuer: &Issuer, changes: Value| {
        let mut claims = json!({"access": [grant("secret/app", &["pull"])]});
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        format!("Bearer {}", issuer.token(claims))
    };
    for good in [basic(&format!("alice:{ALICE}")), bearer(&issuer, json!({}))] {
        let answer = get(&good);
        assert_eq!((answer.status(), &answer.body), (200, &manifest), "{}", answer.text());
    }
    // An unknown user and a wrong password: the same answer for the same work.
    let checks = || server.metric("ringport_password_checks_total", &[]);
    let mut answers = Vec::new();
    for login in ["alice", "nobody-we-know", "alice"] {
        let before = checks();
        answers.push(comparable(&get(&basic(&format!("{login}:{WRONG}")))));
        assert_eq!(checks() - before, 1.0, "{login}");
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:#?}");
    assert_eq!(answers[0].0, 401);
    // A right password is computed once.
    let before = checks();
    assert_eq!(get(&basic(&format!("alice:{ALICE}"))).status(), 200);
    assert_eq!(checks(), before);
    let none = {
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = json!({"iss": "auth.test", "aud": "registry.test", "sub": "alice",
            "exp": 9_999_999_999_u64, "access": [grant("secret/app", &["*"])]});
        format!("Bearer {}.{}.", encode(json!({"alg": "none"})), encode(claims))
    };
    let cases = [
        (bearer(&issuer, json!({"exp": 1_000_000_000})), "has expired"),
        (bearer(&issuer, json!({"nbf": 9_999_999_999_u64})), "not valid yet"),
        (bearer(&Issuer::new(), json!({})), "not signed by a known key"),
        (bearer(&issuer, json!({"aud": "other.test"})), "for another service"),
        (bearer(&issuer, json!({"iss": "other.test"})), "of another issuer"),
        (none, "malformed"),
        ("Bearer x".to_owned(), "malformed"),
        ("Basic x".to_owned(), "malformed"),
        ("Negotiate x".to_owned(), "not taken here"),
    ];
    for (authorization, word) in cases {
        // Also where everybody may pull, and at the base: what is brought along counts.
        for target in [target, "/v2/open/app/tags/list", "/v2/"] {
            let answer = ask(&server, "GET", target, Some(&authorization));
            assert_eq!((answer.status(), &*answer.error_code()), (401, "UNAUTHORIZED"), "{word}");
            assert!(answer.text().contains(word), "{word}: {}", answer.text());
            let found = challenges(&answer);
            assert!(found[0].ends_with(",error=\"invalid_token\""), "{found:?}");
            assert_eq!(found[1], "Basic realm=\"ringport\"");
        }
    }
    let twice = [("Authorization", "Basic Og=="), ("Authorization", "Basic Og==")];
    assert_eq!(server.connect().exchange("GET", target, &twice).status(), 401);
    // Known, and not meant by the rule; known, and with a token that is for something else.
    assert_eq!(get(&basic(&format!("bob:{BOB}"))).status(), 403);
    let other = bearer(&issuer, json!({"access": [grant("secret/app2", &["pull"])]}));
    let answer = get(&other);
    assert_eq!(answer.status(), 401);
    assert!(
        challenges(&answer)[0]
            .ends_with("scope=\"repository:secret/app:pull\",error=\"insufficient_scope\"")
    );
}

#[test]
fn who_may_not_pull_does_not_learn_what_is_there() {
    let (server, _, manifest) = private("access-hidden");
    let digest = sha256(&manifest);
    let missing = sha256(b"missing");
    let bob = basic(&format!("bob:{BOB}"));
    for authorization in [None, Some(bob.as_str())] {
        let pairs = [
            ("manifests/v1".to_owned(), "manifests/none".to_owned()),
            (format!("manifests/{digest}"), format!("manifests/{missing}")),
            (format!("blobs/{digest}"), format!("blobs/{missing}")),
            ("tags/list".to_owned(), "tags/list".to_owned()),
        ];
        for (there, not_there) in pairs {
            let get = |name: &str, rest: &str| {
                let answer = ask(&server, "GET", &format!("/v2/{name}/{rest}"), authorization);
                let (status, headers, text) = comparable(&answer);
                let other = name.replace("app", "gone");
                let headers = format!("{headers:?}").replace(name, &other);
                // The lengths of the names differ, and so the body's.
                let headers = headers.replace(&text.len().to_string(), "length");
                (status, headers, text.replace(name, &other))
            };
            let found = get("secret/app", &there);
            assert!(matches!(found.0, 401 | 403), "{found:?}");
            assert_eq!(found, get("secret/app", &not_there));
            assert_eq!(found, get("secret/gone", &there));
        }
    }
}

#[test]
fn no_way_of_writing_a_name_gets_round_its_rule() {
    let (server, _, manifest) = private("access-tricks");
    let names = [
        "secret/app",
        "secret%2Fapp",
        "secret%2fapp",
        "%73ecret/app",
        "%2573ecret/app",
        "open/../secret/app",
        "open/..%2fsecret/app",
        "open/%2e%2e/secret/app",
        "./secret/app",
        "/secret/app",
        "secret//app",
        "secret/./app",
        "secret/app/",
        "Secret/app",
        "SECRET/APP",
        "secret/app%00",
        "open/app/manifests/v1/../../../secret/app",
        "proxy/secret/app",
        "localhost/secret/app",
        "proxy/localhost/secret/app",
        "secret/app%3Fns=x",
        "secret\\app",
        "secret/app;x",
    ];
    let queries = ["", "?ns=localhost", "?ns=", "?ns=secret", "?x=/open/app"];
    let targets = |name: &str, rest: &str| {
        queries.map(|query| format!("/v2/{name}/{rest}{query}")).into_iter().chain([
            format!("http://localhost/v2/{name}/{rest}"),
            format!("/v2/open/app/blobs/..%2f..%2f..%2f{name}/{rest}"),
        ])
    };
    let mut refused = 0;
    for name in names {
        for rest in ["manifests/v1", &format!("manifests/{}", sha256(&manifest))] {
            for target in targets(name, rest) {
                for headers in [vec![], vec![("X-Dragonfly-Registry", "localhost")]] {
                    let host = [("Host", "localhost")];
                    let headers = if target.starts_with("http") { host.to_vec() } else { headers };
                    let mut connection = Connection::open(server.addr);
                    connection.request("GET", &target, &headers);
                    let Ok(answer) = connection.read_answer("GET") else { continue };
                    assert!(
                        (400..500).contains(&answer.status()) && answer.body != manifest,
                        "{target}: {:?}",
                        answer.head
                    );
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 300, "{refused}");
    // By digest through an open repository: knowing it is no permission.
    for kind in ["manifests", "blobs"] {
        let target = format!("/v2/open/app/{kind}/{}", sha256(&manifest));
        assert_eq!(ask(&server, "GET", &target, None).status(), 404);
    }
}

/// What is mirrored for some is not served to others, though it is stored.
#[test]
fn a_private_mirror() {
    let issuer = Issuer::new();
    let upstream = LyingUpstream::start();
    let bytes = random_bytes("private", 70_000);
    let digest = upstream.add_blob(REPOSITORY, &bytes);
    let setup = Setup::new("access-mirror").upstream(declared(&upstream).set("pull = [\"alice\"]"));
    let text = auth(setup.scratch(), &issuer, "");
    let server = setup.more(&text).start();
    let target = format!("/v2/{REPOSITORY}/blobs/{digest}?ns={NS}");
    let get = |login: Option<&str>| {
        let login = login.map(basic);
        ask(&server, "GET", &target, login.as_deref())
    };
    let (alice, bob) = (format!("alice:{ALICE}"), format!("bob:{BOB}"));
    assert_eq!(get(None).status(), 401);
    assert_eq!(get(Some(&bob)).status(), 403);
    assert!(upstream.seen().is_empty(), "nobody was asked for those who may not");
    assert_eq!(get(Some(&alice)).body, bytes);
    server.await_blob(&digest);
    assert_eq!((get(None).status(), get(Some(&bob)).status()), (401, 403), "though it is stored");
    assert_eq!(get(Some(&alice)).body, bytes);
    let hosted = format!("/v2/{REPOSITORY}/blobs/{digest}");
    assert_eq!(ask(&server, "GET", &hosted, None).status(), 404, "no permission elsewhere");
    let put = ask(&server, "PUT", &format!("/v2/{REPOSITORY}/manifests/v1?ns={NS}"), None);
    assert_eq!((put.status(), &*put.error_code()), (403, "DENIED"), "{}", put.text());
}

/// The name of a client certificate is a name like others; the header goes before it.
#[test]
fn by_client_certificate() {
    let (own, people) = (Authority::new("Servers"), Authority::new("People"));
    let (issuer, tls, setup) = (Issuer::new(), ports::free(), Setup::new("access-certificate"));
    let (certificate, key) = own.server().write(setup.scratch(), "server");
    let ca = setup.scratch().file("people.pem", &people.pem);
    let lines = format!(
        "tls_listen = [\"{tls}\"]\ntls_certificate = {certificate:?}\ntls_key = {key:?}\n\
         client_ca_file = {ca:?}"
    );
    let text = auth(setup.scratch(), &issuer, "");
    let rule = "[[hosted]]\nrepositories = [\"*\"]\npull = [\"builder\", \"alice\"]\n";
    let server = setup.server(&lines).more(&text).more(rule).start();
    let ask = |pair: Option<&Pair>, header: &str| {
        let client = Client::with(&own, &["http/1.1"], ALL_VERSIONS, pair);
        let mut connection = client.connect(tls).unwrap();
        connection.send("/v2/team/app/tags/list", header).unwrap();
        connection.reply().unwrap().status
    };
    let [builder, other] = ["builder", "other"].map(|name| people.client(name, Kind::Good));
    let login = |login: &str| format!("Authorization: {}\r\n", basic(login));
    let (alice, bob) = (login(&format!("alice:{ALICE}")), login(&format!("bob:{BOB}")));
    let cases = [
        (Some(&builder), "", 404),
        (Some(&other), "", 403),
        (None, "", 401),
        (None, alice.as_str(), 404),
        (Some(&other), alice.as_str(), 404),
        (Some(&builder), bob.as_str(), 403),
        (Some(&builder), "Authorization: Bearer x\r\n", 401),
    ];
    for (pair, header, status) in cases {
        assert_eq!(ask(pair, header), status, "{header}");
    }
    let accepted = server.metric("ringport_logins_total", &["kind=\"certificate\""]);
    assert_eq!(accepted, 2.0);
}

// ---- /v2/ -----------------------------------------------------------------------------------

#[test]
fn the_base_tells_how_to_log_in() {
    let issuer = Issuer::new();
    let users = |scratch: &Scratch, more: &str| {
        let users = format!("alice:{}\n", bcrypt::hash(ALICE, 4).unwrap());
        let path = scratch.secret("htpasswd", users);
        format!("[auth]\nhtpasswd_file = {path:?}\n{more}\n")
    };
    let closed = "[[hosted]]\nrepositories = [\"*\"]\npull = [\"authenticated\"]\n";
    let basic_only = ["Basic realm=\"ringport\""];
    let token = "Bearer realm=\"https://auth.test/token\",service=\"registry.test\"";
    type Text<'a> = Box<dyn Fn(&Scratch) -> String + 'a>;
    let cases: [(Text<'_>, u16, Vec<&str>); 5] = [
        (Box::new(|_| String::new()), 200, vec![]),
        (Box::new(|scratch| users(scratch, "")), 200, basic_only.to_vec()),
        (Box::new(|scratch| users(scratch, "login_first = true")), 401, basic_only.to_vec()),
        (Box::new(|scratch| users(scratch, "") + closed), 401, basic_only.to_vec()),
        (Box::new(|scratch| auth(scratch, &issuer, "")), 401, vec![token, basic_only[0]]),
    ];
    for (text, status, expected) in cases {
        let setup = Setup::new("access-base");
        let text = text(setup.scratch());
        let server = setup.more(&text).start();
        let answer = server.get("/v2/");
        assert_eq!((answer.status(), challenges(&answer)), (status, expected), "{text}");
        let version = answer.header("docker-distribution-api-version");
        assert_eq!(version, "registry/2.0", "old clients look for it");
        let login = |login: &str| ask(&server, "GET", "/v2/", Some(&basic(login))).status();
        if text.is_empty() {
            assert_eq!(login("alice:x"), 200, "logins of other registries are not looked at");
        } else {
            assert_eq!((login(&format!("alice:{ALICE}")), login("alice:x")), (200, 401), "{text}");
        }
    }
}

// ---- what is written ------------------------------------------------------------------------

#[test]
fn nothing_secret_is_written_and_the_user_is() {
    let (server, issuer, _) = private("access-secrets");
    let token = issuer.token(json!({"access": [grant("secret/app", &["pull"])]}));
    let stale = issuer.token(json!({"exp": 1}));
    let logins = [
        basic(&format!("alice:{ALICE}")),
        basic(&format!("alice:{WRONG}")),
        // A password in the place of the name.
        basic(&format!("{BOB}:")),
        format!("Bearer {token}"),
        format!("Bearer {stale}"),
        format!("Bearer {ALICE}"),
    ];
    for login in &logins {
        for (method, target) in [
            ("GET", "/v2/"),
            ("GET", "/v2/secret/app/manifests/v1"),
            ("PUT", "/v2/secret/app/manifests/v2"),
            ("DELETE", "/v2/secret/app/manifests/v1"),
            ("GET", "/v2/_catalog"),
        ] {
            ask(&server, method, target, Some(login));
        }
    }
    // A broken file is told, without what is in it.
    let users = server.scratch().path().join("htpasswd");
    let hashes = std::fs::read_to_string(&users).unwrap();
    std::fs::write(&users, format!("{hashes}carol:plaintext-of-carol\n")).unwrap();
    wait_until("the broken file is told", secs(10), || server.log_text().contains("user carol"));
    let reloaded = http::send_body(server.admin, "POST", "/reload", "text/plain", b"");
    assert_eq!(reloaded.status(), 409, "{}", reloaded.text());
    wait_until("the access log is written", secs(10), || {
        server.log_text().matches("\"path\":\"/v2/_catalog\"").count() == logins.len()
    });
    let (log, metrics) = (server.log_text(), server.metrics());
    let written = format!("{log}{metrics}{}", reloaded.text());
    let mut secrets = vec![ALICE.to_owned(), BOB.to_owned(), WRONG.to_owned()];
    secrets.push("plaintext-of-carol".to_owned());
    secrets.extend(logins.iter().map(|login| login.split_once(' ').unwrap().1.to_owned()));
    for token in [&token, &stale] {
        secrets.extend(token.split('.').skip(1).map(str::to_owned));
    }
    secrets.extend(hashes.lines().map(|line| line.split_once(':').unwrap().1.to_owned()));
    for secret in &secrets {
        assert!(!written.contains(secret.as_str()), "{secret} is written in\n{written}");
    }
    for line in log.lines().filter(|line| line.starts_with("{\"time\"")) {
        let entry: Value = serde_json::from_str(line).unwrap();
        let user = entry["user"].as_str();
        assert!(matches!(user, None | Some("alice" | "ci")), "{line}");
        // 401 with a name is a token that is for something else.
        assert!(entry["status"] != 401 || user != Some("alice"), "{line}");
    }
    assert!(log.contains("\"user\":\"alice\"") && log.contains("\"user\":\"ci\""), "{log}");
    assert!(
        server.metric("ringport_logins_total", &["kind=\"token\"", "result=\"expired\""]) > 0.0
    );
}
