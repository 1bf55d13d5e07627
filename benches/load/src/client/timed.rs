//! One blob by one client, with the time until its first byte: the body is discarded.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::Ask;
use super::head::Head;

/// A server that says nothing for so long will not.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// When things came, counted from the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// The first byte of the body.
    pub(crate) first: Duration,
    /// The last.
    pub(crate) whole: Duration,
}

/// Asks over a connection of its own, which is open before the time begins.
///
/// # Errors
/// The network's; what was expected of the answer, and what was found.
pub(crate) fn fetch(addr: SocketAddr, ask: &Ask) -> Result<Times, String> {
    let failed = |e: io::Error| format!("{}: {e}", ask.name);
    let mut socket = TcpStream::connect(addr).map_err(failed)?;
    socket.set_nodelay(true).map_err(failed)?;
    socket.set_read_timeout(Some(SILENCE_MAX)).map_err(failed)?;
    let began = Instant::now();
    socket.write_all(&ask.bytes).map_err(failed)?;
    let mut kept = Vec::new();
    let mut buffer = vec![0; 256 << 10];
    let received = |buffer: &mut [u8], flags| {
        loop {
            match recv(&socket, &mut *buffer, flags) {
                Ok((_, got)) if got > 0 => return Ok(got),
                Ok(_) => return Err(format!("{}: closed early", ask.name)),
                Err(Errno::INTR) => {}
                Err(error) => return Err(format!("{}: {error}", ask.name)),
            }
        }
    };
    let head = loop {
        let got = received(buffer.get_mut(..4096).unwrap_or_default(), RecvFlags::empty())?;
        kept.extend_from_slice(buffer.get(..got).unwrap_or_default());
        if let Some(head) = Head::of(&kept, ask)? {
            break head.bytes;
        }
    };
    let whole = ask.body_bytes();
    let mut body = (kept.len() - head) as u64;
    let mut first = (body > 0).then(|| began.elapsed());
    while body < whole {
        body += received(&mut buffer, RecvFlags::TRUNC)? as u64;
        first.get_or_insert_with(|| began.elapsed());
    }
    if body > whole {
        return Err(format!("{}: more than the {whole} bytes expected", ask.name));
    }
    let whole = began.elapsed();
    Ok(Times { first: first.unwrap_or(whole), whole })
}
