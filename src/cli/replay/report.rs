//! What a replay found: counts, and examples of each kind of change.

use std::io::{self, Write};

use serde::Serialize;

use super::record::{Now, Record};

/// Kinds of changes that are told apart; what comes after is counted together.
const KINDS_MAX: usize = 50;
/// Longest text of a log or a plugin that is shown, in characters.
const SHOWN_CHARS_MAX: usize = 300;

/// Counts of lines; all but `undecided` and `damaged` are requests that were asked again.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) lines: u64,
    pub(super) same: u64,
    pub(super) different: u64,
    pub(super) undecided: u64,
    #[serde(rename = "damaged")]
    damaged_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_damage: Option<Damage>,
    changes: Vec<Kind>,
    /// Of more kinds than are listed.
    other_changes: u64,
    #[serde(skip)]
    examples_max: usize,
}

#[derive(Debug, Serialize)]
struct Damage {
    line: u64,
    why: String,
}

/// Changes that are alike: where the requests went, where they go, and by which rule.
#[derive(Debug, Serialize)]
struct Kind {
    before: String,
    now: String,
    resolver: String,
    rule: String,
    count: u64,
    examples: Vec<Example>,
}

#[derive(Debug, Serialize)]
struct Example {
    line: u64,
    request: String,
    before: String,
    now: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// One request that would be answered otherwise.
pub(super) struct Change<'a> {
    pub(super) record: &'a Record,
    pub(super) before: &'a str,
    pub(super) now: &'a Now,
}

impl Report {
    pub(super) fn new(examples_max: usize) -> Report {
        Report {
            lines: 0,
            same: 0,
            different: 0,
            undecided: 0,
            damaged_count: 0,
            first_damage: None,
            changes: Vec::new(),
            other_changes: 0,
            examples_max,
        }
    }

    pub(super) fn is_well(&self) -> bool {
        self.different == 0 && self.same > 0
    }

    /// The line at hand can't be used.
    pub(super) fn damaged(&mut self, why: &str) {
        self.damaged_count += 1;
        let line = self.lines;
        self.first_damage.get_or_insert_with(|| Damage { line, why: shown(why) });
    }

    pub(super) fn change(&mut self, change: Change<'_>) {
        self.different += 1;
        let Change { record, before, now } = change;
        let (was, is) = (outline(before), outline(&now.words));
        let is_alike = |kind: &Kind| {
            (kind.before == was && kind.now == is)
                && (kind.resolver == now.resolver && kind.rule == now.rule)
        };
        let known = self.changes.iter().position(is_alike);
        if known.is_none() && self.changes.len() < KINDS_MAX {
            self.changes.push(Kind {
                before: was,
                now: is,
                resolver: now.resolver.clone(),
                rule: now.rule.clone(),
                count: 0,
                examples: Vec::new(),
            });
        } else if known.is_none() {
            self.other_changes += 1;
            return;
        }
        let at = known.unwrap_or(self.changes.len() - 1);
        let Some(kind) = self.changes.get_mut(at) else { return };
        kind.count += 1;
        if kind.examples.len() < self.examples_max {
            let client = record.client.map(|client| format!(" from {client}")).unwrap_or_default();
            kind.examples.push(Example {
                line: self.lines,
                request: shown(&format!("{} {}{client}", record.method, record.path)),
                before: shown(before),
                now: shown(&now.words),
                reason: now.reason.as_deref().map(shown),
            });
        }
    }

