//! The name in a client certificate. That the certificate is good, TLS has verified, when the
//! connection began.

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Longest name, as the longest user in a rule.
const NAME_BYTES_MAX: usize = 256;

/// What a certificate says of its owner.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The common name of the subject, else the first DNS name or address of mail among the
    /// alternative names.
    Named(String),
    /// None of them.
    Unnamed,
    /// Its time is over, or has not come; connections may live longer than it.
    Untimely,
}

/// Whose it is at `now`, Unix seconds.
pub(super) fn owner(certificate: &[u8], now: u64) -> Owner {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return Owner::Unnamed;
    };
    let validity = certificate.validity();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    if now < validity.not_before.timestamp() || now > validity.not_after.timestamp() {
        return Owner::Untimely;
    }
    name_in(&certificate).map_or(Owner::Unnamed, Owner::Named)
}

fn name_in(certificate: &X509Certificate<'_>) -> Option<String> {
    let common = certificate.subject().iter_common_name().next();
    let common = common.and_then(|name| name.as_str().ok()).filter(|name| is_name(name));
    if let Some(name) = common {
        return Some(name.to_owned());
    }
    let names = certificate.subject_alternative_name().ok()??;
    let name = names.value.general_names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) => Some(*name),
        _ => None,
    })?;
    is_name(name).then(|| name.to_owned())
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}
