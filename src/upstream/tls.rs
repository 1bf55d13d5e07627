//! TLS towards upstreams: who is trusted, and what we show.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::url::Host;

/// Why the TLS side of an upstream cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file is missing, unreadable or of no use.
    #[error("{key} = \"{path}\": {reason}")]
    File {
        /// The configuration key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// rustls refuses the combination.
    #[error("TLS set-up failed: {0}")]
    Setup(#[from] tokio_rustls::rustls::Error),
}

/// The two ways an upstream's hosts are spoken to.
#[derive(Clone)]
pub(super) struct TlsContexts {
    /// To its endpoints: with the client certificate, if there is one.
    pub(super) endpoint: TlsConnector,
    /// To realms and redirect targets: never with it.
    pub(super) elsewhere: TlsConnector,
}

/// The authorities the system trusts. Ones that cannot be read are logged and left out; that there
/// are none is only worth a warning when they are `needed`.
pub(super) fn system_roots(needed: bool) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "part of the system's trusted certificates cannot be read");
    }
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(added, ignored, "system roots loaded");
    if added == 0 && needed {
        tracing::warn!(
            "the system trusts no certificate authority: https upstreams need `ca_file` \
             (or install ca-certificates)"
        );
    }
    roots
}

impl TlsContexts {
    /// Contexts that trust `roots` and the authorities in `ca_file`. TLS 1.2 and 1.3, ALPN
    /// http/1.1 only. Reads files: at start only.
    pub(super) fn build(
        roots: &Arc<RootCertStore>,
        ca_file: Option<&Path>,
        client: Option<(&Path, &Path)>,
    ) -> Result<Self, TlsError> {
        let roots = match ca_file {
            None => roots.clone(),
            Some(path) => {
                let mut roots = RootCertStore::clone(roots);
                for certificate in certificates("ca_file", path)? {
                    roots.add(certificate).map_err(|error| file_error("ca_file", path, &error))?;
                }
                Arc::new(roots)
            }
        };
        let builder = || {
            ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map(|builder| builder.with_root_certificates(roots.clone()))
        };
        let elsewhere = connector(builder()?.with_no_client_auth());
        let endpoint = match client {
            None => elsewhere.clone(),
            Some((certificate, key)) => {
                let chain = certificates("client_cert", certificate)?;
                let key_der = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| file_error("client_key", key, &error))?;
                let config = builder()?
                    .with_client_auth_cert(chain, key_der)
                    .map_err(|error| file_error("client_key", key, &error))?;
                connector(config)
            }
        };
        Ok(Self { endpoint, elsewhere })
    }
}

fn connector(mut config: ClientConfig) -> TlsConnector {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| file_error(key, path, &error))?;
    match certificates.is_empty() {
        true => Err(file_error(key, path, &"expected PEM certificates, found none")),
        false => Ok(certificates),
    }
}

fn file_error(key: &'static str, path: &Path, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::File { key, path: path.to_owned(), reason: reason.to_string() }
}

/// The name a certificate must prove; sent as SNI unless it is an address.
pub(super) fn server_name(host: &Host) -> Option<ServerName<'static>> {
    match host {
        Host::Name(name) => ServerName::try_from(name.to_string()).ok(),
        Host::Address(address) => Some(ServerName::IpAddress((*address).into())),
    }
}
