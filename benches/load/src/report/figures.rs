//! What the records say together: medians with their spread, ratios to peers, targets.
//!
//! A ratio is taken within each round, whose samples stand beside each other in time, and the
//! median of those is shown: what the machine does over a run cancels out.

use std::collections::BTreeMap;

use crate::record::{About, Missing, Record, Run, Sample, Target, Wrong};

/// The server that is compared with the others.
pub(crate) const OURS: &str = "ringport";
/// How busy the cores of the load were, in per cent.
const CLIENT_BUSY: &str = "client_busy_percent";
/// From here on the load, not the server, may have set the rate.
const BUSY_FROM: f64 = 95.0;

/// How busy others kept the cores, in per cent; and from where on that is told.
const OTHERS_BUSY: &str = "others_busy_percent";
const OTHERS_FROM: f64 = 5.0;

/// A run, or several one after the other: the last one's head, everybody's samples.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) run: Option<Run>,
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) missing: Vec<Missing>,
    pub(crate) wrong: Vec<Wrong>,
    runs: usize,
}

/// A scenario and its cases, both in the order in which they were run.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) about: About,
    pub(crate) cases: Vec<Case>,
}

#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) servers: Vec<Server>,
    pub(crate) verdicts: Vec<Verdict>,
}

/// A server in one case.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: String,
    /// Its values by metric, and by run and round.
    values: BTreeMap<String, BTreeMap<(usize, u32), f64>>,
}

/// A median and the least and the most it is one of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) rounds: usize,
}

/// A target that applies to a case.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) target: Target,
    /// The value, or the ratio; none when it was not measured.
    pub(crate) found: Option<f64>,
    pub(crate) met: Option<bool>,
}

impl Figures {
    pub(crate) fn of(records: &[Record]) -> Figures {
        let mut figures = Figures::default();
        for record in records {
            match record {
                Record::Run(run) => {
                    figures.run = Some(run.clone());
                    figures.runs += 1;
                }
                Record::Scenario(about) => figures.scenario(about),
                Record::Sample(sample) => figures.sample(sample),
                Record::Missing(missing) if !figures.missing.contains(missing) => {
                    figures.missing.push(missing.clone());
                }
                Record::Missing(_) => {}
                Record::Wrong(wrong) => figures.wrong.push(wrong.clone()),
            }
        }
        figures.scenarios.retain(|scenario| !scenario.cases.is_empty());
        let order = figures.servers();
        let place = |name: &str| order.iter().position(|other| other == name);
        for scenario in &mut figures.scenarios {
            for case in &mut scenario.cases {
                case.servers.sort_by_key(|server| place(&server.name));
                case.verdicts = verdicts(&scenario.about.targets, case);
            }
        }
        figures
    }

    /// All servers that have samples: those the run names first, in its order.
    pub(crate) fn servers(&self) -> Vec<String> {
        let named = self.run.iter().flat_map(|run| run.servers.iter().map(|one| &one.name));
        let cases = self.scenarios.iter().flat_map(|scenario| &scenario.cases);
        let measured: Vec<&String> =
            cases.flat_map(|case| case.servers.iter().map(|server| &server.name)).collect();
        let mut all: Vec<String> = Vec::new();
        for name in named.filter(|name| measured.contains(name)).chain(measured.iter().copied()) {
            if !all.contains(name) {
                all.push(name.clone());
            }
        }
        all
    }

    /// How busy other programs kept the cores meanwhile, when that is worth a word.
    pub(crate) fn disturbance(&self) -> Option<String> {
        let cases = self.scenarios.iter().flat_map(|scenario| &scenario.cases);
        let each = cases.flat_map(|case| &case.servers).filter_map(|s| s.spread(OTHERS_BUSY));
        let busy = Spread::of(each.map(|spread| spread.median).collect())?;
        (busy.median > OTHERS_FROM).then(|| {
            format!(
                "Other programs kept these cores {:.0} % busy meanwhile (up to {:.0} %): the \
                 figures are unsettled.",
                busy.median, busy.max
            )
        })
    }

    fn scenario(&mut self, about: &About) {
        match self.scenarios.iter_mut().find(|one| one.about.scenario == about.scenario) {
            Some(known) => known.about = about.clone(),
            None => self.scenarios.push(Scenario { about: about.clone(), cases: Vec::new() }),
        }
    }

