//! Who is asking: passwords, bearer tokens and client certificates.
//!
//! What it is: from what a request brings along (its `Authorization` header, the certificate of its
//! connection) to a [`Principal`], by the files that `[auth]` names.
//!
//! ```text
//! authenticator  header and certificate → Principal
//! counts         how often, for the metrics
//! passwords      bcrypt on threads of its own, and what has been verified lately
//! htpasswd       the file of users
//! token          a bearer token → Principal, by the keys of the issuer
//! keys           PEM and JWKS files → public keys
//! certificate    the name in a client certificate
//! files          what is read again when it changes
//! ```
//!
//! May import: `config`, `http`, `oci`, `runtime`, `telemetry`.
//!
//! **Invariant:** a [`Principal`] with a name exists only if that name has been proved.
//! **Invariant:** credentials that can't be verified are refused, never taken for none.
//! **Invariant:** an unknown user costs the same work as a wrong password, and gets the same answer.
//! **Invariant:** no password, token or hash is in an error, a log line or a metric; nor is the name
//! that came with a wrong password, which may be a password typed into the wrong field.
//! **Invariant:** a token is verified only with keys of our files: nothing in it names another.
//!
//! Deliberately absent: statuses and challenges (`api`), what a principal may do (the rules of
//! `config`, put to use in `api/access`), issuing tokens, and HMAC or unsigned ones.

mod authenticator;
mod certificate;
mod counts;
mod files;
mod htpasswd;
mod keys;
mod passwords;
mod principal;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
mod token;

pub use authenticator::{AuthError, Authenticator, StartError};
pub use files::{AuthFiles, AuthFilesError};
pub use principal::{Principal, Proof, Verb};
