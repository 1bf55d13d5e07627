//! Servers that somebody else names: by an address that listens already, or by a command.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

use super::{How, Running, free_addr, launch};

/// A server named on the command line.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    /// As in records.
    pub(crate) name: String,
    /// Where it is, or how it is started.
    pub(crate) way: Way,
}

/// Where a given server is, or how it is started.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// `http://host:port`.
    Url(String),
    /// For `sh -c`, with `{addr}`, `{port}`, `{folder}` and `{origin}` replaced.
    Command(String),
}

/// Starts it, or finds it.
///
/// # Errors
/// An address that is none; what could not be started, with what it said.
pub(crate) fn start(
    given: &Given,
    origin: Option<SocketAddr>,
    how: &How,
) -> Result<Running, String> {
    let name = given.name.clone();
    let text = match &given.way {
        Way::Url(url) => {
            let addr = address(url)?;
            return Ok(Running { name, addr, files: None, process: None });
        }
        Way::Command(text) => text,
    };
    let addr = free_addr()?;
    let folder = how.folder.join("files");
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let origin = origin.map(|origin| format!("http://{origin}")).unwrap_or_default();
    let text = text
        .replace("{addr}", &addr.to_string())
        .replace("{port}", &addr.port().to_string())
        .replace("{folder}", &folder.to_string_lossy())
        .replace("{origin}", &origin);
    // The shell gives way to the server, so that signals reach it; `env` takes NAME=VALUE.
    let arguments = ["-c".to_owned(), format!("exec env {text}")];
    launch(&name, addr, folder, (Path::new("/bin/sh"), &arguments), &[], how)
}

fn address(url: &str) -> Result<SocketAddr, String> {
    let expected = || format!("{url}: expected http://HOST:PORT");
    let place = url.strip_prefix("http://").ok_or_else(expected)?;
    let found = place.trim_end_matches('/').to_socket_addrs();
    let mut found = found.map_err(|e| format!("{}: {e}", expected()))?;
    found.next().ok_or_else(expected)
}
