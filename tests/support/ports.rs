//! Free ports for programs that can not be asked which one they took.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the kernel's ephemeral range (from 32768), so that no outgoing connection takes a port
/// between its choice and its use.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// An address on 127.0.0.1 that nobody listens on. Never the same twice in one process;
/// another process starts elsewhere.
pub fn free() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % u32::from(COUNT / 40)) as u16 * 40;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step) % COUNT;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(addr).is_ok() {
            return addr;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}
