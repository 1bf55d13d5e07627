//! What a run looks like to people: a table for the terminal, and a page. Read from records alone.

use crate::record::Record;

/// The table.
pub(crate) fn table(records: &[Record]) -> String {
    let mut text = String::new();
    for record in records {
        if let Record::Sample(s) = record {
            text.push_str(&format!(
                "{} | {} | {} | {:?}\n",
                s.scenario, s.case, s.server, s.metrics
            ));
        }
    }
    text
}

/// The page.
pub(crate) fn html(records: &[Record]) -> String {
    format!("<pre>{}</pre>", table(records).replace('<', "&lt;"))
}
