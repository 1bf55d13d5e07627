//! Sockets: listener, client-facing stream (ring reads and writes), upstream-facing poll stream.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use monoio::io::poll_io::{AsyncRead, AsyncWrite, ReadBuf};
use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt, IntoPollIo};
use monoio::net::ListenerOpts;
use rustix::io::Errno;
use rustix::net::SocketFlags;

/// One worker's own listening socket. All workers bind the same address with SO_REUSEPORT, and the
/// kernel spreads connections over them.
pub struct TcpListener(monoio::net::TcpListener);

impl TcpListener {
    /// Binds and listens.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let options = ListenerOpts::new().reuse_port(true).reuse_addr(true).backlog(4096);
        monoio::net::TcpListener::bind_with_config(address, &options).map(Self)
    }

    /// The bound address (with the port the kernel chose for port 0).
    ///
    /// # Errors
    /// The socket is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// EMFILE and its like come back at once and again: the caller backs off.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((TcpStream::prepare(stream)?, peer))
    }

    /// Gives `take` up to `most` connections that are waiting already: each would else cost a round
    /// through the ring. Only while no [`TcpListener::accept`] is under way.
    ///
    /// # Errors
    /// As accept(2), except that nobody waits.
    pub fn accept_others(
        &self,
        most: usize,
        mut take: impl FnMut(TcpStream, SocketAddr),
    ) -> io::Result<()> {
        let flags = rustix::fs::fcntl_getfl(self.borrow())?;
        rustix::fs::fcntl_setfl(self.borrow(), flags | rustix::fs::OFlags::NONBLOCK)?;
        let mut taken = Ok(());
        for _ in 0..most {
            match self.take_waiting() {
                Ok(Some((stream, peer))) => take(stream, peer),
                Ok(None) => break,
                Err(error) => {
                    taken = Err(error);
                    break;
                }
            }
        }
        // Else the ring's accept would not wait.
        rustix::fs::fcntl_setfl(self.borrow(), flags)?;
        taken
    }

    /// Takes a connection that is already waiting, if there is one. For the last connections
    /// before [`TcpListener::stop`]: afterwards, accept on the ring no longer waits.
    ///
    /// # Errors
    /// As accept(2), except that nobody waits.
    pub fn accept_waiting(&self) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        set_nonblocking(self.borrow())?;
        self.take_waiting()
    }

    /// The same of a listener that does not wait.
    fn take_waiting(&self) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        loop {
            let (socket, peer) =
                match rustix::net::acceptfrom_with(self.borrow(), SocketFlags::CLOEXEC) {
                    Ok(accepted) => accepted,
                    Err(Errno::AGAIN) => return Ok(None),
                    Err(Errno::INTR | Errno::CONNABORTED) => continue,
                    Err(errno) => return Err(errno.into()),
                };
            // One whose client has gone already must not hide those behind it. Its address is
            // asked of accept: the socket of such a one has none any more.
            let made = monoio::net::TcpStream::from_std(std::net::TcpStream::from(socket))
                .and_then(TcpStream::prepare);
            if let (Ok(stream), Some(Ok(peer))) = (made, peer.map(SocketAddr::try_from)) {
                return Ok(Some((stream, peer)));
            }
        }
    }

    /// Ends listening: a pending [`TcpListener::accept`] fails, new connections are refused.
    pub fn stop(&self) {
        // A listener that is gone already needs no ending.
        let _ = rustix::net::shutdown(self.borrow(), rustix::net::Shutdown::Both);
    }

    fn borrow(&self) -> BorrowedFd<'_> {
        // SAFETY: as in `TcpStream::borrow`.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?)
}

/// Whether `address` can be listened on and nobody does; returns it with the port that 0 became.
///
/// # Errors
/// As bind(2).
pub fn probe_address(address: SocketAddr) -> io::Result<SocketAddr> {
    use rustix::net::{AddressFamily, SocketType, sockopt};
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    let bound = rustix::net::getsockname(&socket)?;
    Ok(SocketAddr::try_from(bound).unwrap_or(address))
}

/// A client's connection.
pub struct TcpStream(monoio::net::TcpStream);

/// A client's connection between two workers.
pub struct DetachedStream(std::net::TcpStream);

