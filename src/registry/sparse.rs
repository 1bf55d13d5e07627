//! A blob of which parts are wanted before the rest: a sparse fill, and who reads from it.
//!
//! Its file has its full size from the first answer of the upstream on; which bytes of it are there,
//! and what is fetched next, is the `plan`'s to say. `run` is its task, on the worker that owns the
//! digest; readers are on any worker. `pull` is how a request comes to read from one.
//!
//! A fill from the first byte to the last (`fill`) stays a kind of its own: it hashes while it receives,
//! may change its upstream in mid-blob, and needs no announced length, all of which would be lost
//! on bytes in any order.
//!
//! **Invariant:** a part is given out unverified only to who asked for just that part, of an
//! upstream with `cold_ranges = "unverified"`. Who reads to the end of the blob gets the end of his
//! answer when the digest of the whole has been compared.
//! **Invariant:** each byte is written once, by one stream; the file is hashed when all are there.

mod ask;
mod extents;
mod plan;
mod pull;
mod run;
mod stream;

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use event_listener::Event;

use super::space::Reservation;
use super::{Lease, Placing, PullError};
use crate::http::ByteRange;
use crate::limits::HOLD_BACK_BYTES;
use crate::oci::{Digest, Scope};
use crate::runtime::clock;
pub use plan::Found;
use plan::{Plan, Want};
pub(super) use pull::SparseRead;
pub(super) use run::run;

/// A blob that arrives in parts.
pub(super) struct SparseFill {
    /// What is being fetched.
    pub digest: Digest,
    /// For which repository it was started.
    pub scope: Scope,
    /// Where it was decided to go, and how it is kept, as for any fill.
    pub(super) placing: Placing,
    /// What it was started with: its first request to the upstream.
    pub(super) first: ByteRange,
    opening: OnceLock<Result<Opening, NotOpened>>,
    outcome: OnceLock<Result<u64, PullError>>,
    kept: OnceLock<bool>,
    readers: AtomicUsize,
    /// There are more bytes, or there is an outcome.
    changed: Event,
    /// Its task has something to look at.
    asked: Event,
    // After the file: its bytes are not free before the last reader has gone.
    lease: OnceLock<Lease>,
    place: OnceLock<Reservation>,
}

struct Opening {
    size: u64,
    file: Arc<std::fs::File>,
    // Held for a moment by whoever reads, asks or writes, never over a wait.
    plan: Mutex<Plan>,
}

/// Why there is no such fill.
#[derive(Debug, Clone)]
pub(super) enum NotOpened {
    /// The store does not take it: to be passed through.
    NoRoom,
    /// The upstream does not tell enough to fill by ranges: to be filled as a whole.
    Whole,
    /// The range lies outside the content, says the upstream.
    OutOfRange,
    /// The upstream failed, or has no such blob.
    Failed(PullError),
}

/// A place at a sparse fill, taken on its worker: while there is one, it is not dropped.
pub(super) struct Seat {
    fill: Arc<SparseFill>,
    /// Whether the fill was started for this one.
    is_first: bool,
}

/// Who reads a part of a sparse fill. Dropped, it wants nothing any more.
pub struct SparseReader {
    seat: Seat,
    want: Want,
    id: u64,
    /// Up to where it may read before the digest has been compared.
    unverified_end: u64,
    found: Found,
}

impl SparseFill {
    pub(super) fn new(digest: Digest, scope: Scope, placing: Placing, first: ByteRange) -> Self {
        Self {
            digest,
            scope,
            placing,
            first,
            opening: OnceLock::new(),
            outcome: OnceLock::new(),
            kept: OnceLock::new(),
            readers: AtomicUsize::new(0),
            changed: Event::new(),
            asked: Event::new(),
            lease: OnceLock::new(),
            place: OnceLock::new(),
        }
    }

    // ---- the task's side ----

    /// The upstream has answered and there is a file of full size.
    fn opened(&self, file: Arc<std::fs::File>, plan: Plan) {
        let opening = Opening { size: plan.size(), file, plan: Mutex::new(plan) };
        // Only the first counts, and there is one task.
        let _ = self.opening.set(Ok(opening));
        self.changed.notify(usize::MAX);
    }

