//! Public keys of a token issuer, from PEM and JWKS files.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::Deserialize;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Keys of all files: one that is not named is looked for by trying.
pub(super) const KEYS_MAX: usize = 64;
/// Shortest RSA modulus that is accepted, in bytes; the longest that can be verified with.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
const P256_BYTES: usize = 32;
const ED25519_BYTES: usize = 32;
const OID_ED25519: &str = "1.3.101.112";
const OID_P256: &str = "1.2.840.10045.3.1.7";

/// How tokens may be signed. There is no HMAC and no "none" among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Algorithm {
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// One public key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// What a token may call it; keys of PEM files have no name.
    pub(super) id: Option<Box<str>>,
    material: Material,
}

#[derive(Debug, PartialEq, Eq)]
enum Material {
    /// Big-endian, without leading zeros.
    Rsa {
        modulus: Box<[u8]>,
        exponent: Box<[u8]>,
    },
    /// A point of P-256, uncompressed.
    P256(Box<[u8]>),
    Ed25519(Box<[u8]>),
}

/// Why a file gives no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeyError {
    #[error("expected PEM (public keys or certificates) or JWKS, found neither")]
    Form,
    #[error(
        "expected public keys, found a private one; it belongs to the token server alone: write \
         its public key with `openssl pkey -in KEY -pubout`"
    )]
    Private,
    #[error(
        "expected a key for RS256 (RSA of 2048 to 8192 bits), ES256 (P-256) or EdDSA (Ed25519), \
         found {0}"
    )]
    Kind(&'static str),
    #[error("expected at least one key for signatures, found none")]
    None,
    #[error("expected at most {KEYS_MAX} keys, found more")]
    TooMany,
}

impl Key {
    /// Whether `signature` is this key's over `text`, in the way of `algorithm`.
    pub(super) fn verifies(&self, algorithm: Algorithm, text: &[u8], signature: &[u8]) -> bool {
        let by = |way, key: &[u8]| UnparsedPublicKey::new(way, key).verify(text, signature).is_ok();
        match (&self.material, algorithm) {
            (Material::Rsa { modulus, exponent }, Algorithm::Rs256) => {
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, text, signature).is_ok()
            }
            (Material::P256(point), Algorithm::Es256) => by(&ECDSA_P256_SHA256_FIXED, point),
            (Material::Ed25519(key), Algorithm::EdDsa) => by(&ED25519, key),
            _ => false,
        }
    }
}

/// All keys of a file.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Key>, KeyError> {
    let is_json = bytes.trim_ascii_start().first() == Some(&b'{');
    let keys = if is_json { of_jwks(bytes)? } else { of_pem(bytes)? };
    match keys.len() {
        0 => Err(KeyError::None),
        1..=KEYS_MAX => Ok(keys),
        _ => Err(KeyError::TooMany),
    }
}

fn of_pem(bytes: &[u8]) -> Result<Vec<Key>, KeyError> {
    let mut keys = Vec::new();
    for block in Pem::iter_from_buffer(bytes) {
        let block = block.map_err(|_| KeyError::Form)?;
        let material = match block.label.as_str() {
            "PUBLIC KEY" => {
                let (_, info) =
                    SubjectPublicKeyInfo::from_der(&block.contents).map_err(|_| KeyError::Form)?;
                of_info(&info)?
            }
            "CERTIFICATE" => {
                let certificate = block.parse_x509().map_err(|_| KeyError::Form)?;
                of_info(certificate.public_key())?
            }
            label if label.contains("PRIVATE KEY") => return Err(KeyError::Private),
            _ => return Err(KeyError::Form),
        };
        keys.push(Key { id: None, material });
    }
    if keys.is_empty() { Err(KeyError::Form) } else { Ok(keys) }
}

