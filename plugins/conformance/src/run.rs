//! One check under way.

use std::sync::Arc;

use crate::Options;
use crate::answer::Answer;
use crate::frame::{EmptyAt, Frame, Shape};
use crate::handshake::{Subject, shake_hands};
use crate::host::HostVersion;
use crate::life::{Called, Kit, Life, Worker, judge_status};
use crate::probes::{PROBES, Stage};
use crate::report::{Event, Finding, FindingKind, Problem, Report};
use crate::request::{self, Request};
use crate::world::World;
use ringport_plugin_abi as abi;

/// Runs all probes in this process and gives the verdicts. Blocks; with a million calls it takes
/// some seconds.
pub fn check(subject: Subject, world: &World, options: &Options) -> Report {
    let mut report = Report::default();
    for stage in [Stage::Contract, Stage::Figures] {
        let mut is_broken = false;
        run_stage(stage, subject, world, options, &mut |event| {
            is_broken |=
                matches!(&event, Event::Found(f) if matches!(f.kind, FindingKind::Fail(_)));
            report.add(event);
        });
        if is_broken {
            break;
        }
    }
    report
}

/// Runs the probes of one stage and tells what it finds as it goes.
pub fn run_stage(
    stage: Stage,
    subject: Subject,
    world: &World,
    options: &Options,
    tell: &mut dyn FnMut(Event),
) {
    let world = Arc::new(world.clone());
    let requests = request::ordinary(&world);
    let mut run = Run {
        subject,
        world,
        options: options.clone(),
        tell,
        kit: None,
        requests,
        baseline: Vec::new(),
        is_stable: true,
    };
    for probe in PROBES.iter().filter(|probe| probe.stage == stage) {
        (run.tell)(Event::Began(probe.name.to_owned()));
        let outcome = (probe.run)(&mut run);
        let faults = run.kit.as_ref().map(Kit::take_faults).unwrap_or_default();
        let is_over = outcome.is_err() && probe.is_needed;
        faults.into_iter().chain(outcome.err()).for_each(|finding| run.found(finding));
        (run.tell)(Event::Ended(probe.name.to_owned()));
        if is_over {
            break;
        }
    }
}

pub(crate) struct Run<'a> {
    pub(crate) subject: Subject,
    pub(crate) world: Arc<World>,
    pub(crate) options: Options,
    pub(crate) tell: &'a mut dyn FnMut(Event),
    kit: Option<Kit>,
    /// What clients send.
    pub(crate) requests: Vec<Request>,
    /// The first answers to them.
    pub(crate) baseline: Vec<Answer>,
    /// The same requests got the same answers, so that answers can be compared.
    pub(crate) is_stable: bool,
}

impl Run<'_> {
    pub(crate) fn found(&mut self, finding: Finding) {
        (self.tell)(Event::Found(finding));
    }

    pub(crate) fn pass(&mut self, rule: u8, text: impl Into<String>) {
        self.found(Finding { rule, kind: FindingKind::Pass(text.into()) });
    }

    pub(crate) fn not_applicable(&mut self, rule: u8, why: &str) {
        self.found(Finding { rule, kind: FindingKind::NotApplicable(why.to_owned()) });
    }

    /// The plugin's hooks, by a handshake of the same version.
    pub(crate) fn kit(&mut self) -> Result<Kit, Finding> {
        if let Some(kit) = &self.kit {
            return Ok(kit.clone());
        }
        let (handshake, table) =
            shake_hands(self.subject, HostVersion::Same.minor()).map_err(|f| *f)?;
        (self.tell)(Event::Handshake(handshake));
        let kit = Kit::new(table, Arc::clone(&self.world));
        self.kit = Some(kit.clone());
        Ok(kit)
    }

    /// An instance with a worker on a host of our version.
    pub(crate) fn start(&mut self) -> Result<(Life, Worker), Finding> {
        let life = Life::start(&self.kit()?, HostVersion::Same, false)?;
        let worker = life.start_worker(0)?;
        Ok((life, worker))
    }

    /// The ordinary requests, laid out.
    pub(crate) fn frames(&self, life: &Life, shape: Shape, empty: EmptyAt) -> Vec<Frame> {
        let wanted = life.headers_wanted();
        self.requests.iter().map(|r| Frame::new(r, wanted, shape, empty)).collect()
    }

    /// Asks everything and compares with the first answers; gives the first difference.
    pub(crate) fn compare(
        &self,
        worker: &mut Worker,
        frames: &[Frame],
        breaks: u8,
        remedy: &str,
    ) -> Result<(), Finding> {
        for ((frame, request), first) in frames.iter().zip(&self.requests).zip(&self.baseline) {
            let called = worker.resolve(frame);
            if let Some(finding) =
                difference(request, first, &called, breaks, remedy).filter(|_| self.is_stable)
            {
                return Err(finding);
            }
        }
        Ok(())
    }
}

/// How an answer differs from the first one to the same request.
pub(crate) fn difference(
    request: &Request,
    first: &Answer,
    called: &Called,
    breaks: u8,
    remedy: &str,
) -> Option<Finding> {
    let (before, now) = (first.describe(), called.answer.describe());
    let expected = format!("the first answer again ({before}) to {}", request.describe());
    // Two answers may differ in what the line about them leaves out.
    let found = if before == now { format!("{:?}", called.answer) } else { now };
    (called.answer != *first).then(|| Problem::new(expected, found, remedy).breaks(breaks))
}

/// What is wrong with an answer by itself.
pub(crate) fn judge(hook: &str, called: &Called) -> Option<Finding> {
    let answer = &called.answer;
    if let Some(mut finding) = judge_status(hook, answer.status) {
        if let (FindingKind::Fail(problem), false) = (&mut finding.kind, called.error.is_empty()) {
            problem.found.push_str(&format!(": {}", called.error));
        }
        return Some(finding);
    }
    if called.broken.is_some() {
        return called.broken.clone();
    }
    let is_empty = answer.hosted.is_none() && answer.candidates.is_empty();
    let remedy = "emit a route before OK, or return DECLINE";
    (hook == "resolve" && answer.status == abi::OK && is_empty)
        .then(|| Problem::new("a route with OK", "OK without one", remedy).breaks(15))
}
