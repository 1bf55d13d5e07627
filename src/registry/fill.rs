//! One download in progress, as its followers see it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use event_listener::Event;

use super::space::Reservation;
use super::{Decided, Lease, Placing, PullError};
use crate::limits::HOLD_BACK_BYTES;
use crate::oci::{Digest, Scope};
use crate::plugin::RemoteRequest;
use crate::runtime::clock;

/// A blob that is arriving. Written by one task, followed from any worker; everything in it is
/// set once or only grows, so followers need no lock.
pub struct Fill {
    /// What is being fetched.
    pub digest: Digest,
    /// For which repository it was started.
    pub scope: Scope,
    /// Who else may be asked for the rest of it, in this order, when the one fails in the middle:
    /// the digest decides whose bytes are right.
    pub(super) others: Vec<Scope>,
    /// Where it goes, and on which terms it is kept there.
    pub placing: Placing,
    /// Where it may be read before its upstream is asked, in this order.
    pub(super) reads: Vec<RemoteRequest>,
    started_at: u64,
    opening: OnceLock<Opening>,
    readable: AtomicU64,
    outcome: OnceLock<Result<u64, PullError>>,
    kept: OnceLock<bool>,
    changed: Event,
    // After the file: its bytes are not free before the last follower has gone.
    lease: OnceLock<Lease>,
    place: OnceLock<Reservation>,
}

/// What a follower may have before the digest has been compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// All but the end of its answer.
    Held,
    /// All that may be read: it asked for a part, and its upstream allows that.
    Open,
}

struct Opening {
    size: Option<u64>,
    file: Arc<std::fs::File>,
}

impl Fill {
    pub(super) fn new(
        digest: Digest,
        (scope, others): (Scope, Vec<Scope>),
        Decided { placing, reads }: Decided,
    ) -> Self {
        Self {
            digest,
            scope,
            others,
            placing,
            reads,
            started_at: clock::unix_seconds(),
            opening: OnceLock::new(),
            readable: AtomicU64::new(0),
            outcome: OnceLock::new(),
            kept: OnceLock::new(),
            changed: Event::new(),
            lease: OnceLock::new(),
            place: OnceLock::new(),
        }
    }

    // ---- the task's side ----

    /// The upstream has answered: the size it announced, and the file that grows.
    pub(super) fn opened(&self, size: Option<u64>, file: Arc<std::fs::File>) {
        // A fill opens once only, however often it is resumed; the task checks that the size has not changed.
        if self.opening.set(Opening { size, file }).is_ok() {
            self.changed.notify(usize::MAX);
        }
    }

    /// `written` bytes are in the file, not yet verified: all but the held-back tail of the whole
    /// may be read. Without a size nobody knows where the tail begins, so nothing may.
    pub(super) fn grown(&self, written: u64) {
        if let Some(Opening { size: Some(size), .. }) = self.opening.get() {
            let readable = written.min(size.saturating_sub(HOLD_BACK_BYTES));
            if readable > self.readable.load(Ordering::Relaxed) {
                self.readable.store(readable, Ordering::Release);
                self.changed.notify(usize::MAX);
            }
        }
    }

    /// The digest matches: all `size` bytes may be read.
    pub(super) fn verified(&self, size: u64) {
        self.readable.store(size, Ordering::Release);
        // Only the first outcome counts.
        let _ = self.outcome.set(Ok(size));
        self.changed.notify(usize::MAX);
    }

    /// The content cannot be had; followers are cut short.
    pub(super) fn failed(&self, error: PullError) {
        let _ = self.outcome.set(Err(error));
        self.changed.notify(usize::MAX);
    }

    /// The content is about to be stored: it must not be evicted while followers read its file.
    pub(super) fn lease(&self, lease: Lease) {
        let _ = self.lease.set(lease);
    }

    /// The content will not be stored: its bytes are on the disk until the last follower has gone.
    pub(super) fn keep_place(&self, place: Option<Reservation>) {
        if let Some(place) = place {
            let _ = self.place.set(place);
        }
    }

    /// The content is in the store and the index knows it.
    pub(super) fn stored(&self) {
        let _ = self.kept.set(true);
        self.changed.notify(usize::MAX);
    }

    /// The task is over, whatever came of it.
    pub(super) fn ended(&self) {
        let _ = self.kept.set(false);
        self.failed(PullError::Internal("the fill ended without an outcome".into()));
    }

    // ---- the followers' side ----

    /// Whether the digest of the whole has been compared and matches.
    pub fn is_verified(&self) -> bool {
        matches!(self.outcome.get(), Some(Ok(_)))
    }

    /// Waits for the end of the download.
    ///
    /// # Errors
    /// Why the content cannot be had.
    pub async fn outcome(&self) -> Result<u64, PullError> {
        self.wait(|| self.outcome.get().cloned()).await
    }

    /// Waits until the content is in the store; `false` when it never will be.
    pub(super) async fn is_kept(&self) -> bool {
        self.wait(|| self.kept.get().copied()).await
    }

    /// When the fill was started, Unix seconds.
    pub fn started_at(&self) -> u64 {
        self.started_at
    }

    /// Waits until the whole size is known: at once when the upstream announced it, otherwise at
    /// the end.
    ///
    /// # Errors
    /// The fill failed before its size was known.
    pub async fn size(&self) -> Result<u64, PullError> {
        self.wait(|| match (self.opening.get(), self.outcome.get()) {
            (_, Some(Err(error))) => Some(Err(error.clone())),
            (Some(Opening { size: Some(size), .. }), _) => Some(Ok(*size)),
            (_, Some(Ok(size))) => Some(Ok(*size)),
            _ => None,
        })
        .await
    }

    /// Waits until more than `from` bytes may be read; returns how many may.
    ///
    /// # Errors
    /// The fill failed; what was readable before is right, and nothing more will come.
    pub async fn readable_beyond(&self, from: u64) -> Result<u64, PullError> {
        self.wait(|| {
            let readable = self.readable.load(Ordering::Acquire);
            match self.outcome.get() {
                _ if readable > from => Some(Ok(readable)),
                Some(Err(error)) => Some(Err(error.clone())),
                Some(Ok(size)) => Some(Ok(*size)),
                None => None,
            }
        })
        .await
    }

    /// How many bytes may be read by now.
    pub fn readable(&self) -> u64 {
        self.readable.load(Ordering::Acquire)
    }

    /// The growing file; `None` before the upstream has answered.
    pub fn file(&self) -> Option<&Arc<std::fs::File>> {
        self.opening.get().map(|opening| &opening.file)
    }

    async fn wait<T>(&self, check: impl Fn() -> Option<T>) -> T {
        if let Some(found) = check() {
            return found;
        }
        loop {
            // Listen first, then look: a change between the two is not missed.
            let listener = self.changed.listen();
            if let Some(found) = check() {
                return found;
            }
            listener.await;
        }
    }
}

impl fmt::Debug for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fill")
            .field("digest", &self.digest)
            .field("scope", &self.scope)
            .field("readable", &self.readable)
            .finish_non_exhaustive()
    }
}
