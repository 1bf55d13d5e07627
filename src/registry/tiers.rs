//! The declared remote tiers as all workers see them: which one may be asked now, what came of it.
//!
//! A tier is a help and never a need: one that fails is left alone for a while, so that a miss
//! does not wait for it again and again, and the upstream answers as if there were none.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use papaya::HashMap;

use crate::config::EndpointUrl;
use crate::oci::Digest;
use crate::plugin::{RemotePurpose, RemoteRequest};
use crate::runtime::clock;
use crate::upstream::{TierRequest, UpstreamError};

/// How long a tier that could not be reached is left alone; doubles with each failure.
const REST_FIRST: Duration = Duration::from_secs(10);
const REST_MAX: Duration = Duration::from_secs(300);
/// How often one tier's failures are worth a line in the log.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// How long content that a tier has wrong is not asked for there.
const WRONG_KEPT_SECONDS: u64 = 3600;
/// Contents that are remembered as wrong. Over it all are forgotten: each costs one download more.
const WRONG_MAX: usize = 4096;

/// What came of a request to a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TierOutcome {
    /// Read and verified, or written.
    Done,
    /// The tier has not got it: 404, 410, or 403, which object stores say to who may not list.
    NotFound,
    /// Not reached, refused, broken off.
    Failed,
    /// What came is not what the digest promises.
    WrongContent,
    /// Not sent: its time was over.
    Expired,
    /// Not sent: the tier had failed a moment ago.
    Resting,
}

impl TierOutcome {
    const ALL: [(TierOutcome, &'static str); 6] = [
        (TierOutcome::Done, "done"),
        (TierOutcome::NotFound, "not_found"),
        (TierOutcome::Failed, "failed"),
        (TierOutcome::WrongContent, "wrong_content"),
        (TierOutcome::Expired, "expired"),
        (TierOutcome::Resting, "resting"),
    ];
}

/// All of them; made from the configuration, which only a restart changes in this.
pub(super) struct Tiers {
    tiers: Box<[Tier]>,
    /// Contents that a tier had wrong, and when that was seen (Unix seconds).
    wrong: HashMap<Digest, u64>,
}

/// One of them.
pub(super) struct Tier {
    origin: String,
    began: Instant,
    /// Connections that failed one after another.
    failures: AtomicU32,
    /// Until when it is left alone, in milliseconds since `began`.
    rests_until: AtomicU64,
    /// When its failures were last told, likewise; 0: never.
    warned_at: AtomicU64,
    untold: AtomicU64,
    reads: [AtomicU64; TierOutcome::ALL.len()],
    writes: [AtomicU64; TierOutcome::ALL.len()],
}

/// A request that may be sent now, and its outcome.
pub(super) struct Asking<'a> {
    tier: &'a Tier,
    /// Those of the tier when it was let through.
    failures: u32,
}

/// A count of requests to a tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierCount {
    /// Its origin, as declared.
    pub tier: String,
    /// `read` or `write`.
    pub purpose: &'static str,
    /// What came of them.
    pub outcome: &'static str,
    /// How many.
    pub count: u64,
}

impl Tiers {
    pub(super) fn new(declared: &[EndpointUrl]) -> Self {
        let tier = |url: &EndpointUrl| Tier {
            origin: url.to_string(),
            began: clock::now(),
            failures: AtomicU32::new(0),
            rests_until: AtomicU64::new(0),
            warned_at: AtomicU64::new(0),
            untold: AtomicU64::new(0),
            reads: Default::default(),
            writes: Default::default(),
        };
        Self { tiers: declared.iter().map(tier).collect(), wrong: HashMap::new() }
    }

    /// Whether none is declared.
    pub(super) fn is_empty(&self) -> bool {
        self.tiers.is_empty()
    }