    /// For people.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{:>10} requests asked again", self.same + self.different)?;
        writeln!(out, "{:>10} would be answered as before", self.same)?;
        writeln!(out, "{:>10} would be answered otherwise", self.different)?;
        let mut kinds: Vec<&Kind> = self.changes.iter().collect();
        kinds.sort_by_key(|kind| std::cmp::Reverse(kind.count));
        for kind in kinds {
            let how = match kind.before == kind.now {
                true => format!("{}, under another name", shown(&kind.now)),
                false => format!("{} -> {}", shown(&kind.before), shown(&kind.now)),
            };
            let rule = match kind.rule.is_empty() {
                true => String::new(),
                false => format!(": {}", shown(&kind.rule)),
            };
            writeln!(out, "\n{:>10} {how} ({}{rule})", kind.count, shown(&kind.resolver))?;
            for example in &kind.examples {
                writeln!(out, "           line {}: {}", example.line, example.request)?;
                writeln!(out, "             {} -> {}", example.before, example.now)?;
                if let Some(reason) = &example.reason {
                    writeln!(out, "             {reason}")?;
                }
            }
        }
        if self.other_changes > 0 {
            writeln!(out, "\n{:>10} of more kinds than {KINDS_MAX}", self.other_changes)?;
        }
        Ok(())
    }

    /// What whoever reads the report should know besides.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if let Some(Damage { line, why }) = &self.first_damage {
            let count = self.damaged_count;
            remarks
                .push(format!("{count} damaged lines left out, the first is line {line}: {why}"));
        }
        if self.undecided > 0 {
            remarks.push(format!(
                "{} lines without a decision left out: requests that were not routed, or written \
                 by an older version",
                self.undecided
            ));
        }
        if self.same + self.different == 0 {
            remarks.push("there is nothing to compare: is it an access log?".to_owned());
        }
        remarks
    }
}

/// A decision without the names of repositories: of those there are too many to tell apart.
fn outline(words: &str) -> String {
    let (route, bounds) = match words.split_once("; ") {
        Some((route, bounds)) => (route, Some(bounds)),
        None => (words, None),
    };
    let upstream = |candidate: &str| {
        candidate.split(' ').next().unwrap_or_default().chars().take(SHOWN_CHARS_MAX).collect()
    };
    let mut outline = route.split(", ").take(16).map(upstream).collect::<Vec<String>>().join(", ");
    if let Some(bounds) = bounds {
        outline.push_str("; ");
        outline.extend(bounds.chars().take(SHOWN_CHARS_MAX));
    }
    outline
}

/// A text from a log or a plugin, for a terminal: short, and without control characters.
fn shown(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    plain.take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn record(path: &str) -> Record {
        let line = format!("{{\"method\":\"GET\",\"path\":\"{path}\",\"client\":\"10.0.0.1\"}}");
        Record::parse(line.as_bytes()).unwrap()
    }

    fn now(words: &str) -> Now {
        Now {
            words: words.to_owned(),
            resolver: "policy".to_owned(),
            rule: String::new(),
            reason: Some("for a reason\u{1b}[31m".to_owned()),
        }
    }

    #[test]
    fn changes_that_are_alike_are_counted_together() {
        let mut report = Report::new(2);
        for line in 1..=5 {
            report.lines = line;
            let before = format!("docker.io library/a{line}; tag_ttl 1m");
            let record = record("/v2/a/manifests/b");
            report.change(Change { record: &record, before: &before, now: &now("denied") });
        }
        assert_eq!((report.different, report.changes.len()), (5, 1));
        assert_eq!((report.changes[0].count, report.changes[0].examples.len()), (5, 2));
        let mut text = Vec::new();
        report.write(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("5 docker.io; tag_ttl 1m -> denied (policy)\n"), "{text}");
        assert!(text.contains("line 2: GET /v2/a/manifests/b from 10.0.0.1\n"), "{text}");
        assert!(!text.contains("line 3") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn kinds_are_bounded() {
        let mut report = Report::new(1);
        let record = record("/v2/a/manifests/b");
        for number in 0..200 {
            let before = format!("r{number}.io a");
            report.change(Change { record: &record, before: &before, now: &now("denied") });
        }
        assert_eq!((report.changes.len(), report.other_changes, report.different), (50, 150, 200));
    }

    #[test]
    fn nothing_compared_is_not_well() {
        let mut report = Report::new(1);
        assert!(!report.is_well());
        report.same = 1;
        assert!(report.is_well());
        report.damaged("x");
        assert!(report.is_well() && report.remarks()[0].contains("1 damaged lines left out"));
    }
}
