//! A plugin file and the world it would live in, for the conformance kit.
//!
//! The file goes through the server's own loader, so that what it refuses is refused here too; all
//! else is the kit's.

use std::path::Path;

use ringport_plugin_abi as abi;
use ringport_plugin_conformance::{Problem, Subject, World, WorldUpstream};

use super::declared::Declared;
use super::error::Fault;
use super::loader;
use crate::config::{Config, PluginConfig};

/// Loads `file`, an absolute path, for a check; `pin` is the sha256 that the configuration wants of
/// it, if any.
///
/// # Errors
/// What the server would say of it, as the broken rule: its number and the sentences.
pub fn open_specimen(file: &Path, pin: Option<&str>) -> Result<Subject, (u8, Problem)> {
    match loader::load(file, pin) {
        Ok(loaded) => Ok(loaded.entry.subject()),
        Err(fault) => {
            let rule = if matches!(fault, Fault::NoEntry) { 3 } else { 5 };
            let text = fault.to_string();
            let (found, remedy) = text.split_once("; ").unwrap_or((&text, "see what it says"));
            Err((rule, Problem::new("a plugin file that the server takes", found, remedy)))
        }
    }
}

/// What a server of this configuration would tell the plugin.
///
/// # Errors
/// A namespace that stands for two upstreams.
pub fn specimen_world(config: &Config, plugin: &PluginConfig) -> Result<World, Fault> {
    let declared = Declared::new(config)?;
    let upstreams = declared.upstreams().iter().map(|upstream| WorldUpstream {
        canonical_name: upstream.canonical_name.to_string(),
        aliases: upstream.aliases.iter().map(ToString::to_string).collect(),
        credentials: upstream.credentials.clone(),
        forwards_ns: upstream.flags & abi::UPSTREAM_FORWARD_NS != 0,
        plain_http: upstream.flags & abi::UPSTREAM_PLAIN_HTTP != 0,
    });
    Ok(World {
        config: plugin.config.to_string(),
        upstreams: upstreams.collect(),
        pools: declared.pools().iter().map(ToString::to_string).collect(),
        remote_tiers: declared.remote_tiers().iter().map(ToString::to_string).collect(),
        budget: plugin.budget,
    })
}
