//! The task of a fill: request, write and hash, resume, verify, commit.

use std::time::Duration;

use futures_util::future::join;

use super::fill_arriving::{Arriving, Broken, Lost};
use super::state::Registry;
use super::take_room::make_ahead;
use super::tier_write::NewContent;
use super::{Fill, commit};
use crate::http::ByteRange;
use crate::limits::FILL_TRIES_MAX;
use crate::oci::Scope;
use crate::runtime::{let_others_go, sleep};
use crate::storage::Staged;
use crate::telemetry::FillOutcome;
use crate::upstream::{Method, Request};

/// Tries of one fill in all, however much each of them brought.
const TRIES_TOTAL_MAX: u32 = 64;
/// What a try must bring for the fruitless ones before it to be forgiven: an upstream that drips
/// must not be able to keep a fill alive for hours.
pub(super) const FRUITFUL_BYTES: u64 = 64 * 1024;
/// Pause before the second try; doubles with each try that brought nothing.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// Downloads the blob, publishes its growth to the followers, commits it.
pub(super) async fn run(registry: &Registry, fill: &Fill) {
    let active = registry.metrics().fill();
    let mut arriving = Arriving::default();
    let Whole { staged, is_from_tier } = match fetch(registry, fill, &mut arriving).await {
        Ok(whole) => whole,
        Err(Lost { error, outcome }) => {
            tracing::warn!(scope = %fill.scope, digest = %fill.digest, %error, "a fill failed");
            active.finish(outcome);
            fill.keep_place(arriving.place.take());
            fill.failed(error);
            return;
        }
    };
    let (place, bytes) = (arriving.place, staged.size());
    // Verified: followers get the rest at once, whether or not the disk keeps it.
    fill.verified(bytes);
    fill.lease(registry.shared().leases.take(&fill.digest));
    let content = (staged, &fill.placing);
    match commit::blob(registry.shared(), &fill.scope, &fill.digest, content).await {
        Ok(()) => {
            fill.stored();
            active.finish(FillOutcome::Stored);
            // What was promised to it is used by now.
            drop(place);
            if !is_from_tier {
                let (scope, digest) = (fill.scope.clone(), fill.digest);
                registry.offer_to_tiers(NewContent { scope, digest, media_type: None, bytes });
            }
        }
        Err(error) => {
            tracing::error!(scope = %fill.scope, digest = %fill.digest, %error,
                "content was served but could not be kept");
            active.finish(FillOutcome::StorageFailed);
            fill.keep_place(place);
        }
    }
}

/// A blob that is all there.
struct Whole {
    staged: Staged,
    is_from_tier: bool,
}

/// Downloads until the content is whole and verified: from a remote tier, else from the upstream.
async fn fetch(registry: &Registry, fill: &Fill, arriving: &mut Arriving) -> Result<Whole, Lost> {
    if registry.fill_from_tiers(fill, arriving).await?
        && let Some(staged) = arriving.staged.take()
    {
        return Ok(Whole { staged, is_from_tier: true });
    }
    let is_tier_in_it = arriving.received() > 0;
    let downloaded = download(registry, fill, arriving).await;
    match (downloaded.as_ref().err().map(|lost| lost.outcome), &arriving.endpoint) {
        (Some(FillOutcome::DigestMismatch | FillOutcome::Rejected), _) if is_tier_in_it => {
            // Perhaps the tier's part was: the next pull does without it.
            registry.shared().tiers.note_wrong(&fill.digest);
        }
        (Some(FillOutcome::DigestMismatch), Some(endpoint)) => {
            // Who pulls again is to have it from another one, if there is one.
            registry.client().note_wrong(endpoint);
        }
        _ => {}
    }
    Ok(Whole { staged: downloaded?, is_from_tier: false })
}

