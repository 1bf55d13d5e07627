//! A registry that takes pushes: Ringport, or docker-registry 2.8.2 as the yardstick that the
//! tests of pushes are themselves measured with (`RINGPORT_TEST_YARDSTICK=1`).

use super::clients::{Client, require};
use super::http::{self, Answer};
use super::images::{ACCEPT, Image};
use super::origin::{Access, Origin, PASSWORD, PrivateCa, USER};
use super::process::{Signal, run};
use super::scratch::Scratch;
use super::secs;
use super::server::{Server, Setup};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

/// Who may push, and over what.
pub enum Guard {
    /// Everybody, in plain text.
    Open,
    /// `USER` with `PASSWORD`, over TLS.
    Login,
}

/// How clients get in: what their options are made of.
#[derive(Clone, Default)]
pub struct Door {
    /// A folder with `ca.crt`, as containers/image wants it.
    pub certificates: Option<PathBuf>,
    /// `user:password`.
    pub login: Option<String>,
    /// A folder with a `hosts.toml`, as containerd wants it.
    pub hosts: Option<PathBuf>,
}

impl Door {
    /// Of skopeo, podman and buildah; `side` is `dest-` or `src-` for skopeo's copy, else empty.
    pub fn options(&self, side: &str) -> Vec<String> {
        let mut options = match &self.certificates {
            Some(folder) => vec![format!("--{side}cert-dir={}", folder.display())],
            None => vec![format!("--{side}tls-verify=false")],
        };
        options.extend(self.login.iter().map(|login| format!("--{side}creds={login}")));
        options
    }

    /// Of `ctr image push` and `ctr content fetch`.
    pub fn ctr_options(&self) -> Vec<String> {
        let mut options = match &self.hosts {
            // Without it, ctr takes what is on 127.0.0.1 for plain text.
            Some(folder) => vec!["--hosts-dir".to_owned(), folder.to_string_lossy().into_owned()],
            None => vec!["--plain-http".to_owned()],
        };
        if let Some(login) = &self.login {
            options.extend(["--user".to_owned(), login.clone()]);
        }
        options
    }

    /// The authority's file, if there is TLS.
    pub fn ca_file(&self) -> Option<String> {
        let file = self.certificates.as_ref()?.join("ca.crt");
        Some(file.to_string_lossy().into_owned())
    }

    fn write_hosts(&mut self, scratch: &Scratch, addr: SocketAddr) {
        let Some(ca) = self.ca_file() else { return };
        let text = format!(
            "server = \"https://{addr}\"\n[host.\"https://{addr}\"]\n  ca = \"{ca}\"\n  \
             capabilities = [\"pull\", \"resolve\", \"push\"]\n"
        );
        scratch.file(&format!("hosts/{addr}/hosts.toml"), text);
        self.hosts = Some(scratch.dir("hosts"));
    }
}

/// Which program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Ringport,
    DockerRegistry,
}

enum Kind {
    Yardstick(Box<Origin>),
    Ringport(Box<Server>),
}

/// One that runs.
pub struct Registry {
    kind: Kind,
    /// How to get in.
    pub door: Door,
    // After `kind`: the process ends before its files go.
    scratch: Scratch,
}

/// Whether docker-registry stands in for Ringport.
pub fn yardstick() -> bool {
    std::env::var_os("RINGPORT_TEST_YARDSTICK").is_some_and(|v| v == "1")
}

/// The rule for hosted repositories with which everybody, or who has logged in, may do anything.
fn hosted(who: &str) -> String {
    format!(
        "[[hosted]]\nrepositories = [\"team/*\"]\npull = [\"{who}\"]\n\
         push = [\"{who}\"]\ndelete = [\"{who}\"]\n"
    )
}

impl Registry {
    /// Starts one; `None` when docker-registry is wanted, missing, and that is allowed.
    pub fn start(what: &str, guard: &Guard) -> Option<Registry> {
        Registry::start_with(what, guard, |setup| setup)
    }

    /// The same with more in the configuration, if it is Ringport.
    pub fn start_with(
        what: &str,
        guard: &Guard,
        change: impl FnOnce(Setup) -> Setup,
    ) -> Option<Registry> {
        let which = if yardstick() { Which::DockerRegistry } else { Which::Ringport };
        Registry::start_as(which, what, guard, change)
    }

