//! The certificate that clients are shown: read at the start, at a reload, and when its files change.
//!
//! Whoever renews certificates (certbot, cert-manager, a script) replaces files and tells nobody, so
//! a thread looks at them every two seconds. What it finds is taken up when it has stopped changing:
//! certificate and key are two files, and between the two writes they do not fit. What cannot be
//! used is refused, said in the log and by /readyz, and what was before goes on.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::start::ServeError;
use crate::config::{self, ClientCertificate, Server, ServerTls};
use crate::http;
use crate::runtime::{
    ClientCertificates, HandshakeError, HandshakeFailure, Handshaken, TlsFileError, TlsFiles,
    TlsServing, clock, start_service,
};
use crate::telemetry::Metrics;

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Why other files are not taken up.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file is missing, of no use, or another one's.
    #[error(transparent)]
    File(#[from] TlsFileError),
    /// The key is open to others.
    #[error("key `server.tls_key`: {0}")]
    OpenKey(String),
}

/// The certificate in use, for all workers.
pub(super) struct Certificates {
    current: ArcSwap<TlsServing>,
    /// Held while files are read; never by a worker.
    source: Mutex<Source>,
    /// Why what lies in the files now is not in use; empty when it is.
    refused: ArcSwap<String>,
    reloads: AtomicU64,
    reloads_refused: AtomicU64,
    handshakes: [AtomicU64; RESULTS.len()],
}

/// Where the certificate in use came from.
struct Source {
    tls: ServerTls,
    /// What the files looked like when they were read last.
    read: Stamps,
}

type Stamps = Vec<Option<(u64, u64, i64, i64, u64)>>;

/// What a reload of the configuration has made ready.
pub(super) struct Prepared {
    tls: ServerTls,
    read: Stamps,
    serving: TlsServing,
}

impl Certificates {
    /// Reads the files, starts the thread that looks at them, and puts all this into the metrics.
    /// `None` where nothing speaks TLS.
    ///
    /// # Errors
    /// The files cannot be used; the operating system refused the thread.
    pub(super) fn start(
        server: &Server,
        metrics: &Metrics,
    ) -> Result<Option<Arc<Self>>, ServeError> {
        let Some(tls) = &server.tls else { return Ok(None) };
        let Prepared { tls, read, serving } = Self::prepare(tls)?;
        warn_of_time(&serving, &tls.certificate);
        let certificates = Arc::new(Self {
            current: ArcSwap::from_pointee(serving),
            source: Mutex::new(Source { tls, read }),
            refused: ArcSwap::default(),
            reloads: AtomicU64::default(),
            reloads_refused: AtomicU64::default(),
            handshakes: Default::default(),
        });
        certificates.attach(metrics);
        let looking = certificates.clone();
        let started = start_service("certificates", move || {
            let mut before = None;
            loop {
                std::thread::sleep(LOOK_INTERVAL);
                looking.look(&mut before);
            }
        });
        match started {
            Ok(_ends_with_the_process) => Ok(Some(certificates)),
            Err(source) => Err(ServeError::System { what: "a thread for certificates", source }),
        }
    }

    /// What the next handshake is made with.
    pub(super) fn current(&self) -> Arc<TlsServing> {
        self.current.load_full()
    }

    /// Reads the files of `tls`. Blocks.
    ///
    /// # Errors
    /// They cannot be used; nothing has changed.
    pub(super) fn prepare(tls: &ServerTls) -> Result<Prepared, CertificateError> {
        // Before the files: what changes while they are read is read again.
        let read = stamps(tls);
        config::check_secret(&tls.key).map_err(CertificateError::OpenKey)?;
        let serving = TlsServing::load(&TlsFiles {
            certificate: &tls.certificate,
            key: &tls.key,
            client_ca: tls.client_ca_file.as_deref(),
            client_certificates: match tls.client_certificate {
                ClientCertificate::Optional => ClientCertificates::Optional,
                ClientCertificate::Required => ClientCertificates::Required,
            },
        })?;
        Ok(Prepared { tls: tls.clone(), read, serving })
    }

    /// Goes on with what was prepared. Connections that have done their handshake go on as they are;
    /// tickets for the old certificate end.
    pub(super) fn take_up(&self, prepared: Prepared) {
        let mut source = self.lock();
        self.replace(&mut source, prepared);
    }

    fn replace(&self, source: &mut Source, prepared: Prepared) {
        let Prepared { tls, read, serving } = prepared;
        self.refused.store(Arc::default());
        if !self.current().is_same(&serving) {
            warn_of_time(&serving, &tls.certificate);
            tracing::info!(path = %tls.certificate.display(), not_after = %date(&serving),
                "another certificate is in use");
            self.current.store(Arc::new(serving));
            self.reloads.fetch_add(1, Ordering::Relaxed);
        }
        *source = Source { tls, read };
    }

