//! The records that only hosted content has: what refers to it, uploads under way, and what was
//! deleted. The index knows none of them.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use redb::TableDefinition;

use super::CatalogError;
use super::record::{ScopedKey, damaged, scope};
use crate::oci::{Digest, Reference, Scope};

/// Most bytes that a referrer's record may hold in its media type, artifact type and annotations.
/// A list of referrers is made of these records, and must not grow with what manifests contain.
pub const REFERRER_BYTES_MAX: usize = 64 << 10;

/// How long a tombstone is kept: longer than any request or background work that could have begun
/// before the delete goes on.
pub const TOMBSTONE_SECONDS: u64 = 7 * 24 * 3600;

pub(super) type ReferrerKey = (&'static str, &'static str, &'static str, &'static str);

/// (artifact type or "", size in bytes, media type, annotations as JSON or nothing).
pub(super) type ReferrerValue = (&'static str, u64, &'static str, &'static [u8]);

/// (upstream or "", repository, digest of the subject, digest of the referrer) → referrer.
pub(super) const REFERRERS: TableDefinition<'_, ReferrerKey, ReferrerValue> =
    TableDefinition::new("referrers.v1");

/// (upstream or "", repository, owner or "", started at, last active at, bytes confirmed, pool),
/// times in Unix seconds.
pub(super) type UploadValue = (&'static str, &'static str, &'static str, u64, u64, u64, u8);

/// id in hexadecimal → upload.
pub(super) const UPLOADS: TableDefinition<'_, &str, UploadValue> =
    TableDefinition::new("uploads.v2");

/// ("", repository, digest or tag) → (deleted at in Unix seconds, number of the commit).
pub(super) const TOMBSTONES: TableDefinition<'_, ScopedKey, (u64, u64)> =
    TableDefinition::new("tombstones.v1");

/// A manifest that names another one as its subject, with what a list of referrers says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferrerRecord {
    /// The repository of both.
    pub scope: Scope,
    /// The manifest referred to. It need not be there.
    pub subject: Digest,
    /// The manifest that refers to it. Whoever removes its link removes this record with it.
    pub referrer: Digest,
    /// The referrer's artifact type, if it has one.
    pub artifact_type: Option<String>,
    /// The referrer's size in bytes.
    pub size: u64,
    /// The referrer's media type.
    pub media_type: String,
    /// The referrer's annotations as they stand in it, a JSON object of strings; empty if it has
    /// none. Together with the two types at most [`REFERRER_BYTES_MAX`] bytes.
    pub annotations: Bytes,
}

/// Names an upload session. Not to be guessed, but no proof of any right either.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UploadId([u8; 16]);

/// An upload that has begun and is neither finished nor cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRecord {
    /// Which.
    pub id: UploadId,
    /// The repository it is for.
    pub scope: Scope,
    /// Who began it, as the access check calls them; empty for nobody in particular.
    pub owner: String,
    /// When it began, Unix seconds.
    pub started_at: u64,
    /// When its client was last heard of, Unix seconds; it expires by this.
    pub last_active_at: u64,
    /// Bytes from its beginning that are on the disk.
    pub confirmed: u64,
    /// The pool that holds them.
    pub pool: u8,
}

/// A hosted tag, or hosted content of a repository, that was there and was deleted.
///
/// It keeps a deleted name from coming back by what began before the delete: a slow push, or work
/// in the background that saw the name while it was there. Both write by
/// [`Catalog::write_unless_deleted`](super::Catalog::write_unless_deleted), which refuses them; a
/// plain write is not refused. Whatever finds a file without a name asks
/// [`Catalog::find_tombstone`](super::Catalog::find_tombstone) before it gives it one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TombstoneRecord {
    /// The repository; its upstream is always `None`.
    pub scope: Scope,
    /// The tag, or the digest of the content.
    pub name: Reference,
    /// When, Unix seconds.
    pub deleted_at: u64,
    /// The commit that deleted it.
    pub(super) commit: u64,
}

impl ReferrerRecord {
    /// A record for [`Write::RemoveReferrer`](super::Write::RemoveReferrer), of which only the key
    /// counts.
    pub fn key(scope: Scope, subject: Digest, referrer: Digest) -> Self {
        let (media_type, annotations) = (String::new(), Bytes::new());
        Self { scope, subject, referrer, artifact_type: None, size: 0, media_type, annotations }
    }

