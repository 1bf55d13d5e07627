//! One range on its way from the upstream into the file.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::SparseFill;
use super::ask::{self, Broken, Turn};
use super::plan::Piece;
use crate::http::ByteRange;
use crate::registry::fill_arriving::Lost;
use crate::registry::state::Registry;
use crate::runtime::clock;
use crate::storage::StagedWriter;
use crate::upstream::Response;

/// What every stream of a fill needs.
#[derive(Clone)]
pub(super) struct Stream {
    pub(super) registry: Rc<Registry>,
    pub(super) fill: Arc<SparseFill>,
    pub(super) writer: StagedWriter,
    /// Of the blob, in bytes.
    pub(super) size: u64,
    /// Who sent some of it; no more than the upstream has.
    pub(super) endpoints: Rc<RefCell<HashSet<Arc<str>>>>,
}

impl Stream {
    /// Asks for a piece and receives it.
    pub(super) async fn fetch(self, piece: Piece) -> Result<(), Broken> {
        let _turn = Turn::wait(&self.registry, &self.fill).await?;
        let range = ByteRange::From { first: piece.first, last: Some(piece.end - 1) };
        let response = ask::range(&self.registry, &self.fill, range).await?;
        let ignores_ranges = ask::later_answer(&self.fill, &response, self.size)?;
        self.receive(piece, response, ignores_ranges).await
    }

    /// Writes what comes and is not there yet, until the plan has nothing left for this stream.
    pub(super) async fn receive(
        self,
        piece: Piece,
        mut response: Response,
        ignores_ranges: bool,
    ) -> Result<(), Broken> {
        let fill = &self.fill;
        self.endpoints.borrow_mut().insert(response.endpoint.clone());
        if let Some(mut plan) = fill.plan() {
            plan.answered(piece.id, ignores_ranges, clock::now());
        }
        while let Some(frame) = response.body.frame().await {
            let frame = frame.map_err(|error| Broken::Retry(Lost::from(&error)))?;
            let length = frame.len() as u64;
            let taken = fill.plan().map(|mut plan| plan.take(piece.id, length));
            let Some((at, parts)) = taken else { return Ok(()) };
            for part in parts {
                let within = |offset: u64| {
                    usize::try_from(offset.saturating_sub(at))
                        .unwrap_or(usize::MAX)
                        .min(frame.len())
                };
                let bytes = frame.slice(within(part.start)..within(part.end));
                let written = self.writer.write_at(bytes, part.start).await;
                written.map_err(|error| Broken::Final(error.into()))?;
                fill.wrote(&part);
            }
            let readers = fill.readers.load(Ordering::Relaxed);
            if !fill.plan().is_some_and(|mut plan| plan.advance(piece.id, length, readers)) {
                return Ok(());
            }
        }
        Err(Broken::short(fill))
    }
}
