//! Which fills are running. The worker that owns a digest keeps its entry and runs its task.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_lock::Semaphore;

use super::sparse::{self, NotOpened, Seat, SparseFill};
use super::state::Registry;
use super::{Decided, Fill, PullError, fill_download};
use crate::http::ByteRange;
use crate::limits::{SPARSE_FILLS_MAX, SPARSE_REST_STREAMS_MAX};
use crate::oci::{Digest, Namespace, Scope};
use crate::runtime::{Workers, catch_panic, spawn};
use crate::upstream::Hops;

/// A download: the same content from two upstreams is two fills, because until the digest has been
/// compared one upstream must not speak for the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FillKey {
    upstream: Option<Namespace>,
    digest: Digest,
}

type Shard = Mutex<HashMap<FillKey, Running>>;

/// A download under way.
enum Running {
    /// From its first byte to its last.
    Whole(Arc<Fill>),
    /// In parts.
    Sparse(Arc<SparseFill>),
}

/// Running fills. Shard `i` is only touched on worker `i`, so its lock is never contended: it
/// makes the sharing safe, nobody waits on it.
pub(super) struct FillTable {
    shards: Box<[Shard]>,
    active: AtomicUsize,
    sparse: AtomicUsize,
    rest_turns: Arc<Semaphore>,
}

/// What was found on the worker that owns the content.
pub(super) enum Joined {
    /// A download to follow.
    Fill(Arc<Fill>),
    /// One that brings parts.
    Sparse(Seat),
    /// There are too many of these for another one.
    Crowded,
    /// It has just been stored: look again.
    Stored,
}

impl FillTable {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            shards: (0..workers).map(|_| Mutex::new(HashMap::new())).collect(),
            active: AtomicUsize::new(0),
            sparse: AtomicUsize::new(0),
            rest_turns: Arc::new(Semaphore::new(SPARSE_REST_STREAMS_MAX)),
        }
    }

    /// Fills running now, over all workers.
    pub(super) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// For a stream of a sparse fill that brings what nobody waits for.
    pub(super) fn rest_turns(&self) -> &Arc<Semaphore> {
        &self.rest_turns
    }

    fn shard(&self, worker: usize) -> Option<MutexGuard<'_, HashMap<FillKey, Running>>> {
        self.shards.get(worker).map(|s| s.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The fill of `digest` from the upstream of `scope`: the one in progress, or a new one, on the
/// worker that owns it. `others` may be asked for the rest of a new one, for which `decided` holds;
/// with `part` it is sparse and begins with that range.
pub(super) async fn join_or_start(
    workers: &Workers,
    digest: Digest,
    (scope, others): (Scope, &[Scope]),
    decided: (Decided, Option<ByteRange>),
) -> Result<Joined, PullError> {
    let key = FillKey { upstream: scope.upstream.clone(), digest };
    let owner = workers.owner_of(&key);
    let (scopes, hops) = ((scope, others.to_vec()), Hops::current());
    workers
        .call(owner, move || async move { start_here(owner, key, scopes, decided, hops) })
        .await
        .map_err(|error| PullError::Internal(error.to_string()))?
}

/// On the owner. A fill leaves the table only after the index knows its content, and both happen
/// on this worker, so looking at both here misses nothing.
fn start_here(
    owner: usize,
    key: FillKey,
    scopes: (Scope, Vec<Scope>),
    (decided, part): (Decided, Option<ByteRange>),
    hops: Hops,
) -> Result<Joined, PullError> {
    let registry = Registry::current()?;
    let shared = registry.shared().clone();
    let Some(mut running) = shared.fills.shard(owner) else {
        return Err(PullError::Internal(format!("worker {owner} has no fill table")));
    };
    match running.get(&key) {
        Some(Running::Whole(fill)) => return Ok(Joined::Fill(fill.clone())),
        Some(Running::Sparse(fill)) => return Ok(Joined::Sparse(Seat::new(fill.clone(), false))),
        None => {}
    }
    let stored = shared.index.blob(&key.digest).hit();
    if stored.is_some_and(|entry| shared.store.has_pool(entry.pool)) {
        return Ok(Joined::Stored);
    }
    if let Some(first) = part {
        let fill = SparseFill::new(key.digest, scopes.0, decided.placing, first);
        return Ok(start_sparse(&registry, owner, (key, running), fill, hops));
    }
    let place = shared.fill_place(&scopes.0)?;
    let fill = Arc::new(Fill::new(key.digest, scopes, decided));
    running.insert(key.clone(), Running::Whole(fill.clone()));
    drop(running);
    shared.fills.active.fetch_add(1, Ordering::Relaxed);
    let task = fill.clone();
    spawn(hops.carry(async move {
        let work = async {
            let _turn = place.turn().await?;
            fill_download::run(&registry, &task).await;
            Ok(())
        };
        match catch_panic(work).await {
            Ok(Ok(())) => {}
            Ok(Err(busy)) => task.failed(busy),
            Err(message) => {
                task.failed(PullError::Internal(format!("the fill panicked: {message}")));
            }
        }
        // Only now: until the index knows the content, requests must find the fill.
        if let Some(mut running) = shared.fills.shard(owner) {
            running.remove(&key);
        }
        shared.fills.active.fetch_sub(1, Ordering::Relaxed);
        task.ended();
    }));
    Ok(Joined::Fill(fill))
}

fn start_sparse(
    registry: &Rc<Registry>,
    owner: usize,
    (key, mut running): (FillKey, MutexGuard<'_, HashMap<FillKey, Running>>),
    fill: SparseFill,
    hops: Hops,
) -> Joined {
    let shared = registry.shared();
    if shared.fills.sparse.fetch_add(1, Ordering::Relaxed) >= SPARSE_FILLS_MAX {
        shared.fills.sparse.fetch_sub(1, Ordering::Relaxed);
        return Joined::Crowded;
    }
    let fill = Arc::new(fill);
    running.insert(key.clone(), Running::Sparse(fill.clone()));
    let seat = Seat::new(fill.clone(), true);
    let registry = registry.clone();
    spawn(hops.carry(async move {
        let why = catch_panic(sparse::run(&registry, &fill)).await.unwrap_or_else(|message| {
            let error = PullError::Internal(format!("a sparse fill panicked: {message}"));
            Some(NotOpened::Failed(error))
        });
        // Before anybody hears of its end: who asks again must not find it.
        let shared = registry.shared();
        if let Some(mut running) = shared.fills.shard(owner) {
            running.remove(&key);
        }
        shared.fills.sparse.fetch_sub(1, Ordering::Relaxed);
        fill.ended(why);
    }));
    Joined::Sparse(seat)
}
