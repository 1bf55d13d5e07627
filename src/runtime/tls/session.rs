//! rustls over a client's socket: what the ring reads is handed to it, what it has encrypted goes
//! out by non-blocking sends.

use std::io::{self, BufRead, IoSlice, Write};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio_rustls::rustls::{self, HandshakeKind, ServerConnection};

use super::{HandshakeError, Handshaken, TLS_PIECE_BYTES_MAX, TlsServing};
use crate::limits::HEAD_BYTES_FIRST;
use crate::runtime::buffers::{give_buffer, take_buffer};
use crate::runtime::clock;
use crate::runtime::deadline::Deadline;
use crate::runtime::net::TcpStream;

/// Ciphertext read at once while little is expected (a handshake, heads), in bytes.
const READ_BYTES_FEW: usize = HEAD_BYTES_FIRST;
/// The same while a body comes in.
const READ_BYTES_MANY: usize = 64 * 1024;
/// A larger wish than this is one for a body.
const WISH_BYTES_FEW: usize = 16 * 1024;

/// A TLS session; each call is given its socket. Holds at most [`READ_BYTES_MANY`] of ciphertext that came in, one
/// record in the clear, and [`TLS_PIECE_BYTES_MAX`] (and its framing) on the way out.
pub(in crate::runtime) struct Session {
    tls: ServerConnection,
    /// Came in; what stands before `taken` has been handed to `tls`.
    cipher: Vec<u8>,
    taken: usize,
    /// Bytes that the socket has accepted.
    written: u64,
}

impl Session {
    /// A session before its handshake.
    ///
    /// # Errors
    /// rustls', when memory or randomness lacks.
    pub(in crate::runtime) fn new(serving: &TlsServing) -> Result<Self, rustls::Error> {
        let mut tls = ServerConnection::new(serving.config())?;
        tls.set_buffer_limit(Some(TLS_PIECE_BYTES_MAX));
        Ok(Self { tls, cipher: Vec::new(), taken: 0, written: 0 })
    }

    /// Bytes that the socket has accepted so far, framing included.
    pub(in crate::runtime) fn written(&self) -> u64 {
        self.written
    }

    /// The certificate that the client has proved to own, in DER.
    pub(in crate::runtime) fn peer_certificate(&self) -> Option<Arc<[u8]>> {
        self.tls.peer_certificates()?.first().map(|leaf| Arc::from(leaf.as_ref()))
    }

    /// Runs the handshake, for at most `limit`. `deadline` must watch this socket.
    ///
    /// # Errors
    /// [`HandshakeError`]; what TLS has to say about it has been sent then.
    pub(in crate::runtime) async fn handshake(
        &mut self,
        socket: &mut TcpStream,
        deadline: &Deadline,
        limit: Duration,
    ) -> Result<Handshaken, HandshakeError> {
        let due = clock::now() + limit;
        // A client that has said nothing yet is idle: a drain need not wait for it.
        deadline.read_by(due, true);
        loop {
            self.flush(socket).await.map_err(|_| gone(deadline))?;
            if !self.tls.is_handshaking() {
                deadline.clear();
                return Ok(match self.tls.handshake_kind() {
                    Some(HandshakeKind::Resumed) => Handshaken::Resumed,
                    _ => Handshaken::Full,
                });
            }
            let is_first = self.cipher.capacity() == 0;
            let read = self.fetch(socket, READ_BYTES_FEW).await.map_err(|_| gone(deadline))?;
            if read == 0 {
                return Err(gone(deadline));
            }
            if is_first {
                if self.cipher.first().is_some_and(u8::is_ascii_uppercase) {
                    return Err(HandshakeError::PlainHttp);
                }
                // From now on expiry ends both sides: a client that takes nothing is over too.
                deadline.write_by(due);
            }
            while self.taken < self.cipher.len() && self.tls.is_handshaking() {
                if let Err(error) = self.hand_over(socket) {
                    return Err(HandshakeError::Refused(error));
                }
            }
        }
    }

    /// As [`TcpStream::read_more`]: the content that came. A client that ends without saying so
    /// (close_notify) has ended: HTTP's framing tells whether it had said everything.
    pub(in crate::runtime) async fn read_more(
        &mut self,
        socket: &mut TcpStream,
        mut buffer: Vec<u8>,
    ) -> (io::Result<usize>, Vec<u8>) {
        let filled = buffer.len();
        let wish = buffer.capacity() - filled;
        if wish == 0 {
            return (Ok(0), buffer);
        }
        loop {
            match self.take_content(&mut buffer) {
                Ok(true) => return (Ok(buffer.len() - filled), buffer),
                Ok(false) => {}
                Err(error) => return (Err(error), buffer),
            }
            let is_used_up = self.taken >= self.cipher.len();
            if is_used_up && buffer.len() > filled {
                return (Ok(buffer.len() - filled), buffer);
            }
            if is_used_up {
                let size = if wish > WISH_BYTES_FEW { READ_BYTES_MANY } else { READ_BYTES_FEW };
                match self.fetch(socket, size).await {
                    Ok(0) => return (Ok(0), buffer),
                    Ok(_) => {}
                    Err(error) => return (Err(error), buffer),
                }
            }
            if let Err(error) = self.hand_over(socket) {
                return (Err(io::Error::new(io::ErrorKind::InvalidData, error)), buffer);
            }
        }
    }

