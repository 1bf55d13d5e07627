//! Real clients, each with folders of its own: containerd with ctr, skopeo, podman, curl.
//!
//! Nothing here can reach a registry by itself: names are resolved through the mirror under test
//! or not at all.

use super::process::{Process, Ran, run};
use super::scratch::Scratch;
use super::{secs, wait_until};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const BOUND: Duration = secs(120);

/// A program from outside that tests need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    Containerd,
    Ctr,
    Skopeo,
    Podman,
    Curl,
    DockerRegistry,
    Htpasswd,
    Buildah,
    Umoci,
    /// A Python that has the library oras.
    Oras,
}

impl Client {
    /// The program and the Debian package it comes with; `oras-python` is what `tests/run` puts
    /// into `target/oras`.
    fn program(self) -> (&'static str, &'static str) {
        match self {
            Client::Containerd => ("containerd", "containerd"),
            Client::Ctr => ("ctr", "containerd"),
            Client::Skopeo => ("skopeo", "skopeo"),
            Client::Podman => ("podman", "podman"),
            Client::Curl => ("curl", "curl"),
            Client::DockerRegistry => ("docker-registry", "docker-registry"),
            Client::Htpasswd => ("htpasswd", "apache2-utils"),
            Client::Buildah => ("buildah", "buildah"),
            Client::Umoci => ("umoci", "umoci"),
            Client::Oras => ("oras-python", "python3-venv, then tests/run"),
        }
    }
}

/// The path of a program. When it is missing: `None` if `RINGPORT_TEST_SKIP_CLIENTS=1` (the
/// caller returns, the test passes without having shown anything), else the test fails.
pub fn require(client: Client) -> Option<PathBuf> {
    let (program, package) = client.program();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from));
    folders.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/oras/bin"));
    let found = folders.iter().map(|folder| folder.join(program)).find(|p| p.is_file());
    if found.is_none() {
        let remedy = format!("install it: apt-get install {package}");
        if std::env::var_os("RINGPORT_TEST_SKIP_CLIENTS").is_none_or(|v| v != "1") {
            panic!(
                "this test needs the program `{program}`, which is not on PATH; {remedy} (or set \
                 RINGPORT_TEST_SKIP_CLIENTS=1 to pass without the tests that need it)"
            );
        }
        eprintln!("SKIPPED, nothing was shown: `{program}` is not on PATH; {remedy}");
    }
    found
}

/// containerd 1.6 of its own: root, state and socket in the scratch folder, no CRI.
pub struct Containerd {
    socket: PathBuf,
    hosts_dir: PathBuf,
    process: Process,
}

impl Containerd {
    /// Starts it. `None` when it is missing and that is allowed.
    pub fn start(scratch: &Scratch) -> Option<Containerd> {
        let program = require(Client::Containerd)?;
        require(Client::Ctr)?;
        let socket = scratch.path().join("c.sock");
        let config = format!(
            "version = 2\nroot = \"{root}\"\nstate = \"{state}\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \
             \"io.containerd.internal.v1.opt\", \"io.containerd.snapshotter.v1.btrfs\", \
             \"io.containerd.snapshotter.v1.zfs\", \"io.containerd.snapshotter.v1.devmapper\", \
             \"io.containerd.snapshotter.v1.aufs\"]\n\
             [grpc]\n  address = \"{socket}\"\n[ttrpc]\n  address = \"{socket}.ttrpc\"\n",
            root = scratch.dir("containerd-root").display(),
            state = scratch.dir("containerd-state").display(),
            socket = socket.display(),
        );
        let config = scratch.file("containerd.toml", config);
        let mut command = Command::new(program);
        command.arg("--config").arg(config);
        let log = scratch.path().join("containerd.log");
        let mut process = Process::spawn(command, "containerd", &log);
        let hosts_dir = scratch.dir("hosts");
        wait_until("containerd's socket", secs(30), || {
            if !process.is_running() {
                panic!("containerd ended (it needs root):\n{}", process.log_tail(20));
            }
            let ready = std::os::unix::net::UnixStream::connect(&socket).is_ok();
            ready && run(ctr_command(&socket, &["version"]), secs(5)).ok()
        });
        Some(Containerd { socket, hosts_dir, process })
    }

    /// Makes this the mirror of every registry: `_default/hosts.toml`, and nothing else.
    pub fn mirror_everything(&self, url: &str) {
        self.mirror_everything_with(url, "");
    }

