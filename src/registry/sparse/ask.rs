//! What is asked of the upstream for a sparse fill, and what it may answer.

use std::rc::Rc;

use async_lock::SemaphoreGuardArc;

use super::{NotOpened, SparseFill};
use crate::http::ByteRange;
use crate::registry::PullError;
use crate::registry::fill_arriving::Lost;
use crate::registry::fill_turns::FillPlace;
use crate::registry::state::Registry;
use crate::telemetry::FillOutcome;
use crate::upstream::{Method, Request, Response};

/// Why a stream ended early.
pub(super) enum Broken {
    /// Asking again may bring the rest.
    Retry(Lost),
    /// It cannot get better.
    Final(Lost),
}

impl Broken {
    pub(super) fn rejected(fill: &SparseFill, what: &str) -> Self {
        let error = PullError::wrong_content(&fill.digest, &fill.scope, what);
        Self::Final(Lost { error, outcome: FillOutcome::Rejected })
    }

    /// The body ended in order and too early.
    pub(super) fn short(fill: &SparseFill) -> Self {
        let what = "the body of a range ended before its last byte";
        let error = PullError::wrong_content(&fill.digest, &fill.scope, what);
        Self::Retry(Lost { error, outcome: FillOutcome::UpstreamFailed })
    }

    pub(super) fn into_error(self) -> PullError {
        let (Self::Retry(lost) | Self::Final(lost)) = self;
        lost.error
    }
}

/// One of the downloads that there may be at a time from an upstream.
pub(super) struct Turn {
    _turn: SemaphoreGuardArc,
    _place: FillPlace,
}

impl Turn {
    /// Waits for it, not for long.
    pub(super) async fn wait(registry: &Registry, fill: &SparseFill) -> Result<Self, Broken> {
        let busy = |error| Broken::Retry(Lost { error, outcome: FillOutcome::UpstreamFailed });
        let place = registry.shared().fill_place(&fill.scope).map_err(busy)?;
        Ok(Self { _turn: place.turn().await.map_err(busy)?, _place: place })
    }
}

/// Asks for a range of the blob.
pub(super) async fn range(
    registry: &Rc<Registry>,
    fill: &SparseFill,
    range: ByteRange,
) -> Result<Response, Broken> {
    let Some(upstream) = &fill.scope.upstream else {
        return Err(Broken::rejected(fill, "hosted content is never filled"));
    };
    registry.metrics().range_fetched();
    let repository = fill.scope.repository.clone();
    let path = format!("/v2/{repository}/blobs/{}", fill.digest);
    let request = Request { range: Some(range), ..Request::new(Method::Get, path, repository) };
    registry.client().exchange(upstream, request).await.map_err(|error| {
        let lost = Lost::from(&error);
        if error.is_failure_of_upstream() { Broken::Retry(lost) } else { Broken::Final(lost) }
    })
}

/// What the first answer is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FirstAnswer {
    /// Of the whole blob, in bytes.
    pub(super) size: u64,
    /// Which bytes come.
    pub(super) first: u64,
    pub(super) end: u64,
    /// Everything comes, whatever was asked for.
    pub(super) ignores_ranges: bool,
}

/// Reads the first answer, which has to tell the size.
pub(super) fn first_answer(
    registry: &Registry,
    fill: &SparseFill,
    response: &Response,
) -> Result<FirstAnswer, NotOpened> {
    let failed =
        |what: &str| NotOpened::Failed(PullError::wrong_content(&fill.digest, &fill.scope, what));
    let answer = match (response.status, response.content_range, response.content_length) {
        (206, Some(range), _) => {
            // Fits what was asked for: see `upstream::reply`.
            let size = range.total.ok_or(NotOpened::Whole)?;
            let end = range.last + 1;
            FirstAnswer { size, first: range.first, end, ignores_ranges: false }
        }
        (200, _, Some(size)) => FirstAnswer { size, first: 0, end: size, ignores_ranges: true },
        (200, _, None) => return Err(NotOpened::Whole),
        (404, ..) => {
            let error = registry.shared().note_absent_blob(&fill.scope, &fill.digest);
            return Err(NotOpened::Failed(error));
        }
        (416, ..) => return Err(NotOpened::OutOfRange),
        (status, ..) => return Err(failed(&format!("unexpected status {status} for a blob"))),
    };
    let max = registry.shared().blob_bytes_max;
    match answer.size {
        // Its digest decides at once: nothing to fill by ranges.
        0 => Err(NotOpened::Whole),
        size if size > max => {
            Err(failed(&format!("{size} bytes, more than the {max} that a blob may have")))
        }
        _ => Ok(answer),
    }
}

/// Reads a later answer, which must be about the same blob; tells whether everything comes.
pub(super) fn later_answer(
    fill: &SparseFill,
    response: &Response,
    size: u64,
) -> Result<bool, Broken> {
    let (found, ignores_ranges) = match response.status {
        206 => (response.content_range.and_then(|range| range.total), false),
        200 => (response.content_length, true),
        404 => {
            let message = format!("{} does not know blob {} any more", fill.scope, fill.digest);
            let error = PullError::BlobUnknown(message);
            return Err(Broken::Final(Lost { error, outcome: FillOutcome::UpstreamFailed }));
        }
        status => {
            return Err(Broken::rejected(fill, &format!("unexpected status {status} for a range")));
        }
    };
    match found {
        Some(found) if found != size => Err(Broken::rejected(
            fill,
            &format!("size changed from {size} to {found} bytes between two requests"),
        )),
        _ => Ok(ignores_ranges),
    }
}
