//! The process that the plugin may take down.
//!
//! It tells its parent what it finds by JSON lines on standard input, which is a socket: a plugin
//! may print what it likes on the other two.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use ringport_plugin_conformance::{Event, Options, PROBES, Stage, World, run_stage};
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};

use super::PluginCheckArgs;
use crate::cli::Exit;
use crate::plugin::open_specimen;

/// Runs one stage. The exit status says nothing: what was told does.
pub(super) fn run(
    stage: Stage,
    args: &PluginCheckArgs,
    (world, pin): (&World, Option<&str>),
) -> io::Result<Exit> {
    // A plugin that hangs must not outlive the one who waits for it.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It crashes on purpose, so to say; nobody wants a core of it.
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    let mut parent = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut tell = |event: Event| {
        let Ok(mut line) = serde_json::to_vec(&event) else { return };
        line.push(b'\n');
        // A parent that is gone takes us along.
        let _ = parent.write_all(&line);
    };
    let loading = PROBES.first().map(|probe| probe.name.to_owned()).unwrap_or_default();
    tell(Event::Began(loading.clone()));
    let subject = match open_specimen(&args.file, pin) {
        Ok(subject) => subject,
        Err((rule, problem)) => {
            tell(Event::Found(problem.breaks(rule)));
            tell(Event::Ended(loading));
            return Ok(Exit::Failed);
        }
    };
    let options = Options { calls: args.calls, file: Some(args.file.clone()) };
    run_stage(stage, subject, world, &options, &mut tell);
    Ok(Exit::Well)
}
