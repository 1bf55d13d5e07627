//! Our secrets for an upstream: read from files when they are needed, so that they may rotate.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use zeroize::Zeroizing;

use super::error::UpstreamError;
use super::issued::{self, Issued};
use super::set::Upstream;
use super::shared::Shared;
use crate::runtime::blocking;

/// Largest secret file. ECR's passwords are about 2 KiB, JSON keys of GCR about 3.
const SECRET_BYTES_MAX: u64 = 16 * 1024;

/// Where an upstream's secrets are.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    /// None configured.
    Anonymous,
    /// `username` and `password_file`.
    Password { username: Arc<str>, file: PathBuf },
    /// `token_file`: a ready bearer token.
    Token { file: PathBuf },
    /// `credential_command`: a program that prints one or the other.
    Command { argv: Arc<[String]> },
}

/// What we have to let us in with, as far as a file or a command is read for it.
#[derive(Default)]
pub(super) struct Login {
    /// `Authorization: Basic`.
    pub(super) basic: Option<HeaderValue>,
    /// `Authorization: Bearer` with a ready token.
    pub(super) bearer: Option<HeaderValue>,
    /// Where a command gave it.
    pub(super) issued: Option<Arc<Issued>>,
}

/// What kind of login there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Nothing,
    /// The user whose password it is.
    Password(Arc<str>),
    Token,
}

/// A value that is wiped when dropped and never shown.
struct Secret(Zeroizing<String>);

/// Why a secret cannot be used. Names the file, never its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the secret file {path} cannot be used: {reason}")]
pub(super) struct SecretError {
    path: String,
    reason: String,
}

impl Credentials {
    /// What it will be. For a command that means to run it, unless it was.
    ///
    /// # Errors
    /// `Credentials`, of a command.
    pub(super) async fn kind(
        &self,
        shared: &Arc<Shared>,
        upstream: &Upstream,
    ) -> Result<Kind, UpstreamError> {
        Ok(match self {
            Self::Anonymous => Kind::Nothing,
            Self::Password { username, .. } => Kind::Password(username.clone()),
            Self::Token { .. } => Kind::Token,
            Self::Command { argv } => {
                let issued = issued::obtain(shared, upstream, argv, None).await?;
                issued.username.clone().map_or(Kind::Token, Kind::Password)
            }
        })
    }

    /// What to let us in with now. A login of a command that is `rejected` is not given again.
    ///
    /// # Errors
    /// `Credentials`: the file can't be read, the command failed.
    pub(super) async fn login(
        &self,
        shared: &Arc<Shared>,
        upstream: &Upstream,
        rejected: Option<&Arc<Issued>>,
    ) -> Result<Login, UpstreamError> {
        if let Self::Command { argv } = self {
            let issued = issued::obtain(shared, upstream, argv, rejected).await?;
            let (basic, bearer) = (issued.basic.clone(), issued.bearer.clone());
            return Ok(Login { basic, bearer, issued: Some(issued) });
        }
        let read = async {
            let (basic, bearer) = (self.basic().await?, self.token().await?);
            Ok(Login { basic, bearer, issued: None })
        };
        read.await.map_err(|error: SecretError| UpstreamError::Credentials {
            upstream: upstream.namespace.clone(),
            reason: error.to_string(),
        })
    }

    /// Reads the secret once, to find mistakes at start. Blocks.
    pub(super) fn check(&self) -> Result<(), SecretError> {
        match self {
            // Commands talk to clouds: they are run when they are needed.
            Self::Anonymous | Self::Command { .. } => Ok(()),
            Self::Password { file, .. } | Self::Token { file } => read_secret(file).map(|_| ()),
        }
    }

    /// `Authorization: Basic`, if there is a password.
    pub(super) async fn basic(&self) -> Result<Option<HeaderValue>, SecretError> {
        let Self::Password { username, file } = self else { return Ok(None) };
        let password = load(file.clone()).await?;
        let pair = Zeroizing::new(format!("{username}:{}", password.0.as_str()));
        let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
        sensitive(&text).map(Some).ok_or_else(|| refused(file, "it makes no header value"))
    }

    /// `Authorization: Bearer` with the configured token, if there is one.
    async fn token(&self) -> Result<Option<HeaderValue>, SecretError> {
        let Self::Token { file } = self else { return Ok(None) };
        let token = load(file.clone()).await?;
        let text = Zeroizing::new(format!("Bearer {}", token.0.as_str()));
        sensitive(&text).map(Some).ok_or_else(|| refused(file, "it is not one line of ASCII"))
    }
}

/// A header value that `Debug` does not show.
pub(super) fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

async fn load(file: PathBuf) -> Result<Secret, SecretError> {
    let path = file.clone();
    let read = blocking(move || read_secret(&path)).await;
    read.unwrap_or_else(|error| Err(refused(&file, &error.to_string())))
}

fn read_secret(path: &Path) -> Result<Secret, SecretError> {
    let mut text = Zeroizing::new(String::new());
    let file = std::fs::File::open(path).map_err(|error| refused(path, &error.to_string()))?;
    file.take(SECRET_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| refused(path, &error.to_string()))?;
    if text.len() as u64 > SECRET_BYTES_MAX {
        return Err(refused(path, "expected at most 16 KiB"));
    }
    // Editors and `echo` end files with a line end that is not part of the secret.
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(refused(path, "expected one line, found nothing"));
    }
    if secret.chars().any(char::is_control) {
        return Err(refused(path, "expected one line without control characters"));
    }
    Ok(Secret(Zeroizing::new(secret.to_owned())))
}

fn refused(path: &Path, reason: &str) -> SecretError {
    SecretError { path: path.display().to_string(), reason: reason.to_owned() }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
