//! The page: one file, style and drawings within it.

use std::fmt::Write as _;

use super::chart::{Colours, of_bars, of_latencies};
use super::figures::{Case, Figures, Scenario, Spread};
use super::glance;
use super::units::{shown, title};
use crate::record::Run;

const STYLE: &str = include_str!("style.css");
/// Stands where nothing was measured.
pub(crate) const NONE: &str = "–";

pub(crate) fn page(figures: &Figures) -> String {
    let servers = figures.servers();
    let colours = Colours::of(&servers);
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Ringport beside its peers</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
    );
    head(&mut text, figures);
    glance::overview(&mut text, figures, &servers);
    for scenario in &figures.scenarios {
        section(&mut text, scenario, &colours);
    }
    text.push_str("</body>\n</html>\n");
    text
}

/// A text that means nothing to the page it stands in.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// A name of a scenario, for people.
pub(crate) fn in_words(name: &str) -> String {
    name.replace('_', " ")
}

/// Wrong answers that are shown one by one: each connection may have had the same.
const WRONG_SHOWN: usize = 5;

/// What was run and where, and what went wrong.
fn head(text: &mut String, figures: &Figures) {
    text.push_str("<h1>Ringport beside its peers</h1>\n");
    if let Some(run) = &figures.run {
        machine(text, run);
    }
    if let Some(what) = figures.disturbance() {
        let _ = writeln!(text, "<p class=\"wrong\">{}</p>", escaped(&what));
    }
    for wrong in figures.wrong.iter().take(WRONG_SHOWN) {
        let what = format!(
            "{} gave a wrong answer in {}, {}, round {}: {}",
            wrong.server, wrong.scenario, wrong.case, wrong.round, wrong.what
        );
        let _ = writeln!(text, "<p class=\"wrong\">{}</p>", escaped(&what));
    }
    let more = figures.wrong.len().saturating_sub(WRONG_SHOWN);
    if more > 0 {
        let _ = writeln!(
            text,
            "<p class=\"wrong\">and {more} more lines like these in the records</p>"
        );
    }
    for missing in &figures.missing {
        let scenario = missing.scenario.as_deref().unwrap_or("the whole run");
        let what = format!("Not measured: {} in {scenario}: {}", missing.server, missing.why);
        let _ = writeln!(text, "<p class=\"note\">{}</p>", escaped(&what));
    }
}

fn machine(text: &mut String, run: &Run) {
    let short = if run.quick { " The short form: a glance, no verdict." } else { "" };
    let _ = writeln!(
        text,
        "<p>Every figure is the median of {} rounds, in which the servers took turns; a ratio is \
         taken within each round, and its median shown.{short}</p>\n<dl>",
        run.rounds
    );
    let cores = |cores: &[usize]| cores.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let machine = format!(
        "{}, {} cores, {}, {}",
        run.machine.cpu,
        run.machine.cores,
        shown("memory_bytes", run.machine.memory_bytes as f64),
        run.machine.kernel
    );
    let pinned = format!(
        "servers to core {}, the load to core {}",
        cores(&run.server_cores),
        cores(&run.client_cores)
    );
    let network = &run.machine.network;
    for (name, value) in [
        ("started", &run.started),
        ("machine", &machine),
        ("network", network),
        ("pinned", &pinned),
    ] {
        let _ = writeln!(text, "<dt>{name}</dt><dd>{}</dd>", escaped(value));
    }
    let _ = writeln!(text, "<dt>command</dt><dd><code>{}</code></dd>", escaped(&run.command));
    for server in &run.servers {
        let _ = writeln!(
            text,
            "<dt>{}</dt><dd>{}</dd>",
            escaped(&server.name),
            escaped(&server.version)
        );
    }
    text.push_str("</dl>\n");
}

/// A scenario: what it is, its charts, and all its medians.
fn section(text: &mut String, scenario: &Scenario, colours: &Colours) {
    let about = &scenario.about;
    let _ = writeln!(
        text,
        "<h2>{}</h2>\n<p>{}</p>",
        escaped(&in_words(&about.scenario)),
        escaped(&about.measures)
    );
    let is_latency = |metric: &str| metric.contains("latency_p99");
    let mut drawn: Vec<&str> = vec![&about.headline];
    drawn.extend(
        about
            .also
            .iter()
            .map(String::as_str)
            .filter(|metric| is_drawn(metric) && **metric != about.headline),
    );
    for metric in drawn {
        if is_latency(metric) {
            text.push_str(&of_latencies(scenario, metric, colours));
            continue;
        }
        let is_headline = metric == about.headline;
        let more_is_better = if is_headline { about.more_is_better } else { is_rate(metric) };
        text.push_str(&of_bars(scenario, metric, more_is_better, colours));
    }
    medians(text, scenario);
}

/// Which of the further metrics have a chart: what a request costs, and rates.
fn is_drawn(metric: &str) -> bool {
    metric.contains("cpu_") || metric.ends_with("_per_second")
}

/// A rate is the better the higher; time and memory the lower.
fn is_rate(metric: &str) -> bool {
    metric.ends_with("_per_second")
}

fn medians(text: &mut String, scenario: &Scenario) {
    let mut metrics: Vec<&str> = scenario.cases.iter().flat_map(Case::metrics).collect();
    metrics.sort_unstable();
    metrics.dedup();
    metrics.sort_by_key(|metric| *metric != scenario.about.headline);
    text.push_str(
        "<details><summary>All medians, with the least and the most</summary>\n\
         <div class=\"scroll\"><table>\n<thead><tr><th class=\"text\">case</th>\
         <th class=\"text\">server</th><th>rounds</th>",
    );
    for metric in &metrics {
        let _ = write!(text, "<th>{}</th>", escaped(&title(metric)));
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for case in &scenario.cases {
        for (at, server) in case.servers.iter().enumerate() {
            let class = if at == 0 { " class=\"first\"" } else { "" };
            let spreads: Vec<_> = metrics.iter().map(|metric| server.spread(metric)).collect();
            let rounds = spreads.iter().flatten().map(|spread| spread.rounds).max();
            let _ = write!(
                text,
                "<tr{class}><td class=\"text\">{}</td><td class=\"text\">{}</td><td>{}</td>",
                escaped(&case.name),
                escaped(&server.name),
                rounds.unwrap_or_default()
            );
            for (metric, spread) in metrics.iter().zip(spreads) {
                let cell = spread.map_or(NONE.to_owned(), |Spread { median, min, max, .. }| {
                    format!(
                        "{}<br><span class=\"note\">{} – {}</span>",
                        escaped(&shown(metric, median)),
                        escaped(&shown(metric, min)),
                        escaped(&shown(metric, max))
                    )
                });
                let _ = write!(text, "<td>{cell}</td>");
            }
            text.push_str("</tr>\n");
        }
    }
    text.push_str("</tbody>\n</table></div></details>\n");
}