    /// The tier of a request, if it may be sent now; otherwise that is counted.
    pub(super) fn ready(&self, request: &RemoteRequest) -> Option<Asking<'_>> {
        let is_below = |tier: &&Tier| {
            request.url.strip_prefix(&tier.origin).is_some_and(|rest| rest.starts_with('/'))
        };
        let tier = self.tiers.iter().find(is_below)?;
        if has_expired(request) {
            tier.count(request.purpose, TierOutcome::Expired);
            return None;
        }
        let asking = tier.ask();
        if asking.is_none() {
            tier.count(request.purpose, TierOutcome::Resting);
        }
        asking
    }

    /// A tier has this content wrong: for a while it is fetched elsewhere.
    pub(super) fn note_wrong(&self, digest: &Digest) {
        let wrong = self.wrong.pin();
        if wrong.len() >= WRONG_MAX {
            wrong.clear();
        }
        wrong.insert(*digest, clock::unix_seconds());
    }

    /// What a tier had wrong was written anew.
    pub(super) fn note_written(&self, digest: &Digest) {
        self.wrong.pin().remove(digest);
    }

    /// Whether a tier had this content wrong a while ago.
    pub(super) fn has_wrong(&self, digest: &Digest) -> bool {
        let since = self.wrong.pin().get(digest).copied();
        since.is_some_and(|at| clock::unix_seconds().saturating_sub(at) < WRONG_KEPT_SECONDS)
    }

    /// All counts, those of nothing included.
    pub(super) fn counts(&self) -> Vec<TierCount> {
        let mut counts = Vec::new();
        for tier in &self.tiers {
            for (purpose, cells) in [("read", &tier.reads), ("write", &tier.writes)] {
                for ((_, outcome), cell) in TierOutcome::ALL.into_iter().zip(cells) {
                    let count = cell.load(Ordering::Relaxed);
                    counts.push(TierCount { tier: tier.origin.clone(), purpose, outcome, count });
                }
            }
        }
        counts
    }
}

