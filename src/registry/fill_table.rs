//! Which fills are running. The worker that owns a digest keeps its entry and runs its task.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::state::Registry;
use super::{Fill, PullError, fill_download};
use crate::oci::{Digest, Scope};
use crate::runtime::{Workers, catch_panic, spawn};

type Shard = Mutex<HashMap<Digest, Arc<Fill>>>;

/// Running fills by digest. Shard `i` is only touched on worker `i`, so its lock is never
/// contended: it makes the sharing safe, nobody waits on it.
pub(super) struct FillTable {
    shards: Box<[Shard]>,
    active: AtomicUsize,
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

    fn shard(&self, worker: usize) -> Option<MutexGuard<'_, HashMap<Digest, Arc<Fill>>>> {
        self.shards.get(worker).map(|s| s.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The fill of `digest` in progress, or a new one started for `scope` on the worker that owns the
/// digest.
pub(super) async fn join_or_start(
    workers: &Workers,
    digest: Digest,
    scope: Scope,
) -> Result<Arc<Fill>, PullError> {
    let owner = workers.owner_of(&digest);
    workers
        .call(owner, move || async move { start_here(owner, digest, scope) })
        .await
        .map_err(|error| PullError::Internal(error.to_string()))?
}

/// On the owner.
fn start_here(owner: usize, digest: Digest, scope: Scope) -> Result<Arc<Fill>, PullError> {
    let registry = Registry::current()?;
    let shared = registry.shared().clone();
    let Some(mut running) = shared.fills.shard(owner) else {
        return Err(PullError::Internal(format!("worker {owner} has no fill table")));
    };
    if let Some(fill) = running.get(&digest) {
        return Ok(fill.clone());
    }
    let slot = shared.fill_slot(&scope)?;
    let fill = Arc::new(Fill::new(digest, scope));
    running.insert(digest, fill.clone());
    drop(running);
    shared.fills.active.fetch_add(1, Ordering::Relaxed);
    let (task_fill, task_shared) = (fill.clone(), shared);
    spawn(async move {
        let work = fill_download::run(&registry, &task_fill);
        if let Err(message) = catch_panic(work).await {
            task_fill.failed(PullError::Internal(format!("the fill panicked: {message}")));
        }
        // Only now: until the index knows the content, requests must find the fill.
        if let Some(mut running) = task_shared.fills.shard(owner) {
            running.remove(&digest);
        }
        task_shared.fills.active.fetch_sub(1, Ordering::Relaxed);
        drop(slot);
    });
    Ok(fill)
}
