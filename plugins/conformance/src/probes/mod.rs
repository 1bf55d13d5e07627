//! What is done to a plugin to see whether it keeps the rules.
//!
//! `file` looks at the shared object, `contract` at handshake, lives and answers, `hosts` plays
//! other versions, `hooks` asks place and refresh, `figures` measures. Each probe names the rules
//! it looks at, and which of them a plugin has broken that crashes or hangs in it.

mod contract;
mod figures;
mod file;
mod hooks;
mod hosts;

use crate::report::Finding;
use crate::run::Run;

/// Which process of a check a probe belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Everything that is right or wrong. Runs where freed memory is overwritten.
    Contract,
    /// Times and sizes. Runs where malloc is left alone, and only if the contract was kept.
    Figures,
}

/// One thing that is done to a plugin.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// A few words that name it.
    pub name: &'static str,
    /// Where it runs.
    pub stage: Stage,
    /// The rules it looks at.
    pub rules: &'static [u8],
    /// The rule that a plugin broke which crashes in it.
    pub crash: u8,
    /// The rule that a plugin broke which does not return from it.
    pub stuck: u8,
    /// Without it nothing else can be done.
    pub(crate) is_needed: bool,
    pub(crate) run: fn(&mut Run<'_>) -> Result<(), Finding>,
}

/// All of them, in order.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "load the file",
        stage: Stage::Contract,
        rules: &[3],
        crash: 5,
        stuck: 5,
        is_needed: true,
        run: file::symbols,
    },
    Probe {
        name: "shake hands",
        stage: Stage::Contract,
        rules: &[5, 6],
        crash: 5,
        stuck: 5,
        is_needed: true,
        run: contract::shake_hands,
    },
    Probe {
        name: "stop and destroy nothing",
        stage: Stage::Contract,
        rules: &[10],
        crash: 10,
        stuck: 11,
        is_needed: false,
        run: contract::end_nothing,
    },
    Probe {
        name: "configure, start, stop, destroy",
        stage: Stage::Contract,
        rules: &[5, 11],
        crash: 10,
        stuck: 11,
        is_needed: true,
        run: contract::live,
    },
    resolving("ask what clients ask", &[14, 15], 10, contract::ask),
    resolving("ask the same again", &[12], 10, contract::ask_again),
    resolving("ask with hostile strings", &[8, 16], 8, contract::ask_hostile),
    resolving("overwrite what was borrowed", &[10], 10, contract::spoil),
    resolving("play a host with larger structs", &[7], 7, hosts::larger),
    resolving("play a newer host", &[6], 6, hosts::later),
    resolving("play an older host", &[6], 6, hosts::older),
    resolving("configure twice", &[11], 11, contract::configure_twice),
    resolving("ask from four threads", &[12], 12, contract::ask_in_parallel),
    resolving("place content", &[13, 14], 10, hooks::place),
    Probe {
        name: "refresh",
        stage: Stage::Contract,
        rules: &[13],
        crash: 10,
        stuck: 13,
        is_needed: false,
        run: hooks::refresh,
    },
    Probe {
        name: "measure time",
        stage: Stage::Figures,
        rules: &[13],
        crash: 10,
        stuck: 13,
        // What waits in each call would wait a million times.
        is_needed: true,
        run: figures::time,
    },
    measuring("live many lives", &[10], figures::lives),
    measuring("ask a million times", &[10], figures::calls),
];

const fn resolving(
    name: &'static str,
    rules: &'static [u8],
    crash: u8,
    run: fn(&mut Run<'_>) -> Result<(), Finding>,
) -> Probe {
    Probe { name, stage: Stage::Contract, rules, crash, stuck: 13, is_needed: false, run }
}

const fn measuring(
    name: &'static str,
    rules: &'static [u8],
    run: fn(&mut Run<'_>) -> Result<(), Finding>,
) -> Probe {
    Probe { name, stage: Stage::Figures, rules, crash: 10, stuck: 13, is_needed: false, run }
}
