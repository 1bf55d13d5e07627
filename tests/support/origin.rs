//! Real origins: Debian's docker-registry 2.8.2, open, with basic auth, with bearer tokens, by TLS.

use super::clients::{Client, require};
use super::images::Image;
use super::process::Process;
use super::scratch::Scratch;
use super::token_server::{ISSUER, SERVICE, TokenServer};
use super::{http, ms, ports, secs, wait_until};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The one account of the guarded origins.
pub const USER: &str = "robot";
pub const PASSWORD: &str = "canary-f41d7a2c";
/// A name that the certificates of those by TLS are good for, and that only a proxy knows.
pub const TLS_NAME: &str = "origin.test";

/// How an origin is guarded.
pub enum Access<'a> {
    /// By nothing.
    Open,
    /// By `USER` and `PASSWORD`.
    Basic,
    /// By tokens of this server.
    Token(&'a TokenServer),
    /// By nothing, but over TLS.
    Tls(&'a PrivateCa),
    /// By `USER` and `PASSWORD`, over TLS.
    TlsBasic(&'a PrivateCa),
    /// By TLS with a client certificate of the second authority.
    TlsClients(&'a PrivateCa, &'a PrivateCa),
}

/// A running docker-registry.
pub struct Origin {
    addr: SocketAddr,
    storage: PathBuf,
    config: PathBuf,
    log: PathBuf,
    https: bool,
    process: Option<Process>,
}

impl Origin {
    /// Starts one over a storage folder; several may share a folder as long as one alone
    /// writes. `None` when docker-registry is missing and that is allowed.
    pub fn start(scratch: &Scratch, storage: &Path, access: &Access<'_>) -> Option<Origin> {
        Origin::start_with(scratch, storage, access, |text| text)
    }

    /// The same with a line in its log for each request.
    pub fn start_logged(scratch: &Scratch, storage: &Path, access: &Access<'_>) -> Option<Origin> {
        let off = "  accesslog:\n    disabled: true\n";
        Origin::start_with(scratch, storage, access, |text| text.replace(off, ""))
    }

    /// The same that lets content be deleted.
    pub fn start_with_deletes(
        scratch: &Scratch,
        storage: &Path,
        access: &Access<'_>,
    ) -> Option<Origin> {
        let delete = "storage:\n  delete:\n    enabled: true\n";
        Origin::start_with(scratch, storage, access, |text| text.replace("storage:\n", delete))
    }

    fn start_with(
        scratch: &Scratch,
        storage: &Path,
        access: &Access<'_>,
        change: impl FnOnce(String) -> String,
    ) -> Option<Origin> {
        require(Client::DockerRegistry)?;
        let addr = ports::free();
        let name = format!("origin-{}", addr.port());
        let text = change(config_text(scratch, storage, addr, access)?);
        let config = scratch.file(&format!("{name}.yml"), text);
        let log = scratch.path().join(format!("{name}.log"));
        let https = !matches!(access, Access::Open | Access::Basic | Access::Token(_));
        let storage = storage.to_path_buf();
        let mut origin = Origin { addr, storage, config, log, https, process: None };
        origin.start_again();
        Some(origin)
    }

    /// An open one with the images under `<prefix><name>`.
    pub fn with_images(
        scratch: &Scratch,
        folder: &str,
        prefix: &str,
        images: &[Image],
    ) -> Option<Origin> {
        let origin = Origin::start(scratch, &scratch.dir(folder), &Access::Open)?;
        for image in images {
            image.push(origin.addr, prefix);
        }
        Some(origin)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its URL, as an endpoint of the config.
    pub fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}", self.addr)
    }

    /// Its storage folder.
    pub fn storage(&self) -> &Path {
        &self.storage
    }

    /// Ends it; its port refuses.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it (again) on its port and folder.
    pub fn start_again(&mut self) {
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&self.config).env("OTEL_TRACES_EXPORTER", "none");
        let mut process = Process::spawn(command, "docker-registry", &self.log);
        let addr = self.addr;
        wait_until("docker-registry to listen", secs(20), || {
            if !process.is_running() {
                panic!("docker-registry ended at its start:\n{}", process.log_tail(20));
            }
            TcpStream::connect_timeout(&addr, ms(500)).is_ok()
        });
        self.process = Some(process);
    }

    /// What it wrote.
    pub fn log_text(&self) -> String {
        self.process.as_ref().map(Process::log_text).unwrap_or_default()
    }

    /// The digest that it gives a tag, asked straight.
    pub fn digest_of(&self, repository: &str, tag: &str) -> String {
        let target = format!("/v2/{repository}/manifests/{tag}");
        let accept = [("Accept", super::images::ACCEPT)];
        let answer = http::get_with(self.addr, &target, &accept);
        assert_eq!(answer.status(), 200, "{target} at the origin: {}", answer.text());
        answer.header("docker-content-digest").to_owned()
    }
}

