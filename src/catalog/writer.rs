//! The catalog thread: takes writes, groups them into transactions, tells the subscriber, answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};
use futures_channel::oneshot;

use super::apply::Batch;
use super::database::{Committed, Shared};
use super::rebuild::Rebuild;
use super::{
    BlobRecord, CatalogError, Condition, Effect, FLUSH_INTERVAL, Moment, Subscriber, Tended, Write,
};
use crate::oci::Digest;
use crate::runtime::clock;

/// Most messages in one transaction: bounds the time the first of them waits.
const GROUP_MAX: usize = 256;
/// After a failure to read the catalog out, the next try is made after this long.
const REBUILD_PAUSE: Duration = Duration::from_secs(10);
/// How long the subscriber is left without a chance to tend its things when nothing is written.
const TEND_INTERVAL: Duration = Duration::from_secs(60);

/// Makes every byte durable; whether it could.
type Sync = Box<dyn FnOnce() -> bool + Send>;

type Answer = oneshot::Sender<Result<Vec<Effect>, CatalogError>>;

pub(super) enum Message {
    Apply(Asked),
    Offer { digest: Digest, content: Bytes },
    Rebuild,
    Close(Sync),
}

/// Writes that belong together, and who waits for them.
pub(super) struct Asked {
    pub(super) writes: Vec<Write>,
    pub(super) since: Option<Moment>,
    pub(super) conditions: Vec<Condition>,
    pub(super) durable: bool,
    pub(super) answer: Answer,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    subscriber: Box<dyn Subscriber>,
    /// Applied and answered, but not durable yet: to be applied again after opening anew.
    unflushed: Vec<Write>,
    unflushed_since: Option<Instant>,
    rebuild: Option<Rebuild>,
    /// When a rebuild that failed is begun again.
    rebuild_again_at: Option<Instant>,
    /// Whether the subscriber has more to do.
    is_busy: bool,
    offers: Arc<AtomicUsize>,
}

