//! Reading a manifest just far enough to know what it is and what it points to.
//!
//! Bytes are never changed or written again from what is read here; this only decides whether
//! they may be kept and served under their media type.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::digest::{Digest, DigestError};
use super::media_type;
use crate::limits::MANIFEST_BYTES_MAX;

/// A manifest that may be stored: of one kind, under the media type it says itself.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The media type to store and serve it with, without parameters.
    pub media_type: String,
    /// What it points to, in order: config and layers of an image manifest, manifests of an index.
    /// Empty for schema 1, whose `fsLayers` have neither size nor type.
    pub descriptors: Vec<Descriptor>,
    /// The manifest that this one refers to.
    pub subject: Option<Descriptor>,
    /// What kind of artifact it is, as the referrers list shows it: `artifactType`, or for an
    /// image manifest without one, the media type of its config (distribution-spec, "Listing
    /// Referrers").
    pub artifact_type: Option<String>,
    /// The `annotations` object as JSON text, as it stands in the document.
    pub annotations: Option<Box<str>>,
}

/// A pointer to content (image-spec, "Content Descriptors").
///
/// What `urls` says is not among the fields on purpose: nothing here ever follows them
/// (CVE-2020-15157).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Digest of the content.
    pub digest: Digest,
    /// Length of the content, in bytes.
    pub size: u64,
    /// Type of the content.
    pub media_type: String,
    /// What kind of artifact it is, if the content is a manifest and says so.
    pub artifact_type: Option<String>,
    /// The `annotations` object as JSON text, as it stands in the document.
    pub annotations: Option<Box<str>>,
    /// Whether it says that the content can be had elsewhere.
    pub has_urls: bool,
}

/// Why bytes are not a manifest that may be kept.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Over [`MANIFEST_BYTES_MAX`]. On push: 413.
    #[error("a manifest has at most {MANIFEST_BYTES_MAX} bytes; this one has {0}")]
    TooLarge(usize),
    /// The `Content-Type` is no manifest's: an HTML page with status 200, for example.
    #[error("expected the Content-Type of a manifest or image index, found {0:?}")]
    NotManifestType(String),
    /// JSON is UTF-8 (RFC 8259 §8.1).
    #[error("the manifest is not UTF-8 text: {0}")]
    NotUtf8(#[from] std::str::Utf8Error),
    /// Not JSON, not an object, a field of a wrong type, or the same field twice.
    #[error("the manifest is not the JSON object that its type asks for: {0}")]
    Json(#[from] serde_json::Error),
    /// A field in another case: some readers would take it for the real one.
    #[error("the manifest has a field {found:?}, which some readers take for {expected:?}")]
    AmbiguousField {
        /// As found.
        found: String,
        /// The field it can be taken for.
        expected: &'static str,
    },
    /// Two different fields of the same name.
    #[error("the manifest has the field {0:?} twice")]
    RepeatedField(String),
    /// `Content-Type` and `mediaType` disagree (CVE-2021-41190).
    #[error("the Content-Type is {content_type:?}, but the manifest's mediaType is {media_type:?}")]
    MediaTypeDiffers {
        /// From the header.
        content_type: String,
        /// From the document.
        media_type: String,
    },
    /// A field that belongs to another kind of manifest (CVE-2021-41190).
    #[error("a document of type {media_type} must not have the field {field:?}")]
    ForeignField {
        /// The document's type.
        media_type: String,
        /// The field.
        field: &'static str,
    },
    /// A field without which a document of this type makes no sense.
    #[error("a document of type {media_type} must have the field {field:?}")]
    MissingField {
        /// The document's type.
        media_type: String,
        /// The field.
        field: &'static str,
    },
    /// `schemaVersion` is not the one of the type.
    #[error("a document of type {media_type} has schemaVersion {expected}; found {found}")]
    SchemaVersion {
        /// The document's type.
        media_type: String,
        /// The version it must have.
        expected: u64,
        /// The version found.
        found: u64,
    },
    /// A descriptor's digest is malformed or of an unknown algorithm.
    #[error("the manifest points to content by a digest that is none: {0}")]
    Digest(#[from] DigestError),
}

/// The fields of all kinds that decide something. Their spelling is exact.
const FIELDS: [&str; 11] = [
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "fsLayers",
    "blobs",
    "subject",
    "annotations",
    "history",
];

impl Manifest {
    /// What the document itself says that it is, for bytes that came from somebody who does not
    /// know. `None` when it says nothing, or is no JSON object.
    pub fn own_media_type(bytes: &[u8]) -> Option<String> {
        #[derive(Deserialize)]
        struct Typed {
            #[serde(rename = "mediaType")]
            media_type: Option<String>,
        }
        serde_json::from_slice::<Typed>(bytes).ok()?.media_type
    }

    /// What a manifest is that came without a word about it: what it says itself, else an index or
    /// an OCI image, by what it names. It has to be checked against this.
    pub fn likely_media_type(bytes: &[u8]) -> String {
        #[derive(Deserialize)]
        struct Shape {
            manifests: Option<IgnoredAny>,
        }
        Self::own_media_type(bytes).unwrap_or_else(|| {
            let shape = serde_json::from_slice::<Shape>(bytes).ok();
            let is_index = shape.is_some_and(|shape| shape.manifests.is_some());
            if is_index { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST }.to_owned()
        })
    }

    /// Checks `bytes` against the media type they came with. Time and memory are linear in the
    /// length of `bytes`, which is checked first.
    ///
    /// `content_type` may carry parameters; they are dropped.
    ///
    /// # Errors
    /// See [`ManifestError`]. Unknown fields are no error: the spec has readers ignore them.
    pub fn check(bytes: &[u8], content_type: &str) -> Result<Self, ManifestError> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        let media_type = media_type::without_parameters(content_type);
        if !media_type::is_manifest_type(media_type) {
            return Err(ManifestError::NotManifestType(content_type.chars().take(100).collect()));
        }
        // As a whole, because the JSON reader doesn't look into the fields that it skips.
        let text = std::str::from_utf8(bytes)?;
        let fields: Fields<'_> = serde_json::from_str(text)?;
        fields.check(media_type)?;
        let document: Document<'_> = serde_json::from_str(text)?;
        if let Some(own) = &document.media_type
            && own != media_type
        {
            return Err(ManifestError::MediaTypeDiffers {
                content_type: media_type.to_owned(),
                media_type: own.chars().take(100).collect(),
            });
        }
        let expected = if media_type::is_schema1_type(media_type) { 1 } else { 2 };
        if let Some(found) = document.schema_version
            && found != expected
        {
            let media_type = media_type.to_owned();
            return Err(ManifestError::SchemaVersion { media_type, expected, found });
        }
        document.into_manifest(media_type)
    }
}

/// The names of the document's fields, each once.
struct Fields<'a>(HashSet<Cow<'a, str>>, Option<String>);

