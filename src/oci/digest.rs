//! Content digests: `sha256:<64 hex>` and `sha512:<128 hex>` (image-spec, "Digests").

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;

const SHA256_BYTES: usize = 32;
const SHA512_BYTES: usize = 64;
/// `sha256:` or `sha512:`.
const PREFIX_BYTES: usize = 7;
const TEXT_BYTES_MAX: usize = PREFIX_BYTES + 2 * SHA512_BYTES;

/// A hash algorithm registered by the image-spec that this registry supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, the canonical one.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The name as written before the colon.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            _ => Err(DigestError::UnknownAlgorithm),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The digest of some content: an algorithm and its hash, held as bytes.
///
/// Displayed as `sha256:<lower-case hex>`. Ordered by algorithm, then by hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(Hash);

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Hash {
    Sha256([u8; SHA256_BYTES]),
    Sha512([u8; SHA512_BYTES]),
}

/// Why a text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no colon between algorithm and hash.
    #[error("a digest is <algorithm>:<hex>, for example sha256:e3b0...; there is no colon")]
    NoColon,
    /// The algorithm is not one of ours.
    #[error("the digest's algorithm must be sha256 or sha512, in lower case")]
    UnknownAlgorithm,
    /// The hash has the wrong length.
    #[error("a {algorithm} digest has {expected} hexadecimal digits; this one has {found} bytes")]
    Length {
        /// The algorithm named before the colon.
        algorithm: Algorithm,
        /// Digits it must have.
        expected: usize,
        /// Bytes found after the colon.
        found: usize,
    },
    /// The hash holds something else than `0-9a-f`.
    #[error("a digest is written in lower-case hexadecimal digits (0-9, a-f) only")]
    NotLowerHex,
}

impl Digest {
    /// Parses the exact grammar: `sha256:` and 64, or `sha512:` and 128, lower-case hex digits.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or(DigestError::NoColon)?;
        match algorithm {
            "sha256" => decode_hex(Algorithm::Sha256, hex).map(|bytes| Self(Hash::Sha256(bytes))),
            "sha512" => decode_hex(Algorithm::Sha512, hex).map(|bytes| Self(Hash::Sha512(bytes))),
            _ => Err(DigestError::UnknownAlgorithm),
        }
    }

    /// The digest of `content`, computed at once. For streams use [`Digester`].
    pub fn of(algorithm: Algorithm, content: &[u8]) -> Self {
        let mut digester = Digester::new(algorithm);
        digester.update(content);
        digester.finish()
    }

    /// The SHA-256 digest of these bytes.
    pub const fn from_sha256(hash: [u8; SHA256_BYTES]) -> Self {
        Self(Hash::Sha256(hash))
    }

    /// Which hash this is.
    pub const fn algorithm(&self) -> Algorithm {
        match self.0 {
            Hash::Sha256(_) => Algorithm::Sha256,
            Hash::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The hash: 32 or 64 bytes.
    pub const fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Hash::Sha256(bytes) => bytes,
            Hash::Sha512(bytes) => bytes,
        }
    }

    /// `sha256:<lower-case hex>`, on the stack.
    pub fn text(&self) -> DigestText {
        let mut bytes = [0u8; TEXT_BYTES_MAX];
        let (prefix, digits) = bytes.split_at_mut(PREFIX_BYTES);
        prefix.copy_from_slice(match self.algorithm() {
            Algorithm::Sha256 => b"sha256:",
            Algorithm::Sha512 => b"sha512:",
        });
        for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(self.as_bytes()) {
            *pair = hex_digits(*byte);
        }
        DigestText { bytes, length: PREFIX_BYTES + 2 * self.as_bytes().len() }
    }

    /// The hash in lower-case hexadecimal, without the algorithm.
    pub fn hex(&self) -> String {
        let mut text = String::with_capacity(self.as_bytes().len() * 2);
        for byte in self.as_bytes() {
            for digit in hex_digits(*byte) {
                text.push(char::from(digit));
            }
        }
        text
    }
}

/// The text of a [`Digest`], without an allocation.
#[derive(Clone, Copy)]
pub struct DigestText {
    bytes: [u8; TEXT_BYTES_MAX],
    length: usize,
}

impl DigestText {
    /// `sha256:<lower-case hex>`.
    pub fn as_str(&self) -> &str {
        // ASCII, as it was written.
        self.bytes.get(..self.length).and_then(|text| str::from_utf8(text).ok()).unwrap_or_default()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text().as_str())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::parse(text)
    }
}

