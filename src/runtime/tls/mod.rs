//! TLS to clients: a server's side of rustls over a client's socket.
//!
//! `serving` makes from PEM files what handshakes need, `session` runs one connection.
//!
//! **Invariant:** what rustls holds of a connection is bounded, in both directions, whatever the
//! client sends or does not take.
//! **Invariant:** nothing here waits but for the socket, and the connection's deadline ends that.
//!
//! Deliberately absent: early data (it can be replayed), HTTP/2, OCSP and revocation lists, choosing
//! a certificate by the name that was asked for.

mod serving;
mod session;

use tokio_rustls::rustls::Error;

pub use serving::{ClientCertificates, TlsFileError, TlsFiles, TlsServing};
pub(super) use session::Session;

/// Content that may wait encrypted for a client to take it, in bytes: as much as one connection holds
/// of its answer. Four records of the largest size.
pub const TLS_PIECE_BYTES_MAX: usize = 64 * 1024;

/// How a handshake ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshaken {
    /// With certificates and keys.
    Full,
    /// By a ticket of an earlier one.
    Resumed,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The client speaks HTTP without TLS; nothing has been sent.
    #[error("plain HTTP on a port for TLS")]
    PlainHttp,
    /// The client went.
    #[error("the client went before the handshake was done")]
    Gone,
    /// The client took too long.
    #[error("the handshake took too long")]
    TimedOut,
    /// Either side refused; the alert, if it is ours, has been sent.
    #[error("{0}")]
    Refused(Error),
}

impl HandshakeError {
    /// The kind of it, for a metric: a closed set.
    pub fn kind(&self) -> HandshakeFailure {
        let error = match self {
            HandshakeError::PlainHttp => return HandshakeFailure::PlainHttp,
            HandshakeError::Gone => return HandshakeFailure::Gone,
            HandshakeError::TimedOut => return HandshakeFailure::TimedOut,
            HandshakeError::Refused(error) => error,
        };
        match error {
            Error::AlertReceived(_) => HandshakeFailure::RefusedByClient,
            Error::NoApplicationProtocol => HandshakeFailure::NoCommonProtocol,
            Error::PeerIncompatible(_) => HandshakeFailure::NoCommonVersion,
            Error::NoCertificatesPresented => HandshakeFailure::NoCertificate,
            Error::InvalidCertificate(_) => HandshakeFailure::BadCertificate,
            _ => HandshakeFailure::Malformed,
        }
    }
}

/// Why handshakes fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// HTTP without TLS.
    PlainHttp,
    /// The client went.
    Gone,
    /// The client took too long.
    TimedOut,
    /// By an alert, such as for a certificate that it does not trust.
    RefusedByClient,
    /// It speaks HTTP/2 only.
    NoCommonProtocol,
    /// No version, cipher or curve in common.
    NoCommonVersion,
    /// It must show a certificate, and did not.
    NoCertificate,
    /// It showed one that is expired, or that nobody we trust has signed.
    BadCertificate,
    /// Not TLS, or wrong TLS.
    Malformed,
}
