//! What a manifest request names: a tag or a digest (distribution-spec, "Pulling manifests").

use std::fmt;
use std::sync::Arc;

use super::digest::{Digest, DigestError};
use crate::limits::TAG_BYTES_MAX;

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`. Cheap to clone. No tag name is special.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

/// Why a text is not a tag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// Nothing there.
    #[error("the tag is empty; expected for example latest")]
    Empty,
    /// More than [`TAG_BYTES_MAX`] bytes.
    #[error("a tag has at most {TAG_BYTES_MAX} bytes; this one has {0}")]
    TooLong(usize),
    /// A byte that the grammar doesn't allow at that place.
    #[error("a tag is [a-zA-Z0-9_][a-zA-Z0-9._-]*; byte {at} is something else")]
    Character {
        /// Offset of the first wrong byte.
        at: usize,
    },
}

impl Tag {
    /// Parses the spec's grammar; nothing is normalised.
    pub fn parse(text: &str) -> Result<Self, TagError> {
        if text.is_empty() {
            return Err(TagError::Empty);
        }
        if text.len() > TAG_BYTES_MAX {
            return Err(TagError::TooLong(text.len()));
        }
        let allowed = |(at, byte): (usize, u8)| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => true,
            b'.' | b'-' => at > 0,
            _ => false,
        };
        match text.bytes().enumerate().find(|pair| !allowed(*pair)) {
            Some((at, _)) => Err(TagError::Character { at }),
            None => Ok(Self(text.into())),
        }
    }

    /// The tag under which registries without the referrers API keep the list for `subject`:
    /// `<algorithm>-<hash>`, the hash cut to 64 characters (distribution-spec, "Referrers tag
    /// schema").
    pub fn referrers_fallback(subject: &Digest) -> Self {
        let mut hex = subject.hex();
        hex.truncate(64);
        Self(format!("{}-{hex}", subject.algorithm()).into())
    }

    /// The tag's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The last path segment of a manifest request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reference {
    /// A name that may move.
    Tag(Tag),
    /// The content itself.
    Digest(Digest),
}

/// Why a text is neither a tag nor a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It holds a colon, so it was meant as a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// It holds no colon, so it was meant as a tag.
    #[error(transparent)]
    Tag(#[from] TagError),
}

impl Reference {
    /// A text with a colon is a digest, one without is a tag: a tag can't hold a colon.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.contains(':') {
            Ok(Self::Digest(Digest::parse(text)?))
        } else {
            Ok(Self::Tag(Tag::parse(text)?))
        }
    }

    /// The tag, if it is one.
    pub fn as_tag(&self) -> Option<&Tag> {
        match self {
            Self::Tag(tag) => Some(tag),
            Self::Digest(_) => None,
        }
    }

    /// The digest, if it is one.
    pub fn as_digest(&self) -> Option<&Digest> {
        match self {
            Self::Digest(digest) => Some(digest),
            Self::Tag(_) => None,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => fmt::Display::fmt(tag, f),
            Self::Digest(digest) => fmt::Display::fmt(digest, f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn tags_of_the_grammar_are_taken_as_they_stand() {
        let longest = "a".repeat(128);
        for text in ["latest", "v1.2-rc_3", "_", "0", "A", "a..b--c", &longest, "sha256-abc"] {
            assert_eq!(Tag::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn other_tags_are_refused_with_the_place() {
        let cases = [
            ("", TagError::Empty),
            (".hidden", TagError::Character { at: 0 }),
            ("-x", TagError::Character { at: 0 }),
            ("..", TagError::Character { at: 0 }),
            ("a b", TagError::Character { at: 1 }),
            ("a/b", TagError::Character { at: 1 }),
            ("a+b", TagError::Character { at: 1 }),
            ("a%2e", TagError::Character { at: 1 }),
            ("a\0", TagError::Character { at: 1 }),
            ("é", TagError::Character { at: 0 }),
        ];
        for (text, expected) in cases {
            assert_eq!(Tag::parse(text), Err(expected), "{text:?}");
        }
        assert_eq!(Tag::parse(&"a".repeat(129)), Err(TagError::TooLong(129)));
    }

    #[test]
    fn a_colon_makes_it_a_digest() {
        let digest = Digest::of(Algorithm::Sha256, b"");
        assert_eq!(Reference::parse(&digest.to_string()), Ok(Reference::Digest(digest)));
        assert!(matches!(Reference::parse("sha256"), Ok(Reference::Tag(_))));
        assert!(matches!(Reference::parse("sha256:zz"), Err(ReferenceError::Digest(_))));
        assert!(matches!(Reference::parse("a:b"), Err(ReferenceError::Digest(_))));
        assert!(matches!(Reference::parse("a b"), Err(ReferenceError::Tag(_))));
    }

    #[test]
    fn the_referrers_tag_is_a_tag() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let subject = Digest::of(algorithm, b"");
            let tag = Tag::referrers_fallback(&subject);
            assert_eq!(Tag::parse(tag.as_str()), Ok(tag.clone()));
            let expected = format!("{algorithm}-{}", &subject.hex()[..64]);
            assert_eq!(tag.as_str(), expected);
        }
    }
}
