//! The task of a fill: request, write and hash, resume, verify, commit.

use std::time::Duration;

use bytes::Bytes;

use super::space::{NoRoom, Reservation};
use super::state::Registry;
use super::take_room::{NoPlace, take_room};
use super::{Fill, PullError, commit};
use crate::limits::FILL_TRIES_MAX;
use crate::oci::Scope;
use crate::runtime::sleep;
use crate::storage::{StageError, Staged};
use crate::telemetry::FillOutcome;
use crate::upstream::{Body, ByteRange, Method, Request, Response, UpstreamError};

/// Tries of one fill in all, however much each of them brought.
const TRIES_TOTAL_MAX: u32 = 64;
/// What a try must bring for the fruitless ones before it to be forgiven: an upstream that drips
/// must not be able to keep a fill alive for hours.
const FRUITFUL_BYTES: u64 = 64 * 1024;
/// How much room is promised at a time to content of unknown size.
const GROWTH_BYTES: u64 = 1024 * 1024;
/// Pause before the second try; doubles with each try that brought nothing.
const PAUSE: Duration = Duration::from_millis(100);

/// Why one try ended early.
enum Broken {
    /// Asking again may bring the rest.
    Retry(UpstreamError),
    /// It cannot get better.
    Final(Lost),
}

/// Why there is no content, for the followers and for the metrics.
struct Lost {
    error: PullError,
    outcome: FillOutcome,
}