    /// The plan; `None` before it was opened.
    fn plan(&self) -> Option<MutexGuard<'_, Plan>> {
        let opening = self.opening.get()?.as_ref().ok()?;
        Some(opening.plan.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// More bytes are there.
    fn wrote(&self, part: &Range<u64>) {
        if let Some(mut plan) = self.plan() {
            plan.wrote(part);
        }
        self.changed.notify(usize::MAX);
    }

    /// The digest of all `size` bytes matches.
    fn verified(&self, size: u64, lease: Lease) {
        let _ = self.lease.set(lease);
        let _ = self.outcome.set(Ok(size));
        self.changed.notify(usize::MAX);
    }

    /// The content is in the store and the index knows it.
    fn stored(&self) {
        let _ = self.kept.set(true);
        self.changed.notify(usize::MAX);
    }

    /// The content will not be stored: its bytes are on the disk until the last reader has gone.
    fn keep_place(&self, place: Reservation) {
        let _ = self.place.set(place);
    }

    /// The task is over and nobody finds the fill any more; `why` there is no content, if there is
    /// none.
    pub(super) fn ended(&self, why: Option<NotOpened>) {
        let why = why.unwrap_or_else(|| {
            NotOpened::Failed(PullError::Internal("a sparse fill ended without an outcome".into()))
        });
        let _ = self.kept.set(false);
        // Each counts only where nothing was said before.
        if let NotOpened::Failed(error) = &why {
            let _ = self.outcome.set(Err(error.clone()));
        }
        let _ = self.opening.set(Err(why));
        if let Some(mut plan) = self.plan() {
            plan.close();
        }
        self.changed.notify(usize::MAX);
    }

    // ---- the readers' side ----

    /// Waits until the whole size is known, that is, for the upstream's first answer.
    async fn size(&self) -> Result<u64, NotOpened> {
        self.wait(|| match (self.opening.get()?, self.outcome.get()) {
            (Err(why), _) => Some(Err(why.clone())),
            (Ok(_), Some(Err(error))) => Some(Err(NotOpened::Failed(error.clone()))),
            (Ok(opening), _) => Some(Ok(opening.size)),
        })
        .await
    }

    /// Waits until the content is in the store; `false` when it never will be.
    async fn is_kept(&self) -> bool {
        self.wait(|| self.kept.get().copied()).await
    }

    async fn wait<T>(&self, check: impl Fn() -> Option<T>) -> T {
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

impl Seat {
    pub(super) fn new(fill: Arc<SparseFill>, is_first: bool) -> Self {
        fill.readers.fetch_add(1, Ordering::Relaxed);
        Self { fill, is_first }
    }

    /// Reads this part. `is_checked`: the end of the answer waits for the digest, for which all of
    /// the blob is fetched, for as long as this reader stays or (`goes_on`) whoever stays. `None`
    /// when it cannot be kept track of.
    fn read(self, want: Want, is_checked: bool, goes_on: bool) -> Option<SparseReader> {
        let mut plan = self.fill.plan()?;
        let found = if self.is_first {
            Found::None { is_shared: false }
        } else {
            plan.found(&want, clock::now())
        };
        let id = plan.want(want)?;
        if goes_on {
            plan.want_all();
        }
        drop(plan);
        self.fill.asked.notify(1);
        let held = if is_checked { HOLD_BACK_BYTES.min(want.end - want.at) } else { 0 };
        let unverified_end = want.end - held;
        Some(SparseReader { seat: self, want, id, unverified_end, found })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.fill.readers.fetch_sub(1, Ordering::Relaxed);
        self.fill.asked.notify(1);
    }
}

impl SparseReader {
    /// What it found when it came.
    pub fn found(&self) -> Found {
        self.found
    }

    /// What is being read.
    pub fn digest(&self) -> &Digest {
        &self.seat.fill.digest
    }

    /// Waits until bytes from `at` on may be given out; returns up to where.
    ///
    /// # Errors
    /// The fill failed; nothing more will come.
    pub async fn readable_beyond(&self, at: u64) -> Result<u64, PullError> {
        self.seat.fill.wait(|| self.look(at)).await
    }

    /// The file; `None` before there is one.
    pub fn file(&self) -> Option<&Arc<std::fs::File>> {
        self.seat.fill.opening.get()?.as_ref().ok().map(|opening| &opening.file)
    }

    fn look(&self, at: u64) -> Option<Result<u64, PullError>> {
        match self.seat.fill.outcome.get() {
            Some(Ok(_)) => return Some(Ok(self.want.end)),
            Some(Err(error)) => return Some(Err(error.clone())),
            None => {}
        }
        let (until, must_ask) = self.seat.fill.plan()?.reached(self.id, at, clock::now());
        if must_ask {
            self.seat.fill.asked.notify(1);
        }
        let until = until.min(self.unverified_end);
        (until > at).then_some(Ok(until))
    }
}

impl Drop for SparseReader {
    fn drop(&mut self) {
        // Before the seat is given up, which is what wakes the task.
        if let Some(mut plan) = self.seat.fill.plan() {
            plan.leave(self.id);
        }
    }
}

impl fmt::Debug for SparseFill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SparseFill")
            .field("digest", &self.digest)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SparseReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SparseReader")
            .field("fill", &self.seat.fill)
            .field("want", &self.want)
            .finish_non_exhaustive()
    }
}
