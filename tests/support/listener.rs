//! A threaded TCP listener and the reading of one HTTP/1.1 request: what the lying upstream,
//! the token server and the decoys are made of.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// A listening socket with a thread per connection. Dropped or stopped: the port is closed and
/// every open connection with it.
pub struct Listener {
    addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    accepted: AtomicUsize,
    open: Mutex<Vec<Weak<TcpStream>>>,
}

impl Listener {
    /// Serves each connection to a free port of 127.0.0.1 with `handle`, on its own thread.
    pub fn start(handle: impl Fn(&TcpStream) + Send + Sync + 'static) -> Listener {
        Listener::start_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), handle)
    }

    /// The same on a given address; port 0 is a free one.
    pub fn start_on(
        addr: SocketAddr,
        handle: impl Fn(&TcpStream) + Send + Sync + 'static,
    ) -> Listener {
        let socket = TcpListener::bind(addr)
            .unwrap_or_else(|e| panic!("the tests can not listen on {addr}: {e}"));
        let addr = socket.local_addr().expect("the address of a bound socket");
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let handle = Arc::new(handle);
        let thread = std::thread::spawn(move || {
            for stream in socket.incoming() {
                if for_thread.stop.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                for_thread.accepted.fetch_add(1, Ordering::SeqCst);
                // The handler's is the only owner, so that its drop is the close (with
                // SO_LINGER 0: the reset); `stop` only borrows.
                let stream = Arc::new(stream);
                {
                    let mut open = for_thread.open.lock().unwrap();
                    open.retain(|s| s.strong_count() > 0);
                    open.push(Arc::downgrade(&stream));
                }
                let handle = Arc::clone(&handle);
                std::thread::Builder::new()
                    .stack_size(256 << 10)
                    .spawn(move || handle(&stream))
                    .expect("a thread for a connection");
            }
        });
        Listener { addr, shared, thread: Some(thread) }
    }

    /// A listener that nobody should ever reach: it counts whoever does and hangs up.
    pub fn decoy(ip: [u8; 4]) -> Listener {
        Listener::start_on(SocketAddr::from((IpAddr::from(ip), 0)), |_| {})
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Closes the port and every connection; from now on the kernel refuses new ones.
    pub fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect_timeout(&self.addr, Duration::from_secs(5));
        let _ = thread.join();
        for stream in self.shared.open.lock().unwrap().drain(..).filter_map(|s| s.upgrade()) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One request as it was received.
#[derive(Clone, Debug)]
pub struct Received {
    /// The method as sent.
    pub method: String,
    /// The target up to `?`.
    pub path: String,
    /// The target after `?`.
    pub query: Option<String>,
    /// Header lines in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, by Content-Length.
    pub body: Vec<u8>,
}

impl Received {
    /// The first value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The value of a query key, percent-decoding left to the reader.
    pub fn query_value(&self, key: &str) -> Option<&str> {
        let query = self.query.as_deref()?;
        query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
    }
}

/// Reads one request from a connection; `None` when the peer closed it before the first byte.
pub fn read_request(stream: &TcpStream) -> io::Result<Option<Received>> {
    let Some((head, mut body)) = read_until_blank_line(stream)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut lines = text.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let method = first.next().unwrap_or_default().to_owned();
    let target = first.next().unwrap_or_default();
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (target.to_owned(), None),
    };
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut received = Received { method, path, query, headers, body: Vec::new() };
    let length = received.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0usize);
    let missing = length.saturating_sub(body.len());
    let mut rest = vec![0; missing];
    let mut reader = stream;
    reader.read_exact(&mut rest)?;
    body.extend_from_slice(&rest);
    received.body = body;
    Ok(Some(received))
}

/// The bytes before the blank line and those already read after it.
fn read_until_blank_line(mut stream: &TcpStream) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(at) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            let after = read.split_off(at + 4);
            read.truncate(at);
            return Ok(Some((read, after)));
        }
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return if read.is_empty() {
                Ok(None)
            } else {
                Err(io::Error::from(io::ErrorKind::UnexpectedEof))
            };
        }
        read.extend_from_slice(&buffer[..n]);
        if read.len() > 1 << 20 {
            return Err(io::Error::other("a request head over 1 MiB"));
        }
    }
}
