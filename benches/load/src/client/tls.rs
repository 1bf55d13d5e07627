//! TLS 1.3 with TLS_AES_128_GCM_SHA256 and nothing else, so that all servers do the same work.
//!
//! rustls makes the handshake; after it the records are ours. Most of them are only counted by the
//! lengths in their headers: to decrypt everything would cost the client as much as the server, and
//! the rate would be the client's. What is decrypted: the head of each answer, and the whole of the
//! first one, which is compared by its digest.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::cipher::{Iv, Nonce as Numbered};
use rustls::crypto::ring::{self as provider, cipher_suite::TLS13_AES_128_GCM_SHA256};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, DigitallySignedStruct, Error,
    SignatureScheme,
};
use sha2::{Digest, Sha256};

use super::Ask;
use super::head::Head;
use crate::content::named;

const SILENCE_MAX: Duration = Duration::from_secs(60);
/// What is read at a time.
const BUFFER_BYTES: usize = 512 << 10;
const HEADER_BYTES: usize = 5;
/// The tag, and the byte that tells a record's type.
const RECORD_OVERHEAD: usize = 17;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// What all connections share.
///
/// # Errors
/// rustls's.
pub(crate) fn config() -> Result<Arc<ClientConfig>, String> {
    let mut own = provider::default_provider();
    own.cipher_suites = vec![TLS13_AES_128_GCM_SHA256];
    let own = Arc::new(own);
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&own))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| format!("TLS: {e}"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// The suite has made the certificate itself a moment ago.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// One direction of a connection.
struct Half {
    key: LessSafeKey,
    iv: Iv,
    number: u64,
}

impl Half {
    fn of((number, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Half, String> {
        let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else {
            return Err("TLS: the server chose another cipher".to_owned());
        };
        let key = UnboundKey::new(&AES_128_GCM, key.as_ref()).map_err(|e| format!("TLS: {e}"))?;
        Ok(Half { key: LessSafeKey::new(key), iv, number })
    }

    fn next(&mut self) -> Nonce {
        let nonce = Numbered::new(&self.iv, self.number).0;
        self.number += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// A connection after its handshake.
pub(crate) struct Secure {
    socket: TcpStream,
    ours: Half,
    theirs: Half,
    buffer: Vec<u8>,
    /// What of the buffer has come and was not taken yet.
    start: usize,
    end: usize,
}

impl Secure {
    /// Opens one.
    ///
    /// # Errors
    /// The network's, and those of the handshake.
    pub(crate) fn open(addr: SocketAddr, config: &Arc<ClientConfig>) -> Result<Secure, String> {
        let failed = |e: &dyn std::fmt::Display| format!("TLS to {addr}: {e}");
        let mut socket = TcpStream::connect(addr).map_err(|e| failed(&e))?;
        socket.set_nodelay(true).map_err(|e| failed(&e))?;
        socket.set_read_timeout(Some(SILENCE_MAX)).map_err(|e| failed(&e))?;
        let name = ServerName::from(addr.ip());
        let mut session =
            ClientConnection::new(Arc::clone(config), name).map_err(|e| failed(&e))?;
        while session.is_handshaking() {
            session.complete_io(&mut socket).map_err(|e| failed(&e))?;
        }
        let secrets = session.dangerous_extract_secrets().map_err(|e| failed(&e))?;
        Ok(Secure {
            socket,
            ours: Half::of(secrets.tx)?,
            theirs: Half::of(secrets.rx)?,
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
        })
    }

    /// Asks, and takes the answer; tells `taken` of the body's bytes as they come. With a
    /// digest the body is decrypted and compared with it. Returns whether the server closes now.
    ///
    /// # Errors
    /// The network's; what was expected of the answer, and what was found.
    pub(crate) fn get(
        &mut self,
        ask: &Ask,
        digest: Option<&str>,
        taken: &mut dyn FnMut(u64),
    ) -> Result<bool, String> {
        let failed = |what: String| format!("{}: {what}", ask.name);
        self.send(&ask.bytes).map_err(failed)?;
        let mut kept = Vec::new();
        let head = loop {
            self.open_record(&mut kept).map_err(failed)?;
            if let Some(head) = Head::of(&kept, ask)? {
                break head;
            }
        };
        let mut body = kept.split_off(head.bytes);
        let mut left = ask.body_bytes().checked_sub(body.len() as u64);
        taken(body.len() as u64);
        let mut hash = digest.map(|_| Sha256::new());
        while let Some(more) = left.filter(|more| *more > 0) {
            let came = match &mut hash {
                Some(hash) => {
                    hash.update(&body);
                    body.clear();
                    self.open_record(&mut body).map_err(failed)?;
                    body.len()
                }
                None => self.skip_record().map_err(failed)?,
            };
            left = more.checked_sub(came as u64);
            taken(came as u64);
        }
        if left.is_none() {
            return Err(failed(format!("more than the {} bytes expected", ask.body_bytes())));
        }
        let found = hash.map(|hash| named(&hash.chain_update(&body).finalize()));
        match (found, digest) {
            (Some(found), Some(digest)) if found != digest => {
                Err(failed(format!("expected {digest}, found {found}")))
            }
            _ => Ok(head.closes),
        }
    }

    fn send(&mut self, text: &[u8]) -> Result<(), String> {
        let mut sealed = text.to_vec();
        sealed.push(APPLICATION_DATA);
        let length =
            u16::try_from(sealed.len() + RECORD_OVERHEAD - 1).map_err(|e| e.to_string())?;
        let [high, low] = length.to_be_bytes();
        let header = [APPLICATION_DATA, 3, 3, high, low];
        let nonce = self.ours.next();
        let done = self.ours.key.seal_in_place_append_tag(nonce, Aad::from(header), &mut sealed);
        done.map_err(|e| e.to_string())?;
        self.socket.write_all(&[&header, sealed.as_slice()].concat()).map_err(|e| e.to_string())
    }

    /// The header of the next record, and its length. The record itself may not have come yet.
    fn header(&mut self) -> Result<([u8; HEADER_BYTES], usize), String> {
        self.fill(HEADER_BYTES)?;
        let header = self.buffer.get(self.start..).and_then(|rest| rest.first_chunk());
        let header = *header.ok_or("no header")?;
        self.start += HEADER_BYTES;
        let [kind, _, _, high, low] = header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        match kind {
            APPLICATION_DATA if length > RECORD_OVERHEAD => Ok((header, length)),
            _ => Err(format!("a record of type {kind} and {length} bytes")),
        }
    }

    /// Decrypts the next record of the answer to the end of `into`.
    fn open_record(&mut self, into: &mut Vec<u8>) -> Result<(), String> {
        loop {
            let (header, length) = self.header()?;
            self.fill(length)?;
            let nonce = self.theirs.next();
            let record = self.buffer.get_mut(self.start..self.start + length);
            let record = record.ok_or("a record that is longer than any")?;
            let opened = self.theirs.key.open_in_place(nonce, Aad::from(header), record);
            let opened = opened.map_err(|_| "a record that was changed on its way")?;
            self.start += length;
            // Its last byte that is not zero tells what it is.
            let end = opened.iter().rposition(|byte| *byte != 0);
            let (text, kind) = match end.and_then(|end| opened.split_at_checked(end)) {
                Some((text, [kind, ..])) => (text, *kind),
                _ => return Err("a record of nothing but zeros".to_owned()),
            };
            match kind {
                APPLICATION_DATA => {
                    into.extend_from_slice(text);
                    return Ok(());
                }
                // Tickets for later connections.
                HANDSHAKE => {}
                _ => return Err(format!("a record of type {kind}: {text:?}")),
            }
        }
    }

    /// Passes over the next record; how many bytes of the answer it has, if it is not padded.
    fn skip_record(&mut self) -> Result<usize, String> {
        let (_, length) = self.header()?;
        self.theirs.number += 1;
        let mut left = length;
        while left > 0 {
            self.fill(1)?;
            let here = left.min(self.end - self.start);
            self.start += here;
            left -= here;
        }
        Ok(length - RECORD_OVERHEAD)
    }

    /// Waits until so much is in the buffer.
    fn fill(&mut self, wanted: usize) -> Result<(), String> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.start + wanted > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        while self.end - self.start < wanted {
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            match self.socket.read(room) {
                Ok(0) => return Err("closed early".to_owned()),
                Ok(got) => self.end += got,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc::channel;

    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::{ServerConfig, ServerConnection, StreamOwned};

    use super::*;
    use crate::client::Body;
    use crate::client::clock::Clock;
    use crate::client::tls_load::{Work, run};

    /// A server that answers everything with this body.
    fn serve(body: Vec<u8>) -> SocketAddr {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = parameters.self_signed(&key).unwrap().der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let session = ServerConnection::new(Arc::new(config)).unwrap();
            let mut stream = StreamOwned::new(session, socket);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let mut request = [0; 4096];
            while stream.read(&mut request).is_ok_and(|got| got > 0) {
                stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
            }
        });
        addr
    }

    #[test]
    fn answers_are_counted_and_compared() {
        let body: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        let digest = named(&Sha256::digest(&body));
        let addr = serve(body.clone());
        let ask = |body: &[u8]| Ask::new("GET", "/", "", 200, Body::Small(body.into()));
        let counted = std::cell::Cell::new(0);
        let taken = &mut |bytes: u64| counted.set(counted.get() + bytes);
        let mut connection = Secure::open(addr, &config().unwrap()).unwrap();
        for compared in [Some(digest.as_str()), None, None] {
            connection.get(&ask(&body), compared, taken).unwrap();
        }
        assert_eq!(counted.get(), 300_000);
        let other = named(&Sha256::digest(b"something else"));
        let found = connection.get(&ask(&body), Some(&other), taken).unwrap_err();
        assert!(found.contains(&format!("expected {other}, found {digest}")), "{found}");
        let found = connection.get(&ask(&body[1..]), None, taken).unwrap_err();
        assert!(found.contains("99999") && found.contains("100000"), "{found}");
    }

    #[test]
    fn the_first_answer_of_a_load_is_compared_whole() {
        let addr = serve(b"body".to_vec());
        let (asks, clock) =
            ([Ask::new("GET", "/", "", 200, Body::Small((*b"bodx").into()))], Clock::default());
        clock.open();
        let config = config().unwrap();
        let work = Work { addr, config: &config, asks: &asks, number: 0 };
        let (opening, (working, done)) = (channel().0, channel::<()>());
        let tally = std::thread::scope(|scope| {
            let (work, clock) = (&work, &clock);
            let load = scope.spawn(move || (run(*work, clock, opening).unwrap(), working).0);
            // It ends by itself.
            let _ = done.recv_timeout(Duration::from_secs(10));
            clock.stop();
            load.join().unwrap()
        });
        assert_eq!((tally.requests, tally.wrong_count), (0, 1));
        assert!(tally.wrong[0].contains("expected sha256:"), "{:?}", tally.wrong);
    }
}
