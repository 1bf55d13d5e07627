//! The catalog thread: takes writes, groups them into transactions, answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use futures_channel::oneshot;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, WriteTransaction};

use super::record::{LINKS, LinkRecord, TAGS, TagRecord};
use super::{CatalogError, FLUSH_INTERVAL, Loaded, Write};
use crate::runtime::clock;

/// Most messages in one transaction: bounds the time the first of them waits.
const GROUP_MAX: usize = 256;

/// Records between two reports of progress.
const PROGRESS_EVERY: u64 = 4096;

type Answer = oneshot::Sender<Result<(), CatalogError>>;

pub(super) enum Message {
    Apply { writes: Vec<Write>, durable: bool, answer: Answer },
    Close,
}

pub(super) struct Writer {
    path: PathBuf,
    /// `None` after a storage error, until it can be opened again: redb refuses all work after
    /// one, and opening it goes back to the last durable commit.
    database: Option<Database>,
    /// Applied and answered, but not durable yet: to be applied again after opening it anew.
    unflushed: Vec<Write>,
    unflushed_since: Option<Instant>,
    health: Arc<Health>,
}

/// Whether the catalog takes writes; read by anybody.
#[derive(Debug, Default)]
pub(super) struct Health {
    failing: AtomicBool,
}

impl Health {
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }
}

/// What was taken from the queue for one transaction.
#[derive(Default)]
struct Group {
    writes: Vec<Write>,
    answers: Vec<Answer>,
    durable: bool,
    close: bool,
}

impl Writer {
    pub(super) fn open(path: &Path, health: Arc<Health>) -> Result<Self, String> {
        let database = open_database(path).map_err(|e| e.to_string())?;
        Ok(Self {
            path: path.to_owned(),
            database: Some(database),
            unflushed: Vec::new(),
            unflushed_since: None,
            health,
        })
    }

    pub(super) fn load(&self, mut progress: impl FnMut(u64)) -> Result<Loaded, CatalogError> {
        let mut read = 0_u64;
        let mut count = || {
            read += 1;
            if read.is_multiple_of(PROGRESS_EVERY) {
                progress(read);
            }
        };
        let mut loaded = Loaded { tags: Vec::new(), links: Vec::new(), damaged: Vec::new() };
        let Some(database) = &self.database else { return Err(CatalogError::Closed) };
        let transaction = database.begin_read().map_err(write_error)?;
        let tags = transaction.open_table(TAGS).map_err(write_error)?;
        for entry in tags.iter().map_err(write_error)? {
            let (key, value) = entry.map_err(write_error)?;
            count();
            match TagRecord::read(key.value(), value.value()) {
                Ok(record) => loaded.tags.push(record),
                Err(error) => loaded.damaged.push(error),
            }
        }
        let links = transaction.open_table(LINKS).map_err(write_error)?;
        for entry in links.iter().map_err(write_error)? {
            let (key, value) = entry.map_err(write_error)?;
            count();
            match LinkRecord::read(key.value(), value.value()) {
                Ok(record) => loaded.links.push(record),
                Err(error) => loaded.damaged.push(error),
            }
        }
        Ok(loaded)
    }

    /// The thread's whole life: until told to close, or until all senders are gone.
    pub(super) fn run(mut self, queue: &Receiver<Message>) {
        loop {
            let mut group = match self.wait(queue) {
                Ok(first) => gather(first, queue),
                Err(RecvTimeoutError::Timeout) => Group { durable: true, ..Group::default() },
                Err(RecvTimeoutError::Disconnected) => {
                    Group { durable: true, close: true, ..Group::default() }
                }
            };
            group.durable |= group.close
                || self.unflushed_since.is_some_and(|since| since.elapsed() >= FLUSH_INTERVAL);
            let result = self.write(std::mem::take(&mut group.writes), group.durable);
            for answer in group.answers {
                // Whoever asked may have gone.
                let _ = answer.send(result.clone());
            }
            if group.close {
                return;
            }
        }
    }

