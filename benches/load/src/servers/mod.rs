//! The servers: how each is configured and started, so that all serve the same bytes under the
//! same paths.
//!
//! **Invariant:** every server is given the same cores, no access log (but where that is what is
//! measured), and connections that stay.

pub(crate) mod counting;
pub(crate) mod given;
pub(crate) mod nginx;
pub(crate) mod registry;
pub(crate) mod ringport;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::process::Process;

/// How long a server may take until it listens.
const START_MAX: Duration = Duration::from_secs(20);
const TRIED_EVERY: Duration = Duration::from_millis(2);

/// How one is to be started.
#[derive(Clone, Debug)]
pub(crate) struct How {
    /// To which it is pinned.
    pub(crate) cores: Vec<usize>,
    /// Threads or processes that serve, where that can be said.
    pub(crate) workers: usize,
    /// Where it may keep things; kept between starts.
    pub(crate) folder: PathBuf,
    /// Where it listens for TLS besides, if it does.
    pub(crate) tls: Option<Tls>,
}

impl How {
    /// A worker for each core, and no TLS.
    pub(crate) fn new(cores: &[usize], folder: PathBuf) -> How {
        How { cores: cores.to_vec(), workers: cores.len().max(1), folder, tls: None }
    }
}

/// A second door of a server, for TLS.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    /// Where.
    pub(crate) addr: SocketAddr,
    /// PEM.
    pub(crate) certificate: PathBuf,
    /// PEM, closed to others.
    pub(crate) key: PathBuf,
}

/// A server that listens.
#[derive(Debug)]
pub(crate) struct Running {
    /// As in records.
    pub(crate) name: String,
    /// Where.
    pub(crate) addr: SocketAddr,
    /// Where its files lie, if that is known.
    pub(crate) files: Option<PathBuf>,
    /// Of whose time and memory we can tell; nothing if it was given by an address.
    pub(crate) process: Option<Process>,
}

impl Running {
    /// The number of its process.
    pub(crate) fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }
}

/// An address on loopback that the kernel says is free.
///
/// # Errors
/// The network's.
pub(crate) fn free_addr() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let addr = listener.and_then(|listener| listener.local_addr());
    addr.map_err(|e| format!("a free port on 127.0.0.1: {e}"))
}

/// Starts a program with its arguments and environment, and waits until it listens. What it prints
/// goes to `log` in its folder.
///
/// # Errors
/// What could not be started, or did not listen in time, with the end of what it said.
fn launch(
    name: &str,
    addr: SocketAddr,
    files: PathBuf,
    (program, arguments): (&Path, &[String]),
    environment: &[(&str, String)],
    how: &How,
) -> Result<Running, String> {
    let log = how.folder.join("log");
    let process = Process::start(program, arguments, &how.cores, &log, environment)?;
    await_listening(name, &process, addr, &log)?;
    Ok(Running { name: name.to_owned(), addr, files: Some(files), process: Some(process) })
}

fn await_listening(
    name: &str,
    process: &Process,
    addr: SocketAddr,
    log: &Path,
) -> Result<(), String> {
    let began = Instant::now();
    loop {
        if TcpStream::connect(addr).is_ok() {
            return Ok(());
        }
        // Only its end can be waited for; whether it listens has to be tried again and again.
        let ended = process.ends_within(TRIED_EVERY);
        if ended || began.elapsed() > START_MAX {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(5).collect();
            let lines = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
            let what = if ended { "ended" } else { "does not listen" };
            return Err(format!("{name} {what} on {addr}; it said:\n{lines}"));
        }
    }
}

/// Writes a file, with its folders.
///
/// # Errors
/// The file system's, with the file.
pub(crate) fn write_file(path: &Path, text: &str) -> Result<(), String> {
    let parent = path.parent().unwrap_or(path);
    std::fs::create_dir_all(parent)
        .and_then(|()| std::fs::write(path, text))
        .map_err(|e| format!("{}: {e}", path.display()))
}
