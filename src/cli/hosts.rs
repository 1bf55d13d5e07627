//! `ringport hosts`: the configuration that makes a client pull through this mirror.
//!
//! What each client sends, and so what it needs, was taken from their traffic: containerd and
//! Docker 29 name the registry in `ns`, so one entry serves all; Podman and its relatives don't, so
//! each registry gets an entry with its name in the mirror's path; older Docker mirrors docker.io
//! only.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::Exit;
use super::args::{Client, HostsArgs};
use crate::config::{Config, ConfigError, EndpointUrl};

/// Docker Hub's canonical namespace.
const DOCKER_HUB: &str = "docker.io";

/// A file for a client.
#[derive(Debug, PartialEq, Eq)]
struct HostsFile {
    /// The whole file, in its own syntax.
    text: String,
    /// What to do with it, for formats that have no comments.
    remarks: String,
}

/// Prints the file to `out`, and to `remarks` what it can't say itself.
pub fn run(args: &HostsArgs, out: &mut impl Write, remarks: &mut impl Write) -> io::Result<Exit> {
    let config = match load(args) {
        Ok(config) => config,
        Err(error) => {
            writeln!(remarks, "{error}")?;
            return Ok(Exit::Failed);
        }
    };
    let file = match args.client {
        Client::Containerd => containerd(&args.mirror),
        Client::Docker => docker(&args.mirror, &config),
        Client::Podman => podman(&args.mirror, &config),
        Client::K3s => k3s(&args.mirror),
    };
    out.write_all(file.text.as_bytes())?;
    remarks.write_all(file.remarks.as_bytes())?;
    Ok(Exit::Well)
}

/// The secrets' files of the mirror need not be here: this may be another machine.
fn load(args: &HostsArgs) -> Result<Config, ConfigError> {
    let Some(path) = &args.config else { return Config::embedded() };
    let file = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Config::parse(&text, &file),
        Err(source) => Err(ConfigError::Unreadable { file, source }),
    }
}

fn containerd(mirror: &EndpointUrl) -> HostsFile {
    let mut text = format!(
        r#"# Ringport as the mirror of every registry, for containerd, nerdctl and ctr.
# Put this file at /etc/containerd/certs.d/_default/hosts.toml. It is read at each pull, without a
# restart, once /etc/containerd/config.toml names the folder:
#
#   [plugins."io.containerd.cri.v1.images".registry]       # containerd 2 (version = 3)
#     config_path = "/etc/containerd/certs.d"
#
#   [plugins."io.containerd.grpc.v1.cri".registry]         # containerd 1.5 to 1.7 (version = 2)
#     config_path = "/etc/containerd/certs.d"
#
# nerdctl looks there by itself, ctr with --hosts-dir /etc/containerd/certs.d.
# A folder named after a registry beside _default is used instead of it for that registry.
# What the mirror can't answer, containerd asks the registry itself.

[host."{mirror}"]
  capabilities = ["pull", "resolve"]
"#
    );
    if mirror.https {
        text.push_str(
            "  # For a certificate of a private authority:\n  \
             # ca = \"/etc/containerd/certs.d/_default/ca.pem\"\n",
        );
    }
    HostsFile { text, remarks: String::new() }
}

fn docker(mirror: &EndpointUrl, config: &Config) -> HostsFile {
    let daemon = serde_json::json!({ "registry-mirrors": [mirror.to_string()] });
    let mut remarks = format!(
        "Merge this into /etc/docker/daemon.json and run: systemctl restart docker\n\
         It covers {DOCKER_HUB} only. For every registry (Docker 29 and later, with the containerd \
         image store),\nleave registry-mirrors out and put the output of\n  \
         ringport hosts containerd --mirror {mirror}\nat /etc/docker/certs.d/_default/hosts.toml.\n"
    );
    let default = config.routing.default_upstream.as_ref().map(|namespace| namespace.as_str());
    if default != Some(DOCKER_HUB) {
        let found = default.unwrap_or("unset");
        let _infallible = writeln!(
            remarks,
            "Docker before 29 does not say which registry it means: it needs \
             routing.default_upstream = \"{DOCKER_HUB}\", which is {found} here."
        );
    }
    if mirror.https {
        let _infallible = writeln!(
            remarks,
            "A certificate of a private authority goes to /etc/docker/certs.d/{}/ca.crt.",
            mirror.authority()
        );
    }
    HostsFile { text: format!("{daemon:#}\n"), remarks }
}

