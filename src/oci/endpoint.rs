//! Request targets of the distribution API, read into types (distribution-spec, "Endpoints").
//!
//! This is the only place where a path or a query is percent-decoded, and it happens once: a name
//! that was encoded twice keeps a `%`, which no grammar allows.

use std::sync::Arc;

use super::digest::{Algorithm, Digest, DigestError};
use super::error_code::ErrorCode;
use super::name::{NameError, PathName};
use super::namespace::{Namespace, NamespaceError};
use super::reference::{Reference, ReferenceError, TagError};
use crate::limits::PUSH_TAGS_MAX;

mod push_query;
mod query;

pub use push_query::tags_of;
use query::{Query, SlashRule, decode, push_parameter};

const ARTIFACT_TYPE: &str = "artifactType";

/// A request target that belongs to the distribution API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What is asked for.
    pub target: Target,
    /// The registry the client meant, from `ns=`.
    pub ns: Option<Namespace>,
    /// `ns` as received, where normalising changed it; read it through [`Endpoint::ns_received`].
    ns_as_received: Option<Arc<str>>,
    /// For tag lists and referrers: the query to relay, made again from what was read, so it holds
    /// no `ns` and has one form for one meaning. `None` when there is nothing to relay.
    pub query_without_ns: Option<String>,
}

/// What an [`Endpoint`] addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `/v2/` or `/v2`: is this a registry?
    Base,
    /// `/v2/_catalog`.
    Catalog {
        /// Page size asked for, lowered to [`crate::limits::PAGE_ENTRIES_MAX`].
        n: Option<u32>,
        /// The list goes on after this entry.
        last: Option<String>,
    },
    /// `/v2/<name>/manifests/<reference>`.
    Manifest {
        /// Repository, perhaps behind a host.
        name: PathName,
        /// Which manifest.
        reference: Reference,
    },
    /// `/v2/<name>/blobs/<digest>`.
    Blob {
        /// Repository, perhaps behind a host.
        name: PathName,
        /// Which blob.
        digest: Digest,
    },
    /// `/v2/<name>/tags/list`.
    TagsList {
        /// Repository, perhaps behind a host.
        name: PathName,
        /// Page size asked for, lowered to [`crate::limits::PAGE_ENTRIES_MAX`].
        n: Option<u32>,
        /// The list goes on after this tag.
        last: Option<String>,
    },
    /// `/v2/<name>/referrers/<digest>`.
    Referrers {
        /// Repository, perhaps behind a host.
        name: PathName,
        /// The subject.
        digest: Digest,
        /// Only artifacts of this type.
        artifact_type: Option<String>,
        /// Page size asked for, lowered to [`crate::limits::PAGE_ENTRIES_MAX`].
        n: Option<u32>,
        /// The list goes on after this digest.
        last: Option<String>,
    },
    /// `/v2/<name>/blobs/uploads/[<session>]`.
    Upload {
        /// Repository, perhaps behind a host.
        name: PathName,
        /// The session's text, not yet looked at; `None` opens a new one.
        session: Option<String>,
        /// What the query asks of it.
        asked: Box<UploadAsked>,
    },
}

/// The parameters of an upload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadAsked {
    /// `digest`: what the content must hash to.
    pub digest: Option<Digest>,
    /// `mount`: what is to be taken from another repository.
    pub mount: Option<Digest>,
    /// `from`: that repository, perhaps behind a host.
    pub from: Option<PathName>,
    /// `digest-algorithm`: what the content is going to be named by.
    pub algorithm: Option<Algorithm>,
}

