//! Threads that are to live as long as the process.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use super::task::{count_panic, panic_message};

/// Never more than there are such threads. Taken by one that ends, and by whoever asks.
static ENDED: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());

/// Starts a thread of this name. A panic that ends it is logged, counted, told by
/// [`ended_services`] from then on, and handed to whoever joins it.
///
/// # Errors
/// The operating system refused it.
pub fn start_service(
    name: &'static str,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(work)) {
            let message = panic_message(payload.as_ref());
            count_panic();
            tracing::error!(thread = name, panic = %message,
                "a thread that the process needs has panicked; start it again");
            ENDED.lock().unwrap_or_else(PoisonError::into_inner).push(name);
            resume_unwind(payload);
        }
    })
}

/// The threads that a panic has ended. What they did nobody does until the next start.
pub fn ended_services() -> Vec<&'static str> {
    ENDED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_is_told_and_one_that_ends_is_not() {
        start_service("test-ends", || ()).unwrap().join().unwrap();
        let payload = start_service("test-panics", || panic!("as it should")).unwrap().join();
        assert_eq!(payload.unwrap_err().downcast_ref(), Some(&"as it should"));
        let ended = ended_services();
        assert!(ended.contains(&"test-panics") && !ended.contains(&"test-ends"), "{ended:?}");
    }
}
