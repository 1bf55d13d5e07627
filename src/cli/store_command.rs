//! What `verify` and `gc` share: on a stopped server they hold the store themselves, on a running
//! one they ask it.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use indicatif::HumanBytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Exit;
use super::admin_client::ask;
use super::args::StoreArgs;
use crate::config::{Config, ConfigError};
use crate::registry::{Problems, ProgressNow};
use crate::server::{RunState, RunStatus, ServeError, StoppedStore};
use crate::storage::StoreError;

/// How often a running server is asked how far it is.
const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// Where the work is done.
pub(super) enum Place {
    /// By us.
    Here(Box<StoppedStore>),
    /// By the server with this admin address.
    Server(SocketAddr),
}

/// Finds out whether a server runs on the store.
///
/// # Errors
/// A sentence for people.
pub(super) fn place(args: &StoreArgs) -> Result<(Place, Config), String> {
    let config = load(args).map_err(|error| error.to_string())?;
    match StoppedStore::open(&config) {
        Ok(store) => Ok((Place::Here(Box::new(store)), config)),
        Err(ServeError::Store(StoreError::Locked { path })) => match config.server.admin {
            Some(admin) if admin.port() != 0 => Ok((Place::Server(admin), config)),
            _ => Err(format!(
                "the store {} is in use by a server whose admin address is not known: stop the \
                 server, or give it a [server] admin address with a port",
                path.display()
            )),
        },
        Err(error) => Err(error.to_string()),
    }
}

fn load(args: &StoreArgs) -> Result<Config, ConfigError> {
    let mut config = args.config.as_deref().map_or_else(Config::embedded, Config::load)?;
    config.override_with(Vec::new(), args.data.clone())?;
    Ok(config)
}

/// Starts a run on a server and follows it to its end.
///
/// # Errors
/// A sentence for people.
pub(super) fn follow<R: DeserializeOwned>(
    admin: SocketAddr,
    start: &str,
    path: &str,
    mut draw: impl FnMut(ProgressNow),
) -> Result<R, String> {
    let mut status: RunStatus<R> = ask(admin, "POST", start)?;
    while status.state == RunState::Running {
        draw(status.progress);
        std::thread::sleep(ASK_INTERVAL);
        status = ask(admin, "GET", path)?;
    }
    draw(status.progress);
    let failed = || status.error.unwrap_or_else(|| "the server has forgotten the run".to_owned());
    status.report.ok_or_else(failed)
}

/// Prints a report: as one JSON object, or as a table with its problems as remarks.
pub(super) fn tell(
    report: &impl Serialize,
    rows: &[Row],
    problems: &Problems,
    json: bool,
    out: &mut impl Write,
    remarks: &mut impl Write,
) -> io::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, report)?;
        return writeln!(out);
    }
    for problem in &problems.told {
        writeln!(remarks, "ringport: {problem}")?;
    }
    if problems.more > 0 {
        writeln!(remarks, "ringport: and {} more; the log has all of them", problems.more)?;
    }
    let width = rows.iter().map(|row| row.what.len()).max().unwrap_or(0);
    for Row { what, count, bytes } in rows {
        let bytes = bytes.map(|bytes| HumanBytes(bytes).to_string()).unwrap_or_default();
        writeln!(out, "{}", format!("{what:<width$}  {count:>9}  {bytes:>12}").trim_end())?;
    }
    Ok(())
}

/// A line of the table.
pub(super) struct Row {
    pub(super) what: &'static str,
    pub(super) count: u64,
    pub(super) bytes: Option<u64>,
}

/// A sentence for people, and the status that goes with it.
pub(super) fn fail(why: &str, remarks: &mut impl Write) -> io::Result<Exit> {
    writeln!(remarks, "ringport: {why}")?;
    Ok(Exit::Failed)
}
