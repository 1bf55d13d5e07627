//! What one login may still ask of its upstream: a token bucket that believes what the upstream
//! says of it.
//!
//! ```text
//! left = least of: the limit; what the last answer said was left, and what has come back since at
//!        limit ÷ window a second; less the requests that are under way
//! ```
//!
//! Without such an answer there is no bucket: only a 429 then holds requests back. Pure: no clock,
//! no lock. Times are milliseconds since the Unix epoch, so that they hold over a restart; a clock
//! that was set back gives nothing back until it has caught up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ratelimit::RateLimit;

/// The share of the limit that is kept for content nobody has here: below it nothing is spent on
/// asking whether tags have moved.
const RESERVE_SHARE: f64 = 0.25;
/// How long a 429 without `Retry-After` holds requests back; doubles with each one that follows.
const REFUSED_FOR: Duration = Duration::from_secs(15);
/// And at most.
const REFUSED_FOR_MAX: Duration = Duration::from_secs(15 * 60);
/// Over which time the pace of spending is averaged, for the forecast.
const PACE_MS: f64 = 10.0 * 60.0 * 1000.0;
/// A pace that has been seen for less is taken to have been seen for this long: two requests in a
/// row are no trend.
const PACE_KNOWN_MS_MIN: f64 = 60.0 * 1000.0;

/// How far a budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pressure {
    /// Nothing is known, or there is enough.
    Free,
    /// What is left is for content that nobody has here.
    Saving,
    /// Nothing is left, or the upstream has said 429.
    Empty,
}

/// One login's budget.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Budget {
    bucket: Option<Bucket>,
    refused: Option<Refused>,
    /// 429s in a row that did not say how long.
    refusals: u32,
    /// Requests under way that count.
    #[serde(skip)]
    pending: u32,
    #[serde(skip)]
    pace: Pace,
}

/// What the upstream said, and when.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Bucket {
    limit: u64,
    window_ms: u64,
    remaining: f64,
    told_at: u64,
}

/// A 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Refused {
    until: u64,
    /// Also of what does not count: it was not the bucket that was empty.
    is_all: bool,
}

/// Requests that counted, each forgotten by and by.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Pace {
    requests: f64,
    at: u64,
    /// When the first of them was, so that a short history is no slow pace.
    since: u64,
}

impl Budget {
    /// Whether a request may be sent now. One that `counts` is then under way until
    /// [`Budget::done`].
    ///
    /// # Errors
    /// How long to wait at least.
    pub(super) fn admit(&mut self, counts: bool, now: u64) -> Result<(), Duration> {
        if let Some(refused) = self.refused.filter(|refused| now < refused.until)
            && (refused.is_all || counts)
        {
            return Err(Duration::from_millis(refused.until - now));
        }
        if !counts {
            return Ok(());
        }
        if let Some(bucket) = self.bucket {
            let left = bucket.left(now) - f64::from(self.pending);
            if left < 1.0 {
                let wait = ((1.0 - left) / bucket.per_ms()).min(bucket.window_ms as f64);
                return Err(Duration::from_millis(wait.max(1.0) as u64));
            }
        }
        self.pending += 1;
        self.pace.add(now);
        Ok(())
    }

    /// A request that counted is over.
    pub(super) fn done(&mut self) {
        self.pending = self.pending.saturating_sub(1);
    }

