//! What handshakes need, made from PEM files.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Largest PEM file that is read, in bytes: a bundle of all public authorities has 230 KiB.
const PEM_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Why files cannot be used for TLS. Names the key, the file, what was expected and what found.
#[derive(Debug, thiserror::Error)]
#[error("key `{key}` = \"{path}\": expected {expected}, found {found}")]
pub struct TlsFileError {
    key: &'static str,
    path: String,
    expected: &'static str,
    found: String,
}

/// The files, as the configuration names them.
#[derive(Debug, Clone, Copy)]
pub struct TlsFiles<'a> {
    /// The chain that is shown, the server's own certificate first.
    pub certificate: &'a Path,
    /// Its private key.
    pub key: &'a Path,
    /// The authorities of client certificates, if they are asked for.
    pub client_ca: Option<&'a Path>,
    /// What a client without one gets.
    pub client_certificates: ClientCertificates,
}

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Asked for; a client may have none.
    Optional,
    /// No handshake without one.
    Required,
}

/// A certificate in use with all that belongs to it; immutable, shared by all workers.
pub struct TlsServing {
    config: Arc<ServerConfig>,
    /// The content of all files: whether a reload changes anything.
    content: Vec<Vec<u8>>,
    asked: ClientCertificates,
    not_before: i64,
    not_after: i64,
}

impl TlsServing {
    /// Reads the files. Blocks; not for workers. TLS 1.2 and 1.3, ALPN `http/1.1`.
    ///
    /// Sessions are resumed by tickets whose keys live as long as this. Not when client certificates
    /// are asked for: a resumed session shows the certificate of the first handshake, which may have
    /// expired since, or lost its authority.
    ///
    /// # Errors
    /// A file that cannot be read or used, or two that do not belong together.
    pub fn load(files: &TlsFiles<'_>) -> Result<Self, TlsFileError> {
        let certificate = File::read("server.tls_certificate", files.certificate)?;
        let key = File::read("server.tls_key", files.key)?;
        let client_ca =
            files.client_ca.map(|path| File::read("server.client_ca_file", path)).transpose()?;
        let chain = certificate.certificates()?;
        let (not_before, not_after) = certificate.validity(&chain)?;
        let private = PrivateKeyDer::from_pem_slice(&key.content).map_err(|error| {
            key.refuse("a private key in PEM, not encrypted", &format!("none ({error})"))
        })?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| certificate.refuse("a certificate that TLS can use", &error))?;
        let builder = match &client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let verifier = ca.verifier(files.client_certificates, provider)?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, private).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                let path = files.certificate.display();
                key.refuse(
                    "the private key of the first certificate in server.tls_certificate",
                    &format!("another one's; renew it and \"{path}\" together"),
                )
            }
            error => key.refuse("a key and a certificate that TLS can use", &error),
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Tickets are kept by clients; a table of ours would be shared by all workers.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        match client_ca {
            None => {
                config.ticketer = ring::Ticketer::new()
                    .map_err(|error| certificate.refuse("random keys for tickets", &error))?;
            }
            Some(_) => config.send_tls13_tickets = 0,
        }
        let content = [Some(certificate), Some(key), client_ca];
        let content = content.into_iter().flatten().map(|file| file.content).collect();
        let asked = files.client_certificates;
        Ok(Self { config: Arc::new(config), content, asked, not_before, not_after })
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// Whether it was made from the same files' content on the same terms.
    pub fn is_same(&self, other: &Self) -> bool {
        self.content == other.content && self.asked == other.asked
    }

    /// When the server's certificate ends, in Unix seconds.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// What is wrong with the certificate's time at `now` (Unix seconds), if anything is.
    pub fn untimely(&self, now: i64) -> Option<&'static str> {
        match () {
            () if now > self.not_after => Some("it has expired; clients refuse it"),
            () if now < self.not_before => Some("it is not valid yet; clients refuse it"),
            () => None,
        }
    }
}

/// One file that has been read.
struct File<'a> {
    key: &'static str,
    path: &'a Path,
    content: Vec<u8>,
}

impl<'a> File<'a> {
    fn read(key: &'static str, path: &'a Path) -> Result<Self, TlsFileError> {
        let refuse = |found: String| TlsFileError {
            key,
            path: path.display().to_string(),
            expected: "a PEM file that can be read",
            found,
        };
        let size = std::fs::metadata(path).map_err(|error| refuse(error.to_string()))?;
        if !size.is_file() || size.len() > PEM_BYTES_MAX {
            return Err(refuse(format!("no regular file of at most {PEM_BYTES_MAX} bytes")));
        }
        let content = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
        Ok(Self { key, path, content })
    }

    fn refuse(&self, expected: &'static str, found: &dyn Display) -> TlsFileError {
        let path = self.path.display().to_string();
        TlsFileError { key: self.key, path, expected, found: found.to_string() }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
        let expected = "certificates in PEM";
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&self.content)
            .collect::<Result<_, _>>()
            .map_err(|error| self.refuse(expected, &error))?;
        match certificates.is_empty() {
            true => Err(self.refuse(expected, &"none")),
            false => Ok(certificates),
        }
    }

    /// From when to when the first certificate is valid, in Unix seconds.
    fn validity(&self, chain: &[CertificateDer<'_>]) -> Result<(i64, i64), TlsFileError> {
        let leaf = chain.first().map(AsRef::as_ref).unwrap_or_default();
        let (_, certificate) = X509Certificate::from_der(leaf)
            .map_err(|error| self.refuse("an X.509 certificate", &error))?;
        let validity = certificate.validity();
        Ok((validity.not_before.timestamp(), validity.not_after.timestamp()))
    }

    fn verifier(
        &self,
        asked: ClientCertificates,
        provider: Arc<tokio_rustls::rustls::crypto::CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsFileError> {
        let expected = "certificates of authorities in PEM";
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots.add(certificate).map_err(|error| self.refuse(expected, &error))?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = match asked {
            ClientCertificates::Optional => builder.allow_unauthenticated(),
            ClientCertificates::Required => builder,
        };
        builder.build().map_err(|error| self.refuse(expected, &error))
    }
}
