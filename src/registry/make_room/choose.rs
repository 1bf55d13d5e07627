//! Which contents go: drawn from the index, judged by the policy.

use std::collections::HashSet;

use super::super::eviction::{self, Choice, ROUNDS_MAX, SAMPLES};
use super::{BATCH_MAX, Claim, Limit, RoomMaker};
use crate::catalog::BlobRecord;
use crate::index::{self, BlobEntry};
use crate::oci::Digest;
use crate::runtime::clock;

/// Content that may go.
#[derive(Debug, Clone)]
pub(super) struct Victim {
    pub(super) record: BlobRecord,
    pub(super) hits: u32,
}

impl Victim {
    /// What it is counted as.
    pub(super) fn claim(&self) -> Claim {
        let BlobRecord { pool, owner, size, .. } = self.record;
        Claim { pool, owner, is_hosted: false, bytes: size }
    }
}

impl RoomMaker {
    /// Contents of together at least `goal` bytes that are held against this limit, the ones worth
    /// least first, as far as there are so many that may go.
    pub(super) fn choose(&mut self, limit: Limit, goal: u64) -> Vec<Victim> {
        let mut victims = Vec::new();
        let (mut chosen, mut bytes) = (HashSet::new(), 0);
        let mut rounds = ROUNDS_MAX;
        while bytes < goal && victims.len() < BATCH_MAX {
            let Some((victim, is_spared)) = self.choose_one(limit, &chosen, rounds) else { break };
            // That nothing better is left has just been found out.
            rounds = if is_spared { 1 } else { ROUNDS_MAX };
            bytes += victim.record.size;
            chosen.insert(victim.record.digest);
            victims.push(victim);
        }
        victims
    }

    /// One of those that may go, and whether it should rather stay.
    fn choose_one(
        &mut self,
        limit: Limit,
        chosen: &HashSet<Digest>,
        rounds: usize,
    ) -> Option<(Victim, bool)> {
        let now = clock::unix_seconds();
        let now_minute = u32::try_from(now / 60).unwrap_or(u32::MAX);
        let mut fallback: Option<(f64, Victim)> = None;
        for _ in 0..rounds {
            let (drawn, is_all) = self.draw(limit, now);
            let (samples, mut victims): (Vec<_>, Vec<_>) = drawn
                .into_iter()
                .filter_map(|drawn| self.judge(&drawn, now))
                .filter(|(_, victim)| !chosen.contains(&victim.record.digest))
                .unzip();
            match eviction::choose(&samples, now_minute) {
                Choice::Victim(n) => return Some((victims.swap_remove(n), false)),
                Choice::Spared(n) => {
                    let worth = samples.get(n).map_or(f64::MAX, |it| it.worth(now_minute));
                    if fallback.as_ref().is_none_or(|(least, _)| worth < *least) {
                        fallback = Some((worth, victims.swap_remove(n)));
                    }
                }
                Choice::Nothing => {}
            }
            if is_all {
                break;
            }
        }
        fallback.map(|(_, victim)| (victim, true))
    }

    /// [`SAMPLES`] contents drawn at random from those that are held against a limit; and whether
    /// these are all. Few of many, and any in a table that is almost empty, are rarely drawn: then
    /// the table is looked through for them, from a random place on.
    fn draw(&mut self, limit: Limit, now: u64) -> (Vec<index::Sample>, bool) {
        let Self { index, store, space, random, .. } = self;
        // What is in a missing pool frees nothing, nor what cannot be removed.
        let counts = |drawn: &index::Sample| {
            let BlobEntry { pool, owner, is_hosted, keeping, .. } = drawn.entry;
            let must_stay = is_hosted || keeping.must_stay(now);
            let may_go = !must_stay && limit.counts(pool, owner);
            may_go && store.has_pool(pool) && !space.is_fixed(pool)
        };
        let table = index.counts();
        let is_sparse = table.blobs < table.slots / SAMPLES as u64;
        if limit == Limit::Total && !is_sparse {
            let draws = (0..SAMPLES).filter_map(|_| index.sample(random.next()));
            return (draws.filter(counts).collect(), false);
        }
        let mut drawn = Vec::with_capacity(SAMPLES);
        index.walk(random.next(), |sample| {
            if counts(&sample) {
                drawn.push(sample);
            }
            drawn.len() < SAMPLES
        });
        let is_all = drawn.len() < SAMPLES;
        (drawn, is_all)
    }

    /// What the policy has to know of content that was drawn.
    fn judge(&self, drawn: &index::Sample, now: u64) -> Option<(eviction::Sample, Victim)> {
        let digest = match drawn.digest {
            Some(digest) => digest,
            // The index has only half of a SHA-512.
            None => self
                .catalog
                .find_sha512(&drawn.prefix)
                .inspect_err(|error| {
                    tracing::warn!(%error, "content that was drawn cannot be looked up");
                })
                .ok()??,
        };
        let BlobEntry { size, pool, owner, is_hosted, keeping } = drawn.entry;
        let hits = drawn.hits;
        let sample = eviction::Sample {
            size,
            last_use_minute: u32::try_from(drawn.last_use_minute).unwrap_or(u32::MAX),
            hits,
            is_hosted,
            is_pinned: keeping.is_pinned,
            is_expired: keeping.is_expired(now),
            priority: keeping.priority,
            is_leased: self.leases.holds(&digest),
            is_needed: self.needs.contains(&digest, now),
        };
        let record = BlobRecord { digest, size, pool, is_hosted, owner, keeping };
        Some((sample, Victim { record, hits }))
    }
}

/// xorshift64*: enough to draw samples with.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}