    /// Takes up what lies in the files, if it differs from what was read and has not changed since
    /// `before`.
    fn look(&self, before: &mut Option<Stamps>) {
        let mut source = self.lock();
        let now = stamps(&source.tls);
        if now == source.read {
            *before = None;
            return;
        }
        if before.as_ref() != Some(&now) {
            *before = Some(now);
            return;
        }
        *before = None;
        match Self::prepare(&source.tls) {
            Ok(prepared) => self.replace(&mut source, prepared),
            Err(error) => {
                tracing::error!(%error, not_after = %date(&self.current()),
                    "certificate, key or authorities have changed and cannot be used; those from \
                     before go on");
                self.reloads_refused.fetch_add(1, Ordering::Relaxed);
                self.refused.store(Arc::new(error.to_string()));
                source.read = now;
            }
        }
    }

    /// What an operator should know: what was refused, and whether the certificate's time is over.
    pub(super) fn warnings(&self) -> Vec<String> {
        let refused = self.refused.load();
        let current = self.current();
        let untimely = current.untimely(now());
        let refused = (!refused.is_empty()).then(|| {
            format!(
                "tls: {refused}; the certificate from before is in use until {}",
                date(&current)
            )
        });
        refused
            .into_iter()
            .chain(untimely.map(|what| format!("tls: certificate: {what}")))
            .collect()
    }

    /// Counts a handshake.
    pub(super) fn count(&self, outcome: &Result<Handshaken, HandshakeError>) {
        let result = match outcome {
            Ok(Handshaken::Full) => "full",
            Ok(Handshaken::Resumed) => "resumed",
            Err(error) => failure(error.kind()),
        };
        let at = RESULTS.iter().position(|known| *known == result);
        if let Some(count) = at.and_then(|at| self.handshakes.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn attach(self: &Arc<Self>, metrics: &Metrics) {
        let of = self.clone();
        metrics.attach_gauge(
            "ringport_tls_certificate_not_after_seconds",
            "When the certificate that clients are shown ends, in Unix seconds",
            move || u64::try_from(of.current().not_after()).unwrap_or_default(),
        );
        let of = self.clone();
        let help = "TLS handshakes of clients, by how they ended";
        metrics.attach_counters("ringport_tls_handshakes", help, ["result"], move || {
            let count = |(result, count): (&&str, &AtomicU64)| {
                ([(*result).to_owned()], count.load(Ordering::Relaxed))
            };
            RESULTS.iter().zip(&of.handshakes).map(count).collect()
        });
        let of = self.clone();
        let help = "Certificates taken up while serving";
        metrics.attach_counter("ringport_tls_reloads", help, move || {
            of.reloads.load(Ordering::Relaxed)
        });
        let of = self.clone();
        let help = "Changes of the certificate's files that could not be used";
        metrics.attach_counter("ringport_tls_reloads_refused", help, move || {
            of.reloads_refused.load(Ordering::Relaxed)
        });
    }

    fn lock(&self) -> MutexGuard<'_, Source> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How handshakes end, as the metric calls it.
const RESULTS: [&str; 11] = [
    "full",
    "resumed",
    "plain_http",
    "gone",
    "timeout",
    "refused_by_client",
    "no_common_protocol",
    "no_common_version",
    "no_client_certificate",
    "bad_client_certificate",
    "malformed",
];

fn failure(kind: HandshakeFailure) -> &'static str {
    match kind {
        HandshakeFailure::PlainHttp => "plain_http",
        HandshakeFailure::Gone => "gone",
        HandshakeFailure::TimedOut => "timeout",
        HandshakeFailure::RefusedByClient => "refused_by_client",
        HandshakeFailure::NoCommonProtocol => "no_common_protocol",
        HandshakeFailure::NoCommonVersion => "no_common_version",
        HandshakeFailure::NoCertificate => "no_client_certificate",
        HandshakeFailure::BadCertificate => "bad_client_certificate",
        HandshakeFailure::Malformed => "malformed",
    }
}

/// What tells a file from the one that lay there before: device, inode, last change (of its mode, too),
/// length. Symbolic links are followed, by which Kubernetes exchanges whole folders.
fn stamps(tls: &ServerTls) -> Stamps {
    let stamp = |path: &PathBuf| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.dev(), file.ino(), file.ctime(), file.ctime_nsec(), file.len()))
    };
    [Some(&tls.certificate), Some(&tls.key), tls.client_ca_file.as_ref()]
        .into_iter()
        .flatten()
        .map(stamp)
        .collect()
}

fn warn_of_time(serving: &TlsServing, path: &Path) {
    if let Some(what) = serving.untimely(now()) {
        tracing::warn!(path = %path.display(), not_after = %date(serving),
            "server.tls_certificate: {what}");
    }
}

fn now() -> i64 {
    i64::try_from(clock::unix_seconds()).unwrap_or(i64::MAX)
}

/// When the certificate ends, for people.
fn date(serving: &TlsServing) -> String {
    let seconds = u64::try_from(serving.not_after()).unwrap_or_default();
    http::date::format(seconds)
}

/// Whether the files that `config` names for TLS to clients can be used: what `serve` would refuse,
/// without serving. Blocks.
///
/// # Errors
/// They cannot.
pub fn check_certificates(config: &config::Config) -> Result<(), CertificateError> {
    config.server.tls.as_ref().map(Certificates::prepare).transpose().map(drop)
}
