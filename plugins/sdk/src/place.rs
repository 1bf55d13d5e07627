//! The second question: where content is stored.

use std::time::Duration;

use crate::resolver::Kind;

/// Content that is about to be stored, or has just been; valid during `place`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PlaceRequest<'a> {
    /// [`Kind::Manifest`] or [`Kind::Blob`].
    pub kind: Kind,
    /// When this is asked.
    pub moment: Moment,
    /// Where it comes from, by its canonical name; `None`: it is hosted here.
    pub upstream: Option<&'a str>,
    /// What the repository is called there, or here.
    pub repository: &'a str,
    /// `sha256:...`, if known yet.
    pub digest: Option<&'a str>,
    /// Of a manifest, if known yet.
    pub media_type: Option<&'a str>,
    /// In bytes, if known yet.
    pub size: Option<u64>,
}

impl<'a> PlaceRequest<'a> {
    /// A blob of unknown size that is about to be fetched, for tests; the fields can be set.
    pub fn blob(upstream: &'a str, repository: &'a str, digest: &'a str) -> PlaceRequest<'a> {
        PlaceRequest {
            kind: Kind::Blob,
            moment: Moment::Store,
            upstream: Some(upstream),
            repository,
            digest: Some(digest),
            media_type: None,
            size: None,
        }
    }
}

/// When a placement is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Moment {
    /// The content is not stored and about to be fetched or received.
    Store,
    /// It is verified and stored: only requests to write it elsewhere have an effect.
    Stored,
    /// One that a newer host knows; the number is the ABI's.
    Other(u32),
}

/// Where content goes, and for how long. The default is the server's own choice in everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Placement<'a> {
    /// What becomes of it.
    pub class: Class,
    /// One of [`Setup::pools`](crate::Setup::pools).
    pub pool: Option<&'a str>,
    /// How long after it was stored it makes room first of all, pinned or not; until then it is
    /// served. Whole milliseconds, not 0.
    pub ttl: Option<Duration>,
    /// From -10 to 10: each step doubles what keeping it is worth.
    pub priority: i32,
}

/// What becomes of content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// Kept as long as it is worth its room.
    #[default]
    Cache,
    /// Not evicted to make room before its `ttl` is over.
    Pinned,
    /// Streamed to who asks and not stored; not for hosted content.
    PassThrough,
}

/// A request to a remote tier, signed and ready to be sent as it stands.
#[derive(Clone, Copy, Debug)]
pub struct Remote<'a> {
    /// What it is for.
    pub purpose: Purpose,
    /// `GET` to read, `PUT` or `POST` to write.
    pub method: &'a str,
    /// Below one of [`Setup::remote_tiers`](crate::Setup::remote_tiers).
    pub url: &'a str,
    /// Names and values, at most 16; without Host, Content-Length and those of framing.
    pub headers: &'a [(&'a str, &'a str)],
    /// It is not sent after this, in milliseconds since 1970; `None`: it does not expire.
    pub expires_unix_ms: Option<u64>,
}

/// What a request to a remote tier is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To read the content there before the upstream is asked; at [`Moment::Store`].
    Read,
    /// To write it there after the commit; at [`Moment::Stored`].
    Write,
}
