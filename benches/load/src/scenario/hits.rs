//! What the scenarios of hits share: a closed loop over requests that are answered from memory.

use crate::client::Ask;
use crate::drive::{Load, drive};
use crate::house::{Goods, House, Trouble};
use crate::scenario::{Case, Outcome};
use crate::servers::Running;

/// Of the scenarios of small requests.
pub(crate) const CONNECTIONS: u64 = 64;

/// Starts the server, looks whether it is right, and loads it with what `asks` makes.
///
/// # Errors
/// Why there is no measurement.
pub(crate) fn measure(
    house: &mut House,
    server: &str,
    goods: &Goods,
    connections: usize,
    asks: impl FnOnce(&House, &Running) -> Result<Vec<Ask>, Trouble>,
) -> Result<Outcome, Trouble> {
    let running = house.open(server, goods)?;
    let asks = asks(house, &running)?;
    let load = Load::of(&house.settings, &asks, connections);
    Ok(Outcome::of(&drive(&running, &load, &house.interrupted)?))
}

/// The same with blobs: how many, how large and over how many connections is the case's.
///
/// # Errors
/// As `measure`.
pub(crate) fn of_blobs(house: &mut House, case: &Case, server: &str) -> Result<Outcome, Trouble> {
    let blobs = house.content.blobs("hit", case.number("bytes"), case.number("files"))?;
    let asks: Vec<Ask> = blobs.iter().map(Ask::blob).collect();
    let goods = Goods { blobs, ..Goods::default() };
    measure(house, server, &goods, case.count("connections"), |_, _| Ok(asks))
}