    /// The same for one of the two.
    pub fn start_as(
        which: Which,
        what: &str,
        guard: &Guard,
        change: impl FnOnce(Setup) -> Setup,
    ) -> Option<Registry> {
        let scratch = Scratch::new(&format!("{what}-files"));
        let (mut door, mut ca) = (Door::default(), None);
        if matches!(guard, Guard::Login) {
            let authority = PrivateCa::new();
            let folder = scratch.dir("certificates");
            std::fs::copy(authority.write(&scratch), folder.join("ca.crt")).expect("a copy");
            door.certificates = Some(folder);
            door.login = Some(format!("{USER}:{PASSWORD}"));
            ca = Some(authority);
        }
        let kind = if which == Which::DockerRegistry {
            let access = ca.as_ref().map_or(Access::Open, Access::TlsBasic);
            let origin = Origin::start(&scratch, &scratch.dir("store"), &access)?;
            Kind::Yardstick(Box::new(origin))
        } else {
            let setup = match &ca {
                None => Setup::new(what).more(&hosted("anonymous")),
                Some(ca) => guarded(Setup::new(what), &scratch, ca)?,
            };
            Kind::Ringport(Box::new(change(setup).start()))
        };
        let mut registry = Registry { kind, door, scratch };
        let addr = registry.addr();
        registry.door.write_hosts(&registry.scratch, addr);
        Some(registry)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        match &self.kind {
            Kind::Yardstick(origin) => origin.addr(),
            Kind::Ringport(server) => server.addr,
        }
    }

    /// For the clients' own files.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Ringport, unless it is the yardstick.
    pub fn ringport(&self) -> Option<&Server> {
        match &self.kind {
            Kind::Yardstick(_) => None,
            Kind::Ringport(server) => Some(server),
        }
    }

    /// `127.0.0.1:<port>/<name>`, as clients are told.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.addr())
    }

    /// Ends it, by SIGTERM in order or without notice, and starts it on its store and port.
    pub fn restart_by(&mut self, signal: Signal) {
        match &mut self.kind {
            Kind::Yardstick(origin) => {
                origin.stop();
                origin.start_again();
            }
            Kind::Ringport(server) if signal == Signal::KILL => {
                server.kill();
                server.start_again();
            }
            Kind::Ringport(server) => server.restart(),
        }
    }

    /// What it wrote.
    pub fn log_text(&self) -> String {
        match &self.kind {
            Kind::Yardstick(origin) => origin.log_text(),
            Kind::Ringport(server) => server.log_text(),
        }
    }

    /// A manifest, in plain text.
    #[track_caller]
    pub fn manifest(&self, repository: &str, reference: &str) -> Answer {
        let target = format!("/v2/{repository}/manifests/{reference}");
        http::get_with(self.addr(), &target, &[("Accept", ACCEPT)])
    }

    /// The digest that it has for a tag, in plain text.
    #[track_caller]
    pub fn digest_of(&self, repository: &str, tag: &str) -> String {
        let answer = self.manifest(repository, tag);
        assert_eq!(answer.status(), 200, "{repository}:{tag}: {}", answer.text());
        super::images::sha256(&answer.body)
    }

    /// Every manifest and blob of an image is there: its bytes, its type, its digest.
    #[track_caller]
    pub fn expect_all_of(&self, repository: &str, image: &Image) {
        for (manifest, tag) in &image.manifests {
            for reference in tag.iter().chain([&manifest.digest]) {
                let answer = self.manifest(repository, reference);
                let what = format!("{repository} {reference}");
                assert_eq!(answer.status(), 200, "{what}: {}", answer.text());
                assert!(answer.body == manifest.bytes, "{what}: {}", answer.text());
                assert_eq!(answer.header("content-type"), manifest.media_type, "{what}");
                assert_eq!(answer.header("docker-content-digest"), manifest.digest, "{what}");
            }
        }
        for blob in &image.blobs {
            self.expect_blob(repository, &blob.digest, &blob.bytes);
        }
    }

    /// A blob is there with these bytes, told by GET and by HEAD.
    #[track_caller]
    pub fn expect_blob(&self, repository: &str, digest: &str, bytes: &[u8]) {
        let target = format!("/v2/{repository}/blobs/{digest}");
        let answer = http::get(self.addr(), &target);
        assert_eq!(answer.status(), 200, "{target}: {}", answer.text());
        assert!(answer.body == bytes, "{target}: {} bytes", answer.body.len());
        let head = http::head(self.addr(), &target);
        let length = head.header("content-length").to_owned();
        assert_eq!((head.status(), length), (200, bytes.len().to_string()), "HEAD {target}");
        assert_eq!(head.header("docker-content-digest"), digest, "HEAD {target}");
    }
}

/// TLS and a login, for Ringport.
fn guarded(setup: Setup, scratch: &Scratch, ca: &PrivateCa) -> Option<Setup> {
    let (certificate, key) = ca.issue(scratch, &["localhost", "127.0.0.1"]);
    let mut command = Command::new(require(Client::Htpasswd)?);
    command.args(["-Bbn", "-C", "4", USER, PASSWORD]);
    let passwords = scratch.secret("htpasswd", run(command, secs(10)).expect_ok());
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).ok()?;
    let setup = setup
        .by_tls(&certificate, &key)
        .more(&format!("[auth]\nhtpasswd_file = \"{}\"\n", passwords.display()))
        .more(&hosted("authenticated"));
    Some(setup)
}
