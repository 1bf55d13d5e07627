//! An answer, before it is bytes.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::auth::Principal;
use crate::index::SmallAt;
use crate::oci::{Digest, Namespace, Reference, RepositoryName};
use crate::registry::{Fill, Lease, Passing, SparseReader, Tail};
use crate::telemetry::{CacheResult, Decision, RouteKind};

/// Headers of most answers, or fewer.
const HEADERS_USUAL: usize = 8;

/// Status, headers and where the body comes from.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Headers besides Date, Content-Length, Connection and those of `content`.
    pub headers: Vec<(&'static str, Value)>,
    /// What `ETag` and `Docker-Content-Digest` name.
    pub content: Option<Digest>,
    /// The Content-Length, also of an answer to HEAD; `None` for 304, which has none.
    pub length: Option<u64>,
    /// The body; [`Body::Empty`] for HEAD.
    pub body: Body,
    /// What log and metrics say about it.
    pub facts: Facts,
}

/// What stands behind a header's name. It becomes text when the head is written, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// The same in all answers: the whole line, with name and CR LF. See `ready`.
    Line(&'static str),
    /// A text of this answer, or of many.
    Text(Cow<'static, str>),
    /// A text that others have, too.
    Shared(Arc<str>),
    /// A number.
    Number(u64),
}

/// A header whose line is written in one piece, for [`Answer::add`]: for those that
/// stand in nearly all answers.
macro_rules! ready {
    ($name:literal, $value:literal) => {
        ($name, crate::api::Value::Line(concat!($name, ": ", $value, "\r\n")))
    };
}
pub(super) use ready;

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<Cow<'static, str>> for Value {
    fn from(text: Cow<'static, str>) -> Self {
        Self::Text(text)
    }
}

impl From<Arc<str>> for Value {
    fn from(text: Arc<str>) -> Self {
        Self::Shared(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => {
                f.pad(line.split_once(": ").map_or("", |(_, value)| value.trim_end()))
            }
            Self::Text(text) => f.pad(text),
            Self::Shared(text) => f.pad(text),
            Self::Number(number) => fmt::Display::fmt(number, f),
        }
    }
}

/// Where the bytes of an answer are.
#[derive(Debug)]
pub enum Body {
    /// There are none.
    Empty,
    /// In memory: errors, documents, manifests that have just arrived.
    Memory(Bytes),
    /// In the index, from where it is copied behind the head: if it is there still ([`Api::copy`]).
    ///
    /// [`Api::copy`]: crate::api::Api::copy
    InIndex {
        /// Which.
        content: SmallAt,
        /// First byte to send.
        first: u64,
        /// How many.
        length: u64,
    },
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

/// What happened, for access log and metrics. Where there is no access log, kind and part of the cache are
/// all that is filled in for sure.
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
        let headers = Vec::with_capacity(HEADERS_USUAL);
        Self { status, headers, content: None, length: Some(0), body: Body::Empty, facts }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same in place, for answers that are made many times a second: moving one costs as much as adding
    /// to it.
    pub(super) fn add(&mut self, (name, value): (&'static str, Value)) {
        self.headers.push((name, value));
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
