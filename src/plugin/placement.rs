//! Where content goes: what `place` is asked and what it answers, in checked types.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::oci::{Digest, Namespace};

/// Content that is about to be stored, or has just been.
#[derive(Clone, Copy, Debug)]
pub struct PlaceRequest<'a> {
    /// A manifest, and not a blob.
    pub is_manifest: bool,
    /// It is verified and stored: only requests to write it elsewhere have an effect.
    pub is_stored: bool,
    /// Where it comes from; `None`: it is hosted here.
    pub upstream: Option<&'a Namespace>,
    /// What the repository is called there, or here.
    pub repository: &'a str,
    /// If known yet.
    pub digest: Option<&'a Digest>,
    /// Of a manifest, if known yet.
    pub media_type: Option<&'a str>,
    /// In bytes, if known yet.
    pub size: Option<u64>,
}

/// Where content goes, and for how long. The default is what holds when no plugin was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// What becomes of it.
    pub class: StorageClass,
    /// The name of a declared pool; `None`: the store's choice.
    pub pool: Option<Arc<str>>,
    /// How long after its commit it makes room first of all, pinned or not; `None`: no such bound.
    pub ttl: Option<Duration>,
    /// From -10 to 10: each step doubles what keeping it is worth.
    pub priority: i32,
    /// Requests to remote tiers, in order of preference; at most 4.
    pub remotes: Vec<RemoteRequest>,
    /// Which of the plugin's rules decided; at most 256 bytes.
    pub rule: String,
    /// The plugin that answered, by its name in the configuration; empty: none.
    pub plugin: String,
}

/// What becomes of content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StorageClass {
    /// Kept as long as it is worth its room.
    #[default]
    Cache,
    /// Not evicted to make room before its `ttl` is over.
    Pinned,
    /// Streamed to who asks and not stored.
    PassThrough,
}

impl StorageClass {
    /// The word for it in explanations.
    pub fn as_str(self) -> &'static str {
        match self {
            StorageClass::Cache => "cache",
            StorageClass::Pinned => "pinned",
            StorageClass::PassThrough => "pass-through",
        }
    }
}

/// A request to a declared remote tier, signed and ready to be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteRequest {
    /// What it is for.
    pub purpose: RemotePurpose,
    /// `GET`, `PUT` or `POST`.
    pub method: &'static str,
    /// Below a declared origin; the query may hold a signature.
    pub url: String,
    /// Names in lower case and values, which may be secrets.
    pub headers: Vec<(String, String)>,
    /// Not to be sent after this.
    pub expires: Option<SystemTime>,
}

/// What a request to a remote tier is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemotePurpose {
    /// To read the content there before the upstream is asked.
    Read,
    /// To write it there after the commit.
    Write,
}

impl RemoteRequest {
    /// The URL without its query: what may be shown.
    pub fn shown_url(&self) -> &str {
        self.url.split('?').next().unwrap_or_default()
    }
}

/// Without the query and the headers' values.
impl std::fmt::Debug for RemoteRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteRequest")
            .field("purpose", &self.purpose)
            .field("method", &self.method)
            .field("url", &self.shown_url())
            .field("headers", &self.headers.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("expires", &self.expires)
            .finish()
    }
}
