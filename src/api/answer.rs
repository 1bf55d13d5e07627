//! An answer, before it is bytes.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;

use crate::auth::Principal;
use crate::oci::{Namespace, Reference, RepositoryName};
use crate::registry::{Fill, Lease, Passing, SparseReader, Tail};
use crate::telemetry::{CacheResult, Decision, RouteKind};

/// Status, headers and where the body comes from.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Headers besides Date, Content-Length and Connection.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// The Content-Length, also of an answer to HEAD; `None` for 304, which has none.
    pub length: Option<u64>,
    /// The body; [`Body::Empty`] for HEAD.
    pub body: Body,
    /// What log and metrics say about it.
    pub facts: Facts,
}

/// Where the bytes of an answer are.
#[derive(Debug)]
pub enum Body {
    /// There are none.
    Empty,
    /// In memory: errors, documents, manifests that have just arrived.
    Memory(Bytes),
    /// In a file of the store.
    File {
        /// The file.
        file: Arc<std::fs::File>,
        /// First byte to send.
        first: u64,
        /// How many.
        length: u64,
        /// What keeps it in the store until it is sent.
        lease: Lease,
    },
    /// Coming from the upstream, past the store. Taken out once, when it is sent.
    Passing(RefCell<Option<Box<Passing>>>),
    /// In a blob that is still arriving.
    Filling {
        /// The download.
        fill: Arc<Fill>,
        /// What may be sent of it before it has been verified.
        tail: Tail,
        /// First byte to send.
        first: u64,
        /// How many.
        length: u64,
    },
    /// In a blob that arrives in parts.
    Sparse {
        /// Who reads it.
        reader: SparseReader,
        /// First byte to send.
        first: u64,
        /// How many.
        length: u64,
    },
}

/// What happened, for access log and metrics.
#[derive(Debug, Clone)]
pub struct Facts {
    /// What was asked for.
    pub route_kind: RouteKind,
    /// How the cache took part.
    pub cache: CacheResult,
    /// The canonical namespace it was routed to; `None` for hosted or when nothing was routed.
    pub upstream: Option<Namespace>,
    /// The repository there.
    pub repository: Option<RepositoryName>,
    /// Tag or digest.
    pub reference: Option<Reference>,
    /// Who asked; `None` for somebody unknown.
    pub user: Option<Arc<str>>,
    /// The registry that the header `X-Dragonfly-Registry` named.
    pub header_ns: Option<Namespace>,
    /// What the resolvers decided; `None` when they were not asked.
    pub decision: Option<Arc<dyn Decision>>,
}

impl Facts {
    /// Nothing is known yet but the kind and who asks.
    pub(super) fn by(principal: &Principal, route_kind: RouteKind) -> Self {
        Self { user: principal.shared_name(), ..Self::of(route_kind) }
    }

    /// Nothing is known yet but the kind.
    pub fn of(route_kind: RouteKind) -> Self {
        Self {
            route_kind,
            cache: CacheResult::None,
            upstream: None,
            repository: None,
            reference: None,
            user: None,
            header_ns: None,
            decision: None,
        }
    }
}

impl Answer {
    /// An answer without headers and body.
    pub fn new(status: u16, facts: Facts) -> Self {
        Self { status, headers: Vec::with_capacity(12), length: Some(0), body: Body::Empty, facts }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sets a body that is in memory, with its type.
    #[must_use]
    pub fn memory(mut self, content_type: &'static str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        self.length = Some(bytes.len() as u64);
        self.body = Body::Memory(bytes);
        self.header("Content-Type", content_type)
    }

    /// For HEAD: the same head, no body.
    #[must_use]
    pub fn without_body(mut self) -> Self {
        self.body = Body::Empty;
        self
    }
}
