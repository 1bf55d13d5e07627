//! Logins that a `credential_command` gives: kept for all workers until they end, one run at a time.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use zeroize::Zeroizing;

use super::command::{self, COMMAND_LIMIT, CommandFailure};
use super::command_reply::{self, PrintedLogin};
use super::credentials::sensitive;
use super::error::{Site, UpstreamError};
use super::set::Upstream;
use super::shards::{Perishable, Shards};
use super::shared::Shared;
use crate::oci::Namespace;
use crate::runtime::{SingleFlight, Workers, blocking_alone, clock, spawn};

/// Logins kept by each worker: one for each command of the configuration.
const LOGINS_MAX: usize = 1024;
/// A login is renewed this long before it ends, or a tenth of its life if that is shorter.
const RENEW_AHEAD: Duration = Duration::from_secs(5 * 60);
/// How long a command that failed is not run again.
const FAILURE_KEPT: Duration = Duration::from_secs(10);
/// What docker's credential helpers know Docker Hub as.
const DOCKER_HUB: (&str, &str) = ("docker.io", "https://index.docker.io/v1/");

/// A login from a command.
pub(super) struct Issued {
    /// `Authorization: Basic`, if it is a user name and a password.
    pub(super) basic: Option<HeaderValue>,
    /// `Authorization: Bearer`, if it is a token.
    pub(super) bearer: Option<HeaderValue>,
    pub(super) username: Option<Arc<str>>,
    /// When the command was started: a login younger than an exchange is not to blame for its 401.
    pub(super) fetched: Instant,
    renew_at: Instant,
    ends_at: Instant,
    /// Whether it was asked for because the one before was rejected.
    is_second: bool,
}

type IssuedResult = Result<Arc<Issued>, UpstreamError>;

/// The logins of all workers, by what [`Upstream::login`] says.
pub(super) struct IssuedStore {
    flights: SingleFlight<Namespace, IssuedResult>,
    kept: Shards<Namespace, Kept>,
}

#[derive(Clone)]
struct Kept {
    issued: Option<Arc<Issued>>,
    failure: Option<UpstreamError>,
    /// Before this the command is not run again to have a later end, or another outcome.
    not_before: Instant,
}

impl Perishable for Kept {
    fn perishes(&self) -> Instant {
        self.issued.as_ref().map_or(self.not_before, |issued| issued.ends_at)
    }
}

impl IssuedStore {
    pub(super) fn new(workers: &Workers) -> Self {
        Self {
            flights: SingleFlight::new(workers.clone()),
            kept: Shards::new(workers.clone(), LOGINS_MAX),
        }
    }
}

/// The login that `argv` gives for `upstream`: a kept one, or a new one that all who want it
/// meanwhile share. A kept one that is `rejected` (a 401 came back) is not used again. One that
/// ends soon is renewed while it is used.
///
/// # Errors
/// `Credentials`, which names the command; what it said is in the log only.
pub(super) async fn obtain(
    shared: &Arc<Shared>,
    upstream: &Upstream,
    argv: &Arc<[String]>,
    rejected: Option<&Arc<Issued>>,
) -> IssuedResult {
    let run = Run {
        shared: shared.clone(),
        key: upstream.login.clone(),
        argv: argv.clone(),
        rejected: rejected.cloned(),
    };
    let flight = shared.issued.flights.run(run.key.clone(), move || run.kept_or_new());
    let issued = flight.await.map_err(|error| upstream.internal(error))??;
    // A flight that was under way knew nothing of the rejection; the next exchange's will.
    match rejected.is_some_and(|rejected| Arc::ptr_eq(rejected, &issued)) {
        false => Ok(issued),
        true => Err(UpstreamError::Credentials {
            upstream: upstream.namespace.clone(),
            reason: format!("{} gave a login that was rejected", name_of(argv)),
        }),
    }
}

/// One look for a login, on the worker that owns the key.
struct Run {
    shared: Arc<Shared>,
    key: Namespace,
    argv: Arc<[String]>,
    rejected: Option<Arc<Issued>>,
}

impl Run {
    async fn kept_or_new(self) -> IssuedResult {
        let (kept, now) = (self.shared.issued.kept.find(&self.key), clock::now());
        let is_good = |issued: &Arc<Issued>| {
            let is_rejected = self.rejected.as_ref().is_some_and(|r| Arc::ptr_eq(r, issued));
            now < issued.ends_at && !is_rejected
        };
        let Some(kept) = kept else { return self.run().await };
        if let Some(rejected) = &self.rejected
            && rejected.is_second
            && now < rejected.fetched + FAILURE_KEPT
        {
            return Err(self.refused());
        }
        match kept.issued.clone().filter(is_good) {
            Some(issued) => {
                if issued.renew_at <= now && kept.not_before <= now {
                    let until = now + COMMAND_LIMIT;
                    self.shared
                        .issued
                        .kept
                        .keep(self.key.clone(), Kept { not_before: until, ..kept });
                    spawn(async move {
                        // Its outcome is kept, and a failure in the log.
                        let _ = self.run().await;
                    });
                }
                Ok(issued)
            }
            None => match kept.failure {
                Some(error) if now < kept.not_before => Err(error),
                _ => self.run().await,
            },
        }
    }

