//! The `ringport` command: arguments → configuration → what was asked for → exit status.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringport::cli::main()
}