/// Why a request target is refused. [`EndpointError::code`] and [`EndpointError::status`] say how
/// to answer it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a path of the distribution API.
    #[error("no such endpoint; the distribution API lives under /v2/")]
    NoSuchEndpoint,
    /// `%` without two hexadecimal digits, bytes that are not UTF-8, or an encoded slash.
    #[error("the request target has a malformed percent-encoding, or an encoded slash")]
    Encoding,
    /// The repository name is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A digest is malformed.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// A tag is malformed. No manifest can have it, so reading it finds nothing.
    #[error("{error}")]
    Tag {
        /// What is wrong with it.
        error: TagError,
        /// Whether the request only reads.
        read: bool,
    },
    /// `ns` is malformed.
    #[error("the query parameter ns is no namespace: {0}")]
    Ns(#[from] NamespaceError),
    /// A query parameter that decides something is there more than once.
    #[error("the query parameter {0} may be given only once")]
    Repeated(&'static str),
    /// More tags in one push than are taken.
    #[error("a push binds at most {PUSH_TAGS_MAX} tags; bind the others with another one")]
    TooManyTags,
    /// A query value that can't be used.
    #[error("the query parameter {key} must be {expected}")]
    QueryValue {
        /// Which parameter.
        key: &'static str,
        /// What it must be.
        expected: &'static str,
    },
}

impl EndpointError {
    /// The OCI error code of the answer.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoSuchEndpoint
            | Self::Repeated(_)
            | Self::QueryValue { .. }
            | Self::TooManyTags => ErrorCode::Unsupported,
            Self::Encoding | Self::Name(_) | Self::Ns(_) => ErrorCode::NameInvalid,
            Self::Digest(_) => ErrorCode::DigestInvalid,
            Self::Tag { read: true, .. } => ErrorCode::ManifestUnknown,
            Self::Tag { read: false, .. } => ErrorCode::ManifestInvalid,
        }
    }

    /// The HTTP status of the answer: 400, 404 or 414.
    pub fn status(&self) -> u16 {
        match self {
            Self::NoSuchEndpoint | Self::Tag { read: true, .. } => 404,
            Self::TooManyTags => 414,
            _ => 400,
        }
    }
}

impl Endpoint {
    /// Reads a request target: `path` as sent, `query` without its `?`.
    ///
    /// `reads` tells whether the method only reads (GET, HEAD); a tag that can't exist is then
    /// "not found" instead of "invalid". Query parameters that mean nothing here are ignored.
    ///
    /// # Errors
    /// See [`EndpointError`]; a wrong `ns` is reported before a wrong path.
    pub fn parse(reads: bool, path: &str, query: Option<&str>) -> Result<Self, EndpointError> {
        let query = Query::parse(query.unwrap_or_default())?;
        let (ns, ns_as_received) = match &query.ns {
            None => (None, None),
            Some(text) => {
                let ns = Namespace::parse(text)?;
                let changed = (ns.as_str() != text).then(|| text.as_ref().into());
                (Some(ns), changed)
            }
        };
        // Decoding before splitting is sound because an encoded slash is refused.
        let path = decode(path, SlashRule::Refuse)?;
        let target = parse_path(reads, &path, &query)?;
        let query_without_ns = query_to_relay(&target, &query)?;
        Ok(Self { target, ns, ns_as_received, query_without_ns })
    }

    /// `ns` as the client wrote it, for the `OCI-Namespace` of the answer.
    pub fn ns_received(&self) -> Option<Arc<str>> {
        self.ns_as_received.clone().or_else(|| self.ns.as_ref().map(Namespace::shared))
    }

    /// The query of our own link to the next page of a list that is ours: the client's, but behind
    /// `last`.
    pub fn page_behind(&self, last: &str) -> String {
        let mut query = String::new();
        if let Target::Catalog { n: Some(n), .. }
        | Target::TagsList { n: Some(n), .. }
        | Target::Referrers { n: Some(n), .. } = &self.target
        {
            push_parameter(&mut query, "n", &n.to_string());
        }
        push_parameter(&mut query, "last", last);
        self.next_page(&query)
    }

    /// The query of our own links to what the client asked about: its `ns`, behind a `?`.
    pub fn own_query(&self) -> String {
        let mut query = String::new();
        if let Some(ns) = &self.ns {
            push_parameter(&mut query, "ns", ns.as_str());
            query.insert(0, '?');
        }
        query
    }

    /// The query of our own link to the next page of a list, from the upstream's: with the client's
    /// filter, if the upstream has dropped it, and its `ns`.
    pub fn next_page(&self, next: &str) -> String {
        let mut query = next.to_owned();
        if let Target::Referrers { artifact_type: Some(artifact_type), .. } = &self.target
            && !next.split('&').any(|pair| pair.split('=').next() == Some(ARTIFACT_TYPE))
        {
            push_parameter(&mut query, ARTIFACT_TYPE, artifact_type);
        }
        if let Some(ns) = &self.ns {
            push_parameter(&mut query, "ns", ns.as_str());
        }
        query
    }
}

