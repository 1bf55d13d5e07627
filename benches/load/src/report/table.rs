//! The figures as plain text that is Markdown too.

use std::fmt::Write as _;

use super::figures::{Case, Figures, OURS, Scenario, Server, Spread, Verdict};
use super::units::{digits, shown, title};

/// Stands behind a value that the load may have set.
const CLIENT_BOUND: &str = " *";

pub(crate) fn table(figures: &Figures) -> String {
    let mut text = String::new();
    let mut bound = false;
    for scenario in &figures.scenarios {
        let about = &scenario.about;
        let better = if about.more_is_better { "more" } else { "less" };
        let headline = title(&about.headline);
        let _ = write!(text, "\n### {}\n\n{} ", about.scenario, about.measures);
        let _ = writeln!(text, "First figure: {headline}; {better} is better.\n");
        aligned(&mut text, &rows(scenario));
        bound |= scenario.is_client_bound();
    }
    if bound {
        let _ = writeln!(
            text,
            "\n\\* the load's cores were busy all the time: the server can do more than this; its \
             CPU a request is the honest figure."
        );
    }
    summary(&mut text, figures);
    text
}

/// A line of cells for each server in each case, behind one of headings.
fn rows(scenario: &Scenario) -> Vec<Vec<String>> {
    let about = &scenario.about;
    let also = also(scenario);
    let has_targets = scenario.cases.iter().any(|case| !case.verdicts.is_empty());
    let mut heading = vec!["case".to_owned(), "server".to_owned(), title(&about.headline)];
    heading.extend(["min – max".to_owned(), format!("{OURS} ÷ it")]);
    heading.extend(also.iter().map(|metric| title(metric)));
    if has_targets {
        heading.push("target".to_owned());
    }
    let mut rows = vec![heading];
    for case in &scenario.cases {
        for server in &case.servers {
            let mut row = vec![case.name.clone(), server.name.clone()];
            row.extend(headline(case, server, &about.headline));
            row.extend(also.iter().map(|metric| {
                let spread = server.spread(metric);
                spread.map_or_else(none, |spread| shown(metric, spread.median))
            }));
            if has_targets {
                let ours = if server.name == OURS { case.verdicts.as_slice() } else { &[] };
                row.push(ours.iter().map(verdict).collect::<Vec<_>>().join("; "));
            }
            rows.push(row);
        }
    }
    rows
}

/// The metrics that stand behind the first, as far as somebody has them.
fn also(scenario: &Scenario) -> Vec<&str> {
    let about = &scenario.about;
    let there = |metric: &&str| {
        let mut servers = scenario.cases.iter().flat_map(|case| &case.servers);
        **metric != about.headline && servers.any(|server| server.spread(metric).is_some())
    };
    about.also.iter().map(String::as_str).filter(there).collect()
}

/// Median, spread and ratio.
fn headline(case: &Case, server: &Server, metric: &str) -> [String; 3] {
    let Some(Spread { median, min, max, .. }) = server.spread(metric) else {
        return [none(), none(), none()];
    };
    let mark = if server.is_client_bound(metric) { CLIENT_BOUND } else { "" };
    let ratio = match server.name == OURS {
        true => String::new(),
        false => case.ratio(metric, &server.name).map_or_else(none, |r| times(r.median)),
    };
    let spread = format!("{} – {}", shown(metric, min), shown(metric, max));
    [shown(metric, median) + mark, spread, ratio]
}

/// A ratio: `1.04 ×`.
pub(crate) fn times(ratio: f64) -> String {
    format!("{} ×", digits(ratio))
}

/// A target and how it went: `throughput ≥ 1.00 × nginx: 1.03 ×`, or `MISSED` behind it.
fn verdict(verdict: &Verdict) -> String {
    let missed = if verdict.met == Some(false) { " MISSED" } else { "" };
    format!("{}: {}{missed}", aim(verdict), found(verdict))
}

/// What was found for a target: a ratio, or a value.
pub(crate) fn found(verdict: &Verdict) -> String {
    match (verdict.found, &verdict.target.peer) {
        (Some(found), Some(_)) => times(found),
        (Some(found), None) => shown(&verdict.target.metric, found),
        (None, _) => "not measured".to_owned(),
    }
}

/// What is aimed at: `throughput ≥ 1.00 × nginx`.
pub(crate) fn aim(verdict: &Verdict) -> String {
    let target = &verdict.target;
    let sign = if target.at_least { "≥" } else { "≤" };
    let bound = match &target.peer {
        Some(peer) => format!("{} {peer}", times(target.bound)),
        None => shown(&target.metric, target.bound),
    };
    format!("{} {sign} {bound}", title(&target.metric))
}

fn none() -> String {
    "–".to_owned()
}

/// Cells in columns of equal width.
fn aligned(text: &mut String, rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |cell: &String| cell.chars().count();
    let widths: Vec<usize> = (0..columns)
        .map(|at| rows.iter().filter_map(|row| row.get(at)).map(width).max().unwrap_or_default())
        .collect();
    for (at, row) in rows.iter().enumerate() {
        text.push('|');
        for (cell, width) in row.iter().zip(&widths) {
            let cell = cell.replace('|', "\\|");
            let _ = write!(text, " {cell:<width$} |");
        }
        text.push('\n');
        if at == 0 {
            text.push('|');
            for width in &widths {
                let _ = write!(text, "{}|", "-".repeat(width + 2));
            }
            text.push('\n');
        }
    }
}

/// What is to be known beside the figures.
fn summary(text: &mut String, figures: &Figures) {
    let cases = figures.scenarios.iter().flat_map(|scenario| &scenario.cases);
    let verdicts: Vec<&Verdict> = cases.flat_map(|case| &case.verdicts).collect();
    let count = |met| verdicts.iter().filter(|verdict| verdict.met == met).count();
    if !verdicts.is_empty() {
        let (met, missed, open) = (count(Some(true)), count(Some(false)), count(None));
        let _ = writeln!(text, "\nTargets: {met} met, {missed} missed, {open} not measured.");
    }
    if let Some(what) = figures.disturbance() {
        let _ = writeln!(text, "\n{what}");
    }
    for missing in &figures.missing {
        let what = missing.scenario.as_deref().unwrap_or("the whole run");
        let _ = writeln!(text, "\nNot measured: {} in {what}: {}", missing.server, missing.why);
    }
    for wrong in &figures.wrong {
        let _ = writeln!(
            text,
            "\nWRONG: {}, {}, {}, round {}: {}",
            wrong.server, wrong.scenario, wrong.case, wrong.round, wrong.what
        );
    }
}
