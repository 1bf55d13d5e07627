//! The use cases: answering a pull from the store or from an upstream, and keeping what came.
//!
//! ```text
//! pull_blob      hit → stored file; miss → join or start the fill and follow it
//! at_hand        a manifest that nobody has to be asked for, without a wait
//! pull_manifest  tag: fresh → stored; stale → revalidate; missing → fetch; digest: never again
//! sparse         a blob of which parts are asked for before the rest is there
//! fill           one download of one blob, followed by any number of clients on any worker
//! tier_read      remote tiers are asked before the upstream, and
//! tier_write     written after the commit, as a plugin signed it
//! commit         the only place where bytes become visible: verified, then catalog, then index
//! scrub          reads everything again, sets damage aside (`ringport verify`)
//! collect        frees what no tag leads to, and what was left behind (`ringport gc`)
//! push           what clients put into hosted repositories, and take away
//! lists          tags/list and referrers: as a tag, from what is kept or from the upstream (relay)
//! hosted_lists   the same of what is ours, and the catalog: from our own names
//! ```
//!
//! May import: everything below (`oci`, `http`, `config`, `runtime`, `telemetry`, `index`, `catalog`,
//! `storage`, `transfer`, `upstream`, `plugin`), never `api` or `server`.
//!
//! **Invariant:** a failing upstream is never turned into "not found", and never into an answer
//! of another upstream than the route names.
//! **Invariant:** stored content is served to a repository only with a link, that is after that
//! upstream has answered for it in that repository, or a plugin has signed where to read it for
//! that repository. Knowing a digest is no permission.
//! **Invariant:** a fill belongs to no client. It goes on when all of them have left.
//! **Invariant:** what cannot be verified is never completed: followers get at most all but the
//! last `HOLD_BACK_BYTES` of it. Only parts of a blob that were asked for as such, of an upstream
//! whose configuration says so, are given out as they come.
//!
//! Deliberately absent: HTTP status codes and headers (`api` maps [`PullError`] to them).

mod absent;
mod account;
mod at_hand;
mod collect;
mod commit;
mod durability;
mod error;
pub mod eviction;
mod fetch_manifest;
mod fill;
mod fill_arriving;
mod fill_download;
mod fill_table;
mod fill_turns;
mod freshness;
mod hosted_lists;
mod index_feed;
mod leases;
mod lists;
mod make_room;
mod names;
mod needs;
mod passing;
mod placing;
mod pull_blob;
mod pull_manifest;
mod push;
mod relay;
mod relay_referrers;
mod resting;
mod revalidation;
mod rooms;
mod rules;
mod scrub;
mod space;
mod sparse;
mod state;
mod take_room;
mod tier_read;
mod tier_write;
mod tiers;
mod upkeep;

pub use collect::{Freed, GRACE_SECONDS, GcReport, Pruned, QUARANTINE_SECONDS};
pub use error::PullError;
pub use fill::{Fill, Tail};
pub use freshness::{Freshness, immutable_by};
pub use hosted_lists::{PageAsk, ReferrersPage};
pub use index_feed::{Due, IndexFeed};
pub use leases::{Lease, Leases};
pub use lists::{List, ListAsk, ListKind};
pub use passing::Passing;
pub use placing::{Decided, Place, Placing};
pub use pull_blob::Wanted;
pub use pull_manifest::OnFailure;
pub use push::{
    ManifestPut, ManifestStored, PushError, Pushes, SentRange, UploadStatus, Uploader, Uploads,
};
pub use rules::HostedRules;
pub use scrub::VerifyReport;
pub use space::{RoomRequest, Space, SpaceLimits};
pub use sparse::{Found, SparseReader};
pub use state::{Placer, Registry, Shared, SharedParts};
pub use tiers::TierCount;
pub use upkeep::{Problems, Progress, ProgressNow, PushGate, Upkeep};

use std::sync::Arc;

use bytes::Bytes;

use crate::index::SmallAt;
use crate::oci::Digest;
use crate::storage::OpenBlob;
use crate::telemetry::CacheResult;

/// Content found for a pull.
#[derive(Debug)]
pub struct Pull {
    /// Its digest.
    pub digest: Digest,
    /// The media type of a manifest, exactly as the upstream gave it; `None` for blobs.
    pub media_type: Option<Arc<str>>,
    /// Its whole size in bytes.
    pub size: u64,
    /// Where its bytes are.
    pub content: Content,
    /// How it was found.
    pub cache: CacheResult,
    /// Seconds since an upstream last vouched for it.
    pub age: u64,
    /// Seconds by which its time is over, if it is served before the upstream is asked; else 0.
    pub overdue: u64,
    /// Why it is served although stale, for a `Warning` header.
    pub warning: Option<String>,
}

/// Where the bytes of a pull are.
#[derive(Debug)]
pub enum Content {
    /// A verified file of the store, and what keeps it there while it is read.
    Stored(OpenBlob, Lease),
    /// Small verified content: from the index, or a manifest that has just arrived.
    Memory(Bytes),
    /// Small verified content that lies in the index.
    InIndex(SmallAt),
    /// A verified manifest that has just arrived, and is in no store.
    Unkept(Bytes),
    /// A blob that is arriving.
    Filling(Arc<Fill>, Tail),
    /// A part of one that arrives in parts.
    Sparse(SparseReader),
    /// A blob that the store has no room for, on its way through.
    Passing(Box<Passing>),
    /// Only its size is known (a HEAD answered by the upstream), or asked for.
    HeadOnly,
}
