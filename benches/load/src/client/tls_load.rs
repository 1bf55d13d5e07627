//! The closed loop over TLS: a connection that asks again as soon as its answer is whole, on a thread
//! of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use rustls::ClientConfig;

use super::clock::Clock;
use super::tls::Secure;
use super::{Ask, Tally};

/// What one connection does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work<'a> {
    /// The server's door for TLS.
    pub(crate) addr: SocketAddr,
    /// What all connections share.
    pub(crate) config: &'a Arc<ClientConfig>,
    /// What, in turn.
    pub(crate) asks: &'a [Ask],
    /// Which connection this is; the first one's first answer is compared whole.
    pub(crate) number: usize,
}

/// Runs until the clock stops, or an answer is wrong. Hangs up `opening` when the connection is
/// open.
///
/// # Errors
/// What could not be set up. What was wrong is in the tally.
pub(crate) fn run(work: Work<'_>, clock: &Clock, opening: Sender<()>) -> Result<Tally, String> {
    let mut tally = Tally::new()?;
    let first = work.number % work.asks.len().max(1);
    let mut compared = match (work.number, work.asks.get(first)) {
        (0, Some(ask)) => ask.body.digest(),
        _ => None,
    };
    let mut connection = Secure::open(work.addr, work.config)?;
    drop(opening);
    let mut cpu_before = None;
    for ask in work.asks.iter().cycle().skip(first) {
        if clock.is_over() {
            break;
        }
        let began = Instant::now();
        let answer = connection.get(ask, compared.take().as_deref(), &mut |bytes| {
            if clock.is_open() {
                cpu_before.get_or_insert_with(crate::machine::own_thread_cpu);
                tally.body_bytes += bytes;
            }
        });
        let fresh = match answer {
            Ok(false) => None,
            // A server may bound the requests of one connection.
            Ok(true) => Some(Secure::open(work.addr, work.config)),
            Err(what) => Some(Err(what)),
        };
        if clock.is_open() && !matches!(fresh, Some(Err(_))) {
            tally.requests += 1;
            tally.reconnects += u64::from(fresh.is_some());
            let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            tally.latency.saturating_record(took);
        }
        match fresh {
            None => {}
            Some(Ok(opened)) => connection = opened,
            Some(Err(what)) => {
                tally.note_wrong(what);
                break;
            }
        }
    }
    let cpu = crate::machine::own_thread_cpu();
    tally.cpu = cpu.saturating_sub(cpu_before.unwrap_or(cpu));
    Ok(tally)
}
