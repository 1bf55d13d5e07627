//! Ringport as a mirror of the origin, which is its default upstream: the same paths as everywhere.
//! Or as a registry of its own, under those paths too.

use std::net::SocketAddr;
use std::path::Path;

use super::{How, Running, free_addr, launch, write_file};
use crate::content::REPOSITORY;

/// Starts it before an origin; `access_log` is a file, or "off".
///
/// # Errors
/// What could not be written or started, with what it said.
pub(crate) fn start(
    name: &str,
    program: &Path,
    origin: SocketAddr,
    access_log: &str,
    how: &How,
) -> Result<Running, String> {
    let text = format!(
        "[routing]\ndefault_upstream = \"origin.example\"\n\n\
         [[upstream]]\nnamespace = \"origin.example\"\nendpoints = [\"http://{origin}\"]\n\
         tag_ttl = \"7d\"\nallow_private = [\"127.0.0.0/8\"]\nproxy = \"none\"\n",
    );
    configured(name, program, (&text, access_log), how)
}

/// Starts it as a registry that everybody may push to.
///
/// # Errors
/// As `start`.
pub(crate) fn start_hosted(name: &str, program: &Path, how: &How) -> Result<Running, String> {
    let text = format!(
        "[routing]\nhosted = [\"{REPOSITORY}\"]\n\n\
         [[hosted]]\nrepositories = [\"{REPOSITORY}\"]\n\
         pull = [\"anonymous\"]\npush = [\"anonymous\"]\n"
    );
    configured(name, program, (&text, "off"), how)
}

fn configured(
    name: &str,
    program: &Path,
    (routes, access_log): (&str, &str),
    how: &How,
) -> Result<Running, String> {
    let addr = free_addr()?;
    let store = how.folder.join("store");
    let tls = how.tls.as_ref().map_or_else(String::new, |tls| {
        format!(
            "tls_listen = [\"{}\"]\ntls_certificate = {:?}\ntls_key = {:?}\n",
            tls.addr, tls.certificate, tls.key
        )
    });
    // As many connections as the others are allowed.
    let text = format!(
        "[server]\nlisten = [\"{addr}\"]\nadmin = \"off\"\nworkers = {}\n\
         connections_max = 20000\n{tls}\n\
         [storage]\nroot = {:?}\nmax_size = \"60GiB\"\n\n\
         [log]\nlevel = \"warn\"\naccess = {access_log:?}\n\n{routes}",
        how.workers, store
    );
    let config = how.folder.join("ringport.toml");
    write_file(&config, &text)?;
    let arguments = ["--config".to_owned(), config.to_string_lossy().into_owned()];
    launch(name, addr, store, (program, &arguments), &[], how)
}
