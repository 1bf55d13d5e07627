//! Findings, and what they amount to: one verdict for each rule of the guide.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::probes::PROBES;
use crate::rules::{RULES, Rule};

/// What a check tells while it runs, in order. It crosses a process boundary as it is, so that a
/// plugin that takes its process down leaves behind what was found until then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The plugin's table could be read.
    Handshake(Handshake),
    /// A probe, by its name in [`PROBES`], begins.
    Began(String),
    /// The running probe goes on: it takes long, and is not stuck.
    Alive,
    /// Something was found.
    Found(Finding),
    /// The running probe has ended, so whatever stops the process now is not its doing.
    Ended(String),
}

/// What a plugin says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handshake {
    /// Its `name`.
    pub name: String,
    /// Its `version`.
    pub version: String,
    /// The major and minor that it was built for.
    pub abi: (u32, u32),
    /// `capabilities`
    pub capabilities: u64,
    /// Size of its table in bytes.
    pub table_bytes: u32,
}

impl fmt::Display for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.abi;
        let place = self.capabilities & ringport_plugin_abi::CAN_PLACE != 0;
        let refresh = self.capabilities & ringport_plugin_abi::CAN_REFRESH != 0;
        let capabilities = match (place, refresh) {
            (false, false) => "none",
            (true, false) => "place",
            (false, true) => "refresh",
            (true, true) => "place, refresh",
        };
        writeln!(f, "plugin: {} {}", self.name, self.version)?;
        writeln!(f, "abi: {major}.{minor}")?;
        writeln!(f, "capabilities: {capabilities}")?;
        writeln!(f, "table: {} bytes", self.table_bytes)
    }
}

/// One thing that a probe found out about one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Number of the rule.
    pub rule: u8,
    /// Which way it speaks.
    pub kind: FindingKind,
}

/// Which way a [`Finding`] speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FindingKind {
    /// The rule was kept; what was done to see it.
    Pass(String),
    /// The rule was broken.
    Fail(Problem),
    /// There was nothing to look at, and why.
    NotApplicable(String),
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What the contract asks for.
    pub expected: String,
    /// What the plugin did.
    pub found: String,
    /// What its author can do about it.
    pub remedy: String,
}

impl Problem {
    /// A problem in three sentences.
    pub fn new(
        expected: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Problem {
        Problem { expected: expected.into(), found: found.into(), remedy: remedy.into() }
    }

    /// As a finding about `rule`.
    pub fn breaks(self, rule: u8) -> Finding {
        Finding { rule, kind: FindingKind::Fail(self) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}; found {}; {}", self.expected, self.found, self.remedy)
    }
}

/// What became of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Kept, as far as the kit can see; what was seen.
    Pass(Vec<String>),
    /// Broken; every different way, in the order found.
    Fail(Vec<Problem>),
    /// No program can tell; where a reader of the plugin's source has to look.
    ByReview(&'static str),
    /// The plugin has nothing that the rule is about.
    NotApplicable(String),
    /// A check ended before this rule's probes, because of a failure elsewhere.
    NotRun,
}

/// The end of a check: a verdict for each rule. `Display` writes a table, a rule a line, and below
/// a broken one what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// `None` if the table could not be read.
    pub handshake: Option<Handshake>,
    findings: Vec<Finding>,
    ended: Vec<String>,
}

impl Report {
    /// Takes in what a check told.
    pub fn add(&mut self, event: Event) {
        match event {
            Event::Handshake(handshake) => self.handshake = Some(handshake),
            // The same thing may be found a thousand times; once tells it all.
            Event::Found(finding) if self.findings.contains(&finding) => {}
            Event::Found(finding) => self.findings.push(finding),
            Event::Ended(probe) => self.ended.push(probe),
            Event::Began(_) | Event::Alive => {}
        }
    }

    /// The verdict of every rule, in the guide's order.
    pub fn verdicts(&self) -> impl Iterator<Item = (&'static Rule, Verdict)> + '_ {
        RULES.iter().map(|rule| (rule, self.verdict(rule)))
    }

    /// No rule is broken, and every probe ran.
    pub fn is_passed(&self) -> bool {
        let is_bad = |verdict: &Verdict| matches!(verdict, Verdict::Fail(_) | Verdict::NotRun);
        !self.verdicts().any(|(_, verdict)| is_bad(&verdict))
    }

    /// Numbers of the rules that are broken.
    pub fn broken_rules(&self) -> Vec<u8> {
        let is_broken = |verdict: &Verdict| matches!(verdict, Verdict::Fail(_));
        self.verdicts().filter(|(_, v)| is_broken(v)).map(|(rule, _)| rule.number).collect()
    }

    fn verdict(&self, rule: &'static Rule) -> Verdict {
        let (mut passes, mut problems, mut absent) = (Vec::new(), Vec::new(), None);
        for finding in self.findings.iter().filter(|finding| finding.rule == rule.number) {
            match &finding.kind {
                FindingKind::Pass(text) => passes.push(text.clone()),
                FindingKind::Fail(problem) => problems.push(problem.clone()),
                FindingKind::NotApplicable(why) => absent = Some(why.clone()),
            }
        }
        let unfinished =
            PROBES.iter().filter(|probe| !self.ended.iter().any(|name| name == probe.name));
        let unfinished = unfinished.filter(|probe| probe.rules.contains(&rule.number));
        match (rule.by_review, absent) {
            _ if !problems.is_empty() => Verdict::Fail(problems),
            _ if rule.number == KIT_RULE => self.verdict_of_kit(),
            _ if unfinished.count() > 0 => Verdict::NotRun,
            _ if !passes.is_empty() => Verdict::Pass(passes),
            (_, Some(why)) => Verdict::NotApplicable(why),
            (Some(sentence), None) => Verdict::ByReview(sentence),
            (None, None) => Verdict::NotRun,
        }
    }

    /// Rule 19 is the kit itself: it passes when all of it has run.
    fn verdict_of_kit(&self) -> Verdict {
        let ran = PROBES.iter().filter(|probe| self.ended.iter().any(|name| name == probe.name));
        match ran.count() {
            count if count == PROBES.len() => Verdict::Pass(vec![format!("{count} probes ran")]),
            _ => Verdict::NotRun,
        }
    }
}

/// "Conformance kit".
const KIT_RULE: u8 = 19;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(handshake) = &self.handshake {
            writeln!(f, "{handshake}")?;
        }
        for (Rule { number, title, .. }, verdict) in self.verdicts() {
            let word = match verdict {
                Verdict::Pass(_) => "pass",
                Verdict::Fail(_) => "FAIL",
                Verdict::ByReview(_) => "by review",
                Verdict::NotApplicable(_) => "not applicable",
                Verdict::NotRun => "not run",
            };
            writeln!(f, "{number:>2}  {word:<14}  {title}")?;
            match verdict {
                Verdict::Pass(texts) => {
                    texts.iter().try_for_each(|text| writeln!(f, "      {text}"))?;
                }
                Verdict::ByReview(text) => writeln!(f, "      {text}")?,
                Verdict::NotApplicable(text) => writeln!(f, "      {text}")?,
                Verdict::NotRun => writeln!(f, "      a failure elsewhere came first")?,
                Verdict::Fail(problems) => {
                    for Problem { expected, found, remedy } in problems {
                        writeln!(f, "      expected: {expected}")?;
                        writeln!(f, "      found:    {found}")?;
                        writeln!(f, "      remedy:   {remedy}")?;
                    }
                }
            }
        }
        Ok(())
    }
}
