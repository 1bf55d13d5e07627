//! How often somebody was identified or refused.

use std::sync::atomic::{AtomicU64, Ordering};

use super::authenticator::AuthError;

/// What is counted: the two labels of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    Password,
    PasswordRemembered,
    PasswordWrong,
    PasswordBusy,
    Token,
    TokenMalformed,
    TokenForeign,
    TokenExpired,
    TokenNotYet,
    TokenIssuer,
    TokenAudience,
    Certificate,
    CertificateUnnamed,
    CertificateUntimely,
    HeaderMalformed,
    HeaderScheme,
}

impl Counted {
    /// In the order of the variants.
    const ALL: [(Counted, [&'static str; 2]); 16] = [
        (Counted::Password, ["password", "accepted"]),
        (Counted::PasswordRemembered, ["password", "remembered"]),
        (Counted::PasswordWrong, ["password", "wrong"]),
        (Counted::PasswordBusy, ["password", "busy"]),
        (Counted::Token, ["token", "accepted"]),
        (Counted::TokenMalformed, ["token", "malformed"]),
        (Counted::TokenForeign, ["token", "foreign"]),
        (Counted::TokenExpired, ["token", "expired"]),
        (Counted::TokenNotYet, ["token", "not_yet"]),
        (Counted::TokenIssuer, ["token", "issuer"]),
        (Counted::TokenAudience, ["token", "audience"]),
        (Counted::Certificate, ["certificate", "accepted"]),
        (Counted::CertificateUnnamed, ["certificate", "unnamed"]),
        (Counted::CertificateUntimely, ["certificate", "untimely"]),
        (Counted::HeaderMalformed, ["other", "malformed"]),
        (Counted::HeaderScheme, ["other", "scheme"]),
    ];
}

/// One count for each.
#[derive(Default)]
pub(super) struct Counts([AtomicU64; Counted::ALL.len()]);

impl Counts {
    pub(super) fn add(&self, counted: Counted) {
        if let Some(count) = self.0.get(counted as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self) -> Vec<([String; 2], u64)> {
        let labels = Counted::ALL.iter().map(|(_, labels)| labels.map(str::to_owned));
        labels.zip(self.0.iter().map(|count| count.load(Ordering::Relaxed))).collect()
    }
}

impl From<AuthError> for Counted {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Password => Self::PasswordWrong,
            AuthError::Busy => Self::PasswordBusy,
            AuthError::CertificateTime => Self::CertificateUntimely,
            AuthError::Header => Self::HeaderMalformed,
            AuthError::Scheme => Self::HeaderScheme,
            AuthError::TokenMalformed => Self::TokenMalformed,
            AuthError::TokenForeign => Self::TokenForeign,
            AuthError::TokenExpired => Self::TokenExpired,
            AuthError::TokenNotYet => Self::TokenNotYet,
            AuthError::TokenIssuer => Self::TokenIssuer,
            AuthError::TokenAudience => Self::TokenAudience,
        }
    }
}