impl Lost {
    fn rejected(fill: &Fill, what: &str) -> Self {
        let error = PullError::UpstreamFailed(format!("{}@{}: {what}", fill.scope, fill.digest));
        Self { error, outcome: FillOutcome::Rejected }
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

/// Downloads the blob, publishes its growth to the followers, commits it.
pub(super) async fn run(registry: &Registry, fill: &Fill) {
    let active = registry.metrics().fill();
    let mut place = None;
    let staged = match download(registry, fill, &mut place).await {
        Ok(whole) => whole,
        Err(Lost { error, outcome }) => {
            tracing::warn!(scope = %fill.scope, digest = %fill.digest, %error, "a fill failed");
            active.finish(outcome);
            fill.keep_place(place);
            fill.failed(error);
            return;
        }
    };
    // Verified: followers get the rest at once, whether or not the disk keeps it.
    fill.verified(staged.size());
    fill.lease(registry.shared().leases.take(&fill.digest));
    let content = (staged, &fill.placing);
    match commit::blob(registry.shared(), &fill.scope, &fill.digest, content).await {
        Ok(()) => {
            fill.stored();
            active.finish(FillOutcome::Stored);
            // What was promised to it is used by now.
            drop(place);
        }
        Err(error) => {
            tracing::error!(scope = %fill.scope, digest = %fill.digest, %error,
                "content was served but could not be kept");
            active.finish(FillOutcome::StorageFailed);
            fill.keep_place(place);
        }
    }
}

/// Downloads until the content is whole and verified.
async fn download(
    registry: &Registry,
    fill: &Fill,
    place: &mut Option<Reservation>,
) -> Result<Staged, Lost> {
    // Made when the upstream has answered: before that nobody knows which pool has the room.
    let mut staged = None;
    let mut size = None;
    let (mut tries, mut fruitless) = (0, 0);
    let (mut source, mut others) = (&fill.scope, fill.others.iter().peekable());
    loop {
        let before = received(&staged);
        let error = match one_try((registry, fill, source), &mut staged, &mut size, place).await {
            Ok(()) => break,
            Err(Broken::Final(error)) => return Err(error),
            Err(Broken::Retry(error)) => error,
        };
        // A chunked body may have come whole, and only its last chunk not.
        if size.is_none()
            && let Some(whole) = staged.take_if(|staged| staged.verify().is_ok())
        {
            return Ok(whole);
        }
        tries += 1;
        let brought = received(&staged) - before;
        fruitless = if brought >= FRUITFUL_BYTES { 1 } else { fruitless + 1 };
        if tries >= TRIES_TOTAL_MAX {
            return Err(Lost::from(&error));
        }
        // Sooner than where nobody else can be asked: clients are waiting.
        let may_move_on = fruitless > 1 && staged.is_some();
        if let Some(next) = others.next_if(|_| may_move_on) {
            tracing::info!(from = %source, to = %next, digest = %fill.digest, %error,
                received = received(&staged), "a fill goes on elsewhere");
            (source, fruitless) = (next, 0);
            continue;
        }
        if fruitless >= FILL_TRIES_MAX {
            return Err(Lost::from(&error));
        }
        tracing::info!(scope = %fill.scope, digest = %fill.digest, %error,
            received = received(&staged), tries, "a fill broke off and is resumed");
        registry.metrics().fill_resumed();
        sleep(PAUSE * 2_u32.saturating_pow(fruitless - 1)).await;
    }
    let Some(staged) = staged else {
        return Err(Lost::rejected(fill, "it ended before it began"));
    };
    staged.verify()?;
    Ok(staged)
}

fn received(staged: &Option<Staged>) -> u64 {
    staged.as_ref().map_or(0, Staged::size)
}

/// One request to `source`, from where the last one stopped to the end of the content.
async fn one_try(
    (registry, fill, source): (&Registry, &Fill, &Scope),
    staged: &mut Option<Staged>,
    size: &mut Option<u64>,
    place: &mut Option<Reservation>,
) -> Result<(), Broken> {
    let Some(upstream) = &source.upstream else {
        return Err(Broken::Final(Lost::rejected(fill, "hosted content is never filled")));
    };
    let (from, is_opened) = (received(staged), staged.is_some());
    let range = (from > 0).then_some(ByteRange { first: from, last: None });
    let path = format!("/v2/{}/blobs/{}", source.repository, fill.digest);
    let request = Request { range, ..Request::new(Method::Get, path, source.repository.clone()) };
    let response = registry.client().exchange(upstream, request).await.map_err(|error| {
        // Before it was opened a failure is the answer; in mid-blob it may pass.
        if is_opened && error.is_failure_of_upstream() {
            Broken::Retry(error)
        } else {
            Broken::Final(Lost::from(&error))
        }
    })?;
    let skip = check_head(registry, fill, &response, from, size)?;
    let staged = match staged {
        Some(staged) => staged,
        None => {
            // Before any client is told that content comes.
            let (shared, bytes) = (registry.shared(), size.unwrap_or(0));
            let taken =
                take_room(shared, (&fill.scope, &fill.digest), bytes, fill.placing.pool).await;
            let (made, room) = taken.map_err(|why| match why {
                NoPlace::NoRoom => no_room(fill, bytes),
                NoPlace::Failed(error) => Broken::Final(error.into()),
            })?;
            *place = Some(room);
            staged.insert(made)
        }
    };
    if from == 0 {
        // A body of no bytes is complete with its head: its followers wait for the digest.
        fill.opened(size.filter(|&bytes| bytes > 0), staged.shared());
    }
    receive(registry, fill, staged, response.body, skip, place).await?;
    match *size {
        Some(size) if staged.size() != size => Err(Broken::Final(Lost::rejected(
            fill,
            &format!("the body ended at {} of {size} bytes", staged.size()),
        ))),
        _ => Ok(()),
    }
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

/// Writes the body behind what is staged already, leaving out its first `skip` bytes.
async fn receive(
    registry: &Registry,
    fill: &Fill,
    staged: &mut Staged,
    mut body: Body,
    mut skip: u64,
    place: &mut Option<Reservation>,
) -> Result<(), Broken> {
    let max = registry.shared().blob_bytes_max;
    while let Some(frame) = body.frame().await {
        let mut frame: Bytes = frame.map_err(Broken::Retry)?;
        if skip > 0 {
            let cut = usize::try_from(skip).unwrap_or(usize::MAX).min(frame.len());
            frame = frame.split_off(cut);
            skip -= cut as u64;
        }
        if frame.is_empty() {
            continue;
        }
        if staged.size() + frame.len() as u64 > max {
            let what = format!("more than the {max} bytes that a blob may have");
            return Err(Broken::Final(Lost::rejected(fill, &what)));
        }
        let after = staged.size() + frame.len() as u64;
        if let Some(place) = place
            && after > place.bytes()
        {
            // Of unknown size: room is promised as it comes.
            let more = (after - place.bytes()).max(GROWTH_BYTES);
            place.grow(more).await.map_err(|NoRoom| no_room(fill, after))?;
        }
        staged.append(frame).await.map_err(|error| Broken::Final(error.into()))?;
        fill.grown(staged.size());
    }
    Ok(())
}