/// What was taken from the queue for one transaction.
#[derive(Default)]
struct Group {
    asked: Vec<Asked>,
    durable: bool,
    rebuild: bool,
    offers: Vec<(Digest, Bytes)>,
    close: Option<Sync>,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        offers: Arc<AtomicUsize>,
        subscriber: Box<dyn Subscriber>,
    ) -> Self {
        Self {
            shared,
            subscriber,
            unflushed: Vec::new(),
            unflushed_since: None,
            rebuild: None,
            rebuild_again_at: None,
            is_busy: false,
            offers,
        }
    }

    /// The thread's whole life: until told to close, or until all senders are gone.
    pub(super) fn run(mut self, queue: &Receiver<Message>) {
        loop {
            let mut group = match self.wait(queue) {
                Ok(first) => gather(first, queue),
                Err(RecvTimeoutError::Timeout) => Group::default(),
                Err(RecvTimeoutError::Disconnected) => {
                    Group { close: Some(Box::new(|| false)), ..Group::default() }
                }
            };
            group.durable |= group.close.is_some()
                || self.unflushed_since.is_some_and(|since| since.elapsed() >= FLUSH_INTERVAL);
            let close = group.close.take();
            let is_due = self.rebuild_again_at.is_some_and(|at| clock::now() >= at);
            if group.rebuild || is_due {
                self.begin_rebuild();
            }
            let offers = std::mem::take(&mut group.offers);
            if !group.asked.is_empty() || group.durable {
                self.serve(group);
            }
            // After the writes that they belong to.
            for (digest, content) in offers {
                self.offers.fetch_sub(1, Ordering::Relaxed);
                self.subscriber.offered(&digest, &content);
            }
            if let Some(sync) = close {
                // Behind the last group: a byte that came later is in no name that is vouched for.
                if sync()
                    && self.unflushed.is_empty()
                    && let Err(error) = self.shared.leave()
                {
                    tracing::error!(%error, "the store could not be left in good order");
                }
                // Whoever still holds the sending side must not hold the file.
                self.shared.drop_database();
                self.subscriber.closed();
                return;
            }
            self.rebuild_a_piece();
            let tended = self.subscriber.tend();
            self.is_busy = tended != Tended::Idle;
            if tended == Tended::Rebuild {
                self.begin_rebuild();
            }
        }
    }

    fn begin_rebuild(&mut self) {
        self.rebuild = Some(Rebuild::new());
        self.rebuild_again_at = None;
    }

    /// The next message, or the time to flush or to go on with other work.
    fn wait(&self, queue: &Receiver<Message>) -> Result<Message, RecvTimeoutError> {
        if self.rebuild.is_some() || self.is_busy {
            // Not `recv_timeout`, which yields the processor a few times before it gives up.
            return queue.try_recv().map_err(|error| match error {
                TryRecvError::Empty => RecvTimeoutError::Timeout,
                TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
            });
        }
        let flush_at = self.unflushed_since.map(|since| since + FLUSH_INTERVAL);
        let others = [flush_at, self.rebuild_again_at].into_iter().flatten();
        queue.recv_deadline(others.fold(clock::now() + TEND_INTERVAL, Ord::min))
    }

    /// Applies a group, tells the subscriber, answers.
    fn serve(&mut self, group: Group) {
        let Group { asked, durable, .. } = group;
        let mut result = self.write(&asked, durable);
        let mut told = Vec::with_capacity(asked.len());
        let mut outcomes =
            result.as_mut().map(|done| std::mem::take(&mut done.outcomes).into_iter());
        for Asked { writes, durable: wanted_durable, answer, .. } in asked {
            let outcome = match &mut outcomes {
                Ok(outcomes) => outcomes.next().unwrap_or(Err(CatalogError::Closed)),
                Err(error) => Err(error.clone()),
            };
            if let Ok(effects) = &outcome {
                for (write, effect) in writes.iter().zip(effects) {
                    self.tell(write, effect);
                }
            } else if outcomes.is_err() && !wanted_durable {
                // Names of cached content are true whether or not they are remembered.
                writes.iter().for_each(|write| self.subscriber.unkept(write));
            }
            if outcome.is_ok() && !durable {
                self.unflushed.extend(writes);
            }
            told.push((answer, outcome));
        }
        if let Ok(committed) = result {
            self.subscriber.group(committed.group);
        }
        for (answer, outcome) in told {
            // Whoever asked may have gone.
            let _ = answer.send(outcome);
        }
    }

    /// Tells the subscriber what is so after a write: also after one that was not applied, for then
    /// it may have been asked for by somebody whom the subscriber had told something else.
    fn tell(&mut self, write: &Write, Effect { is_applied, before }: &Effect) {
        let put = |record: &BlobRecord| Write::PutBlob { record: record.clone(), is_synced: true };
        match (write, before) {
            (Write::HandToCache(_), Some(record)) => {
                let is_hosted = record.is_hosted && !is_applied;
                self.subscriber.applied(&put(&BlobRecord { is_hosted, ..record.clone() }));
            }
            (Write::HandToCache(at), None) => self.subscriber.applied(&Write::RemoveBlob(*at)),
            (_, Some(record)) if !is_applied => self.subscriber.applied(&put(record)),
            _ => self.subscriber.applied(write),
        }
    }

    /// Commits, opening the database anew first if it failed before.
    fn write<'a>(&mut self, asked: &'a [Asked], durable: bool) -> Result<Committed, CatalogError> {
        let batch_of = |asked: &'a Asked| Batch {
            writes: &asked.writes,
            since: asked.since,
            conditions: &asked.conditions,
        };
        let batches: Vec<Batch<'_>> = asked.iter().map(batch_of).collect();
        let result = self.reopen().and_then(|()| self.shared.commit(&batches, durable));
        self.shared.set_failing(result.is_err());
        match &result {
            Ok(_) if durable => {
                self.unflushed.clear();
                self.unflushed_since = None;
            }
            Ok(_) => {
                self.unflushed_since.get_or_insert_with(clock::now);
            }
            Err(error) => {
                let writes: usize = batches.iter().map(|batch| batch.writes.len()).sum();
                tracing::error!(%error, writes, "catalog write failed");
                self.shared.drop_database();
                // Tried again with the next write, and by the clock.
                self.unflushed_since = Some(clock::now());
            }
        }
        result
    }

    /// After a failure: opens the database and brings it to where it was.
    fn reopen(&mut self) -> Result<(), CatalogError> {
        if self.shared.database().is_some() {
            return Ok(());
        }
        self.shared.open_again()?;
        self.shared
            .commit(&[Batch { writes: &self.unflushed, since: None, conditions: &[] }], true)?;
        tracing::info!(writes = self.unflushed.len(), "the catalog takes writes again");
        self.unflushed.clear();
        Ok(())
    }

    fn rebuild_a_piece(&mut self) {
        let Some(rebuild) = self.rebuild.take() else { return };
        let Some(database) = self.shared.database() else {
            self.rebuild_again_at = Some(clock::now() + REBUILD_PAUSE);
            return;
        };
        match rebuild.step(&database, self.subscriber.as_mut()) {
            Ok(Some(next)) => self.rebuild = Some(next),
            Ok(None) => self.subscriber.rebuilt(),
            Err(error) => {
                tracing::error!(%error, "the index could not be rebuilt; the catalog answers for it");
                self.rebuild_again_at = Some(clock::now() + REBUILD_PAUSE);
            }
        }
    }
}

fn gather(first: Message, queue: &Receiver<Message>) -> Group {
    let mut group = Group::default();
    for message in std::iter::once(first).chain(queue.try_iter().take(GROUP_MAX)) {
        match message {
            Message::Apply(asked) => {
                group.durable |= asked.durable;
                group.asked.push(asked);
            }
            Message::Offer { digest, content } => group.offers.push((digest, content)),
            Message::Rebuild => group.rebuild = true,
            Message::Close(sync) => {
                group.close = Some(sync);
                break;
            }
        }
    }
    group
}