fn of_info(info: &SubjectPublicKeyInfo<'_>) -> Result<Material, KeyError> {
    if info.algorithm.algorithm.to_id_string() == OID_ED25519 {
        return ed25519(&info.subject_public_key.data);
    }
    match info.parsed() {
        Ok(Parsed::RSA(key)) => rsa(key.modulus, key.exponent),
        Ok(Parsed::EC(point)) => {
            let parameters = info.algorithm.parameters.as_ref();
            let curve = parameters.and_then(|any| any.as_oid().ok());
            match curve.is_some_and(|oid| oid.to_id_string() == OID_P256) {
                true => p256(point.data().into()),
                false => Err(KeyError::Kind("another curve")),
            }
        }
        _ => Err(KeyError::Kind("another kind")),
    }
}

/// RFC 7517 §5, or one key alone.
#[derive(Deserialize)]
struct Jwks {
    #[serde(default)]
    keys: Vec<Jwk>,
}

/// RFC 7518 §6 and RFC 8037 §2, as far as it is needed.
#[derive(Deserialize)]
struct Jwk {
    kty: Box<str>,
    kid: Option<Box<str>>,
    #[serde(rename = "use")]
    usage: Option<Box<str>>,
    crv: Option<Box<str>>,
    n: Option<Box<str>>,
    e: Option<Box<str>>,
    x: Option<Box<str>>,
    y: Option<Box<str>>,
    /// Of a private key; its value is not kept.
    d: Option<serde::de::IgnoredAny>,
}

fn of_jwks(bytes: &[u8]) -> Result<Vec<Key>, KeyError> {
    let mut set: Jwks = serde_json::from_slice(bytes).map_err(|_| KeyError::Form)?;
    if set.keys.is_empty()
        && let Ok(single) = serde_json::from_slice::<Jwk>(bytes)
    {
        set.keys.push(single);
    }
    // A set has keys for other purposes too.
    let signs = |key: &Jwk| key.usage.as_deref().is_none_or(|usage| usage == "sig");
    set.keys.into_iter().filter(signs).map(of_jwk).collect()
}

fn of_jwk(jwk: Jwk) -> Result<Key, KeyError> {
    if jwk.d.is_some() {
        return Err(KeyError::Private);
    }
    let part = |text: &Option<Box<str>>| {
        let text = text.as_deref().ok_or(KeyError::Form)?;
        URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError::Form)
    };
    let material = match (&*jwk.kty, jwk.crv.as_deref()) {
        ("RSA", _) => rsa(&part(&jwk.n)?, &part(&jwk.e)?)?,
        ("EC", Some("P-256")) => {
            let point = [vec![4], part(&jwk.x)?, part(&jwk.y)?].concat();
            p256(point.into())?
        }
        ("OKP", Some("Ed25519")) => ed25519(&part(&jwk.x)?)?,
        ("oct", _) => return Err(KeyError::Kind("a shared secret, which nobody could publish")),
        _ => return Err(KeyError::Kind("another kind")),
    };
    Ok(Key { id: jwk.kid, material })
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Material, KeyError> {
    let (modulus, exponent) = (without_zeros(modulus), without_zeros(exponent));
    if !RSA_BYTES.contains(&modulus.len()) || exponent.is_empty() {
        return Err(KeyError::Kind("RSA of another length"));
    }
    Ok(Material::Rsa { modulus: modulus.into(), exponent: exponent.into() })
}

fn p256(point: Box<[u8]>) -> Result<Material, KeyError> {
    let is_whole = point.len() == 1 + 2 * P256_BYTES && point.first() == Some(&4);
    if is_whole {
        Ok(Material::P256(point))
    } else {
        Err(KeyError::Kind("a point in another form"))
    }
}

fn ed25519(key: &[u8]) -> Result<Material, KeyError> {
    match key.len() {
        ED25519_BYTES => Ok(Material::Ed25519(key.into())),
        _ => Err(KeyError::Kind("Ed25519 of another length")),
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let first = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    number.get(first..).unwrap_or_default()
}
