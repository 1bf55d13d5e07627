//! From what a request brings along to who is asking.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::hmac;
use zeroize::Zeroizing;

use super::certificate::{self, Owner};
use super::counts::{Counted, Counts};
use super::files::{AuthFiles, AuthFilesError, Stamp};
use super::passwords::Outcome;
use super::principal::{Principal, Proof};
use super::token::TokenFault;
use crate::config::Auth;
use crate::http::RequestHead;
use crate::runtime::{clock, start_service};

/// How often it is looked whether a file has changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// RFC 7617 wants padding; clients that leave it out mean the same.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Tells who is asking. One for the process, used by all workers.
pub struct Authenticator {
    /// Read without a lock, and only for requests that bring something along.
    files: ArcSwap<AuthFiles>,
    /// For what is remembered of passwords. Made at random, and never leaves the process.
    key: hmac::Key,
    runs: Arc<AtomicU64>,
    counts: Counts,
}

/// Why there is no authenticator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A file of `[auth]` can't be taken.
    #[error(transparent)]
    Files(#[from] AuthFilesError),
    /// The system gave us no random numbers.
    #[error("the operating system gave no random numbers")]
    Random,
    /// The system gave us no thread.
    #[error("cannot start the thread that watches the files of [auth]: {0}")]
    Thread(std::io::Error),
}

/// Why nobody knows who is asking, although the request says something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No such user, or not that user's password.
    #[error("the user name or the password is wrong")]
    Password,
    /// The header can't be read, or is there twice.
    #[error("the Authorization header is malformed")]
    Header,
    /// The header is of a kind that is not configured.
    #[error("the Authorization header is of a kind that is not taken here")]
    Scheme,
    /// No token that could be read.
    #[error("the token is malformed, or signed in a way that is not taken here")]
    TokenMalformed,
    /// Not by a key of the issuer.
    #[error("the token is not signed by a known key")]
    TokenForeign,
    /// Its time is over.
    #[error("the token has expired")]
    TokenExpired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    TokenNotYet,
    /// From somebody else.
    #[error("the token is of another issuer")]
    TokenIssuer,
    /// For somebody else.
    #[error("the token is for another service")]
    TokenAudience,
    /// The certificate of the connection was good when that began.
    #[error("the client certificate is not valid at this time; connect with another one")]
    CertificateTime,
    /// Too many passwords are being checked: asking again later helps.
    #[error("too many passwords are being checked")]
    Busy,
}

impl Authenticator {
    /// Reads what `config` names, and looks every second whether it has changed. Blocks.
    ///
    /// # Errors
    /// A file can't be taken, or the system gave us no thread or no random numbers.
    pub fn start(config: &Auth) -> Result<Arc<Self>, StartError> {
        let random = ring::rand::SystemRandom::new();
        let key =
            hmac::Key::generate(hmac::HMAC_SHA256, &random).map_err(|_| StartError::Random)?;
        let runs = Arc::<AtomicU64>::default();
        let files = ArcSwap::from_pointee(AuthFiles::read(config, &key, &runs)?);
        let counts = Counts::default();
        let own = Arc::new(Self { files, key, runs, counts });
        let watched = Arc::downgrade(&own);
        start_service("auth-files", move || watch(&watched)).map_err(StartError::Thread)?;
        Ok(own)
    }

    /// Reads what another configuration names. Blocks.
    ///
    /// # Errors
    /// A file can't be taken; nothing has changed.
    pub fn prepare(&self, config: &Auth) -> Result<AuthFiles, AuthFilesError> {
        AuthFiles::read(config, &self.key, &self.runs)
    }

    /// Goes by these from now on.
    pub fn replace(&self, files: AuthFiles) {
        self.files.store(Arc::new(files));
    }

    /// What is gone by now.
    pub fn files(&self) -> Arc<AuthFiles> {
        self.files.load_full()
    }

    /// Who is asking, by the `Authorization` header or else by the certificate of the connection,
    /// which TLS has verified. Where neither passwords nor tokens are configured, the header is
    /// not looked at: clients send logins of other registries to their mirrors.
    ///
    /// # Errors
    /// What is brought along is wrong, or can't be verified now.
    pub async fn identify(
        &self,
        head: &RequestHead,
        certificate: Option<&[u8]>,
    ) -> Result<Principal, AuthError> {
        let files = self.files.load_full();
        if files.passwords.is_some() || files.tokens.is_some() {
            let mut values = head.values("authorization");
            match (values.next(), values.next()) {
                (Some(_), Some(_)) => return Err(self.refused(AuthError::Header)),
                (Some(value), None) => {
                    let identified = self.by_header(&files, value).await;
                    // A login of nothing is none: the certificate speaks.
                    if let Some(principal) = identified.map_err(|error| self.refused(error))? {
                        return Ok(principal);
                    }
                }
                (None, _) => {}
            }
        }
        let Some(certificate) = certificate else { return Ok(Principal::ANONYMOUS) };
        match certificate::owner(certificate, clock::unix_seconds()) {
            Owner::Named(name) => {
                self.counts.add(Counted::Certificate);
                Ok(Principal::named(&name, Proof::Certificate))
            }
            Owner::Untimely => Err(self.refused(AuthError::CertificateTime)),
            Owner::Unnamed => {
                self.counts.add(Counted::CertificateUnnamed);
                Ok(Principal::ANONYMOUS)
            }
        }
    }