impl Target {
    /// The repository addressed, where there is one.
    pub fn name(&self) -> Option<&PathName> {
        match self {
            Self::Base | Self::Catalog { .. } => None,
            Self::Manifest { name, .. }
            | Self::Blob { name, .. }
            | Self::TagsList { name, .. }
            | Self::Referrers { name, .. }
            | Self::Upload { name, .. } => Some(name),
        }
    }

    /// The tag or digest of what is addressed, as text; empty where there is none.
    pub fn reference(&self) -> String {
        match self {
            Self::Manifest { reference, .. } => reference.to_string(),
            Self::Blob { digest, .. } | Self::Referrers { digest, .. } => digest.to_string(),
            Self::Base | Self::Catalog { .. } | Self::TagsList { .. } | Self::Upload { .. } => {
                String::new()
            }
        }
    }
}

/// Splits from the right, because a name may itself hold `manifests`, `blobs` or `tags`.
fn parse_path(reads: bool, path: &str, query: &Query<'_>) -> Result<Target, EndpointError> {
    let rest = match path.strip_prefix("/v2") {
        Some("" | "/") => return Ok(Target::Base),
        Some("/_catalog") => {
            return Ok(Target::Catalog { n: query.page_size()?, last: query.last()? });
        }
        // The leading slash stays, so that a missing name splits off as an empty one.
        Some(rest) if rest.starts_with('/') => rest,
        _ => return Err(EndpointError::NoSuchEndpoint),
    };
    let (rest, last) = rest.rsplit_once('/').ok_or(EndpointError::NoSuchEndpoint)?;
    let (name, kind) = rest.rsplit_once('/').ok_or(EndpointError::NoSuchEndpoint)?;
    let name_of = |text: &str| PathName::parse(text.strip_prefix('/').unwrap_or_default());
    match (kind, last) {
        ("blobs", "uploads") => Ok(Target::Upload {
            name: name_of(name)?,
            session: None,
            asked: Box::new(query.upload()?),
        }),
        ("uploads", session) if name.ends_with("/blobs") => Ok(Target::Upload {
            name: name_of(name.strip_suffix("/blobs").unwrap_or_default())?,
            session: (!session.is_empty()).then(|| session.to_owned()),
            asked: Box::new(query.upload()?),
        }),
        ("manifests", reference) => {
            let name = name_of(name)?;
            let reference = Reference::parse(reference).map_err(|error| match error {
                ReferenceError::Digest(error) => EndpointError::Digest(error),
                ReferenceError::Tag(error) => EndpointError::Tag { error, read: reads },
            })?;
            Ok(Target::Manifest { name, reference })
        }
        ("blobs", digest) => {
            Ok(Target::Blob { name: name_of(name)?, digest: Digest::parse(digest)? })
        }
        ("tags", "list") => Ok(Target::TagsList {
            name: name_of(name)?,
            n: query.page_size()?,
            last: query.last()?,
        }),
        ("referrers", digest) => Ok(Target::Referrers {
            name: name_of(name)?,
            digest: Digest::parse(digest)?,
            artifact_type: query.artifact_type()?,
            n: query.page_size()?,
            last: query.last()?,
        }),
        _ => Err(EndpointError::NoSuchEndpoint),
    }
}

/// The parameters of a list as a query, in one order whatever the client's was; or nothing.
fn query_to_relay(target: &Target, given: &Query<'_>) -> Result<Option<String>, EndpointError> {
    let artifact_type = match target {
        Target::TagsList { .. } => &None,
        Target::Referrers { artifact_type, .. } => artifact_type,
        _ => return Ok(None),
    };
    let mut query = String::new();
    if let Some(artifact_type) = artifact_type {
        push_parameter(&mut query, ARTIFACT_TYPE, artifact_type);
    }
    if let Some(n) = given.page_size()? {
        push_parameter(&mut query, "n", &n.to_string());
    }
    if let Some(last) = given.last()? {
        push_parameter(&mut query, "last", &last);
    }
    for (key, value) in given.others()? {
        push_parameter(&mut query, &key, &value);
    }
    Ok((!query.is_empty()).then_some(query))
}

#[cfg(test)]
mod tests;
