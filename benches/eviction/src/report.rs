//! The measurements as Markdown.

use std::fmt::Write;

use crate::SHARES;
use ringport_bench_eviction::policies::{Kind, SHIPPED};
use ringport_bench_eviction::replay::Ratios;
use ringport_bench_eviction::trace::Trace;

/// Ratios by row and share, of one seed.
type Measured = Vec<[Ratios; SHARES.len()]>;

/// Picks one of the ratios.
type View = fn(Ratios) -> f64;

const VIEWS: [(&str, View); 3] = [
    ("Requests answered from the store, %", |ratios| ratios.objects),
    ("Bytes answered from the store, %", |ratios| ratios.bytes),
    ("Pulls that needed no upstream for content, %", |ratios| ratios.pulls),
];

/// A table row about one trace.
pub(crate) fn describe(trace: &Trace, seed: u64) -> String {
    let uses = trace.uses();
    let gib = |bytes: f64| bytes / f64::from(1 << 30);
    let footprint: u64 = trace.sizes.iter().sum();
    let requests: u64 = uses.iter().map(|&n| u64::from(n)).sum();
    let sent = uses.iter().zip(&trace.sizes).map(|(&n, &size)| f64::from(n) * size as f64);
    let once = uses.iter().filter(|&&n| n == 1).count();
    format!(
        "| {seed} | {} | {requests} | {:.1} | {} | {:.0} | {:.0} |\n",
        trace.pulls.len(),
        gib(sent.sum()) / 1024.0,
        uses.len(),
        gib(footprint as f64),
        100.0 * once as f64 / uses.len() as f64,
    )
}

/// All tables: the traces, one table a view, and how the shipped policy compares.
pub(crate) fn tables(rows: &[Kind], notes: &str, found: &[Measured]) -> String {
    let mut text = String::from(
        "| seed | pulls | requests | TiB sent | objects | footprint, GiB | asked for once, % |\n\
         |---|---|---|---|---|---|---|\n",
    );
    text.push_str(notes);
    for (title, view) in VIEWS {
        table(&mut text, title, rows, |row, share| {
            let values: Vec<f64> = found.iter().map(|one| view(one[row][share])).collect();
            let (mean, deviation) = spread(&values);
            format!("{mean:.1} ±{deviation:.1}")
        });
    }
    let shipped = rows.iter().position(|&kind| kind == SHIPPED).unwrap_or(0);
    let others: Vec<usize> = (0..rows.len()).filter(|&row| rows[row].is_exact()).collect();
    let kinds: Vec<Kind> = others.iter().map(|&row| rows[row]).collect();
    for (title, view) in VIEWS {
        let title = format!("{title}: as shipped, minus the row, in points");
        table(&mut text, &title, &kinds, |row, share| {
            let theirs = |one: &Measured| view(one[others[row]][share]);
            let ahead = found.iter().map(|one| view(one[shipped][share]) - theirs(one));
            let values: Vec<f64> = ahead.collect();
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            format!("{:+.1} ({least:+.1} … {most:+.1})", spread(&values).0)
        });
    }
    text
}

fn table(text: &mut String, title: &str, rows: &[Kind], cell: impl Fn(usize, usize) -> String) {
    // Writing to a string doesn't fail.
    let _ = writeln!(text, "\n**{title}**\n");
    let heads: Vec<String> = SHARES.iter().map(|share| format!("{} %", share * 100.0)).collect();
    let _ = writeln!(text, "| policy | {} |\n|---|---|---|---|---|", heads.join(" | "));
    for (row, kind) in rows.iter().enumerate() {
        let cells: Vec<String> = (0..SHARES.len()).map(|share| cell(row, share)).collect();
        let _ = writeln!(text, "| {} | {} |", kind.name(), cells.join(" | "));
    }
}

/// Mean and standard deviation.
fn spread(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}
