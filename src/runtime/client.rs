//! A client's connection, plain or TLS: one interface, so that what speaks HTTP over it is written
//! once.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::SendFlags;

use super::deadline::Deadline;
use super::net::TcpStream;
use super::tls::{HandshakeError, Handshaken, Session, TlsServing};

/// A client's connection.
pub struct ClientStream {
    socket: TcpStream,
    /// If the client speaks TLS. Boxed: plain connections are not to pay for its size.
    session: Option<Box<Session>>,
    is_cut_short: bool,
}

impl ClientStream {
    /// A connection without TLS.
    pub fn plain(socket: TcpStream) -> Self {
        Self { socket, session: None, is_cut_short: false }
    }

    /// A connection on which the client is expected to begin with TLS: the next call must be
    /// [`ClientStream::handshake`].
    ///
    /// # Errors
    /// Memory or randomness lacks; the connection is closed.
    pub fn tls(socket: TcpStream, serving: &TlsServing) -> io::Result<Self> {
        let session = Session::new(serving).map_err(io::Error::other)?;
        Ok(Self { socket, session: Some(Box::new(session)), is_cut_short: false })
    }

    /// Whether the client speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.session.is_some()
    }

    /// The certificate that the client has proved to own, in DER.
    pub fn peer_certificate(&self) -> Option<Arc<[u8]>> {
        self.session.as_ref()?.peer_certificate()
    }

    /// Runs the TLS handshake, for at most `limit`; `deadline` must watch this connection. After
    /// [`HandshakeError::PlainHttp`] the connection is a plain one, and an answer can be sent; after
    /// other errors it can only be shut down.
    ///
    /// # Errors
    /// See [`HandshakeError`].
    pub async fn handshake(
        &mut self,
        deadline: &Deadline,
        limit: Duration,
    ) -> Result<Handshaken, HandshakeError> {
        let Some(session) = &mut self.session else { return Err(HandshakeError::PlainHttp) };
        let outcome = session.handshake(&mut self.socket, deadline, limit).await;
        match outcome {
            Err(HandshakeError::PlainHttp) => self.session = None,
            // There is nothing that has been said whole.
            Err(_) => self.is_cut_short = true,
            Ok(_) => {}
        }
        outcome
    }

    /// Reads what there is into the spare capacity behind `buffer`'s content; 0 is the end of the
    /// stream (or no spare capacity). The buffer comes back in any case.
    pub async fn read_more(&mut self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        match &mut self.session {
            None => self.socket.read_more(buffer).await,
            Some(session) => session.read_more(&mut self.socket, buffer).await,
        }
    }

    /// Waits until [`ClientStream::read_more`] may have something, and holds no buffer meanwhile.
    ///
    /// # Errors
    /// The wait itself failed.
    pub async fn readable(&mut self) -> io::Result<()> {
        if let Some(session) = &mut self.session
            && !session.rest()
        {
            return Ok(());
        }
        self.socket.readable().await
    }

    /// As [`ClientStream::read_more`], for bytes that nobody will look at: they may be encrypted.
    pub async fn read_away(&mut self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        self.socket.read_more(buffer).await
    }

    /// Writes all of `buffer`.
    ///
    /// # Errors
    /// The client has gone.
    pub async fn write_all(&mut self, buffer: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let Some(session) = &mut self.session else { return self.socket.write_all(buffer).await };
        let socket = &self.socket;
        let written = async {
            let mut rest = buffer.as_slice();
            while !rest.is_empty() {
                session.flush(socket).await?;
                let taken = session.try_write(socket, rest, false)?;
                rest = rest.get(taken..).unwrap_or_default();
            }
            session.flush(socket).await
        };
        (written.await, buffer)
    }

    /// Sends what is taken of `bytes` without waiting. With `more`, the kernel waits for what follows
    /// before it sends a packet that is not full. What TLS took may still have to be flushed.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is taken now; otherwise the client has gone.
    pub fn try_write(&mut self, bytes: &[u8], more: bool) -> io::Result<usize> {
        if let Some(session) = &mut self.session {
            return session.try_write(&self.socket, bytes, more);
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let flags = if more { flags | SendFlags::MORE } else { flags };
        Ok(rustix::net::send(self.socket.borrow(), bytes, flags)?)
    }

    /// Sends what TLS took and the socket has not taken yet.
    ///
    /// # Errors
    /// `WouldBlock` while some of it waits; otherwise the client has gone.
    pub fn try_flush(&mut self, more: bool) -> io::Result<()> {
        match &mut self.session {
            Some(session) => session.try_flush(&self.socket, more),
            None => Ok(()),
        }
    }

    /// Bytes that the socket has taken, if TLS stands before it: more than the content's, and
    /// later.
    pub fn tls_written(&self) -> Option<u64> {
        self.session.as_ref().map(|session| session.written())
    }

    /// The socket, for the calls that move bytes past user memory: if no TLS stands before it.
    pub fn without_tls(&self) -> Option<BorrowedFd<'_>> {
        self.session.is_none().then(|| self.socket.borrow())
    }

    /// Waits until the socket takes bytes again (or is broken: the next write tells).
    ///
    /// # Errors
    /// The wait itself failed.
    pub async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    /// What was announced will not come: [`ClientStream::shutdown`] then leaves out the word by which
    /// TLS says that everything has been said.
    pub fn cut_short(&mut self) {
        self.is_cut_short = true;
    }

    /// Ends our side with FIN; what was written is still delivered.
    ///
    /// # Errors
    /// The socket is already closed by the other side.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        match &mut self.session {
            None => self.socket.shutdown().await,
            Some(session) => session.shutdown(&mut self.socket, self.is_cut_short).await,
        }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }
}
