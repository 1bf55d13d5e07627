//! Clients that push: skopeo, podman, buildah, umoci, ctr, and oras by its Python library. Each
//! function is one command; `None` when its program is missing and that is allowed.

use super::clients::{Client, Containerd, ContainersImage, require};
use super::process::{Ran, run};
use super::registry::{Door, Registry};
use super::secs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A layer of 1 GiB on a busy machine takes a while.
const BOUND: Duration = secs(240);

impl ContainersImage {
    /// `skopeo copy --all <source> docker://<name>`, ready to be started.
    pub fn skopeo_push_command(
        &self,
        registry: &Registry,
        source: &str,
        name: &str,
    ) -> Option<Command> {
        self.skopeo_push_as(registry, &registry.door, source, name)
    }

    /// The same by somebody else.
    pub fn skopeo_push_as(
        &self,
        registry: &Registry,
        door: &Door,
        source: &str,
        name: &str,
    ) -> Option<Command> {
        let mut command = self.skopeo()?;
        command.args(["copy", "--all", "--preserve-digests"]);
        command.args(door.options("dest-"));
        command.arg(source).arg(format!("docker://{}", registry.reference(name)));
        Some(command)
    }

    /// The same, run.
    pub fn skopeo_push(&self, registry: &Registry, folder: &Path, name: &str) -> Option<Ran> {
        let source = format!("dir:{}", folder.display());
        Some(run(self.skopeo_push_command(registry, &source, name)?, BOUND))
    }

    /// `skopeo copy --all docker://<name> dir:<folder>`; the folder.
    #[track_caller]
    pub fn skopeo_pull(&self, registry: &Registry, name: &str) -> Option<PathBuf> {
        let folder =
            registry.scratch().path().join(format!("back-{}", name.replace(['/', ':'], "-")));
        let _ = std::fs::remove_dir_all(&folder);
        let mut command = self.skopeo()?;
        command.args(["copy", "--all", "--preserve-digests"]);
        command.args(registry.door.options("src-"));
        command.arg(format!("docker://{}", registry.reference(name)));
        command.arg(format!("dir:{}", folder.display()));
        run(command, BOUND).expect_ok();
        Some(folder)
    }

    /// `podman pull dir:<folder>`; the id of the image.
    pub fn podman_load(&self, folder: &Path) -> Option<String> {
        let mut command = self.podman()?;
        command.args(["pull", "--quiet", "--signature-policy"]).arg(self.policy());
        command.arg(format!("dir:{}", folder.display()));
        Some(run(command, BOUND).expect_ok().trim().to_owned())
    }

    /// `podman push`; the digest that podman says it pushed.
    #[track_caller]
    pub fn podman_push(&self, registry: &Registry, id: &str, name: &str) -> Option<String> {
        let told = registry.scratch().path().join("podman.digest");
        let mut command = self.podman()?;
        command.args(["push", "--quiet", "--signature-policy"]).arg(self.policy());
        command.args(registry.door.options("")).arg("--digestfile").arg(&told);
        command.arg(id).arg(registry.reference(name));
        run(command, BOUND).expect_ok();
        Some(read_digest(&told))
    }

    /// `podman pull` of what is hosted there; the digests that podman then keeps.
    #[track_caller]
    pub fn podman_pull_back(&self, registry: &Registry, name: &str) -> Option<String> {
        let mut command = self.podman()?;
        command.args(["pull", "--quiet", "--signature-policy"]).arg(self.policy());
        command.args(registry.door.options("")).arg(registry.reference(name));
        run(command, BOUND).expect_ok();
        self.podman_digests(&registry.reference(name))
    }

    /// Any buildah command, with a store of its own.
    #[track_caller]
    pub fn buildah(&self, arguments: &[&str]) -> Option<String> {
        let mut command = Command::new(require(Client::Buildah)?);
        self.own_storage(&mut command);
        command.args(arguments);
        self.keep_to_itself(&mut command);
        Some(run(command, BOUND).expect_ok().trim().to_owned())
    }

    /// An image of one file, from scratch, for one architecture.
    #[track_caller]
    pub fn buildah_make(&self, architecture: &str, file: &Path, name: &str) -> Option<()> {
        let policy = self.policy().to_string_lossy().into_owned();
        let made = self.buildah(&["from", "--arch", architecture, "scratch"])?;
        self.buildah(&["copy", &made, &file.to_string_lossy(), "/file"])?;
        self.buildah(&["config", "--arch", architecture, &made])?;
        self.buildah(&["commit", "--quiet", "--signature-policy", &policy, &made, name])?;
        self.buildah(&["rm", &made])?;
        Some(())
    }

