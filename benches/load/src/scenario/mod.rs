//! The scenarios. Each says what it measures, in which cases and of which servers, and measures
//! one of them at a time; the order and the rounds are `run`'s.
//!
//! **Invariant:** a scenario compares all that a server holds with its digests: before it measures
//! it, or afterwards where it has nothing before.

mod base;
mod beside;
mod blob_hit;
mod ci_wave;
mod cold;
mod cold_herd;
mod cold_unique;
mod hits;
mod idle;
mod manifests;
mod memory;
mod pushes;
mod soak;
mod tls;
mod two_cores;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::drive::Measured;
use crate::house::{House, Trouble};
use crate::record::About;

/// One of a scenario's cases.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Case {
    /// For people.
    pub(crate) name: String,
    /// For programs, and for the scenario itself.
    pub(crate) params: BTreeMap<String, Value>,
}

impl Case {
    /// A case with these numbers.
    pub(crate) fn new(name: impl Into<String>, params: &[(&str, u64)]) -> Case {
        let params = params.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value)));
        Case { name: name.into(), params: params.collect() }
    }

    /// One of its numbers; 0 if it has none of that name.
    pub(crate) fn number(&self, key: &str) -> u64 {
        self.params.get(key).and_then(Value::as_u64).unwrap_or(0)
    }

    /// The same, where it counts things in memory.
    pub(crate) fn count(&self, key: &str) -> usize {
        usize::try_from(self.number(key)).unwrap_or(usize::MAX)
    }
}

/// What came of one measurement.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Of the window.
    pub(crate) seconds: f64,
    /// Completed within it.
    pub(crate) requests: u64,
    /// Of bodies, received within it.
    pub(crate) body_bytes: u64,
    /// By name; the name ends in the unit.
    pub(crate) metrics: BTreeMap<String, f64>,
    /// Answers that were not right.
    pub(crate) wrong: Vec<String>,
}

impl Outcome {
    /// That of a closed loop.
    pub(crate) fn of(measured: &Measured) -> Outcome {
        Outcome {
            seconds: measured.seconds,
            requests: measured.bulk.requests,
            body_bytes: measured.bulk.body_bytes,
            metrics: measured.metrics(&measured.bulk),
            wrong: measured.wrong(),
        }
    }

    /// Puts metrics to those it has. What is no number (nothing through nothing) is left out: JSON
    /// has no word for it, and the line could not be read again.
    pub(crate) fn put(&mut self, metrics: impl IntoIterator<Item = (&'static str, f64)>) {
        let numbers = metrics.into_iter().filter(|(_, value)| value.is_finite());
        self.metrics.extend(numbers.map(|(name, value)| (name.to_owned(), value)));
    }
}

/// Which servers a scenario is made for.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    /// Of those that the suite starts itself, Ringport first.
    pub(crate) known: Vec<&'static str>,
    /// Whether those named on the command line come to them.
    pub(crate) and_given: bool,
}

impl Servers {
    /// These, and those named on the command line.
    pub(crate) fn and_given(known: &[&'static str]) -> Servers {
        Servers { known: known.to_vec(), and_given: true }
    }

    /// These alone: what somebody else starts cannot be made what the scenario needs.
    pub(crate) fn only(known: &[&'static str]) -> Servers {
        Servers { known: known.to_vec(), and_given: false }
    }
}

/// Something that is measured.
pub(crate) trait Scenario {
    /// What it is about.
    fn about(&self) -> About;
    /// Its cases, or those of the short form.
    fn cases(&self, quick: bool) -> Vec<Case>;
    /// Of whom, or of whom in the short form.
    fn servers(&self, quick: bool) -> Servers;
    /// Starts that server, loads it, and ends it.
    ///
    /// # Errors
    /// Why there is no measurement.
    fn measure(&self, house: &mut House, case: &Case, server: &str) -> Result<Outcome, Trouble>;
}

/// All of them, in the order in which they are run.
pub(crate) fn all() -> Vec<Box<dyn Scenario>> {
    vec![
        Box::new(blob_hit::BlobHit),
        Box::new(manifests::ManifestHit),
        Box::new(manifests::HeadStorm),
        Box::new(manifests::NotModified),
        Box::new(base::Base),
        Box::new(beside::HotBeside::WARM),
        Box::new(beside::HotBeside::COLD),
        Box::new(two_cores::TwoCores),
        Box::new(cold_herd::ColdHerd),
        Box::new(cold_unique::ColdUnique),
        Box::new(ci_wave::CiWave),
        Box::new(tls::TlsHit::BLOBS),
        Box::new(tls::TlsHit::MANIFESTS),
        Box::new(pushes::Pushes::LAYER),
        Box::new(pushes::Pushes::SMALL),
        Box::new(idle::Idle),
        Box::new(memory::Memory),
        Box::new(soak::Soak),
    ]
}

/// `64 KiB`, `1 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 && b.is_multiple_of(1 << 30) => format!("{} GiB", b >> 30),
        b if b >= 1 << 20 && b.is_multiple_of(1 << 20) => format!("{} MiB", b >> 20),
        b if b >= 1 << 10 && b.is_multiple_of(1 << 10) => format!("{} KiB", b >> 10),
        b => format!("{b} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{self, Record, Sample};

    #[test]
    fn what_is_no_number_does_not_spoil_the_records() {
        let mut outcome = Outcome::default();
        outcome.put([("scaling", f64::NAN), ("rate", f64::INFINITY), ("seconds", 2.0)]);
        let sample = Sample { metrics: outcome.metrics, ..Sample::default() };
        let mut line = Vec::new();
        record::write(&mut line, &Record::Sample(sample.clone())).unwrap();
        assert_eq!(record::read(line.as_slice()).unwrap(), [Record::Sample(sample.clone())]);
        assert_eq!(sample.metrics.into_keys().collect::<Vec<_>>(), ["seconds"]);
    }
}
