//! Headers, files and certificates in, a principal or a refusal out.

mod tokens;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::config::{Config, Subject};
use crate::http::{Parsed, RequestHead};
use crate::runtime::tests::on_workers;
use crate::runtime::{Driver, sleep};

/// bcrypt of "alice's" and "bob's" at the least cost there is.
fn users() -> String {
    let hash = |password: &str| bcrypt::hash(password, 4).unwrap();
    format!("alice:{}\nbob:{}\n", hash("alice's"), hash("bob's"))
}

fn authenticator(text: &str) -> Arc<Authenticator> {
    let config = Config::parse(text, "t.toml").unwrap();
    Authenticator::start(&config.auth).unwrap()
}

fn with_users(path: &Path) -> Arc<Authenticator> {
    authenticator(&format!("[auth]\nhtpasswd_file = {path:?}"))
}

fn head(lines: &str) -> RequestHead {
    let text = format!("GET /v2/ HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
    match RequestHead::parse(text.as_bytes()) {
        Ok(Parsed::Complete { head, .. }) => head,
        other => panic!("{other:?}"),
    }
}

fn basic(login: &str) -> RequestHead {
    head(&format!("Authorization: Basic {}\r\n", STANDARD.encode(login)))
}

fn count(authenticator: &Authenticator, kind: &str, result: &str) -> u64 {
    let counts = authenticator.counts();
    counts.iter().find(|(labels, _)| *labels == [kind, result]).unwrap().1
}

/// Each line: what is sent, who that is, or why not.
#[test]
fn passwords() {
    on_workers(1, Driver::Epoll, |_| async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("htpasswd");
        fs::write(&path, users()).unwrap();
        let who = with_users(&path);
        let cases = [
            (basic("alice:alice's"), Ok(Some("alice"))),
            (basic("bob:bob's"), Ok(Some("bob"))),
            (basic("alice:bob's"), Err(AuthError::Password)),
            (basic("alice:"), Err(AuthError::Password)),
            (basic("Alice:alice's"), Err(AuthError::Password)),
            (basic(":alice's"), Err(AuthError::Password)),
            (basic("carol:x"), Err(AuthError::Password)),
            // How skopeo says that it has no login.
            (basic(":"), Ok(None)),
            (basic("alice"), Err(AuthError::Header)),
            (head(""), Ok(None)),
            (head("Authorization: Basic\r\n"), Err(AuthError::Header)),
            (head("Authorization: Basic !\r\n"), Err(AuthError::Header)),
            (head("authorization: bASIC YWxpY2U6YWxpY2Uncw\r\n"), Ok(Some("alice"))),
            (head("Authorization: Bearer abc\r\n"), Err(AuthError::Scheme)),
            (head("Authorization: Negotiate abc\r\n"), Err(AuthError::Scheme)),
            (
                head("Authorization: Basic Og==\r\nAuthorization: Basic Og==\r\n"),
                Err(AuthError::Header),
            ),
        ];
        for (head, expected) in cases {
            let found = who.identify(&head, None).await;
            let name = found.as_ref().map(|principal| principal.name()).map_err(|error| *error);
            assert_eq!(name, expected, "{head:?}");
            let proof = found.map_or(Proof::None, |principal| principal.proof());
            assert_eq!(proof == Proof::Password, matches!(expected, Ok(Some(_))), "{head:?}");
        }
    });
}

/// One who looks at the work can't tell an unknown user from a wrong password; a right password is
/// computed once, a wrong one each time.
#[test]
fn the_work_of_a_refusal_does_not_depend_on_the_user() {
    on_workers(1, Driver::Epoll, |_| async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("htpasswd");
        fs::write(&path, users()).unwrap();
        let who = with_users(&path);
        let mut runs = Vec::new();
        for login in ["alice:wrong", "carol:wrong", "alice:wrong", "bob:bob's", "bob:bob's"] {
            let before = who.password_checks();
            let _ = who.identify(&basic(login), None).await;
            runs.push(who.password_checks() - before);
        }
        assert_eq!(runs, [1, 1, 1, 1, 0]);
        assert_eq!(count(&who, "password", "wrong"), 3);
        assert_eq!(count(&who, "password", "accepted"), 1);
        assert_eq!(count(&who, "password", "remembered"), 1);
        // Asked at the same time, it is computed once.
        let (head, before) = (basic("alice:alice's"), who.password_checks());
        let asked = (0..8).map(|_| who.identify(&head, None));
        let found = futures_util::future::join_all(asked).await;
        assert!(found.iter().all(|one| one.as_ref().unwrap().name() == Some("alice")));
        assert_eq!(who.password_checks() - before, 1);
    });
}

