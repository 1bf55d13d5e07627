//! Which fills are running. The worker that owns a digest keeps its entry and runs its task.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::state::Registry;
use super::{Decided, Fill, PullError, fill_download};
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

type Shard = Mutex<HashMap<FillKey, Arc<Fill>>>;

/// Running fills. Shard `i` is only touched on worker `i`, so its lock is never contended: it
/// makes the sharing safe, nobody waits on it.
pub(super) struct FillTable {
    shards: Box<[Shard]>,
    active: AtomicUsize,
}

/// What was found on the worker that owns the content.
pub(super) enum Joined {
    /// A download to follow.
    Fill(Arc<Fill>),
    /// It has just been stored: look again.
    Stored,
}

impl FillTable {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            shards: (0..workers).map(|_| Mutex::new(HashMap::new())).collect(),
            active: AtomicUsize::new(0),
        }
    }

    /// Fills running now, over all workers.
    pub(super) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    fn shard(&self, worker: usize) -> Option<MutexGuard<'_, HashMap<FillKey, Arc<Fill>>>> {
        self.shards.get(worker).map(|s| s.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The fill of `digest` from the upstream of `scope`: the one in progress, or a new one, on the
/// worker that owns it. `others` may be asked for the rest of a new one, for which `decided` holds.
pub(super) async fn join_or_start(
    workers: &Workers,
    digest: Digest,
    (scope, others): (Scope, &[Scope]),
    decided: Decided,
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
    decided: Decided,
    hops: Hops,
) -> Result<Joined, PullError> {
    let registry = Registry::current()?;
    let shared = registry.shared().clone();
    let Some(mut running) = shared.fills.shard(owner) else {
        return Err(PullError::Internal(format!("worker {owner} has no fill table")));
    };
    if let Some(fill) = running.get(&key) {
        return Ok(Joined::Fill(fill.clone()));
    }
    let stored = shared.index.blob(&key.digest).hit();
    if stored.is_some_and(|entry| shared.store.has_pool(entry.pool)) {
        return Ok(Joined::Stored);
    }
    let place = shared.fill_place(&scopes.0)?;
    let fill = Arc::new(Fill::new(key.digest, scopes, decided));
    running.insert(key.clone(), fill.clone());
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