    /// `buildah push`, or `buildah manifest push --all` for a list; the digest that it tells.
    #[track_caller]
    pub fn buildah_push(
        &self,
        registry: &Registry,
        local: &str,
        name: &str,
        list: bool,
    ) -> Option<String> {
        let told = registry.scratch().path().join("buildah.digest");
        let told_text = told.to_string_lossy().into_owned();
        let policy = self.policy().to_string_lossy().into_owned();
        let words: &[&str] = if list { &["manifest", "push", "--all"] } else { &["push"] };
        let mut arguments = words.to_vec();
        arguments.extend(["--quiet", "--signature-policy", &policy, "--digestfile", &told_text]);
        let door = registry.door.options("");
        arguments.extend(door.iter().map(String::as_str));
        let to = format!("docker://{}", registry.reference(name));
        arguments.extend([local, &to]);
        self.buildah(&arguments)?;
        Some(read_digest(&told))
    }
}

fn read_digest(path: &Path) -> String {
    std::fs::read_to_string(path).expect("the file with a digest").trim().to_owned()
}

impl Containerd {
    /// `ctr image pull --all-platforms` of what is hosted there; the digest it then has.
    #[track_caller]
    pub fn pull_back(&self, registry: &Registry, name: &str) -> String {
        let reference = registry.reference(name);
        let mut arguments = vec!["content".to_owned(), "fetch".to_owned()];
        arguments.extend(registry.door.ctr_options());
        arguments.extend(["--all-platforms".to_owned(), reference.clone()]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.ctr(&arguments).expect_ok();
        self.digest_of(&reference)
    }

    /// `ctr image push` of an image that it has, to another name there.
    #[track_caller]
    pub fn push(&self, registry: &Registry, name: &str, local: &str) {
        let mut arguments = vec!["image".to_owned(), "push".to_owned()];
        arguments.extend(registry.door.ctr_options());
        arguments.extend([registry.reference(name), local.to_owned()]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.ctr(&arguments).expect_ok();
    }
}

/// An OCI layout with one image of the given files, tagged `one`, made by umoci.
pub fn umoci_layout(registry: &Registry, files: &[PathBuf]) -> Option<PathBuf> {
    let umoci = require(Client::Umoci)?;
    let layout = registry.scratch().path().join("umoci");
    let image = format!("{}:one", layout.display());
    let umoci = |arguments: &[&str]| {
        let mut command = Command::new(&umoci);
        command.args(arguments);
        run(command, BOUND).expect_ok();
    };
    umoci(&["init", "--layout", &layout.to_string_lossy()]);
    umoci(&["new", "--image", &image]);
    for (number, file) in files.iter().enumerate() {
        let inside = format!("/file-{number}");
        umoci(&["insert", "--image", &image, &file.to_string_lossy(), &inside]);
    }
    umoci(&["config", "--image", &image, "--config.cmd", "/none"]);
    Some(layout)
}

/// Runs a Python program in which `client` is an oras client that may get in, and `registry` the
/// place of the registry; what it printed.
#[track_caller]
pub fn oras(registry: &Registry, folder: &Path, program: &str) -> Option<String> {
    let python = require(Client::Oras)?;
    let (insecure, verify) = match registry.door.ca_file() {
        None => ("True", "True".to_owned()),
        Some(file) => ("False", format!("{file:?}")),
    };
    let login = registry.door.login.as_deref().unwrap_or_default();
    let (user, password) = login.split_once(':').unwrap_or_default();
    let start = format!(
        "import json, oras.client, oras.oci\nregistry = '{}'\n\
         client = oras.client.OrasClient(insecure={insecure}, tls_verify={verify}, \
         auth_backend={})\n{}",
        registry.addr(),
        if login.is_empty() { "'token'" } else { "'basic'" },
        if login.is_empty() {
            String::new()
        } else {
            format!("client.auth.set_basic_auth('{user}', '{password}')\n")
        },
    );
    let mut command = Command::new(python);
    command.arg("-c").arg(format!("{start}{program}")).current_dir(folder);
    for proxy in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
        command.env_remove(proxy);
    }
    command.env("HOME", folder);
    Some(run(command, BOUND).expect_ok())
}
