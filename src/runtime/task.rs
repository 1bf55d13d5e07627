//! Tasks of the current worker: spawning with a panic guard, sleeping, time limits.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;

static PANICS: AtomicU64 = AtomicU64::new(0);

/// A time limit passed before the future was ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("time limit passed")]
pub struct Elapsed;

// None of these is an `async fn`: one of those would hold its argument twice, once as given and
// once as awaited, and the futures of connections go through all of them.

/// Runs `future` on this worker until it ends. A panic inside ends only this task; it is logged
/// and counted (monoio itself would let it end the worker).
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    monoio::spawn(catch_panic(future));
}

/// Awaits `future`; a panic inside becomes `Err(message)`, logged and counted.
pub fn catch_panic<F: Future>(future: F) -> impl Future<Output = Result<F::Output, String>> {
    AssertUnwindSafe(future).catch_unwind().map(|outcome| outcome.map_err(noted))
}

/// The same of what needs no future.
///
/// # Errors
/// Its panic.
pub fn catch_panic_now<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).map_err(noted)
}

#[cold]
fn noted(payload: Box<dyn Any + Send>) -> String {
    let message = panic_message(payload.as_ref());
    count_panic();
    tracing::error!(panic = %message, "a task panicked and was ended; the worker goes on");
    message
}

pub(super) fn count_panic() {
    PANICS.fetch_add(1, Ordering::Relaxed);
}

/// Tasks ended by a panic since the process started, over all workers and threads.
pub fn panic_count() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

pub(super) fn panic_message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a message".to_owned())
}

/// Lets all other tasks of this worker that can go on do so first. One that wakes itself is run next
/// by monoio; so another task wakes it, which stands behind them.
pub async fn let_others_go() {
    let mut is_behind = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut is_behind, true) {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        spawn(async move { waker.wake() });
        Poll::Pending
    })
    .await;
}

/// Waits for `duration` without occupying the worker.
pub async fn sleep(duration: Duration) {
    monoio::time::sleep(duration).await;
}

/// Awaits `future` for at most `duration`. On [`Elapsed`] the future is dropped: give it only
/// futures that may be dropped at any point (never a ring read whose socket is used again).
pub fn timeout<F: Future>(
    duration: Duration,
    future: F,
) -> impl Future<Output = Result<F::Output, Elapsed>> {
    monoio::time::timeout(duration, future).map(|outcome| outcome.map_err(|_| Elapsed))
}
