//! A blob on its way into the store: what one response after another brings of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::space::{NoRoom, Reservation};
use super::state::Registry;
use super::take_room::{NoPlace, take_promised, take_room_for_fill};
use super::{Fill, PullError};
use crate::limits::{FRAME_BYTES_MAX, GATHERED_FOR};
use crate::runtime::{let_others_go, timeout};
use crate::storage::{StageError, Staged};
use crate::telemetry::FillOutcome;
use crate::upstream::{Body, Response, UpstreamError};

/// How long the first bytes are waited for before followers are told that content comes: their
/// heads then go out together with it, which for a thousand of them is a thousand packets less.
const FIRST_BYTES_WITHIN: Duration = Duration::from_millis(5);
/// Of content longer than [`PARTED_ABOVE`] so much is hashed and written by itself before the rest of
/// what has come, so that its clients need not wait for the hash of all that.
const FIRST_PIECE_BYTES: usize = 64 * 1024;
const PARTED_ABOVE: u64 = 1024 * 1024;
/// How much room is promised at a time to content of unknown size.
const GROWTH_BYTES: u64 = 1024 * 1024;

/// Why one try ended early.
pub(super) enum Broken {
    /// Asking again may bring the rest.
    Retry(UpstreamError),
    /// It cannot get better.
    Final(Lost),
}

/// Why there is no content, for the followers and for the metrics.
pub(super) struct Lost {
    pub(super) error: PullError,
    pub(super) outcome: FillOutcome,
}

impl Lost {
    pub(super) fn rejected(fill: &Fill, what: &str) -> Self {
        let error = PullError::UpstreamFailed(format!("{}@{}: {what}", fill.scope, fill.digest));
        Self { error, outcome: FillOutcome::Rejected }
    }

    /// Whether it tells of whoever was asked, and nothing of our store or of the content.
    pub(super) fn is_of_its_source(&self) -> bool {
        matches!(self.outcome, FillOutcome::UpstreamFailed | FillOutcome::Rejected)
    }
}

impl From<&UpstreamError> for Lost {
    fn from(error: &UpstreamError) -> Self {
        Self { error: PullError::from(error), outcome: FillOutcome::UpstreamFailed }
    }
}

impl From<StageError> for Lost {
    fn from(error: StageError) -> Self {
        let outcome = match &error {
            StageError::Digest(_) => FillOutcome::DigestMismatch,
            StageError::Io { .. } => FillOutcome::StorageFailed,
        };
        Self { error: PullError::from(error), outcome }
    }
}

/// What is there of a blob.
#[derive(Default)]
pub(super) struct Arriving {
    /// Made when somebody has answered: before that nobody knows which pool has the room.
    pub(super) staged: Option<Staged>,
    /// A file that was made before, in the pool that will likely be the one.
    pub(super) made_ahead: Option<Staged>,
    /// Of the whole, if told.
    pub(super) size: Option<u64>,
    /// Where the last of it came from.
    pub(super) endpoint: Option<Arc<str>>,
    /// The room that was promised to it.
    pub(super) place: Option<Reservation>,
}

impl Arriving {
    /// Bytes so far.
    pub(super) fn received(&self) -> u64 {
        self.staged.as_ref().map_or(0, Staged::size)
    }

    /// Takes what a response brings, to the end of the content. Followers see it grow if it
    /// `is_shown`, or was before.
    pub(super) async fn take(
        &mut self,
        registry: &Registry,
        fill: &Fill,
        response: Response,
        is_shown: bool,
    ) -> Result<(), Broken> {
        let from = self.received();
        self.endpoint = Some(response.endpoint.clone());
        let skip = check_head(registry, fill, &response, from, &mut self.size)?;
        let staged = match &mut self.staged {
            Some(staged) => staged,
            None => {
                // Before any client is told that content comes.
                let (shared, bytes) = (registry.shared(), self.size.unwrap_or(0));
                let (content, pool) = ((&fill.scope, &fill.digest), fill.placing.pool);
                let ahead = &mut self.made_ahead;
                let taken = take_room_for_fill(shared, content, bytes, pool, ahead).await;
                let (made, room) = taken.map_err(|why| match why {
                    NoPlace::NoRoom => no_room(fill, bytes),
                    NoPlace::Failed(error) => Broken::Final(error.into()),
                })?;
                self.place = Some(room);
                self.staged.insert(made)
            }
        };
        staged.will_have(self.size.unwrap_or(0));
        let mut body = response.body;
        let is_new = from == 0 && is_shown;
        let first = if is_new { first_bytes(&mut body, self.size).await } else { None };
        if let Some(first) = first {
            let first = first.map_err(Broken::Retry)?;
            append(registry, (fill, self.size), staged, first, &mut self.place).await?;
            staged.settle().await.map_err(|error| Broken::Final(error.into()))?;
            fill.opened(known(self.size), staged.shared());
            fill.grown(staged.written());
            // They send it before more is hashed.
            let_others_go().await;
        }
        // What grew while nobody knew the size may be more than that: the file would be too long.
        if let Some(place) = &mut self.place
            && self.size == Some(place.bytes())
        {
            let taken = take_promised(&registry.shared().space, staged, place).await;
            taken.map_err(|error| Broken::Final(error.into()))?;
        }
        if is_new {
            fill.opened(known(self.size), staged.shared());
        }
        let body = (body, skip);
        let received = receive(registry, (fill, self.size), staged, body, &mut self.place).await;
        // Whatever comes next may take a while.
        let settled = settle(fill, staged).await;
        // What the disk lost, asking again does not bring back.
        settled.and(received)?;
        match self.size {
            Some(size) if staged.size() != size => Err(Broken::Final(Lost::rejected(
                fill,
                &format!("the body ended at {} of {size} bytes", staged.size()),
            ))),
            _ => Ok(()),
        }
    }