    async fn run(&self) -> IssuedResult {
        let fetched = clock::now();
        let (argv, server) = (self.argv.clone(), server_of(&self.key));
        let ran = blocking_alone(move || command::run(&argv, &server, COMMAND_LIMIT)).await;
        let ran = ran.unwrap_or_else(|error| {
            Err(CommandFailure { reason: error.to_string(), stderr: String::new() })
        });
        let issued = ran.and_then(|printed| {
            let read = command_reply::parse(&printed, self.key.host(), clock::unix_seconds());
            let is_second = self.rejected.is_some();
            let issued = read.and_then(|printed| Issued::new(printed, fetched, is_second));
            issued.map_err(|reason| CommandFailure {
                reason: format!("its output is of no use: {reason}"),
                stderr: String::new(),
            })
        });
        let kept = match issued {
            Ok(issued) => {
                let lifetime = issued.ends_at.saturating_duration_since(fetched);
                tracing::debug!(login = %self.key, ?lifetime, "a credential_command gave a login");
                Kept { issued: Some(Arc::new(issued)), failure: None, not_before: fetched }
            }
            Err(failure) => self.failed(&failure),
        };
        self.shared.issued.kept.keep(self.key.clone(), kept.clone());
        match (kept.failure, kept.issued) {
            (None, Some(issued)) => Ok(issued),
            (Some(error), _) => Err(error),
            (None, None) => Err(UpstreamError::Internal {
                upstream: self.key.clone(),
                reason: "a credential_command without an outcome".to_owned(),
            }),
        }
    }

    /// The registry has just refused two of its logins: it is not run for each request.
    fn refused(&self) -> UpstreamError {
        let name = name_of(&self.argv);
        UpstreamError::Denied {
            at: Box::new(Site {
                upstream: self.key.clone(),
                address: "its endpoints".into(),
                is_tier: false,
            }),
            status: 401,
            reason: format!("the logins that the credential_command {name} gives are refused"),
        }
    }

    /// What is kept of a failure: with the login before it, as long as that lasts.
    fn failed(&self, failure: &CommandFailure) -> Kept {
        let name = name_of(&self.argv);
        let CommandFailure { reason, stderr } = failure;
        let before = self.shared.issued.kept.find(&self.key).and_then(|kept| kept.issued);
        tracing::warn!(
            login = %self.key, command = name, reason, stderr, has_login = before.is_some(),
            "a credential_command failed"
        );
        let reason = format!("the credential_command {name} failed: {reason}; see the log");
        Kept {
            issued: before,
            failure: Some(UpstreamError::Credentials { upstream: self.key.clone(), reason }),
            not_before: clock::now() + FAILURE_KEPT,
        }
    }
}

impl Issued {
    fn new(
        printed: command_reply::Printed,
        fetched: Instant,
        is_second: bool,
    ) -> Result<Self, &'static str> {
        let unusable = "it makes no header value";
        let (basic, bearer, username) = match printed.login {
            PrintedLogin::Password { username, password } => {
                let pair = Zeroizing::new(format!("{username}:{}", password.as_str()));
                let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
                (Some(sensitive(&text).ok_or(unusable)?), None, Some(username.into()))
            }
            PrintedLogin::Token(token) => {
                let text = Zeroizing::new(format!("Bearer {}", token.as_str()));
                (None, Some(sensitive(&text).ok_or(unusable)?), None)
            }
        };
        let ends_at = fetched + printed.lifetime;
        let renew_at = ends_at - RENEW_AHEAD.min(printed.lifetime / 10);
        Ok(Self { basic, bearer, username, fetched, renew_at, ends_at, is_second })
    }
}

/// What the command is told on its standard input: the registry as in image names, as docker's
/// credential helpers get it.
fn server_of(login: &Namespace) -> String {
    match login.base() {
        namespace if namespace == DOCKER_HUB.0 => DOCKER_HUB.1.to_owned(),
        namespace => namespace.to_owned(),
    }
}

fn name_of(argv: &[String]) -> &str {
    argv.first().map_or("", String::as_str)
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issued(…)")
    }
}