impl Fields<'_> {
    fn check(&self, media_type: &str) -> Result<(), ManifestError> {
        if let Some(repeated) = &self.1 {
            return Err(ManifestError::RepeatedField(repeated.clone()));
        }
        for found in &self.0 {
            // Go's decoder, which most clients use, matches field names without regard to case
            // and takes the last one: such a document means different things to different readers.
            let twin = FIELDS.iter().find(|known| folds_to(found, known));
            if let Some(expected) = twin.filter(|expected| *expected != found) {
                let found = found.chars().take(100).collect();
                return Err(ManifestError::AmbiguousField { found, expected });
            }
        }
        let (required, foreign): (&[_], &[_]) = if media_type::is_index_type(media_type) {
            (&["manifests"], &["config", "layers", "fsLayers", "blobs"])
        } else if media_type::is_schema1_type(media_type) {
            (&["fsLayers"], &["config", "layers", "manifests", "blobs"])
        } else {
            (&["config", "layers"], &["manifests", "fsLayers", "blobs"])
        };
        if let Some(field) = foreign.iter().find(|field| self.0.contains(**field)) {
            return Err(ManifestError::ForeignField { media_type: media_type.to_owned(), field });
        }
        match required.iter().find(|field| !self.0.contains(**field)) {
            Some(field) => {
                Err(ManifestError::MissingField { media_type: media_type.to_owned(), field })
            }
            None => Ok(()),
        }
    }
}

/// Equality as Go's JSON decoder sees it: ASCII case, and the two letters outside ASCII that fold
/// into it (long s, Kelvin sign).
fn folds_to(found: &str, known: &str) -> bool {
    let fold = |letter: char| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    found.chars().map(fold).eq(known.chars().map(fold))
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Fields<'de>, M::Error> {
                let mut fields = Fields(HashSet::new(), None);
                while let Some(Name(name)) = map.next_key()? {
                    map.next_value::<IgnoredAny>()?;
                    if let Some(repeated) = fields.0.replace(name) {
                        fields.1 = Some(repeated.chars().take(100).collect());
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// A field name, borrowed unless it was written with escapes.
#[derive(Deserialize, PartialEq, Eq, Hash)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    #[serde(borrow)]
    config: Option<RawDescriptor<'a>>,
    #[serde(borrow)]
    layers: Option<Vec<RawDescriptor<'a>>>,
    #[serde(borrow)]
    manifests: Option<Vec<RawDescriptor<'a>>>,
    #[serde(borrow)]
    subject: Option<RawDescriptor<'a>>,
    #[serde(borrow)]
    annotations: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor<'a> {
    #[serde(borrow)]
    digest: Cow<'a, str>,
    size: u64,
    #[serde(default)]
    media_type: String,
    artifact_type: Option<String>,
    #[serde(borrow)]
    annotations: Option<&'a RawValue>,
    urls: Option<Vec<IgnoredAny>>,
}

impl Document<'_> {
    fn into_manifest(self, media_type: &str) -> Result<Manifest, ManifestError> {
        let config_type = self.config.as_ref().map(|config| config.media_type.clone());
        let pointers = self.config.into_iter().chain(self.layers.into_iter().flatten());
        let pointers = pointers.chain(self.manifests.into_iter().flatten());
        Ok(Manifest {
            media_type: media_type.to_owned(),
            descriptors: pointers.map(RawDescriptor::check).collect::<Result<_, _>>()?,
            subject: self.subject.map(RawDescriptor::check).transpose()?,
            artifact_type: non_empty(self.artifact_type).or(non_empty(config_type)),
            annotations: self.annotations.map(|json| json.get().into()),
        })
    }
}

impl RawDescriptor<'_> {
    fn check(self) -> Result<Descriptor, ManifestError> {
        Ok(Descriptor {
            digest: Digest::parse(&self.digest)?,
            size: self.size,
            media_type: self.media_type,
            artifact_type: non_empty(self.artifact_type),
            annotations: self.annotations.map(|json| json.get().into()),
            has_urls: self.urls.is_some_and(|urls| !urls.is_empty()),
        })
    }
}

fn non_empty(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
