//! `ringport replay`: which recorded requests would now be answered otherwise?
//!
//! An access log holds each request and, in a few words, what the resolvers decided about it. It is
//! read line by line; every request in it is put to the resolvers again, and what they decide now
//! is put into words likewise and compared. Memory does not grow with the log.

mod record;
mod report;

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Exit;
use super::args::ReplayArgs;
use crate::config::{Config, ConfigError};
use crate::plugin::{Chain, PluginError, WorkerChain};
use record::{Line, Lines, Record};
use report::{Change, Report};

/// Lines between two looks at the progress bar.
const DRAW_EVERY: u64 = 1024;

/// Why nothing was replayed.
#[derive(Debug, thiserror::Error)]
enum ReplayError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("ringport: {0}")]
    Plugin(#[from] PluginError),
    #[error("ringport: cannot read the access log {file}: {source}")]
    Log { file: String, source: io::Error },
}

/// Replays the log. Well: every request in it would be answered as it was. Failed: one would not,
/// or there was nothing to compare.
pub fn run(args: &ReplayArgs, out: &mut impl Write, remarks: &mut impl Write) -> io::Result<Exit> {
    let chain = match load(args) {
        Ok(chain) => chain,
        Err(error) => {
            writeln!(remarks, "{error}")?;
            return Ok(Exit::Failed);
        }
    };
    let report = match replay(&args.log, &chain, usize::from(args.examples)) {
        Ok(report) => report,
        Err(error) => {
            writeln!(remarks, "{error}")?;
            return Ok(Exit::Failed);
        }
    };
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        report.write(out)?;
    }
    for remark in report.remarks() {
        writeln!(remarks, "ringport: {}: {remark}", args.log.display())?;
    }
    Ok(if report.is_well() { Exit::Well } else { Exit::Failed })
}

/// The resolvers that are asked, as a server would load them.
fn load(args: &ReplayArgs) -> Result<WorkerChain, ReplayError> {
    let mut config = match &args.config {
        // Not `Config::load`: nothing is dialled here, so no secret has to be at hand.
        Some(path) => {
            let file = path.display().to_string();
            let text = std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Unreadable { file: file.clone(), source })?;
            Config::parse(&text, &file)?
        }
        None => Config::embedded()?,
    };
    for plugin in &args.plugins {
        let path = std::path::absolute(&plugin.path).unwrap_or_else(|_| plugin.path.clone());
        config.with_plugin(plugin.name.as_deref(), path)?;
    }
    Ok(Chain::load(&config)?.start_worker(0)?)
}

fn replay(log: &Path, chain: &WorkerChain, examples: usize) -> Result<Report, ReplayError> {
    let failed = |source| ReplayError::Log { file: log.display().to_string(), source };
    let (reader, bytes): (Box<dyn BufRead>, Option<u64>) = match log.to_str() {
        Some("-") => (Box::new(io::stdin().lock()), None),
        _ => {
            let file = File::open(log).map_err(failed)?;
            let bytes = file.metadata().map_err(failed)?.len();
            (Box::new(BufReader::with_capacity(256 * 1024, file)), Some(bytes))
        }
    };
    let bar = bar(bytes);
    let mut lines = Lines::new(reader);
    let mut report = Report::new(examples);
    loop {
        if report.lines.is_multiple_of(DRAW_EVERY) {
            bar.set_position(lines.bytes_read());
            bar.set_message(format!("{} requests, {} otherwise", report.same, report.different));
        }
        let Some(line) = lines.next().map_err(failed)? else { break };
        report.lines += 1;
        match line {
            Line::Text(text) => replay_line(text, chain, &mut report),
            Line::TooLong => report.damaged("it is longer than any entry"),
        }
    }
    bar.finish_and_clear();
    Ok(report)
}

/// A bar where somebody looks, nothing elsewhere.
fn bar(bytes: Option<u64>) -> ProgressBar {
    let target = match io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(bytes, target);
    let template = match bytes {
        Some(_) => "{bar:30} {binary_bytes}/{binary_total_bytes} {msg} {eta}",
        None => "{spinner} {binary_bytes} {msg}",
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        // Without a style the bar is only plainer.
        Err(_) => bar,
    }
}

fn replay_line(text: &[u8], chain: &WorkerChain, report: &mut Report) {
    let record = match Record::parse(text) {
        Ok(record) => record,
        Err(why) => return report.damaged(&why),
    };
    // Refused before it was routed, answered by the mirror itself, or written by an older version.
    let Some(before) = &record.decision else {
        report.undecided += 1;
        return;
    };
    let now = match record.ask(chain) {
        Ok(now) => now,
        Err(why) => return report.damaged(&why),
    };
    if now.words == *before {
        report.same += 1;
    } else {
        report.change(Change { record: &record, before, now: &now });
    }
}
