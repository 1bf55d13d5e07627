//! `ringport-bench`: starts Ringport and its peers on loopback, loads them in turns, and says how
//! they did. docs/BENCHMARKS.md tells how to read it; `--list` what it measures.
//!
//! Modules, each using only those before it: `record`; `content`, `machine`, `profiler`; `client`,
//! `process`; `network`, `servers`; `stock`, `house`; `drive`; `scenario`; `run`. `report` reads
//! records alone.
//!
//! **Invariants:** it knows no module of Ringport and measures any server from outside, over
//! loopback; a run with a wrong answer fails. **Deliberately absent:** other machines (one machine's
//! loopback has no network to be measured), HTTP/2, and thresholds: it measures, people judge.

mod client;
mod content;
mod drive;
mod house;
mod machine;
mod network;
mod process;
mod profiler;
mod record;
mod report;
mod run;
mod scenario;
mod servers;
mod stock;

use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, Parser, Subcommand};

use house::{House, Settings};
use network::Network;
use run::{Book, Plan};
use servers::given::{Given, Way};

#[derive(Debug, Parser)]
#[command(version, about = "Measures Ringport beside its peers, on this machine's loopback.")]
struct Cli {
    #[command(subcommand)]
    command: Option<Task>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Makes the table and the page of an earlier run anew.
    Report {
        /// What that run wrote with --json.
        records: PathBuf,
        /// Where the page goes.
        #[arg(long)]
        html: Option<PathBuf>,
    },
    /// Pins itself and becomes a server (the suite calls this itself).
    #[command(hide = true)]
    Exec {
        #[arg(long, value_delimiter = ',')]
        cores: Vec<usize>,
        #[arg(long)]
        parent: u32,
        #[arg(last = true)]
        program: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct Options {
    /// Says what there is to measure, and of whom.
    #[arg(long)]
    list: bool,
    /// Only these scenarios.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    scenario: Vec<String>,
    /// Only cases whose name contains one of these.
    #[arg(long, value_name = "TEXT", num_args = 1..)]
    case: Vec<String>,
    /// Only these servers.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    server: Vec<String>,
    /// Measurements of each cell; servers take turns in each [default: 5, quick: 2].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Length of each measurement [default: 2, quick: 0.3].
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Fewer cases, rounds and seconds: under two minutes.
    #[arg(long)]
    quick: bool,
    /// Writes the records, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes a page with charts.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Ringport's program [default: the one beside this program].
    #[arg(long, value_name = "FILE")]
    ringport: Option<PathBuf>,
    /// Measures a server that listens already; what it lacks is pushed to it.
    #[arg(long, value_name = "NAME=URL")]
    url: Vec<String>,
    /// Measures what a command starts; {addr}, {port}, {folder} and {origin} are replaced in it.
    /// It may proxy {origin}, or is pushed to.
    #[arg(long, value_name = "NAME=COMMAND")]
    command: Vec<String>,
    /// The folder below which the run makes its own, some GiB large [default: the system's
    /// for temporary files].
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Which network [default: own, if that is possible and no --url is given].
    #[arg(long, value_enum)]
    network: Option<Network>,
    /// Tells `perf record --control fifo:FILE` when a measurement begins and ends.
    #[arg(long, value_name = "FIFO")]
    perf_control: Option<PathBuf>,
    /// Cores that the servers are pinned to [default: the first].
    #[arg(long, value_name = "N", value_delimiter = ',')]
    server_cores: Vec<usize>,
    /// Cores that the load is made on [default: as many others].
    #[arg(long, value_name = "N", value_delimiter = ',')]
    client_cores: Vec<usize>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Task::Exec { cores, parent, program }) => {
            Err(process::become_server(&cores, parent, &program))
        }
        Some(Task::Report { records, html }) => report_of(&records, html.as_deref()),
        None if cli.options.list => list(),
        None => measure(&cli.options),
    };
    match done {
        Ok(code) => code,
        Err(problem) => {
            // Nothing else is left to try when standard error is gone.
            let _ = writeln!(std::io::stderr(), "ringport-bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<ExitCode, String> {
    let settings = settings(options)?;
    let plan = plan(options, &settings.given)?;
    match (options.network, options.url.is_empty()) {
        (Some(Network::Own), _) => network::enter()?,
        (None, true) => {
            if let Err(why) = network::enter() {
                if network::is_inside() {
                    // There is no way back to the machine's loopback.
                    return Err(why);
                }
                let note = format!("ringport-bench: the machine's loopback is used: {why}\n");
                // Only a note: nothing is left to try when it cannot be said.
                let _ = std::io::stderr().write_all(note.as_bytes());
            }
        }
        (Some(Network::Host), _) | (None, false) => {}
    }
    machine::raise_open_files();
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second time it is meant: then the servers end by the signal of their own.
        let second =
            signal_hook::flag::register_conditional_shutdown(signal, 1, interrupted.clone());
        let first = signal_hook::flag::register(signal, interrupted.clone());
        second.and(first).map_err(|e| format!("signals: {e}"))?;
    }
    let file = options.json.as_deref().map(create).transpose()?;
    let mut builder = tempfile::Builder::new();
    builder.prefix("ringport-bench-");
    let folder = match &options.data {
        Some(parent) => std::fs::create_dir_all(parent).and_then(|()| builder.tempdir_in(parent)),
        None => builder.tempdir(),
    };
    let folder = folder.map_err(|e| format!("a folder for the run: {e}: name one with --data"))?;
    machine::pin(&settings.client_cores)?;
    let path = folder.path().canonicalize().map_err(|e| format!("the run's folder: {e}"))?;
    let mut house = House::build(settings, path, interrupted)?;
    let mut book = Book::new(file);
    run::run(&mut house, &plan, &mut book)?;
    present(&book.records, options.html.as_deref())?;
    if house.is_interrupted() {
        return Err("interrupted: the figures are those of the part that was run".to_owned());
    }
    if !book.has_samples() {
        return Err("nothing was measured: what stands above says why".to_owned());
    }
    Ok(if book.has_wrong() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn settings(options: &Options) -> Result<Settings, String> {
    let allowed = machine::allowed_cores();
    let first = allowed.first().copied().unwrap_or(0);
    let server_cores = match options.server_cores.as_slice() {
        [] => vec![first],
        cores => cores.to_vec(),
    };
    let others: Vec<usize> =
        allowed.iter().copied().filter(|core| !server_cores.contains(core)).collect();
    let client_cores = match (options.client_cores.as_slice(), others.as_slice()) {
        ([], []) => server_cores.clone(),
        ([], others) => others.iter().copied().take(server_cores.len()).collect(),
        (cores, _) => cores.to_vec(),
    };
    for core in server_cores.iter().chain(&client_cores) {
        if !allowed.contains(core) {
            return Err(format!("core {core}: this process may use the cores {allowed:?}"));
        }
    }
    let mut given: Vec<Given> = Vec::new();
    for (texts, is_url) in [(&options.url, true), (&options.command, false)] {
        for text in texts {
            let (name, what) = text.split_once('=').ok_or_else(|| {
                format!("{text}: expected NAME={}", if is_url { "URL" } else { "COMMAND" })
            })?;
            if house::KNOWN.contains(&name) {
                return Err(format!("{text}: {name} is one of the suite's own: name it otherwise"));
            }
            if given.iter().any(|other| other.name == name) {
                return Err(format!("{text}: {name} is named already: name it otherwise"));
            }
            let what = what.to_owned();
            let way = if is_url { Way::Url(what) } else { Way::Command(what) };
            given.push(Given { name: name.to_owned(), way });
        }
    }
    let beside = || std::env::current_exe().ok().map(|own| own.with_file_name("ringport"));
    let seconds = options.seconds.unwrap_or(if options.quick { 0.3 } else { 2.0 });
    if !(0.05..=3600.0).contains(&seconds) {
        return Err(format!("--seconds {seconds}: expected 0.05 to 3600"));
    }
    Ok(Settings {
        server_cores,
        client_cores,
        seconds,
        quick: options.quick,
        ringport: options.ringport.clone().or_else(beside).unwrap_or_default(),
        given,
        perf_control: options.perf_control.clone(),
    })
}

fn plan(options: &Options, given: &[Given]) -> Result<Plan, String> {
    let mut scenarios = scenario::all();
    let names: Vec<String> = scenarios.iter().map(|s| s.about().scenario).collect();
    if let Some(unknown) = options.scenario.iter().find(|name| !names.contains(name)) {
        return Err(format!("no scenario {unknown}: there are {}", names.join(", ")));
    }
    let wanted = |name: &String| options.scenario.is_empty() || options.scenario.contains(name);
    scenarios.retain(|scenario| wanted(&scenario.about().scenario));
    let servers: Vec<&str> =
        house::KNOWN.into_iter().chain(given.iter().map(|one| one.name.as_str())).collect();
    if let Some(unknown) = options.server.iter().find(|name| !servers.contains(&name.as_str())) {
        return Err(format!("no server {unknown}: there are {}", servers.join(", ")));
    }
    let cases = scenarios.iter().flat_map(|scenario| scenario.cases(options.quick));
    let cases: Vec<String> = cases.map(|case| case.name).collect();
    let has = |part: &String| cases.iter().any(|case| case.contains(part.as_str()));
    if let Some(unknown) = options.case.iter().find(|part| !has(part)) {
        return Err(format!("no case has {unknown} in its name: there are {}", cases.join("; ")));
    }
    Ok(Plan {
        scenarios,
        only: options.server.clone(),
        cases: options.case.clone(),
        rounds: options.rounds.unwrap_or(if options.quick { 2 } else { 5 }),
        command: ["ringport-bench".to_owned()]
            .into_iter()
            .chain(std::env::args().skip(1))
            .collect::<Vec<_>>()
            .join(" "),
    })
}

fn list() -> Result<ExitCode, String> {
    let mut text = String::new();
    for scenario in scenario::all() {
        let about = scenario.about();
        text.push_str(&format!("{}\n    {}\n", about.scenario, about.measures));
        text.push_str(&format!("    servers: {}\n", scenario.servers(false).known.join(", ")));
        let cases: Vec<String> = scenario.cases(false).into_iter().map(|case| case.name).collect();
        text.push_str(&format!("    cases: {}\n", cases.join("; ")));
    }
    print(&text)
}

fn report_of(records: &Path, html: Option<&Path>) -> Result<ExitCode, String> {
    let failed = |e: String| format!("{}: {e}", records.display());
    let file = std::fs::File::open(records).map_err(|e| failed(e.to_string()))?;
    let read = record::read(BufReader::new(file)).map_err(failed)?;
    present(&read, html)
}

fn present(records: &[record::Record], html: Option<&Path>) -> Result<ExitCode, String> {
    if let Some(path) = html {
        let page = report::html(records);
        create(path)?.write_all(page.as_bytes()).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    print(&report::table(records))
}

fn create(path: &Path) -> Result<std::fs::File, String> {
    std::fs::File::create(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn print(text: &str) -> Result<ExitCode, String> {
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map(|()| ExitCode::SUCCESS).map_err(|e| format!("standard output: {e}"))
}