/// More than can wait are told to come again, and nobody is taken for somebody.
#[test]
fn too_many_passwords_at_once_are_refused_as_busy() {
    on_workers(1, Driver::Epoll, |_| async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("htpasswd");
        let slow = bcrypt::hash("alice's", 8).unwrap();
        fs::write(&path, format!("alice:{slow}\n")).unwrap();
        let who = with_users(&path);
        let heads: Vec<_> = (0..200).map(|n| basic(&format!("alice:wrong {n}"))).collect();
        let asked = heads.iter().map(|head| who.identify(head, None));
        let found = futures_util::future::join_all(asked).await;
        let busy = found.iter().filter(|one| **one == Err(AuthError::Busy)).count();
        let wrong = found.iter().filter(|one| **one == Err(AuthError::Password)).count();
        assert!(busy > 0 && busy + wrong == 200, "{busy} busy, {wrong} wrong");
        assert_eq!(who.password_checks(), wrong as u64);
        let again = who.identify(&basic("alice:alice's"), None).await;
        assert_eq!(again.unwrap().name(), Some("alice"), "the queue is free again");
    });
}

/// Waits until `is_so`, for the second within which files are looked at, and some more.
async fn until(is_so: impl AsyncFn() -> bool) {
    for _ in 0..200 {
        if is_so().await {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("not within ten seconds");
}

#[test]
fn a_changed_file_is_read_again_and_a_broken_one_changes_nothing() {
    on_workers(1, Driver::Epoll, |_| async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("htpasswd");
        fs::write(&path, users()).unwrap();
        let who = with_users(&path);
        let is = async |login: &str| who.identify(&basic(login), None).await.is_ok();
        assert!(is("alice:alice's").await && is("bob:bob's").await);
        // Broken, then gone: what was read stays, and what is remembered.
        let before = who.password_checks();
        for broken in [Some("alice:{SHA}x\n"), None] {
            match broken {
                Some(text) => fs::write(&path, text).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            sleep(Duration::from_millis(1500)).await;
            assert!(is("alice:alice's").await);
        }
        assert_eq!(who.password_checks(), before);
        // Without alice: her password, which is remembered, counts no more.
        let bob = users().lines().nth(1).unwrap().to_owned();
        fs::write(&path, bob).unwrap();
        until(async || !is("alice:alice's").await).await;
        assert!(is("bob:bob's").await);
        // Replaced as `htpasswd` does it, by renaming.
        let next = folder.path().join("next");
        fs::write(&next, users()).unwrap();
        fs::rename(&next, &path).unwrap();
        until(async || is("alice:alice's").await).await;
    });
}

#[test]
fn files_that_cannot_be_taken_are_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    let users = format!("[auth]\nhtpasswd_file = {path:?}");
    let keys = format!(
        "[auth.token]\nrealm = \"https://a\"\nservice = \"s\"\nissuer = \"i\"\nkey_files = [{path:?}]"
    );
    let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let secret = r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#;
    let cases: [(&str, Option<&str>, &str); 8] = [
        (&users, None, "auth.htpasswd_file"),
        (&users, Some("alice:plain"), "line 1, user alice"),
        (&keys, None, "auth.token.key_files"),
        (&keys, Some(""), "found neither"),
        (&keys, Some("ssh-rsa AAAA"), "found neither"),
        (&keys, Some(private), "found a private one"),
        (&keys, Some(secret), "a shared secret"),
        (&keys, Some(r#"{"keys":[]}"#), "found none"),
    ];
    for (text, content, word) in cases {
        let _ = fs::remove_file(&path);
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let config = Config::parse(text, "t.toml").unwrap();
        let error = AuthFiles::check(&config.auth).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains(path.to_str().unwrap()), "{error}");
        assert!(!error.contains("plain") && !error.contains("c2VjcmV0"), "{error}");
    }
}

/// A mirror without [auth] gets logins of other registries, and serves all the same.
#[test]
fn without_auth_the_header_is_not_looked_at_and_certificates_count() {
    on_workers(1, Driver::Epoll, |_| async {
        let who = authenticator("");
        for head in [basic("alice:x"), head("Authorization: Bearer x\r\n"), head("")] {
            assert_eq!(who.identify(&head, None).await, Ok(Principal::ANONYMOUS));
        }
        let certificate = |name: Option<&str>, others: &[&str]| {
            let key = rcgen::KeyPair::generate().unwrap();
            let others = others.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            let mut parameters = rcgen::CertificateParams::new(others).unwrap();
            parameters.distinguished_name = rcgen::DistinguishedName::new();
            if let Some(name) = name {
                parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
            }
            parameters.self_signed(&key).unwrap().der().to_vec()
        };
        let long = "x".repeat(300);
        let cases = [
            (certificate(Some("builder"), &["other.example"]), Some("builder")),
            (certificate(None, &["host.example", "x.example"]), Some("host.example")),
            (certificate(None, &[]), None),
            (certificate(Some(&long), &[]), None),
            (certificate(Some("a\nb"), &[]), None),
            (vec![1, 2, 3], None),
        ];
        for (der, expected) in cases {
            let found = who.identify(&basic("alice:x"), Some(&der)).await.unwrap();
            assert_eq!(found.name(), expected);
        }
        assert_eq!(count(&who, "certificate", "accepted"), 2);
        assert_eq!(count(&who, "certificate", "unnamed"), 4);
        for (from, until) in [(2000, 2020), (2100, 2110)] {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut parameters = rcgen::CertificateParams::default();
            parameters.distinguished_name.push(rcgen::DnType::CommonName, "builder");
            parameters.not_before = rcgen::date_time_ymd(from, 1, 1);
            parameters.not_after = rcgen::date_time_ymd(until, 1, 1);
            let der = parameters.self_signed(&key).unwrap().der().to_vec();
            let found = who.identify(&head(""), Some(&der)).await;
            assert_eq!(found, Err(AuthError::CertificateTime));
        }
        assert_eq!(count(&who, "certificate", "untimely"), 2);
        // With passwords too: the header goes first, unless there is nothing in it.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("htpasswd");
        fs::write(&path, users()).unwrap();
        let (who, der) = (with_users(&path), certificate(Some("builder"), &[]));
        let found = who.identify(&basic(":"), Some(&der)).await.unwrap();
        assert_eq!(found.name(), Some("builder"));
        let found = who.identify(&basic("alice:alice's"), Some(&der)).await.unwrap();
        assert_eq!(found.name(), Some("alice"));
        let wrong = who.identify(&basic("alice:bob's"), Some(&der)).await;
        assert_eq!(wrong, Err(AuthError::Password));
    });
}

#[test]
fn who_is_meant_by_a_list() {
    let user = |name: &str| Subject::User(name.to_owned());
    let alice = Principal::named("alice", Proof::Password);
    let unknown_token = Principal::of_token("", Vec::new());
    let cases = [
        (vec![], [false, false, false]),
        (vec![Subject::Anonymous], [true, true, true]),
        (vec![Subject::Authenticated], [false, true, false]),
        (vec![user("alice")], [false, true, false]),
        (vec![user("bob")], [false, false, false]),
        (vec![user("")], [false, false, false]),
        (vec![user("bob"), Subject::Authenticated], [false, true, false]),
    ];
    for (who, expected) in cases {
        let found = [&Principal::ANONYMOUS, &alice, &unknown_token].map(|p| p.is_among(&who));
        assert_eq!(found, expected, "{who:?}");
    }
}
