//! The command line: `--name value` pairs, all optional.

use std::str::FromStr;

use ringport_bench_eviction::trace::TraceOptions;

const USAGE: &str = "use: eviction-sim [--seeds 1,2,3] [--zipf 1.0] [--one-offs 0.06] \
                     [--waves 0.45] [--drift 4] [--days 28] [--threads 2] \
                     [--low-watermark 1.0] [--rows all|main]";

#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) seeds: Vec<u64>,
    pub(crate) threads: usize,
    pub(crate) trace: TraceOptions,
    /// To which share of its room a full cache is emptied.
    pub(crate) low_watermark: f64,
    /// The exact policies and the shipped one only.
    pub(crate) main_rows: bool,
}

impl Arguments {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut found = Self {
            seeds: (1..=5).collect(),
            threads: 2,
            trace: TraceOptions::default(),
            low_watermark: 1.0,
            main_rows: false,
        };
        while let Some(name) = words.next() {
            let value = words.next().ok_or_else(|| format!("{name} lacks a value; {USAGE}"))?;
            match name.as_str() {
                "--seeds" => {
                    let seeds = value.split(',').map(|seed| number(&name, seed));
                    found.seeds = seeds.collect::<Result<_, _>>()?;
                }
                "--zipf" => found.trace.zipf = number(&name, &value)?,
                "--one-offs" => found.trace.one_offs = number(&name, &value)?,
                "--waves" => found.trace.waves = number(&name, &value)?,
                "--drift" => found.trace.drift = number(&name, &value)?,
                "--days" => found.trace.days = number(&name, &value)?,
                "--low-watermark" => found.low_watermark = number(&name, &value)?,
                "--rows" if value == "main" => found.main_rows = true,
                "--rows" if value == "all" => found.main_rows = false,
                "--threads" => found.threads = number::<usize>(&name, &value)?.max(1),
                _ => return Err(format!("{name} {value}: unknown; {USAGE}")),
            }
        }
        Ok(found)
    }
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name}: `{value}` is no number it can use; {USAGE}"))
}