fn config_text(
    scratch: &Scratch,
    storage: &Path,
    addr: SocketAddr,
    access: &Access<'_>,
) -> Option<String> {
    let mut text = format!(
        "version: 0.1\nlog:\n  level: warn\n  accesslog:\n    disabled: true\n\
         storage:\n  filesystem:\n    rootdirectory: {}\n  maintenance:\n    uploadpurging:\n      \
         enabled: false\nhttp:\n  addr: {addr}\n  secret: of-the-tests\n",
        storage.display()
    );
    match access {
        Access::Open => {}
        Access::Tls(ca) => text.push_str(&tls_text(scratch, ca)),
        Access::TlsClients(ca, clients) => {
            let clients = clients.write(scratch);
            text.push_str(&tls_text(scratch, ca));
            text.push_str(&format!("    clientcas:\n      - {}\n", clients.display()));
        }
        Access::TlsBasic(ca) => {
            text.push_str(&tls_text(scratch, ca));
            text.push_str(&basic_text(scratch)?);
        }
        Access::Basic => text.push_str(&basic_text(scratch)?),
        Access::Token(server) => {
            let bundle = scratch.file("token-root.pem", server.certificate_pem());
            text.push_str(&format!(
                "auth:\n  token:\n    realm: {}\n    service: {SERVICE}\n    issuer: {ISSUER}\n    \
                 rootcertbundle: {}\n",
                server.realm(),
                bundle.display()
            ));
        }
    }
    Some(text)
}

/// Of `http`, which stands last.
fn tls_text(scratch: &Scratch, ca: &PrivateCa) -> String {
    let (certificate, key) = ca.issue(scratch, &["localhost", "127.0.0.1", TLS_NAME]);
    let (certificate, key) = (certificate.display(), key.display());
    format!("  tls:\n    certificate: {certificate}\n    key: {key}\n")
}

fn basic_text(scratch: &Scratch) -> Option<String> {
    require(Client::Htpasswd)?;
    let mut command = Command::new("htpasswd");
    command.args(["-Bbn", "-C", "4", USER, PASSWORD]);
    let line = super::process::run(command, secs(10)).expect_ok();
    let file = scratch.file("htpasswd", line);
    Some(format!("auth:\n  htpasswd:\n    realm: tests\n    path: {}\n", file.display()))
}

/// A certificate authority of the test's own.
pub struct PrivateCa {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl PrivateCa {
    /// A new one.
    pub fn new() -> PrivateCa {
        let key = rcgen::KeyPair::generate().expect("a P-256 key");
        let mut parameters = rcgen::CertificateParams::default();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "The Tests' Own CA");
        let certificate = parameters.self_signed(&key).expect("a CA certificate");
        let pem = certificate.pem();
        PrivateCa { issuer: rcgen::Issuer::new(parameters, key), pem }
    }

    /// Its certificate, as a `ca_file`.
    pub fn write(&self, scratch: &Scratch) -> PathBuf {
        scratch.file("ca.pem", &self.pem)
    }

    /// A server certificate and its key, as files.
    pub fn issue(&self, scratch: &Scratch, names: &[&str]) -> (PathBuf, PathBuf) {
        let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
        let label = names.join("-");
        let key = rcgen::KeyPair::generate().expect("a P-256 key");
        let parameters = rcgen::CertificateParams::new(names).expect("the names of a server");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        let path = scratch.file(&format!("{label}.pem"), certificate.pem());
        (path, scratch.file(&format!("{label}.key"), key.serialize_pem()))
    }
}

impl Default for PrivateCa {
    fn default() -> Self {
        PrivateCa::new()
    }
}
