//! What a run writes: JSON lines, one record a line. The reports read nothing else, so that an
//! old run can be drawn again.
//!
//! **Invariant:** what a metric is measured in is the end of its name (`_us`, `_bytes`,
//! `_per_second`, `_percent`); fields and metrics are only ever added within a version.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Of the form described here.
pub(crate) const VERSION: u32 = 1;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Record {
    /// The first line.
    Run(Run),
    /// One of each scenario that was run, before its samples.
    Scenario(About),
    /// A server that could not be measured, in one scenario or in all.
    Missing(Missing),
    /// One measurement.
    Sample(Sample),
    /// An answer that was not right: the run is a failure, whatever its figures.
    Wrong(Wrong),
}

/// What was run, where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Of the form of the records.
    pub(crate) version: u32,
    /// RFC 3339, UTC.
    pub(crate) started: String,
    /// The command line.
    pub(crate) command: String,
    /// The machine.
    pub(crate) machine: Machine,
    /// In the order in which they are shown.
    pub(crate) servers: Vec<ServerVersion>,
    /// Measurements of each cell.
    pub(crate) rounds: u32,
    /// Cores the servers were pinned to.
    pub(crate) server_cores: Vec<usize>,
    /// Cores the load was made on.
    pub(crate) client_cores: Vec<usize>,
    /// Whether this was the short form.
    pub(crate) quick: bool,
}

/// The machine of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The processor's own name.
    pub(crate) cpu: String,
    /// How many cores it has.
    pub(crate) cores: usize,
    /// Name and release.
    pub(crate) kernel: String,
    /// Of the machine.
    pub(crate) memory_bytes: u64,
    /// Over which clients and servers meet, and its congestion control.
    #[serde(default)]
    pub(crate) network: String,
}

/// A server and what it calls itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ServerVersion {
    /// As in samples.
    pub(crate) name: String,
    /// The first line of what it prints of itself; empty where it prints none.
    pub(crate) version: String,
}

/// What a scenario is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct About {
    /// As in samples.
    pub(crate) scenario: String,
    /// One sentence: what is measured.
    pub(crate) measures: String,
    /// The metric that is shown first.
    pub(crate) headline: String,
    /// Whether more of it is better.
    pub(crate) more_is_better: bool,
    /// Further metrics worth a column or a chart.
    #[serde(default)]
    pub(crate) also: Vec<String>,
    /// The server that ratios are made to: ringport / peer.
    pub(crate) peer: Option<String>,
    /// What is aimed at.
    #[serde(default)]
    pub(crate) targets: Vec<Target>,
}

/// What is aimed at: a bound of a metric of Ringport's, or of its ratio to a peer's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Target {
    /// Cases whose name contains this; left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) case: Option<String>,
    /// Of which metric.
    pub(crate) metric: String,
    /// With a peer, the bound is one of the ratio ringport / peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<String>,
    /// Whether the bound is the least (or else the most).
    pub(crate) at_least: bool,
    /// The bound.
    pub(crate) bound: f64,
}

impl Target {
    /// The metric is to be no less.
    pub(crate) fn least(metric: &str, bound: f64) -> Target {
        Target { case: None, metric: metric.to_owned(), peer: None, at_least: true, bound }
    }

    /// The metric is to be no more.
    pub(crate) fn most(metric: &str, bound: f64) -> Target {
        Target { at_least: false, ..Target::least(metric, bound) }
    }

    /// The same bound, of the ratio to this peer's.
    pub(crate) fn times(self, peer: &str) -> Target {
        Target { peer: Some(peer.to_owned()), ..self }
    }

    /// The same, only in cases whose name contains this.
    pub(crate) fn in_case(self, part: &str) -> Target {
        Target { case: Some(part.to_owned()), ..self }
    }
}

/// A server that could not be measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Missing {
    /// As in samples.
    pub(crate) server: String,
    /// Left out: in the whole run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scenario: Option<String>,
    /// And how to get it.
    pub(crate) why: String,
}

/// One measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Which scenario.
    pub(crate) scenario: String,
    /// Which of its cases, for people.
    pub(crate) case: String,
    /// The case, for programs.
    pub(crate) params: BTreeMap<String, Value>,
    /// Who was measured.
    pub(crate) server: String,
    /// From 1 on; samples of one round stand beside each other in time.
    pub(crate) round: u32,
    /// Of the measured window.
    pub(crate) seconds: f64,
    /// Completed within it.
    pub(crate) requests: u64,
    /// Of bodies, received within it.
    pub(crate) body_bytes: u64,
    /// By name; the name ends in the unit.
    pub(crate) metrics: BTreeMap<String, f64>,
}

/// An answer that was not right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Wrong {
    /// Where.
    pub(crate) scenario: String,
    /// In which of its cases.
    pub(crate) case: String,
    /// Whose answer.
    pub(crate) server: String,
    /// When.
    pub(crate) round: u32,
    /// Request, expected, found.
    pub(crate) what: String,
}

/// Writes one line.
///
/// # Errors
/// The writer's.
pub(crate) fn write(to: &mut dyn Write, record: &Record) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Reads what [`write()`] wrote.
///
/// # Errors
/// Which line is not a record, and why; the reader's errors.
pub(crate) fn read(from: impl BufRead) -> Result<Vec<Record>, String> {
    let mut records = Vec::new();
    for (at, line) in from.lines().enumerate() {
        let line = line.map_err(|e| format!("line {}: {e}", at + 1))?;
        if line.trim().is_empty() {
            continue;
        }
        let record = serde_json::from_str(&line)
            .map_err(|e| format!("line {}: not a record of ringport-bench: {e}", at + 1))?;
        records.push(record);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let sample = Sample {
            scenario: "blob_hit".to_owned(),
            case: "1 MiB x 16".to_owned(),
            params: [("bytes".to_owned(), Value::from(1 << 20))].into(),
            server: "ringport".to_owned(),
            round: 1,
            seconds: 2.0,
            requests: 1234,
            body_bytes: 1234 << 20,
            metrics: [("requests_per_second".to_owned(), 617.0)].into(),
        };
        let missing = Missing { server: "nginx".to_owned(), scenario: None, why: "no".to_owned() };
        let records = vec![Record::Missing(missing), Record::Sample(sample)];
        let mut text = Vec::new();
        for record in &records {
            write(&mut text, record).unwrap();
        }
        assert!(text.starts_with(b"{\"kind\":\"missing\",\"server\":\"nginx\""));
        assert_eq!(read(text.as_slice()).unwrap(), records);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let error = read("\n{\"kind\":\"sample\"}\n".as_bytes()).unwrap_err();
        assert!(error.starts_with("line 2: not a record"), "{error}");
    }
}
