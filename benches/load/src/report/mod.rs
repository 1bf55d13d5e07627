//! What a run looks like to people: a table for the terminal, and a page. Read from records alone,
//! so that an old run can be drawn again.
//!
//! Modules: `figures` (medians, ratios, targets) and `units` at the bottom; above
//! them `table`; above all the page: `html`, and its parts `glance` and `chart`.
//!
//! **Invariant:** the page is one file that fetches nothing and runs no script; every text of a
//! record is escaped, for it may come from somewhere else.
//! **Invariant:** a server has one colour in all charts, and its name beside each bar: nobody has
//! to tell colours apart.

mod chart;
mod figures;
mod glance;
mod html;
mod table;
#[cfg(test)]
mod tests;
mod units;

use crate::record::Record;
use figures::Figures;

/// The table.
pub(crate) fn table(records: &[Record]) -> String {
    table::table(&Figures::of(records))
}

/// The page.
pub(crate) fn html(records: &[Record]) -> String {
    html::page(&Figures::of(records))
}

/// A metric's value with the unit of its name.
pub(crate) fn shown(metric: &str, value: f64) -> String {
    units::shown(metric, value)
}
