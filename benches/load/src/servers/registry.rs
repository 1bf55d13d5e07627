//! docker-registry: the origin of all mirrors, the peer that it is itself, and as a proxy.

use std::net::SocketAddr;
use std::path::Path;

use super::{How, Running, free_addr, launch, write_file};

/// Starts it over a store; with an origin, as a proxy of that.
///
/// # Errors
/// What could not be written or started, with what it said.
pub(crate) fn start(
    name: &str,
    program: &Path,
    store: &Path,
    origin: Option<SocketAddr>,
    how: &How,
) -> Result<Running, String> {
    let addr = free_addr()?;
    let proxy = origin.map_or(String::new(), |o| format!("proxy:\n  remoteurl: http://{o}\n"));
    let text = format!(
        "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\n\
         storage:\n  cache:\n    blobdescriptor: inmemory\n  filesystem:\n    rootdirectory: {}\n\
         \x20 maintenance:\n    uploadpurging:\n      enabled: false\n\
         http:\n  addr: {addr}\n  secret: bench\n{proxy}",
        store.display(),
    );
    let config = how.folder.join("registry.yml");
    write_file(&config, &text)?;
    let arguments = ["serve".to_owned(), config.to_string_lossy().into_owned()];
    let quiet = [("OTEL_TRACES_EXPORTER", "none".to_owned())];
    launch(name, addr, store.to_owned(), (program, &arguments), &quiet, how)
}