    fn sample(&mut self, sample: &Sample) {
        let at = (self.runs, sample.round);
        let known = |one: &Scenario| one.about.scenario == sample.scenario;
        if !self.scenarios.iter().any(known) {
            self.scenario(&about_nothing(sample));
        }
        let Some(scenario) = self.scenarios.iter_mut().find(|one| known(one)) else { return };
        let case = found_or_pushed(
            &mut scenario.cases,
            |case| case.name == sample.case,
            || Case { name: sample.case.clone(), servers: Vec::new(), verdicts: Vec::new() },
        );
        let server = case.and_then(|case| {
            found_or_pushed(
                &mut case.servers,
                |server| server.name == sample.server,
                || Server { name: sample.server.clone(), values: BTreeMap::new() },
            )
        });
        let Some(server) = server else { return };
        for (metric, value) in sample.metrics.iter().filter(|(_, value)| value.is_finite()) {
            server.values.entry(metric.clone()).or_default().insert(at, *value);
        }
    }
}

/// What stands for a scenario that nobody declared.
fn about_nothing(sample: &Sample) -> About {
    let first = sample.metrics.keys().next();
    About {
        scenario: sample.scenario.clone(),
        measures: String::new(),
        headline: first.cloned().unwrap_or_default(),
        more_is_better: true,
        also: Vec::new(),
        peer: None,
        targets: Vec::new(),
    }
}

fn found_or_pushed<T>(
    all: &mut Vec<T>,
    is_it: impl Fn(&T) -> bool,
    made: impl FnOnce() -> T,
) -> Option<&mut T> {
    if !all.iter().any(&is_it) {
        all.push(made());
    }
    all.iter_mut().find(|one| is_it(one))
}

impl Scenario {
    /// Whether the load may have set somebody's first figure.
    pub(crate) fn is_client_bound(&self) -> bool {
        let mut servers = self.cases.iter().flat_map(|case| &case.servers);
        servers.any(|server| server.is_client_bound(&self.about.headline))
    }
}

impl Case {
    pub(crate) fn server(&self, name: &str) -> Option<&Server> {
        self.servers.iter().find(|server| server.name == name)
    }

    /// Ringport's value through that of `peer`, from the rounds that have both.
    pub(crate) fn ratio(&self, metric: &str, peer: &str) -> Option<Spread> {
        let ours = self.server(OURS)?.values.get(metric)?;
        let theirs = self.server(peer)?.values.get(metric)?;
        let both = ours.iter().filter_map(|(at, our)| {
            theirs.get(at).filter(|their| **their > 0.0).map(|their| our / their)
        });
        Spread::of(both.collect())
    }

    /// All metrics that somebody has here.
    pub(crate) fn metrics(&self) -> Vec<&str> {
        let mut all: Vec<&str> =
            self.servers.iter().flat_map(|s| s.values.keys().map(String::as_str)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl Server {
    pub(crate) fn spread(&self, metric: &str) -> Option<Spread> {
        Spread::of(self.values.get(metric)?.values().copied().collect())
    }

    /// Whether `metric` is a rate that the load may have set.
    pub(crate) fn is_client_bound(&self, metric: &str) -> bool {
        metric.ends_with("_per_second")
            && self.spread(CLIENT_BUSY).is_some_and(|busy| busy.median >= BUSY_FROM)
    }
}

impl Spread {
    /// Of finite values; none of none.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let high = *values.get(values.len() / 2)?;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(*values.get(values.len() / 2 - 1)?, high)
        } else {
            high
        };
        Some(Spread { median, min, max, rounds: values.len() })
    }
}

fn verdicts(targets: &[Target], case: &Case) -> Vec<Verdict> {
    let applies = |target: &&Target| {
        target.case.as_deref().is_none_or(|part| case.name.contains(part))
            && case.server(OURS).is_some()
    };
    let judged = |target: &Target| {
        let found = match target.peer.as_deref() {
            Some(peer) => case.ratio(&target.metric, peer),
            None => case.server(OURS).and_then(|ours| ours.spread(&target.metric)),
        };
        let found = found.map(|spread| spread.median);
        let met = found.map(|found| match target.at_least {
            true => found >= target.bound,
            false => found <= target.bound,
        });
        Verdict { target: target.clone(), found, met }
    };
    targets.iter().filter(applies).map(judged).collect()
}