    /// What an answer says: its rate limit, and whether it is a 429 (to a request that `counted`),
    /// with the wait it asks for.
    pub(super) fn answered(
        &mut self,
        told: Option<RateLimit>,
        refusal: Option<(bool, Option<Duration>)>,
        now: u64,
    ) {
        if let Some(RateLimit { limit, remaining, window }) = told {
            let remaining = remaining.min(limit) as f64;
            let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1);
            self.bucket = Some(Bucket { limit, window_ms, remaining, told_at: now });
        }
        let Some((counted, wait)) = refusal else {
            self.refusals = 0;
            if self.refused.is_some_and(|refused| refused.is_all || now >= refused.until) {
                self.refused = None;
            }
            return;
        };
        let is_bucket = counted && self.bucket.is_some_and(|bucket| bucket.left(now) < 1.0);
        let guess = REFUSED_FOR.saturating_mul(2_u32.saturating_pow(self.refusals));
        if wait.is_none() {
            self.refusals = self.refusals.saturating_add(1);
        }
        let wait = wait.unwrap_or(guess.min(REFUSED_FOR_MAX));
        let until = now.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        // Several at once: the longest wait counts.
        let before = self.refused.filter(|before| before.until > until);
        self.refused = before.or(Some(Refused { until, is_all: !is_bucket }));
    }

    /// How far it is used up.
    pub(super) fn pressure(&self, now: u64) -> Pressure {
        if self.refused.is_some_and(|refused| now < refused.until) {
            return Pressure::Empty;
        }
        let Some(bucket) = self.bucket else { return Pressure::Free };
        let left = bucket.left(now) - f64::from(self.pending);
        match bucket.limit as f64 * RESERVE_SHARE {
            _ if left < 1.0 => Pressure::Empty,
            reserve if left < reserve => Pressure::Saving,
            _ => Pressure::Free,
        }
    }

    /// The share of the limit that is left, from 0 to 1; 1 when there is none.
    pub(super) fn share(&self, now: u64) -> f64 {
        if self.refused.is_some_and(|refused| now < refused.until) {
            return 0.0;
        }
        self.bucket.map_or(1.0, |bucket| {
            let left = bucket.left(now) - f64::from(self.pending);
            (left / bucket.limit.max(1) as f64).clamp(0.0, 1.0)
        })
    }

    /// The limit and what is left of it, if the upstream has said so.
    pub(super) fn figures(&self, now: u64) -> Option<(u64, u64)> {
        let bucket = self.bucket?;
        let left = (bucket.left(now) - f64::from(self.pending)).max(0.0);
        Some((bucket.limit, left as u64))
    }

    /// When it is used up if requests go on as in the last minutes; `None`: never, or nothing is
    /// known.
    pub(super) fn forecast(&self, now: u64) -> Option<Duration> {
        let bucket = self.bucket?;
        let net = self.pace.per_ms(now) - bucket.per_ms();
        let left = (bucket.left(now) - f64::from(self.pending)).max(0.0);
        let ms = left / net;
        (net > 0.0 && ms < bucket.window_ms as f64).then(|| Duration::from_millis(ms as u64))
    }

    /// Whether it says no more than a new one would.
    pub(super) fn is_spent_knowledge(&self, now: u64) -> bool {
        let is_full = |bucket: Bucket| now >= bucket.told_at.saturating_add(bucket.window_ms);
        self.bucket.is_none_or(is_full) && self.refused.is_none_or(|refused| now >= refused.until)
    }
}

impl Bucket {
    fn per_ms(&self) -> f64 {
        self.limit.max(1) as f64 / self.window_ms.max(1) as f64
    }

    fn left(&self, now: u64) -> f64 {
        let back = now.saturating_sub(self.told_at) as f64 * self.per_ms();
        (self.remaining + back).min(self.limit as f64)
    }
}

impl Pace {
    fn add(&mut self, now: u64) {
        if self.requests == 0.0 {
            self.since = now;
        }
        self.requests = self.decayed(now) + 1.0;
        self.at = now;
    }

    fn decayed(&self, now: u64) -> f64 {
        self.requests * (-(now.saturating_sub(self.at) as f64) / PACE_MS).exp()
    }

    fn per_ms(&self, now: u64) -> f64 {
        let known_for = (now.saturating_sub(self.since) as f64).max(PACE_KNOWN_MS_MIN);
        self.decayed(now) / (PACE_MS * (1.0 - (-known_for / PACE_MS).exp()))
    }
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
