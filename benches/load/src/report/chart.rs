//! Charts as SVG that grows with the page: lengths along the value are per cent, text and heights
//! are not, so nothing becomes too small to read on a narrow screen.
//!
//! **Invariant:** all panels of a chart have one scale, or the chart says that they have not; bars
//! begin at 0; one that does not fit is cut, and seen to be; what is on a logarithmic scale is
//! points, never bars.

use std::fmt::Write as _;

use super::figures::{Case, OURS, Scenario, Server, Spread};
use super::html::escaped;
use super::units::{shown, title};

/// Servers whose colours do not depend on who else was measured.
const KNOWN: [&str; 7] = [
    "ringport",
    "nginx",
    "docker-registry",
    "nginx-cache",
    "docker-registry-proxy",
    "nginx-threads",
    "ringport-logged",
];
/// How many colours the style sheet has.
const COLOURS: usize = 9;
/// Panels that differ by more than this get scales of their own.
const ONE_SCALE_MAX: f64 = 20.0;

/// Beyond this many times what Ringport and its first peer have, bars are cut, or the difference of
/// those two could not be seen; and that many times is where they are cut.
const CUT_BEYOND: (f64, f64) = (8.0, 4.0);

/// Which colour each server has, on this page.
pub(crate) struct Colours(Vec<String>);

impl Colours {
    pub(crate) fn of(servers: &[String]) -> Colours {
        let mut names: Vec<String> = KNOWN.iter().map(|&name| name.to_owned()).collect();
        names.extend(servers.iter().filter(|name| !KNOWN.contains(&name.as_str())).cloned());
        Colours(names)
    }

    /// The class of the style sheet; servers beyond the known ones share the rest of them.
    pub(crate) fn class(&self, server: &str) -> usize {
        let at = self.0.iter().position(|name| name == server).unwrap_or_default();
        if at < COLOURS { at } else { KNOWN.len() + at % (COLOURS - KNOWN.len()) }
    }
}

/// A server's row of a panel.
struct Bar<'a> {
    server: &'a Server,
    spread: Spread,
}

fn bars<'a>(case: &'a Case, metric: &str) -> Vec<Bar<'a>> {
    let bar = |server: &'a Server| Some(Bar { server, spread: server.spread(metric)? });
    case.servers.iter().filter_map(bar).collect()
}

/// Where the scale of these bars ends: at the longest, or where longer ones are cut.
fn scale_end<'a>(bars: impl Iterator<Item = &'a Bar<'a>>, peer: Option<&str>) -> f64 {
    let (mut all, mut two) = (0.0_f64, 0.0_f64);
    for bar in bars {
        all = all.max(bar.spread.max);
        if bar.server.name == OURS || Some(bar.server.name.as_str()) == peer {
            two = two.max(bar.spread.max);
        }
    }
    let (beyond, at) = CUT_BEYOND;
    if two > 0.0 && all > beyond * two { at * two } else { all }
}