    /// Whether it is whole; followers may look at it then.
    pub(super) fn verify(&self, fill: &Fill) -> Result<(), Lost> {
        let Some(staged) = &self.staged else {
            return Err(Lost::rejected(fill, "it ended before it began"));
        };
        staged.verify()?;
        fill.opened(known(self.size), staged.shared());
        Ok(())
    }
}

/// A body of no bytes is complete with its head: its followers wait for the digest.
fn known(size: Option<u64>) -> Option<u64> {
    size.filter(|&bytes| bytes > 0)
}

fn no_room(fill: &Fill, bytes: u64) -> Broken {
    let message = format!("{}@{}: no room for {bytes} bytes in the store", fill.scope, fill.digest);
    let error = PullError::NoRoom(message);
    Broken::Final(Lost { error, outcome: FillOutcome::StorageFailed })
}

/// Checks status and size of a response; returns how many body bytes we have already.
fn check_head(
    registry: &Registry,
    fill: &Fill,
    response: &Response,
    from: u64,
    size: &mut Option<u64>,
) -> Result<u64, Broken> {
    let fail = |what: String| Broken::Final(Lost::rejected(fill, &what));
    let (skip, whole) = match response.status {
        200 => (from, response.content_length),
        206 if from > 0 => (0, response.content_length.map(|rest| from.saturating_add(rest))),
        404 => {
            let message = format!("{} does not know blob {}", fill.scope, fill.digest);
            let error = PullError::BlobUnknown(message);
            return Err(Broken::Final(Lost { error, outcome: FillOutcome::UpstreamFailed }));
        }
        416 => return Err(fail(format!("there is nothing after byte {from} of what it sent"))),
        status => return Err(fail(format!("unexpected status {status} for a blob"))),
    };
    let max = registry.shared().blob_bytes_max;
    if let Some(found) = whole.filter(|&found| found > max) {
        return Err(fail(format!("{found} bytes, more than the {max} that a blob may have")));
    }
    match (*size, whole) {
        (Some(known), Some(found)) if known != found => {
            Err(fail(format!("size changed from {known} to {found} bytes between two requests")))
        }
        (None, found) if from == 0 => {
            *size = found;
            Ok(skip)
        }
        _ => Ok(skip),
    }
}

/// The first bytes, if they come soon: some of them, so that these are soon there for followers.
async fn first_bytes(body: &mut Body, size: Option<u64>) -> Option<Result<Bytes, UpstreamError>> {
    let is_parted = size.is_some_and(|size| size > PARTED_ABOVE);
    let most = if is_parted { FIRST_PIECE_BYTES } else { FRAME_BYTES_MAX };
    timeout(FIRST_BYTES_WITHIN, body.frame_of(most)).await.ok().flatten()
}

/// Writes the body behind what is staged already, leaving out its first `skip` bytes.
async fn receive(
    registry: &Registry,
    (fill, size): (&Fill, Option<u64>),
    staged: &mut Staged,
    (mut body, mut skip): (Body, u64),
    place: &mut Option<Reservation>,
) -> Result<(), Broken> {
    while let Some(frame) = next_frame(&mut body, fill, staged).await? {
        let mut frame: Bytes = frame.map_err(Broken::Retry)?;
        if skip > 0 {
            let cut = usize::try_from(skip).unwrap_or(usize::MAX).min(frame.len());
            frame = frame.split_off(cut);
            skip -= cut as u64;
        }
        if frame.is_empty() {
            continue;
        }
        let shown = staged.written();
        append(registry, (fill, size), staged, frame, place).await?;
        match staged.written() {
            // The first bytes are waited for.
            0 => settle(fill, staged).await?,
            written if written > shown => fill.grown(written),
            _ => {}
        }
    }
    Ok(())
}

/// The next bytes. Those before them are not kept from the followers for long.
async fn next_frame(
    body: &mut Body,
    fill: &Fill,
    staged: &mut Staged,
) -> Result<Option<Result<Bytes, UpstreamError>>, Broken> {
    if staged.written() < staged.size() {
        if let Ok(frame) = timeout(GATHERED_FOR, body.frame()).await {
            return Ok(frame);
        }
        settle(fill, staged).await?;
    }
    Ok(body.frame().await)
}

/// Writes what was gathered, for the followers.
async fn settle(fill: &Fill, staged: &mut Staged) -> Result<(), Broken> {
    staged.settle().await.map_err(|error| Broken::Final(error.into()))?;
    fill.grown(staged.written());
    Ok(())
}

/// Hashes and writes the next bytes, if there may be so many and there is room for them.
async fn append(
    registry: &Registry,
    (fill, size): (&Fill, Option<u64>),
    staged: &mut Staged,
    frame: Bytes,
    place: &mut Option<Reservation>,
) -> Result<(), Broken> {
    // A resumed body need not say its own length: what it was told to be holds.
    let max = size.unwrap_or(registry.shared().blob_bytes_max);
    let after = staged.size() + frame.len() as u64;
    if after > max {
        let what = format!("more than the {max} bytes that it may have");
        return Err(Broken::Final(Lost::rejected(fill, &what)));
    }
    if let Some(place) = place
        && after > place.bytes()
    {
        // Of unknown size: room is promised as it comes.
        let more = (after - place.bytes()).max(GROWTH_BYTES);
        place.grow(more).await.map_err(|NoRoom| no_room(fill, after))?;
    }
    staged.append(frame).await.map_err(|error| Broken::Final(error.into()))
}