/// Computes a [`Digest`] over bytes that arrive piece by piece.
#[derive(Clone)]
pub struct Digester(State);

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Digester {
    /// Starts over no bytes.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }

    /// Which hash it computes.
    pub const fn algorithm(&self) -> Algorithm {
        match self.0 {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Adds the next bytes of the content.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of everything added.
    pub fn finish(self) -> Digest {
        Digest(match self.0 {
            State::Sha256(state) => Hash::Sha256(state.finalize().into()),
            State::Sha512(state) => Hash::Sha512(state.finalize().into()),
        })
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            State::Sha256(_) => "Digester(sha256)",
            State::Sha512(_) => "Digester(sha512)",
        })
    }
}

fn hex_digits(byte: u8) -> [u8; 2] {
    // Not out of a table, so that the compiler writes many at a time.
    let digit = |value: u8| value + if value < 10 { b'0' } else { b'a' - 10 };
    [digit(byte >> 4), digit(byte & 0x0f)]
}

fn decode_hex<const N: usize>(algorithm: Algorithm, hex: &str) -> Result<[u8; N], DigestError> {
    if hex.len() != 2 * N {
        return Err(DigestError::Length { algorithm, expected: 2 * N, found: hex.len() });
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(DigestError::NotLowerHex),
    };
    let mut bytes = [0u8; N];
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        if let [high, low] = pair {
            *byte = value(*high)? << 4 | value(*low)?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_256: &str =
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const EMPTY_512: &str = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce\
                             47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";

    #[test]
    fn text_survives_a_round_trip() {
        for text in [EMPTY_256, EMPTY_512] {
            let digest = Digest::parse(text).unwrap();
            assert_eq!(digest.to_string(), text);
            assert_eq!(format!("{}:{}", digest.algorithm().as_str(), digest.hex()), text);
            assert_eq!(digest, text.parse().unwrap());
        }
        assert_eq!(Digest::parse(EMPTY_256).unwrap().as_bytes().len(), 32);
        assert_eq!(Digest::parse(EMPTY_512).unwrap().as_bytes().len(), 64);
    }

    #[test]
    fn digester_agrees_with_known_vectors_in_any_split() {
        assert_eq!(Digest::of(Algorithm::Sha256, b"").to_string(), EMPTY_256);
        assert_eq!(Digest::of(Algorithm::Sha512, b"").to_string(), EMPTY_512);
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for split in 0..=3 {
            let mut digester = Digester::new(Algorithm::Sha256);
            digester.update(&b"abc"[..split]);
            digester.update(&b"abc"[split..]);
            assert_eq!(digester.finish().to_string(), abc);
        }
    }

    #[test]
    fn anything_but_the_exact_grammar_is_refused() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let length =
            |algorithm, expected, found| DigestError::Length { algorithm, expected, found };
        let cases = [
            (String::new(), DigestError::NoColon),
            (hex.to_owned(), DigestError::NoColon),
            (format!("sha1:{hex}"), DigestError::UnknownAlgorithm),
            (format!("SHA256:{hex}"), DigestError::UnknownAlgorithm),
            (format!("sha256 :{hex}"), DigestError::UnknownAlgorithm),
            (format!("blake3:{hex}"), DigestError::UnknownAlgorithm),
            (format!(":{hex}"), DigestError::UnknownAlgorithm),
            ("sha256:".to_owned(), length(Algorithm::Sha256, 64, 0)),
            ("sha256:zz".to_owned(), length(Algorithm::Sha256, 64, 2)),
            (format!("sha256:{hex}0"), length(Algorithm::Sha256, 64, 65)),
            (format!("sha256:{hex}\n"), length(Algorithm::Sha256, 64, 65)),
            (format!("sha512:{hex}"), length(Algorithm::Sha512, 128, 64)),
            (format!("sha256:{}", hex.to_uppercase()), DigestError::NotLowerHex),
            (format!("sha256:{}g", &hex[1..]), DigestError::NotLowerHex),
            (format!("sha256:../{}", &hex[3..]), DigestError::NotLowerHex),
            (format!("sha256:é{}", &hex[2..]), DigestError::NotLowerHex),
        ];
        for (text, expected) in cases {
            assert_eq!(Digest::parse(&text), Err(expected), "{text}");
        }
    }

    #[test]
    fn digests_of_two_algorithms_never_compare_equal() {
        let short = Digest::of(Algorithm::Sha256, b"x");
        let long = Digest::of(Algorithm::Sha512, b"x");
        assert_ne!(short, long);
        assert!(short < long);
    }
}
