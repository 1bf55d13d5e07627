//! The grammar of the command line. The doc comments are what `--help` prints.

#![expect(
    missing_docs,
    reason = "a doc comment is help text; a flattened struct's would replace ours"
)]
#![allow(rustdoc::bare_urls, reason = "help text is read in a terminal")]

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use crate::config::{Driver, EndpointUrl, parse_size};

/// An OCI registry mirror: one port, many upstream registries.
///
/// Without a command it serves. Exit status: 0 well, 1 failed, 2 misuse.
#[derive(Debug, Parser)]
#[command(name = "ringport", version, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the registry (what happens without a command, too)
    Serve(ServeArgs),
    /// Check a configuration and print what is in force
    Check(CheckArgs),
    /// Tell where a request would go, and why
    Explain(ExplainArgs),
    /// Tell which recorded requests would now be answered otherwise
    ///
    /// Reads an access log and asks the resolvers of a configuration, or a new plugin among them,
    /// each request of it again. Nothing is fetched. Exit status 0 when every answer would be the
    /// same, 1 when one would not.
    Replay(ReplayArgs),
    /// Read everything in the store and compare it with its digests
    ///
    /// What is damaged goes to the folder quarantine; cached content is fetched again when it is
    /// asked for. Works on a stopped server, and through the admin address of a running one.
    Verify(VerifyArgs),
    /// Free hosted content that no tag leads to, and what was left behind
    ///
    /// Works on a stopped server, and through the admin address of a running one.
    Gc(GcArgs),
    /// Look after resolver plugins
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Print a client's configuration for this mirror
    Hosts(HostsArgs),
    /// Print a completion script
    Completions(CompletionsArgs),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct ServeArgs {
    /// Configuration; without it, the public registries behind 127.0.0.1:5000
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address of the registry instead of the configured ones; may be repeated
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<SocketAddr>,
    /// Folder of the store instead of the configured one
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// How workers talk to the kernel, instead of the configured way
    #[arg(long, value_enum, value_name = "DRIVER")]
    pub driver: Option<DriverArg>,
}

#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// The configuration to check
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

#[derive(Clone, Debug, clap::Args)]
pub struct ExplainArgs {
    /// Configuration; without it, the embedded one
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The registry the client means, as in the query parameter `ns`
    #[arg(long, value_name = "HOST")]
    pub ns: Option<String>,
    /// A header of the request; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    pub headers: Vec<HeaderArg>,
    /// The address the request comes from; without it, no rule for addresses is met
    #[arg(long, value_name = "ADDR")]
    pub client: Option<IpAddr>,
    /// The request's method, such as GET
    #[arg(value_name = "METHOD")]
    pub method: String,
    /// The request's path, such as /v2/library/alpine/manifests/latest
    #[arg(value_name = "PATH")]
    pub path: String,
}

#[derive(Clone, Debug, clap::Args)]
pub struct ReplayArgs {
    /// Configuration whose resolvers are asked; without it, the embedded one
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Plugin file to take the place of the configured plugin NAME; NAME may be left out when there
    /// is only one. One that is not configured is asked first; may be repeated
    #[arg(long = "plugin", value_name = "[NAME=]FILE", value_parser = parse_plugin)]
    pub plugins: Vec<PluginArg>,
    /// Examples to show of each kind of change
    #[arg(long, value_name = "COUNT", default_value_t = 3,
        value_parser = clap::value_parser!(u16).range(0..=100))]
    pub examples: u16,
    /// Print the report as one JSON object
    #[arg(long)]
    pub json: bool,
    /// The access log; "-" = standard input
    #[arg(value_name = "FILE")]
    pub log: PathBuf,
}

/// One `--plugin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginArg {
    /// Whose place it takes.
    pub name: Option<String>,
    /// The file.
    pub path: PathBuf,
}

#[derive(Clone, Debug, clap::Args)]
pub struct StoreArgs {
    /// The server's configuration; without it, the embedded one
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of the store instead of the configured one
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Print the report as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    /// Bytes per second to read at most, such as 200MiB, instead of the configured rate
    #[arg(long, value_name = "SIZE", value_parser = parse_rate)]
    pub rate: Option<u64>,
}