    /// Gives the buffer back, unless there is still something in it or behind it.
    pub(in crate::runtime) fn rest(&mut self) -> bool {
        let is_used_up = self.taken >= self.cipher.len();
        let has_content = match self.tls.reader().fill_buf() {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        if !is_used_up || has_content {
            return false;
        }
        self.taken = 0;
        give_buffer(std::mem::take(&mut self.cipher));
        true
    }

    /// Moves what is decrypted into `buffer`, up to its capacity. True when it is full, or nothing
    /// will ever come.
    fn take_content(&mut self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let mut reader = self.tls.reader();
        loop {
            let room = buffer.capacity() - buffer.len();
            if room == 0 {
                return Ok(true);
            }
            let chunk = match reader.fill_buf() {
                Ok([]) => return Ok(true),
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(true),
                Err(error) => return Err(error),
            };
            let taken = chunk.len().min(room);
            buffer.extend_from_slice(chunk.get(..taken).unwrap_or_default());
            reader.consume(taken);
        }
    }

    /// Reads ciphertext, when all that came before has been handed over; 0 is the end.
    async fn fetch(&mut self, socket: &mut TcpStream, size: usize) -> io::Result<usize> {
        let mut cipher = std::mem::take(&mut self.cipher);
        self.taken = 0;
        cipher.clear();
        if cipher.capacity() != size {
            give_buffer(cipher);
            cipher = if size == READ_BYTES_FEW { take_buffer() } else { Vec::with_capacity(size) };
        }
        let (read, cipher) = socket.read_more(cipher).await;
        self.cipher = cipher;
        read
    }

    /// Hands rustls what it takes of the ciphertext; what it wants to say is sent as far as the
    /// socket takes it.
    fn hand_over(&mut self, socket: &TcpStream) -> Result<(), rustls::Error> {
        let mut rest = self.cipher.get(self.taken..).unwrap_or_default();
        let before = rest.len();
        let taken = self.tls.read_tls(&mut rest);
        self.taken += before - rest.len();
        let processed = match taken {
            Ok(_) => self.tls.process_new_packets().map(drop),
            Err(error) => Err(rustls::Error::General(error.to_string())),
        };
        // Alerts, answers to key updates: what does not go now goes with the next content. That a
        // socket is broken shows when it is read.
        let _ = self.try_flush(socket, false);
        processed
    }

    /// Encrypts as much of `content` as may wait for the socket, and sends what that takes. Bytes
    /// that were taken are sent before anything else; [`Session::try_flush`] sends the rest.
    ///
    /// # Errors
    /// `WouldBlock` while earlier bytes wait; otherwise the client has gone.
    pub(in crate::runtime) fn try_write(
        &mut self,
        socket: &TcpStream,
        content: &[u8],
        more: bool,
    ) -> io::Result<usize> {
        self.try_flush(socket, more)?;
        let taken = self.tls.writer().write(content)?;
        match self.try_flush(socket, more) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    /// Sends what waits.
    ///
    /// # Errors
    /// `WouldBlock` when the socket did not take all; otherwise the client has gone.
    pub(in crate::runtime) fn try_flush(
        &mut self,
        socket: &TcpStream,
        more: bool,
    ) -> io::Result<()> {
        while self.tls.wants_write() {
            let mut out = Out { socket, more, written: &mut self.written };
            match self.tls.write_tls(&mut out) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends what waits, however long that takes.
    pub(in crate::runtime) async fn flush(&mut self, socket: &TcpStream) -> io::Result<()> {
        loop {
            match self.try_flush(socket, false) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    socket.writable().await?;
                }
                flushed => return flushed,
            }
        }
    }

    /// Ends our side: with close_notify if all was said, and with FIN in any case.
    pub(in crate::runtime) async fn shutdown(
        &mut self,
        socket: &mut TcpStream,
        is_cut_short: bool,
    ) -> io::Result<()> {
        if !is_cut_short {
            self.tls.send_close_notify();
        }
        // Best effort: a client that takes nothing any more is not waited for.
        let _ = self.try_flush(socket, false);
        socket.shutdown().await
    }
}

fn gone(deadline: &Deadline) -> HandshakeError {
    if deadline.expired() { HandshakeError::TimedOut } else { HandshakeError::Gone }
}

/// Sends without waiting, all records of a piece in one call.
struct Out<'a> {
    socket: &'a TcpStream,
    more: bool,
    written: &'a mut u64,
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        if self.more {
            flags |= SendFlags::MORE;
        }
        let mut nothing = SendAncillaryBuffer::default();
        let taken = rustix::net::sendmsg(self.socket.borrow(), bytes, &mut nothing, flags)?;
        *self.written += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
