//! Pulling a blob: from the store, or by following its fill.

use super::state::Registry;
use super::{Content, Pull, PullError, commit, fill_table};
use crate::oci::{Digest, Scope};
use crate::runtime::clock;
use crate::storage::OpenBlob;
use crate::telemetry::CacheResult;
use crate::upstream::{Accept, Method, Request};

/// Which blob, where, as one key of the proofs in flight.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ProofKey {
    scope: Scope,
    digest: Digest,
}

/// What the client wants of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Its bytes.
    Bytes,
    /// Only whether it is there and how long it is.
    Head,
}

impl Registry {
    /// Finds a blob of one repository.
    ///
    /// Stored and linked there: a hit. Stored, but not linked there: the upstream is asked
    /// whether this repository holds it. Not stored: the fill is joined or started.
    ///
    /// # Errors
    /// As [`PullError`] says.
    pub async fn pull_blob(
        &self,
        scope: &Scope,
        digest: &Digest,
        wanted: Wanted,
    ) -> Result<Pull, PullError> {
        if let Some(link) = self.shared().index.link(scope, digest)
            && let Some(blob) = self.open_stored(digest).await?
        {
            let age = clock::unix_seconds().saturating_sub(link.linked_at);
            return Ok(stored(digest, blob, CacheResult::Hit, age));
        }
        if scope.upstream.is_none() {
            return Err(PullError::BlobUnknown(format!(
                "the {scope} repository has no blob {digest}"
            )));
        }
        if let Some(blob) = self.open_stored(digest).await? {
            let size = self.prove(scope, digest).await?;
            if size != blob.size {
                return Err(PullError::wrong_content(
                    digest,
                    scope,
                    &format!("announced with {size} bytes, but it has {}", blob.size),
                ));
            }
            commit::link(self.shared(), scope, digest, blob.size).await?;
            return Ok(stored(digest, blob, CacheResult::Revalidated, 0));
        }
        if wanted == Wanted::Head {
            let size = self.prove(scope, digest).await?;
            return Ok(pull(digest, size, Content::HeadOnly, CacheResult::Miss, 0));
        }
        self.follow_fill(scope, digest).await
    }

    async fn follow_fill(&self, scope: &Scope, digest: &Digest) -> Result<Pull, PullError> {
        let workers = &self.shared().workers;
        let fill = fill_table::join_or_start(workers, *digest, scope.clone()).await?;
        if fill.scope != *scope {
            // Somebody else's download: it may be followed only by those whom the upstream of
            // this repository would have given the content itself.
            self.prove(scope, digest).await?;
        }
        let size = match fill.size().await {
            Ok(size) => size,
            Err(_) if fill.scope != *scope => {
                // The other repository's failure says nothing about ours.
                let own = fill_table::join_or_start(workers, *digest, scope.clone()).await?;
                let size = own.size().await?;
                return Ok(pull(digest, size, Content::Filling(own), CacheResult::Miss, 0));
            }
            Err(error) => return Err(error),
        };
        Ok(pull(digest, size, Content::Filling(fill), CacheResult::Miss, 0))
    }

    /// Opens stored content; forgets it when its file is gone or has the wrong size.
    pub(super) async fn open_stored(&self, digest: &Digest) -> Result<Option<OpenBlob>, PullError> {
        let shared = self.shared();
        let Some(size) = shared.index.blob(digest) else { return Ok(None) };
        let opened =
            shared.store.open_blob(digest, size).await.map_err(|error| {
                PullError::Storage(format!("cannot open stored {digest}: {error}"))
            })?;
        if opened.is_none() {
            shared.index.remove_blob(digest);
        }
        Ok(opened)
    }

    /// Asks the upstream whether this repository holds the blob; returns its size. One question
    /// at a time for all who ask.
    async fn prove(&self, scope: &Scope, digest: &Digest) -> Result<u64, PullError> {
        let key = ProofKey { scope: scope.clone(), digest: *digest };
        let proof = key.clone();
        self.shared().proofs.run(key, move || async move { ask_size(proof).await }).await?
    }
}

async fn ask_size(ProofKey { scope, digest }: ProofKey) -> Result<u64, PullError> {
    let registry = Registry::current()?;
    let Some(upstream) = &scope.upstream else {
        return Err(PullError::BlobUnknown(format!("{scope} has no blob {digest}")));
    };
    let request = Request {
        method: Method::Head,
        path: format!("/v2/{}/blobs/{digest}", scope.repository),
        query: None,
        accept: Accept::Any,
        range: None,
        if_none_match: None,
        repository: scope.repository.clone(),
    };
    let response =
        registry.client().exchange(upstream, request).await.map_err(|e| PullError::from(&e))?;
    match (response.status, response.content_length) {
        (200, Some(size)) => Ok(size),
        (404, _) => Err(PullError::BlobUnknown(format!("{scope} does not know blob {digest}"))),
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

fn stored(digest: &Digest, blob: OpenBlob, cache: CacheResult, age: u64) -> Pull {
    let size = blob.size;
    pull(digest, size, Content::Stored(blob), cache, age)
}

fn pull(digest: &Digest, size: u64, content: Content, cache: CacheResult, age: u64) -> Pull {
    Pull { digest: *digest, media_type: None, size, content, cache, age, warning: None }
}
