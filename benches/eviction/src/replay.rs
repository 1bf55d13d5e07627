//! One cache, one policy, one trace: what share of the requests, of the bytes, and of whole pulls
//! needed no upstream.

use crate::policies::{Policy, Request};
use crate::trace::Trace;

/// Shares in percent, after the warm-up.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ratios {
    pub(crate) objects: f64,
    pub(crate) bytes: f64,
    /// Pulls of which every object was there.
    pub(crate) pulls: f64,
}

/// The first part of the trace fills the cache and isn't counted.
const WARM_UP: f64 = 0.25;

/// Hits and all, in some unit.
#[derive(Default)]
struct Share {
    hits: u64,
    all: u64,
}

impl Share {
    fn count(&mut self, amount: u64, is_hit: bool) {
        self.all += amount;
        self.hits += if is_hit { amount } else { 0 };
    }

    fn percent(&self) -> f64 {
        100.0 * self.hits as f64 / self.all.max(1) as f64
    }
}

/// The cache's bytes: once there would be more than `high`, it is emptied to `low`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) high: u64,
    pub(crate) low: u64,
}

/// Plays the trace through a cache of this room.
pub(crate) fn replay(
    trace: &Trace,
    next_uses: &[u32],
    policy: &mut dyn Policy,
    room: Room,
) -> Ratios {
    let (mut objects, mut bytes, mut pulls) =
        (Share::default(), Share::default(), Share::default());
    let mut is_resident = vec![false; trace.sizes.len()];
    let (mut used, mut number) = (0, 0);
    let counted_from = (trace.pulls.len() as f64 * WARM_UP) as usize;
    for (at, &pull) in trace.pulls.iter().enumerate() {
        let is_counted = at >= counted_from;
        let mut is_whole = true;
        policy.needed(&trace.images[pull.image as usize].objects, pull.minute);
        for object in trace.requests(pull) {
            let size = trace.sizes[object as usize];
            let next_use = next_uses[number];
            number += 1;
            let request = Request { object, size, minute: pull.minute, next_use };
            let is_hit = is_resident[object as usize];
            is_whole &= is_hit;
            if is_counted {
                objects.count(1, is_hit);
                bytes.count(size, is_hit);
            }
            if is_hit {
                policy.hit(request);
                continue;
            }
            if size > room.low {
                continue;
            }
            let most = if used + size > room.high { room.low } else { room.high };
            while used + size > most {
                let Some(victim) = policy.evict(pull.minute) else { break };
                debug_assert!(is_resident[victim as usize], "evicted what is not there");
                is_resident[victim as usize] = false;
                used -= trace.sizes[victim as usize];
            }
            is_resident[object as usize] = true;
            used += size;
            policy.insert(request);
            debug_assert!(used <= room.high, "kept more than there is room for");
        }
        if is_counted {
            pulls.count(1, is_whole);
        }
    }
    Ratios { objects: objects.percent(), bytes: bytes.percent(), pulls: pulls.percent() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ROWS;
    use crate::trace::TraceOptions;

    /// Each row's ratios for a short trace, with this share of the room that it needs.
    fn ratios(share: f64) -> Vec<Ratios> {
        let options = TraceOptions { days: 3, waves_a_day: 150, ..TraceOptions::default() };
        let trace = Trace::generate(&options, 1);
        let next_uses = trace.next_uses();
        let high = (trace.sizes.iter().sum::<u64>() as f64 * share) as u64;
        let room = Room { high, low: high / 10 * 9 };
        let row = |kind: crate::policies::Kind| {
            replay(&trace, &next_uses, kind.build(&trace, high).as_mut(), room)
        };
        ROWS.into_iter().map(row).collect()
    }

    #[test]
    fn all_policies_are_equal_where_all_fits() {
        let found = ratios(1.2);
        let is_equal =
            |one: &Ratios| one.objects == found[0].objects && one.pulls == found[0].pulls;
        assert!(found.iter().all(is_equal), "{found:?}");
    }

    #[test]
    fn no_policy_loses_track_of_what_is_there() {
        // The assertions of `replay` are the test; the ratios only have to be possible.
        for share in [0.0, 0.01, 0.1] {
            for (kind, found) in ROWS.iter().zip(ratios(share)) {
                assert!((0.0..100.0).contains(&found.objects), "{}: {found:?}", kind.name());
            }
        }
    }
}