/// Bars of a metric: a panel for each case, a bar for each server, a whisker from the least to the
/// most. Empty when nobody has the metric.
pub(crate) fn of_bars(
    scenario: &Scenario,
    metric: &str,
    more_is_better: bool,
    colours: &Colours,
) -> String {
    let peer = scenario.about.peer.as_deref();
    let panels: Vec<(&Case, Vec<Bar<'_>>)> =
        scenario.cases.iter().map(|case| (case, bars(case, metric))).collect();
    let ends = panels.iter().map(|(_, bars)| scale_end(bars.iter(), peer)).filter(|end| *end > 0.0);
    let (least, most) = ends.fold((f64::MAX, 0.0_f64), |(l, m), end| (l.min(end), m.max(end)));
    if most <= 0.0 {
        return String::new();
    }
    let own_scales = most / least > ONE_SCALE_MAX;
    let end_of = |bars: &[Bar<'_>]| if own_scales { scale_end(bars.iter(), peer) } else { most };
    let is_cut = panels.iter().any(|(_, bars)| {
        let end = end_of(bars);
        bars.iter().any(|bar| bar.spread.median > end)
    });
    let better = if more_is_better { "more" } else { "less" };
    let scale = if own_scales { " Each panel has a scale of its own." } else { "" };
    let cut = if is_cut { " A bar with a notched end is cut." } else { "" };
    let note = format!("{better} is better. Bar: median; line: least to most.{scale}{cut}");
    let mut text = opened(&title(metric), &note);
    for (case, bars) in panels.iter().filter(|(_, bars)| !bars.is_empty()) {
        panel_opened(&mut text, &case.name);
        for bar in bars {
            let star = if bar.server.is_client_bound(metric) { "\u{200a}*" } else { "" };
            let value = shown(metric, bar.spread.median) + star;
            row(&mut text, bar, &drawn_bar(bar, end_of(bars), colours), &value, colours);
        }
        text.push_str("</div></figure>");
    }
    text.push_str("</div></section>\n");
    text
}

/// Half-way and slowest requests on a logarithmic scale. `metric` is the p99; its p50 and maximum
/// have the same name but for that. Empty when nobody has it.
pub(crate) fn of_latencies(scenario: &Scenario, metric: &str, colours: &Colours) -> String {
    let (p50, longest) = (metric.replace("p99", "p50"), metric.replace("p99", "max"));
    let servers = || scenario.cases.iter().flat_map(|case| &case.servers);
    let all: Vec<f64> = servers()
        .flat_map(|server| {
            let medians = [server.spread(&p50), server.spread(&longest)].map(|s| Some(s?.median));
            let p99 = server.spread(metric);
            medians.into_iter().chain([p99.map(|s| s.min), p99.map(|s| s.max)])
        })
        .flatten()
        .filter(|value| *value > 0.0)
        .collect();
    let Some(scale) = Decades::around(&all) else { return String::new() };
    let note = "less is better; logarithmic. Dot: p50; diamond: p99, with a line over its rounds; \
                stroke: the slowest of all.";
    let mut text = opened(&title(&metric.replace("_p99", "")), note);
    for case in &scenario.cases {
        let bars = bars(case, metric);
        if bars.is_empty() {
            continue;
        }
        panel_opened(&mut text, &case.name);
        for bar in &bars {
            let half = bar.server.spread(&p50).map(|spread| spread.median);
            let slowest = bar.server.spread(&longest).map(|spread| spread.median);
            let value = shown(metric, bar.spread.median);
            let value =
                half.map_or(value.clone(), |half| format!("{} · {value}", shown(metric, half)));
            let drawn = drawn_points(bar, half, slowest, &scale, colours);
            row(&mut text, bar, &drawn, &value, colours);
        }
        text.push_str(&scale.axis(metric));
        text.push_str("</div></figure>");
    }
    text.push_str("</div></section>\n");
    text
}

fn opened(name: &str, note: &str) -> String {
    format!(
        "<section class=\"chart\"><h3>{}</h3><p class=\"note\">{}</p><div class=\"panels\">",
        escaped(name),
        escaped(note)
    )
}

fn panel_opened(text: &mut String, name: &str) {
    let _ = write!(text, "<figure><figcaption>{}</figcaption><div class=\"bars\">", escaped(name));
}

/// Name, drawing, value.
fn row(text: &mut String, bar: &Bar<'_>, drawn: &str, value: &str, colours: &Colours) {
    let (name, value) = (escaped(&bar.server.name), escaped(value));
    let _ = write!(
        text,
        "<span class=\"who\"><i class=\"k{}\"></i>{name}</span>\
         <svg role=\"img\" aria-label=\"{name}: {value}\">{drawn}</svg>\
         <span class=\"value\">{value}</span>",
        colours.class(&bar.server.name)
    );
}

fn drawn_bar(bar: &Bar<'_>, top: f64, colours: &Colours) -> String {
    let part = |value: f64| (100.0 * value / top).clamp(0.0, 100.0);
    let Spread { median, min, max, .. } = bar.spread;
    let mut text = format!(
        "<rect class=\"c{}\" y=\"3\" width=\"{:.2}%\" height=\"12\"/>",
        colours.class(&bar.server.name),
        part(median)
    );
    if median > top {
        text.push_str(
            "<svg class=\"at\" x=\"100%\">\
             <path class=\"notch\" d=\"M1 2l-4 3 4 3-4 3 4 5h2V2z\"/></svg>",
        );
    } else if max > min {
        whisker(&mut text, part(min), part(max));
    }
    text
}

/// A line with an end on both sides, and a halo, so that it is seen on the bar too.
fn whisker(text: &mut String, from: f64, to: f64) {
    for class in ["halo", "ink"] {
        let _ = write!(
            text,
            "<line class=\"{class}\" x1=\"{from:.2}%\" x2=\"{to:.2}%\" y1=\"9\" y2=\"9\"/>\
             <line class=\"{class}\" x1=\"{from:.2}%\" x2=\"{from:.2}%\" y1=\"6\" y2=\"12\"/>\
             <line class=\"{class}\" x1=\"{to:.2}%\" x2=\"{to:.2}%\" y1=\"6\" y2=\"12\"/>"
        );
    }
}

fn drawn_points(
    bar: &Bar<'_>,
    half: Option<f64>,
    slowest: Option<f64>,
    scale: &Decades,
    colours: &Colours,
) -> String {
    let class = colours.class(&bar.server.name);
    let mut text = scale.grid();
    let p99 = scale.part(bar.spread.median);
    let left = half.map_or(p99, |half| scale.part(half));
    let right = slowest.map_or(p99, |slowest| scale.part(slowest)).max(p99);
    let _ = write!(
        text,
        "<line class=\"s{class}\" x1=\"{left:.2}%\" x2=\"{right:.2}%\" y1=\"9\" y2=\"9\"/>"
    );
    if bar.spread.max > bar.spread.min {
        let (from, to) = (scale.part(bar.spread.min), scale.part(bar.spread.max));
        let _ = write!(
            text,
            "<line class=\"s{class} wide\" x1=\"{from:.2}%\" x2=\"{to:.2}%\" y1=\"9\" y2=\"9\"/>"
        );
    }
    if half.is_some() {
        let _ = write!(text, "<circle class=\"c{class}\" cx=\"{left:.2}%\" cy=\"9\" r=\"4.5\"/>");
    }
    if slowest.is_some() {
        let _ = write!(
            text,
            "<line class=\"s{class}\" x1=\"{right:.2}%\" x2=\"{right:.2}%\" y1=\"4\" y2=\"14\"/>"
        );
    }
    // A shape of its own cannot stand at per cent: it does in a drawing that can.
    let _ = write!(
        text,
        "<svg class=\"at\" x=\"{p99:.2}%\">\
         <path class=\"c{class} edge\" d=\"M0 3l6 6-6 6-6-6z\"/></svg>"
    );
    text
}

/// A logarithmic scale over whole powers of ten.
struct Decades {
    low: i32,
    high: i32,
}

impl Decades {
    fn around(values: &[f64]) -> Option<Decades> {
        let least = values.iter().copied().reduce(f64::min)?;
        let most = values.iter().copied().reduce(f64::max)?;
        // Between a nanosecond and eleven days, in microseconds: nothing else is drawn.
        let low = least.log10().floor().clamp(-3.0, 11.0) as i32;
        let high = most.log10().ceil().clamp(-3.0, 12.0) as i32;
        Some(Decades { low, high: high.max(low + 1) })
    }

    fn part(&self, value: f64) -> f64 {
        let width = f64::from(self.high - self.low);
        let at = (value.log10() - f64::from(self.low)) / width;
        (100.0 * at).clamp(0.0, 100.0)
    }

    fn marks(&self) -> impl Iterator<Item = f64> {
        (self.low..=self.high).map(|power| 10_f64.powi(power))
    }

    fn grid(&self) -> String {
        let mut text = String::new();
        for mark in self.marks() {
            let x = self.part(mark);
            let _ = write!(
                text,
                "<line class=\"grid\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"0\" y2=\"100%\"/>"
            );
        }
        text
    }

    fn axis(&self, metric: &str) -> String {
        let mut text = "<span></span><svg class=\"axis\" aria-hidden=\"true\">".to_owned();
        // As many names as a narrow page has room for.
        let every = (self.high - self.low).unsigned_abs().div_ceil(3) as usize;
        for mark in self.marks().step_by(every) {
            let x = self.part(mark);
            let whole = shown(metric, mark);
            let short = whole.replace(".00", "").replace(".0 ", " ");
            let _ = write!(text, "<text x=\"{x:.2}%\" y=\"12\">{}</text>", escaped(&short));
        }
        text.push_str("</svg><span></span>");
        text
    }
}