#[derive(Clone, Debug, clap::Args)]
pub struct GcArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    /// Only show what would be freed
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Check whether a plugin keeps the rules of the plugin ABI
    ///
    /// Plays hosts of several versions to it, in processes of their own, and prints a verdict for
    /// each rule.
    Check(PluginCheckArgs),
}

#[derive(Clone, Debug, clap::Args)]
pub struct PluginCheckArgs {
    /// A server's configuration, for the plugin's entry in it and the upstreams
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Calls for the leak check
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub calls: usize,
    /// How long nothing may happen before the plugin is taken to be stuck
    #[arg(long, value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub patience: u64,
    /// The part of a check that a process of its own does
    #[arg(long, hide = true, value_enum)]
    pub stage: Option<StageArg>,
    /// The plugin
    #[arg(value_name = "FILE.so")]
    pub file: PathBuf,
}

/// See `ringport_plugin_conformance::Stage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StageArg {
    Contract,
    Figures,
}

#[derive(Clone, Debug, clap::Args)]
pub struct HostsArgs {
    /// The client
    #[arg(value_enum, value_name = "CLIENT")]
    pub client: Client,
    /// Where the client reaches this mirror, such as http://mirror.example:5000
    #[arg(long, value_name = "URL", value_parser = parse_mirror)]
    pub mirror: EndpointUrl,
    /// The mirror's configuration, for its registries; without it, the embedded one
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Clone, Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// A client whose configuration we can print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Client {
    /// containerd, nerdctl and ctr: _default/hosts.toml
    Containerd,
    /// Docker Engine: daemon.json
    Docker,
    /// Podman, Buildah, Skopeo and CRI-O: registries.conf
    Podman,
    /// k3s and RKE2: registries.yaml
    K3s,
}

/// The words of `server.driver`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DriverArg {
    Auto,
    #[value(name = "io_uring")]
    IoUring,
    Epoll,
}

impl From<DriverArg> for Driver {
    fn from(driver: DriverArg) -> Driver {
        match driver {
            DriverArg::Auto => Driver::Auto,
            DriverArg::IoUring => Driver::IoUring,
            DriverArg::Epoll => Driver::Epoll,
        }
    }
}

/// One `--header`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderArg {
    /// As written.
    pub name: String,
    /// Without the space around it.
    pub value: String,
}

impl Args {
    /// The command, `serve` being the one that need not be named.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Serve(self.serve))
    }
}

/// Writes the completion script for a shell.
pub fn write_completions(args: &CompletionsArgs, out: &mut impl Write) -> std::io::Result<()> {
    // Into memory first: the generator panics when its writer fails, and a closed pipe is no bug.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "ringport", &mut script);
    out.write_all(&script)
}

fn parse_header(text: &str) -> Result<HeaderArg, String> {
    let (name, value) = text.split_once(':').ok_or("expected \"NAME: VALUE\"")?;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err("the name is empty or holds a space".to_owned());
    }
    Ok(HeaderArg { name: name.to_owned(), value: value.trim().to_owned() })
}

fn parse_plugin(text: &str) -> Result<PluginArg, String> {
    let is_name = |name: &str| {
        let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
        !name.is_empty() && name.bytes().all(known)
    };
    let (name, path) = match text.split_once('=').filter(|(name, _)| is_name(name)) {
        Some((name, path)) => (Some(name.to_owned()), path),
        None => (None, text),
    };
    if path.is_empty() {
        return Err("expected a file, or NAME=FILE".to_owned());
    }
    Ok(PluginArg { name, path: path.into() })
}

fn parse_rate(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        0 => Err("a rate of nothing never ends".to_owned()),
        rate => Ok(rate),
    }
}

