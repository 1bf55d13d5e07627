//! Telling the subscriber every record, in pieces, so that writes go on meanwhile.

use std::ops::Bound;

use redb::{Database, ReadableDatabase, TableDefinition};

use super::record::{BLOBS, LINKS, TAGS};
use super::{BlobRecord, CatalogError, LinkRecord, Subscriber, TagRecord, Write, failed};

/// Records in one piece: bounds how long a write waits for it.
const PIECE: usize = 2048;

type OwnedKey = (String, String, String);

/// How far a rebuild has come. Records written behind it are told by their writes, those before
/// it will be told when it comes there; telling one twice does no harm.
pub(super) enum Rebuild {
    Blobs(Option<String>),
    Links(Option<OwnedKey>),
    Tags(Option<OwnedKey>),
}

impl Rebuild {
    pub(super) fn new() -> Self {
        Self::Blobs(None)
    }

    /// Tells one piece. `None` when that was the last.
    pub(super) fn step(
        self,
        database: &Database,
        subscriber: &mut dyn Subscriber,
    ) -> Result<Option<Self>, CatalogError> {
        match self {
            Self::Blobs(after) => {
                let next = blobs(database, after, subscriber)?;
                Ok(Some(next.map_or(Self::Links(None), |key| Self::Blobs(Some(key)))))
            }
            Self::Links(after) => {
                let next = scoped(database, LINKS, after, |key, value| {
                    LinkRecord::read(key, value).map(|record| {
                        subscriber.applied(&Write::PutLink(record));
                    })
                })?;
                Ok(Some(next.map_or(Self::Tags(None), |key| Self::Links(Some(key)))))
            }
            Self::Tags(after) => {
                let next = scoped(database, TAGS, after, |key, value| {
                    TagRecord::read(key, value).map(|record| {
                        subscriber.applied(&Write::PutTag(record));
                    })
                })?;
                Ok(next.map(|key| Self::Tags(Some(key))))
            }
        }
    }
}

fn blobs(
    database: &Database,
    after: Option<String>,
    subscriber: &mut dyn Subscriber,
) -> Result<Option<String>, CatalogError> {
    let transaction = database.begin_read().map_err(failed)?;
    let table = transaction.open_table(BLOBS).map_err(failed)?;
    let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut last = None;
    for (n, entry) in table.range::<&str>((from, Bound::Unbounded)).map_err(failed)?.enumerate() {
        let (key, value) = entry.map_err(failed)?;
        match BlobRecord::read(key.value(), value.value()) {
            Ok(record) => subscriber.applied(&Write::PutBlob { record, is_synced: true }),
            Err(error) => tracing::error!(%error, "skipped"),
        }
        if n + 1 == PIECE {
            last = Some(key.value().to_owned());
            break;
        }
    }
    Ok(last)
}

type ScopedTable<'a> =
    TableDefinition<'a, (&'static str, &'static str, &'static str), (&'static str, u64)>;

fn scoped(
    database: &Database,
    definition: ScopedTable<'_>,
    after: Option<OwnedKey>,
    mut tell: impl FnMut((&str, &str, &str), (&str, u64)) -> Result<(), CatalogError>,
) -> Result<Option<OwnedKey>, CatalogError> {
    let transaction = database.begin_read().map_err(failed)?;
    let table = transaction.open_table(definition).map_err(failed)?;
    let from = after.as_ref().map_or(Bound::Unbounded, |(a, b, c)| {
        Bound::Excluded((a.as_str(), b.as_str(), c.as_str()))
    });
    let range = table.range::<(&str, &str, &str)>((from, Bound::Unbounded)).map_err(failed)?;
    let mut last = None;
    for (n, entry) in range.enumerate() {
        let (key, value) = entry.map_err(failed)?;
        if let Err(error) = tell(key.value(), value.value()) {
            tracing::error!(%error, "skipped");
        }
        if n + 1 == PIECE {
            let (a, b, c) = key.value();
            last = Some((a.to_owned(), b.to_owned(), c.to_owned()));
            break;
        }
    }
    Ok(last)
}
