//! The name in a client certificate. That the certificate is good, TLS has verified.

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Longest name, as the longest user in a rule.
const NAME_BYTES_MAX: usize = 256;

/// The common name of the subject, else the first DNS name or address of mail among the alternative
/// names; `None` when there is none of them.
pub(super) fn name_in(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
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
