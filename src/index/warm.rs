//! After a start: bringing the files into memory before look-ups need them.
//!
//! A look-up that meets a page which is not in memory waits for the disk, and the worker with it.
//! So a thread of its own reads what is there, in pieces, and ends. Nothing waits for it, and it
//! may fail: then look-ups read what they need, as they do until it has come there.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Weak};

use super::Index;
use super::generation::Generation;

/// Bytes read at once: the thread sees in between whether the index still is in use.
const PIECE_BYTES: usize = 4 << 20;

/// Begins it. `is_found` is whether the table was made by an earlier process; one just made has
/// nothing to read. The ring is read in any case, as far as it was written.
pub(super) fn begin(index: &Arc<Index>, is_found: bool) {
    let ring = Arc::downgrade(index);
    let table = is_found.then(|| Arc::downgrade(&index.current()));
    let spawned = std::thread::Builder::new().name("index-warm".to_owned()).spawn(move || {
        match table.map_or(Ok(()), |table| read_table(&table)).and_then(|()| read_ring(&ring)) {
            Ok(()) => tracing::debug!("the index was read into memory"),
            Err(error) => tracing::info!(%error, "the index was not read into memory"),
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "the index is not read into memory: no thread for it");
    }
}

fn read_table(table: &Weak<Generation>) -> io::Result<()> {
    let parts = table.upgrade().map(|table| table.parts());
    for (part, bytes) in parts.into_iter().flatten() {
        for piece in pieces(bytes) {
            // Held for a piece at a time, so that what is replaced is unmapped soon.
            let Some(table) = table.upgrade() else { return Ok(()) };
            table.populate(part, piece)?;
        }
    }
    Ok(())
}

fn read_ring(index: &Weak<Index>) -> io::Result<()> {
    let bytes = index.upgrade().and_then(|index| Some(index.ring()?.written()));
    for piece in bytes.into_iter().flat_map(pieces) {
        let Some(index) = index.upgrade() else { return Ok(()) };
        index.ring().map_or(Ok(()), |ring| ring.populate(piece))?;
    }
    Ok(())
}

fn pieces(bytes: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = bytes.end;
    bytes.step_by(PIECE_BYTES).map(move |from| from..end.min(from.saturating_add(PIECE_BYTES)))
}
