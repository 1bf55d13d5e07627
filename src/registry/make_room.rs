//! The thread that evicts cached content when the store is over its limit.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::eviction::{self, Choice, ROUNDS_MAX, SAMPLES};
use super::state::Shared;
use crate::catalog::Write;
use crate::index;
use crate::oci::Digest;
use crate::runtime::clock;

/// How often the thread looks around unasked.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Content used within this many minutes counts as in use: a pull opens its blobs one after the
/// other, and a running body says every while that it is still being read.
const LEASE_MINUTES: u32 = 1;

/// Starts the thread; it ends with the process.
///
/// # Errors
/// The operating system refused it.
pub(super) fn start(shared: Arc<Shared>, wanted: Receiver<()>) -> io::Result<()> {
    std::thread::Builder::new().name("space".into()).spawn(move || {
        let mut random = Random(clock::unix_time().as_nanos() as u64 | 1);
        loop {
            match wanted.recv_timeout(LOOK_INTERVAL) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => make_room(&shared, &mut random),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    })?;
    Ok(())
}

/// Evicts until the store is below its low watermark, or nothing may go.
fn make_room(shared: &Shared, random: &mut Random) {
    loop {
        match shared.store.free_bytes() {
            Ok(free) => shared.space.set_disk_free(free),
            Err(error) => tracing::error!(%error, "cannot tell how much room the disk has"),
        }
        if shared.space.excess() == 0 {
            return;
        }
        let Some(victim) = choose(shared, random) else {
            tracing::warn!(
                excess = shared.space.excess(),
                used = shared.space.used(),
                "the store is over its limit and nothing may be evicted"
            );
            return;
        };
        if !evict(shared, &victim) {
            return;
        }
    }
}

/// Content that may go.
struct Victim {
    digest: Digest,
    size: u64,
    hits: u32,
}

fn choose(shared: &Shared, random: &mut Random) -> Option<Victim> {
    let now = clock::unix_seconds();
    let now_minute = u32::try_from(now / 60).unwrap_or(u32::MAX);
    let mut fallback = None;
    for _ in 0..ROUNDS_MAX {
        let (samples, mut victims): (Vec<_>, Vec<_>) = (0..SAMPLES)
            .filter_map(|_| judge(shared, &shared.index.sample(random.next())?, now_minute, now))
            .unzip();
        match eviction::choose(&samples, now_minute) {
            Choice::Victim(n) => return Some(victims.swap_remove(n)),
            Choice::Needed(n) => fallback = Some(victims.swap_remove(n)),
            Choice::Nothing => {}
        }
    }
    fallback
}

/// What the policy has to know of content that was drawn.
fn judge(
    shared: &Shared,
    drawn: &index::Sample,
    now_minute: u32,
    now: u64,
) -> Option<(eviction::Sample, Victim)> {
    let digest = match drawn.digest {
        Some(digest) => digest,
        // The index has only half of a SHA-512.
        None => shared
            .catalog
            .find_sha512(&drawn.prefix)
            .inspect_err(|error| {
                tracing::warn!(%error, "content that was drawn cannot be looked up");
            })
            .ok()??,
    };
    let last_use_minute = u32::try_from(drawn.last_use_minute).unwrap_or(u32::MAX);
    let (size, hits) = (drawn.entry.size, drawn.hits);
    let sample = eviction::Sample {
        size,
        last_use_minute,
        hits,
        is_hosted: drawn.entry.is_hosted,
        is_leased: now_minute.saturating_sub(last_use_minute) < LEASE_MINUTES && hits > 0,
        is_needed: shared.needs.contains(&digest, now),
    };
    Some((sample, Victim { digest, size, hits }))
}

/// The name goes first, so that no new pull finds the content; whoever reads it goes on reading.
fn evict(shared: &Shared, victim: &Victim) -> bool {
    let digest = &victim.digest;
    if let Err(error) = shared.catalog.write_blocking(vec![Write::RemoveBlob(*digest)], false) {
        // The index has forgotten it all the same; a catalog that still names a file that is gone
        // is set right when somebody asks for it.
        tracing::warn!(%digest, %error, "evicted, but still in the catalog");
    }
    if let Err(error) = shared.store.remove_blob(digest) {
        tracing::error!(%digest, %error, "evicted content could not be removed");
        return false;
    }
    shared.space.count_eviction(victim.size);
    tracing::debug!(%digest, size = victim.size, hits = victim.hits, "evicted");
    true
}

/// xorshift64*: enough to draw samples with.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_counts_uses_as_the_policy_was_measured_with() {
        for hits in [0, 1, 2, 5, 100, 4095] {
            for (last, now) in [(0, 0), (5, 6), (1439, 1440), (10, 100_000), (9_000, 10), (7, 7)] {
                let (index, policy) =
                    (index::counted(hits, last, now), eviction::counted(hits, last, now));
                assert_eq!(index, policy, "{hits} hits, {last} to {now}");
            }
        }
    }
}
