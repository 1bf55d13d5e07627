//! The run: which scenarios, which servers, in which order. Servers take turns within a round and
//! another one begins each round, so that what drifts on the machine drifts for all.

use std::io::Write;

use crate::house::{House, Trouble};
use crate::record::{self, Missing, Record, Run, Sample, Wrong};
use crate::report;
use crate::scenario::{Case, Outcome, Scenario};

/// What is to be run.
pub(crate) struct Plan {
    /// In their order.
    pub(crate) scenarios: Vec<Box<dyn Scenario>>,
    /// Only these servers; empty: all.
    pub(crate) only: Vec<String>,
    /// Only cases whose name contains one of these; empty: all.
    pub(crate) cases: Vec<String>,
    /// Measurements of each cell.
    pub(crate) rounds: u32,
    /// As it was typed.
    pub(crate) command: String,
}

/// Where records go: into a file, line by line, so that a run that breaks off is not lost.
pub(crate) struct Book {
    /// All so far.
    pub(crate) records: Vec<Record>,
    file: Option<std::fs::File>,
}

impl Book {
    /// An empty one, with a file or without.
    pub(crate) fn new(file: Option<std::fs::File>) -> Book {
        Book { records: Vec::new(), file }
    }

    /// Whether anything was measured.
    pub(crate) fn has_samples(&self) -> bool {
        self.records.iter().any(|record| matches!(record, Record::Sample(_)))
    }

    /// Whether an answer was wrong.
    pub(crate) fn has_wrong(&self) -> bool {
        self.records.iter().any(|record| matches!(record, Record::Wrong(_)))
    }

    fn add(&mut self, record: Record) -> Result<(), String> {
        if let Some(file) = &mut self.file {
            record::write(file, &record).map_err(|e| format!("writing the records: {e}"))?;
        }
        self.records.push(record);
        Ok(())
    }
}

/// Runs the plan. Ends early, and well, when it is interrupted.
///
/// # Errors
/// That records cannot be written.
pub(crate) fn run(house: &mut House, plan: &Plan, book: &mut Book) -> Result<(), String> {
    let mut names: Vec<String> = Vec::new();
    for scenario in &plan.scenarios {
        for name in servers_of(scenario.as_ref(), house, plan) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    book.add(Record::Run(Run {
        version: record::VERSION,
        started: humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
        command: plan.command.clone(),
        machine: crate::machine::facts(crate::network::describe()),
        servers: house.versions(&names),
        rounds: plan.rounds,
        server_cores: house.settings.server_cores.clone(),
        client_cores: house.settings.client_cores.clone(),
        quick: house.settings.quick,
    }))?;
    let mut missing = Vec::new();
    for scenario in &plan.scenarios {
        book.add(Record::Scenario(scenario.about()))?;
        let mut cases = scenario.cases(house.settings.quick);
        let wanted = |case: &Case| plan.cases.iter().any(|text| case.name.contains(text.as_str()));
        cases.retain(|case| plan.cases.is_empty() || wanted(case));
        for case in cases {
            for round in 1..=plan.rounds {
                measure_round(house, plan, scenario.as_ref(), &case, round, &mut missing, book)?;
                if house.is_interrupted() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Each server once.
fn measure_round(
    house: &mut House,
    plan: &Plan,
    scenario: &dyn Scenario,
    case: &Case,
    round: u32,
    missing: &mut Vec<Missing>,
    book: &mut Book,
) -> Result<(), String> {
    let about = scenario.about();
    let mut servers = servers_of(scenario, house, plan);
    let first = (round as usize - 1) % servers.len().max(1);
    servers.rotate_left(first);
    for server in servers {
        if gives_up(missing, &server, &about.scenario) || house.is_interrupted() {
            continue;
        }
        let name = format!("{} | {} | {server} | round {round}", about.scenario, case.name);
        let lacking = match scenario.measure(house, case, &server) {
            Ok(outcome) => {
                tell(&format!("{name}: {}", brief(&outcome, &about.headline)));
                note(book, &about.scenario, case, &server, round, outcome)?;
                continue;
            }
            Err(_) if house.is_interrupted() => continue,
            Err(Trouble::Wrong(what)) => {
                let outcome = Outcome { wrong: vec![what], ..Outcome::default() };
                note(book, &about.scenario, case, &server, round, outcome)?;
                continue;
            }
            Err(Trouble::Missing(why)) => Missing { server: server.clone(), scenario: None, why },
            Err(Trouble::Failed(why)) => {
                let scenario = Some(about.scenario.clone());
                Missing { server: server.clone(), scenario, why: format!("{}: {why}", case.name) }
            }
        };
        tell(&format!("{name}: none: {}", lacking.why));
        missing.push(lacking.clone());
        book.add(Record::Missing(lacking))?;
    }
    Ok(())
}

/// What is not here is not looked for again; what failed twice in a scenario rests until the next.
fn gives_up(missing: &[Missing], server: &str, scenario: &str) -> bool {
    let mut own = missing.iter().filter(|m| m.server == server);
    let failures = own.clone().filter(|m| m.scenario.as_deref() == Some(scenario)).count();
    failures > 1 || own.any(|m| m.scenario.is_none())
}

fn note(
    book: &mut Book,
    scenario: &str,
    case: &Case,
    server: &str,
    round: u32,
    outcome: Outcome,
) -> Result<(), String> {
    for what in outcome.wrong {
        tell(&format!("WRONG: {what}"));
        book.add(Record::Wrong(Wrong {
            scenario: scenario.to_owned(),
            case: case.name.clone(),
            server: server.to_owned(),
            round,
            what,
        }))?;
    }
    book.add(Record::Sample(Sample {
        scenario: scenario.to_owned(),
        case: case.name.clone(),
        params: case.params.clone(),
        server: server.to_owned(),
        round,
        seconds: outcome.seconds,
        requests: outcome.requests,
        body_bytes: outcome.body_bytes,
        metrics: outcome.metrics,
    }))
}

fn servers_of(scenario: &dyn Scenario, house: &House, plan: &Plan) -> Vec<String> {
    let servers = scenario.servers(house.settings.quick);
    let mut names: Vec<String> = servers.known.into_iter().map(str::to_owned).collect();
    if servers.and_given {
        names.extend(house.settings.given.iter().map(|given| given.name.clone()));
    }
    names.retain(|name| plan.only.is_empty() || plan.only.contains(name));
    names
}

fn brief(outcome: &Outcome, headline: &str) -> String {
    let shown = |name: &str| Some(report::shown(name, *outcome.metrics.get(name)?));
    let mut text = shown(headline).unwrap_or_else(|| format!("no {headline}"));
    for (who, name) in [("server", "server_busy_percent"), ("client", "client_busy_percent")] {
        if let Some(busy) = shown(name) {
            text.push_str(&format!(", {who} {busy}"));
        }
    }
    text
}

/// Progress goes to standard error: standard output has the table.
fn tell(line: &str) {
    // Nothing is left to try when it is gone.
    let _ = writeln!(std::io::stderr(), "{line}");
}
