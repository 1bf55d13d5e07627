//! Hosts of other versions than the plugin's.

use crate::frame::{EmptyAt, Shape};
use crate::handshake;
use crate::host::{HostVersion, LATER_MINOR};
use crate::life::{Kit, Life};
use crate::report::{Finding, FindingKind};
use crate::run::Run;
use ringport_plugin_abi as abi;

const READ_SIZE: &str =
    "accept larger structs: read min(size, your sizeof), ignore unknown flags and values";

/// Our version, but everything that crosses goes on behind what we know.
pub(super) fn larger(run: &mut Run<'_>) -> Result<(), Finding> {
    let kit = run.kit()?;
    play(run, &kit, HostVersion::SameLarger, Shape::Later, 7)?;
    run.pass(7, "larger structs are read as far as they are known");
    Ok(())
}

/// A host of a later minor.
pub(super) fn later(run: &mut Run<'_>) -> Result<(), Finding> {
    let shaken = handshake::shake_hands(run.subject, HostVersion::Later.minor());
    let (_, table) = shaken.map_err(|finding| Finding { rule: 6, ..*finding })?;
    let kit = Kit::new(table, run.world.clone());
    play(run, &kit, HostVersion::Later, Shape::Exact, 6)?;
    run.pass(6, format!("a host of {}.{LATER_MINOR} is served", abi::ABI_MAJOR));
    Ok(())
}

/// A host of 1.0, which refuses a plugin that says more, and serves one that says 1.0.
pub(super) fn older(run: &mut Run<'_>) -> Result<(), Finding> {
    let kit = match handshake::shake_hands(run.subject, HostVersion::Old.minor()) {
        Ok((_, table)) => Kit::new(table, run.world.clone()),
        Err(finding) => {
            let FindingKind::Fail(problem) = &finding.kind else { return Err(*finding) };
            let is_clean = finding.rule == 6 || problem.found == "null";
            if !is_clean {
                return Err(Finding { rule: 6, ..*finding });
            }
            let text = format!(
                "a host of 1.0 refuses it: expected {}, found {}",
                problem.expected, problem.found
            );
            run.pass(6, text);
            return Ok(());
        }
    };
    let life = Life::start(&kit, HostVersion::Old, false)?;
    let mut worker = life.start_worker(0)?;
    for frame in &run.frames(&life, Shape::Old, EmptyAt::Null) {
        worker.resolve(frame);
    }
    drop((worker, life));
    kit.take_faults().into_iter().for_each(|finding| run.found(finding));
    run.pass(6, "a host of 1.0 is served");
    Ok(())
}

fn play(
    run: &mut Run<'_>,
    kit: &Kit,
    version: HostVersion,
    shape: Shape,
    rule: u8,
) -> Result<(), Finding> {
    let as_rule = |finding: Finding| Finding { rule, ..finding };
    let life = Life::start(kit, version, false).map_err(as_rule)?;
    let mut worker = life.start_worker(0).map_err(as_rule)?;
    let frames = run.frames(&life, shape, EmptyAt::Null);
    run.compare(&mut worker, &frames, rule, READ_SIZE)?;
    drop((worker, life));
    kit.take_faults().into_iter().for_each(|finding| run.found(finding));
    Ok(())
}
