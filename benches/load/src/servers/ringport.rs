//! Ringport as a mirror of the origin, which is its default upstream: the same paths as everywhere.

use std::net::SocketAddr;
use std::path::Path;

use super::{How, Running, await_listening, free_addr, write_file};
use crate::process::Process;

/// Starts it.
///
/// # Errors
/// What could not be written or started, with what it said.
pub(crate) fn start(
    name: &str,
    program: &Path,
    origin: SocketAddr,
    how: &How,
) -> Result<Running, String> {
    let addr = free_addr()?;
    let store = how.folder.join("store");
    let text = format!(
        "[server]\nlisten = [\"{addr}\"]\nadmin = \"off\"\nworkers = {}\n\n\
         [storage]\nroot = {:?}\nmax_size = \"60GiB\"\n\n\
         [routing]\ndefault_upstream = \"origin.example\"\n\n\
         [log]\nlevel = \"warn\"\naccess = \"off\"\n\n\
         [[upstream]]\nnamespace = \"origin.example\"\nendpoints = [\"http://{origin}\"]\n\
         tag_ttl = \"7d\"\nallow_private = [\"127.0.0.0/8\"]\nproxy = \"none\"\n{}",
        how.workers, store, how.more
    );
    let config = how.folder.join("ringport.toml");
    write_file(&config, &text)?;
    let log = how.folder.join("log");
    let arguments = ["--config".to_owned(), config.to_string_lossy().into_owned()];
    let mut process = Process::start(program, &arguments, &how.cores, &log, &[])?;
    await_listening(name, &mut process, addr, &log)?;
    Ok(Running { name: name.to_owned(), addr, files: Some(store), process: Some(process) })
}
