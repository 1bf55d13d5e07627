//! One JSON object a line for each request, written by a thread of its own.
//!
//! Workers hand their entries to a bounded queue and go on; when the queue is full, because the
//! disk or the reader of standard output is slow, the entry is dropped and counted.

mod entry;
mod sink;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::config::AccessTarget;
pub use entry::AccessEntry;
use sink::Sink;

/// Entries that may wait for the writing thread.
const ENTRIES_MAX: usize = 8192;

/// Bytes gathered before they are written although more entries wait.
const BATCH_BYTES_MAX: usize = 64 * 1024;

/// Why there is no access log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessLogError {
    /// The file could not be opened for appending.
    #[error("cannot append to the access log {path} (log.access): {source}")]
    Open {
        /// The file.
        path: String,
        /// What the operating system answered.
        source: std::io::Error,
    },
    /// The system gave us no thread.
    #[error("cannot start the access log's thread: {0}")]
    Thread(std::io::Error),
}

/// A handle to the access log; cheap to clone, one for each worker.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// `None` when the log is off.
    queue: Option<Sender<Message>>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Entry(Box<AccessEntry>),
    /// Write what came before, then answer.
    Flush(Sender<()>),
}

impl AccessLog {
    /// Opens the target and starts the thread. The thread ends when all handles are gone.
    pub fn start(target: &AccessTarget) -> Result<AccessLog, AccessLogError> {
        let dropped = Arc::new(AtomicU64::new(0));
        let Some(sink) = Sink::open(target)? else {
            return Ok(AccessLog { queue: None, dropped });
        };
        let (sender, receiver) = bounded(ENTRIES_MAX);
        let writer = Writer { sink, dropped: dropped.clone() };
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(AccessLogError::Thread)?;
        Ok(AccessLog { queue: Some(sender), dropped })
    }

    /// Whether entries are wanted; if not, they need not be made.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Hands an entry over. Never waits.
    pub fn record(&self, entry: AccessEntry) {
        if let Some(queue) = &self.queue
            && queue.try_send(Message::Entry(Box::new(entry))).is_err()
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Entries lost so far: the queue was full or the target could not be written.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits, at most `limit`, until everything recorded before is written; for the end of the
    /// process, not for a worker. False when it took longer.
    pub fn flush(&self, limit: Duration) -> bool {
        let Some(queue) = &self.queue else { return true };
        let (done, written) = bounded(1);
        queue.send_timeout(Message::Flush(done), limit).is_ok()
            && written.recv_timeout(limit).is_ok()
    }
}

/// The thread's side.
struct Writer {
    sink: Sink,
    dropped: Arc<AtomicU64>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Message>) {
        let mut batch = Vec::with_capacity(BATCH_BYTES_MAX);
        while let Ok(first) = queue.recv() {
            self.gather(first, queue, &mut batch);
        }
    }

    /// Writes `first` and what waits behind it in one go, up to the batch's size.
    fn gather(&mut self, first: Message, queue: &Receiver<Message>, batch: &mut Vec<u8>) {
        let mut entries = 0;
        let mut flushed: Option<Sender<()>> = None;
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Entry(entry) => {
                    entry.write_line(batch);
                    entries += 1;
                }
                Message::Flush(done) => flushed = Some(done),
            }
            let full = batch.len() >= BATCH_BYTES_MAX || flushed.is_some();
            next = if full { None } else { queue.try_recv().ok() };
        }
        if let Err(error) = self.sink.write(batch) {
            self.dropped.fetch_add(entries, Ordering::Relaxed);
            tracing::warn!(%error, entries, "access log entries could not be written");
        }
        batch.clear();
        if let Some(done) = flushed {
            // Nobody waits any more: the limit was over.
            let _gone = done.send(());
        }
    }
}
