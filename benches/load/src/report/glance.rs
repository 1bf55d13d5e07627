//! The first two tables of the page: everybody's ratios, and what became of the targets.

use std::fmt::Write as _;

use super::figures::{Case, Figures, OURS, Scenario, Spread};
use super::html::{NONE, escaped, in_words};
use super::table::{aim, found, times};
use super::units::{shown, title};

/// Stands behind a value that the load may have set.
const CLIENT_BOUND: &str = "&#8202;*";

/// Each case's first figure with the ratio to everybody; then what was aimed at.
pub(crate) fn overview(text: &mut String, figures: &Figures, servers: &[String]) {
    let peers: Vec<&String> = servers.iter().filter(|name| *name != OURS).collect();
    text.push_str(
        "<h2>At a glance</h2>\n<p>Ringport's figure, and that figure divided by each peer's: \
         green where Ringport is no worse.</p>\n<div class=\"scroll\"><table>\n<thead><tr>\
         <th class=\"text\">case</th><th>Ringport</th>",
    );
    for peer in &peers {
        let _ = write!(text, "<th>÷ {}</th>", escaped(peer));
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for scenario in &figures.scenarios {
        let about = &scenario.about;
        let better = if about.more_is_better { "more" } else { "less" };
        let _ = writeln!(
            text,
            "<tr class=\"first\"><th class=\"text\" colspan=\"{}\">{} <span class=\"note\">{}, \
             {better} is better</span></th></tr>",
            peers.len() + 2,
            escaped(&in_words(&about.scenario)),
            escaped(&title(&about.headline))
        );
        for case in &scenario.cases {
            overview_row(text, scenario, case, &peers);
        }
    }
    text.push_str("</tbody>\n</table></div>\n");
    if figures.scenarios.iter().any(Scenario::is_client_bound) {
        text.push_str(
            "<p class=\"note\">* The load's cores were busy all the time: the server can do more \
             than this. Its CPU time a request is the honest figure there.</p>\n",
        );
    }
    targets(text, figures);
}

fn overview_row(text: &mut String, scenario: &Scenario, case: &Case, peers: &[&String]) {
    let about = &scenario.about;
    let ours = case.server(OURS);
    let star = if ours.is_some_and(|ours| ours.is_client_bound(&about.headline)) {
        CLIENT_BOUND
    } else {
        ""
    };
    let value = ours.and_then(|ours| ours.spread(&about.headline));
    let value = value.map_or(NONE.to_owned(), |spread| shown(&about.headline, spread.median));
    let _ = write!(
        text,
        "<tr><td class=\"text\">{}</td><td>{}{star}</td>",
        escaped(&case.name),
        escaped(&value)
    );
    for peer in peers {
        match case.ratio(&about.headline, peer) {
            Some(ratio) => text.push_str(&ratio_cell(ratio, about.more_is_better)),
            None => text.push_str("<td>–</td>"),
        }
    }
    text.push_str("</tr>\n");
}

/// A row for each target in each case that it applies to.
fn targets(text: &mut String, figures: &Figures) {
    let cases = figures.scenarios.iter().flat_map(|scenario| {
        scenario.cases.iter().map(move |case| (&scenario.about.scenario, case))
    });
    let all: Vec<_> = cases
        .flat_map(|(name, case)| case.verdicts.iter().map(move |verdict| (name, case, verdict)))
        .collect();
    if all.is_empty() {
        return;
    }
    let missed = all.iter().filter(|(_, _, verdict)| verdict.met == Some(false)).count();
    let open = all.iter().filter(|(_, _, verdict)| verdict.met.is_none()).count();
    let _ = writeln!(
        text,
        "<h2>Targets</h2>\n<p>{} met, {missed} missed, {open} not measured.</p>\n\
         <div class=\"scroll\"><table>\n<thead><tr><th class=\"text\">scenario</th>\
         <th class=\"text\">case</th><th class=\"text\">target</th><th>found</th>\
         <th class=\"text\"></th></tr></thead>\n<tbody>",
        all.len() - missed - open
    );
    let mut before = None;
    for (name, case, verdict) in all {
        let (class, shown_name) = match before == Some(name) {
            true => ("", String::new()),
            false => (" class=\"first\"", in_words(name)),
        };
        before = Some(name);
        let (colour, mark) = match verdict.met {
            Some(true) => ("good", "✓ met"),
            Some(false) => ("bad", "✗ missed"),
            None => ("", ""),
        };
        let _ = writeln!(
            text,
            "<tr{class}><td class=\"text\">{}</td><td class=\"text\">{}</td>\
             <td class=\"text\">{}</td><td>{}</td><td class=\"text {colour}\">{mark}</td></tr>",
            escaped(&shown_name),
            escaped(&case.name),
            escaped(&aim(verdict)),
            escaped(&found(verdict))
        );
    }
    text.push_str("</tbody>\n</table></div>\n");
}

fn ratio_cell(ratio: Spread, more_is_better: bool) -> String {
    let is_good = if more_is_better { ratio.median >= 1.0 } else { ratio.median <= 1.0 };
    let class = if is_good { "good" } else { "bad" };
    let spread = format!("{} to {} in {} rounds", times(ratio.min), times(ratio.max), ratio.rounds);
    format!("<td class=\"{class}\" title=\"{spread}\">{}</td>", times(ratio.median))
}
