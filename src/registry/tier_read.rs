//! Reading content from remote tiers before an upstream is asked for it.
//!
//! What comes from a tier is content like any other: the digest decides. A tier that has not got
//! it, fails or is wrong gives way to the next and at last to the upstream.

use bytes::Bytes;

use super::commit::ManifestContent;
use super::fetch_manifest::checked;
use super::fill_arriving::{Arriving, Broken, Lost};
use super::state::Registry;
use super::tiers::{Asking, TierOutcome, signed};
use super::{Fill, PullError};
use crate::limits::{MANIFEST_BYTES_MAX, TIER_HELD_BYTES_MAX};
use crate::oci::{Digest, Manifest, Reference, Scope, media_type};
use crate::plugin::{RemotePurpose, RemoteRequest};
use crate::telemetry::FillOutcome;
use crate::upstream::{Response, TierReply};

const READ: RemotePurpose = RemotePurpose::Read;

impl Registry {
    /// Sends a request to read; `None` when it brings nothing, which is counted.
    async fn open_in_tier(&self, request: &RemoteRequest) -> Option<(Asking<'_>, Response)> {
        let tier = self.shared().tiers.ready(request)?;
        match self.client().read_from_tier(&signed(request)).await {
            Ok(TierReply::Content(response)) => {
                tier.answered();
                return Some((tier, *response));
            }
            Ok(TierReply::Status(403 | 404 | 410)) => {
                tier.answered();
                tier.count(READ, TierOutcome::NotFound);
            }
            Ok(TierReply::Status(status)) => {
                tier.answered();
                let reason = format!("{}: status {status}", request.shown_url());
                tier.failed(READ, TierOutcome::Failed, &reason);
            }
            Err(error) => tier.broke(READ, &error),
        }
        None
    }

    /// Downloads a blob from the tiers of its placement, in their order. Whether it is whole and
    /// verified; if not, and its followers read already, the upstream goes on where this ended.
    ///
    /// Content that is short enough is shown to nobody before it is verified, so that a tier that
    /// has it wrong costs a download and no pull. Longer content is streamed as from an upstream.
    ///
    /// # Errors
    /// The store does not take it, or followers were given wrong bytes: they are cut short, and
    /// the next pull asks no tier.
    pub(super) async fn fill_from_tiers(
        &self,
        fill: &Fill,
        arriving: &mut Arriving,
    ) -> Result<bool, Lost> {
        let tiers = &self.shared().tiers;
        for request in fill.reads.iter() {
            if tiers.has_wrong(&fill.digest) {
                break;
            }
            let Some((tier, response)) = self.open_in_tier(request).await else { continue };
            let shown = response.content_length.is_some_and(|bytes| bytes > TIER_HELD_BYTES_MAX);
            match arriving.take(self, fill, response, shown).await {
                Ok(()) => match arriving.verify(fill) {
                    Ok(()) => {
                        tier.count(READ, TierOutcome::Done);
                        return Ok(true);
                    }
                    Err(lost) => {
                        tiers.note_wrong(&fill.digest);
                        tier.failed(READ, TierOutcome::WrongContent, &lost.error);
                        if fill.file().is_some() {
                            return Err(lost);
                        }
                    }
                },
                Err(Broken::Final(lost)) if lost.outcome == FillOutcome::StorageFailed => {
                    return Err(lost);
                }
                Err(Broken::Final(lost)) => {
                    tier.failed(READ, TierOutcome::WrongContent, &lost.error);
                }
                Err(Broken::Retry(error)) => tier.broke(READ, &error),
            }
            if fill.file().is_none() {
                // Nobody has seen it: the next source begins anew.
                *arriving = Arriving::default();
            }
        }
        Ok(false)
    }

    /// A manifest from the tiers of its placement; `None` when it has to be fetched.
    pub(super) async fn manifest_from_tiers(
        &self,
        scope: &Scope,
        digest: &Digest,
        reads: &[RemoteRequest],
    ) -> Option<ManifestContent> {
        for request in reads {
            if self.shared().tiers.has_wrong(digest) {
                return None;
            }
            let Some((tier, mut response)) = self.open_in_tier(request).await else { continue };
            let told = response.header("content-type").unwrap_or_default().to_owned();
            let bytes = match response.body.collect(MANIFEST_BYTES_MAX).await {
                Ok(bytes) => bytes,
                Err(error) => {
                    tier.broke(READ, &error);
                    continue;
                }
            };
            match checked_from_tier(scope, digest, &told, bytes) {
                Ok(content) => {
                    tier.count(READ, TierOutcome::Done);
                    return Some(content);
                }
                Err(error) => {
                    tier.failed(READ, TierOutcome::WrongContent, &error);
                    self.shared().tiers.note_wrong(digest);
                }
            }
        }
        None
    }
}

/// An object store seldom knows what it stores: the manifest's own word for its type counts, and
/// what the tier told only if it has none.
fn checked_from_tier(
    scope: &Scope,
    digest: &Digest,
    told: &str,
    bytes: Bytes,
) -> Result<ManifestContent, PullError> {
    let own = Manifest::own_media_type(&bytes);
    let content_type = own.as_deref().unwrap_or(media_type::without_parameters(told));
    checked((scope, &Reference::Digest(*digest)), Some(*digest), content_type, bytes)
}
