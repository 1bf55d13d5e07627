//! Pulling a blob: from the store, or by following its fill.

use std::any::Any;
use std::io;
use std::sync::Arc;

use super::fill_table::Joined;
use super::names::blob_at;
use super::sparse::SparseRead;
use super::state::Registry;
use super::{Content, Fill, Place, Pull, PullError, commit, fill_table};
use crate::catalog::Write;
use crate::http::ByteRange;
use crate::index::{BlobEntry, Lookup, SMALL_BYTES_MAX};
use crate::limits::HOLD_BACK_BYTES;
use crate::oci::{Digest, Scope};
use crate::runtime::{clock, spawn};
use crate::telemetry::CacheResult;
use crate::upstream::{Hops, Method, Request};

/// Looks at store and fills before giving up.
const LOOKS_MAX: usize = 3;
/// No descriptor is left for the process, or for the system; no memory.
const EMFILE: i32 = rustix::io::Errno::MFILE.raw_os_error();
const ENFILE: i32 = rustix::io::Errno::NFILE.raw_os_error();
const ENOMEM: i32 = rustix::io::Errno::NOMEM.raw_os_error();

/// Which blob, where, as one key of the proofs in flight.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ProofKey {
    scope: Scope,
    digest: Digest,
}

/// Content that was found in the store.
pub(super) struct Stored {
    /// Its whole size in bytes.
    pub(super) size: u64,
    /// Its bytes, in memory or in an open file.
    pub(super) content: Content,
}

/// What the client wants of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Its bytes.
    Bytes,
    /// Some of its bytes; sound, and not made void by a condition.
    Range(ByteRange),
    /// Only whether it is there and how long it is.
    Head,
}