impl Tier {
    /// After a failure one request asks first, and the others leave the tier alone until it has
    /// been answered.
    fn ask(&self) -> Option<Asking<'_>> {
        let failures = self.failures.load(Ordering::Acquire);
        let asking = Asking { tier: self, failures };
        if failures == 0 {
            return Some(asking);
        }
        let (now, until) = (self.millis(), self.rests_until.load(Ordering::Acquire));
        let next = now.saturating_add(millis(REST_FIRST));
        let take =
            || self.rests_until.compare_exchange(until, next, Ordering::AcqRel, Ordering::Relaxed);
        (now >= until && take().is_ok()).then_some(asking)
    }

    fn millis(&self) -> u64 {
        millis(clock::now().saturating_duration_since(self.began))
    }

    fn count(&self, purpose: RemotePurpose, outcome: TierOutcome) {
        let cells = match purpose {
            RemotePurpose::Read => &self.reads,
            RemotePurpose::Write => &self.writes,
        };
        let place = TierOutcome::ALL.iter().position(|(one, _)| *one == outcome);
        if let Some(cell) = place.and_then(|place| cells.get(place)) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Asking<'_> {
    /// It has answered, whatever it said.
    pub(super) fn answered(&self) {
        self.tier.failures.store(0, Ordering::Release);
    }

    /// It did not answer, or broke off.
    pub(super) fn broke(&self, purpose: RemotePurpose, error: &UpstreamError) {
        use UpstreamError::{Blocked, Closed, Interrupted, Timeout, Tls, Unreachable};
        if let Unreachable { .. }
        | Closed { .. }
        | Timeout { .. }
        | Tls { .. }
        | Blocked { .. }
        | Interrupted { .. } = error
        {
            let (tier, before) = (self.tier, self.failures);
            let rest = REST_FIRST.saturating_mul(2_u32.saturating_pow(before)).min(REST_MAX);
            let counted = before.saturating_add(1);
            let failures = &tier.failures;
            // Of those that were on their way together, one counts.
            if failures
                .compare_exchange(before, counted, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
            {
                let until = tier.millis().saturating_add(millis(rest));
                tier.rests_until.store(until, Ordering::Release);
            }
        }
        self.failed(purpose, TierOutcome::Failed, error);
    }

    /// A request failed: counted, and told now and then.
    pub(super) fn failed(
        &self,
        purpose: RemotePurpose,
        outcome: TierOutcome,
        reason: &dyn std::fmt::Display,
    ) {
        self.count(purpose, outcome);
        let Tier { warned_at, untold, origin, .. } = self.tier;
        let (now, last) = (self.tier.millis().max(1), warned_at.load(Ordering::Relaxed));
        let is_due = last == 0 || now.saturating_sub(last) >= millis(WARN_EVERY);
        let taken =
            || warned_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_due && taken() {
            let untold = untold.swap(0, Ordering::Relaxed);
            tracing::warn!(tier = %origin, purpose = word(purpose), %reason, untold,
                "a remote tier failed; told once a minute at most");
        } else {
            untold.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn count(&self, purpose: RemotePurpose, outcome: TierOutcome) {
        self.tier.count(purpose, outcome);
    }
}

/// Whether it must not be sent any more.
fn has_expired(request: &RemoteRequest) -> bool {
    request.expires.is_some_and(|expires| std::time::SystemTime::now() >= expires)
}

/// The request as it goes on the wire.
pub(super) fn signed(request: &RemoteRequest) -> TierRequest<'_> {
    TierRequest { method: request.method, url: &request.url, headers: &request.headers }
}

fn word(purpose: RemotePurpose) -> &'static str {
    match purpose {
        RemotePurpose::Read => "read",
        RemotePurpose::Write => "write",
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::oci::Algorithm;

    fn tiers() -> Tiers {
        let urls = ["https://a.example", "http://127.0.0.1:9000"];
        Tiers::new(&urls.map(|url| EndpointUrl::parse(url).unwrap()))
    }

    fn request(url: &str, expires: Option<SystemTime>) -> RemoteRequest {
        let (purpose, method) = (RemotePurpose::Read, "GET");
        RemoteRequest { purpose, method, url: url.into(), headers: Vec::new(), expires }
    }

    fn count(tiers: &Tiers, outcome: &str) -> u64 {
        tiers.counts().iter().filter(|one| one.outcome == outcome).map(|one| one.count).sum()
    }

    #[test]
    fn only_declared_tiers_are_asked_and_only_in_time() {
        let tiers = tiers();
        let now = SystemTime::now();
        assert!(tiers.ready(&request("https://a.example/k?s=1", None)).is_some());
        assert!(tiers.ready(&request("http://127.0.0.1:9000/k", None)).is_some());
        for other in ["https://a.example.org/k", "https://a.example:8443/k", "http://a.example/k"] {
            assert!(tiers.ready(&request(other, None)).is_none(), "{other}");
        }
        let later = now.checked_add(Duration::from_secs(60));
        assert!(tiers.ready(&request("https://a.example/k", later)).is_some());
        assert!(tiers.ready(&request("https://a.example/k", Some(now))).is_none());
        assert_eq!(count(&tiers, "expired"), 1);
    }

    #[test]
    fn a_tier_that_failed_is_left_alone_until_it_answers() {
        let tiers = tiers();
        let down = request("https://a.example/k", None);
        let up = request("http://127.0.0.1:9000/k", None);
        let asking = tiers.ready(&down).unwrap();
        let internal = UpstreamError::UndeclaredTier;
        asking.broke(RemotePurpose::Read, &internal);
        assert!(tiers.ready(&down).is_some(), "a fault of ours is none of the tier");
        let error = UpstreamError::Unreachable {
            at: Box::new(crate::upstream::Site {
                upstream: crate::oci::Namespace::parse("a.example").unwrap(),
                address: "https://a.example/k".into(),
                is_tier: true,
            }),
            reason: "gone".into(),
        };
        let together = tiers.ready(&down).unwrap();
        asking.broke(RemotePurpose::Read, &error);
        let tier = asking.tier;
        let rest = || tier.rests_until.load(Ordering::Relaxed) - tier.millis();
        assert!(tiers.ready(&down).is_none() && tiers.ready(&up).is_some());
        assert_eq!((count(&tiers, "failed"), count(&tiers, "resting")), (2, 1));
        assert!((9_000..=10_000).contains(&rest()));
        together.broke(RemotePurpose::Read, &error);
        assert!((9_000..=10_000).contains(&rest()), "{}", rest());
        for failures in 1..40 {
            // One asks when the time has come, the others wait for what it hears.
            tier.rests_until.store(0, Ordering::Relaxed);
            let asking = tiers.ready(&down).unwrap();
            assert!(tiers.ready(&down).is_none());
            asking.broke(RemotePurpose::Read, &error);
            let expected = 10_000_u64.saturating_mul(2_u64.saturating_pow(failures)).min(300_000);
            assert!((expected - 1000..=expected).contains(&rest()), "{failures}: {}", rest());
        }
        tier.rests_until.store(0, Ordering::Relaxed);
        tiers.ready(&down).unwrap().answered();
        assert!(tiers.ready(&down).is_some() && tiers.ready(&down).is_some());
    }

    #[test]
    fn what_a_tier_has_wrong_is_remembered_until_it_is_written_anew() {
        let tiers = tiers();
        let digest = |n: usize| Digest::of(Algorithm::Sha256, n.to_string().as_bytes());
        tiers.note_wrong(&digest(1));
        assert!(tiers.has_wrong(&digest(1)) && !tiers.has_wrong(&digest(2)));
        tiers.note_written(&digest(1));
        assert!(!tiers.has_wrong(&digest(1)));
        (0..=WRONG_MAX).for_each(|n| tiers.note_wrong(&digest(n)));
        assert!(tiers.wrong.pin().len() <= WRONG_MAX);
    }
}
