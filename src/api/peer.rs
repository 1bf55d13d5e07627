//! Who is at the other end of a connection, as far as the connection itself tells.

use std::net::IpAddr;
use std::sync::Arc;

/// The client of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// The certificate by which it has proved who it is, verified, in DER (RFC 5280).
    pub certificate: Option<Arc<[u8]>>,
}
