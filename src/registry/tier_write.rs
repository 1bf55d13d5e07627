//! Writing stored content to remote tiers, behind the clients' backs: a bounded queue, a few
//! writers, no promise. What waits when the process ends is dropped.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use futures_util::FutureExt;

use super::Lease;
use super::state::Registry;
use super::tiers::{TierOutcome, signed};
use crate::oci::{Digest, Scope};
use crate::plugin::{PlaceRequest, RemotePurpose, RemoteRequest};
use crate::runtime::{File, sleep, spawn};
use crate::upstream::Upload;

/// Contents that wait to be written. One more is not written at all: the next store that misses
/// it offers it again.
const WAITING_MAX: usize = 1024;
/// Contents that are being written at a time, over all workers.
const WRITERS_MAX: usize = 4;
/// Before the one repetition of a request that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Content that has just been stored.
#[derive(Debug, Clone)]
pub(super) struct NewContent {
    pub(super) scope: Scope,
    pub(super) digest: Digest,
    /// Of a manifest; `None` for a blob.
    pub(super) media_type: Option<Arc<str>>,
    pub(super) bytes: u64,
}

/// What waits, and who works it off.
pub(super) struct TierWrites {
    offer: Sender<NewContent>,
    next: Receiver<NewContent>,
    writers: AtomicUsize,
    dropped: AtomicU64,
}

/// One of the few places for writers; given back when dropped.
struct Writer<'a>(&'a TierWrites);

impl Default for TierWrites {
    fn default() -> Self {
        let (offer, next) = crossbeam_channel::bounded(WAITING_MAX);
        Self { offer, next, writers: AtomicUsize::new(0), dropped: AtomicU64::new(0) }
    }
}

impl TierWrites {
    /// Contents that wait to be written.
    pub(super) fn waiting(&self) -> usize {
        self.next.len()
    }

    /// Contents that found the queue full.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Lets it wait, if there is room; whether one more writer is wanted.
    fn take(&self, content: NewContent) -> bool {
        if self.offer.try_send(content).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.writers.load(Ordering::SeqCst) < WRITERS_MAX
    }

    fn writer(&self) -> Option<Writer<'_>> {
        let enter = |writers: usize| (writers < WRITERS_MAX).then_some(writers + 1);
        let entered = self.writers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, enter);
        entered.ok().map(|_| Writer(self))
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.0.writers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Registry {
    /// Offers content that was fetched from an upstream and stored to the remote tiers. Returns
    /// at once.
    pub(super) fn offer_to_tiers(&self, content: NewContent) {
        let shared = self.shared();
        if shared.tiers.is_empty() {
            return;
        }
        if shared.tier_writes.take(content)
            && let Ok(registry) = Registry::current()
        {
            spawn(async move { registry.write_to_tiers().await });
        }
    }

    async fn write_to_tiers(self: Rc<Self>) {
        let writes = &self.shared().tier_writes;
        // Looked at again after the place was given back: what was offered in between came too
        // late for this writer and too early for another one.
        while !writes.next.is_empty() {
            let Some(_writer) = writes.writer() else { return };
            while let Ok(content) = writes.next.try_recv() {
                self.write_content(&content).await;
            }
        }
    }

    /// Asks where this goes now (a signature made when it was offered could be over) and sends it
    /// there.
    async fn write_content(&self, content: &NewContent) {
        let NewContent { scope, digest, media_type, bytes } = content;
        let requests = self.place_stored(&PlaceRequest {
            is_manifest: media_type.is_some(),
            is_stored: true,
            upstream: scope.upstream.as_ref(),
            repository: scope.repository.as_str(),
            digest: Some(digest),
            media_type: media_type.as_deref(),
            size: Some(*bytes),
        });
        let writes = requests.iter().filter(|one| one.purpose == RemotePurpose::Write);
        for request in writes {
            match self.stored_upload(digest).await {
                Ok(Some((upload, _lease))) => {
                    self.write_once_or_twice(request, digest, &upload).await
                }
                // Evicted meanwhile: it was not worth much.
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%digest, %error, "stored content is not written to a remote tier");
                    return;
                }
            }
        }
    }

    /// The stored bytes, to be read in windows as they are sent, and what keeps them meanwhile.
    async fn stored_upload(&self, digest: &Digest) -> io::Result<Option<(Upload, Lease)>> {
        let shared = self.shared();
        let lease = shared.leases.take(digest);
        // With the lease in hand, see leases.rs.
        let Some(entry) = shared.index.blob(digest).hit() else { return Ok(None) };
        let hold = || Box::new(lease.keep_open()) as Box<dyn std::any::Any>;
        let opened = shared.store.open_blob(entry.pool, digest, entry.size, hold).await?;
        let Some(opened) = opened else { return Ok(None) };
        let file = Rc::new(File::from_shared(opened.file)?);
        let upload = Upload::new(opened.size, move |offset, most| {
            let file = file.clone();
            async move { Ok(file.read_at(most, offset).await?.into()) }.boxed_local()
        });
        Ok(Some((upload, lease)))
    }

    async fn write_once_or_twice(&self, request: &RemoteRequest, digest: &Digest, upload: &Upload) {
        const WRITE: RemotePurpose = RemotePurpose::Write;
        for attempt in 1..=2 {
            // After a failed connection it is left alone, and so is this request.
            let tiers = &self.shared().tiers;
            let Some(tier) = tiers.ready(request) else { return };
            let may_repeat = match self.client().write_to_tier(&signed(request), upload).await {
                Ok(200..=299) => {
                    tier.answered();
                    tier.count(WRITE, TierOutcome::Done);
                    tiers.note_written(digest);
                    return;
                }
                Ok(status) => {
                    tier.answered();
                    let reason = format!("{}: status {status}", request.shown_url());
                    tier.failed(WRITE, TierOutcome::Failed, &reason);
                    matches!(status, 408 | 429 | 500..=599)
                }
                Err(error) => {
                    tier.broke(WRITE, &error);
                    true
                }
            };
            if attempt == 2 || !may_repeat {
                return;
            }
            sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::oci::{Algorithm, RepositoryName};

    fn content(n: usize) -> NewContent {
        let repository = RepositoryName::parse("a/b").unwrap();
        let digest = Digest::of(Algorithm::Sha256, n.to_string().as_bytes());
        let scope = Scope { upstream: None, repository };
        NewContent { scope, digest, media_type: None, bytes: 1 }
    }

    #[test]
    fn what_finds_the_queue_full_is_dropped_and_counted() {
        let writes = TierWrites::default();
        assert!((0..WAITING_MAX).all(|n| writes.take(content(n))));
        assert!(!writes.take(content(WAITING_MAX)) && !writes.take(content(WAITING_MAX)));
        assert_eq!((writes.waiting(), writes.dropped()), (WAITING_MAX, 2));
        // What came first is written first.
        assert_eq!(writes.next.try_recv().unwrap().digest, content(0).digest);
        assert!(writes.take(content(WAITING_MAX)));
    }

    #[test]
    fn there_are_only_a_few_writers() {
        let writes = TierWrites::default();
        let mut working: Vec<_> = (0..WRITERS_MAX).map(|_| writes.writer().unwrap()).collect();
        assert!(writes.writer().is_none() && !writes.take(content(1)));
        working.pop();
        assert!(writes.writer().is_some());
    }
}