    /// The next message, or the time to flush.
    fn wait(&self, queue: &Receiver<Message>) -> Result<Message, RecvTimeoutError> {
        match self.unflushed_since {
            None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(since) => queue.recv_timeout(FLUSH_INTERVAL.saturating_sub(since.elapsed())),
        }
    }

    /// Applies a group, opening the database anew first if it failed before.
    fn write(&mut self, writes: Vec<Write>, durable: bool) -> Result<(), CatalogError> {
        let result = self.reopen().and_then(|()| self.commit(&writes, durable));
        self.health.failing.store(result.is_err(), Ordering::Relaxed);
        match &result {
            Ok(()) if durable => {
                self.unflushed.clear();
                self.unflushed_since = None;
            }
            Ok(()) => {
                self.unflushed.extend(writes);
                self.unflushed_since.get_or_insert_with(clock::now);
            }
            Err(error) => {
                tracing::error!(%error, writes = writes.len(), "catalog write failed");
                self.database = None;
                // Tried again with the next write, and by the clock.
                self.unflushed_since = Some(clock::now());
            }
        }
        result
    }

    /// After a failure: opens the database and brings it to where it was.
    fn reopen(&mut self) -> Result<(), CatalogError> {
        if self.database.is_some() {
            return Ok(());
        }
        self.database = Some(open_database(&self.path)?);
        let lost = std::mem::take(&mut self.unflushed);
        let again = self.commit(&lost, true);
        if again.is_err() {
            self.unflushed = lost;
            return again;
        }
        tracing::info!(writes = lost.len(), "the catalog takes writes again");
        Ok(())
    }

    fn commit(&self, writes: &[Write], durable: bool) -> Result<(), CatalogError> {
        let Some(database) = &self.database else { return Err(CatalogError::Closed) };
        commit(database, writes, durable)
    }
}

/// Opens or creates the file and its tables, so that reading never meets a missing one.
fn open_database(path: &Path) -> Result<Database, CatalogError> {
    let database = Database::create(path).map_err(write_error)?;
    commit(&database, &[], true)?;
    Ok(database)
}

fn commit(database: &Database, writes: &[Write], durable: bool) -> Result<(), CatalogError> {
    let mut transaction = database.begin_write().map_err(write_error)?;
    if !durable {
        transaction.set_durability(Durability::None).map_err(write_error)?;
    }
    apply(&transaction, writes)?;
    transaction.commit().map_err(write_error)
}

fn gather(first: Message, queue: &Receiver<Message>) -> Group {
    let mut group = Group::default();
    for message in std::iter::once(first).chain(queue.try_iter().take(GROUP_MAX)) {
        match message {
            Message::Apply { writes, durable, answer } => {
                group.writes.extend(writes);
                group.answers.push(answer);
                group.durable |= durable;
            }
            Message::Close => {
                group.close = true;
                break;
            }
        }
    }
    group
}

fn apply(transaction: &WriteTransaction, writes: &[Write]) -> Result<(), CatalogError> {
    let mut tags = transaction.open_table(TAGS).map_err(write_error)?;
    let mut links = transaction.open_table(LINKS).map_err(write_error)?;
    for write in writes {
        match write {
            Write::PutTag(record) => {
                let digest = record.digest.to_string();
                let value = (digest.as_str(), record.fetched_at, record.checked_at);
                tags.insert(tag_key(record), value).map_err(write_error)?;
            }
            Write::RemoveTag(record) => {
                tags.remove(tag_key(record)).map_err(write_error)?;
            }
            Write::PutLink(record) => {
                let digest = record.digest.to_string();
                let scope = &record.scope;
                let key = (scope.upstream_str(), scope.repository.as_str(), digest.as_str());
                let media_type = record.media_type.as_deref().unwrap_or("");
                links
                    .insert(key, (media_type, record.size, record.linked_at))
                    .map_err(write_error)?;
            }
        }
    }
    Ok(())
}

fn tag_key(record: &TagRecord) -> (&str, &str, &str) {
    (record.scope.upstream_str(), record.scope.repository.as_str(), record.tag.as_str())
}

fn write_error(error: impl std::fmt::Display) -> CatalogError {
    CatalogError::Write { cause: error.to_string() }
}
