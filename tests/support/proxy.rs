//! An HTTP proxy: tunnels by CONNECT, requests in absolute form, names of its own, a record of
//! what it was asked.

use super::http::{Connection, Ending};
use super::listener::{Listener, Received, read_request};
use super::secs;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

/// A proxy on 127.0.0.1.
pub struct Proxy {
    listener: Listener,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    names: Vec<String>,
    login: Option<String>,
    seen: Mutex<Vec<Received>>,
}

impl Proxy {
    /// One to which each of `names` is 127.0.0.1, and that knows no other name.
    pub fn start(names: &[&str]) -> Proxy {
        Proxy::start_with(names, None)
    }

    /// The same, which wants a login (`user:password`).
    pub fn start_with(names: &[&str], login: Option<&str>) -> Proxy {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let login = login.map(|login| format!("Basic {}", STANDARD.encode(login)));
        let state = Arc::new(State { names, login, seen: Mutex::default() });
        let for_handler = Arc::clone(&state);
        let listener = Listener::start(move |stream| {
            let _ = for_handler.serve(stream);
        });
        Proxy { listener, state }
    }

    /// Its URL, as a configuration or the environment has it.
    pub fn url(&self) -> String {
        format!("http://{}", self.listener.addr())
    }

    /// `host:port`.
    pub fn addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    /// Every request to it so far; what went through its tunnels is not seen.
    pub fn seen(&self) -> Vec<Received> {
        self.state.seen.lock().unwrap().clone()
    }

    /// Method and target of each, in their order.
    pub fn asked(&self) -> Vec<String> {
        let target = |r: &Received| match &r.query {
            Some(query) => format!("{} {}?{query}", r.method, r.path),
            None => format!("{} {}", r.method, r.path),
        };
        self.seen().iter().map(target).collect()
    }
}

impl State {
    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        while let Some(request) = read_request(stream)? {
            self.seen.lock().unwrap().push(request.clone());
            let mut out = stream;
            if self
                .login
                .as_deref()
                .is_some_and(|l| request.header("proxy-authorization") != Some(l))
            {
                out.write_all(
                    b"HTTP/1.1 407 Login\r\nProxy-Authenticate: Basic realm=\"p\"\r\n\
                      Content-Length: 0\r\n\r\n",
                )?;
                continue;
            }
            if request.method == "CONNECT" {
                return match self.address_of(&request.path) {
                    Some(addr) => tunnel(stream, addr),
                    None => {
                        out.write_all(b"HTTP/1.1 502 No such host\r\nContent-Length: 0\r\n\r\n")
                    }
                };
            }
            self.pass_on(stream, &request)?;
        }
        Ok(())
    }

    fn address_of(&self, authority: &str) -> Option<SocketAddr> {
        let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
        let is_known = host == "127.0.0.1" || self.names.iter().any(|name| name == host);
        is_known.then(|| Some(SocketAddr::from(([127, 0, 0, 1], port.parse().ok()?))))?
    }

    fn pass_on(&self, mut stream: &TcpStream, request: &Received) -> io::Result<()> {
        let rest = request.path.strip_prefix("http://").unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let Some(addr) = self.address_of(authority) else {
            return stream.write_all(b"HTTP/1.1 502 No such host\r\nContent-Length: 0\r\n\r\n");
        };
        let target =
            request.query.iter().fold(path.to_owned(), |path, query| format!("{path}?{query}"));
        let headers: Vec<(&str, &str)> = request
            .headers
            .iter()
            .filter(|(name, _)| !name.starts_with("proxy-"))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let mut connection = Connection::try_open(addr)?;
        connection.request(&request.method, &target, &headers);
        let answer = connection.read_answer(&request.method)?;
        let mut text = format!("{}\r\n", answer.head.line);
        for (name, value) in &answer.head.headers.0 {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        stream.write_all(text.as_bytes())?;
        stream.write_all(&answer.body)?;
        match answer.ending {
            Ending::Complete => Ok(()),
            cut => Err(io::Error::other(format!("{cut:?}"))),
        }
    }
}

fn tunnel(mut client: &TcpStream, addr: SocketAddr) -> io::Result<()> {
    let origin = TcpStream::connect_timeout(&addr, secs(5))?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from, mut to) = (origin.try_clone()?, client.try_clone()?);
    let back = std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = io::copy(&mut client, &mut &origin);
    let _ = origin.shutdown(Shutdown::Write);
    let _ = back.join();
    Ok(())
}
