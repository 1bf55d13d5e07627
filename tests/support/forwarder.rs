//! A port that passes everything on to a server until so many bytes went there, and then nothing
//! more: what a client is in the middle of stays in the middle.

use super::listener::Listener;
use super::wait_until;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One before a server. Dropped: its connections are closed on both sides.
pub struct Forwarder {
    listener: Listener,
    passed: Arc<AtomicU64>,
    limit: u64,
}

impl Forwarder {
    /// Passes `limit` bytes of requests on to `server`, of all connections together.
    pub fn start(server: SocketAddr, limit: u64) -> Forwarder {
        let passed = Arc::new(AtomicU64::new(0));
        let for_handler = Arc::clone(&passed);
        let listener = Listener::start(move |client| {
            let Ok(there) = TcpStream::connect(server) else { return };
            let (Ok(mut from), Ok(mut to)) = (there.try_clone(), client.try_clone()) else {
                return;
            };
            let back = std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
            pass_on(client, &there, &for_handler, limit);
            let _ = there.shutdown(Shutdown::Both);
            let _ = back.join();
        });
        Forwarder { listener, passed, limit }
    }

    /// Where clients go.
    pub fn addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    /// Waits until it passes nothing on any more.
    #[track_caller]
    pub fn await_limit(&self, bound: Duration) {
        let full = || self.passed.load(Ordering::SeqCst) >= self.limit;
        wait_until("a client to be in the middle of its push", bound, full);
    }
}

fn pass_on(mut client: &TcpStream, mut there: &TcpStream, passed: &AtomicU64, limit: u64) {
    let mut buffer = [0; 16 << 10];
    while let Ok(n @ 1..) = client.read(&mut buffer) {
        let before = passed.fetch_add(n as u64, Ordering::SeqCst);
        let take = limit.saturating_sub(before).min(n as u64) as usize;
        if there.write_all(&buffer[..take]).is_err() {
            return;
        }
        if take < n {
            // The rest is thrown away until the client goes: it believes to be heard.
            while let Ok(1..) = client.read(&mut buffer) {}
            return;
        }
    }
}
