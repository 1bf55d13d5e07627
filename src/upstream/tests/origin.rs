//! A scripted HTTP server: blocking threads, raw bytes, and a record of what it was asked.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One request as it came.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Number of the connection, from 0.
    pub(super) connection: usize,
    /// `GET /v2/…`
    pub(super) line: String,
    /// Lower-case header lines.
    pub(super) headers: Vec<String>,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let line = self.headers.iter().find(|line| line.starts_with(&format!("{name}:")))?;
        line.split_once(": ").map(|(_, value)| value)
    }

    pub(super) fn path(&self) -> &str {
        self.line.split(' ').nth(1).expect("a request line")
    }
}

/// What to do about a request.
pub(super) enum Answer {
    /// Send this and wait for the next request.
    Send(Vec<u8>),
    /// Send this and end the connection with FIN.
    SendAndClose(Vec<u8>),
    /// Send the first part, then one byte of the rest at a time.
    Drip(Vec<u8>, Vec<u8>, Duration),
    /// Send this, then nothing more, and keep the connection.
    Silence(Vec<u8>),
    /// Close without a byte.
    Close,
}

/// A running server.
#[derive(Clone)]
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

type Script = dyn Fn(&Seen) -> Answer + Send + Sync;

impl Origin {
    /// A server that answers every request with what `script` says. Its threads end with the test.
    pub(super) fn start(script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_wrapped(script, Some)
    }

    /// As [`start`](Self::start), over what `wrap` makes of a connection (TLS).
    pub(super) fn start_wrapped<S: Read + Write + 'static>(
        script: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
        wrap: impl Fn(TcpStream) -> Option<S> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let origin = Self {
            address: listener.local_addr().expect("its address"),
            seen: Arc::default(),
            connections: Arc::default(),
        };
        let (running, script, wrap) = (origin.clone(), Arc::new(script), Arc::new(wrap));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (origin, script, wrap) = (running.clone(), script.clone(), wrap.clone());
                std::thread::spawn(move || {
                    let number = origin.connections.fetch_add(1, Ordering::SeqCst);
                    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
                    if let Some(mut stream) = wrap(stream) {
                        origin.serve(&mut stream, number, script.as_ref());
                    }
                });
            }
        });
        origin
    }

    fn serve(&self, stream: &mut (impl Read + Write), connection: usize, script: &Script) {
        while let Some(seen) = read_request(stream, connection) {
            self.seen.lock().expect("not poisoned").push(seen.clone());
            let done = match script(&seen) {
                Answer::Send(bytes) => stream.write_all(&bytes).is_err(),
                Answer::SendAndClose(bytes) => {
                    let _ = stream.write_all(&bytes);
                    true
                }
                Answer::Drip(head, body, pause) => {
                    let _ = stream.write_all(&head);
                    body.iter().any(|byte| {
                        std::thread::sleep(pause);
                        stream.write_all(&[*byte]).and_then(|()| stream.flush()).is_err()
                    })
                }
                Answer::Silence(bytes) => {
                    let _ = stream.write_all(&bytes).and_then(|()| stream.flush());
                    let _ = stream.read(&mut [0]);
                    true
                }
                Answer::Close => true,
            };
            if stream.flush().is_err() || done {
                return;
            }
        }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Everything asked so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }

    /// Connections accepted so far.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn read_request(stream: &mut impl Read, connection: usize) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.extend(byte);
    }
    let text = String::from_utf8(head).expect("a request in ASCII");
    let mut lines = text.trim_end().split("\r\n");
    let line = lines.next()?.to_owned();
    let lower = |line: &str| match line.split_once(':') {
        Some((name, value)) => format!("{}:{value}", name.to_ascii_lowercase()),
        None => line.to_owned(),
    };
    Some(Seen { connection, line, headers: lines.map(lower).collect() })
}

/// A whole response.
pub(super) fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut bytes =
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// 200 with this body.
pub(super) fn ok(body: &[u8]) -> Answer {
    Answer::Send(response("200 OK", "", body))
}

/// A response without a body.
pub(super) fn status(status: &str, headers: &str) -> Answer {
    Answer::Send(response(status, headers, b""))
}

/// 307 to `location`.
pub(super) fn redirect(location: &str) -> Answer {
    status("307 Temporary Redirect", &format!("Location: {location}\r\n"))
}