    /// The same with more lines about that host: `ca`, `client`.
    pub fn mirror_everything_with(&self, url: &str, lines: &str) {
        let folder = self.hosts_dir.join("_default");
        std::fs::create_dir_all(&folder).expect("a folder for hosts.toml");
        let text = format!("[host.\"{url}\"]\n  capabilities = [\"pull\", \"resolve\"]\n{lines}");
        std::fs::write(folder.join("hosts.toml"), text).expect("hosts.toml");
    }

    /// `ctr image pull`, unpacked by the native snapshotter.
    pub fn pull(&self, image: &str) -> Ran {
        let hosts = self.hosts_dir.to_string_lossy().into_owned();
        self.ctr(&["image", "pull", "--hosts-dir", &hosts, "--snapshotter", "native", image])
    }

    /// `ctr content fetch`: the same requests without unpacking, for what is no image.
    pub fn fetch(&self, image: &str) -> Ran {
        let hosts = self.hosts_dir.to_string_lossy().into_owned();
        self.ctr(&["content", "fetch", "--hosts-dir", &hosts, "--all-platforms", image])
    }

    /// The digest that it has stored for an image.
    pub fn digest_of(&self, image: &str) -> String {
        let listing = self.ctr(&["image", "ls"]).expect_ok();
        let line = listing.lines().find(|l| l.split_whitespace().next() == Some(image));
        let line = line.unwrap_or_else(|| panic!("ctr has no {image}:\n{listing}"));
        line.split_whitespace().find(|w| w.starts_with("sha256:")).unwrap_or_default().to_owned()
    }

    /// Forgets every image and all content, so that the next pull is from the start.
    pub fn forget_everything(&self) {
        let images = self.ctr(&["image", "ls", "-q"]).expect_ok();
        for image in images.lines() {
            self.ctr(&["image", "rm", "--sync", image]).expect_ok();
        }
        let left = self.ctr(&["content", "ls", "-q"]).expect_ok();
        let left: Vec<&str> = left.lines().collect();
        if !left.is_empty() {
            let mut arguments = vec!["content", "rm"];
            arguments.extend(left);
            self.ctr(&arguments).expect_ok();
        }
    }

    /// Any ctr command.
    pub fn ctr(&self, arguments: &[&str]) -> Ran {
        run(ctr_command(&self.socket, arguments), BOUND)
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        self.process.log_tail(30)
    }
}

fn ctr_command(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(socket).arg("--namespace").arg("tests").args(arguments);
    command
}

/// What skopeo and podman share: a registries.conf and a policy of the test's own.
pub struct ContainersImage {
    registries: PathBuf,
    policy: PathBuf,
    scratch: PathBuf,
    run: tempfile::TempDir,
    certificates: Option<PathBuf>,
}

