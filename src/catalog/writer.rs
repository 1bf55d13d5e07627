//! The catalog thread: takes writes, groups them into transactions, answers.

use std::path::Path;
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
    database: Database,
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
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let database = Database::create(path).map_err(|e| e.to_string())?;
        let writer = Self { database };
        // Creates the tables, so that reading never meets a missing one.
        writer.commit(&[], true).map_err(|e| e.to_string())?;
        Ok(writer)
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
        let transaction = self.database.begin_read().map_err(write_error)?;
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
    pub(super) fn run(self, queue: &Receiver<Message>) {
        let mut unflushed_since: Option<Instant> = None;
        loop {
            let mut group = match wait(queue, unflushed_since) {
                Ok(first) => gather(first, queue),
                Err(RecvTimeoutError::Timeout) => Group { durable: true, ..Group::default() },
                Err(RecvTimeoutError::Disconnected) => {
                    Group { durable: true, close: true, ..Group::default() }
                }
            };
            group.durable |= group.close
                || unflushed_since.is_some_and(|since| since.elapsed() >= FLUSH_INTERVAL);
            let result = self.commit(&group.writes, group.durable);
            if let Err(error) = &result {
                tracing::error!(%error, writes = group.writes.len(), "catalog write failed");
            }
            if group.durable {
                unflushed_since = None;
            } else if result.is_ok() {
                unflushed_since.get_or_insert_with(clock::now);
            }
            for answer in group.answers {
                // Whoever asked may have gone.
                let _ = answer.send(result.clone());
            }
            if group.close {
                return;
            }
        }
    }

    fn commit(&self, writes: &[Write], durable: bool) -> Result<(), CatalogError> {
        let mut transaction = self.database.begin_write().map_err(write_error)?;
        if !durable {
            transaction.set_durability(Durability::None).map_err(write_error)?;
        }
        apply(&transaction, writes)?;
        transaction.commit().map_err(write_error)
    }
}

fn wait(
    queue: &Receiver<Message>,
    unflushed_since: Option<Instant>,
) -> Result<Message, RecvTimeoutError> {
    match unflushed_since {
        None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
        Some(since) => queue.recv_timeout(FLUSH_INTERVAL.saturating_sub(since.elapsed())),
    }
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
