//! What the kernel says of sockets: /proc/net, and the sockets of one process.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// One line of /proc/<pid>/net/{tcp,tcp6,udp,udp6}.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Socket {
    /// Our end.
    pub local: SocketAddr,
    /// The other end; all zero for a listener.
    pub remote: SocketAddr,
    /// Bytes sent and not yet acknowledged.
    pub unacknowledged: u64,
    inode: u64,
}

/// Bytes that a TCP connection of this network namespace has sent and that are not acknowledged.
pub fn unacknowledged(local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").ok()?;
    let found = table.lines().filter_map(parse).find(|s| s.local == local && s.remote == remote);
    found.map(|s| s.unacknowledged)
}

/// Every TCP and UDP socket that a process holds and that has another end.
pub fn connected(pid: u32) -> Vec<Socket> {
    let inodes = socket_inodes(pid);
    let mut found = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        let ours = text.lines().filter_map(parse).filter(|s| inodes.contains(&s.inode));
        found.extend(ours.filter(|s| !s.remote.ip().is_unspecified()));
    }
    found
}

fn socket_inodes(pid: u32) -> HashSet<u64> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return HashSet::new();
    };
    entries
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter_map(|link| {
            let link = link.to_str()?;
            link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

fn parse(line: &str) -> Option<Socket> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let local = parse_addr(fields.get(1)?)?;
    let remote = parse_addr(fields.get(2)?)?;
    let (unsent, _) = fields.get(4)?.split_once(':')?;
    let unacknowledged = u64::from_str_radix(unsent, 16).ok()?;
    let inode = fields.get(9)?.parse().ok()?;
    Some(Socket { local, remote, unacknowledged, inode })
}

/// `0100007F:1F90`: the address as 32-bit words in the machine's byte order, the port in hex.
fn parse_addr(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for at in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?;
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => IpAddr::V4(Ipv4Addr::from(v4)),
        Err(_) => {
            let v6 = Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?);
            v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
        }
    };
    Some(SocketAddr::new(ip, port))
}
