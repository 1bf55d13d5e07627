//! Ways in besides files: commands that print logins, as the clouds' helpers do, and client
//! certificates.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use support::images;
use support::lying::LyingUpstream;
use support::origin::{Access, Origin, PASSWORD, PrivateCa, TLS_NAME, USER};
use support::proxy::Proxy;
use support::scratch::Scratch;
use support::server::{Server, Setup, Upstream};
use support::token_server::TokenServer;
use support::{ms, secs};

const NS: &str = "origin.example";
const REPOSITORY: &str = "org/app";
const BASIC: &str = "Basic realm=\"r\"";

/// A helper in a folder of its own: it notes each run and its input, then does as told.
struct Helper {
    scratch: Scratch,
}

impl Helper {
    fn new(what: &str) -> Helper {
        let helper = Helper { scratch: Scratch::new(&format!("helper-{what}")) };
        let folder = helper.scratch.path().display().to_string();
        let script = format!(
            "#!/bin/sh\ncat >{folder}/input\necho run >>{folder}/runs\n\
             ls -l /proc/self/fd | grep socket: >{folder}/sockets\n. {folder}/body\n"
        );
        let path = helper.scratch.file("helper", script);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        helper
    }

    /// What it does from now on, as a shell script; taken up as a whole.
    fn does(&self, script: &str) {
        let new = self.scratch.file("body.new", script);
        std::fs::rename(new, self.scratch.path().join("body")).unwrap();
    }

    /// It prints this.
    fn prints(&self, json: &str) {
        self.does(&format!("printf '%s' '{json}'"));
    }

    fn runs(&self) -> usize {
        let runs = std::fs::read_to_string(self.scratch.path().join("runs"));
        runs.unwrap_or_default().lines().count()
    }

    fn input(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("input")).unwrap_or_default()
    }

    /// Sockets that it was born with.
    fn sockets(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("sockets")).expect("it has looked")
    }

    fn path(&self) -> PathBuf {
        self.scratch.path().join("helper")
    }

    fn key(&self) -> String {
        format!("credential_command = [\"{}\", \"get\"]", self.path().display())
    }
}

fn basic(password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{USER}:{password}")))
}

fn printed(password: &str, seconds: u64) -> String {
    format!(r#"{{"username":"{USER}","password":"{password}","expires_in":{seconds}}}"#)
}

/// A scripted origin that is asked anew by each request for its tags.
fn serve(what: &str, origin: &LyingUpstream, helper: &Helper) -> Server {
    let body = br#"{"name":"org/app","tags":["v1"]}"#;
    origin.add(&format!("/v2/{REPOSITORY}/tags/list"), "application/json", body, None);
    let declared = Upstream::new(NS, &origin.url()).set(&helper.key());
    let declared = declared.set("tag_ttl = \"0s\"").set("stale_max = \"0s\"");
    Setup::new(what).server("workers = 2").upstream(declared).start()
}

fn ask(server: &Server) -> support::http::Answer {
    server.get(&format!("/v2/{REPOSITORY}/tags/list?ns={NS}"))
}

#[test]
fn a_command_is_run_once_for_all_and_again_after_a_401() {
    let (origin, helper) = (LyingUpstream::start(), Helper::new("once"));
    origin.require(&basic("canary-1111"), BASIC);
    helper.prints(&printed("canary-1111", 3600));
    let server = serve("command", &origin, &helper);
    assert_eq!(helper.runs(), 0, "not before it is needed");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..10).for_each(|_| assert_eq!(ask(&server).status(), 200)));
        }
    });
    assert_eq!((helper.runs(), helper.input().as_str()), (1, NS));

    // The registry has another password by now, and so has the helper.
    origin.require(&basic("canary-2222"), BASIC);
    helper.prints(&printed("canary-2222", 3600));
    let mut idle = server.connect();
    assert_eq!(idle.exchange("GET", "/v2/", &[]).status(), 200);
    assert_eq!(ask(&server).status(), 200, "{}", server.log_text());
    assert_eq!(helper.runs(), 2);
    assert_eq!(helper.sockets(), "", "no connection is kept open by a command");
    // One that the helper does not know: it is not run for each request.
    origin.require(&basic("canary-3333"), BASIC);
    for _ in 0..20 {
        let answer = ask(&server);
        assert_eq!(answer.status(), 403, "{}", answer.text());
    }
    assert!(helper.runs() <= 3, "{} runs", helper.runs());
    let log = server.log_text();
    assert!(!log.contains("canary-") && !log.contains(&basic("canary-1111")), "{log}");
}

#[test]
fn a_login_is_renewed_before_it_ends_and_outlives_failures_until_then() {
    let (origin, helper) = (LyingUpstream::start(), Helper::new("renew"));
    origin.require(&basic("canary-1111"), BASIC);
    helper.prints(&printed("canary-1111", 2));
    let server = serve("command-renew", &origin, &helper);
    let began = Instant::now();
    while helper.runs() < 4 {
        assert!(began.elapsed() < secs(60), "{} runs", helper.runs());
        assert_eq!(ask(&server).status(), 200, "{}", server.log_text());
        std::thread::sleep(ms(20));
    }
    helper.does("echo 'no role for token=eyJhbGciOiJFUzI1NiJ9.canary1 today' >&2; exit 3");
    let runs = helper.runs();
    let mut good = 0;
    let refused = loop {
        let answer = ask(&server);
        if answer.status() != 200 {
            break answer;
        }
        good += 1;
        assert!(began.elapsed() < secs(90), "it goes on for ever");
        std::thread::sleep(ms(20));
    };
    assert!(good > 0);
    assert_eq!(refused.status(), 502, "{}", refused.text());
    let path = helper.path().display().to_string();
    assert!(refused.text().contains(&path), "{}", refused.text());
    let log = server.log_text();
    assert!(log.contains("no role for token [redacted] today"), "{log}");
    assert!(!log.contains("canary"), "{log}");
    // Left alone for a while.
    for _ in 0..20 {
        assert_eq!(ask(&server).status(), 502);
    }
    assert!(helper.runs() <= runs + 2, "{} runs after {runs}", helper.runs());
}

