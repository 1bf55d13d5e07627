//! From the command line to what was asked for.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use super::args::{Args, Command, ExplainArgs, PluginCommand, ServeArgs, write_completions};
use super::{Exit, check, gc, hosts, plugin_check, replay, verify};
use crate::api::{self, Question};
use crate::config::{Config, ConfigError};
use crate::plugin::Chain;
use crate::upstream::UpstreamSet;
use crate::{server, telemetry};

/// Runs the process's command line and tells its exit status.
pub fn main() -> ExitCode {
    let (mut out, mut remarks) = (io::stdout().lock(), io::stderr().lock());
    let ended = match Args::parse().into_command() {
        Command::Serve(args) => {
            // The log has a thread of its own that needs standard error.
            drop((out, remarks));
            return serve(&args).into();
        }
        Command::Check(args) => check::run(&args.config, &mut out, &mut remarks)
            .and_then(|exit| load_parts(exit, &args.config, &mut remarks)),
        Command::Explain(args) => explain(&args, &mut out, &mut remarks),
        Command::Replay(args) => replay::run(&args, &mut out, &mut remarks),
        // They work on threads of their own, which may have something to say, too.
        Command::Verify(args) => {
            drop((out, remarks));
            return end(verify::run(&args, &mut io::stdout(), &mut io::stderr()));
        }
        Command::Gc(args) => {
            drop((out, remarks));
            return end(gc::run(&args, &mut io::stdout(), &mut io::stderr()));
        }
        Command::Plugin(PluginCommand::Check(args)) => {
            plugin_check::run(&args, &mut out, &mut remarks)
        }
        Command::Hosts(args) => hosts::run(&args, &mut out, &mut remarks),
        Command::Completions(args) => write_completions(&args, &mut out).map(|()| Exit::Well),
    };
    drop((out, remarks));
    end(ended)
}

fn end(ended: io::Result<Exit>) -> ExitCode {
    match ended.and_then(|exit| io::stdout().flush().map(|()| exit)) {
        Ok(exit) => exit.into(),
        // Whoever reads us has had enough; that is not a failure of ours.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Well.into(),
        Err(error) => {
            let _ = writeln!(io::stderr(), "ringport: {error}");
            Exit::Failed.into()
        }
    }
}

/// Serves until told to stop. The process must end right after: the workers' rings are never
/// dropped, because operations may still be in flight on them.
fn serve(args: &ServeArgs) -> Exit {
    let of_read = args.clone();
    // A reload reads the file again, under the same options.
    let read = move || {
        let mut config = load(of_read.config.as_deref())?;
        config.override_with(of_read.listen.clone(), of_read.data.clone())?;
        if let Some(driver) = of_read.driver {
            config.server.driver = driver.into();
        }
        Ok::<_, ConfigError>(config)
    };
    let config = match read() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return Exit::Failed;
        }
    };
    let log = match telemetry::log::start(&config.log) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("ringport: {error}");
            return Exit::Failed;
        }
    };
    let served = server::serve(config, Box::new(read), log.dropped_counter());
    if let Err(error) = &served {
        tracing::error!(%error, "stopped");
    }
    // Written out before the process ends, and the reason also where no log is wanted.
    drop(log);
    if let Err(error) = &served {
        eprintln!("ringport: {error}");
    }
    std::process::exit(i32::from(served.is_err()));
}

/// What a start would load besides the configuration itself: certificates, secrets and plugins.
fn load_parts(exit: Exit, path: &std::path::Path, remarks: &mut impl Write) -> io::Result<Exit> {
    if exit != Exit::Well {
        return Ok(exit);
    }
    let Ok(config) = Config::load(path) else { return Ok(Exit::Failed) };
    let upstreams = UpstreamSet::build(&config).map(drop).map_err(|error| error.to_string());
    let plugins = Chain::load(&config).map(drop).map_err(|error| error.to_string());
    let mut exit = exit;
    for error in [upstreams, plugins].into_iter().filter_map(Result::err) {
        writeln!(remarks, "ringport: {}: {error}", path.display())?;
        exit = Exit::Failed;
    }
    Ok(exit)
}

fn explain(args: &ExplainArgs, out: &mut impl Write, remarks: &mut impl Write) -> io::Result<Exit> {
    let config = match load(args.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            writeln!(remarks, "{error}")?;
            return Ok(Exit::Failed);
        }
    };
    let chain = Chain::load(&config).and_then(|chain| chain.start_worker(0));
    let chain = match chain {
        Ok(chain) => chain,
        Err(error) => {
            writeln!(remarks, "ringport: {error}")?;
            return Ok(Exit::Failed);
        }
    };
    let headers: Vec<(String, String)> =
        args.headers.iter().map(|h| (h.name.clone(), h.value.clone())).collect();
    let question = Question {
        method: &args.method,
        target: &args.path,
        ns: args.ns.as_deref(),
        headers: &headers,
        client: args.client,
    };
    match api::explain(&chain, &config, &question) {
        Ok(text) => {
            out.write_all(text.as_bytes())?;
            Ok(Exit::Well)
        }
        Err(refusal) => {
            writeln!(
                out,
                "refusal: {} {}\nreason: {}",
                refusal.status,
                refusal.code.as_str(),
                refusal.message
            )?;
            Ok(Exit::Failed)
        }
    }
}

fn load(path: Option<&std::path::Path>) -> Result<Config, ConfigError> {
    path.map_or_else(Config::embedded, Config::load)
}
