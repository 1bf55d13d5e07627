//! Servers that cannot prove who they are: not one byte of a credential, nor of a request.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use rcgen::{CertificateParams, IsCa, date_time_ymd};

use super::tls::Authority;
use super::world::{CANARY, World, failure, file, get, only};
use crate::upstream::UpstreamError;

/// Asks `port` by TLS, with the canary as the password; the error.
fn ask(port: u16, ca: &str) -> UpstreamError {
    let (_folder, password) = file(CANARY);
    let keys = format!(
        "endpoints = [\"https://secure.test:{port}\"]\nca_file = \"{ca}\"\nusername = \"ci\"\n\
         password_file = \"{password}\"\ntls_timeout = \"2s\""
    );
    let world = World::with_names(&keys, || only(&[("secure.test", &["127.0.0.1"])]));
    let found = Arc::new(Mutex::new(None));
    let told = found.clone();
    world.run(move |client| {
        let told = told.clone();
        async move {
            let error = failure(get(&client, "/v2/team/app/blobs/x").await);
            told.lock().expect("not poisoned").replace(error);
        }
    });
    let error = found.lock().expect("not poisoned").take();
    error.expect("an error")
}

#[test]
fn certificates_that_prove_nothing() {
    type Change = fn(&mut CertificateParams);
    let cases: [(&str, &str, Change); 6] = [
        ("expired", "secure.test", |p| p.not_after = date_time_ymd(2020, 1, 1)),
        ("not valid yet", "secure.test", |p| p.not_before = date_time_ymd(2099, 1, 1)),
        ("another name", "other.test", |_| {}),
        ("a name below", "secure.test.evil.test", |_| {}),
        ("a wildcard one level up", "*.test.example", |_| {}),
        ("only an authority", "", |p| p.is_ca = IsCa::ExplicitNoCa),
    ];
    let authority = Authority::new();
    let (_folder, ca) = file(&authority.pem());
    for (what, name, change) in cases {
        let origin = match name {
            "" => authority.serve_changed("nobody.test", change),
            name => authority.serve_changed(name, change),
        };
        let error = ask(origin.address.port(), &ca);
        assert!(matches!(error, UpstreamError::Tls { .. }), "{what}: {error}");
        assert_eq!(origin.seen().len(), 0, "{what}");
    }
    // Signed by nobody who is trusted, its own signature included.
    let stranger = Authority::new();
    let origin = stranger.serve_changed("secure.test", |_| {});
    let error = ask(origin.address.port(), &ca);
    assert!(matches!(error, UpstreamError::Tls { .. }), "{error}");
    assert_eq!(origin.seen().len(), 0);
}

/// Takes one connection, answers the first bytes with these, and keeps all that comes.
fn raw(answer: Vec<u8>) -> (u16, std::thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let mut heard = vec![0; 1 << 16];
        let first = stream.read(&mut heard).unwrap_or(0);
        heard.truncate(first);
        let _ = stream.write_all(&answer);
        let _ = stream.read_to_end(&mut heard);
        heard
    });
    (port, thread)
}

#[test]
fn downgrades_are_not_taken() {
    let authority = Authority::new();
    let (_folder, ca) = file(&authority.pem());
    let server_hello = |version: [u8; 2]| {
        let mut body = vec![version[0], version[1]];
        body.extend([7; 32]);
        // No session, TLS_RSA_WITH_AES_128_CBC_SHA, no compression.
        body.extend([0, 0, 0x2f, 0]);
        let mut hello = vec![22, version[0], version[1], 0, body.len() as u8 + 4, 2, 0, 0];
        hello.push(body.len() as u8);
        hello.extend(body);
        hello
    };
    let challenge = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=r\r\n\
                      Content-Length: 0\r\n\r\n";
    let cases = [
        ("SSL 3.0", server_hello([3, 0])),
        ("TLS 1.0", server_hello([3, 1])),
        ("TLS 1.1", server_hello([3, 2])),
        ("TLS 1.2 without forward secrecy", server_hello([3, 3])),
        ("an alert: this version is too new", vec![21, 3, 1, 0, 2, 2, 70]),
        ("plain HTTP", challenge.to_vec()),
        ("a redirect in plain HTTP", b"HTTP/1.1 302 F\r\nLocation: /x\r\n\r\n".to_vec()),
        ("nothing", Vec::new()),
    ];
    let secret = base64::engine::general_purpose::STANDARD.encode(format!("ci:{CANARY}"));
    for (what, answer) in cases {
        let (port, server) = raw(answer);
        let error = ask(port, &ca);
        assert!(error.is_failure_of_upstream(), "{what}: {error}");
        let heard = server.join().expect("the server ends");
        // A TLS record of type handshake, and no word of HTTP in what follows it.
        assert_eq!(heard.first(), Some(&22), "{what}: {heard:?}");
        let text = String::from_utf8_lossy(&heard).into_owned();
        for word in [CANARY, &secret, "HTTP/1", "/v2/", "uthorization"] {
            assert!(!text.contains(word), "{what}: {word} was told");
        }
    }
}