fn podman(mirror: &EndpointUrl, config: &Config) -> HostsFile {
    let authority = mirror.authority();
    let mut text = String::from(
        "# Ringport as the mirror of its upstream registries, for Podman, Buildah, Skopeo and \
         CRI-O.\n\
         # Put this file at /etc/containers/registries.conf.d/50-ringport.conf (CRI-O: then \
         reload it).\n\
         # These clients do not tell a mirror which registry they mean, so its name stands in the \
         path.\n\
         # A registry that is not listed here is pulled from directly.\n",
    );
    if mirror.https {
        let _infallible = writeln!(
            text,
            "# A certificate of a private authority goes to\n\
             # /etc/containers/certs.d/{authority}/ca.crt."
        );
    }
    for (host, in_path) in podman_registries(config) {
        let Some(in_path) = in_path else {
            let _infallible = write!(
                text,
                "\n# {host} is left out: a name with a port can't stand in a path. Give its \
                 [[upstream]] an alias\n# without one, such as \"corp.internal\", and print this \
                 file again.\n"
            );
            continue;
        };
        let insecure = if mirror.https { "" } else { "insecure = true\n" };
        let _infallible = write!(
            text,
            "\n[[registry]]\nprefix = \"{host}\"\nlocation = \"{host}\"\n\n\
             [[registry.mirror]]\nlocation = \"{authority}/{in_path}\"\n{insecure}"
        );
    }
    HostsFile { text, remarks: String::new() }
}

/// The names under which the clients know our upstreams, each with a name for the mirror's path.
///
/// They turn Docker Hub's other names into docker.io before they look here. A name with a colon
/// makes a path that they refuse as a whole ("invalid reference format" of skopeo 1.9.3); then
/// another name of the same upstream takes its place.
fn podman_registries(config: &Config) -> Vec<(&str, Option<&str>)> {
    let mut registries = Vec::new();
    for upstream in &config.upstreams {
        let hub = upstream.namespace.as_str() == DOCKER_HUB;
        let aliases = upstream.aliases.iter().filter(|_| !hub);
        let names: Vec<&str> =
            std::iter::once(&upstream.namespace).chain(aliases).map(|name| name.as_str()).collect();
        let fits = |name: &str| name.contains('.') && !name.contains(':');
        let substitute = names.iter().copied().find(|name| fits(name));
        let in_path = |name| if fits(name) { Some(name) } else { substitute };
        registries.extend(names.into_iter().map(|name| (name, in_path(name))));
    }
    registries
}

fn k3s(mirror: &EndpointUrl) -> HostsFile {
    let mut text = format!(
        r#"# Ringport as the mirror of every registry, for k3s.
# Put this file at /etc/rancher/k3s/registries.yaml (RKE2: /etc/rancher/rke2/registries.yaml) on
# each node, servers and agents, and restart k3s there.
# k3s adds /v2 to the endpoint, and its containerd names the registry in the parameter `ns`: no
# `rewrite` is needed, and none should be set, because it would change the name that is looked up.
# What the mirror can't answer is asked of the registry itself. With "*" that is broken in k3s
# 1.31.6 and 1.32.2 (k3s issue 11857); write the registries' names there.
mirrors:
  "*":
    endpoint:
      - "{mirror}"
"#
    );
    if mirror.https {
        let _infallible = write!(
            text,
            "# For a certificate of a private authority:\n# configs:\n#   \"{}\":\n#     tls:\n\
             #       ca_file: /etc/rancher/k3s/ringport-ca.pem\n",
            mirror.authority()
        );
    }
    HostsFile { text, remarks: String::new() }
}

#[cfg(test)]
mod tests;