    /// Whether the catalog can keep it.
    pub(super) fn check(&self) -> Result<(), CatalogError> {
        let artifact_type = self.artifact_type.as_deref().unwrap_or("");
        let checked = check_referrer(artifact_type, &self.media_type, &self.annotations);
        checked.map_err(|cause| {
            let key = format!("referrer {}@{} of {}", self.scope, self.referrer, self.subject);
            CatalogError::Refused { key, cause }
        })
    }

    pub(super) fn read(
        key: (&str, &str, &str, &str),
        (artifact_type, size, media_type, annotations): (&str, u64, &str, &[u8]),
    ) -> Result<Self, CatalogError> {
        let damaged = |cause| CatalogError::Record {
            key: format!("referrer {}/{}@{} of {}", key.0, key.1, key.3, key.2),
            cause,
        };
        check_referrer(artifact_type, media_type, annotations).map_err(damaged)?;
        Ok(Self {
            scope: scope(key.0, key.1).map_err(damaged)?,
            subject: Digest::parse(key.2).map_err(|e| damaged(e.to_string()))?,
            referrer: Digest::parse(key.3).map_err(|e| damaged(e.to_string()))?,
            artifact_type: (!artifact_type.is_empty()).then(|| artifact_type.to_owned()),
            size,
            media_type: media_type.to_owned(),
            annotations: Bytes::copy_from_slice(annotations),
        })
    }

    /// Bytes of text in it.
    pub(super) fn weight(&self) -> usize {
        let artifact_type = self.artifact_type.as_ref().map_or(0, String::len);
        artifact_type + self.media_type.len() + self.annotations.len()
    }
}

fn check_referrer(artifact_type: &str, media_type: &str, annotations: &[u8]) -> Result<(), String> {
    let found = artifact_type.len() + media_type.len() + annotations.len();
    if found > REFERRER_BYTES_MAX {
        return Err(format!(
            "its types and annotations may have {REFERRER_BYTES_MAX} bytes together, and have \
             {found}; annotate it with less"
        ));
    }
    if annotations.is_empty() {
        return Ok(());
    }
    serde_json::from_slice::<HashMap<String, String>>(annotations)
        .map(drop)
        .map_err(|error| format!("its annotations are no JSON object of strings: {error}"))
}

impl UploadId {
    /// A new one: 128 bits of the operating system's randomness.
    ///
    /// # Errors
    /// The operating system has none to give.
    pub fn random() -> std::io::Result<Self> {
        let mut id = [0; 16];
        // So few bytes come whole or not at all.
        let got = rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
        if got == id.len() { Ok(Self(id)) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Reads 32 lower-case hexadecimal digits; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(is_digit) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(Self::from_number)
    }

    /// The same as a number.
    pub fn number(&self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    /// The id of this number.
    pub fn from_number(number: u128) -> Self {
        Self(number.to_be_bytes())
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.number())
    }
}

impl fmt::Debug for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl UploadRecord {
    pub(super) fn read(
        key: &str,
        (upstream, repository, owner, started_at, last_active_at, confirmed, pool): (
            &str,
            &str,
            &str,
            u64,
            u64,
            u64,
            u8,
        ),
    ) -> Result<Self, CatalogError> {
        let damaged = |cause| CatalogError::Record { key: format!("upload {key}"), cause };
        let id = UploadId::parse(key)
            .ok_or_else(|| damaged("an id has 32 hexadecimal digits".to_owned()))?;
        let scope = scope(upstream, repository).map_err(damaged)?;
        let owner = owner.to_owned();
        Ok(Self { id, scope, owner, started_at, last_active_at, confirmed, pool })
    }
}

impl TombstoneRecord {
    pub(super) fn read(
        key: (&str, &str, &str),
        (deleted_at, commit): (u64, u64),
    ) -> Result<Self, CatalogError> {
        let damaged = |cause: String| damaged("tombstone", key, cause);
        Ok(Self {
            scope: scope(key.0, key.1).map_err(damaged)?,
            name: Reference::parse(key.2).map_err(|e| damaged(e.to_string()))?,
            deleted_at,
            commit,
        })
    }
}
