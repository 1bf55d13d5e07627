//! What the scenarios share in which a mirror has nothing yet.

use crate::client::Ask;
use crate::drive::{Load, Measured, drive};
use crate::house::{House, NGINX_CACHE, REGISTRY_PROXY, RINGPORT, Trouble};
use crate::scenario::Servers;
use crate::servers::Running;

/// How long a pass over everything may take.
const PASS_SECONDS_MAX: f64 = 120.0;

/// The mirrors. What somebody else starts cannot be made to forget.
pub(crate) fn servers(quick: bool) -> Servers {
    let all = [RINGPORT, NGINX_CACHE, REGISTRY_PROXY];
    Servers::only(if quick { all.split_at(2).0 } else { &all })
}

/// Asks each request once. Half a pass is no figure: it would make the slow look quick.
///
/// # Errors
/// Why there is no measurement.
pub(crate) fn pass(
    house: &House,
    running: &Running,
    asks: &[Ask],
    connections: usize,
) -> Result<Measured, Trouble> {
    let load = Load::of(&house.settings, asks, connections);
    let load = Load { once: true, seconds: PASS_SECONDS_MAX, ..load };
    Ok(drive(running, &load, &house.interrupted)?.whole(asks.len())?)
}
