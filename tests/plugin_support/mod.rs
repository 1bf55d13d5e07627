//! Plugin files for the tests of `plugin_load` and `plugin_resolve`: where the built ones lie, and
//! C ones compiled on the spot. Unlike `support` these tests call the library itself: what they
//! are about is its seam to plugins, which no socket shows as closely.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringport::config::Config;
use ringport::plugin::{RequestKind, ResolveRequest};
use tempfile::TempDir;

/// A folder with one plugin file in it, as an operator would install it.
pub struct Installed {
    _folder: TempDir,
    pub path: PathBuf,
}

impl Installed {
    /// Copies the shared object of a workspace member, such as `ringport_plugin_standard`. Copied,
    /// because a build under umask 002 leaves it writable by the group, which is refused.
    #[track_caller]
    pub fn built(library: &str) -> Installed {
        let tests = std::env::current_exe().expect("the test's own path");
        let built = tests.with_file_name(format!("lib{library}.so"));
        assert!(built.exists(), "{} is missing: list it in [dev-dependencies]", built.display());
        Installed::new(|path| {
            std::fs::copy(&built, path).expect("a copy of the plugin");
        })
    }

    /// Compiles a C file below `plugins/`, with `FAULT` defined as given.
    #[track_caller]
    pub fn compiled(source: &str, fault: &str) -> Installed {
        let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins");
        Installed::new(|path| {
            let output = Command::new("cc")
                .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"])
                .arg("-fvisibility=hidden")
                .arg(format!("-DFAULT={fault}"))
                .arg("-I")
                .arg(plugins.join("abi/include"))
                .arg("-o")
                .args([path, &plugins.join(source)])
                .output()
                .expect("a C compiler called `cc` is needed (Debian: apt install gcc)");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        })
    }

    /// A file that holds `contents`.
    pub fn file(contents: &[u8]) -> Installed {
        Installed::new(|path| std::fs::write(path, contents).expect("a file"))
    }

    fn new(make: impl FnOnce(&Path)) -> Installed {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("plugin.so");
        make(&path);
        let installed = Installed { _folder: folder, path };
        installed.set_mode(0o755);
        installed
    }

    pub fn set_mode(&self, mode: u32) {
        std::fs::set_permissions(&self.path, Permissions::from_mode(mode)).expect("chmod");
    }
}

/// A `[[plugin]]` entry; `config` are the lines of its `[plugin.config]`.
pub fn plugin_entry(name: &str, path: &Path, config: &str) -> String {
    format!("[[plugin]]\nname = {name:?}\npath = {path:?}\n[plugin.config]\n{config}\n")
}

/// The upstreams that all tests of plugins know.
pub const UPSTREAMS: &str = r#"
[[upstream]]
namespace = "docker.io"
endpoints = ["https://registry-1.docker.io"]

[[upstream]]
namespace = "ghcr.io"
aliases = ["github.example"]
endpoints = ["https://ghcr.io"]

[[upstream]]
namespace = "localhost:5711"
endpoints = ["https://localhost:5711"]

[[upstream]]
namespace = "plain.example"
endpoints = ["http://plain.example"]

[[upstream]]
namespace = "registry.corp"
endpoints = ["https://registry.corp"]
"#;

/// A configuration with `UPSTREAMS`, the given `[routing]` lines and `[[plugin]]` entries.
#[track_caller]
pub fn config(routing: &str, plugins: &str) -> Config {
    let text = format!("[server]\nworkers = 2\n[routing]\n{routing}\n{UPSTREAMS}\n{plugins}");
    match Config::parse(&text, "test.toml") {
        Ok(config) => config,
        Err(error) => panic!("{error}\n{text}"),
    }
}

/// `GET` of the manifest `name:latest`.
pub fn pull(name: &str) -> ResolveRequest<'_> {
    ResolveRequest {
        method: "GET",
        kind: RequestKind::Manifest,
        ns: None,
        header: None,
        name,
        reference: "latest",
        client: None,
        principal: None,
        head: None,
    }
}
