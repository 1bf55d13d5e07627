//! What the scenarios of hits share: a closed loop over requests that are answered from memory.

use crate::client::Ask;
use crate::drive::{Load, Measured, drive};
use crate::house::{Goods, House, Trouble};
use crate::scenario::Outcome;
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
    house.publish(goods)?;
    let running = house.start(server)?;
    house.prove(&running, goods)?;
    let asks = asks(house, &running)?;
    let load = Load {
        asks: &asks,
        connections,
        once: false,
        seconds: house.settings.seconds,
        beside: None,
        client_cores: &house.settings.client_cores,
        server_cores: &house.settings.server_cores,
    };
    let measured = drive(&running, &load, &house.interrupted)?;
    Ok(outcome(&measured))
}

/// The outcome of a closed loop.
pub(crate) fn outcome(measured: &Measured) -> Outcome {
    Outcome {
        seconds: measured.seconds,
        requests: measured.bulk.requests,
        body_bytes: measured.bulk.body_bytes,
        metrics: measured.metrics(&measured.bulk),
        wrong: measured.wrong(),
    }
}