    /// `None` for an empty login, which some clients send by themselves.
    async fn by_header(
        &self,
        files: &AuthFiles,
        value: &[u8],
    ) -> Result<Option<Principal>, AuthError> {
        let space = value.iter().position(|byte| *byte == b' ').ok_or(AuthError::Header)?;
        let (scheme, rest) = value.split_at_checked(space).ok_or(AuthError::Header)?;
        let rest = rest.trim_ascii();
        match (&files.passwords, &files.tokens) {
            (Some(passwords), _) if scheme.eq_ignore_ascii_case(b"basic") => {
                let Some(login) = Login::decode(rest)? else { return Ok(None) };
                let Login { name, password } = login;
                let counted = match passwords.check(&name, password).await {
                    Outcome::Right => Counted::Password,
                    Outcome::Remembered => Counted::PasswordRemembered,
                    Outcome::Wrong => return Err(AuthError::Password),
                    Outcome::Busy => return Err(AuthError::Busy),
                };
                self.counts.add(counted);
                Ok(Some(Principal::named(&name, Proof::Password)))
            }
            (_, Some(tokens)) if scheme.eq_ignore_ascii_case(b"bearer") => {
                let principal = tokens.verify(rest, clock::unix_seconds())?;
                self.counts.add(Counted::Token);
                Ok(Some(principal))
            }
            _ => Err(AuthError::Scheme),
        }
    }

    /// How often somebody was identified or refused, by kind of proof and result.
    pub fn counts(&self) -> Vec<([String; 2], u64)> {
        self.counts.read()
    }

    /// How often a password was computed.
    pub fn password_checks(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    fn refused(&self, error: AuthError) -> AuthError {
        self.counts.add(error.into());
        error
    }

    /// Reads the files again if they have changed. A file that can't be taken changes nothing, and
    /// is told once: `told` is what was found then.
    fn look_again(&self, told: &mut Option<Vec<Stamp>>) {
        let files = self.files.load_full();
        let Some(change) = files.change() else { return *told = None };
        if told.as_ref() == Some(&change) {
            return;
        }
        match AuthFiles::read(&files.config, &self.key, &self.runs) {
            Ok(read) => {
                let (users, keys) = read.sizes();
                tracing::info!(users, keys, "the files of [auth] have changed and were read again");
                // A reload that came in between has read them, too, by a newer configuration.
                self.files.compare_and_swap(&files, Arc::new(read));
                *told = None;
            }
            Err(error) => {
                tracing::error!(
                    %error,
                    "a file of [auth] has changed and can't be taken; what was read before stays"
                );
                *told = Some(change);
            }
        }
    }
}

/// Until the authenticator is gone.
fn watch(watched: &Weak<Authenticator>) {
    let mut told = None;
    loop {
        std::thread::sleep(LOOK_EVERY);
        let Some(authenticator) = watched.upgrade() else { return };
        authenticator.look_again(&mut told);
    }
}

/// What `Basic` says.
struct Login {
    name: String,
    password: Zeroizing<Vec<u8>>,
}

impl Login {
    /// `None` when both parts are empty, which is how skopeo and its relatives say that they have
    /// none.
    fn decode(encoded: &[u8]) -> Result<Option<Self>, AuthError> {
        let decoded = Zeroizing::new(BASE64.decode(encoded).map_err(|_| AuthError::Header)?);
        let colon = decoded.iter().position(|byte| *byte == b':').ok_or(AuthError::Header)?;
        let (name, password) = decoded.split_at_checked(colon).ok_or(AuthError::Header)?;
        let password = password.get(1..).unwrap_or_default();
        if name.is_empty() && password.is_empty() {
            return Ok(None);
        }
        let name = String::from_utf8_lossy(name).into_owned();
        Ok(Some(Self { name, password: Zeroizing::new(password.to_vec()) }))
    }
}

impl From<TokenFault> for AuthError {
    fn from(fault: TokenFault) -> Self {
        match fault {
            TokenFault::Malformed => Self::TokenMalformed,
            TokenFault::Foreign => Self::TokenForeign,
            TokenFault::Expired => Self::TokenExpired,
            TokenFault::NotYet => Self::TokenNotYet,
            TokenFault::Issuer => Self::TokenIssuer,
            TokenFault::Audience => Self::TokenAudience,
        }
    }
}
