//! One running future per key over all workers; everybody who asks meanwhile gets its result.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;

use super::mailbox::{WorkerGone, Workers};
use super::task::{catch_panic, spawn};

/// Why a flight gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlightError {
    /// The shared work panicked.
    #[error("the shared work panicked: {0}")]
    Panicked(String),
    /// The worker that owns the key is stopping.
    #[error(transparent)]
    Gone(#[from] WorkerGone),
}

type Waiters<V> = Vec<oneshot::Sender<Result<V, FlightError>>>;
type Shard<K, V> = Mutex<HashMap<K, Waiters<V>>>;

/// Joins equal work of all workers into one. Shard `i` is only touched on worker `i`, so its lock
/// is never contended: it is there to make the sharing safe, not to wait on.
pub struct SingleFlight<K, V> {
    shards: Arc<[Shard<K, V>]>,
    workers: Workers,
}

impl<K, V> Clone for SingleFlight<K, V> {
    fn clone(&self) -> Self {
        Self { shards: self.shards.clone(), workers: self.workers.clone() }
    }
}

impl<K, V> SingleFlight<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + 'static,
{
    /// No flight yet.
    pub fn new(workers: Workers) -> Self {
        let shards = (0..workers.count()).map(|_| Mutex::new(HashMap::new())).collect();
        Self { shards, workers }
    }

    /// The result of the flight for `key`: of the one in progress, or of a new one that runs
    /// `make`'s future on the worker that owns the key. It goes on if callers are dropped.
    ///
    /// # Errors
    /// [`FlightError`] when the work panicked or its worker is stopping.
    pub async fn run<F, Fut>(&self, key: K, make: F) -> Result<V, FlightError>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = V> + 'static,
    {
        let worker = self.workers.owner_of(&key);
        let (waiter, result) = oneshot::channel();
        let flights = self.clone();
        self.workers.post(worker, move || flights.join(worker, key, waiter, make))?;
        result.await.unwrap_or(Err(FlightError::Gone(WorkerGone { worker })))
    }

    fn shard(&self, worker: usize) -> Option<MutexGuard<'_, HashMap<K, Waiters<V>>>> {
        self.shards.get(worker).map(|s| s.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// On the owner: adds a waiter to the flight in progress or starts one.
    fn join<F, Fut>(
        self,
        worker: usize,
        key: K,
        waiter: oneshot::Sender<Result<V, FlightError>>,
        make: F,
    ) where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = V> + 'static,
    {
        {
            let Some(mut flights) = self.shard(worker) else { return };
            if let Some(waiters) = flights.get_mut(&key) {
                waiters.push(waiter);
                return;
            }
            flights.insert(key.clone(), vec![waiter]);
        }
        spawn(async move {
            let outcome =
                catch_panic(async move { make().await }).await.map_err(FlightError::Panicked);
            let waiters = self.shard(worker).and_then(|mut flights| flights.remove(&key));
            for waiter in waiters.unwrap_or_default() {
                // A waiter that has gone needs nothing.
                let _ = waiter.send(outcome.clone());
            }
        });
    }
}