impl Registry {
    /// Finds a blob of one repository.
    ///
    /// Stored and linked there: a hit. Stored, but not linked there: the upstream is asked
    /// whether this repository holds it. Not stored: the fill is joined or started; when it breaks
    /// off in the middle, `others` are asked for the rest.
    ///
    /// # Errors
    /// As [`PullError`] says.
    pub async fn pull_blob(
        &self,
        scope: &Scope,
        digest: &Digest,
        wanted: Wanted,
        (others, place): (&[Scope], Place<'_>),
    ) -> Result<Pull, PullError> {
        let mut part = self.part(scope, wanted);
        // Twice, because content may become stored between looking for it and asking for its
        // fill; a third time would mean that its file vanishes as fast as it comes.
        let mut was_refused = false;
        for _ in 0..LOOKS_MAX {
            match self.pull_stored(scope, digest).await {
                Ok(Some(pull)) => return Ok(pull),
                Ok(None) => {}
                Err(PullError::Storage(why)) if scope.upstream.is_some() => {
                    tracing::warn!(%scope, %digest, why, "the store cannot be read; passed by");
                    return self.past_store(scope, digest, wanted).await;
                }
                Err(error) => return Err(error),
            }
            if scope.upstream.is_none() {
                return Err(PullError::BlobUnknown(format!(
                    "the {scope} repository has no blob {digest}"
                )));
            }
            if wanted == Wanted::Head {
                return self.past_store(scope, digest, wanted).await;
            }
            self.expect_not_absent(scope, || scope.blob_key(digest))?;
            let decided = place();
            if !decided.placing.is_kept {
                return self.pass_part(scope, digest, wanted).await;
            }
            let workers = &self.shared().workers;
            let scopes = (scope.clone(), others);
            let decided = (decided, part);
            match fill_table::join_or_start(workers, *digest, scopes, decided).await? {
                Joined::Fill(fill) => match self.follow(fill, (scope, digest), wanted).await? {
                    Some(pull) => return Ok(pull),
                    None => was_refused = true,
                },
                Joined::Sparse(seat) => {
                    match Box::pin(self.read_sparse(seat, (scope, digest), wanted)).await? {
                        SparseRead::Pull(pull) => return Ok(*pull),
                        SparseRead::Whole => part = None,
                        SparseRead::Refused => was_refused = true,
                    }
                }
                Joined::Crowded => return self.pass_part(scope, digest, wanted).await,
                Joined::Stored => {}
            }
        }
        if was_refused {
            return self.pass_part(scope, digest, wanted).await;
        }
        Err(PullError::Storage(format!("stored {digest} cannot be opened; see the log")))
    }

    /// A blob that is stored and belongs to this repository; nobody is asked.
    ///
    /// # Errors
    /// The store's.
    pub async fn stored_blob(
        &self,
        scope: &Scope,
        digest: &Digest,
    ) -> Result<Option<Pull>, PullError> {
        let Some(link) = self.shared().find_link(scope, digest).await? else { return Ok(None) };
        let Some(found) = self.open_stored(scope, digest).await? else { return Ok(None) };
        let age = clock::unix_seconds().saturating_sub(link.linked_at);
        Ok(Some(stored(digest, found, CacheResult::Hit, age)))
    }

    /// From the store: with a link at once, without one after the upstream has answered for it.
    async fn pull_stored(&self, scope: &Scope, digest: &Digest) -> Result<Option<Pull>, PullError> {
        if scope.upstream.is_none() {
            // Of what another repository holds not even its state is told.
            return self.stored_blob(scope, digest).await;
        }
        let Some(found) = self.open_stored(scope, digest).await? else { return Ok(None) };
        if let Some(link) = self.shared().find_link(scope, digest).await? {
            let age = clock::unix_seconds().saturating_sub(link.linked_at);
            return Ok(Some(stored(digest, found, CacheResult::Hit, age)));
        }
        let size = self.prove(scope, digest).await?;
        if size != found.size {
            return Err(wrong_size(digest, scope, size, found.size));
        }
        commit::link(self.shared(), scope, digest).await?;
        Ok(Some(stored(digest, found, CacheResult::Revalidated, 0)))
    }

    /// Follows a download of this upstream, started for this repository or for another one. `None`
    /// when it was refused to the other one: that says nothing of those who have proven their right.
    async fn follow(
        &self,
        fill: Arc<Fill>,
        (scope, digest): (&Scope, &Digest),
        wanted: Wanted,
    ) -> Result<Option<Pull>, PullError> {
        if fill.scope == *scope {
            let size = match announced(&fill).await {
                Ok(size) => size,
                Err(PullError::NoRoom(_) | PullError::Storage(_)) => {
                    return self.pass_part(scope, digest, wanted).await.map(Some);
                }
                Err(error) => return Err(error),
            };
            return self.filling(fill, (scope, digest), wanted, size).await.map(Some);
        }
        // Another repository's download may be followed only by those to whom the upstream would
        // have given the content in their own.
        let proven = self.prove(scope, digest).await?;
        let size = match announced(&fill).await {
            Ok(size) => size,
            Err(PullError::NoRoom(_) | PullError::Storage(_)) => {
                return self.pass_part(scope, digest, wanted).await.map(Some);
            }
            Err(PullError::BlobUnknown(_) | PullError::Denied(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        if size != proven {
            return Err(wrong_size(digest, scope, proven, size));
        }
        let (shared, proven_scope, kept) = (self.shared().clone(), scope.clone(), fill.clone());
        spawn(async move {
            if kept.is_kept().await
                && let Err(error) = commit::link(&shared, &proven_scope, &kept.digest).await
            {
                tracing::warn!(%error, scope = %proven_scope, "a proven link was not kept");
            }
        });
        self.filling(fill, (scope, digest), wanted, size).await.map(Some)
    }

    /// What the upstream has of it, while the store is left alone.
    async fn past_store(
        &self,
        scope: &Scope,
        digest: &Digest,
        wanted: Wanted,
    ) -> Result<Pull, PullError> {
        if wanted != Wanted::Head {
            return self.pass_part(scope, digest, wanted).await;
        }
        let size = self.prove(scope, digest).await?;
        Ok(pull(digest, size, Content::HeadOnly, CacheResult::Miss, 0))
    }

    /// Finds stored content for somebody in `scope`: small content in memory, else its file, opened.
    /// Forgets cached content when its file is gone, has the wrong size, or (small content) the
    /// wrong bytes: it can be fetched again. Names of hosted content are left to `ringport verify`.
    ///
    /// # Errors
    /// It is there but cannot be had now: [`PullError::Busy`], or [`PullError::Storage`] where the
    /// upstream can be asked instead.
    pub(super) async fn open_stored(
        &self,
        scope: &Scope,
        digest: &Digest,
    ) -> Result<Option<Stored>, PullError> {
        let shared = self.shared();
        let mut small = Vec::new();
        let found = shared.index.blob_and_small(digest, &mut small);
        let found = found.map(|(entry, is_small)| {
            if !is_small {
                small.clear();
            }
            entry
        });
        let Some(mut entry) = shared.confirm_blob(scope, digest, found).await? else {
            return Ok(None);
        };
        let checked = self.may_use(digest, &entry).await.map_err(|error| match error {
            PullError::Storage(why) => unreadable(scope, why),
            error => error,
        });
        if !checked? {
            return Ok(None);
        }
        let now = clock::unix_seconds();
        if !small.is_empty() {
            shared.index.touch(digest, now);
            return Ok(Some(Stored { size: entry.size, content: Content::Memory(small.into()) }));
        }
        let mut stored = self.read_stored(scope, digest, &entry).await?;
        if stored.is_none() {
            // It may have been evicted and have come again since it was looked up: then its name
            // is right, perhaps in another pool, and removing it would leave a file behind that
            // nothing counts.
            let Some(again) = shared.find_blob(scope, digest).await? else { return Ok(None) };
            entry = again;
            stored = self.read_stored(scope, digest, &entry).await?;
        }
        if stored.is_some() {
            shared.index.touch(digest, now);
        } else {
            self.forget(scope, digest, &entry).await?;
        }
        Ok(stored)
    }

    /// There is no right file for a name.
    async fn forget(
        &self,
        scope: &Scope,
        digest: &Digest,
        entry: &BlobEntry,
    ) -> Result<(), PullError> {
        if entry.is_hosted {
            tracing::error!(%digest, "hosted content has no right file; run `ringport verify`");
            return Err(unreadable(scope, format!("the file of hosted {digest} is not right")));
        }
        let write = Write::RemoveBlob(blob_at(digest, entry));
        let gone = self.shared().catalog.write(vec![write], false).await;
        if let Err(error) = gone {
            tracing::warn!(%digest, %error, "the catalog goes on naming a file that is gone");
        }
        Ok(())
    }

    /// From its file, which makes small content known to the index; `None` when that is not there.
    async fn read_stored(
        &self,
        scope: &Scope,
        digest: &Digest,
        entry: &BlobEntry,
    ) -> Result<Option<Stored>, PullError> {
        // None of these is the fault of the content: a disk, its way or this process fails.
        self.read_file(digest, entry).await.map_err(|error| {
            let why = format!("stored {digest} cannot be read: {error}");
            match error.raw_os_error() {
                // What comes next would lack the same.
                Some(EMFILE | ENFILE | ENOMEM) | None => PullError::Busy(why),
                Some(_) => unreadable(scope, why),
            }
        })
    }

    async fn read_file(
        &self,
        digest: &Digest,
        &BlobEntry { size, pool, is_hosted, .. }: &BlobEntry,
    ) -> io::Result<Option<Stored>> {
        let shared = self.shared();
        if size > SMALL_BYTES_MAX as u64 {
            let lease = shared.leases.take(digest);
            // With the lease in hand, see leases.rs: who evicts it after this counts it as there.
            // Hosted content is never evicted, and a miss of the index proves nothing of it.
            if !is_hosted && shared.index.blob(digest) == Lookup::Miss {
                return Ok(None);
            }
            let hold = || Box::new(lease.keep_open()) as Box<dyn Any>;
            let opened = shared.store.open_blob(pool, digest, size, hold).await?;
            return Ok(opened.map(|blob| Stored { size, content: Content::Stored(blob, lease) }));
        }
        let Some(bytes) = shared.store.read_small(pool, digest, size).await? else {
            return Ok(None);
        };
        shared.catalog.offer(*digest, bytes.clone());
        Ok(Some(Stored { size, content: Content::Memory(bytes) }))
    }

    /// Asks the upstream whether this repository holds the blob; returns its size. One question
    /// at a time for all who ask.
    pub(super) async fn prove(&self, scope: &Scope, digest: &Digest) -> Result<u64, PullError> {
        self.expect_not_absent(scope, || scope.blob_key(digest))?;
        let key = ProofKey { scope: scope.clone(), digest: *digest };
        let (proof, hops) = (key.clone(), Hops::current());
        let proofs = &self.shared().proofs;
        proofs.run(key, move || hops.carry(async move { ask_size(proof).await })).await?
    }
}

/// Waits for the size; of content so small that no byte of it may be read before it is whole, for
/// all of it. Nothing is lost by that, and until the client has an answer another candidate, or
/// the way past the store, can still take over.
async fn announced(fill: &Fill) -> Result<u64, PullError> {
    match fill.size().await? {
        size if size <= HOLD_BACK_BYTES => fill.outcome().await,
        size => Ok(size),
    }
}

async fn ask_size(ProofKey { scope, digest }: ProofKey) -> Result<u64, PullError> {
    let registry = Registry::current()?;
    let Some(upstream) = &scope.upstream else {
        return Err(PullError::BlobUnknown(format!("{scope} has no blob {digest}")));
    };
    let request = Request::new(
        Method::Head,
        format!("/v2/{}/blobs/{digest}", scope.repository),
        scope.repository.clone(),
    );
    let response =
        registry.client().exchange(upstream, request).await.map_err(|e| PullError::from(&e))?;
    match (response.status, response.content_length) {
        (200, Some(size)) => Ok(size),
        (404, _) => Err(registry.shared().note_absent_blob(&scope, &digest)),
        (200, None) => {
            Err(PullError::wrong_content(&digest, &scope, "HEAD answered without Content-Length"))
        }
        (status, _) => Err(PullError::wrong_content(
            &digest,
            &scope,
            &format!("unexpected status {status} for HEAD of a blob"),
        )),
    }
}

/// Content that is there and cannot be read now. Of what is ours nobody else can be asked.
fn unreadable(scope: &Scope, why: String) -> PullError {
    if scope.upstream.is_some() { PullError::Storage(why) } else { PullError::Busy(why) }
}

pub(super) fn wrong_size(digest: &Digest, scope: &Scope, announced: u64, found: u64) -> PullError {
    let what = format!("announced with {announced} bytes, but the content has {found}");
    PullError::wrong_content(digest, scope, &what)
}

fn stored(digest: &Digest, Stored { size, content }: Stored, cache: CacheResult, age: u64) -> Pull {
    pull(digest, size, content, cache, age)
}

pub(super) fn pull(
    digest: &Digest,
    size: u64,
    content: Content,
    cache: CacheResult,
    age: u64,
) -> Pull {
    Pull { digest: *digest, media_type: None, size, content, cache, age, overdue: 0, warning: None }
}
