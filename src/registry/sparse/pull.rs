//! How a pull comes to read from a sparse fill, or past it.

use std::sync::Arc;

use super::plan::{NEAR_BYTES, Want};
use super::{NotOpened, Seat, SparseFill};
use crate::config::ColdRanges;
use crate::http::{ByteRange, RangeOutcome};
use crate::oci::{Digest, Scope};
use crate::registry::pull_blob::{pull, wrong_size};
use crate::registry::state::Registry;
use crate::registry::{Content, Fill, Found, Pull, PullError, Tail, Wanted, commit};
use crate::runtime::spawn;
use crate::telemetry::CacheResult;

/// What came of asking a sparse fill.
pub(in crate::registry) enum SparseRead {
    /// It answers.
    Pull(Box<Pull>),
    /// The blob has to be asked for as a whole.
    Whole,
    /// It was refused to the repository that it was started for, which says nothing of this one.
    Refused,
}

impl SparseRead {
    fn pull(pull: Pull) -> Self {
        Self::Pull(Box::new(pull))
    }
}

impl Registry {
    /// The range that may be answered with bytes nobody has verified, if that is what is wanted and
    /// the upstream is one of those.
    pub(in crate::registry) fn part(&self, scope: &Scope, wanted: Wanted) -> Option<ByteRange> {
        let Wanted::Range(range) = wanted else { return None };
        let policy = self.shared().policy(scope)?;
        (policy.cold_ranges == ColdRanges::Unverified).then_some(range)
    }

    /// Reads from a sparse fill, of this repository or another one.
    pub(in crate::registry) async fn read_sparse(
        &self,
        seat: Seat,
        (scope, digest): (&Scope, &Digest),
        wanted: Wanted,
    ) -> Result<SparseRead, PullError> {
        let fill = seat.fill.clone();
        // Whoever asks for another repository than the one it was started for has to be one to
        // whom the upstream would have given the content.
        let is_own = fill.scope == *scope;
        let proven = if is_own { None } else { Some(self.prove(scope, digest).await?) };
        let size = match fill.size().await {
            Ok(size) => size,
            Err(NotOpened::NoRoom) => {
                return self.pass_part(scope, digest, wanted).await.map(SparseRead::pull);
            }
            Err(NotOpened::Whole) => return Ok(SparseRead::Whole),
            Err(NotOpened::OutOfRange) => {
                let found = self.out_of_range(scope, digest, wanted).await?;
                return Ok(found.map_or(SparseRead::Whole, SparseRead::pull));
            }
            Err(NotOpened::Failed(PullError::BlobUnknown(_) | PullError::Denied(_))) if !is_own => {
                return Ok(SparseRead::Refused);
            }
            Err(NotOpened::Failed(error)) => return Err(error),
        };
        if let Some(proven) = proven.filter(|&proven| proven != size) {
            return Err(wrong_size(digest, scope, proven, size));
        }
        let part = self.part(scope, wanted);
        let want = match wanted {
            Wanted::Range(range) => match range.within(size) {
                RangeOutcome::Partial { first, last } => {
                    let is_to_end = range.is_open_ended();
                    Want { at: first, end: last + 1, is_to_end }
                }
                RangeOutcome::Whole => Want { at: 0, end: size, is_to_end: true },
                RangeOutcome::Unsatisfiable => {
                    return Ok(SparseRead::pull(size_only(digest, size)));
                }
            },
            Wanted::Bytes | Wanted::Head => Want { at: 0, end: size, is_to_end: true },
        };
        // A whole blob goes on when its client has left, as ever; who began to read to its end
        // often leaves on purpose.
        let goes_on = part.is_none();
        let Some(reader) = seat.read(want, goes_on || want.is_to_end, goes_on) else {
            return self.pass_part(scope, digest, wanted).await.map(SparseRead::pull);
        };
        if !is_own {
            self.link_when_kept(fill, scope.clone());
        }
        let is_there = reader.found() == Found::All;
        let cache = if is_there { CacheResult::Hit } else { CacheResult::Miss };
        Ok(SparseRead::pull(pull(digest, size, Content::Sparse(reader), cache, 0)))
    }

    /// From a blob of `size` bytes that arrives from its first byte to its last. A part of it that
    /// may be had unverified is not waited for when it is far: it is passed through.
    pub(in crate::registry) async fn filling(
        &self,
        fill: Arc<Fill>,
        (scope, digest): (&Scope, &Digest),
        wanted: Wanted,
        size: u64,
    ) -> Result<Pull, PullError> {
        let part = self.part(scope, wanted).filter(|range| !range.is_open_ended());
        let tail = match part.map(|range| range.within(size)) {
            Some(RangeOutcome::Partial { first, .. })
                if !fill.is_verified() && first > fill.readable() + NEAR_BYTES =>
            {
                return self.pass_part(scope, digest, wanted).await;
            }
            Some(RangeOutcome::Partial { .. }) => Tail::Open,
            _ => Tail::Held,
        };
        Ok(pull(digest, size, Content::Filling(fill, tail), CacheResult::Miss, 0))
    }

    /// Without the store: it has no room, or its disk fails. The pull must go through all the same.
    /// What may be had unverified is fetched alone.
    pub(in crate::registry) async fn pass_part(
        &self,
        scope: &Scope,
        digest: &Digest,
        wanted: Wanted,
    ) -> Result<Pull, PullError> {
        let part = self.part(scope, wanted).filter(|range| !range.is_open_ended());
        let passing = match part {
            None => Box::pin(self.pass_through(scope, digest)).await?,
            Some(range) => match Box::pin(self.pass_range(scope, digest, range)).await? {
                Some(passing) => passing,
                None => match Box::pin(self.out_of_range(scope, digest, wanted)).await? {
                    Some(size_only) => return Ok(size_only),
                    None => Box::pin(self.pass_through(scope, digest)).await?,
                },
            },
        };
        let size = passing.size();
        Ok(pull(digest, size, Content::Passing(Box::new(passing)), CacheResult::Miss, 0))
    }

    /// The upstream has answered for this repository, too.
    fn link_when_kept(&self, fill: Arc<SparseFill>, scope: Scope) {
        let shared = self.shared().clone();
        spawn(async move {
            if fill.is_kept().await
                && let Err(error) = commit::link(&shared, &scope, &fill.digest).await
            {
                tracing::warn!(%error, %scope, "a proven link was not kept");
            }
        });
    }

    /// The upstream says that a range lies outside the content: so it does, or it is asked for as a
    /// whole.
    pub(in crate::registry) async fn out_of_range(
        &self,
        scope: &Scope,
        digest: &Digest,
        wanted: Wanted,
    ) -> Result<Option<Pull>, PullError> {
        let Wanted::Range(range) = wanted else { return Ok(None) };
        let size = self.prove(scope, digest).await?;
        let is_outside = range.within(size) == RangeOutcome::Unsatisfiable;
        Ok(is_outside.then(|| size_only(digest, size)))
    }
}

/// Enough to answer 416.
fn size_only(digest: &Digest, size: u64) -> Pull {
    pull(digest, size, Content::HeadOnly, CacheResult::Miss, 0)
}
