//! `ringport plugin check`: does this plugin keep the rules?
//!
//! The checks are those of the conformance kit. They run in a process of their own (`child`), which
//! this one starts and watches (`contain`): a plugin that crashes, hangs, or ends the process takes
//! its child with it, and the verdict says so.

mod child;
mod contain;

use std::io::{self, Write};
use std::path::Path;

use ringport_plugin_conformance::{Report, Stage, World};

use super::Exit;
use super::args::{PluginCheckArgs, StageArg};
use crate::config::{Config, PluginConfig};
use crate::plugin::specimen_world;

/// Checks a plugin. Well: every rule is kept. Failed: one is broken; the report says which. Misuse:
/// there is no such file, or the configuration is not one for it.
pub fn run(
    args: &PluginCheckArgs,
    out: &mut impl Write,
    remarks: &mut impl Write,
) -> io::Result<Exit> {
    let mut args = args.clone();
    args.file = std::path::absolute(&args.file)?;
    let (world, pin) = match world(&args) {
        Ok(told) => told,
        Err(problem) => {
            writeln!(remarks, "ringport: {problem}")?;
            return Ok(Exit::Misuse);
        }
    };
    match args.stage {
        Some(stage) => child::run(stage.into(), &args, (&world, pin.as_deref())),
        None => {
            let report = check(&args)?;
            write!(out, "file: {}\n{report}", args.file.display())?;
            Ok(if report.is_passed() { Exit::Well } else { Exit::Failed })
        }
    }
}

impl From<StageArg> for Stage {
    fn from(stage: StageArg) -> Stage {
        match stage {
            StageArg::Contract => Stage::Contract,
            StageArg::Figures => Stage::Figures,
        }
    }
}

fn check(args: &PluginCheckArgs) -> io::Result<Report> {
    let mut report = Report::default();
    for stage in [StageArg::Contract, StageArg::Figures] {
        contain::run_child(stage, args, &mut report)?;
        // What a broken plugin's calls take tells nothing.
        if !report.broken_rules().is_empty() {
            break;
        }
    }
    Ok(report)
}

/// What the plugin is told of: the configuration's world, or the kit's own; and the sha256 that the
/// configuration wants of this file.
fn world(args: &PluginCheckArgs) -> Result<(World, Option<String>), String> {
    let file = &args.file;
    match std::fs::metadata(file) {
        Err(error) => return Err(format!("{}: {error}; name the plugin's .so", file.display())),
        Ok(metadata) if !metadata.is_file() => {
            return Err(format!("{} is not a file; name the plugin's .so", file.display()));
        }
        Ok(_) => {}
    }
    let Some(path) = &args.config else { return Ok((World::default(), None)) };
    let config = Config::load(path).map_err(|error| error.to_string())?;
    let plugin = entry(&config, file).ok_or_else(|| {
        format!(
            "{}: none of its [[plugin]] entries has the `path` {} or a file of that name; give it \
             one",
            path.display(),
            file.display()
        )
    })?;
    // That of an entry for another path may be of another version.
    let pin = plugin.sha256.clone().filter(|_| plugin.path == *file);
    let world = specimen_world(&config, plugin);
    world.map(|world| (world, pin)).map_err(|fault| format!("{}: {fault}", path.display()))
}

/// The entry that means `file`: the only one there is, else the one with its path, else the one
/// with its name. A plugin is checked before it lies where the configuration wants it.
fn entry<'a>(config: &'a Config, file: &Path) -> Option<&'a PluginConfig> {
    if let [only] = config.plugins.as_slice() {
        return Some(only);
    }
    let by_path = config.plugins.iter().find(|plugin| plugin.path == file);
    by_path.or_else(|| config.plugins.iter().find(|p| p.path.file_name() == file.file_name()))
}
