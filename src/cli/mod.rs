//! The command line: its grammar, and the commands that need no server.
//!
//! `args` is the grammar (clap), `check` prints what a configuration amounts to, `hosts` prints the
//! configuration of a client, `replay` asks recorded requests again, `verify` and `gc` look after the
//! store, themselves or by asking the server that holds it, `plugin_check` runs a plugin's checks in
//! processes that it may crash. `main` parses, hands each command to its function here or in
//! `server`, and turns the outcome into the exit status.
//!
//! May import: everything below it. Imported by `main` only.
//!
//! **Invariant:** what is meant to be piped goes to the first writer (standard output) and nothing
//! else does; remarks for people go to the second (standard error).
//! **Invariant:** exit status 0 = well, 1 = failed, 2 = misuse ([`Exit`]).
//!
//! Absent on purpose: other ways into a running server than its admin listener.

mod admin_client;
pub mod args;
pub mod check;
pub mod gc;
pub mod hosts;
pub mod plugin_check;
pub mod replay;
mod run;
mod store_command;
pub mod verify;

use std::process::ExitCode;

pub use args::{Args, Command};
pub use run::main;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was asked for.
    Well,
    /// It could not; the reason was told.
    Failed,
    /// The command line was wrong; clap uses the same status for its own refusals.
    Misuse,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        match exit {
            Exit::Well => ExitCode::SUCCESS,
            Exit::Failed => ExitCode::from(1),
            Exit::Misuse => ExitCode::from(2),
        }
    }
}
