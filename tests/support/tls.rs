//! TLS as a client sees it: authorities and certificates of the test's own, and one connection that
//! tells how its handshake went, which alert it got and how the stream ended.

use super::scratch::Scratch;
use super::secs;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, HandshakeKind, RootCertStore,
    StreamOwned, SupportedProtocolVersion, crypto::ring,
};

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub pem: String,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// What a client certificate is like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Good,
    Expired,
    NotYet,
    /// For servers only.
    ForServers,
}

impl Authority {
    /// A new one of this name.
    pub fn new(name: &str) -> Authority {
        let key = KeyPair::generate().expect("a P-256 key");
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, name);
        let certificate = parameters.self_signed(&key).expect("a CA certificate");
        let pem = certificate.pem();
        Authority { issuer: Issuer::new(parameters, key), pem }
    }

    /// A certificate for a server on 127.0.0.1.
    pub fn server(&self) -> Pair {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let parameters = CertificateParams::new(names).expect("the names of a server");
        let key = KeyPair::generate().expect("a P-256 key");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A certificate for the client `name`.
    pub fn client(&self, name: &str, kind: Kind) -> Pair {
        let key = KeyPair::generate().expect("a P-256 key");
        let certificate = client_parameters(name, kind).signed_by(&key, &self.issuer);
        let certificate = certificate.expect("a certificate");
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

fn client_parameters(name: &str, kind: Kind) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.extended_key_usages = vec![match kind {
        Kind::ForServers => ExtendedKeyUsagePurpose::ServerAuth,
        _ => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    let year = |year| rcgen::date_time_ymd(year, 1, 1);
    (parameters.not_before, parameters.not_after) = match kind {
        Kind::Expired => (year(2001), year(2002)),
        Kind::NotYet => (year(2900), year(2901)),
        Kind::Good | Kind::ForServers => (year(2001), year(2900)),
    };
    parameters
}

/// A client certificate that nobody has signed but itself.
pub fn self_signed(name: &str) -> Pair {
    let key = KeyPair::generate().expect("a P-256 key");
    let certificate = client_parameters(name, Kind::Good).self_signed(&key);
    Pair { certificate: certificate.expect("a certificate").pem(), key: key.serialize_pem() }
}

impl Pair {
    /// Writes (over) both files, the key closed to others.
    pub fn write(&self, scratch: &Scratch, label: &str) -> (PathBuf, PathBuf) {
        let certificate = scratch.file(&format!("{label}.pem"), &self.certificate);
        (certificate, scratch.secret(&format!("{label}.key"), &self.key))
    }

    /// The certificate in DER.
    pub fn der(&self) -> Vec<u8> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("PEM").to_vec()
    }
}

/// What a client offers; kept over connections, and with it its tickets.
#[derive(Clone)]
pub struct Client(Arc<ClientConfig>);

impl Client {
    /// Trusts `authority`, offers `protocols` in these versions, and shows `pair` if asked.
    pub fn with(
        authority: &Authority,
        protocols: &[&str],
        versions: &[&'static SupportedProtocolVersion],
        pair: Option<&Pair>,
    ) -> Client {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("PEM");
        roots.add(root).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match pair {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = CertificateDer::from_pem_slice(pair.certificate.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
                builder.with_client_auth_cert(vec![chain.expect("PEM")], key).expect("a pair")
            }
        };
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        Client(Arc::new(config))
    }

    /// As most clients are.
    pub fn new(authority: &Authority) -> Client {
        let versions = tokio_rustls::rustls::ALL_VERSIONS;
        Client::with(authority, &["h2", "http/1.1"], versions, None)
    }

    /// A connection after its handshake.
    pub fn connect(&self, addr: SocketAddr) -> Result<Connection, Refused> {
        let tcp = TcpStream::connect(addr).expect("connected");
        tcp.set_read_timeout(Some(secs(20))).expect("a time limit");
        tcp.set_write_timeout(Some(secs(20))).expect("a time limit");
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let tls = ClientConnection::new(self.0.clone(), name).expect("a client");
        let mut stream = StreamOwned::new(tls, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(|error| Refused::of(&error))?;
        }
        Ok(Connection { stream, buffer: Vec::new() })
    }

    /// A connection that has asked for something: in TLS 1.3 a client learns that its certificate is
    /// refused when it reads.
    pub fn ask(&self, addr: SocketAddr, target: &str) -> Result<Reply, Refused> {
        let mut connection = self.connect(addr)?;
        connection.get(target).map_err(|error| Refused::of(&error))
    }
}

/// How a handshake failed.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    Alert(AlertDescription),
    /// Anything else, in words.
    Other(String),
}

impl Refused {
    fn of(error: &io::Error) -> Refused {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(Error::AlertReceived(alert)) => Refused::Alert(*alert),
            _ => Refused::Other(error.to_string()),
        }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// Whether all of it came; else how the stream ended.
    pub ending: Ended,
}

/// How an answer, or a stream, ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// As many bytes as were announced.
    Whole,
    /// Fewer, and the server said that it had no more (close_notify).
    Closed,
    /// Fewer, and the connection ended by FIN without that.
    Cut,
    /// By RST or worse.
    Broken(String),
}

/// A connection after its handshake.
pub struct Connection {
    pub stream: StreamOwned<ClientConnection, TcpStream>,
    buffer: Vec<u8>,
}

impl Connection {
    /// Whether the handshake was a whole one.
    pub fn is_resumed(&self) -> bool {
        self.stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The certificate that the server showed, in DER.
    pub fn certificate(&self) -> Vec<u8> {
        self.stream.conn.peer_certificates().expect("a certificate")[0].to_vec()
    }

    /// Sends a request without a body.
    pub fn send(&mut self, target: &str, headers: &str) -> io::Result<()> {
        let text = format!("GET {target} HTTP/1.1\r\nHost: mirror\r\n{headers}\r\n");
        self.stream.write_all(text.as_bytes())?;
        self.stream.flush()
    }

    /// A request and its answer.
    pub fn get(&mut self, target: &str) -> io::Result<Reply> {
        self.send(target, "")?;
        self.reply()
    }

    /// Reads an answer with a Content-Length.
    pub fn reply(&mut self) -> io::Result<Reply> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if self.read_more()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).expect("a head");
        let status = head[9..12].parse().expect("a status");
        let lower = head.to_ascii_lowercase();
        let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let length: usize = length.expect("a length").parse().expect("a number");
        let mut ending = Ended::Whole;
        while self.buffer.len() < length {
            match self.read_more() {
                Ok(0) => ending = Ended::Closed,
                Ok(_) => continue,
                Err(error) => ending = ended(&error),
            }
            break;
        }
        let taken = length.min(self.buffer.len());
        Ok(Reply { status, head, body: self.buffer.drain(..taken).collect(), ending })
    }

    /// How the stream ends, when nothing more is asked.
    pub fn ending(&mut self) -> Ended {
        loop {
            match self.read_more() {
                Ok(0) => return Ended::Closed,
                Ok(_) => {}
                Err(error) => return ended(&error),
            }
        }
    }

    fn read_more(&mut self) -> io::Result<usize> {
        let mut piece = vec![0; 64 << 10];
        let read = self.stream.read(&mut piece)?;
        self.buffer.extend_from_slice(&piece[..read]);
        Ok(read)
    }
}

fn ended(error: &io::Error) -> Ended {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Ended::Cut,
        _ => Ended::Broken(error.to_string()),
    }
}
