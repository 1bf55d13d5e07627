//! The words of the field: digests, names, references, media types, manifests, endpoints.
//!
//! What it is: pure values that exist only when they are valid ("parse, don't validate"), after
//! the OCI distribution-spec (main, 2026) and image-spec 1.1. Text goes in, a typed value or an
//! error that says what was expected comes out.
//!
//! May import: [`crate::limits`], `sha2`, `thiserror`; `serde` only in `manifest` and `error_code`.
//!
//! **Invariant:** no I/O, no clock, no global state; every function is total over its input.
//! **Invariant:** a [`Digest`], [`Namespace`], [`RepositoryName`] or [`Tag`] in hand matches its
//! grammar, so no path, URL, key or header built from one needs another check.
//! **Invariant:** text is percent-decoded at one place ([`Endpoint::parse`]), exactly once.
//! **Invariant:** a [`Manifest`] is either an image manifest, an image index or a legacy schema 1
//! manifest, never two of them (CVE-2021-41190).
//!
//! Deliberately absent: routing (a namespace is a look-up key here, never an address), HTTP
//! framing (`http`), and which upstream exists (`config`).

pub mod digest;
pub mod endpoint;
pub mod error_code;
pub mod manifest;
pub mod media_type;
pub mod name;
pub mod namespace;
pub mod reference;
pub mod scope;

pub use digest::{Algorithm, Digest, DigestError, DigestText, Digester};
pub use endpoint::{Endpoint, EndpointError, Target, UploadAsked, tags_of};
pub use error_code::{ErrorBody, ErrorCode};
pub use manifest::{Descriptor, Manifest, ManifestError};
pub use name::{NameError, PathName, RepositoryName};
pub use namespace::{Namespace, NamespaceError};
pub use reference::{Reference, ReferenceError, Tag, TagError};
pub use scope::{KeyedScope, Scope, ScopeKey};