/// Downloads from the upstream what is not there yet.
async fn download(
    registry: &Registry,
    fill: &Fill,
    arriving: &mut Arriving,
) -> Result<Staged, Lost> {
    let (mut tries, mut fruitless) = (0, 0);
    let (mut source, mut others) = (&fill.scope, fill.others.iter().peekable());
    let mut is_elsewhere = false;
    loop {
        let before = arriving.received();
        let error = match one_try((registry, fill, source), arriving).await {
            Ok(()) => break,
            Err(Broken::Final(lost)) if is_elsewhere && lost.is_of_its_source() => {
                // That one has not got it, which says nothing about those who may.
                tracing::info!(at = %source, digest = %fill.digest, error = %lost.error,
                    "a fill does not go on there");
                let next = others.next();
                (source, is_elsewhere) = (next.unwrap_or(&fill.scope), next.is_some());
                continue;
            }
            Err(Broken::Final(error)) => return Err(error),
            Err(Broken::Retry(error)) => error,
        };
        // A chunked body may have come whole, and only its last chunk not.
        if arriving.size.is_none()
            && let Some(whole) = arriving.staged.take_if(|staged| staged.verify().is_ok())
        {
            return Ok(whole);
        }
        tries += 1;
        let brought = arriving.received() - before;
        fruitless = if brought >= FRUITFUL_BYTES { 1 } else { fruitless + 1 };
        if tries >= TRIES_TOTAL_MAX {
            return Err(Lost::from(&error));
        }
        // Sooner than where nobody else can be asked: clients are waiting.
        let may_move_on = fruitless > 1 && arriving.staged.is_some();
        if let Some(next) = others.next_if(|_| may_move_on) {
            tracing::info!(from = %source, to = %next, digest = %fill.digest, %error,
                received = arriving.received(), "a fill goes on elsewhere");
            (source, fruitless, is_elsewhere) = (next, 0, true);
            continue;
        }
        if fruitless >= FILL_TRIES_MAX {
            return Err(Lost::from(&error));
        }
        tracing::info!(scope = %fill.scope, digest = %fill.digest, %error,
            received = arriving.received(), tries, "a fill broke off and is resumed");
        registry.metrics().fill_resumed();
        sleep(PAUSE * 2_u32.saturating_pow(fruitless - 1)).await;
    }
    arriving.verify(fill)?;
    arriving.staged.take().ok_or_else(|| Lost::rejected(fill, "it ended before it began"))
}

/// One request to `source`, from where the last one stopped to the end of the content.
async fn one_try(
    (registry, fill, source): (&Registry, &Fill, &Scope),
    arriving: &mut Arriving,
) -> Result<(), Broken> {
    let Some(upstream) = &source.upstream else {
        return Err(Broken::Final(Lost::rejected(fill, "hosted content is never filled")));
    };
    let (from, is_opened) = (arriving.received(), fill.file().is_some());
    let range = (from > 0).then_some(ByteRange::From { first: from, last: None });
    let path = format!("/v2/{}/blobs/{}", source.repository, fill.digest);
    let request = Request { range, ..Request::new(Method::Get, path, source.repository.clone()) };
    let ahead = async {
        if arriving.staged.is_none() && arriving.made_ahead.is_none() {
            // The request goes out first.
            let_others_go().await;
            let content = (&fill.scope, &fill.digest);
            arriving.made_ahead = make_ahead(registry.shared(), content, fill.placing.pool).await;
        }
    };
    let (response, ()) = join(registry.client().exchange(upstream, request), ahead).await;
    let response = response.map_err(|error| {
        // Before it was opened a failure is the answer; in mid-blob it may pass.
        if is_opened && error.is_failure_of_upstream() {
            Broken::Retry(error)
        } else {
            Broken::Final(Lost::from(&error))
        }
    })?;
    if response.status == 404 && !is_opened {
        // The answer. In mid-blob it would be another candidate's, or a moment's.
        registry.shared().note_absent_blob(&fill.scope, &fill.digest);
    }
    arriving.take(registry, fill, response, true).await
}
