//! TLS: private authorities, wrong names, client certificates; nothing is said before proof.

use std::net::TcpStream;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::origin::{Origin, ok, redirect};
use super::world::{World, failure, fetch, file, get, only};
use crate::upstream::UpstreamError;

pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        self.issue_with(name, |_| {})
    }

    fn issue_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        change(&mut params);
        (params.signed_by(&key, &self.0).expect("a certificate"), key)
    }

    /// A TLS server whose certificate for `name` was changed before it was signed.
    pub(super) fn serve_changed(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Origin {
        self.serve_as(self.issue_with(name, change), None, |_| ok(b""))
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a root");
        roots
    }

    /// A TLS server called `name`; with `clients`, it demands a certificate of that authority.
    fn serve(&self, name: &str, clients: Option<&Authority>, body: &'static [u8]) -> Origin {
        self.serve_with(name, clients, move |_| ok(body))
    }

    pub(super) fn serve_with(
        &self,
        name: &str,
        clients: Option<&Authority>,
        script: impl Fn(&super::origin::Seen) -> super::origin::Answer + Send + Sync + 'static,
    ) -> Origin {
        self.serve_as(self.issue(name), clients, script)
    }

    fn serve_as(
        &self,
        (certificate, key): (rcgen::Certificate, KeyPair),
        clients: Option<&Authority>,
        script: impl Fn(&super::origin::Seen) -> super::origin::Answer + Send + Sync + 'static,
    ) -> Origin {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let roots = Arc::new(clients.roots());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let config =
            builder.with_single_cert(vec![certificate.der().clone()], key).expect("a config");
        let config = Arc::new(config);
        Origin::start_wrapped(script, move |stream: TcpStream| {
            let connection = ServerConnection::new(config.clone()).ok()?;
            Some(StreamOwned::new(connection, stream))
        })
    }
}

fn world(origin: &Origin, keys: &str) -> Arc<World> {
    let port = origin.address.port();
    let keys = format!("endpoints = [\"https://secure.test:{port}\"]\n{keys}");
    World::with_names(&keys, || {
        only(&[("secure.test", &["127.0.0.1"]), ("other.test", &["127.0.0.1"])])
    })
}

#[test]
fn a_private_authority_is_trusted_when_it_is_listed() {
    let authority = Authority::new();
    let origin = authority.serve("secure.test", None, b"secret");
    let (_folder, ca) = file(&authority.0.pem());
    world(&origin, &format!("ca_file = \"{ca}\"")).run(|client| async move {
        for _ in 0..2 {
            assert_eq!(fetch(&client, "/v2/team/app/blobs/x").await.expect("a body"), "secret");
        }
    });
    assert_eq!((origin.seen().len(), origin.connections()), (2, 1));
    let host = origin.seen().pop().and_then(|s| s.header("host").map(str::to_owned));
    assert_eq!(host, Some(format!("secure.test:{}", origin.address.port())));
}

#[test]
fn who_cannot_prove_its_name_is_told_nothing() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (_folder, ca) = file(&authority.0.pem());
    let keys = format!("ca_file = \"{ca}\"");
    let cases = [
        (authority.serve("wrong.test", None, b""), keys.as_str()),
        (stranger.serve("secure.test", None, b""), keys.as_str()),
        (authority.serve("secure.test", None, b""), ""),
    ];
    for (origin, keys) in cases {
        world(&origin, keys).run(|client| async move {
            let error = failure(get(&client, "/v2/team/app/blobs/x").await);
            assert!(matches!(error, UpstreamError::Tls { .. }), "{error}");
            assert!(error.to_string().contains("ca_file"), "{error}");
        });
        assert_eq!(origin.seen().len(), 0);
    }
    let plain = Origin::start(|_| ok(b""));
    world(&plain, "").run(|client| async move {
        let error = failure(get(&client, "/v2/team/app/blobs/x").await);
        assert!(error.is_failure_of_upstream(), "{error}");
    });
    assert_eq!(plain.seen().len(), 0);
}

#[test]
fn a_client_certificate_is_shown_to_the_endpoint_only() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let (certificate, key) = clients.issue("ringport.test");
    let (_a, ca) = file(&authority.0.pem());
    let (_b, certificate) = file(&certificate.pem());
    let (_c, key) = file(&key.serialize_pem());
    let elsewhere = authority.serve("other.test", Some(&clients), b"other");
    let target = format!("https://other.test:{}/x", elsewhere.address.port());
    let origin =
        authority.serve_with("secure.test", Some(&clients), move |seen| match seen.path() {
            "/v2/team/app/blobs/away" => redirect(&target),
            _ => ok(b"mine"),
        });
    let keys =
        format!("ca_file = \"{ca}\"\nclient_cert = \"{certificate}\"\nclient_key = \"{key}\"");
    world(&origin, &keys).run(|client| async move {
        assert_eq!(fetch(&client, "/v2/team/app/blobs/x").await.expect("a body"), "mine");
        let error = failure(fetch(&client, "/v2/team/app/blobs/away").await);
        assert!(error.is_failure_of_upstream(), "{error}");
    });
    assert_eq!(elsewhere.seen().len(), 0);
}

#[test]
fn https_does_not_lead_to_http() {
    let authority = Authority::new();
    let (_folder, ca) = file(&authority.0.pem());
    let plain = Origin::start(|_| ok(b"open"));
    let target = plain.url("/x");
    let origin = authority.serve_with("secure.test", None, move |_| redirect(&target));
    world(&origin, &format!("ca_file = \"{ca}\"")).run(|client| async move {
        let error = failure(get(&client, "/v2/team/app/blobs/x").await);
        assert!(matches!(error, UpstreamError::Redirect { .. }), "{error}");
    });
    assert_eq!(plain.connections(), 0);
}