fn parse_mirror(text: &str) -> Result<EndpointUrl, String> {
    let mirror = EndpointUrl::parse(text)?;
    match mirror.path.is_empty() {
        true => Ok(mirror),
        false => Err(format!(
            "the path `{}` can't be used: clients ask for /v2/ at the root of the host",
            mirror.path
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        let words = std::iter::once("ringport").chain(line.split_whitespace());
        Args::try_parse_from(words).map(Args::into_command)
    }

    #[test]
    fn the_grammar_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn serve_is_the_command_that_need_not_be_named() {
        let flags = "--config a.toml --listen 127.0.0.1:1 --listen [::1]:2 --data d --driver epoll";
        for line in [flags.to_owned(), format!("serve {flags}")] {
            let Ok(Command::Serve(serve)) = parse(&line) else { panic!("{line}") };
            assert_eq!(serve.config, Some("a.toml".into()));
            assert_eq!(serve.listen.len(), 2);
            assert_eq!(serve.data, Some("d".into()));
            assert_eq!(serve.driver.map(Driver::from), Some(Driver::Epoll));
        }
        let Ok(Command::Serve(serve)) = parse("") else { panic!("nothing") };
        assert_eq!(serve, ServeArgs::default());
    }

    #[test]
    fn explain_takes_a_request() {
        let words = ["ringport", "explain", "--ns", "ghcr.io", "--header"];
        let request = ["X-Dragonfly-Registry:  https://ghcr.io ", "GET", "/v2/a/manifests/b"];
        let args = Args::try_parse_from(words.iter().chain(&request)).expect("parsed");
        let Command::Explain(explain) = args.into_command() else { panic!("not explain") };
        assert_eq!(explain.ns.as_deref(), Some("ghcr.io"));
        assert_eq!(explain.headers[0].name, "X-Dragonfly-Registry");
        assert_eq!(explain.headers[0].value, "https://ghcr.io");
        assert_eq!((explain.method.as_str(), explain.path.as_str()), ("GET", "/v2/a/manifests/b"));
    }

    #[test]
    fn replay_takes_plugins_with_a_name_or_without() {
        let line = "replay --plugin a=b/c.so --plugin ./d=e.so access.log";
        let Ok(Command::Replay(replay)) = parse(line) else { panic!("{line}") };
        let plugin = |name: Option<&str>, path: &str| PluginArg {
            name: name.map(str::to_owned),
            path: path.into(),
        };
        assert_eq!(replay.plugins, [plugin(Some("a"), "b/c.so"), plugin(None, "./d=e.so")]);
        assert_eq!((replay.log, replay.examples), ("access.log".into(), 3));
    }

    #[test]
    fn verify_and_gc_take_a_store() {
        let line = "verify --config a.toml --data d --rate 5MiB --json";
        let Ok(Command::Verify(verify)) = parse(line) else { panic!("{line}") };
        assert_eq!((verify.rate, verify.store.json), (Some(5 << 20), true));
        assert_eq!(verify.store.data, Some("d".into()));
        let Ok(Command::Gc(gc)) = parse("gc --dry-run") else { panic!("gc") };
        assert!(gc.dry_run && !gc.store.json);
    }

    #[test]
    fn plugin_check_takes_a_file() {
        let line = "plugin check --config a.toml --calls 5 --patience 2 p.so";
        let Ok(Command::Plugin(PluginCommand::Check(check))) = parse(line) else {
            panic!("{line}")
        };
        assert_eq!((check.calls, check.patience, check.stage), (5, 2, None));
        assert_eq!((check.config, check.file), (Some("a.toml".into()), "p.so".into()));
    }

    #[test]
    fn misuse_is_status_2_and_help_is_0() {
        let misuses = [
            "plugin",
            "plugin check",
            "plugin check --patience 0 p.so",
            "fly",
            "check",
            "serve --listen nowhere",
            "--config a check --config b",
            "explain GET",
            "explain --header x GET /v2/",
            "hosts containerd",
            "hosts emacs --mirror http://a",
            "hosts podman --mirror a:5000",
            "hosts podman --mirror http://a/b",
            "verify --rate 0B",
            "verify --rate 5",
            "gc --rate 5MiB",
            "replay",
            "replay --plugin a= b",
            "replay --examples 101 b",
        ];
        for line in misuses {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        for (line, kind) in
            [("--help", ErrorKind::DisplayHelp), ("--version", ErrorKind::DisplayVersion)]
        {
            let shown = parse(line).expect_err(line);
            assert_eq!((shown.kind(), shown.exit_code()), (kind, 0));
        }
    }

    #[test]
    fn completions_name_the_commands() {
        for shell in clap_complete::Shell::value_variants() {
            let mut script = Vec::new();
            write_completions(&CompletionsArgs { shell: *shell }, &mut script).expect("written");
            let script = String::from_utf8(script).expect("UTF-8");
            assert!(script.contains("explain") && script.contains("config"), "{shell}");
        }
    }
}