impl ContainersImage {
    /// No mirrors yet.
    pub fn new(scratch: &Scratch) -> ContainersImage {
        let registries = scratch.file("registries.conf", "");
        let policy =
            scratch.file("policy.json", r#"{"default":[{"type":"insecureAcceptAnything"}]}"#);
        scratch.file("containers-image/auth.json", "{}");
        // podman refuses a runroot of more than 50 characters.
        let run = tempfile::Builder::new().prefix("rp-run-").tempdir_in("/tmp");
        let run = run.expect("a short temporary folder");
        let scratch = scratch.dir("containers-image");
        ContainersImage { registries, policy, scratch, run, certificates: None }
    }

    /// They speak TLS only, with the files of this folder: `ca.crt`, and to show `client.cert` and
    /// `client.key`.
    pub fn trusting(mut self, folder: &Path) -> ContainersImage {
        self.certificates = Some(folder.to_path_buf());
        self
    }

    /// What they are told about TLS, after a prefix of the option's name.
    fn tls(&self, of: &str) -> Vec<String> {
        match &self.certificates {
            None => vec![format!("--{of}tls-verify=false")],
            Some(folder) => vec![
                format!("--{of}tls-verify=true"),
                format!("--{of}cert-dir={}", folder.display()),
            ],
        }
    }

    /// One `[[registry]]` with one mirror for each pair of registry and mirror location.
    pub fn mirrors(&self, entries: &[(&str, &str)]) {
        let mut text = String::from("unqualified-search-registries = []\n");
        for (registry, location) in entries {
            text.push_str(&format!(
                "[[registry]]\nlocation = \"{registry}\"\n[[registry.mirror]]\n\
                 location = \"{location}\"\ninsecure = true\n"
            ));
        }
        std::fs::write(&self.registries, text).expect("registries.conf");
    }

    /// `skopeo copy docker://<reference> dir:<folder>`, all platforms; the folder.
    pub fn skopeo_copy(&self, reference: &str, folder: &str) -> Option<(Ran, PathBuf)> {
        let folder = self.scratch.join(folder);
        let mut command = self.skopeo()?;
        command.args(["copy", "--all", "--preserve-digests"]).args(self.tls("src-"));
        command.arg(format!("docker://{reference}")).arg(format!("dir:{}", folder.display()));
        Some((run(command, BOUND), folder))
    }

    /// The digest of the raw manifest, by `skopeo inspect --raw`.
    pub fn skopeo_digest(&self, reference: &str) -> Option<String> {
        let mut command = self.skopeo()?;
        command.args(["inspect", "--raw"]).args(self.tls(""));
        command.arg(format!("docker://{reference}"));
        let raw = run(command, BOUND).expect_ok();
        Some(super::images::sha256(raw.as_bytes()))
    }

    /// The file that lets every image in.
    pub fn policy(&self) -> &Path {
        &self.policy
    }

    pub(super) fn skopeo(&self) -> Option<Command> {
        let mut command = Command::new(require(Client::Skopeo)?);
        // skopeo 1.9 does not look at CONTAINERS_REGISTRIES_CONF.
        command.arg("--registries-conf").arg(&self.registries);
        command.arg("--policy").arg(&self.policy);
        self.keep_to_itself(&mut command);
        Some(command)
    }

    /// `podman pull`, into a store of its own (vfs).
    pub fn podman_pull(&self, reference: &str) -> Option<Ran> {
        let mut command = self.podman()?;
        command.args(["pull", "--quiet"]).args(self.tls("")).arg("--signature-policy");
        command.arg(&self.policy).arg(reference);
        Some(run(command, BOUND))
    }

    /// The manifest digests that podman keeps for a pulled image.
    pub fn podman_digests(&self, reference: &str) -> Option<String> {
        let mut command = self.podman()?;
        command.args(["image", "inspect", "--format", "{{.Digest}} {{.RepoDigests}}", reference]);
        Some(run(command, BOUND).expect_ok())
    }

    /// Removes every image of podman's.
    pub fn podman_forget(&self) -> Option<()> {
        let mut command = self.podman()?;
        command.args(["rmi", "--all", "--force"]);
        run(command, BOUND).expect_ok();
        Some(())
    }

    pub(super) fn podman(&self) -> Option<Command> {
        let mut command = Command::new(require(Client::Podman)?);
        self.own_storage(&mut command);
        command.arg("--tmpdir").arg(self.run.path().join("tmp"));
        command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
        self.keep_to_itself(&mut command);
        Some(command)
    }

    pub(super) fn own_storage(&self, command: &mut Command) {
        command.env("CONTAINERS_REGISTRIES_CONF", &self.registries);
        command.arg("--root").arg(self.scratch.join("podman"));
        command.arg("--runroot").arg(self.run.path().join("run"));
        command.args(["--storage-driver", "vfs"]);
    }

    pub(super) fn keep_to_itself(&self, command: &mut Command) {
        command.env("HOME", &self.scratch).env("XDG_RUNTIME_DIR", &self.scratch);
        command.env("REGISTRY_AUTH_FILE", self.scratch.join("auth.json"));
        for proxy in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            command.env_remove(proxy);
        }
    }
}

/// curl: the status, the headers as text, and the body of one request.
pub fn curl(scratch: &Scratch, arguments: &[&str], url: &str) -> Option<(u16, String, Vec<u8>)> {
    let program = require(Client::Curl)?;
    let body = scratch.path().join("curl.body");
    let head = scratch.path().join("curl.head");
    let mut command = Command::new(program);
    command.args(["--silent", "--show-error", "--noproxy", "*", "--write-out", "%{http_code}"]);
    command.arg("--output").arg(&body).arg("--dump-header").arg(&head);
    let status = run_curl(command, arguments, url);
    let head = std::fs::read_to_string(&head).unwrap_or_default();
    Some((status, head, std::fs::read(&body).unwrap_or_default()))
}

fn run_curl(mut command: Command, arguments: &[&str], url: &str) -> u16 {
    command.args(arguments).arg(url);
    let status = run(command, BOUND).expect_ok();
    status.trim().parse().unwrap_or_else(|_| panic!("curl printed {status:?}"))
}