impl DetachedStream {
    /// The connection, on the current worker.
    ///
    /// # Errors
    /// The driver does not take it.
    pub fn attach(self) -> io::Result<TcpStream> {
        monoio::net::TcpStream::from_std(self.0).map(TcpStream)
    }
}

impl TcpStream {
    fn prepare(stream: monoio::net::TcpStream) -> io::Result<Self> {
        // Without it small answers wait for an acknowledgement; it can fail only on dead sockets.
        let _ = stream.set_nodelay(true);
        let stream = Self(stream);
        // The ring's accept leaves it out. A child that inherits a client's socket keeps it open; one
        // that is born between that and this does so until it ends.
        rustix::io::fcntl_setfd(stream.borrow(), rustix::io::FdFlags::CLOEXEC)?;
        // sendfile on a blocking socket would block the worker. Ring send and recv wait by
        // themselves whatever this flag says.
        set_nonblocking(stream.borrow())?;
        Ok(stream)
    }

    /// Takes the connection from this worker, to be given to another. Nothing may have been read.
    ///
    /// # Errors
    /// No descriptor is left: the connection is closed.
    pub fn detach(self) -> io::Result<DetachedStream> {
        // A second descriptor, since monoio closes the first with its own record of it.
        Ok(DetachedStream(self.borrow().try_clone_to_owned()?.into()))
    }

    /// Reads what there is into the spare capacity behind `buffer`'s content; 0 is the end of the
    /// stream (or no spare capacity). The buffer comes back in any case.
    pub async fn read_more(&mut self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let filled = buffer.len();
        if filled == buffer.capacity() {
            return (Ok(0), buffer);
        }
        let end = buffer.capacity();
        let slice = monoio::buf::IoBufMut::slice_mut(buffer, filled..end);
        let (result, slice) = self.0.read(slice).await;
        (result, slice.into_inner())
    }

    /// Writes all of `buffer`.
    ///
    /// # Errors
    /// The client has gone.
    pub async fn write_all(&mut self, buffer: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let (result, buffer) = self.0.write_all(buffer).await;
        (result.map(|_| ()), buffer)
    }

    /// Waits until there is something to read, or the end. Costs an operation of its own: for those
    /// who would otherwise hold a buffer for long.
    ///
    /// # Errors
    /// The wait itself failed.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable(false).await
    }

    /// Waits until the socket takes bytes again (or is broken: the next write tells).
    ///
    /// # Errors
    /// The wait itself failed.
    pub async fn writable(&self) -> io::Result<()> {
        self.0.writable(false).await
    }

    /// Ends our side with FIN; what was written is still delivered.
    ///
    /// # Errors
    /// The socket is already closed by the other side.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }

    /// The descriptor, for the calls that move bytes past user memory.
    pub fn borrow(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is owned by `self.0`, open until it is dropped, and the borrow
        // cannot outlive `self`. monoio's stream does not implement `AsFd`.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

/// Connects to an address that was resolved and checked before; never resolves names.
///
/// # Errors
/// As connect(2).
pub async fn connect(address: SocketAddr) -> io::Result<PollStream> {
    let stream = monoio::net::TcpStream::connect_addr(address).await?;
    let _ = stream.set_nodelay(true);
    Ok(PollStream { stream: stream.into_poll_io()? })
}

/// A poll-style stream (tokio's traits), for libraries that bring their own state machine: TLS and
/// the upstream HTTP client.
pub struct PollStream {
    stream: monoio::net::tcp::stream_poll::TcpStreamPoll,
}

impl PollStream {
    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// The other side has gone.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = poll_fn(|cx| Pin::new(&mut *self).poll_write(cx, bytes)).await?;
            bytes = match bytes.get(written..) {
                Some(rest) if written > 0 => rest,
                _ => return Err(io::ErrorKind::WriteZero.into()),
            };
        }
        poll_fn(|cx| Pin::new(&mut *self).poll_flush(cx)).await
    }

    /// Reads what there is into the front of `buffer`; 0 is the end of the stream.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        poll_fn(|cx| Pin::new(&mut *self).poll_read(cx, &mut buffer)).await?;
        Ok(buffer.filled().len())
    }
}

impl AsyncRead for PollStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PollStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
