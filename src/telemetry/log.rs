//! Sets `tracing` up: level, format, and a thread that does the writing.

use std::io::IsTerminal;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Overrides `log.level` with the finer language of `EnvFilter`.
pub const LEVEL_VARIABLE: &str = "RINGPORT_LOG";

/// Lines that may wait for the writing thread; more are dropped and counted.
const LINES_MAX: usize = 8192;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The environment variable holds something that is no filter.
    #[error(
        "{LEVEL_VARIABLE}={text:?}: expected a filter such as \"info,ringport::upstream=debug\": \
         {source}"
    )]
    Filter {
        /// What it holds.
        text: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Another part of the process set a log up before.
    #[error("the log was set up twice: {0}")]
    Twice(Box<dyn std::error::Error + Send + Sync>),
}

/// Keeps the writing thread; dropping it writes what is queued and ends the thread.
#[derive(Debug)]
pub struct LogGuard {
    _writer: WorkerGuard,
    dropped: ErrorCounter,
}

impl LogGuard {
    /// Lines dropped so far because standard error did not take them fast enough.
    pub fn dropped(&self) -> u64 {
        u64::try_from(self.dropped.dropped_lines()).unwrap_or(u64::MAX)
    }

    /// The same as a function that may outlive the guard, for `Metrics::attach_counter`.
    pub fn dropped_counter(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let dropped = self.dropped.clone();
        move || u64::try_from(dropped.dropped_lines()).unwrap_or(u64::MAX)
    }
}

/// Starts the process's log on standard error. Once per process.
pub fn start(settings: &Log) -> Result<LogGuard, LogError> {
    let filter = filter(settings, std::env::var(LEVEL_VARIABLE).ok())?;
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_MAX)
        .thread_name("log")
        .finish(std::io::stderr());
    let dropped = writer.error_counter();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(writer);
    let started = match settings.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    match started {
        Ok(()) => Ok(LogGuard { _writer: guard, dropped }),
        Err(source) => Err(LogError::Twice(source)),
    }
}

/// The variable's filter, or else the configured level. An empty variable counts as unset.
fn filter(settings: &Log, variable: Option<String>) -> Result<EnvFilter, LogError> {
    let text = variable.filter(|text| !text.trim().is_empty());
    let text = text.unwrap_or_else(|| settings.level.as_str().to_owned());
    let parsed = EnvFilter::builder().parse(&text);
    parsed.map_err(|source| LogError::Filter { text, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AccessTarget, LogLevel};

    #[test]
    fn the_variable_overrides_the_level() {
        let settings =
            Log { level: LogLevel::Warn, format: LogFormat::Text, access: AccessTarget::Off };
        let cases = [
            (None, Some("warn")),
            (Some(""), Some("warn")),
            (Some("debug"), Some("debug")),
            (Some("ringport::upstream=trace,info"), Some("ringport::upstream=trace,info")),
            (Some("ringport=louder"), None),
        ];
        for (variable, expected) in cases {
            let made = filter(&settings, variable.map(str::to_owned));
            match expected {
                Some(text) => assert_eq!(made.expect("a filter").to_string(), text),
                None => {
                    let error = made.expect_err("no filter").to_string();
                    assert!(error.contains("RINGPORT_LOG=\"ringport=louder\""), "{error}");
                }
            }
        }
    }
}