#[test]
fn every_form_of_answer_opens_what_it_is_for() {
    // A ready token.
    let (origin, helper) = (LyingUpstream::start(), Helper::new("token"));
    origin.require("Bearer ready-token", "Bearer realm=\"http://127.0.0.1:1/token\"");
    helper.prints(r#"{"token":"ready-token","expires_at":"2099-01-01T00:00:00Z"}"#);
    let server = serve("command-token", &origin, &helper);
    assert_eq!(ask(&server).status(), 200, "{}", server.log_text());
    // docker's helpers, with a token server before a real registry.
    let scratch = Scratch::new("command-docker");
    let tokens = TokenServer::start();
    tokens.conduct(|c| c.credentials = Some((USER.to_owned(), PASSWORD.to_owned())));
    let images = [images::forty()];
    let Some(open) = Origin::with_images(&scratch, "store", "org/", &images) else { return };
    let access = Access::Token(&tokens);
    let Some(origin) = Origin::start(&scratch, open.storage(), &access) else { return };
    let helper = Helper::new("docker");
    let reply = |password: &str| {
        format!(r#"{{"ServerURL":"https://{NS}","Username":"{USER}","Secret":"{password}"}}"#)
    };
    helper.prints(&reply("canary-of-yesterday"));
    let declared = Upstream::new(NS, &origin.url())
        .set(&format!("token_realms = [\"{}\"]", tokens.realm_host()))
        .set(&helper.key());
    let server = Setup::new("command-docker").upstream(declared).start();
    let blob = |number: usize| {
        let blob = &images[0].blobs[number];
        let answer = server.get(&format!("/v2/org/forty/blobs/{}?ns={NS}", blob.digest));
        (answer.status(), answer.body == blob.bytes)
    };
    assert_eq!(blob(0).0, 403, "the token server refuses it");
    helper.prints(&reply(PASSWORD));
    // What was refused is not asked for again at once.
    support::wait_until("another try", secs(30), || blob(0) == (200, true));
    (1..20).for_each(|number| assert_eq!(blob(number), (200, true)));
    assert!(!server.log_text().contains(PASSWORD));
    // What is no answer.
    let (origin, helper) = (LyingUpstream::start(), Helper::new("garbage"));
    origin.require(&basic("canary-1111"), BASIC);
    helper.prints("canary-1111, please");
    let server = serve("command-garbage", &origin, &helper);
    let answer = ask(&server);
    assert_eq!(answer.status(), 502, "{}", answer.text());
    assert!(answer.text().contains("expected a JSON object"), "{}", answer.text());
    assert!(!answer.text().contains("canary") && !server.log_text().contains("canary"));
}

#[test]
fn a_registry_that_wants_client_certificates() {
    let scratch = Scratch::new("client-cert");
    let (ca, clients, strangers) = (PrivateCa::new(), PrivateCa::new(), PrivateCa::new());
    let images = [images::forty()];
    let Some(open) = Origin::with_images(&scratch, "store", "org/", &images) else { return };
    let access = Access::TlsClients(&ca, &clients);
    let Some(origin) = Origin::start(&scratch, open.storage(), &access) else { return };
    let proxy = Proxy::start(&[TLS_NAME]);
    let serve = |issuer: Option<&PrivateCa>, by_proxy: bool| {
        let setup = Setup::new("client-cert");
        let endpoint = format!("https://{TLS_NAME}:{}", origin.addr().port());
        let (endpoint, through) = match by_proxy {
            true => (endpoint, proxy.url()),
            false => (origin.url(), "none".to_owned()),
        };
        let mut declared = Upstream::new(NS, &endpoint)
            .set(&format!("proxy = \"{through}\""))
            .set(&format!("ca_file = \"{}\"", ca.write(setup.scratch()).display()));
        if let Some(issuer) = issuer {
            let (certificate, key) = issuer.issue(setup.scratch(), &["ringport.test"]);
            std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
            declared = declared
                .set(&format!("client_cert = \"{}\"", certificate.display()))
                .set(&format!("client_key = \"{}\"", key.display()));
        }
        setup.upstream(declared).start()
    };
    let target =
        |number: usize| format!("/v2/org/forty/blobs/{}?ns={NS}", images[0].blobs[number].digest);
    for by_proxy in [false, true] {
        let server = serve(Some(&clients), by_proxy);
        for number in 0..10 {
            let answer = server.get(&target(number));
            assert_eq!(answer.status(), 200, "{}\n{}", answer.text(), server.log_text());
            assert!(answer.body == images[0].blobs[number].bytes);
        }
    }
    assert!(!proxy.seen().is_empty());
    for issuer in [None, Some(&strangers)] {
        let server = serve(issuer, false);
        let answer = server.get(&target(0));
        assert_eq!(answer.status(), 502, "{}", answer.text());
        assert!(server.blobs().is_empty());
    }
}
